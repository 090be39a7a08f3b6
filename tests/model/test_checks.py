"""What build_graph() refuses and warns of, beside the rules of M5."""

from __future__ import annotations

import functools
import logging
import math
import threading
import warnings
from collections import Counter, deque
from types import SimpleNamespace

import numpy as np
import pytest

from graphorch_ray.errors import GraphConfigurationError, GraphWarning
from graphorch_ray.model import (
    AggregatorNode,
    AIActionBase,
    AINode,
    GraphBuilder,
    HumanInTheLoopNode,
    ProcessingNode,
    node_action,
    routing_function,
    selectRandomState,
)
from graphorch_ray.model.variables import changed_variables
from graphorch_ray.state import State


@node_action
def step(state):
    return state


@routing_function
def router(state):
    return "end"


def built(edges, nodes="", fallbacks=()):
    """Build a graph: "a>b" is a concrete edge, "a?b,c" a conditional one; return its warnings."""
    builder = GraphBuilder()
    names = dict.fromkeys(nodes.split())
    for edge in edges.split():
        source, sinks = edge.split(">") if ">" in edge else edge.split("?")
        names.update(dict.fromkeys([source, *sinks.split(",")]))
    for name in names:
        if name not in ("start", "end"):
            builder.add_node(ProcessingNode(name, step))
    for edge in edges.split():
        if ">" in edge:
            builder.add_concrete_edge(*edge.split(">"))
        else:
            source, sinks = edge.split("?")
            builder.add_conditional_edge(source, sinks.split(","), router)
    for node_id, fallback_id in fallbacks:
        builder.set_fallback_node(node_id, fallback_id)
    return warned(builder)


def warned(builder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = builder.build_graph()
    assert all(item.category is GraphWarning for item in caught)
    assert tuple(str(item.message) for item in caught) == graph.warnings
    return list(graph.warnings)


# --- shape --------------------------------------------------------------------------------------


def test_checks_a_sound_graph_gives_no_warning():
    assert built("start>a a?b,c b>a c>end") == []
    assert built("start>a a?a,end") == []
    assert built("start>end") == []


def test_checks_a_node_that_nothing_reaches_is_warned_of_once():
    assert built("start>a a>end x>end") == ["Nothing reaches node 'x', so it never runs."]
    assert built("start>a a>end", nodes="x y") == [
        "Nothing reaches node 'x', so it never runs.",
        "Nothing reaches node 'y', so it never runs.",
    ]


def test_checks_an_end_that_nothing_reaches_means_no_result():
    assert built("start>a x>end") == [
        "Nothing reaches 'end', so a run has no result (None).",
        "Node 'a' leads nowhere: it has no edge, so its result is lost.",
        "Nothing reaches node 'x', so it never runs.",
    ]


def test_checks_a_node_that_leads_nowhere_is_warned_of():
    assert built("start>a a>end a>b") == [
        "Node 'b' leads nowhere: it has no edge, so its result is lost."
    ]


def test_checks_a_fallback_is_reached_and_need_not_lead_anywhere():
    assert built("start>a a>end", nodes="f", fallbacks=[("a", "f")]) == []
    assert built("start>a a>end f>end", fallbacks=[("a", "f")]) == []


def test_checks_a_fallback_of_a_node_that_never_runs_is_not_reached():
    assert built("start>a a>end", nodes="x f", fallbacks=[("x", "f")]) == [
        "Nothing reaches node 'x', so it never runs.",
        "Nothing reaches node 'f', so it never runs.",
    ]


def test_checks_what_only_a_fallbacks_own_edges_lead_to_is_not_reached():
    """For a fallback's result goes along the edges of the node it stands in for."""
    assert built("start>a a>end f>b b>end", fallbacks=[("a", "f")]) == [
        "Nothing reaches node 'b', so it never runs."
    ]


def test_checks_a_fallback_on_the_normal_path_is_warned_of_once():
    fallbacks = [("a", "b"), ("c", "b")]
    assert built("start>a a>b b>c c>end", fallbacks=fallbacks) == [
        "Node 'b' is the fallback of 'a' and 'c' and also on the normal path, so it may run twice; "
        "give the fallback a node of its own."
    ]


LOOP_ENDS = " A run that gets there ends at max_supersteps."


def test_checks_a_loop_that_no_edge_leaves_has_no_exit():
    assert built("start>a a?b,end b>c c>b") == [
        "The loop of 'b' and 'c' has no exit: no edge leaves it." + LOOP_ENDS
    ]
    assert built("start>a a?b,end b?b") == [
        "The loop of 'b' has no exit: no edge leaves it." + LOOP_ENDS
    ]


def test_checks_a_loop_of_concrete_edges_has_no_exit_even_where_an_edge_leaves_it():
    assert built("start>a a>a a>end") == [
        "The loop of 'a' has no exit: its edges always fire, and the edges that leave it do not "
        "stop them." + LOOP_ENDS
    ]


def test_checks_a_loop_with_an_exit_into_another_without_one_is_not_blamed():
    assert built("start>a a>end a?a,b b>b") == [
        "The loop of 'b' has no exit: no edge leaves it." + LOOP_ENDS
    ]


def test_checks_each_loop_is_warned_of_once():
    texts = built("start>a start>b a>a b>c c>b a>end")
    assert [text.split(" has no exit")[0] for text in texts] == [
        "The loop of 'a'",
        "The loop of 'b' and 'c'",
    ]


def test_checks_a_loop_behind_a_conditional_edge_that_cannot_avoid_it_is_found():
    texts = built("start>a a?b,c b>b c>c a>end")
    assert len(texts) == 2


def test_checks_a_warning_points_at_the_caller_of_build_graph():
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("x", step))
    builder.add_concrete_edge("start", "end")
    with pytest.warns(GraphWarning) as caught:
        builder.build_graph()
    assert caught[0].filename == __file__


def test_checks_a_large_graph_is_checked_quickly():
    edges = ["start>n0", *(f"n{i}>n{i + 1}" for i in range(3000)), "n3000?n0,end"]
    assert built(" ".join(edges)) == []


# --- what could never work ----------------------------------------------------------------------


def line(action):
    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", action))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    return builder


def test_checks_a_conditional_edge_with_no_sinks_is_refused():
    builder = line(step)
    builder.add_conditional_edge("a", [], router)
    with pytest.raises(GraphConfigurationError, match="edge from 'a' has no sinks"):
        builder.build_graph()


@node_action
def takes_nothing():
    return State()


@node_action
def takes_two(state, other):
    return state


def test_checks_a_function_that_cannot_take_one_argument_is_refused():
    with pytest.raises(
        GraphConfigurationError, match=r"'takes_nothing' of node 'a' cannot be .*\("
    ):
        line(takes_nothing).build_graph()
    with pytest.raises(GraphConfigurationError, match=r"signature is \(state, other\)"):
        line(takes_two).build_graph()
    builder = line(step)
    builder.add_conditional_edge("a", ["a"], routing_function(lambda: "a"))
    with pytest.raises(GraphConfigurationError, match="Router '<lambda>' of node 'a' cannot"):
        builder.build_graph()


def with_other(function):
    @functools.wraps(function)
    def wrapper(state):
        return function(state, 1)

    return wrapper


def test_checks_a_users_decorator_may_add_arguments():
    assert warned(line(node_action(with_other(lambda state, other: state)))) == []
    assert warned(line(node_action(functools.partial(lambda other, state: state, 1)))) == []
    assert warned(line(node_action(lambda state, other=1: state))) == []


# --- variables of the driver --------------------------------------------------------------------


class Things:
    def __init__(self):
        self.items = []
        self.count = 0

    def add(self, item):
        self.items.append(item)


LOG = []
SEEN = set()
TABLE = {}
QUEUE = deque()
TALLY = Counter()
THINGS = Things()
PLACE = SimpleNamespace(value=0)
ARRAY = np.zeros(3)
TOTAL = 0
LOGGER = logging.getLogger(__name__)
LOCAL = threading.local()


def changes_by_append(state):
    LOG.append(1)
    return state


def changes_by_item(state):
    TABLE["x"] = 1
    return state


def changes_by_nested_item(state):
    TABLE["x"]["y"] += 1
    return state


def changes_by_del(state):
    del TABLE["x"]
    return state


def changes_by_add(state):
    SEEN.add(1)
    return state


def changes_by_tally(state):
    TALLY.update(state.messages)
    return state


def changes_by_popleft(state):
    return State([QUEUE.popleft()])


def changes_by_global(state):
    global TOTAL
    TOTAL += 1
    return state


def changes_by_attribute(state):
    THINGS.count += 1
    return state


def changes_by_own_method(state):
    THINGS.add(1)
    return state


def changes_by_inner_list(state):
    THINGS.items.append(1)
    return state


def changes_by_namespace(state):
    PLACE.value = 3
    return state


def changes_by_array(state):
    ARRAY[0] = 1
    return state


def changes_by_helper(state):
    return changes_by_append(state)


def changes_by_inner_function(state):
    def inner():
        LOG.append(1)

    inner()
    return state


def changes_by_comprehension(state):
    [LOG.append(message) for message in state.messages]
    return state


def changes_by_lambda(state):
    (lambda: LOG.append(1))()
    return state


def changes_by_for_target(state):
    for TABLE["last"] in state.messages:
        pass
    return state


@pytest.mark.parametrize(
    ("function", "variable"),
    [
        (changes_by_append, "LOG"),
        (changes_by_item, "TABLE"),
        (changes_by_nested_item, "TABLE"),
        (changes_by_del, "TABLE"),
        (changes_by_add, "SEEN"),
        (changes_by_tally, "TALLY"),
        (changes_by_popleft, "QUEUE"),
        (changes_by_global, "TOTAL"),
        (changes_by_attribute, "THINGS"),
        (changes_by_own_method, "THINGS"),
        (changes_by_inner_list, "THINGS"),
        (changes_by_namespace, "PLACE"),
        (changes_by_array, "ARRAY"),
        (changes_by_helper, "LOG"),
        (changes_by_inner_function, "LOG"),
        (changes_by_comprehension, "LOG"),
        (changes_by_lambda, "LOG"),
        (changes_by_for_target, "TABLE"),
    ],
)
def test_checks_a_node_that_changes_a_global_is_warned_of_by_name(function, variable):
    assert warned(line(node_action(function))) == [
        f"Node 'a' changes the variable '{variable}' of the driver; on Ray it runs in another "
        "process, where the change is lost. Carry the value in the state instead."
    ]


def test_checks_changes_of_closure_variables_are_found():
    calls, total, table = [], 0, {}

    def by_method(state):
        calls.append(1)
        return state

    def by_nonlocal(state):
        nonlocal total
        total += 1
        return state

    async def by_item(state):
        table["x"] = 1
        return state

    def by_inner_nonlocal(state):
        def inner():
            nonlocal total
            total = 2

        inner()
        return state

    assert changed_variables(node_action(by_method)) == ["calls"]
    assert changed_variables(by_nonlocal) == ["total"]
    assert changed_variables(by_item) == ["table"]
    assert changed_variables(by_inner_nonlocal) == ["total"]
    assert changed_variables(lambda state: calls.append(state)) == ["calls"]
    assert changed_variables(functools.partial(by_method)) == ["calls"]


def test_checks_changes_in_a_decorator_of_the_users_own_are_found():
    count = 0

    def counted(function):
        @functools.wraps(function)
        def wrapper(state):
            nonlocal count
            count += 1
            return function(state)

        return wrapper

    assert changed_variables(node_action(counted(changes_by_append))) == ["count", "LOG"]


def harmless_reads(state):
    LOGGER.info("x %s", len(LOG))
    return State([TABLE.get("x"), THINGS.count, LOG.index, math.pi])


def harmless_locals(state):
    LOG = []
    LOG.append(1)
    table = {}
    table["x"] = 1
    state.messages.append(1)
    for TABLE in ({}, {}):
        TABLE["x"] = 1
    return state


def harmless_parameters(LOG):
    LOG.messages.append(1)
    [TABLE.update(x=1) for TABLE in LOG.messages]
    return LOG


def harmless_inner_nonlocal(state):
    count = 0

    def inner():
        nonlocal count
        count += 1

    inner()
    return state


def harmless_worker_state(state):
    LOCAL.value = 1
    LOGGER.disabled = True
    harmless_reads.calls = 1
    Things.count = 3
    return state


@pytest.mark.parametrize(
    "function",
    [
        harmless_reads,
        harmless_locals,
        harmless_parameters,
        harmless_inner_nonlocal,
        harmless_worker_state,
    ],
)
def test_checks_what_only_reads_or_changes_its_own_is_not_warned_of(function):
    assert warned(line(node_action(function))) == []


def test_checks_without_source_rebinding_is_still_found():
    names = {"TOTAL": 0}
    exec("def f(state):\n    global TOTAL\n    TOTAL += 1\n    return state", names)
    assert changed_variables(names["f"]) == ["TOTAL"]


def test_checks_nodes_of_the_driver_may_change_its_variables():
    builder = GraphBuilder()
    builder.add_node(HumanInTheLoopNode("a", changes_by_append))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    assert warned(builder) == []


@pytest.mark.parametrize(("placement", "count"), [("driver", 0), ("worker", 1)])
def test_checks_a_router_may_change_a_variable_only_in_the_driver(placement, count):
    @routing_function(placement=placement)
    def choose(state):
        LOG.append(1)
        return "end"

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("a", step))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["end"], choose)
    texts = warned(builder)
    assert len(texts) == count
    assert all(text.startswith("Router 'choose' of node 'a' changes the var") for text in texts)


class Model(AIActionBase):
    def build_model(self):
        self.model = 1
        self._model_built = True

    def process_state(self, state):
        self.calls = 1
        LOG.append(1)
        return state


def test_checks_an_action_with_a_model_may_change_itself_but_no_global():
    builder = GraphBuilder()
    builder.add_node(AINode("a", "d", Model({})))
    builder.add_concrete_edge("start", "a")
    builder.add_concrete_edge("a", "end")
    (text,) = warned(builder)
    assert text.startswith("Node 'a' changes the variable 'LOG'")


def test_checks_one_warning_for_each_node_and_variable():
    @node_action
    def twice(state):
        LOG.append(1)
        LOG.append(2)
        SEEN.add(1)
        return state

    builder = line(twice)
    builder.add_aggregator(AggregatorNode("g", selectRandomState))
    builder.add_node(ProcessingNode("b", twice))
    builder.add_concrete_edge("a", "b")
    builder.add_concrete_edge("b", "g")
    builder.add_concrete_edge("g", "end")
    texts = warned(builder)
    assert [text.split(" of the driver")[0] for text in texts] == [
        "Node 'a' changes the variable 'LOG'",
        "Node 'a' changes the variable 'SEEN'",
        "Node 'b' changes the variable 'LOG'",
        "Node 'b' changes the variable 'SEEN'",
    ]
