"""The version of sync-clients: the one place that says it."""

VERSION = "0.1.0"
