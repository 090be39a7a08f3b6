"""M4: actions with a model."""

from __future__ import annotations

import copy
import pickle

import pytest

from graphorch_ray.errors import InvalidAIActionOutput
from graphorch_ray.model import AIActionBase, AINode
from graphorch_ray.model.ai import ensure_model
from graphorch_ray.state import State


class Counting(AIActionBase):
    """Counts how often its model is built, over all instances."""

    builds = 0

    def build_model(self):
        type(self).builds += 1
        self.model = {"step": self.config["step"]}
        self._model_built = True

    def process_state(self, state):
        return State([message + self.model["step"] for message in state.messages])


class CountingLater(Counting):
    async def process_state(self, state):
        return super().process_state(state)


class Forgetful(Counting):
    def build_model(self):
        type(self).builds += 1
        self.model = {"step": 1}


class Delegating(Counting):
    def process_state(self, state):
        return self.later(state)

    async def later(self, state):
        return State([*state.messages, "later"])


@pytest.fixture(autouse=True)
def _fresh_counts(monkeypatch):
    for kind in (Counting, CountingLater, Forgetful, Delegating):
        monkeypatch.setattr(kind, "builds", 0)


@pytest.mark.parametrize("kind", [Counting, CountingLater])
async def test_M4_process_state_may_be_sync_or_async(kind):
    node = AINode("m", "adds", kind({"step": 10}))
    assert await node.execute(State([1])) == State([11])
    assert await node.func(State([1])) == State([11])


async def test_M4_a_sync_process_state_may_return_an_awaitable():
    assert await AINode("m", "adds", Delegating({"step": 1})).execute(State()) == State(["later"])


def test_M4_a_sync_model_node_is_called_without_a_loop():
    node = AINode("m", "adds", Counting({"step": 10}))
    assert not node.is_async
    assert node.call(State([1])) == State([11])
    assert AINode("m", "adds", CountingLater({"step": 10})).is_async


@pytest.mark.parametrize("kind", [Counting, CountingLater, Forgetful])
async def test_M4_the_model_is_built_once_and_reused(kind):
    action = kind({"step": 1})
    node = AINode("m", "adds", action)
    assert kind.builds == 0
    for _ in range(3):
        await node.execute(State([1]))
    assert kind.builds == 1
    assert action._model_built is True


def test_M4_whoever_builds_the_model_is_told_whether_it_was_needed():
    action = Counting({"step": 1})
    assert ensure_model(action) is True
    assert ensure_model(action) is False
    node = AINode("m", "adds", Counting({"step": 1}))
    assert node.ensure_model() is True
    assert node.ensure_model() is False


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_M4_a_built_model_is_not_shipped(copied):
    action = Counting({"step": 5})
    ensure_model(action)
    other = copied(action)
    assert (other.model, other._model_built, other.config) == (None, False, {"step": 5})
    assert action.model == {"step": 5}
    assert AINode("m", "d", other).call(State([0])) == State([5])
    assert Counting.builds == 2


def test_M4_what_a_constructor_puts_into_model_without_building_is_shipped():
    action = Counting({"step": 5})
    action.model = "name only"
    assert pickle.loads(pickle.dumps(action)).model == "name only"


class Wrong(Counting):
    def process_state(self, state):
        return 3


class WrongLater(Counting):
    async def process_state(self, state):
        return 3


@pytest.mark.parametrize("kind", [Wrong, WrongLater])
async def test_M4_a_result_that_is_no_state_is_refused(kind):
    with pytest.raises(InvalidAIActionOutput) as caught:
        await AINode("m", "d", kind({"step": 1})).execute(State())
    assert str(caught.value) == "AI action must return a state, but got int"


def test_M4_attributes_are_those_of_the_original():
    config = {"step": 1}
    action = Counting(config)
    assert action.config is config
    assert action.model is None
    assert action._model_built is False
    assert action.is_node_action is True
    assert action.__name__ == "Counting"


def test_M4_both_methods_are_needed():
    class Half(AIActionBase):
        def build_model(self):
            pass

    with pytest.raises(TypeError, match="process_state"):
        Half({})


async def test_M4_a_subclass_with_its_own_call_is_called_that_way():
    class Own(Counting):
        async def __call__(self, state):
            return State(["own"])

    node = AINode("m", "d", Own({"step": 1}))
    assert node.is_async
    assert await node.execute(State()) == State(["own"])
