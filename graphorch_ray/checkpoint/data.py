"""A checkpoint as a value, and the file that holds one."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from ..errors import CheckpointError
from ..model.graph import Graph
from ..policies import RetryPolicy
from ..state import State
from .pickles import HoldsReference, dumps

FORMAT = 1
"""Version of what a checkpoint file holds."""


class CheckpointData:
    """Everything that a run needs to go on from between two supersteps.

    Attributes:
        graph: the graph.
        initial_state: the state the run began with.
        active_states: by node id, the states that have arrived at each active node, in order.
        superstep: the superstep that comes next.
        final_state: what `end` produced last, or None.
        retry_policy: the executor's default policy.
        max_workers: the executor's.
        run_id: the run this belongs to; None in one made by hand.
        status: ``"running"``, ``"finished"`` or ``"failed"``.
        checkpoint_every: the executor's interval, in supersteps.
        allow_fallback_from_checkpoint: the executor's option.
        on_multiple_states, infrastructure_retries: the executor's options.
        active_sources: by node id, which nodes the active states came from.
        created: Unix time, in seconds.
        fingerprint: the graph's; None where something else was given in its place.

    Example:
        ```python
        CheckpointData.load("run.ckpt").superstep
        ```
    """

    def __init__(
        self,
        graph: Graph,
        initial_state: State,
        active_states: Mapping[str, Sequence[State]],
        superstep: int,
        final_state: State | None,
        retry_policy: RetryPolicy | None,
        max_workers: int,
        *,
        run_id: str | None = None,
        status: str = "running",
        checkpoint_every: int | None = None,
        allow_fallback_from_checkpoint: bool = False,
        on_multiple_states: str = "first",
        infrastructure_retries: int = 3,
        active_sources: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Keep the values as they are given; nothing is copied."""
        self.graph = graph
        self.initial_state = initial_state
        self.active_states = {node_id: list(states) for node_id, states in active_states.items()}
        self.superstep = superstep
        self.final_state = final_state
        self.retry_policy = retry_policy
        self.max_workers = max_workers
        self.run_id = run_id
        self.status = status
        self.checkpoint_every = checkpoint_every
        self.allow_fallback_from_checkpoint = allow_fallback_from_checkpoint
        self.on_multiple_states = on_multiple_states
        self.infrastructure_retries = infrastructure_retries
        self.active_sources = {k: list(v) for k, v in (active_sources or {}).items()}
        self.fingerprint: str | None = getattr(graph, "fingerprint", None)
        self.created = time.time()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint to a file, replacing what is there in one step.

        Args:
            path: a local path or any fsspec URL.

        Raises:
            CheckpointError: it could not be written; an earlier file is still whole.
        """
        try:
            content = dumps({"format": FORMAT, "data": self.__dict__})
        except HoldsReference as error:
            raise CheckpointError(
                f"The checkpoint for '{path}' cannot be written: {self._where_reference()} is a "
                f"{error}, which means nothing once this Ray has ended. Put the value itself into "
                "the state, or run without checkpoints."
            ) from None
        except Exception as error:
            raise CheckpointError(
                f"The checkpoint for '{path}' cannot be pickled: {type(error).__name__}: {error}"
            ) from error
        try:
            _replace(os.fspath(path), content)
        except OSError as error:
            raise CheckpointError(f"Cannot write the checkpoint '{path}': {error}") from error

    def _where_reference(self) -> str:
        """Name the first message that holds a Ray reference."""
        states = [("initial_state", self.initial_state), ("final_state", self.final_state)]
        for node_id, active in self.active_states.items():
            states += [(f"the state at {node_id!r}:", state) for state in active]
        for name, state in states:
            for index, message in enumerate(getattr(state, "messages", ())):
                try:
                    dumps(message)
                except HoldsReference:
                    return f"{name} messages[{index}]"
                except Exception:
                    continue
        return "something in a state"

    @staticmethod
    def load(path: str | os.PathLike[str]) -> CheckpointData:
        """Read a checkpoint. It is unpickled, which can run code: load only what you trust.

        Raises:
            FileNotFoundError: there is no file.
            CheckpointError: the file is not a checkpoint of this library.
        """
        import fsspec  # a tenth of a second that a worker need not spend

        with fsspec.open(os.fspath(path), "rb") as file:
            content = file.read()
        try:
            loaded: Any = cloudpickle.loads(content)
            fields = loaded["data"]
            known = loaded["format"] <= FORMAT
        except Exception as error:
            raise CheckpointError(
                f"'{path}' is not a checkpoint that can be read here: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not known:
            raise CheckpointError(
                f"'{path}' was written by a newer graphorch_ray (format {loaded['format']})."
            )
        data = CheckpointData.__new__(CheckpointData)
        data.__dict__.update(fields)
        return data

    def __repr__(self) -> str:
        return (
            f"CheckpointData({self.graph.name!r}, superstep={self.superstep}, "
            f"status={self.status!r}, active={list(self.active_states)})"
        )


def _replace(path: str, content: bytes) -> None:
    """Put a file in place so that a reader, or a crash, sees the old one or the new one."""
    from fsspec.core import url_to_fs

    fs, inner = url_to_fs(path)
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        fs.pipe_file(inner, content)
        return
    target = Path(inner)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
