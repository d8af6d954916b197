"""The verbs of `ctl storage`. None of them opens a storage: agents do."""
