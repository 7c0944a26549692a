"""The history of runs: the row of each run, and which syncs are late."""
