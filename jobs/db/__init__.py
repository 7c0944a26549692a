"""The database: connections, transactions, the clock, notifications and batched statements."""
