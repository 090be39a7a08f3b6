"""What survives: checkpoints of a run, and where they are kept.

Example:
    ```python
    from graphorch_ray import checkpoint

    checkpoint.describe("runs/7").active
    checkpoint.keep("runs/7", "before the new model")
    ```
"""

from .catalog import (
    CheckpointDescription,
    StateInfo,
    describe,
    keep,
    list_checkpoints,
    release,
)
from .data import CheckpointData
from .encoding import Description
from .settings import CheckpointSettings
from .store import CheckpointInfo

__all__ = [
    "CheckpointData",
    "CheckpointDescription",
    "CheckpointInfo",
    "CheckpointSettings",
    "Description",
    "StateInfo",
    "describe",
    "keep",
    "list_checkpoints",
    "release",
]
