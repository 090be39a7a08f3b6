"""The graph as it really ran: counts, times, failures and the edges taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...model import Graph
from ...model.drawing import Arrow, Box, BoxKind, Sketch, fold_twins, router_key, sketch_of, to_svg
from .facts import NodeFacts, edges_taken, fallbacks_taken, quantile
from .trace import Run
from .units import duration, times

__all__ = ["picture_of"]

_KINDS: dict[str, BoxKind] = {
    "AggregatorNode": "aggregator",
    "ToolNode": "tool",
    "ToolSetNode": "tool",
    "AINode": "model",
    "HumanInTheLoopNode": "human",
}


def picture_of(run: Run, nodes: Mapping[str, NodeFacts], graph: Graph | None) -> str:
    """Return the run's graph as SVG.

    Args:
        run: What ran.
        nodes: Facts about the nodes that did.
        graph: The graph, where it is at hand; else it is taken from the trace, or, where that
            does not hold it, from what ran.
    """
    if graph is not None:
        sketch = sketch_of(graph)
    elif run.definition is not None:
        sketch = _defined(run.graph_name, run.definition)
    else:
        sketch = _seen(run, nodes)
    return to_svg(fold_twins(_as_run(sketch, run, nodes)), interactive=True)


def _defined(name: str, definition: Mapping[str, Any]) -> Sketch:
    ends = {definition.get("start"), definition.get("end")}
    boxes = [
        _box(str(node["id"]), str(node.get("type", "")), is_end=node["id"] in ends)
        for node in definition.get("nodes", ())
    ]
    arrows: list[Arrow] = []
    routers: dict[tuple[str, str], str] = {}
    taken = {box.key for box in boxes}
    for edge in definition.get("edges", ()):
        source, sink = str(edge["source"]), str(edge["sink"])
        if edge.get("conditional"):
            _route(source, sink, str(edge.get("router") or "router"), routers, boxes, arrows, taken)
        else:
            arrows.append(Arrow(source=source, sink=sink))
    arrows += [
        Arrow(source=str(pair["node"]), sink=str(pair["fallback"]), kind="fallback")
        for pair in definition.get("fallbacks", ())
    ]
    return _sketch(name, boxes, arrows)


def _seen(run: Run, nodes: Mapping[str, NodeFacts]) -> Sketch:
    """Draw from what ran; what did not run is not known."""
    boxes = [
        _box(key, facts.node_type, is_end=key in ("start", "end")) for key, facts in nodes.items()
    ]
    arrows: list[Arrow] = []
    routers: dict[tuple[str, str], str] = {}
    taken = set(nodes)
    for source, sink, router in edges_taken(run):
        if sink not in taken:
            boxes.append(_box(sink, "", is_end=sink == "end"))
            taken.add(sink)
        if router:
            _route(source, sink, router, routers, boxes, arrows, taken)
        else:
            arrows.append(Arrow(source=source, sink=sink))
    arrows += [
        Arrow(source=owner, sink=fallback, kind="fallback")
        for owner, fallback in fallbacks_taken(run)
    ]
    return _sketch(run.graph_name, boxes, arrows)


def _box(key: str, node_type: str, *, is_end: bool) -> Box:
    kind: BoxKind = "end point" if is_end else _KINDS.get(node_type, "step")
    return Box(key=key, kind=kind, label=key, note="" if kind in ("end point", "step") else kind)


def _route(
    source: str,
    sink: str,
    router: str,
    routers: dict[tuple[str, str], str],
    boxes: list[Box],
    arrows: list[Arrow],
    taken: set[str],
) -> None:
    key = routers.get((source, router))
    if key is None:
        key = routers[source, router] = router_key(source, router, taken)
        boxes.append(Box(key=key, kind="router", label=f"{router}?"))
        arrows.append(Arrow(source=source, sink=key, kind="routed", stands_for=0, headless=True))
    arrows.append(Arrow(source=key, sink=sink, kind="routed"))


def _sketch(name: str, boxes: list[Box], arrows: list[Arrow]) -> Sketch:
    known = {box.key for box in boxes}
    return Sketch(
        name=name,
        boxes=tuple(boxes),
        arrows=tuple(a for a in arrows if a.source in known and a.sink in known),
    )


def _as_run(sketch: Sketch, run: Run, nodes: Mapping[str, NodeFacts]) -> Sketch:
    taken = edges_taken(run)
    fallbacks = fallbacks_taken(run)
    routed = {
        arrow.sink: arrow.source for arrow in sketch.arrows if arrow.headless
    }  # a router's box: whose it is
    routers = {box.key: box.label.removesuffix("?") for box in sketch.boxes if box.kind == "router"}

    def count(arrow: Arrow) -> int:
        if arrow.kind == "fallback":
            return fallbacks[arrow.source, arrow.sink]
        if arrow.headless:
            return sum(
                n for (s, _, r), n in taken.items() if (s, r) == (arrow.source, routers[arrow.sink])
            )
        if arrow.source in routed:
            return taken[routed[arrow.source], arrow.sink, routers[arrow.source]]
        return taken[arrow.source, arrow.sink, ""]

    def told(arrow: Arrow) -> Arrow:
        number = count(arrow)
        if not number:
            return replace(arrow, mark="unused")
        return replace(arrow, label="" if number == 1 or arrow.headless else times(number))

    arrows = tuple(map(told, sketch.arrows))
    idle = {arrow.sink for arrow in arrows if arrow.headless and arrow.mark}
    boxes = tuple(
        replace(box, mark="unused" if box.key in idle else "")
        if box.kind == "router"
        else _told(box, nodes.get(box.key))
        for box in sketch.boxes
    )
    return replace(sketch, boxes=boxes, arrows=arrows)


def _told(box: Box, facts: NodeFacts | None) -> Box:
    if facts is None:
        return replace(box, note=" · ".join(filter(None, (box.note, "not run"))), mark="unused")
    often = times(facts.executions + facts.stood_in)
    words = [box.note, often]
    if facts.run_times and not facts.lost:  # there is room for one of them
        words.append(duration(quantile(facts.run_times, 50)))
    if facts.failures:
        words.append(f"{facts.failures:,} failed")
    return replace(
        box,
        note=" · ".join(filter(None, words)),
        mark="failed" if facts.lost else "",
    )
