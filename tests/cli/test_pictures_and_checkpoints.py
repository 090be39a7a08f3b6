"""`draw`, `report` and `checkpoints`."""

from __future__ import annotations

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
