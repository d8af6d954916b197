"""A mongod of our own, for a while: what proofs and exports restore into."""
