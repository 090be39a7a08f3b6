"""What a hosted driver is given: where its run stands in a store, or the run itself.

With a store it is ids, a URL and options, so that Ray can start the driver again at any time,
wherever its client is by then. Without one the graph and its states travel along, once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..checkpoint import CheckpointData
from ..checkpoint.data import find, from_manifest
from ..checkpoint.places import open_store
from ..errors import CheckpointError
from ..policies import RetryPolicy
from ..runtime import PoolKind
from ..runtime.payload import Payload, dump, dump_code, load_code
from .cluster import About

if TYPE_CHECKING:
    from ..executor import GraphExecutor


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a hosted driver is to run.

    Attributes:
        about: what the run is.
        backend: ``"ray"`` or ``"inline"``.
        pool: what sync nodes run in.
        max_supersteps, superstep_timeout: as for `execute()`.
        import_path: the client's.
        environment: variables to set where the driver's process has none of that name.
        trace: the client's current span, in the W3C form.
        retry_policy: pickled, for it may name exceptions of the program.
    """

    about: About
    backend: Any
    pool: PoolKind
    max_supersteps: int
    superstep_timeout: float | None
    import_path: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    retry_policy: bytes


def pack_policy(policy: RetryPolicy) -> bytes:
    """The executor's default policy, as an assignment has it."""
    return dump_code(policy)[0]


def pack_run(executor: GraphExecutor) -> Payload:
    """The whole of a run, for a driver that has no store to take it from.

    Raises:
        SerializationError: something in it cannot be pickled.
    """
    data = executor.to_checkpoint()
    by_position = (data.graph, data.initial_state, data.active_states, data.superstep)
    options = {
        "run_id": data.run_id,
        "branch": data.branch,
        "status": data.status,
        "on_multiple_states": data.on_multiple_states,
        "infrastructure_retries": data.infrastructure_retries,
        "active_sources": data.active_sources,
        "trace": data.trace,
    }
    whole = (*by_position, data.final_state, None, data.max_workers), options
    return dump(whole, "the run that is submitted").compact()


def executor_of(assignment: Assignment, run: Payload | None) -> GraphExecutor:
    """The executor of an assigned run, standing where the run stands.

    Raises:
        CheckpointError: the store is not seen from here, or cannot be read.
    """
    from ..executor import GraphExecutor

    known = set(sys.path)
    sys.path.extend(path for path in assignment.import_path if path not in known)
    about = assignment.about
    if run is not None:
        arguments, options = run.load()
        data = CheckpointData(*arguments, **options)
    else:
        data = _newest(about)
    data.retry_policy = load_code(assignment.retry_policy, ())
    executor = GraphExecutor.from_checkpoint(
        data, about.path, backend=assignment.backend, **about.settings
    )
    executor.pool = assignment.pool
    executor._wants_newest = about.path is not None
    return executor


def _newest(about: About) -> CheckpointData:
    import ray

    assert about.path is not None
    data = read_newest(about)
    if data is None:
        where = ray.util.get_node_ip_address()
        raise CheckpointError(
            f"The driver of run '{about.name}', on the machine {where}, finds no checkpoint of "
            f"the run in '{about.path}'. Give a checkpoint_path that all machines of the cluster "
            "see alike, such as s3://bucket/runs or a shared file system."
        )
    return data


def read_newest(about: About) -> CheckpointData | None:
    """The newest checkpoint of a run; None where its place is not seen from here."""
    assert about.path is not None
    store = open_store(
        about.path,
        key=about.settings.get("checkpoint_key"),
        allow_pickle=about.settings.get("allow_pickle", False),
        storage_options=about.settings.get("storage_options"),
    )
    if about.line not in store.lines():
        return None
    line, manifest = find(store, line=about.line)
    return from_manifest(store, line, manifest)
