"""The state of a listing: page transactions, cursor, generation, ledger and sweep."""
