"""Object storages behind one protocol of seven verbs."""
