"""Layered drawing, second step: order each layer so that few arrows cross."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import pairwise

from .layers import Layered

__all__ = ["count_crossings", "order_layers"]

Order = list[list[int]]

SWEEPS = 24
SWAP_UP_TO = 600  # vertices; swapping neighbours costs too much in a larger picture
PATIENCE = 4  # sweeps in a row that better nothing


def order_layers(graph: Layered) -> None:
    """Order the vertices of ``graph.layers`` in place.

    From each of two beginnings it sweeps down and up, sorting each layer by the average
    place of its neighbours in the layer before, and the best order seen is kept. The same
    graph always gives the same order.
    """
    looping = {
        vertex
        for chain, loop in zip(graph.chains, graph.loops, strict=True)
        if loop
        for vertex in chain[1:-1]
    }
    _first_order(graph)
    walked = [list(layer) for layer in graph.layers]
    outside = [sorted(layer, key=looping.__contains__) for layer in walked]
    tried = [_improved(graph, beginning) for beginning in (outside, walked)]
    graph.layers = min(tried, key=lambda order: order[0])[1]


def _improved(graph: Layered, beginning: Order) -> tuple[int, Order]:
    """Return the fewest crossings found from there, and the order that has them."""
    graph.layers = [list(layer) for layer in beginning]
    best, fewest, idle = beginning, count_crossings(graph), 0
    for sweep in range(SWEEPS):
        if not fewest or idle == PATIENCE:
            break
        _sweep(graph, downward=sweep % 2 == 0)
        if len(graph.sizes) <= SWAP_UP_TO:
            _swap_neighbours(graph)
        crossings = count_crossings(graph)
        if crossings < fewest:
            best, fewest, idle = [list(layer) for layer in graph.layers], crossings, 0
        else:
            idle += 1
    return fewest, best


def count_crossings(graph: Layered) -> int:
    """Return how many pairs of arrow pieces between neighbouring layers cross."""
    total = 0
    for upper, lower in pairwise(graph.layers):
        place = {vertex: number for number, vertex in enumerate(lower)}
        seen: list[int] = []
        for vertex in upper:
            ends = sorted(place[other] for other in graph.below[vertex])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _first_order(graph: Layered) -> None:
    """Order by a walk from the top, so that what hangs together stands together."""
    rank: dict[int, int] = {}
    for root in (vertex for layer in graph.layers for vertex in layer):
        stack = [root]
        while stack:
            vertex = stack.pop()
            if vertex not in rank:
                rank[vertex] = len(rank)
                stack += reversed((*graph.firm_below[vertex], *graph.below[vertex]))
    for layer in graph.layers:
        layer.sort(key=rank.__getitem__)


def _sweep(graph: Layered, *, downward: bool) -> None:
    layers = graph.layers if downward else graph.layers[::-1]
    neighbours = graph.above if downward else graph.below
    for fixed, layer in pairwise(layers):
        place = {vertex: number for number, vertex in enumerate(fixed)}
        scale = len(fixed) / max(1, len(layer))
        weight = {
            vertex: sum(map(place.__getitem__, neighbours[vertex])) / len(neighbours[vertex])
            if neighbours[vertex]
            else number * scale
            for number, vertex in enumerate(layer)
        }
        layer.sort(key=weight.__getitem__)


def _swap_neighbours(graph: Layered) -> None:
    """Swap two that stand side by side wherever fewer arrows cross then."""
    for number, layer in enumerate(graph.layers):
        upper = _places(graph.layers, number - 1)
        lower = _places(graph.layers, number + 1)
        ends = {
            vertex: (
                sorted(upper[other] for other in graph.above[vertex]),
                sorted(lower[other] for other in graph.below[vertex]),
            )
            for vertex in layer
        }
        for left in range(len(layer) - 1):
            one, other = ends[layer[left]], ends[layer[left + 1]]
            now = _between(one[0], other[0]) + _between(one[1], other[1])
            swapped = _between(other[0], one[0]) + _between(other[1], one[1])
            if swapped < now:
                layer[left], layer[left + 1] = layer[left + 1], layer[left]


def _places(layers: Sequence[Sequence[int]], number: int) -> dict[int, int]:
    if not 0 <= number < len(layers):
        return {}
    return {vertex: place for place, vertex in enumerate(layers[number])}


def _between(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the crossings of the arrows of a vertex with those of the one to its right."""
    return sum(len(left) - bisect_right(left, end) for end in right)
