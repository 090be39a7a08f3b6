"""In a real notebook: a kernel with its event loop running, cells one after another."""

from __future__ import annotations

import os

import pytest

nbclient = pytest.importorskip("nbclient", reason="notebooks are tested with nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = [
    """
from graphorch_ray import GraphBuilder, GraphExecutor, ProcessingNode, State, node_action

class Counted(State):
    pass

@node_action
def add(state):
    return Counted([state.messages[0] + 1])

@node_action
async def double(state):
    return Counted([state.messages[0] * 2])

builder = GraphBuilder("notebook")
builder.add_node(ProcessingNode("add", add))
builder.add_node(ProcessingNode("double", double))
builder.add_concrete_edge("start", "add")
builder.add_concrete_edge("add", "double")
builder.add_concrete_edge("double", "end")
graph = builder.build_graph()
graph
""",
    """
executor = GraphExecutor(graph, Counted([1]))
final = await executor.execute(progress=True)
print(type(final).__name__, final.messages, executor.summary.status)
""",
    """
try:
    GraphExecutor(graph, Counted([1])).run()
except RuntimeError as error:
    print(error)
""",
    """
events = [event.name async for event in GraphExecutor(graph, Counted([1])).stream()]
print(events[0], events[-1])
""",
]


def test_graphs_run_in_a_notebook(backend: str, request: pytest.FixtureRequest) -> None:
    """The loop that runs already is used; a graph shows itself as a picture."""
    environment = {**os.environ, "GRAPHORCH_BACKEND": backend}
    if backend == "ray":
        environment["RAY_ADDRESS"] = request.getfixturevalue("ray_session")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    client = nbclient.NotebookClient(notebook, timeout=90, kernel_name="python3")
    client.execute(env=environment)
    picture, ran, refused, streamed = [cell.outputs for cell in notebook.cells]
    assert any("image/svg+xml" in output.get("data", {}) for output in picture)
    assert "Counted [4] finished" in text(ran)
    assert "await executor.execute()" in text(refused)
    assert text(streamed).split() == ["execution_start", "execution_complete"]


def text(outputs: list[dict[str, str]]) -> str:
    return "".join(output.get("text", "") for output in outputs)
