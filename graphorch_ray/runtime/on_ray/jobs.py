"""Writing down what a call to a worker is to carry."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from ...model.edges import ConditionalEdge
from ...model.nodes import Node
from ..payload import INLINE_BYTES, Payload
from ..pool import RunContext
from ..stored import StoredPayload
from .handles import CodeShelf
from .lanes import Pending
from .wire import Item, Job, Kind, Track


class JobWriter:
    """Writes the jobs of one run.

    Args:
        context: the run.
        shelf: where its code is.
    """

    def __init__(self, context: RunContext, shelf: CodeShelf) -> None:
        self._context = context
        self._shelf = shelf
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._shared: dict[Kind, Kind] = {}

    def job(
        self,
        pendings: Sequence[Pending],
        time_left: float | None,
        track: Track | None = None,
        *,
        announce: bool = False,
        known: Container[str] = (),
        inline_bytes: int = INLINE_BYTES,
    ) -> tuple[Job, list[Any]]:
        """Give the job for some attempts, and the references to large states that go with it.

        A state that several of them share goes along once, and code under `known` keys not at all.
        """
        arguments: list[Any] = []
        positions: dict[int, int] = {}
        kinds: dict[Kind, int] = {}
        items: list[Item] = []
        for pending in pendings:
            launch = pending.launch
            inputs: list[Payload | StoredPayload | int] = []
            for handle in launch.states:
                if (at_hand := handle.input) is not None:
                    inputs.append(at_hand)
                    continue
                position = positions.setdefault(id(handle), len(arguments))
                if position == len(arguments):
                    arguments.append(handle.ref)
                inputs.append(position)
            _, superstep, execution, role, attempt, rerun = launch.key
            items.append(
                Item(
                    pending.token,
                    kinds.setdefault(self.kind(pending.node, launch.owner_id), len(kinds)),
                    tuple(inputs),
                    launch.trace,
                    superstep,
                    execution,
                    launch.owner_id,
                    launch.node_id,
                    role,
                    attempt,
                    rerun,
                )
            )
        context = self._context
        needed = [*kinds, *(step.kind for step in track.steps.values())] if track else kinds
        job = Job(
            context.run_id,
            context.graph.name or "",
            context.branch(),
            tuple(items),
            tuple(kinds),
            self._codes(needed, known),
            time_left,
            track,
            announce,
            inline_bytes,
        )
        return job, arguments

    def kind(self, node: Node, owner_id: str) -> Kind:
        """What the items of a node share, where it stands in its own place or for another."""
        known = self._kinds.get((node.node_id, owner_id))
        if known is None:
            graph, options = self._context.graph, node.options
            kind = Kind(
                self._shelf.node(node.node_id),
                graph.nodes[owner_id].is_aggregator,
                options.mutable,
                node.is_async,
                options.timeout,
                tuple(
                    (position, self._shelf.router(owner_id, position))
                    for position, edge in enumerate(graph.edges_from(owner_id))
                    if isinstance(edge, ConditionalEdge) and edge.router_placement == "worker"
                ),
            )
            known = self._kinds[node.node_id, owner_id] = self._shared.setdefault(kind, kind)
        return known

    def _codes(self, kinds: Iterable[Kind], known: Container[str]) -> dict[str, Any]:
        keys = {key for kind in kinds for key in (kind.code, *(key for _, key in kind.routers))}
        return {key: self._shelf.shipped(key) for key in keys if key not in known}
