"""M1: the state."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field

import pytest

from graphorch_ray.state import State


@dataclass
class Budget(State):
    cost: float = 0.0
    tags: list[str] = field(default_factory=list)


class Plain(State):
    pass


def test_M1_messages_are_empty_by_default_and_never_shared():
    one, two = State(), State()
    one.messages.append("x")
    assert two.messages == []


def test_M1_messages_by_position_and_by_name_keep_the_list_given():
    given = [1]
    assert State(given).messages is given
    assert State(messages=given).messages is given


def test_M1_states_are_equal_when_their_messages_are():
    assert State([1, {"a": 2}]) == State([1, {"a": 2}])
    assert State([1]) != State([2])
    assert State([1]) != [1]
    assert State([1]) == Plain([1])


def test_M1_a_subclass_has_its_own_fields_in_equality_repr_and_pickles():
    state = Budget(["m"], cost=2.5, tags=["t"])
    assert state == Budget(["m"], 2.5, ["t"])
    assert state != Budget(["m"], 0.5, ["t"])
    assert pickle.loads(pickle.dumps(state)) == state
    assert copy.deepcopy(state) == state
    assert "cost=2.5" in repr(state)


def test_M1_repr_shows_the_messages_without_their_name():
    assert repr(State(["a", 1])) == str(State(["a", 1])) == "State(['a', 1])"


def test_M1_a_state_is_mutable_and_so_has_no_hash():
    with pytest.raises(TypeError, match="unhashable"):
        hash(State())
