"""Writing down what a call to a worker is to carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..model.attempt import Launch
from .context import ExecutionInfo
from .handles import CodeShelf
from .lanes import Pending
from .payload import Payload
from .stored import StoredPayload
from .wire import Item, Job, Track


def make_job(
    pendings: Sequence[Pending],
    shelf: CodeShelf,
    info: Callable[[Launch], ExecutionInfo],
    time_left: float | None,
    track: Track | None = None,
) -> tuple[Job, list[Any]]:
    """Give the job for some attempts, and the references to large states that go with it.

    A state that several of them share goes along once.
    """
    arguments: list[Any] = []
    positions: dict[int, int] = {}
    codes: dict[str, Any] = {}
    items: list[Item] = []
    for pending in pendings:
        launch, options = pending.launch, pending.node.options
        inputs: list[Payload | StoredPayload | int] = []
        for handle in launch.states:
            if (at_hand := handle.input) is not None:
                inputs.append(at_hand)
                continue
            position = positions.setdefault(id(handle), len(arguments))
            if position == len(arguments):
                arguments.append(handle.ref)
            inputs.append(position)
        code = shelf.node(launch.node_id)
        routers = tuple((edge, shelf.router(launch.owner_id, edge)) for edge in launch.worker_edges)
        for key in (code, *(router for _, router in routers)):
            codes[key] = shelf.shipped(key)
        items.append(
            Item(
                token=pending.token,
                code=code,
                inputs=tuple(inputs),
                as_list=launch.as_list,
                mutable=options.mutable,
                is_async=pending.node.is_async,
                timeout=options.timeout,
                routers=routers,
                info=info(launch),
                announce=options.timeout is not None,
                trace=launch.trace,
            )
        )
    for step in track.steps.values() if track is not None else ():
        for key in (step.code, *(router for _, router in step.routers)):
            codes[key] = shelf.shipped(key)
    return Job(tuple(items), codes, time_left, track), arguments
