"""How checkpoints are kept: the keyword arguments of `GraphExecutor` that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

Durability = Literal["async", "sync", "exit"]
Granularity = Literal["superstep", "node"]
OnCheckpointError = Literal["raise", "warn"]


class CheckpointSettings(TypedDict, total=False):
    """How checkpoints are kept; keyword arguments of `GraphExecutor`.

    Attributes:
        checkpoint_durability: ``"async"`` (default) writes while the next superstep runs, at most
            one behind; ``"sync"`` starts no superstep before the checkpoint is durable; ``"exit"``
            writes only where the run starts and ends.
        checkpoint_granularity: ``"superstep"`` (default), or ``"node"``: each finished node of a
            superstep is kept too, so that after a crash only the unfinished ones run again.
        keep_last: how many supersteps are kept; older ones are deleted, while the run goes on in
            lots of 16 where they hold small states only. Default 3; None keeps all.
        checkpoint_compression: None (default), or ``"zstd"``.
        on_checkpoint_error: ``"raise"`` (default) ends the run where a checkpoint cannot be
            written; ``"warn"`` warns once and goes on.
        checkpoint_key: signs what is written and checks what is read. Default: the environment
            variable ``GRAPHORCH_CHECKPOINT_KEY``.
        allow_pickle: load pickles from the place, whoever wrote them. Default False.
        storage_options: for fsspec.
    """

    checkpoint_durability: Durability
    checkpoint_granularity: Granularity
    keep_last: int | None
    checkpoint_compression: Literal["zstd"] | None
    on_checkpoint_error: OnCheckpointError
    checkpoint_key: bytes | str | None
    allow_pickle: bool
    storage_options: Mapping[str, Any] | None


_CHOICES: dict[str, tuple[Any, ...]] = {
    "checkpoint_durability": get_args(Durability),
    "checkpoint_granularity": get_args(Granularity),
    "checkpoint_compression": (None, "zstd"),
    "on_checkpoint_error": get_args(OnCheckpointError),
}


_REMEMBERED = (*_CHOICES, "keep_last")


def remembered(settings: CheckpointSettings) -> dict[str, Any]:
    """The settings that a resumed run keeps: those that are no secret and no place."""
    return {name: value for name, value in settings.items() if name in _REMEMBERED}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse a setting that there is not, or a value that it may not have.

    Raises:
        TypeError, ValueError: names it and what is legal.
    """
    for name, value in settings.items():
        if name not in CheckpointSettings.__annotations__:
            raise TypeError(f"GraphExecutor() got an unexpected keyword argument {name!r}")
        if name in _CHOICES and value not in _CHOICES[name]:
            allowed = ", ".join(repr(choice) for choice in _CHOICES[name])
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
    keep_last = settings.get("keep_last", 3)
    if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
        raise ValueError(f"keep_last must be 1 or more, or None to keep all, not {keep_last!r}")
