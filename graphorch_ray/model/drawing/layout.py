"""Gives every box and arrow of a sketch its place, from top to bottom in layers.

Written here because what there is does not fit: the layout must run on every platform with
no compiled wheel, under a licence that goes with ours, and give sizes of boxes, routes of
arrows and loops. ``docs/observability.md`` names the libraries that were weighed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .layers import Layered, Link, Size, layered
from .order import order_layers
from .place import place_across
from .sketch import Arrow, ArrowKind, Box, Sketch
from .text import shortened, text_width

__all__ = ["Layout", "PlacedBox", "Point", "Route", "lay_out"]

Point = tuple[float, float]

LABEL_SIZE = 13.0
NOTE_SIZE = 10.5
EDGE_SIZE = 11.0
LABEL_LIMIT = 30  # characters
CELL_LIMIT = 18
MARGIN = 16.0
GAP_ACROSS = 22.0
GAP_DOWN = 34.0
PORT_GAP = 14.0
CELL_GAP = 8.0
TURN_WIDTH = 14.0
FRAME = 12.0
FRAME_HEAD = 26.0

_RANKS: dict[ArrowKind, int] = {"always": 0, "routed": 1, "fallback": 2}


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box with its centre and size; the cells of a block come with theirs."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    cells: tuple[PlacedBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """The way of an arrow.

    Attributes:
        arrow: The arrow.
        start: Where it begins.
        pieces: What follows: one point for a straight piece, three for a Bézier curve (two
            control points and the end).
        loop: Whether it leads back up.
        label: The centre of the text beside it.
    """

    arrow: Arrow
    start: Point
    pieces: tuple[tuple[Point, ...], ...]
    loop: bool
    label: Point | None

    @property
    def end(self) -> Point:
        """Where it ends."""
        return self.pieces[-1][-1]


@dataclass(frozen=True, slots=True)
class Layout:
    """A sketch with places; lengths are CSS pixels, from the top left."""

    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    routes: tuple[Route, ...]


def lay_out(sketch: Sketch) -> Layout:
    """Return places for all that is in the sketch; the same sketch, the same places."""
    sizes = [_size(box) for box in sketch.boxes]
    number_of = {box.key: number for number, box in enumerate(sketch.boxes)}
    links = [
        Link(
            number_of[arrow.source],
            number_of[arrow.sink],
            label=(text_width(arrow.label, EDGE_SIZE) + 12, EDGE_SIZE + 5) if arrow.label else None,
            rank=0 if arrow.headless else _RANKS[arrow.kind],
            firm=arrow.kind != "fallback",
        )
        for arrow in sketch.arrows
    ]
    graph = layered(sizes, links)
    order_layers(graph)
    across = [x + MARGIN for x in place_across(graph, GAP_ACROSS, len(sizes))]
    bands = _bands(graph, across)
    boxes = tuple(
        _placed(box, across[number], _middle(bands[graph.layer_of[number]]), sizes[number])
        for number, box in enumerate(sketch.boxes)
    )
    right = max((x + w / 2 for x, (w, _) in zip(across, graph.sizes, strict=True)), default=0.0)
    bottom = bands[-1][1] if bands else MARGIN
    return Layout(
        width=right + MARGIN,
        height=bottom + MARGIN,
        boxes=boxes,
        routes=tuple(_Router(graph, across, bands, boxes).routes(sketch.arrows)),
    )


# --- sizes --------------------------------------------------------------------------------------


def _size(box: Box) -> Size:
    if box.members:
        columns, rows, cell_width, cell_height = _grid(box)
        return (
            columns * (cell_width + CELL_GAP) - CELL_GAP + 2 * FRAME,
            rows * (cell_height + CELL_GAP) - CELL_GAP + 2 * FRAME + FRAME_HEAD,
        )
    label = text_width(shortened(box.label, LABEL_LIMIT), LABEL_SIZE)
    note = text_width(shortened(box.note, LABEL_LIMIT + 8), NOTE_SIZE)
    slanted = 44.0 if box.kind in ("aggregator", "human", "model", "tool", "router") else 28.0
    if box.kind == "router":
        return max(label + slanted, 60.0), 26.0
    return max(label + slanted, note + slanted, 74.0), 46.0 if box.note else 34.0


def _grid(block: Box) -> tuple[int, int, float, float]:
    """Return columns, rows, width and height of a cell; the block is twice as wide as high."""
    labels = [shortened(box.label, CELL_LIMIT) for box in block.members]
    noted = any(box.note not in ("", block.kind) for box in block.members)
    width = max(max(text_width(label, NOTE_SIZE) for label in labels) + 26, 56.0)
    if noted:
        notes = [shortened(box.note, CELL_LIMIT + 4) for box in block.members]
        width = max(width, max(text_width(note, NOTE_SIZE - 1) for note in notes) + 26)
    height = 34.0 if noted else 22.0
    area = len(labels) * (width + CELL_GAP) * (height + CELL_GAP)
    columns = max(1, min(len(labels), round(math.sqrt(2 * area) / (width + CELL_GAP))))
    return columns, math.ceil(len(labels) / columns), width, height


def _placed(box: Box, x: float, y: float, size: Size) -> PlacedBox:
    width, height = size
    if not box.members:
        return PlacedBox(box, x, y, width, height)
    columns, _, cell_width, cell_height = _grid(box)
    left = x - width / 2 + FRAME + cell_width / 2
    top = y - height / 2 + FRAME + FRAME_HEAD + cell_height / 2
    cells = tuple(
        PlacedBox(
            member,
            left + number % columns * (cell_width + CELL_GAP),
            top + number // columns * (cell_height + CELL_GAP),
            cell_width,
            cell_height,
        )
        for number, member in enumerate(box.members)
    )
    return PlacedBox(box, x, y, width, height, cells)


def _bands(graph: Layered, across: list[float]) -> list[tuple[float, float]]:
    """Return top and bottom of each layer; long ways across get more room to go down."""
    bands = []
    top = MARGIN
    for layer in graph.layers:
        bottom = top + max(graph.sizes[vertex][1] for vertex in layer)
        bands.append((top, bottom))
        farthest = max(
            (abs(across[v] - across[other]) for v in layer for other in graph.below[v]), default=0.0
        )
        top = bottom + GAP_DOWN + min(0.06 * farthest, 120.0)
    return bands


def _middle(band: tuple[float, float]) -> float:
    return (band[0] + band[1]) / 2


# --- ways ---------------------------------------------------------------------------------------


class _Router:
    """Leads each arrow through its vertices: straight within a layer, curved between layers."""

    def __init__(
        self,
        graph: Layered,
        across: list[float],
        bands: list[tuple[float, float]],
        boxes: tuple[PlacedBox, ...],
    ) -> None:
        self.graph = graph
        self.across = across
        self.bands = bands
        self.boxes = boxes
        self.leaving = self._ports(first=True)
        self.entering = self._ports(first=False)

    def routes(self, arrows: tuple[Arrow, ...]) -> list[Route]:
        return [self._route(number, arrow) for number, arrow in enumerate(arrows)]

    def _ports(self, *, first: bool) -> dict[int, float]:
        """Spread the ends of arrows over the sides of their boxes, in the order of the ways."""
        by_box: dict[int, list[tuple[float, int]]] = {}
        for number, chain in enumerate(self.graph.chains):
            box, beside = (chain[0], chain[1]) if first else (chain[-1], chain[-2])
            by_box.setdefault(box, []).append((self.across[beside], number))
        ports = {}
        for box, ends in by_box.items():
            room = 0.5 * self.graph.sizes[box][0]
            gap = min(PORT_GAP, room / len(ends))
            for place, (_, number) in enumerate(sorted(ends)):
                ports[number] = self.across[box] + (place - (len(ends) - 1) / 2) * gap
        return ports

    def _route(self, number: int, arrow: Arrow) -> Route:
        chain = self.graph.chains[number]
        loop = self.graph.loops[number]
        source, sink = self.boxes[chain[0]], self.boxes[chain[-1]]
        way = _Way((self.leaving[number], source.y + source.height / 2))
        if loop:
            self._climb(way, chain)
        else:
            way.line_to(way.x, self._bottom(chain[0]))
            for vertex in chain[1:-1]:
                way.curve_to(self.across[vertex], self._top(vertex))
                way.line_to(way.x, self._bottom(vertex))
        way.curve_to(self.entering[number], self._top(chain[-1]))
        way.line_to(way.x, sink.y - sink.height / 2)
        label = self.graph.labels[number]
        spot = None
        if label is not None:
            spot = (self.across[label], _middle(self.bands[self.graph.layer_of[label]]))
        return Route(arrow, way.start, tuple(way.pieces), loop, spot)

    def _climb(self, way: _Way, chain: list[int]) -> None:
        """Turn around below the source, climb, and turn again above the sink."""
        lower, *climb, upper = chain[1:-1]
        way.line_to(way.x, self._bottom(chain[0]))
        side = -TURN_WIDTH if way.x <= self.across[lower] else TURN_WIDTH
        way.curve_to(self.across[lower] + side, self._top(lower))
        way.turn_to(self.across[lower], down=True)
        for vertex in climb:
            way.curve_to(self.across[vertex], self._bottom(vertex))
            way.line_to(way.x, self._top(vertex))
        way.curve_to(self.across[upper], self._bottom(upper))
        side = -TURN_WIDTH if self.across[chain[-1]] <= way.x else TURN_WIDTH
        way.turn_to(way.x + side, down=False)

    def _top(self, vertex: int) -> float:
        return self.bands[self.graph.layer_of[vertex]][0]

    def _bottom(self, vertex: int) -> float:
        return self.bands[self.graph.layer_of[vertex]][1]


class _Way:
    """A line that grows; every piece begins and ends upright, so that no corner shows."""

    def __init__(self, start: Point) -> None:
        self.start = start
        self.x, self.y = start
        self.pieces: list[tuple[Point, ...]] = []

    def line_to(self, x: float, y: float) -> None:
        if (x, y) != (self.x, self.y):
            self._add((x, y))

    def curve_to(self, x: float, y: float) -> None:
        if x == self.x:
            self.line_to(x, y)
        else:
            middle = (self.y + y) / 2
            self._add((self.x, middle), (x, middle), (x, y))

    def turn_to(self, x: float, *, down: bool) -> None:
        reach = self.y + (1 if down else -1) * abs(x - self.x) * 2 / 3
        self._add((self.x, reach), (x, reach), (x, self.y))

    def _add(self, *points: Point) -> None:
        self.pieces.append(points)
        self.x, self.y = points[-1]
