"""Where and when an attempt on Ray ran, put together from what is known of it."""

from __future__ import annotations

from ...model.attempt import AttemptFacts
from .lanes import Pending
from .task_lane import TaskLane
from .wire import Done, Failed, Where


def facts_of(
    pending: Pending, message: Done | Failed | None = None, where: Where | None = None
) -> AttemptFacts:
    """The facts of an attempt; without its own answer, what was known when it was given up."""
    states = pending.launch.states
    where = where or pending.where or (pending.worker.where if pending.worker else None)
    return AttemptFacts(
        started=message.started if message is not None else pending.began,
        ended=message.ended if message is not None else None,
        worker_pid=where.pid if where is not None else None,
        ray_node=where.ray_node if where is not None else None,
        placement="task" if isinstance(pending.lane, TaskLane) else "worker",
        input_bytes=sum(handle.nbytes for handle in states),
        output_bytes=message.nbytes if isinstance(message, Done) else 0,
        input_size=len(states) if pending.launch.as_list else states[0].size,
        output_size=message.size if isinstance(message, Done) else 0,
        task_id=pending.call_id() if pending.call_id is not None else None,
        batch_size=pending.batch_size,
        ran_ahead=pending.ran_ahead,
        span_id=pending.span_id,
        trail=message.trail if message is not None else None,
    )
