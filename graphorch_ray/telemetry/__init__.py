"""What you see of a run."""

from .summary import NodeSummary, RunSummary, SummaryRecorder

__all__ = ["NodeSummary", "RunSummary", "SummaryRecorder"]
