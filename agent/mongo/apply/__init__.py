"""Writing to the primary of a restore's target: raw inserts, `applyOps`, indexes, principals."""
