"""Deprecated: the entrypoints of `pause`, `resume` and `pauses` in deployments of earlier releases; now in `pause_flows`."""

import warnings

from flows.orchestration.pause_flows import pause, pauses, resume

__all__ = ["pause", "pauses", "resume"]

warnings.warn(
    "flows/orchestration/holds.py is deprecated: run `syncs setup`, which deploys flows/orchestration/pause_flows.py",
    DeprecationWarning,
    stacklevel=2,
)
