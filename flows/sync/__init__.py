"""Runs a sync: lists pages, works the jobs, deletes what is gone, and concludes."""
