"""`draw`, `report` and `checkpoints`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Cli


def test_draw_prints_mermaid(cli: Cli) -> None:
    done = cli("draw", "flow:graph")
    assert done.out.startswith("flowchart TD\n")
    assert '"greet"' in done.out


@pytest.mark.parametrize(("suffix", "begins"), [("svg", "<svg"), ("mmd", "flowchart")])
def test_draw_writes_a_file(cli: Cli, folder: Path, suffix: str, begins: str) -> None:
    done = cli("draw", "flow:graph", "-o", f"g.{suffix}")
    assert done.out == f"wrote g.{suffix}\n"
    assert (folder / f"g.{suffix}").read_text("utf-8").startswith(begins)


def test_draw_as_json_tells_the_fingerprint(cli: Cli) -> None:
    found = cli("draw", "flow:graph", "--json").data
    assert found["nodes"] == 3
    assert len(found["fingerprint"]) >= 32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["draw", "flow:graph", "-o", "g.png"], "must end in one of .svg, .html, .mmd, .md"),
        (["draw", "flow:graph", "-o", "no/g.svg"], "there is no folder 'no'"),
        (["report", "nowhere.jsonl"], "does not exist"),
        (["report", "flow.py"], "this is not JSON"),
    ],
)
def test_wrong_files_are_named(cli: Cli, arguments: list[str], text: str) -> None:
    done = cli(*arguments)
    assert text in done.error
    assert done.code == 2


@pytest.fixture
def kept(cli: Cli) -> str:
    cli("run", "flow:unsteady", "--input", "-", "--checkpoint", "kept", stdin='["Ada", "Bob"]')
    return "kept"


def test_checkpoints_are_listed(cli: Cli, kept: str) -> None:
    head, *rows = cli("checkpoints", kept).out.splitlines()
    assert head.split() == ["LINE", "SUPERSTEP", "KIND", "STATUS", "WRITTEN", "SIZE", "ACTIVE"]
    assert [row.split()[:4] for row in rows] == [
        ["000001", "0", "start", "running"],
        ["000001", "1", "superstep", "running"],
        ["000001", "2", "failure", "failed"],
    ]
    assert [info["active"] for info in cli("checkpoints", kept, "--json").data] == [
        ["start"],
        ["greet"],
        ["needs_file"],
    ]


def test_a_checkpoint_is_described_without_loading_it(cli: Cli, kept: str) -> None:
    text = cli("checkpoints", kept, "--show", "newest").out
    assert text.startswith("unsteady, line 000001, superstep 2: failed\n")
    assert "waiting at 'needs_file': 2 messages" in text
    found = cli("checkpoints", kept, "--show", "000001:1", "--json").data
    assert (found["superstep"], list(found["active"])) == (1, ["greet"])


def test_two_checkpoints_are_compared(cli: Cli, kept: str) -> None:
    done = cli("checkpoints", kept, "--diff", "1", "newest")
    assert "superstep: 1 -> 2" in done.out
    assert "active['needs_file'][0]: None -> 2 messages" in done.out
    assert cli("checkpoints", kept, "--diff", "1", "1").out == "no difference\n"


def test_a_changed_value_is_told_by_its_place(cli: Cli) -> None:
    for names in ('["Ada"]', '["Ada", "Bob", "Eve"]'):
        cli("run", "flow:graph", "--input", "-", "--checkpoint", "two", stdin=names)
    done = cli("checkpoints", "two", "--diff", "000001:newest", "000002:newest", "--json")
    changes = {change["what"]: (change["before"], change["after"]) for change in done.data}
    assert changes["final.messages.length"] == (1, 3)


VALUES = """
import datetime
import numpy as np
from graphorch_ray import GraphBuilder, ProcessingNode, State, node_action


class Own:
    __reduce_ex__ = lambda self, protocol: (Own, ())
    def __init__(self):
        print("LOADED")


@node_action
def work(state):
    (other,) = state.messages
    small, large, order = np.arange(6.0).reshape(2, 3), np.zeros(50_000), np.ones((4, 5), order="F")
    if other:
        small[1, 2], large[[17, 400]], order[3, 1] = -1, 1.5, 7
    values = {
        "number": 12 + other, "text": "a" + "b" * other, "same": [1, 2.5, float("nan"), "x"],
        "many": [*range(500), other], "when": datetime.date(2026, 1, 1 + other), "small": small,
        "large": large, "order": order, "pickled": {"x": Own if other else Own()},
        "kept": np.full(50_000, 3.0), **({"new": None} if other else {"old": (1, 2)}),
    }
    return State([values])


builder = GraphBuilder("values")
builder.add_node(ProcessingNode("work", work))
builder.add_concrete_edge("start", "work")
builder.add_concrete_edge("work", "end")
graph = builder.build_graph()
"""


def test_values_are_compared_and_nothing_of_them_is_loaded(cli: Cli, folder: Path) -> None:
    (folder / "values.py").write_text(VALUES)
    for other in "01":
        cli("run", "values.py:graph", "--input", "-", "--checkpoint", "two", stdin=f"[{other}]")
    done = cli("checkpoints", "two", "--diff", "000001:newest", "000002:newest", "--json")
    assert done.code == 0, done.err
    found = {change["what"]: (change["before"], change["after"]) for change in done.data}
    del found["run_id"]
    at = "final.messages[0]"
    pickled = found.pop(f"{at}['pickled']['x']")
    assert all(re.fullmatch("pickled, SHA-256 [0-9a-f]{16}…", told) for told in pickled)
    assert len(set(pickled)) == 2
    arrays = (
        "numpy array of <f8 (2, 3)",
        "numpy array of <f8 (50000)",
        "numpy array of <f8 (4, 5)",
    )
    assert found == {
        f"{at}['number']": ("12", "13"),
        f"{at}['text']": ("'a'", "'ab'"),
        f"{at}['many'][500]": ("0", "1"),
        f"{at}['when']": ("date '2026-01-01'", "date '2026-01-02'"),
        f"{at}['small']": (arrays[0], "changed in 1 of 6 items, the first at [1, 2]: 5.0 -> -1.0"),
        f"{at}['large']": (
            arrays[1],
            "changed in 2 of 50,000 items, the first at [17]: 0.0 -> 1.5",
        ),
        f"{at}['order']": (arrays[2], "changed in 1 of 20 items, the first at [3, 1]: 1.0 -> 7.0"),
        f"{at}['old']": ("tuple[2], 0 B", None),
        f"{at}['new']": (None, "None"),
    }
    assert "LOADED" not in done.out + done.err
    same = cli("checkpoints", "two", "--diff", "000001:newest", "000001:newest")
    assert same.out == "no difference\n"


def test_a_savepoint_is_kept_and_released(cli: Cli, kept: str) -> None:
    assert cli("checkpoints", kept, "--keep", "before lunch").code == 0
    assert "[before lunch]" in cli("checkpoints", kept).out
    assert cli("checkpoints", kept, "--show", "before lunch").code == 0
    assert cli("checkpoints", kept, "--release", "before lunch").code == 0
    again = cli("checkpoints", kept, "--release", "before lunch")
    assert (again.code, "no savepoint" in again.error) == (4, True)


def test_one_question_at_a_time(cli: Cli, kept: str) -> None:
    done = cli("checkpoints", kept, "--show", "1", "--keep", "x")
    assert (done.code, done.error) == (2, "Give one of --show, --diff, --keep and --release")
