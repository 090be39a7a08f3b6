"""The live display of a run: `executor.run(progress=True)`.

A thread of its own looks at the run's counts and draws, a few times a second whatever the graph's
width; the run itself does nothing for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO

from .counts import Counts

DRAWS_PER_SECOND = 5
"""Redraws, at most."""

LINE_SECONDS = 5.0
"""Where lines are printed instead: seconds between two within one superstep, at least."""

NODES_SHOWN = 6
BAR_WIDTH = 24


class Display(Protocol):
    """Shows counts somewhere."""

    def draw(self, counts: Counts) -> None:
        """Show how things stand."""

    def close(self, counts: Counts) -> None:
        """Show how it ended."""


class Progress:
    """Has a run displayed, until it is closed.

    Args:
        counts: how the run stands.
        display: where; by default what suits standard error, or a notebook.
    """

    def __init__(self, counts: Counts, display: Display | None = None) -> None:
        self.counts = counts
        self._display = display if display is not None else _suitable()
        self._over = threading.Event()
        self._broken = False
        self._thread = threading.Thread(target=self._draw, name="graphorch-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the end. May be called more than once."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join(1.0)
            self._show(self._display.close)

    def _draw(self) -> None:
        drawn: object = None
        at = 0.0
        while not self._over.wait(1 / DRAWS_PER_SECOND):
            now, mark = time.monotonic(), self.counts.mark
            if mark != drawn or now - at >= 1.0:
                drawn, at = mark, now
                self._show(self._display.draw)

    def _show(self, draw: Callable[[Counts], None]) -> None:
        """Draw, unless drawing has failed before: a display is not worth a run."""
        if not self._broken:
            try:
                draw(self.counts)
            except Exception:
                self._broken = True


def status_line(counts: Counts) -> str:
    """How things stand, in one line."""
    rate = counts.executions / counts.seconds if counts.seconds > 0 else 0.0
    parts = [
        f"{counts.done}/{counts.total} done",
        f"{counts.running} running",
        f"{counts.waiting} waiting",
        f"{len(counts.retrying)} retrying",
    ]
    if counts.failures:
        parts.append(f"{counts.failures} failed attempts")
    parts += [f"{rate:.1f}/s", _clock(counts.seconds)]
    return f"{counts.graph}: superstep {counts.superstep}: {', '.join(parts)}"


def end_line(counts: Counts) -> str:
    """How it ended, in one line."""
    text = (
        f"{counts.graph}: {counts.ended or 'ended'} in {_clock(counts.seconds)}, superstep "
        f"{counts.superstep}, {counts.executions} executions"
    )
    for name in ("retries", "fallbacks"):
        if count := getattr(counts, name):
            text += f", {count} {name}"
    return text


def bar_line(counts: Counts) -> str:
    """How much of the superstep is done, as a bar, and which nodes are at work."""
    full = BAR_WIDTH * counts.done // counts.total if counts.total else 0
    names = list(dict.fromkeys(list(counts.out.values())))
    shown = ", ".join(names[:NODES_SHOWN])
    more = f" and {len(names) - NODES_SHOWN} more" if len(names) > NODES_SHOWN else ""
    return f"{'█' * full}{'░' * (BAR_WIDTH - full)} {shown}{more}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}:{minutes:02}:{int(rest):02}"
    return f"{minutes}:{int(rest):02}" if minutes else f"{rest:.1f} s"


class _Lines:
    """Lines for rich, cut off at the terminal's edge: without markup, half the work of a `Text`."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len, set_cell_size
        from rich.segment import Segment

        for line in self._lines:
            fits = cell_len(line) <= options.max_width
            yield Segment(line if fits else f"{set_cell_size(line, options.max_width - 1)}…")
            yield Segment.line()


class TerminalDisplay:
    """Two lines that are drawn over, by rich."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._console = console
        self._begun = False

    def draw(self, counts: Counts) -> None:
        """Draw over what was drawn before."""
        if not self._begun:
            self._begun = True
            self._live.start()
        self._live.update(_Lines((status_line(counts), bar_line(counts))), refresh=True)

    def close(self, counts: Counts) -> None:
        """Leave one line."""
        if self._begun:
            self._live.stop()
        self._console.print(end_line(counts), markup=False, highlight=False)


class LineDisplay:
    """A line for each superstep, and now and then one in between; for pipes and log files."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._superstep = -1
        self._printed = 0.0

    def draw(self, counts: Counts) -> None:
        """Print a line, if it is time for one."""
        now = time.monotonic()
        if counts.superstep != self._superstep or now - self._printed >= LINE_SECONDS:
            self._superstep, self._printed = counts.superstep, now
            print(status_line(counts), file=self._out, flush=True)

    def close(self, counts: Counts) -> None:
        """Print how it ended."""
        print(end_line(counts), file=self._out, flush=True)


class NotebookDisplay:
    """Text in a cell's output that is exchanged; needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, counts: Counts) -> None:
        """Exchange the text."""
        self._put(f"{status_line(counts)}\n{bar_line(counts)}")

    def close(self, counts: Counts) -> None:
        """Show how it ended."""
        self._put(end_line(counts))

    def _put(self, text: str) -> None:
        from IPython.display import display

        show: Any = display
        shown = {"text/plain": text}
        if self._handle is None:
            self._handle = show(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def _suitable() -> Display:
    """The display for where this program runs."""
    if "ipykernel" in sys.modules:
        return NotebookDisplay()
    if sys.stderr.isatty():
        from rich.console import Console

        return TerminalDisplay(Console(stderr=True))
    return LineDisplay(sys.stderr)
