"""What survives: checkpoints of a run, and where they are kept."""

from .data import CheckpointData

__all__ = ["CheckpointData"]
