"""The live display: what it shows, how often, and that it cannot hurt a run."""

from __future__ import annotations

import io
import sys
import time

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
)
from graphorch_ray.telemetry import progress
from graphorch_ray.telemetry.counts import Counts
from graphorch_ray.telemetry.progress import LineDisplay, NotebookDisplay, Progress, TerminalDisplay
from tests.runtime.nodes import chain, echo, fail, fallback, star


def executor(graph, **options):
    return GraphExecutor(graph, State([1]), backend="inline", **options)


class Recording:
    def __init__(self):
        self.drawn = []
        self.closed = []

    def draw(self, counts):
        self.drawn.append((time.monotonic(), progress.status_line(counts)))

    def close(self, counts):
        self.closed.append(progress.end_line(counts))


def shown(run, display, monkeypatch):
    monkeypatch.setattr(progress, "_suitable", lambda: display)
    return run.run(progress=True)


def test_piped_output_is_plain_lines(capfd):
    executor(chain(ProcessingNode("a", echo))).run(progress=True)
    error = capfd.readouterr().err
    assert "chain: finished in" in error
    assert "superstep 3, 3 executions" in error
    assert "\x1b" not in error


def test_the_end_is_counted_right(monkeypatch):
    display = Recording()
    graph = star(
        ProcessingNode("a", echo),
        ProcessingNode("b", fail),
        fallbacks={"b": ProcessingNode("f", fallback)},
    )
    shown(executor(graph, retry_policy=RetryPolicy(2, 0)), display, monkeypatch)
    (line,) = display.closed
    assert "5 executions, 2 retries, 1 fallbacks" in line


def test_it_draws_at_most_a_few_times_a_second_whatever_the_width(monkeypatch):
    @node_action
    async def short(state):
        import asyncio

        await asyncio.sleep(0.5)
        return state

    display = Recording()
    nodes = [ProcessingNode(f"n{i}", short) for i in range(300)]
    started = time.monotonic()
    shown(executor(star(*nodes), max_workers=300), display, monkeypatch)
    seconds = time.monotonic() - started
    assert display.drawn
    assert len(display.drawn) <= seconds * 10
    assert any("300 running" in line for _, line in display.drawn)


def test_a_terminal_gets_a_bar_that_is_drawn_over():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    display = TerminalDisplay(console)
    counts = Counts()
    counts.graph, counts.total, counts.done = "g", 10, 5
    counts.out.update({key: key for key in ("one", "two")})
    display.draw(counts)
    display.draw(counts)
    counts.ended = "finished"
    display.close(counts)
    text = out.getvalue()
    assert "5/10 done" in text
    assert "█" * 12 + "░" * 12 + " one, two" in text
    assert "\x1b[" in text
    assert "g: finished in" in text.splitlines()[-1]


def test_a_narrow_terminal_gets_the_beginning_of_each_line():
    out = io.StringIO()
    display = TerminalDisplay(Console(file=out, force_terminal=True, width=30))
    counts = Counts()
    counts.out.update({key: key for key in ("[bold]one", "名前名前")})
    display.draw(counts)
    display.close(counts)
    shown = [line for line in out.getvalue().splitlines() if "…" in line]
    assert len(shown) == 4  # two lines, and both again before they are wiped out
    assert all(cell_len(Text.from_ansi(line).plain) <= 30 for line in shown)
    assert shown[1].startswith("░" * 24 + " [bol")


def test_lines_are_few():
    out = io.StringIO()
    display = LineDisplay(out)
    counts = Counts()
    for _ in range(100):
        display.draw(counts)
    counts.superstep = 1
    display.draw(counts)
    assert len(out.getvalue().splitlines()) == 2


def test_a_notebook_gets_text_that_is_exchanged(monkeypatch):
    display_module = pytest.importorskip("IPython.display")
    seen = []

    class Handle:
        def update(self, data, raw):
            seen.append(data["text/plain"])

    def show(data, raw, display_id):
        seen.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr(display_module, "display", show)
    display = NotebookDisplay()
    counts = Counts()
    counts.graph = "g"
    display.draw(counts)
    counts.ended = "finished"
    display.close(counts)
    assert seen[0].startswith("g: superstep 0: 0/0 done")
    assert seen[1].startswith("g: finished in")


def test_a_display_that_fails_does_not_hurt_the_run(monkeypatch):
    class Broken:
        def draw(self, counts):
            raise OSError("terminal gone")

        close = draw

    assert shown(executor(chain(ProcessingNode("a", echo))), Broken(), monkeypatch) == State([1])


def test_a_failed_run_says_so(monkeypatch):
    display = Recording()
    with pytest.raises(GraphExecutionError):
        shown(executor(chain(ProcessingNode("a", fail))), display, monkeypatch)
    assert "chain: failed in" in display.closed[0]


def test_the_display_suits_where_the_program_runs(monkeypatch):
    assert isinstance(progress._suitable(), LineDisplay)
    monkeypatch.setattr(sys, "stderr", type("Tty", (io.StringIO,), {"isatty": lambda _: True})())
    assert isinstance(progress._suitable(), TerminalDisplay)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert isinstance(progress._suitable(), NotebookDisplay)


def test_a_display_of_a_run_that_never_began_can_be_closed():
    display = Recording()
    shown = Progress(Counts(), display)
    shown.close()
    shown.close()
    assert len(display.closed) == 1
