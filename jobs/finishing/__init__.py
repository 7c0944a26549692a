"""Finishes jobs: the fence, state transitions and checkpoints."""
