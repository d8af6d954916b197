"""Real processes, a seeded workload and an exact comparer: what the outer test rings stand on."""
