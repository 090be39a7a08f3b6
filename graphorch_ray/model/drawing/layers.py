"""Layered drawing, first step: put boxes into layers so that arrows lead down.

Arrows that close a loop turn around below their source, climb beside everything, and
turn again above their sink, so that each enters from above like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Layered", "Link", "Size", "layered"]

Size = tuple[float, float]

BEND: Size = (10.0, 0.0)  # room for an arrow that passes through a layer
TURN: Size = (32.0, 10.0)  # room for an arrow that turns around


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow between two boxes, by their numbers.

    Attributes:
        source: The box it leaves.
        sink: The box it leads to.
        label: The room its text needs.
        rank: Where links run in a circle and none of them leads back more than another, one
            of the highest rank is drawn as leading back; 0 is for what always happens.
        firm: Whether boxes should stand in line along it; loops never are firm.
    """

    source: int
    sink: int
    label: Size | None = None
    rank: int = 0
    firm: bool = True


@dataclass(slots=True)
class Layered:
    """Boxes, bends and turns ("vertices") in layers; neighbours are one layer apart.

    Attributes:
        sizes: Width and height of each vertex; the first ones are the boxes.
        layer_of: The layer of each vertex, from 0 at the top.
        layers: The vertices of each layer, from left to right.
        above: Each vertex's neighbours in the layer above.
        below: Each vertex's neighbours in the layer below.
        firm_above: Those among ``above`` that the vertex should stand in line with.
        firm_below: Those among ``below`` likewise.
        chains: For each link the vertices it runs through, from source to sink.
        labels: For each link the vertex in its chain that holds the label, if any.
        loops: Whether the link leads back up.
    """

    sizes: list[Size]
    layer_of: list[int]
    layers: list[list[int]] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    firm_above: list[list[int]] = field(default_factory=list)
    firm_below: list[list[int]] = field(default_factory=list)
    chains: list[list[int]] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    loops: list[bool] = field(default_factory=list)

    def add(self, layer: int, size: Size) -> int:
        """Add a vertex and return its number."""
        self.sizes.append(size)
        self.layer_of.append(layer)
        return len(self.sizes) - 1


def layered(sizes: Sequence[Size], links: Sequence[Link]) -> Layered:
    """Put boxes of these sizes into layers, with a vertex in each layer that a link crosses."""
    loops = _closing(len(sizes), links)
    result = Layered(sizes=list(sizes), layer_of=_longest_paths(len(sizes), links, loops))
    result.loops = loops
    for link, loop in zip(links, loops, strict=True):
        (_add_loop if loop else _add_link)(result, link)
    top = min(result.layer_of, default=0)
    result.layer_of = [layer - top for layer in result.layer_of]
    result.layers = [[] for _ in range(max(result.layer_of, default=-1) + 1)]
    for vertex, layer in enumerate(result.layer_of):
        result.layers[layer].append(vertex)
    _join(result, [link.firm for link in links], len(sizes))
    return result


def _join(result: Layered, firm: Sequence[bool], boxes: int) -> None:
    """Note who is whose neighbour."""
    result.above, result.below = _lists(result), _lists(result)
    result.firm_above, result.firm_below = _lists(result), _lists(result)
    for number, chain in enumerate(result.chains):
        in_line = firm[number] and not result.loops[number]
        for one, other in pairwise(chain):
            high, low = sorted((one, other), key=result.layer_of.__getitem__)
            result.below[high].append(low)
            result.above[low].append(high)
            if in_line or (one >= boxes and other >= boxes):
                result.firm_below[high].append(low)
                result.firm_above[low].append(high)


def _lists(result: Layered) -> list[list[int]]:
    return [[] for _ in result.sizes]


def _closing(count: int, links: Sequence[Link]) -> list[bool]:
    """Tell for each link whether it is the one that closes a loop.

    Links that lead away from the first box come first: they close none. The others follow,
    by rank, then those that lead back least; one that finds a way from its sink to its source
    closes a loop.
    """
    distance = _distances(count, links)
    back = [distance[link.source] - distance[link.sink] for link in links]
    below: list[list[int]] = [[] for _ in range(count)]
    doubtful = []
    for number, link in enumerate(links):
        if back[number] < 0:
            below[link.source].append(link.sink)
        else:
            doubtful.append(number)
    closing = [False] * len(links)
    doubtful.sort(key=lambda number: (links[number].rank, back[number]))
    for number in doubtful:
        link = links[number]
        closing[number] = _reaches(below, link.sink, link.source)
        if not closing[number]:
            below[link.source].append(link.sink)
    return closing


def _distances(count: int, links: Sequence[Link]) -> list[int]:
    """Return how many links each box is away from the first, or from a first of its own."""
    sinks: list[list[int]] = [[] for _ in range(count)]
    for link in links:
        sinks[link.source].append(link.sink)
    distance = [-1] * count
    for root in range(count):
        if distance[root] >= 0:
            continue
        distance[root] = 0
        ready = [root]
        for box in ready:  # grows while it is walked
            for sink in sinks[box]:
                if distance[sink] < 0:
                    distance[sink] = distance[box] + 1
                    ready.append(sink)
    return distance


def _reaches(below: Sequence[Sequence[int]], start: int, goal: int) -> bool:
    seen = {start}
    stack = [start]
    while stack:
        box = stack.pop()
        if box == goal:
            return True
        fresh = [sink for sink in below[box] if sink not in seen]
        seen.update(fresh)
        stack += fresh
    return False


def _longest_paths(count: int, links: Sequence[Link], loops: Sequence[bool]) -> list[int]:
    """Return a layer for each box: below all it follows, and no higher than it needs to be."""
    steps = [
        (link.source, link.sink, 1 if link.label is None else 2)
        for link, loop in zip(links, loops, strict=True)
        if not loop
    ]
    below: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    waiting = [0] * count
    for source, sink, length in steps:
        below[source].append((sink, length))
        waiting[sink] += 1
    roots = [box for box in range(count) if not waiting[box]]
    ready = list(roots)
    layer = [0] * count
    for box in ready:  # grows while it is walked
        for sink, length in below[box]:
            layer[sink] = max(layer[sink], layer[box] + length)
            waiting[sink] -= 1
            if not waiting[sink]:
                ready.append(sink)
    for root in roots:  # what follows nothing stands just above what follows it
        if below[root]:
            layer[root] = min(layer[sink] - length for sink, length in below[root])
    return layer


def _add_link(result: Layered, link: Link) -> None:
    first = result.layer_of[link.source] + 1
    chain = [link.source]
    label = None
    for layer in range(first, result.layer_of[link.sink]):
        if layer == first and link.label is not None:
            label = result.add(layer, link.label)
            chain.append(label)
        else:
            chain.append(result.add(layer, BEND))
    result.chains.append([*chain, link.sink])
    result.labels.append(label)


def _add_loop(result: Layered, link: Link) -> None:
    bottom, top = result.layer_of[link.source], result.layer_of[link.sink]
    chain = [link.source, result.add(bottom + 1, TURN)]
    label = None
    for layer in range(bottom, top - 1, -1):
        if layer == bottom and link.label is not None:
            label = result.add(layer, link.label)
            chain.append(label)
        else:
            chain.append(result.add(layer, BEND))
    chain.append(result.add(top - 1, TURN))
    result.chains.append([*chain, link.sink])
    result.labels.append(label)
