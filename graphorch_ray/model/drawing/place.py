"""Layered drawing, third step: horizontal places near one's neighbours, on straight lines.

Layer by layer, down and up, each vertex is drawn to the mean of its neighbours; the best
places that keep the order and the gaps are those of a least-squares fit, which pooling
neighbours that would collide finds exactly ("pool adjacent violators"). Then runs of vertices
that follow each other one to one are put on one line wherever there is room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from math import inf

from .layers import Layered

__all__ = ["place_across"]

ROUNDS = 12
Side = tuple[list[list[int]], list[list[int]]]  # neighbours above, or below: the firm ones, all

LOOSE = 0.1  # how much a loop or a fallback pulls what nothing else does
LONG = 6.0  # how much more a piece inside a long arrow pulls than one at a box


def place_across(graph: Layered, gap: float, boxes: int) -> list[float]:
    """Return the centre of each vertex, with 0 at the left edge of the picture.

    Args:
        graph: Ordered layers.
        gap: The least distance between neighbours in a layer.
        boxes: How many of the vertices, the first ones, are boxes; the others belong to
            arrows, and where these run on through several layers they stay straight.
    """
    places = _Places(graph, gap, boxes)
    above, below = (graph.firm_above, graph.above), (graph.firm_below, graph.below)
    for _ in range(ROUNDS):
        places.pull(graph.layers, (above,))
        places.pull(graph.layers[::-1], (below,))
    places.pull(graph.layers, (above, below))
    for run in 2 * list(_runs(graph, boxes)):  # the second time some have more room
        places.straighten(run)
    left = min((x - w / 2 for x, (w, _) in zip(places.x, graph.sizes, strict=True)), default=0.0)
    return [x - left for x in places.x]


class _Places:
    """Places that keep the order of each layer and the gap between neighbours."""

    def __init__(self, graph: Layered, gap: float, boxes: int) -> None:
        self.graph = graph
        self.boxes = boxes
        self.x = [0.0] * len(graph.sizes)
        self.left: dict[int, int] = {}
        self.right: dict[int, int] = {}
        self.apart: dict[tuple[int, int], float] = {}
        for layer in graph.layers:
            for left, right in pairwise(layer):
                self.right[left], self.left[right] = right, left
                widths = graph.sizes[left][0] + graph.sizes[right][0]
                self.apart[left, right] = widths / 2 + gap
            offsets = self._offsets(layer)
            for vertex, offset in zip(layer, offsets, strict=True):
                self.x[vertex] = offset - offsets[-1] / 2

    def _offsets(self, layer: Sequence[int]) -> list[float]:
        """Return places as close to the first of the layer as may be."""
        return list(accumulate((self.apart[pair] for pair in pairwise(layer)), initial=0.0))

    def pull(self, layers: Iterable[list[int]], sides: Sequence[Side]) -> None:
        """Move the vertices of each layer in turn towards their neighbours on these sides."""
        for layer in layers:
            offsets = self._offsets(layer)
            wanted = [
                (place - offset, weight)
                for offset, (place, weight) in zip(
                    offsets, (self._wish(vertex, sides) for vertex in layer), strict=True
                )
            ]
            for vertex, offset, place in zip(layer, offsets, _rising(wanted), strict=True):
                self.x[vertex] = place + offset

    def _wish(self, vertex: int, sides: Sequence[Side]) -> tuple[float, float]:
        """Return where a vertex would best be, and how much that matters."""
        total = weight = 0.0
        for firm, _ in sides:
            for other in firm[vertex]:
                pull = LONG if vertex >= self.boxes and other >= self.boxes else 1.0
                total += pull * self.x[other]
                weight += pull
        for _, any_ in sides if not weight else ():
            for other in any_[vertex]:
                total += LOOSE * self.x[other]
                weight += LOOSE
        return (total / weight, weight) if weight else (self.x[vertex], LOOSE)

    def straighten(self, run: Sequence[int]) -> None:
        """Put a run on one line, or on as few as the neighbours leave room for."""
        stretch: list[int] = []
        low, high = -inf, inf
        for vertex in run:
            least, most = self._room(vertex)
            if stretch and (max(low, least) > min(high, most)):
                self._align(stretch, low, high)
                stretch, low, high = [], -inf, inf
            stretch.append(vertex)
            low, high = max(low, least), min(high, most)
        self._align(stretch, low, high)

    def _room(self, vertex: int) -> tuple[float, float]:
        left, right = self.left.get(vertex), self.right.get(vertex)
        return (
            -inf if left is None else self.x[left] + self.apart[left, vertex],
            inf if right is None else self.x[right] - self.apart[vertex, right],
        )

    def _align(self, stretch: Sequence[int], low: float, high: float) -> None:
        place = sum(self.x[vertex] for vertex in stretch) / len(stretch)
        for vertex in stretch:
            self.x[vertex] = min(max(place, low), high)


def _rising(wanted: Iterable[tuple[float, float]]) -> list[float]:
    """Return the rising numbers nearest to those wanted, by weighted squares."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for mean, weight in wanted:
        count = 1
        while pools and pools[-1][0] > mean:
            before, heft, members = pools.pop()
            mean = (before * heft + mean * weight) / (heft + weight)
            weight += heft
            count += members
        pools.append((mean, weight, count))
    return [mean for mean, _, count in pools for _ in range(count)]


def _runs(graph: Layered, boxes: int) -> Iterator[list[int]]:
    """Yield the paths, two vertices or longer, that should be straight: long ones first.

    Inside an arrow every piece belongs to one; between boxes a piece does where it is the
    only one on both its ends.
    """

    def next_of(vertex: int) -> int | None:
        for other in graph.firm_below[vertex]:
            if vertex >= boxes and other >= boxes:
                return other
        if len(graph.firm_below[vertex]) == 1:
            (other,) = graph.firm_below[vertex]
            if len(graph.firm_above[other]) == 1:
                return other
        return None

    following = {vertex: next_of(vertex) for layer in graph.layers for vertex in layer}
    led = set(following.values())
    runs = []
    for vertex in following:
        if vertex in led:
            continue
        run = [vertex]
        while (after := following[run[-1]]) is not None:
            run.append(after)
        if len(run) > 1:
            runs.append(run)
    yield from sorted(runs, key=len, reverse=True)
