"""M6: the fingerprint is the same in every process, and differs where the code does."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import graphorch_ray
from graphorch_ray.model import (
    AIActionBase,
    AINode,
    GraphBuilder,
    Node,
    ProcessingNode,
    ToolSetNode,
    node_action,
    routing_function,
)
from graphorch_ray.model.fingerprint import fingerprint_callable
from graphorch_ray.policies import RetryPolicy
from graphorch_ray.state import State

# --- one program, written into a package --------------------------------------------------------

FLOW = """
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from graphorch_ray.model import (
    AIActionBase, AINode, GraphBuilder, ProcessingNode, node_action, routing_function,
)
from graphorch_ray.state import State
from flow_pkg import helpers
from flow_pkg.helpers import tidy

WORDS = {"alpha", "beta", "gamma", "delta"}
TABLE = {"b": 1, "a": {"x", "y", "z"}}
HERE = Path(__file__).parent
SEEN = []

class Colour(Enum):
    RED = 1

@dataclass
class Settings:
    limit: int = 3

SETTINGS = Settings()

def factory(step):
    offset = {"by": step}

    @node_action
    def inner(state):
        return State([m + offset["by"] for m in state.messages])

    return inner

@node_action(num_cpus=1)
def first(state, *, scale=2):
    SEEN.append(1)
    frozen = {"one", "two", "three"}
    return State([tidy(m) * scale for m in state.messages if m in WORDS or m in frozen])

@node_action
async def second(state):
    return State([helpers.shift(TABLE, m, SETTINGS, Colour.RED, HERE) for m in state.messages])

class Model(AIActionBase):
    unit = 1

    def build_model(self):
        self.model = helpers.load(self.config["name"])
        self._model_built = True

    def process_state(self, state):
        return State([self.model])

@routing_function
def route(state):
    return "end" if helpers.done(state) else "first"

def build():
    builder = GraphBuilder("flow")
    builder.add_node(ProcessingNode("first", first))
    builder.add_node(ProcessingNode("second", second))
    builder.add_node(ProcessingNode("third", factory(3)))
    builder.add_node(ProcessingNode("fourth", node_action(lambda state: State(state.messages))))
    builder.add_node(AINode("model", "d", Model({"name": "m"})))
    builder.add_node(ProcessingNode("spare", first))
    builder.set_fallback_node("second", "spare")
    for source, sink in zip(
        ["start", "first", "second", "third", "fourth"],
        ["first", "second", "third", "fourth", "model"],
    ):
        builder.add_concrete_edge(source, sink)
    builder.add_conditional_edge("model", ["end", "first"], route)
    return builder.build_graph()

if __name__ == "__main__":
    graph = build()
    print(graph.fingerprint)
"""

HELPERS = """
FACTOR = 3

def tidy(message):
    return deeper(message)

def deeper(message):
    if not message:
        return tidy(message)
    return message * FACTOR

def shift(table, message, *rest):
    return message

def load(name):
    return name

def done(state):
    return True

def unused(state):
    return 1
"""

_numbers = itertools.count()


def write(folder: Path, flow=FLOW, helpers=HELPERS):
    package = folder / "flow_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "flow.py").write_text(flow)
    (package / "helpers.py").write_text(helpers)
    return folder


@pytest.fixture
def graph_of(tmp_path, monkeypatch):
    """Write the program with some text replaced, import it, build its graph."""

    def make(old="", new="", *, times=1):
        flow, helpers = FLOW, HELPERS
        if old:
            assert (FLOW + HELPERS).count(old) == times
            flow, helpers = FLOW.replace(old, new), HELPERS.replace(old, new)
        folder = write(tmp_path / str(next(_numbers)), flow, helpers)
        for name in [name for name in sys.modules if name.partition(".")[0] == "flow_pkg"]:
            del sys.modules[name]
        monkeypatch.syspath_prepend(str(folder))
        with pytest.warns(UserWarning, match="changes the variable 'SEEN'"):
            return importlib.import_module("flow_pkg.flow").build()

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "flow_pkg"]:
        del sys.modules[name]


def run(command, *, cwd, seed, path):
    env = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(path), str(Path(graphorch_ray.__file__).parents[1])]),
        "PYTHONDONTWRITEBYTECODE": "1" if seed == "1" else "",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_M6_fingerprint_is_the_same_in_every_process_and_place(tmp_path, graph_of):
    here, there = write(tmp_path / "here"), write(tmp_path / "there" / "deeper")
    imported = ["-c", "from flow_pkg.flow import build; print(build().fingerprint)"]
    values = {
        "imported here": run(imported, cwd=here, seed="1", path=here),
        "imported there, from elsewhere": run(imported, cwd=tmp_path, seed="2", path=there),
        "run as a module": run(["-m", "flow_pkg.flow"], cwd=there, seed="3", path=there),
        "run again, with compiled files": run(imported, cwd=here, seed="4", path=here),
        "in this process": graph_of().fingerprint,
    }
    assert len(set(values.values())) == 1, values


SCRIPT = """
from graphorch_ray.model import GraphBuilder, ProcessingNode, node_action

LIMIT = 3

def helper(state):
    return state.messages[:LIMIT]

@node_action
def work(state):
    return type(state)(helper(state))

builder = GraphBuilder()
builder.add_node(ProcessingNode("work", work))
builder.add_concrete_edge("start", "work")
builder.add_concrete_edge("work", "end")
graph = builder.build_graph()
if __name__ == "__main__":
    import os
    os.chdir("/")
    print(graph.fingerprint)
"""


def test_M6_fingerprint_of_a_script_is_the_same_where_the_script_is_imported(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    imported = ["-c", "import script; print(script.graph.fingerprint)"]
    assert run(["script.py"], cwd=tmp_path, seed="1", path=tmp_path) == run(
        imported, cwd=tmp_path, seed="2", path=tmp_path
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WORDS = {", "# a comment\n\n\nWORDS = {  # and another\n    "),
        ("def route(state):\n", 'def route(state):\n    """Chooses."""\n'),
        ("@node_action(num_cpus=1)", "@node_action(num_cpus=2, timeout=5)"),
        ("def first(state, *, scale=2):", "def first(state: State, *, scale: int = 2) -> State:"),
        ("SEEN = []", "SEEN = [1, 2, 3]"),
        ('GraphBuilder("flow")', 'GraphBuilder("other name")'),
        ("def unused(state):\n    return 1", "def unused(state):\n    return 2"),
        ("    return message * FACTOR", "    # times\n    return (message\n            * FACTOR)"),
        ('"b": 1, "a": {"x", "y", "z"}', '"a": {"z", "y", "x"}, "b": 1'),
    ],
    ids=[
        "comments and lines",
        "a docstring",
        "options",
        "annotations",
        "a variable that the code changes",
        "the graph's name",
        "a function nobody calls",
        "layout",
        "order of a dict and a set",
    ],
)
def test_M6_fingerprint_does_not_depend_on(graph_of, old, new):
    assert graph_of(old, new).fingerprint == graph_of().fingerprint


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("tidy(m) * scale", "tidy(m) + scale", {"first", "spare"}),
        ("scale=2", "scale=3", {"first", "spare"}),
        ("factory(3)", "factory(4)", {"third"}),
        ('WORDS = {"alpha"', 'WORDS = {"omega"', {"first", "spare"}),
        ('"z"}}', '"w"}}', {"second"}),
        ("FACTOR = 3", "FACTOR = 4", {"first", "spare"}),
        ("message * FACTOR", "message ** FACTOR", {"first", "spare"}),
        (
            "def shift(table, message, *rest):\n    return message",
            "def shift(table, message, *rest):\n    return 2",
            {"second"},
        ),
        ("limit: int = 3", "limit: int = 4", {"second"}),
        ("lambda state: State(state.messages)", "lambda state: State([])", {"fourth"}),
        ('Model({"name": "m"})', 'Model({"name": "n"})', {"model"}),
        ("return State([self.model])", "return State([self.model, 1])", {"model"}),
        ("unit = 1", "unit = 2", {"model"}),
        ("def load(name):\n    return name", "def load(name):\n    return 1", {"model"}),
        ("return True", "return False", {"model"}),
        ('if helpers.done(state) else "first"', 'if helpers.done(3) else "first"', {"model"}),
        ('["end", "first"], route', '["end", "first", "third"], route', set()),
        ('"second", "spare")', '"third", "spare")', set()),
        ("async def second", "def second", {"second"}),
    ],
)
def test_M6_fingerprint_differs_exactly_at_the_nodes_whose_code_differs(
    graph_of, old, new, changed
):
    one, two = graph_of(), graph_of(old, new)
    assert one.fingerprint != two.fingerprint
    before, after = one.node_fingerprints, two.node_fingerprints
    assert {node_id for node_id in before if before[node_id] != after[node_id]} == changed


def test_M6_fingerprint_report_says_what_is_left_out(graph_of):
    assert graph_of().fingerprint_report == [
        "node 'first': the value of 'SEEN', which the code changes, is left out",
        "node 'spare': the value of 'SEEN', which the code changes, is left out",
    ]


def test_M6_fingerprint_differs_by_structure_but_not_by_tuning():
    def build(*, second="b", policy=None, swapped=False, timeout=None):
        builder = GraphBuilder()
        for node_id in ("a", second, "c"):
            builder.add_node(ProcessingNode(node_id, passing, timeout=timeout))
        builder.set_node_retry_policy("a", policy)
        builder.add_concrete_edge("start", "a")
        for sink in [second, "c"][:: -1 if swapped else 1]:
            builder.add_concrete_edge("a", sink)
        builder.add_concrete_edge(second, "end")
        builder.add_concrete_edge("c", "end")
        return builder.build_graph().fingerprint

    plain = build()
    assert build(policy=RetryPolicy(7), timeout=3) == plain
    assert build(second="x") != plain
    assert build(swapped=True) != plain


def test_M6_fingerprint_does_not_depend_on_the_order_in_which_nodes_were_added():
    def build(names):
        builder = GraphBuilder()
        for node_id in names:
            builder.add_node(ProcessingNode(node_id, passing))
        builder.add_concrete_edge("start", "a")
        builder.add_concrete_edge("a", "b")
        builder.add_concrete_edge("b", "end")
        return builder.build_graph().fingerprint

    assert build("ab") == build("ba")


def test_M6_fingerprint_travels_where_the_source_does_not(graph_of, tmp_path):
    graph = graph_of()
    data = cloudpickle.dumps(graph)
    Path(sys.modules["flow_pkg.helpers"].__file__).write_text("nothing = 1\n" * 50)
    assert cloudpickle.loads(data).fingerprint == graph.fingerprint


# --- single callables ---------------------------------------------------------------------------


@node_action
def passing(state):
    return state


def digest(thing):
    code, report = fingerprint_callable(thing)
    assert report == []
    return code


def reported(thing):
    return fingerprint_callable(thing)[1]


def returning(value):
    @node_action
    def function(state):
        return State([value])

    return function


class Shade(enum.Enum):
    LIGHT = 1
    DARK = 2


@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)


class Plain:
    def __init__(self, value):
        self.value = value

    def __call__(self, state):
        return State([self.value])

    @node_action
    def method(self, state):
        return State([self.value, 1])


VALUES = [
    None,
    True,
    1,
    1.0,
    1j,
    "1",
    b"1",
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 1},
    {"1": 1},
    bytearray(b"1"),
    range(3),
    Shade.LIGHT,
    Shade.DARK,
    Point(1),
    Point(2),
    Point(1, [2]),
    Plain(1),
    Plain(2),
    Plain,
    len,
    functools.partial(len),
    functools.partial(max, 1),
    functools.partial(max, 2),
    functools.partial(max, key=len),
    np.arange(3),
    np.arange(4),
    np.arange(3.0),
    np.float64(3),
    Path("a/b"),
    State([1]),
    State([2]),
    [1, [2, {3: (4,)}]],
    "é\ud800",
]


def test_M6_closure_values_count_by_value():
    digests = [digest(returning(value)) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert [digest(returning(value)) for value in VALUES] == digests
    assert digest(returning([1, [2]])) == digest(returning([1, [2]]))
    assert digest(returning(Point(1))) == digest(returning(Point(1)))


def test_M6_closure_callables_count_by_their_code():
    assert digest(returning(lambda x: x + 1)) == digest(returning(lambda x: x + 1))
    assert digest(returning(lambda x: x + 1)) != digest(returning(lambda x: x + 2))
    assert digest(returning(passing)) != digest(returning(digest))


def test_M6_lambdas_on_one_line_are_told_apart():
    one, two, three = (lambda s: s), (lambda s: [s]), (lambda s: lambda s: s)
    assert len({digest(one), digest(two), digest(three), digest(three(1))}) == 3
    assert digest(three(1)) == digest(one)


def test_M6_methods_and_objects_count_with_what_they_hold():
    assert digest(Plain(1).method) == digest(Plain(1).method)
    assert digest(Plain(1).method) != digest(Plain(2).method)
    assert digest(node_action(Plain(1))) != digest(node_action(Plain(2)))


def test_M6_a_value_that_contains_itself_can_be_written_down():
    one, two = [1], [1]
    one.append(one)
    two.append(two)
    assert digest(returning(one)) == digest(returning(two))


def even(number):
    return number == 0 or odd(number - 1)


def odd(number):
    return number != 0 and even(number - 1)


def test_M6_functions_that_call_each_other_can_be_written_down():
    assert digest(even) == digest(even)
    assert digest(even) != digest(odd)


def compiled(text):
    names = {"__name__": "made_up", "State": State}
    exec(textwrap.dedent(text), names)
    return names["f"]


def test_M6_without_source_the_bytecode_counts():
    base = compiled("def f(state):\n    return State([{1, 2, 3}, lambda: 5])")
    moved = compiled("\n\n\ndef f(state):\n    'Doc.'\n    return State([{1, 2, 3}, lambda: 5])")
    other = compiled("def f(state):\n    return State([{1, 2, 3}, lambda: 6])")
    assert digest(base) == digest(moved)
    assert digest(base) != digest(other)


@functools.lru_cache
def remembered(number):
    return number + 1


def uses_remembered(state):
    return remembered(state)


def test_M6_a_cached_helper_is_looked_into(monkeypatch):
    before = digest(uses_remembered)
    monkeypatch.setitem(globals(), "remembered", functools.lru_cache(lambda number: number))
    assert digest(uses_remembered) != before


def imports_inside(state):
    from tests.model import somewhere

    return somewhere.f(state)


def uses_counter(state):
    return State([next(COUNTER)])


def uses_lock(state):
    with LOCK:
        return state


COUNTER = itertools.count()
LOCK = threading.Lock()


def test_M6_what_cannot_be_seen_into_is_reported():
    assert reported(returning(COUNTER)) == [
        "variable 'value' holds a itertools.count, not looked into"
    ]
    assert reported(uses_counter) == ["variable 'COUNTER' holds a itertools.count, not looked into"]
    assert reported(returning(ProcessingNode("a", passing))) == [
        "variable 'value' holds a graphorch_ray.model.nodes.ProcessingNode, not looked into"
    ]
    assert reported(returning([object()])) == [
        "variable 'value' holds a builtins.object, not looked into"
    ]
    package = digest.__module__.partition(".")[0]
    if package == "tests":
        assert reported(imports_inside) == [
            "imports_inside imports 'tests.model' when it runs, so only that name counts"
        ]
    assert reported(uses_lock) == []


class Refusing:
    @property
    def __class__(self):
        raise RuntimeError("no")


def test_M6_an_object_that_refuses_to_be_looked_at_is_reported():
    text = "variable 'value' could not be looked into: RuntimeError: no"
    assert reported(returning(Refusing())) == [text]
    assert reported(returning([Refusing()])) == [text]


def test_M6_large_data_is_given_up_and_reported():
    assert reported(returning([[number] for number in range(60_000)])) == [
        "variable 'value' is too large or too deep to be looked into"
    ]


def test_M6_what_is_nested_too_deeply_is_given_up_and_reported():
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert reported(returning(deep)) == [
        "variable 'value' is too large or too deep to be looked into"
    ]
    long = compiled("def f(state):\n    return " + " + ".join(["state"] * 2000))
    assert digest(long) == digest(long)


def test_M6_code_of_other_packages_counts_by_name(tmp_path, monkeypatch):
    (tmp_path / "neighbour_x.py").write_text("def helper(state):\n    return state\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"__name__": "made_up"}
    exec(
        "import neighbour_x, json\ndef f(state):\n    return neighbour_x.helper(json.dumps)", names
    )
    assert reported(names["f"]) == [
        "'neighbour_x.helper' is of another package, so only its name counts"
    ]


# --- kinds of node ------------------------------------------------------------------------------


def fingerprint_with(node, sinks=("end",)):
    builder = GraphBuilder()
    builder.add_node(node)
    builder.add_concrete_edge("start", node.node_id)
    builder.add_conditional_edge(node.node_id, list(sinks), choose)
    return builder.build_graph().fingerprint


@routing_function
def choose(state):
    return "end"


class Model(AIActionBase):
    def build_model(self):
        self.model = object()
        self._model_built = True

    def process_state(self, state):
        return state


class Other(Model):
    def process_state(self, state):
        return State([1])


def test_M6_a_model_counts_by_class_and_config_and_not_by_what_it_built():
    action = Model({"name": "m"})
    fresh = fingerprint_with(AINode("a", "d", Model({"name": "m"})))
    action.build_model()
    assert fingerprint_with(AINode("a", "other description", action)) == fresh
    assert fingerprint_with(AINode("a", "d", Model({"name": "n"}))) != fresh
    assert fingerprint_with(AINode("a", "d", Other({"name": "m"}))) != fresh


def test_M6_a_tool_server_counts_by_address_and_tool():
    assert len({
        fingerprint_with(ToolSetNode("a", "http://x", "t")),
        fingerprint_with(ToolSetNode("a", "http://y", "t")),
        fingerprint_with(ToolSetNode("a", "http://x", "u")),
    }) == 3  # fmt: skip


def test_M6_a_node_class_of_the_users_own_counts_by_its_code():
    class Mine(Node):
        async def execute(self, state):
            return State([1])

    first = fingerprint_with(Mine("a"))

    class Mine(Node):
        async def execute(self, state):
            return State([2])

    assert fingerprint_with(Mine("a")) != first
