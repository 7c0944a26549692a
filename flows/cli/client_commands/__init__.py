"""The commands that name a client: `check`, `notices`, `pause`, `resume`, `pauses`."""
