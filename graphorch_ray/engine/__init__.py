"""What happens next: the superstep machine, with no Ray, no clock and no input or output."""

from .commands import (
    Activation,
    AskRouter,
    CancelRest,
    Command,
    DeadlineExpired,
    Event,
    FallbackInvoked,
    RestoreCheckpoint,
    RetryDue,
    RouterAnswered,
    RunFailed,
    RunFinished,
    ScheduleRetry,
    StatesDropped,
    SuperstepEnded,
    SuperstepStarted,
)
from .machine import EngineOptions, Phase, SuperstepMachine

__all__ = [
    "Activation",
    "AskRouter",
    "CancelRest",
    "Command",
    "DeadlineExpired",
    "EngineOptions",
    "Event",
    "FallbackInvoked",
    "Phase",
    "RestoreCheckpoint",
    "RetryDue",
    "RouterAnswered",
    "RunFailed",
    "RunFinished",
    "ScheduleRetry",
    "StatesDropped",
    "SuperstepEnded",
    "SuperstepMachine",
    "SuperstepStarted",
]
