"""Logical backups: the snapshot of each replica set, its oplog span, and the publication."""
