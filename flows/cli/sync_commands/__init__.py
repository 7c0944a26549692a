"""The commands about syncs: `list`, `run`, `runs`, `records`, `forget`."""
