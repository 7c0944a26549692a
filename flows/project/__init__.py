"""The project of the user: its files, declarations, settings, secrets and processes."""
