"""Who acts: leases, election, heartbeats, wake-ups."""
