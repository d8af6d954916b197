"""A backup as a directory that `mongorestore` reads."""
