"""`module:graph` and `file.py:graph`: what they may name, and what is said where they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Cli


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("flow:graph", "greeting"),
        ("flow.py:graph", "greeting"),
        ("./flow.py:builder", "same"),
        ("flow:make_graph", "made"),
        ("sub/random.py:graph", "random"),
        ("sub/a-b.py:graph", "random"),
        ("sub/random.py", "random"),
        ("sub.deep:Holder.graph", "random"),
    ],
)
def test_a_graph_may_be_named_in_many_ways(
    cli: Cli, folder: Path, reference: str, name: str
) -> None:
    (folder / "sub").mkdir()
    text = (
        "import beside\nfrom graphorch_ray import GraphBuilder\nb = GraphBuilder('random')\n"
        "b.add_concrete_edge('start', 'end')\ngraph = b.build_graph()\n"
        "class Holder:\n    graph = graph\n"
    )
    for file in ("random.py", "a-b.py"):
        (folder / "sub" / file).write_text(text)
    (folder / "sub" / "deep.py").write_text(text.replace("import beside", ""))
    (folder / "sub" / "beside.py").touch()
    import random

    assert cli("draw", reference, "--json").data["graph"] == name
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("flow:nope", "'flow' has no 'nope'. Graphs there: flow:graph, flow:builder, flow:adding"),
        ("flow:nope", "flow:make_graph, flow:wrong_graph"),
        ("flow", "'flow' alone does not say which graph. Graphs there: flow:graph"),
        ("flow:number", "'flow:number' is a int, not a graph"),
        ("flow:chain", "'flow:chain' is a function that needs arguments, not a graph"),
        ("flow:Tally", "'flow:Tally' is a class, not a graph"),
        ("flow:wrong_graph", "'flow:wrong_graph()' gave a int, not a graph"),
        (":graph", "':graph' names no graph"),
        ("nomodule:graph", "No module 'nomodule' in "),
        ("folder.nomodule:graph", "though folder/nomodule.py is there"),
        ("nofile.py:graph", "There is no file 'nofile.py' in "),
        ("needs_more:graph", "'needs_more' imports 'not_there', which is not installed here"),
        ("broken:graph", "Importing 'broken' failed: ZeroDivisionError: division by zero"),
        ("broken.py:graph", "broken.py, line 2)"),
        ("leaves:graph", "Importing 'leaves' failed: SystemExit: 3"),
        ("unfinished:builder", "Making 'unfinished:builder' failed: GraphConfigurationError"),
        ("unfinished:a_graph", "Making 'unfinished:a_graph' failed: KeyError: 'x'"),
        ("empty:graph", "'empty' has no 'graph'. There is no graph in it"),
    ],
)
def test_a_wrong_reference_is_one_clear_line(
    cli: Cli, folder: Path, reference: str, text: str
) -> None:
    (folder / "needs_more.py").write_text("import not_there\n")
    (folder / "broken.py").write_text("\n1 / 0\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    (folder / "unfinished.py").write_text(
        "from graphorch_ray import GraphBuilder\nbuilder = GraphBuilder('x')\n"
        "def a_graph():\n    return {}['x']\n"
    )
    (folder / "empty.py").touch()
    (folder / "folder").mkdir()
    (folder / "folder" / "nomodule.py").touch()
    (folder / "folder" / "__init__.py").write_text("__path__ = []\n")
    done = cli("draw", reference)
    assert text in done.error
    assert done.code == 2


def test_the_code_of_a_file_travels_whole(cli: Cli, folder: Path) -> None:
    import cloudpickle

    from graphorch_ray.cli.targets import load_graph

    (folder / "apart.py").write_text((folder / "flow.py").read_text())
    function = load_graph("apart.py:graph").nodes["greet"].func
    assert b"a node at work" in cloudpickle.dumps(function)
