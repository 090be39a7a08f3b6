"""What is to be drawn: boxes and the arrows between them, with no place yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from ..actions import describe_callable
from ..edges import ConditionalEdge
from ..flat import sinks_of
from ..graph import Graph
from ..kinds import NodeKind, kind_of

__all__ = [
    "Arrow",
    "ArrowKind",
    "Box",
    "BoxKind",
    "Sketch",
    "fold_twins",
    "router_key",
    "sketch_of",
]

BoxKind = NodeKind | Literal["router"]
ArrowKind = Literal["always", "routed", "fallback"]

FOLD_FROM = 8  # as many twins fit side by side on a page


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A node, a router, or a block of nodes that have the same neighbours.

    Attributes:
        key: Unique within the sketch; for a node its id.
        kind: Gives the shape.
        label: The text in it.
        note: A second, smaller line.
        mark: ``"failed"``, ``"unused"`` or ``""``: how the box is set off.
        members: The nodes of a block, in order; empty for a single box.
    """

    key: str
    kind: BoxKind
    label: str
    note: str = ""
    mark: str = ""
    members: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A way from one box to another.

    Attributes:
        source: Key of the box it leaves.
        sink: Key of the box it leads to.
        kind: ``"always"`` fires, ``"routed"`` where a router says so, ``"fallback"`` leads to
            the stand-in.
        label: Text beside it.
        mark: ``"unused"`` or ``""``.
        stands_for: How many edges of the graph it draws; 0 for the piece before a router.
        headless: No arrowhead: the way goes on at the next box.
    """

    source: str
    sink: str
    kind: ArrowKind = "always"
    label: str = ""
    mark: str = ""
    stands_for: int = 1
    headless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Boxes and arrows, in the order in which they were made.

    Attributes:
        name: The graph's name.
        boxes: Each with a key of its own.
        arrows: Their ends are keys of ``boxes``.
    """

    name: str
    boxes: tuple[Box, ...] = field(default=())
    arrows: tuple[Arrow, ...] = field(default=())


def sketch_of(graph: Graph) -> Sketch:
    """Return what there is to draw of a graph.

    A conditional edge becomes a box with the router's name and an arrow to each sink.
    """
    boxes = [
        Box(key=node_id, kind=kind, label=node_id, note="" if kind in _PLAIN else kind)
        for node_id, node in graph.nodes.items()
        for kind in (kind_of(graph, node),)
    ]
    arrows = []
    taken = set(graph.nodes)
    for node_id in graph.nodes:
        for edge in graph.edges_from(node_id):
            sinks = [sink.node_id for sink in sinks_of(edge)]
            if isinstance(edge, ConditionalEdge):
                name = describe_callable(edge.routing_function)
                key = router_key(node_id, name, taken)
                boxes.append(Box(key=key, kind="router", label=f"{name}?"))
                arrows.append(
                    Arrow(source=node_id, sink=key, kind="routed", stands_for=0, headless=True)
                )
                arrows += [Arrow(source=key, sink=sink, kind="routed") for sink in sinks]
            else:
                arrows += [Arrow(source=node_id, sink=sink) for sink in sinks]
    for node_id, node in graph.nodes.items():
        if node.fallback_node_id in graph.nodes:
            fallback = node.fallback_node_id or ""
            arrows.append(Arrow(source=node_id, sink=fallback, kind="fallback"))
    known = {box.key for box in boxes}  # a graph filled by hand may lack an end of an edge
    return Sketch(
        name=graph.name,
        boxes=tuple(boxes),
        arrows=tuple(a for a in arrows if a.source in known and a.sink in known),
    )


def router_key(source: str, router: str, taken: set[str]) -> str:
    """Return a key for a router's box that no other box has, and take it."""
    key = f"{source} / {router}"
    while key in taken:
        key += "'"
    taken.add(key)
    return key


_PLAIN: tuple[NodeKind, ...] = ("end point", "step")


def fold_twins(sketch: Sketch, at_least: int = FOLD_FROM) -> Sketch:
    """Return the sketch with nodes that have the same neighbours drawn as one block.

    A thousand nodes between ``start`` and an aggregator are one block with a thousand
    cells and one arrow in and out, not a mile of arrows.

    Args:
        sketch: What to draw.
        at_least: How many twins make a block.
    """
    into: dict[str, list[tuple[str, ...]]] = {box.key: [] for box in sketch.boxes}
    out: dict[str, list[tuple[str, ...]]] = {box.key: [] for box in sketch.boxes}
    for arrow in sketch.arrows:
        out[arrow.source].append((arrow.sink, arrow.kind))
        into[arrow.sink].append((arrow.source, arrow.kind))
    twins: dict[object, list[Box]] = {}
    for box in sketch.boxes:
        alike = (box.kind, tuple(sorted(into[box.key])), tuple(sorted(out[box.key])))
        twins.setdefault(alike, []).append(box)
    block_of: dict[str, Box] = {}
    for boxes in twins.values():
        if len(boxes) >= at_least and into[boxes[0].key] and boxes[0].kind != "router":
            block = Box(
                key=boxes[0].key,
                kind=boxes[0].kind,
                label=f"{len(boxes):,} nodes",
                note=boxes[0].kind,
                members=tuple(boxes),
            )
            block_of.update((box.key, block) for box in boxes)
    if not block_of:
        return sketch
    boxes_left = [
        block_of.get(box.key, box)
        for box in sketch.boxes
        if box.key not in block_of or block_of[box.key].key == box.key
    ]
    return replace(sketch, boxes=tuple(boxes_left), arrows=tuple(_bundled(sketch.arrows, block_of)))


def _bundled(arrows: Iterable[Arrow], block_of: dict[str, Box]) -> Iterable[Arrow]:
    bundles: dict[tuple[str, str, str], list[Arrow]] = {}
    for arrow in arrows:
        source = block_of[arrow.source].key if arrow.source in block_of else arrow.source
        sink = block_of[arrow.sink].key if arrow.sink in block_of else arrow.sink
        bundles.setdefault((source, sink, arrow.kind), []).append(arrow)
    for (source, sink, _), bundle in bundles.items():
        first = bundle[0]
        if len(bundle) == 1:
            yield replace(first, source=source, sink=sink)
            continue
        yield replace(
            first,
            source=source,
            sink=sink,
            label=f"{len(bundle):,} edges" if not first.headless else "",
            mark="unused" if all(arrow.mark == "unused" for arrow in bundle) else "",
            stands_for=sum(arrow.stands_for for arrow in bundle),
        )
