"""From a checkpoint back to a run: its executor, and the handles of its states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from .checking import check_choice, check_count
from .checkpoint.data import CheckpointData
from .checkpoint.kept import KeptStates
from .checkpoint.manifest import Stored
from .checkpointing import check_settings
from .engine import Activation, Finished
from .errors import CheckpointError
from .policies import OnMultipleStates
from .runtime import Pool, StoredPayload
from .telemetry import events as ev

if TYPE_CHECKING:
    from .executor import GraphExecutor


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
    executor._trace = dict(chkpt.trace)
    executor._hub = executor._new_hub()
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
    executor._hub.say(
        ev.CheckpointRestored,
        active_node_ids=tuple(active),
        final_state_message_count=executor._final_count(),
        max_workers=executor.max_workers,
        superstep=chkpt.superstep,
        path=executor.checkpoint_path,
        interval=executor.checkpoint_every,
    )
