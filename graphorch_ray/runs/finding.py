"""Finding hosted runs again, from any process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from ..errors import ClusterConnectionError, RunNotFoundError
from .cluster import NAMESPACE, About, Notes, connect_to_look, facts_of, noted_actors, versions
from .handle import RunHandle
from .status import RunStatus

ASKED_AT_ONCE = 16
"""Drivers that are asked at once how their runs are."""


def get_run(name: str) -> RunHandle:
    """Find a hosted run by its name, from any process that is connected to its cluster.

    Connects to the Ray that `RAY_ADDRESS` names where this process is connected to none.

    Args:
        name: as it was given to `GraphExecutor.submit`.

    Raises:
        RunNotFoundError: there is no such run, or its result is not kept any longer.
        ClusterConnectionError: the cluster does not answer.

    Example:
        ```python
        final = graphorch_ray.get_run("nightly").result()
        ```
    """
    connect_to_look()
    hosted = _hosted(name)
    if hosted is not None:
        return hosted
    found = _handles()
    for handle in found:
        if handle.name == name:  # its driver was lost
            return handle
    others = ", ".join(repr(handle.name) for handle in found) or "none"
    raise RunNotFoundError(name, f"the cluster knows of these runs: {others}")


def list_runs() -> list[RunStatus]:
    """Where every hosted run of the cluster is, the oldest first.

    Runs that are over are listed as long as their result is kept, lost ones too.

    Raises:
        ClusterConnectionError: the cluster does not answer.

    Example:
        ```python
        for run in graphorch_ray.list_runs():
            print(run.name, run.state, run.active_nodes)
        ```
    """
    connect_to_look()
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:  # some may not answer at once
        listed = [run for run in threads.map(_status, _handles()) if run is not None]
    return sorted(listed, key=lambda run: (run.started is None, run.started or 0.0, run.name))


def _status(handle: RunHandle) -> RunStatus | None:
    try:
        return handle.status()
    except RunNotFoundError:  # it has left meanwhile
        return None
    except ClusterConnectionError as error:  # its driver is of another version
        return handle._unread(str(error))


def _hosted(name: str) -> RunHandle | None:
    """A run that has a driver, or waits for one."""
    import ray

    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
    return RunHandle(name, actor, actor._actor_id.hex())


def _handles() -> list[RunHandle]:
    """A handle for each run: those with a driver, then those whose driver was lost."""
    import ray

    found: dict[str, RunHandle] = {}
    for named in ray.util.list_named_actors(all_namespaces=True):
        hosted = _hosted(named["name"]) if named["namespace"] == NAMESPACE else None
        if hosted is not None:
            found[hosted._actor_id] = hosted
    for actor_id in noted_actors():
        if actor_id not in found:
            lost = _lost(actor_id)
            if lost is not None:
                found[actor_id] = lost
    return list(found.values())


def _lost(actor_id: str) -> RunHandle | None:
    """A run whose driver is gone; what is noted of it is forgotten when its time is over."""
    notes, facts = Notes(actor_id), facts_of(actor_id)
    if notes.get("versions") not in (None, versions()):
        return None  # what is noted of it is for its own version to read
    about: About | None = notes.get("about")
    if about is None or facts.state != "dead":
        return None
    if facts.ended is None or time.time() > facts.ended + about.keep:
        notes.remove()
        return None
    return RunHandle(about.name, None, actor_id, about)
