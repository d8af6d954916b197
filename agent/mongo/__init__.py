"""The mongod this agent serves: reading and writing data."""
