"""Odd but legal."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import re
import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    State,
    ToolNode,
    aggregator_action,
    node_action,
    routing_function,
    tool_method,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]


def chain(*actions, ids=None):
    builder = GraphBuilder()
    before = "start"
    for number, action in enumerate(actions):
        node_id = ids[number] if ids else f"n{number}"
        builder.add_node(ProcessingNode(node_id, action))
        builder.add_concrete_edge(before, node_id)
        before = node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


async def run(state, *actions, **limits):
    return await GraphExecutor(chain(*actions), state).execute(**limits)


@node_action
def same(state):
    return state


# --- functions ---------------------------------------------------------------------------------


def scale(factor, state, *, offset=0):
    return State([m * factor + offset for m in state.messages])


async def scale_async(factor, state):
    await asyncio.sleep(0)
    return State([m * factor for m in state.messages])


class Multiplier:
    def __init__(self, factor):
        self.factor = factor

    def times(self, state):
        return scale(self.factor, state)

    def __call__(self, state):
        return scale(self.factor, state)

    @staticmethod
    @node_action
    def static(state):
        return State([m + 1 for m in state.messages])

    @classmethod
    def made(cls, state):
        return cls(7)(state)


class AsyncMultiplier(Multiplier):
    async def __call__(self, state):
        await asyncio.sleep(0)
        return scale(self.factor, state)


async def test_lambdas_partials_methods_and_callable_objects():
    final = await run(
        State([1]),
        node_action(lambda s: State([m + 1 for m in s.messages])),  # 2
        node_action(functools.partial(scale, 3, offset=1)),  # 7
        node_action(functools.partial(scale_async, 2)),  # 14
        node_action(Multiplier(2).times),  # 28
        node_action(Multiplier(2)),  # 56
        node_action(AsyncMultiplier(2)),  # 112
        Multiplier.static,  # 113
        node_action(Multiplier.made),  # 791
    )
    assert final == State([791])


async def test_closures_over_values_and_functions():
    offset, helper = 5, lambda m: m * 10

    def outer():
        inner_value = [1, 2]

        @node_action
        def act(state):
            return State([helper(m) + offset + sum(inner_value) for m in state.messages])

        return act

    assert await run(State([1]), outer()) == State([18])


async def test_the_same_function_in_many_nodes_and_late_binding():
    def make(n):
        @node_action
        def act(state):
            return State([*state.messages, n])

        return act

    assert await run(State(), *(make(n) for n in range(5))) == State([0, 1, 2, 3, 4])
    assert await run(State([1]), same, same, same) == State([1])


async def test_users_own_decorators_above_and_below():
    def logged(func):
        @functools.wraps(func)
        def wrapper(state):
            result = func(state)
            return State([*result.messages, "logged"])

        return wrapper

    @node_action
    @logged
    def below(state):
        return State([*state.messages, "below"])

    @logged
    @node_action
    def above(state):  # functools.wraps carries the marker over
        return State([*state.messages, "above"])

    final = await run(State(), below, above)
    assert final.messages == ["below", "logged", "above", "logged"]


async def test_a_sync_function_that_returns_a_coroutine_when_marked_by_hand():
    async def later(state):
        return State([*state.messages, "later"])

    def act(state):
        return later(state)

    async def act_async(state):
        return State([*state.messages, "async"])

    act_async.is_node_action = True
    assert await run(State(), act_async) == State(["async"])


async def test_actions_with_defaults_keywords_and_type_hints():
    @node_action
    def act(state: State, suffix: str = "!", *rest, sep: str = "-", **more) -> State:
        return State([f"{m}{sep}{suffix}" for m in state.messages])

    @aggregator_action
    def join(states: list[State]) -> State:
        return State([m for s in states for m in s.messages])

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", act))
    builder.add_aggregator(AggregatorNode("agg", join))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "agg")
    builder.add_concrete_edge("agg", "end")
    assert await GraphExecutor(builder.build_graph(), State(["x"])).execute() == State(["x-!"])


async def test_async_nodes_with_gather_locks_and_context_managers():
    @contextlib.asynccontextmanager
    async def resource():
        await asyncio.sleep(0)
        yield "resource"

    @node_action
    async def act(state):
        lock = asyncio.Lock()

        async def one(n):
            async with lock, resource() as name:
                return f"{name}{n}"

        return State(await asyncio.gather(*(one(n) for n in range(3))))

    assert await run(State(), act) == State(["resource0", "resource1", "resource2"])


async def test_a_sync_node_with_an_event_loop_of_its_own():
    @node_action
    def act(state):
        async def work():
            await asyncio.sleep(0)
            return "worked"

        return State([asyncio.run(work())])

    assert await run(State(), act) == State(["worked"])


async def test_recursive_and_mutually_dependent_local_functions():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    @node_action
    def act(state):
        return State([even(m) for m in state.messages])

    assert await run(State([4, 7]), act) == State([True, False])


# --- what comes back ---------------------------------------------------------------------------


async def test_nodes_that_return_the_very_same_object():
    singleton = State(["singleton"])

    @node_action
    def shared(state):
        singleton.messages.append(len(singleton.messages))
        return singleton

    @aggregator_action
    def last(states):
        return states[-1]

    builder = GraphBuilder()
    for node_id in "ab":
        builder.add_node(ProcessingNode(node_id, same))
    builder.add_aggregator(AggregatorNode("agg", last))
    for node_id in "ab":
        builder.add_concrete_edge("start", node_id)
        builder.add_concrete_edge(node_id, "agg")
    builder.add_concrete_edge("agg", "end")
    assert await GraphExecutor(builder.build_graph(), State([1])).execute() == State([1])
    final = await run(State(), shared)
    assert final.messages == ["singleton", 1]
    assert final is not singleton


async def test_results_with_shared_and_cyclic_parts():
    @node_action
    def knot(state):
        ring = [1]
        ring.append(ring)
        shared = {"k": 1}
        return State([ring, shared, shared])

    @node_action
    def pull(state):
        ring, first, second = state.messages
        first["k"] = 2
        return State([ring[1] is ring, first is second, second["k"]])

    assert await run(State(), knot, pull) == State([True, True, 2])


async def test_messages_that_are_no_list():
    @node_action
    def act(state):
        return State((*state.messages, 3))

    final = await run(State((1, 2)), act)
    assert final.messages == (1, 2, 3)


# --- states with more in them ------------------------------------------------------------------


@dataclass
class Order(State):
    customer: str = ""
    items: list = field(default_factory=list)


class Plain(State):
    """A subclass that is no dataclass and has an __init__ of its own."""

    def __init__(self, messages=None, *, trace):
        super().__init__(messages or [])
        self.trace = trace


async def test_state_subclasses_keep_class_and_fields():
    @node_action
    def add(state):
        state.items.append("book")
        state.messages.append("added")
        return state

    @routing_function
    def enough(state):
        return "end" if len(state.items) == 2 else "add"

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("add", add))
    builder.add_concrete_edge("start", "add")
    builder.add_conditional_edge("add", ["add", "end"], enough)
    initial = Order(["new"], "me", [])
    final = await GraphExecutor(builder.build_graph(), initial).execute()
    assert type(final) is Order
    assert final == Order(["new", "added", "added"], "me", ["book", "book"])
    assert initial.items == []


async def test_plain_subclasses_and_attributes_set_by_hand():
    @node_action
    def act(state):
        state.trace.append("act")
        state.extra["hits"] += 1
        return state

    initial = Plain(["m"], trace=[])
    initial.extra = {"hits": 0}
    final = await run(initial, act)
    assert isinstance(final, Plain)
    assert (final.messages, final.trace, final.extra) == (["m"], ["act"], {"hits": 1})
    assert initial.extra == {"hits": 0}


async def test_a_local_state_class():
    @dataclass
    class Local(State):
        count: int = 0

    @node_action
    def act(state):
        return Local(state.messages, state.count + 1)

    final = await run(Local([], 1), act, act)
    assert isinstance(final, Local)
    assert final.count == 3


# --- messages of every kind --------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(slots=True)
class Slotted:
    value: list


class Pair(NamedTuple):
    left: int
    right: str


class Vector:
    def __init__(self, *parts):
        self.parts = parts

    def __eq__(self, other):
        return isinstance(other, Vector) and self.parts == other.parts

    __hash__ = None


def samples():
    return [
        None,
        True,
        1 << 100,
        1.5,
        2j,
        "é\u0000\U0001f600",
        b"\x00\xff",
        bytearray(b"ab"),
        {"nested": [{"deep": (1, {2})}]},
        frozenset({1, 2}),
        range(3),
        slice(1, 2),
        ...,
        Colour.RED,
        Level.LOW | Level.HIGH,
        Point(1, 2),
        Slotted([1]),
        Pair(1, "r"),
        Vector(1, [2]),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(seconds=3),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("/a/b"),
        re.compile("a+", re.IGNORECASE),
        collections.Counter("aab"),
        collections.OrderedDict(a=1),
        collections.deque([1, 2], maxlen=2),
        collections.defaultdict(list, {"a": [1]}),
        int,
        len,
        Point,
        scale,
    ]


async def test_messages_of_every_kind():
    @node_action
    def check(state):
        wrong = [
            (got, want)
            for got, want in zip(state.messages, samples(), strict=True)
            if got != want or type(got) is not type(want)
        ]
        assert not wrong, wrong
        assert state.messages[13] is Colour.RED
        return state

    final = await run(State(samples()), check, same, check)
    assert final.messages == samples()
    assert final.messages[13] is Colour.RED
    assert final.messages[26]["never seen"] == 0


async def test_messages_of_local_classes():
    class Mood(enum.Enum):
        GOOD = "good"

    @dataclass
    class Note:
        text: str
        mood: Mood = Mood.GOOD

    class Thing:
        def shout(self):
            return "thing"

    @node_action
    def act(state):
        note, thing, function = state.messages
        assert isinstance(note, Note)
        assert note.mood is Mood.GOOD
        return State([Note(note.text + thing.shout()), thing, function])

    final = await run(State([Note("a"), Thing(), lambda: 5]), act, act)
    assert final.messages[0] == Note("athingthing")
    assert isinstance(final.messages[0], Note)
    assert final.messages[0].mood is Mood.GOOD
    assert isinstance(final.messages[1], Thing)
    assert final.messages[2]() == 5


async def test_exceptions_as_messages():
    @node_action
    def act(state):
        try:
            raise state.messages[0]
        except ValueError as error:
            return State([error, str(error)])

    final = await run(State([ValueError("kept")]), act)
    assert isinstance(final.messages[0], ValueError)
    assert final.messages[1] == "kept"


async def test_small_arrays_may_be_changed_in_place():
    @node_action
    def add(state):
        state.messages[0] += 1
        state.messages[1]["a"][0] = 9
        return state

    initial = State([np.zeros(3), {"a": np.arange(2)}])
    final = await run(initial, add, add)
    assert final.messages[0].tolist() == [2, 2, 2]
    assert final.messages[1]["a"].tolist() == [9, 1]
    assert initial.messages[0].tolist() == [0, 0, 0]


async def test_large_arrays_are_read_only_unless_mutable_is_asked_for():  # *Changed*, E2
    @node_action
    def write(state):
        state.messages[0][0] = 7
        return state

    @node_action(mutable=True)
    def write_mine(state):
        state.messages[0][0] = 7
        return state

    @node_action
    def on_a_copy(state):
        array = state.messages[0].copy()
        array[1] = 8
        return State([array])

    initial = State([np.zeros(100_000)])
    with pytest.raises(GraphExecutionError, match="read-only"):
        await run(initial, write)
    final = await run(initial, write_mine, on_a_copy)
    assert final.messages[0][:3].tolist() == [7, 8, 0]
    assert initial.messages[0].max() == 0


async def test_big_messages():
    text, numbers = "x" * 2_000_000, list(range(50_000))

    @node_action
    def act(state):
        return State([state.messages[0][::-1], state.messages[1][:10], "y" * 500_000])

    final = await run(State([text, numbers]), act, same)
    assert final.messages[0] == text
    assert final.messages[1] == numbers[:10]
    assert len(final.messages[2]) == 500_000


# --- odd graphs --------------------------------------------------------------------------------

ODD_IDS = [
    "a b",
    "größe",
    "节点",
    "🦊",
    "it's",
    'say "hi"',
    "a/b\\c",
    "x\ny",
    "N/A",
    "{0}",
    "1",
    " ",
]


async def test_node_ids_of_every_kind():
    @node_action
    def count(state):
        return State([state.messages[0] + 1])

    graph = chain(*[count] * len(ODD_IDS), ids=ODD_IDS)
    assert list(graph.nodes)[2:] == ODD_IDS
    assert await GraphExecutor(graph, State([0])).execute() == State([len(ODD_IDS)])


@pytest.mark.parametrize("node_id", ["größe 🦊", "it's {0} %s"])
async def test_odd_ids_in_errors_and_routes(node_id):
    @node_action
    def fails(state):
        raise ValueError("{braces} %s ü")

    @routing_function
    def there(state):
        return node_id

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("decide", same))
    builder.add_node(ProcessingNode(node_id, fails))
    builder.add_concrete_edge("start", "decide")
    builder.add_conditional_edge("decide", [node_id, "end"], there)
    builder.add_concrete_edge(node_id, "end")
    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(builder.build_graph(), State()).execute()
    assert str(caught.value) == f"Execution failed at node '{node_id}': {{braces}} %s ü"


async def test_a_chain_of_two_hundred():
    @node_action
    def count(state):
        state.messages[0] += 1
        return state

    graph = chain(*[count] * 200)
    with pytest.raises(GraphExecutionError, match="Max supersteps reached"):
        await GraphExecutor(graph, State([0])).execute()
    assert await GraphExecutor(graph, State([0])).execute(max_supersteps=202) == State([200])


async def test_a_wide_fan_out(backend):
    width = 300 if backend == "inline" else 40

    def make(n):
        @node_action
        async def on_loop(state):
            await asyncio.sleep(0.001 * (n % 7))
            return State([n])

        @node_action
        def in_thread(state):
            return State([n])

        return on_loop if n % 2 else in_thread

    @aggregator_action
    def collect(states):
        return State([s.messages[0] for s in states])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", collect))
    for n in range(width):
        builder.add_node(ProcessingNode(f"n{n}", make(n)))
        builder.add_concrete_edge("start", f"n{n}")
        builder.add_concrete_edge(f"n{n}", "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == list(range(width))


async def test_a_grid_of_aggregators():
    @aggregator_action
    def add(states):
        return State([sum(s.messages[0] for s in states)])

    builder = GraphBuilder()
    width, depth = 4, 4
    for level in range(depth):
        for n in range(width):
            builder.add_aggregator(AggregatorNode(f"{level}.{n}", add))
            for source in range(width) if level else ():
                builder.add_concrete_edge(f"{level - 1}.{source}", f"{level}.{n}")
    for n in range(width):
        builder.add_concrete_edge("start", f"0.{n}")
    builder.add_aggregator(AggregatorNode("sum", add))
    for n in range(width):
        builder.add_concrete_edge(f"{depth - 1}.{n}", "sum")
    builder.add_concrete_edge("sum", "end")
    final = await GraphExecutor(builder.build_graph(), State([1])).execute()
    assert final == State([width**depth])


async def test_a_self_loop_by_a_concrete_edge():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("n", same))
    builder.add_concrete_edge("start", "n")
    builder.add_concrete_edge("n", "n")
    builder.add_concrete_edge("n", "end")
    executor = GraphExecutor(builder.build_graph(), State([1]))
    with pytest.raises(GraphExecutionError, match="Max supersteps"):
        await executor.execute(max_supersteps=5)
    assert executor.final_state == State([1])


async def test_edges_from_start_to_everywhere():
    @tool_method
    def tool(state):
        """A tool."""
        return State([*state.messages, "tool"])

    builder = GraphBuilder()
    builder.add_node(ToolNode("t", None, tool))
    builder.add_concrete_edge("start", "end")
    builder.add_concrete_edge("start", "t")
    builder.add_concrete_edge("t", "end")
    executor = GraphExecutor(builder.build_graph(), State())
    assert await executor.execute() == State(["tool"])
    assert executor.superstep == 3


async def test_an_aggregator_right_after_start_and_right_before_itself():
    @aggregator_action
    def count(states):
        return State([*states[-1].messages, len(states)])

    @routing_function
    def three(state):
        return "agg" if len(state.messages) < 3 else "end"

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", count))
    builder.add_concrete_edge("start", "agg")
    builder.add_conditional_edge("agg", ["agg", "end"], three)
    assert await GraphExecutor(builder.build_graph(), State()).execute() == State([1, 1, 1])


# --- wrong input -------------------------------------------------------------------------------


def test_wrong_arguments_of_the_executor():
    graph = chain(same)
    with pytest.raises(TypeError, match="initial_state"):
        GraphExecutor(graph, [1])
    with pytest.raises(TypeError, match="graph"):
        GraphExecutor(GraphBuilder(), State())
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            GraphExecutor(graph, State(), max_workers=workers)
    with pytest.raises(ValueError, match="checkpoint_every"):
        GraphExecutor(graph, State(), checkpoint_every=-1)
    assert GraphExecutor(graph, State(), checkpoint_every=0).checkpoint_every in (0, None)


async def test_wrong_limits():
    executor = GraphExecutor(chain(same), State())
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="superstep_timeout"):
            await executor.execute(superstep_timeout=timeout)
    with pytest.raises(ValueError, match="max_supersteps"):
        await executor.execute(max_supersteps=-1)
    with pytest.raises(GraphExecutionError, match="Max supersteps reached"):
        await executor.execute(max_supersteps=0)
    assert await executor.execute(superstep_timeout=float("inf")) == State()


async def test_numbers_of_other_kinds():
    executor = GraphExecutor(chain(same), State([1]), max_workers=np.int64(2))
    final = await executor.execute(max_supersteps=np.int64(9), superstep_timeout=np.float64(30))
    assert final == State([1])
