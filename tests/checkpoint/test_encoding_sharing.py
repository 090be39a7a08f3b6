"""What is one object stays one object, and what is two stays two."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray import State
from graphorch_ray.checkpoint.encoding import encode

from .codec import Frozen, Item, Opaque, Person, there_and_back


@dataclass(eq=False)
class Node:
    links: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Key:
    name: str
    more: Any = None


def test_one_list_in_two_places_stays_one() -> None:
    one = [1]
    got = there_and_back(State(messages=[one, {"x": one}, [1]])).messages
    assert got[0] is got[1]["x"]
    assert got[0] is not got[2]


def test_one_array_in_two_places_is_stored_once() -> None:
    array = np.zeros(100_000)
    encoded = encode([array, (array,)], what="state")
    assert len(encoded.pieces) == 1
    got = there_and_back([array, (array,)])
    assert got[0] is got[1][0]


def test_state_may_hold_itself() -> None:
    state = State()
    state.messages.append({"me": state, "messages": state.messages})
    got = there_and_back(state)
    assert got.messages[0]["me"] is got
    assert got.messages[0]["messages"] is got.messages


def test_cycle_through_each_kind_of_container() -> None:
    for make in (
        lambda x: x.append(x) or x,
        lambda x: x.append((x, 1)) or x,
        lambda x: x.append({"x": x}) or x,
        lambda x: x.append({1: x}) or x,
        lambda x: x.append(deque([x])) or x,
        lambda x: x.append(Frozen(1, x)) or x,
        lambda x: x.append(Item("a", tags=x)) or x,
        lambda x: x.append(Person(name="a", friend=x)) or x,
    ):
        got = there_and_back(make([]))
        inner = got[0]
        if inner is not got:
            (found,) = [
                held for held in _held(inner) if held is got
            ]  # the very list, not an equal one
            assert found is got


def _held(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (tuple, list, deque)):
        return list(value)
    return [*vars(value).values(), *(getattr(value, "__pydantic_extra__", None) or {}).values()]


def test_cycle_that_begins_at_a_tuple() -> None:
    inner: list[Any] = []
    outer = (inner, 1)
    inner.append(outer)
    got = there_and_back(outer)
    assert got[0][0] is got


def test_ring_of_objects_longer_than_any_stack() -> None:
    nodes = [Node() for _ in range(20_000)]
    for one, two in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        one.links.append(two)
    got = there_and_back(nodes[0])
    seen, node = set(), got
    while id(node) not in seen:
        seen.add(id(node))
        node = node.links[0]
    assert node is got
    assert len(seen) == 20_000


def test_key_that_is_shared_is_complete_when_it_is_hashed() -> None:
    key = Key("a", more=(Key("b"), 1))
    value = [{"x": [key]}, {key: 1}, {key}, frozenset({(key,)})]
    got = there_and_back(value)
    (same,) = got[1]
    assert same is got[0]["x"][0]
    assert got[1][Key("a", more=(Key("b"), 1))] == 1
    assert key in got[2]
    assert (key,) in got[3]


def test_what_pickled_objects_share_stays_shared() -> None:
    shared = Opaque(x=1)
    got = there_and_back([Opaque(a=shared), Opaque(a=shared)], trusted=True, plain=False)
    assert got[0].a is got[1].a


def test_what_pickled_and_plain_share_stays_shared() -> None:
    shared = [1]
    array = np.zeros(100_000)
    value = State(messages=[shared, Opaque(a=shared, b=array), array])
    encoded = encode(value, what="state")
    assert encoded.pickled == ("state (a graphorch_ray.state.State)",)
    assert sum(len(parts[0]) for parts in encoded.pieces) == array.nbytes
    got = there_and_back(value, trusted=True, plain=False).messages
    assert got[1].a is got[0]
    assert got[1].b is got[2]


def test_smallest_part_is_pickled() -> None:
    encoded = encode({"a": [1], "b": [Opaque()], "c": (Opaque(x=1),)}, what="state")
    kind = "(a tests.checkpoint.codec.Opaque)"
    assert encoded.pickled == (f"state['b'][0] {kind}", f"state['c'][0] {kind}")


MAKERS = (list, dict, tuple, Node, deque)


@given(st.data())
def test_any_graph_of_objects_comes_back_as_the_same_graph(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=12))
    made: list[Any] = []
    for kind in kinds:  # tuples first know only what is before them
        known = [*made, 0, "a"]
        if kind is tuple:
            made.append(tuple(data.draw(st.lists(st.sampled_from(known), max_size=3))))
        else:
            made.append(kind())
    for value in made:
        for target in data.draw(st.lists(st.sampled_from(made), max_size=3)):
            if isinstance(value, (list, deque)):
                value.append(target)
            elif isinstance(value, dict):
                value[f"k{len(value)}"] = target
                value[len(value)] = 1
            elif isinstance(value, Node):
                value.links.append(target)
    assert_same_graph(made, there_and_back(made))


def assert_same_graph(one: Any, two: Any) -> None:
    pairs: dict[int, int] = {}
    todo = [(one, two)]
    while todo:
        left, right = todo.pop()
        assert type(left) is type(right)
        if isinstance(left, (int, str)):
            assert left == right
            continue
        if left == ():
            continue
        if id(left) in pairs:
            assert pairs[id(left)] == id(right)
            continue
        pairs[id(left)] = id(right)
        if isinstance(left, dict):
            assert list(left) == list(right)
            todo += zip(left.values(), right.values(), strict=True)
        elif isinstance(left, Node):
            todo.append((left.links, right.links))
        else:
            todo += zip(left, right, strict=True)
    assert len(set(pairs.values())) == len(pairs)
