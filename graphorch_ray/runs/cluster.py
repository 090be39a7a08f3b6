"""What hosted runs ask of Ray: where to look, what became of an actor, and notes that outlive it.

The notes are a few small entries in Ray's own key-value store, by actor: what the run is, what was
asked of it, how it ended. They are what a replaced driver, and whoever looks for a run whose
driver is gone, knows of the past. The driver removes them when it leaves.
"""

from __future__ import annotations

import os
import pickle
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from ..errors import ClusterConnectionError
from ..runtime.on_ray.ray_connect import ensure_ray, say

NAMESPACE = "graphorch_ray"
"""Ray's namespace of all hosted runs, and of their notes."""

_NOTES = NAMESPACE.encode()


class About(NamedTuple):
    """What a run is.

    Attributes:
        name, run_id, graph: its names.
        path: where its checkpoints are, or None.
        line: which of the lines there is its own.
        settings: what is needed to read them.
        started: when the driver first started, in Unix seconds.
        keep: seconds for which its result stays.
        max_restarts: how often its driver is replaced.
    """

    name: str
    run_id: str
    graph: str
    path: str | None
    line: str | None
    settings: Mapping[str, Any]
    started: float | None
    keep: float
    max_restarts: int


def connect() -> None:
    """Have a Ray to host runs on; one is started where none is named.

    Raises:
        ClusterConnectionError: the one that is named does not answer.
    """
    done = ensure_ray()
    if done is not None:
        say(done)


def connect_to_look() -> None:
    """Connect to the Ray in which runs are to be looked for; none is started for that.

    Raises:
        ClusterConnectionError: none is named, or it does not answer.
    """
    import ray

    if not ray.is_initialized() and os.environ.get("RAY_ADDRESS", "").strip() in ("", "local"):
        raise ClusterConnectionError(
            "RAY_ADDRESS",
            "it names no cluster to look for runs in. Set it to host:port, or call "
            "ray.init(address=...) first",
        )
    connect()


def ends_with_this_process() -> bool:
    """Whether the Ray that this process is connected to was started by it."""
    from ray._private import worker

    node: Any = worker.global_worker.node
    return node is not None and bool(node.is_head())


def machine_count() -> int:
    """How many machines the cluster has now."""
    import ray

    return sum(1 for node in ray.nodes() if node["Alive"])


# --- actors -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorFacts:
    """What Ray's control service knows of an actor.

    Attributes:
        state: ``"pending"`` covers the wait for a replacement.
        restarts: how often it was replaced.
        where, host: id and address of its machine, where it has one.
        ended: when it died, in Unix seconds.
        killed: whether it was ended on purpose, by itself or by somebody else.
        reason: why it died.
    """

    state: Literal["pending", "alive", "dead"]
    restarts: int = 0
    where: str | None = None
    host: str | None = None
    ended: float | None = None
    killed: bool = False
    reason: str = ""


def facts_of(actor_id: str) -> ActorFacts:
    """Ask Ray what became of an actor."""
    from ray._private import state

    found = state.actors(actor_id)
    if not found:
        return ActorFacts(state="dead", reason="Ray has forgotten it")
    restarts = found["NumRestarts"]
    if found["State"] == "ALIVE":
        address = found["Address"]
        return ActorFacts(
            state="alive", restarts=restarts, where=address["NodeID"], host=address["IPAddress"]
        )
    if found["State"] != "DEAD":
        return ActorFacts(state="pending", restarts=restarts)
    died = found["DeathCause"].actor_died_error_context
    return ActorFacts(
        state="dead",
        restarts=restarts,
        ended=found["EndTime"] / 1000,
        killed=died.reason == died.RAY_KILL,
        reason=_reason(died.error_message or str(found["DeathCause"])),
    )


def is_accepted(actor_id: str) -> bool:
    """Whether Ray has all that it needs to start an actor, whatever becomes of its client."""
    from ray._private import state

    found = state.actors(actor_id)
    return bool(found) and found["State"] != "DEPENDENCIES_UNREADY"


def _reason(said: str) -> str:
    """What Ray says of a death, in one line and without its advice."""
    line = " ".join(said.split())
    return line.partition(" Some common causes include")[0] or "its process ended"


# --- versions ---------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """What this process runs that a driver and its handles have to agree in."""
    from .. import __version__

    return {"graphorch_ray": __version__, "Python": platform.python_version()}


def check_versions(name: str, actor_id: str) -> bool:
    """Make sure that the driver of a run understands this process, and the reverse.

    Returns:
        Whether that is known: a driver says what it is when it starts.

    Raises:
        ClusterConnectionError: it is of another version; names both.
    """
    theirs, ours = Notes(actor_id).get("versions"), versions()
    if theirs not in (None, ours):
        said, here = (
            " on ".join(f"{what} {version}" for what, version in found.items())
            for found in (theirs, ours)
        )
        raise ClusterConnectionError(
            f"run '{name}'",
            f"its driver runs {said}, and this process {here}; use the driver's versions here, or "
            "install this process's on the cluster and submit the run again",
        )
    return theirs is not None


# --- notes ------------------------------------------------------------------------------------

Note = Literal["about", "wanted", "ending", "versions"]


class Notes:
    """What is noted of the run of one actor.

    Args:
        actor_id: the actor's, in hexadecimal digits.
    """

    def __init__(self, actor_id: str) -> None:
        self._actor_id = actor_id

    def put(self, note: Note, value: Any) -> None:
        """Note something, in place of what was noted before."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self._key(note), pickle.dumps(value), namespace=_NOTES)

    def get(self, note: Note) -> Any:
        """What was noted, or None."""
        from ray.experimental.internal_kv import _internal_kv_get

        found: Any = _internal_kv_get(self._key(note), namespace=_NOTES)
        return None if found is None else pickle.loads(found)

    def remove(self, *notes: Note) -> None:
        """Forget some notes; all of them where none is named."""
        from ray.experimental.internal_kv import _internal_kv_del

        for note in notes or get_args(Note):
            _internal_kv_del(self._key(note), namespace=_NOTES)

    def _key(self, note: str) -> bytes:
        return f"{note}/{self._actor_id}".encode()


def noted_actors() -> list[str]:
    """The ids of all actors of which there are notes."""
    from ray.experimental.internal_kv import _internal_kv_list

    keys = _internal_kv_list("about/", namespace=_NOTES)
    return [key.decode().partition("/")[2] for key in keys]
