"""Writes the records of a sync to a file: CSV, JSON lines or Parquet."""
