"""Writes entities to typed tables of the project: upserts, child rows, deletions, and the making of missing tables."""
