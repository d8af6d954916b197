"""What an oplog means to a restore: pure interpretation of entries, no I/O.

Raw entries go in, in order; out come minimal operations for `applyOps`, each with the partition
it belongs to, and commands that have to run alone between them. What the base of the restore
already holds is left out, transactions are held back until they commit, and index commands are
folded into the list of indexes each collection has at the end.
"""
