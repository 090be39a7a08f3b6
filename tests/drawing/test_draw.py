"""What `graph.draw` writes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray.errors import GraphWarning
from graphorch_ray.model import (
    AggregatorNode,
    AINode,
    Graph,
    GraphBuilder,
    HumanInTheLoopNode,
    ProcessingNode,
    ToolNode,
    node_action,
    pass_through,
    routing_function,
    select_random_state,
    tool_method,
)
from graphorch_ray.model.drawing.style import DARK, LIGHT, Palette
from graphorch_ray.state import State

SVG = "{http://www.w3.org/2000/svg}"


@routing_function
def is_good(state: State) -> str:
    return "end"


@tool_method
def search(state: State) -> State:
    return state


@node_action
def judge(state: State) -> State:
    return state


def every_kind() -> Graph:
    builder = GraphBuilder("every kind")
    builder.add_node(ProcessingNode("write", pass_through))
    builder.add_node(ProcessingNode("write plainly", pass_through))
    builder.add_node(ToolNode("search", "finds pages", search))
    builder.add_node(AINode("judge", "judges", judge))
    builder.add_node(HumanInTheLoopNode("editor", judge))
    builder.add_aggregator(AggregatorNode("merge", select_random_state))
    builder.add_concrete_edge("start", "search")
    builder.add_concrete_edge("start", "write")
    builder.add_concrete_edge("search", "merge")
    builder.add_concrete_edge("write", "merge")
    builder.add_concrete_edge("merge", "judge")
    builder.add_conditional_edge("judge", ["write", "editor"], is_good)
    builder.add_concrete_edge("editor", "end")
    builder.set_fallback_node("write", "write plainly")
    return builder.build_graph()


def fan(width: int) -> Graph:
    builder = GraphBuilder("fan")
    builder.add_aggregator(AggregatorNode("merge", select_random_state))
    builder.add_concrete_edge("merge", "end")
    for number in range(width):
        builder.add_node(ProcessingNode(f"n{number}", pass_through))
        builder.add_concrete_edge("start", f"n{number}")
        builder.add_concrete_edge(f"n{number}", "merge")
    return builder.build_graph()


def drawn(graph: Graph) -> ET.Element:
    return ET.fromstring(graph.draw())


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def arrows(root: ET.Element) -> dict[tuple[str, str], ET.Element]:
    found = [arrow for arrow in of_class(root, "go-arrow") if "data-source" in arrow.keys()]  # noqa: SIM118
    pairs = {(arrow.attrib["data-source"], arrow.attrib["data-sink"]): arrow for arrow in found}
    assert len(pairs) == len(found)
    return pairs


def test_every_node_and_edge_is_drawn_once() -> None:
    root = drawn(every_kind())
    boxes = [box.get("data-node") for box in of_class(root, "go-box")]
    router = "judge / is_good"
    nodes = ["start", "end", "write", "write plainly", "search", "judge", "editor", "merge"]
    assert sorted(filter(None, boxes)) == sorted([*nodes, router])
    found = arrows(root)
    assert set(found) == {
        *(("start", "search"), ("start", "write"), ("search", "merge"), ("write", "merge")),
        *(("merge", "judge"), ("judge", router), (router, "write"), (router, "editor")),
        *(("editor", "end"), ("write", "write plainly")),
    }
    assert sum(int(arrow.attrib["data-edges"]) for arrow in found.values()) == 9


def test_kinds_of_node_differ_in_shape_and_text() -> None:
    root = drawn(every_kind())
    notes = {
        box.get("data-node"): [text.text for text in box.iter(f"{SVG}text")][1:]
        for box in of_class(root, "go-box")
    }
    assert notes["merge"] == ["aggregator"]
    assert notes["search"] == ["tool"]
    assert notes["judge"] == ["model"]
    assert notes["editor"] == ["human"]
    assert notes["write"] == notes["start"] == []
    commands = {
        box.get("class"): tuple(
            re.sub(r"[^A-Za-z]", "", path.get("d", "")) for path in box.iter(f"{SVG}path")
        )
        for box in of_class(root, "go-box")
    }
    assert len(commands) == 7  # start and end are one kind
    corners = {(kind, len("".join(shape))) for kind, shape in commands.items()}
    assert len({count for _, count in corners}) >= 4


def test_kinds_of_edge_differ_in_line_and_are_explained() -> None:
    root = drawn(every_kind())
    found = arrows(root)
    assert "go-routed" in found["judge / is_good", "editor"].get("class", "")
    assert "go-loop" in found["judge / is_good", "write"].get("class", "")
    assert "go-fallback" in found["write", "write plainly"].get("class", "")
    style = next(root.iter(f"{SVG}style")).text or ""
    assert "stroke-dasharray:6 4" in style  # dashed
    assert "stroke-dasharray:1.5 4" in style  # dotted
    words = [text.text for text in of_class(root, "go-legend-text")]
    assert words == ["always", "as a router decides", "back up: a loop", "to the fallback"]
    assert "is_good?" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_graph_with_one_kind_of_edge_needs_no_legend() -> None:
    assert of_class(drawn(fan(3)), "go-legend") == []


def test_screen_readers_get_a_title_and_a_description() -> None:
    root = drawn(every_kind())
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Graph every kind"
    title, description = list(root)[:2]
    assert (title.tag, title.text) == (f"{SVG}title", "Graph every kind")
    assert description.tag == f"{SVG}desc"
    assert "8 nodes" in (description.text or "")
    assert "editor to end" in (description.text or "")


def test_a_thousand_nodes_with_the_same_neighbours_are_one_block() -> None:
    root = drawn(fan(1000))
    assert len(of_class(root, "go-cell")) == 1000
    counts = sorted(arrow.attrib["data-edges"] for arrow in arrows(root).values())
    assert counts == ["1", "1000", "1000"]
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert "1,000 nodes" in labels
    assert labels.count("1,000 edges") == 2
    assert float(root.attrib["width"]) < 3000


@given(node_id=st.text(min_size=1).filter(lambda text: text not in ("start", "end")))
def test_any_node_id_gives_well_formed_xml(node_id: str) -> None:
    builder = GraphBuilder(node_id)
    builder.add_node(ProcessingNode(node_id, pass_through))
    builder.add_concrete_edge("start", node_id)
    builder.add_concrete_edge(node_id, "end")
    text = builder.build_graph().draw()
    text.encode()  # no lone surrogate is left
    root = ET.fromstring(text)
    assert len(of_class(root, "go-box")) == 3


@pytest.mark.parametrize(
    "hostile",
    [
        '<script>alert("x")</script>',
        '" onload="alert(1)',
        "]]><svg onload=alert(1)>",
        "</style></svg>&lt;&#0;",
        "\x00\x1b[31m\ud800\ufffe\u202etxt",
    ],
)
def test_a_hostile_id_stays_text(hostile: str, tmp_path: Path) -> None:
    builder = GraphBuilder(hostile)
    builder.add_node(ProcessingNode(hostile, pass_through))
    builder.add_concrete_edge("start", hostile)
    builder.add_concrete_edge(hostile, "end")
    graph = builder.build_graph()
    allowed = {"svg", "title", "desc", "style", "rect", "g", "path", "text"}
    root = ET.fromstring(graph.draw())
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == allowed
    assert not any(name.startswith("on") for element in root.iter() for name in element.keys())  # noqa: SIM118
    page = graph.draw(tmp_path / "page.html")
    assert "<script" not in page
    assert page.count("</svg>") == 1


def test_the_suffix_says_what_is_written(tmp_path: Path) -> None:
    graph = fan(2)
    for name, begins, holds in [
        ("graph.svg", "<svg ", "go-drawing"),
        ("graph.SVG", "<svg ", "go-drawing"),
        ("graph.html", "<!doctype html>", "<svg "),
        ("graph.mmd", "flowchart TD", "-->"),
        ("graph.md", "```mermaid\nflowchart TD", "-->"),
    ]:
        text = graph.draw(tmp_path / name)
        assert text.startswith(begins)
        assert holds in text
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert graph.draw(str(tmp_path / "again.svg")) == graph.draw()


@pytest.mark.parametrize(("name", "said"), [("graph.png", "not '.png'"), ("graph", "it has none")])
def test_an_unknown_suffix_is_refused_and_nothing_is_written(
    name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        fan(2).draw(tmp_path / name)
    assert ".svg, .html, .mmd, .md" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_notebooks_show_the_picture() -> None:
    graph = fan(2)
    assert graph._repr_svg_() == graph.draw()
    assert graph._repr_html_().startswith("<div ")
    assert graph.draw() in graph._repr_html_()


def test_the_picture_is_the_same_every_time() -> None:
    assert every_kind().draw() == every_kind().draw()


def test_an_open_graph_made_by_hand_is_drawn_too() -> None:
    start = ProcessingNode("start", pass_through)
    end = ProcessingNode("end", pass_through)
    graph = Graph(start, end)
    assert len(of_class(drawn(graph), "go-box")) == 0
    graph.nodes.update(start=start, end=end)
    assert len(of_class(drawn(graph), "go-box")) == 2


def test_a_router_that_has_a_nodes_name_gets_a_key_of_its_own() -> None:
    builder = GraphBuilder()
    for name in ("a", "a / is_good"):
        builder.add_node(ProcessingNode(name, pass_through))
    builder.add_concrete_edge("start", "a")
    builder.add_conditional_edge("a", ["a", "end"], is_good)
    builder.add_conditional_edge("a", ["a / is_good"], is_good)
    with pytest.warns(GraphWarning, match="leads nowhere"):
        graph = builder.build_graph()
    boxes = [box.get("data-node") for box in of_class(drawn(graph), "go-box")]
    assert len(set(boxes)) == len(boxes) == 6


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out(palette: Palette) -> None:
    for kind, tint in palette.tints.items():
        text = palette.end_text if kind == "end-point" else palette.text
        assert contrast(text, tint.fill) >= 4.5, kind
        assert kind == "end-point" or contrast(palette.quiet, tint.fill) >= 4.5, kind
        assert contrast(tint.line, palette.paper) >= 3, kind
    for colour in (palette.text, palette.quiet, palette.way, palette.loop, palette.fallback):
        assert contrast(colour, palette.paper) >= 4.5
    assert contrast(palette.alarm_text, palette.alarm) >= 4.5
