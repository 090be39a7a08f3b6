"""Rules that every layout keeps, whatever the graph."""

from __future__ import annotations

import time
from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphorch_ray.model.drawing import Arrow, Box, Layout, Sketch, fold_twins, lay_out
from graphorch_ray.model.drawing.layers import Link, layered
from graphorch_ray.model.drawing.layout import PlacedBox, Point, Route
from graphorch_ray.model.drawing.order import count_crossings, order_layers

KINDS = ["end point", "step", "aggregator", "tool", "model", "human", "router"]


@st.composite
def sketches(draw: st.DrawFn, boxes: int = 14) -> Sketch:
    count = draw(st.integers(0, boxes))
    texts = st.text(max_size=40)
    made = [
        Box(
            key=f"{number}",
            kind=draw(st.sampled_from(KINDS)),
            label=draw(texts),
            note=draw(st.sampled_from(["", "a note", "a much longer note than that"])),
        )
        for number in range(count)
    ]
    numbers = st.integers(0, max(0, count - 1)).map(str)
    arrow = st.builds(
        Arrow,
        source=numbers,
        sink=numbers,
        kind=st.sampled_from(["always", "routed", "fallback"]),
        label=st.sampled_from(["", "", "12 times", "a label with some words"]),
        headless=st.booleans(),
    )
    arrows = draw(st.lists(arrow, max_size=2 * count)) if count else []
    return Sketch(name="any", boxes=tuple(made), arrows=tuple(arrows))


def overlap(one: PlacedBox, other: PlacedBox) -> bool:
    across = (one.width + other.width) / 2 - abs(one.x - other.x)
    down = (one.height + other.height) / 2 - abs(one.y - other.y)
    return across > 0.01 and down > 0.01


def points(route: Route, per_piece: int = 12) -> list[Point]:
    found = [route.start]
    for piece in route.pieces:
        x0, y0 = found[-1]
        x1, y1 = piece[0] if len(piece) == 3 else (x0, y0)
        x2, y2 = piece[1] if len(piece) == 3 else piece[-1]
        x3, y3 = piece[-1]
        for step in range(1, per_piece + 1):
            t = step / per_piece
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            found.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return found


def inside(point: Point, placed: PlacedBox) -> bool:
    return (
        abs(point[0] - placed.x) < placed.width / 2 - 0.01
        and abs(point[1] - placed.y) < placed.height / 2 - 0.01
    )


@given(sketches())
def test_boxes_do_not_overlap_and_lie_in_the_picture(sketch: Sketch) -> None:
    layout = lay_out(sketch)
    assert [placed.box for placed in layout.boxes] == list(sketch.boxes)
    for one, other in combinations(layout.boxes, 2):
        assert not overlap(one, other)
    for placed in layout.boxes:
        assert placed.width / 2 <= placed.x <= layout.width - placed.width / 2
        assert placed.height / 2 <= placed.y <= layout.height - placed.height / 2


@given(sketches())
def test_every_arrow_is_drawn_once_from_its_source_into_its_sink_from_above(
    sketch: Sketch,
) -> None:
    layout = lay_out(sketch)
    assert [route.arrow for route in layout.routes] == list(sketch.arrows)
    by_key = {placed.box.key: placed for placed in layout.boxes}
    for route in layout.routes:
        source, sink = by_key[route.arrow.source], by_key[route.arrow.sink]
        assert abs(route.start[0] - source.x) <= source.width / 2
        assert route.start[1] == source.y + source.height / 2
        assert abs(route.end[0] - sink.x) <= sink.width / 2
        assert route.end[1] == sink.y - sink.height / 2
        assert (route.label is not None) == bool(route.arrow.label)


@given(sketches(boxes=9))
def test_no_arrow_runs_through_a_box_or_out_of_the_picture(sketch: Sketch) -> None:
    layout = lay_out(sketch)
    for route in layout.routes:
        for point in points(route):
            assert 0 <= point[0] <= layout.width
            assert 0 <= point[1] <= layout.height
            assert not any(inside(point, placed) for placed in layout.boxes), route.arrow


@given(sketches())
def test_labels_cover_neither_boxes_nor_each_other(sketch: Sketch) -> None:
    layout = lay_out(sketch)
    labels = [
        PlacedBox(layout.boxes[0].box, *route.label, 6 * len(route.arrow.label), 11)
        for route in layout.routes
        if route.label is not None
    ]
    for one, other in combinations([*labels, *layout.boxes], 2):
        assert not overlap(one, other)


@given(sketches())
def test_arrows_lead_down_unless_they_close_a_loop(sketch: Sketch) -> None:
    layout = lay_out(sketch)
    y = {placed.box.key: placed.y for placed in layout.boxes}
    for route in layout.routes:
        downward = y[route.arrow.source] < y[route.arrow.sink]
        assert downward != route.loop


@given(sketches())
def test_the_same_sketch_is_always_laid_out_the_same(sketch: Sketch) -> None:
    assert lay_out(sketch) == lay_out(sketch)


@given(sketches(boxes=30))
def test_twins_are_folded_without_losing_a_node_or_an_edge(sketch: Sketch) -> None:
    folded = fold_twins(sketch, at_least=2)
    shown = [node.key for box in folded.boxes for node in (box.members or (box,))]
    assert sorted(shown) == sorted(box.key for box in sketch.boxes)
    assert sum(a.stands_for for a in folded.arrows) == sum(a.stands_for for a in sketch.arrows)
    known = {box.key for box in folded.boxes}
    assert all(arrow.source in known and arrow.sink in known for arrow in folded.arrows)
    for placed in lay_out(folded).boxes:
        for cell in placed.cells:
            assert abs(cell.x - placed.x) + cell.width / 2 <= placed.width / 2
            assert abs(cell.y - placed.y) + cell.height / 2 <= placed.height / 2
        assert not any(overlap(*pair) for pair in combinations(placed.cells, 2))


def crossings_by_hand(layers: list[list[int]], below: list[list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        pieces = [(u, lower.index(v)) for u, vertex in enumerate(upper) for v in below[vertex]]
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(pieces, 2))
    return total


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=16))
def test_crossings_are_counted_and_ordering_never_adds_one(pairs: list[tuple[int, int]]) -> None:
    graph = layered([(10.0, 10.0)] * 10, [Link(one, other) for one, other in pairs])
    before = count_crossings(graph)
    assert before == crossings_by_hand(graph.layers, graph.below)
    layers = [sorted(layer) for layer in graph.layers]
    order_layers(graph)
    assert [sorted(layer) for layer in graph.layers] == layers
    assert count_crossings(graph) == crossings_by_hand(graph.layers, graph.below)


def sketch(edges: list[tuple[str, str]]) -> Sketch:
    keys = dict.fromkeys(key for edge in edges for key in edge)
    return Sketch(
        name="graph",
        boxes=tuple(Box(key=key, kind="step", label=key) for key in keys),
        arrows=tuple(Arrow(source=source, sink=sink) for source, sink in edges),
    )


def crossings(layout: Layout) -> int:
    ways = [points(route) for route in layout.routes]
    found: Counter[tuple[int, int]] = Counter()
    for (i, one), (j, other) in combinations(enumerate(ways), 2):
        for a, b in pairwise(one):
            for c, d in pairwise(other):
                if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                    found[i, j] += 1
    return len(found)


def side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def test_a_tree_and_a_ladder_have_no_crossing() -> None:
    tree = [(f"{n // 2}", f"{n}") for n in range(2, 32)]
    ladder = [(f"{s}{n}", f"{s}{n + 1}") for n in range(6) for s in "ab"] + [("a0", "b3")]
    assert crossings(lay_out(sketch(tree))) == 0
    assert crossings(lay_out(sketch(ladder))) == 0


def test_a_chain_is_one_straight_line() -> None:
    layout = lay_out(sketch([(f"{n}", f"{n + 1}") for n in range(20)]))
    assert len({placed.x for placed in layout.boxes}) == 1
    assert all(len(piece) == 1 for route in layout.routes for piece in route.pieces)


@pytest.mark.parametrize("count", [500, 5000])
def test_large_graphs_are_laid_out_in_seconds(count: int) -> None:
    edges = [(f"{n * 7 // 9}", f"{n}") for n in range(1, count)]
    edges += [(f"{n}", f"{n + 13}") for n in range(0, count - 13, 5)]
    began = time.perf_counter()
    layout = lay_out(sketch(edges))
    assert len(layout.boxes) == count
    assert time.perf_counter() - began < 20  # about 0.3 and 4 on one core


def test_a_long_chain_needs_no_recursion() -> None:
    layout = lay_out(sketch([(f"{n}", f"{n + 1}") for n in range(3000)] + [("2999", "0")]))
    assert [route.loop for route in layout.routes].count(True) == 1


def test_a_loop_is_closed_by_the_edge_that_leads_back_towards_the_start() -> None:
    edges = [("start", "find"), ("find", "work"), ("work", "merge"), ("merge", "end")]
    edges += [("merge", "again"), ("again", "work")]
    loops = [route.arrow for route in lay_out(sketch(edges)).routes if route.loop]
    assert [(arrow.source, arrow.sink) for arrow in loops] == [("again", "work")]


def test_a_short_cut_is_no_loop() -> None:
    edges = [("start", "a"), ("a", "b"), ("b", "c"), ("start", "c"), ("c", "end")]
    assert not any(route.loop for route in lay_out(sketch(edges)).routes)
