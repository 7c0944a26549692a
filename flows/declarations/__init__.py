"""What a file in `syncs/` declares: clients, syncs, job types and their policies. Frozen values; making one has no effect."""
