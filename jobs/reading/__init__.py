"""Answers what people ask of the tables: runs, syncs, records. Plain SQL over the driver, so that commands answer at once."""
