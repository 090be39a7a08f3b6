"""An executor as a checkpoint, and back: its place in the run, and the handles of its states."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from .checking import check, check_choice, check_count
from .checkpoint import CheckpointData
from .checkpoint.facts import check_same_graph
from .checkpoint.kept import KeptStates
from .checkpoint.manifest import Stored
from .checkpoint.settings import CheckpointSettings, check_settings, remembered
from .clock import Clock
from .engine import Activation, Finished, SuperstepMachine
from .errors import CheckpointError, GraphWarning
from .model.graph import Graph
from .policies import OnMultipleStates
from .runtime import Backend, Pool, StoredPayload
from .state import State
from .telemetry import events as ev

if TYPE_CHECKING:
    from .executor import GraphExecutor


def say_created(executor: GraphExecutor, machine: SuperstepMachine | None) -> None:
    """Tell that a checkpoint is made of where the run stands."""
    if machine is None:
        active = tuple(executor.active_states)
    else:
        active = tuple(activation.node_id for activation in machine.frontier)
    executor._hub.say(
        ev.CheckpointCreated,
        active_node_ids=active,
        final_state_message_count=executor._final_count(),
        max_workers=executor.max_workers,
        superstep=executor.superstep,
        retry_policy=executor.retry_policy,
    )


def data_of(
    executor: GraphExecutor,
    status: str = "running",
    active: Mapping[str, Sequence[State]] | None = None,
    sources: Mapping[str, Sequence[str]] | None = None,
) -> CheckpointData:
    """What this executor is made of; its initial and final states are read when needed."""
    if sources is None:
        sources = {node_id: came_from for node_id, _, came_from in executor._waiting}
    return CheckpointData(
        executor.graph,
        executor._initial,
        active or {},
        executor.superstep,
        executor._final,
        executor.retry_policy,
        executor.max_workers,
        run_id=executor.run_id,
        branch=executor.branch,
        status=status,
        checkpoint_every=executor.checkpoint_every,
        allow_fallback_from_checkpoint=executor.allow_fallback_from_checkpoint,
        on_multiple_states=executor.on_multiple_states,
        infrastructure_retries=executor.infrastructure_retries,
        active_sources=sources,
        trace=executor._hub.capture(),
        settings=remembered(executor._settings),
    )


def restored(pool: Pool, kept: KeptStates) -> tuple[list[Activation], Any, list[Finished]]:
    """A checkpoint's frontier, final state and finished executions, as handles of the pool.

    Small states are read at once; large ones where and when they are needed.
    """
    handles: dict[int, Any] = {}

    def handle(number: int) -> Any:
        if number not in handles:
            item = kept.states[number]
            stored: Stored = item.stored
            if isinstance(stored.document, bytes) and not stored.pieces:
                handles[number] = pool.put(kept.read(number))
            else:
                state = StoredPayload(kept.vault, item, stored.nbytes, stored.size)
                handles[number] = pool.restore(state)
        return handles[number]

    frontier = [
        Activation(active.node_id, tuple(map(handle, active.states)), active.sources)
        for active in kept.active
    ]
    final = None if kept.final is None else handle(kept.final)
    done = [
        Finished(
            result.execution,
            "fallback" if result.role == "fallback" else "node",
            handle(result.state),
            result.routes,
        )
        for result in kept.done
    ]
    return frontier, final, done


def executor_from(
    cls: type[GraphExecutor],
    chkpt: CheckpointData,
    checkpoint_path: str | None,
    checkpoint_every: int | None,
    graph: Graph | None,
    allow_graph_change: bool,
    backend: Backend | None,
    clock: Clock | None,
    settings: CheckpointSettings,
) -> GraphExecutor:
    """Make an executor of a checkpoint; see `GraphExecutor.from_checkpoint`."""
    check(
        "chkpt",
        chkpt,
        CheckpointData,
        "a CheckpointData; load a file with CheckpointData.load(path)",
    )
    if chkpt.origin is not None:
        check_options(chkpt)
    fallback = chkpt.allow_fallback_from_checkpoint
    if fallback and checkpoint_path is None:
        warnings.warn(
            "The checkpoint's run had allow_fallback_from_checkpoint=True. It is off now, for "
            "no checkpoint_path was given to from_checkpoint().",
            GraphWarning,
            stacklevel=3,
        )
        fallback = False
    if graph is not None and not allow_graph_change:
        check_same_graph(chkpt.fingerprint, chkpt.node_fingerprints, graph)
    executor = cls(
        graph or chkpt.graph,
        chkpt._initial_state,  # type: ignore[arg-type]
        chkpt.max_workers,
        chkpt.retry_policy,
        checkpoint_path,
        chkpt.checkpoint_every if checkpoint_every is None else checkpoint_every,
        fallback,
        backend=backend,
        on_multiple_states=chkpt.on_multiple_states,  # type: ignore[arg-type]
        infrastructure_retries=chkpt.infrastructure_retries,
        clock=clock,
        **{**chkpt.settings, **settings},
    )
    stand_at(executor, chkpt)
    return executor


def check_options(chkpt: CheckpointData) -> None:
    """Refuse options that no executor may have: what was loaded from a file may say anything.

    Raises:
        CheckpointError: names the option.
    """
    try:
        check_count("max_workers", chkpt.max_workers, 1)
        check_count("infrastructure_retries", chkpt.infrastructure_retries, 0)
        if chkpt.checkpoint_every is not None:
            check_count("checkpoint_every", chkpt.checkpoint_every, 0)
        check_choice("on_multiple_states", chkpt.on_multiple_states, get_args(OnMultipleStates))
        check_settings(chkpt.settings)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint's options are damaged: {error}") from error


def move_to(executor: GraphExecutor, chkpt: CheckpointData) -> None:
    """Have an executor begin its next run at a checkpoint of its own run."""
    kept = chkpt.untouched
    executor._superstep = chkpt.superstep
    executor._final = chkpt._final_state
    executor._finished = chkpt.status == "finished"
    executor._origin, executor._origin_kept = chkpt.origin, chkpt.kept
    executor._kept = kept
    executor._waiting = [
        (node_id, states, tuple(chkpt.active_sources.get(node_id, ())))
        for node_id, states in (() if kept else chkpt.active_states.items())
        if states
    ]
    executor._machine = None


def stand_at(executor: GraphExecutor, chkpt: CheckpointData) -> None:
    """Put an executor where a checkpoint was taken.

    Raises:
        CheckpointError: states wait at nodes that its graph does not have.
    """
    kept = chkpt.untouched
    active = [a.node_id for a in kept.active] if kept else list(chkpt.active_states)
    unknown = [node_id for node_id in active if node_id not in executor.graph.nodes]
    if unknown:
        raise CheckpointError(
            f"The checkpoint has states waiting at {unknown}, which the graph does not have."
        )
    executor.run_id = chkpt.run_id or executor.run_id
    executor.branch = chkpt.branch
    executor._hub = executor._new_hub()
    executor._hub.link_from(chkpt.trace)
    move_to(executor, chkpt)
    if chkpt.origin is not None:
        executor._hub.say(
            ev.CheckpointLoaded,
            superstep=chkpt.superstep,
            path=chkpt.origin.url,
            active_nodes=tuple(active),
            bytes=sum(item.stored.nbytes for item in chkpt.kept.states) if chkpt.kept else None,
        )
    executor._hub.say(
        ev.CheckpointRestored,
        active_node_ids=tuple(active),
        final_state_message_count=executor._final_count(),
        max_workers=executor.max_workers,
        superstep=chkpt.superstep,
        path=executor.checkpoint_path,
        interval=executor.checkpoint_every,
    )
