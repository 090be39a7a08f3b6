"""The live display of a run: `executor.run(progress=True)`.

Events only count; a thread of its own draws, a few times a second whatever the graph's width.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from . import events as ev
from .event import Event

DRAWS_PER_SECOND = 5
"""Redraws, at most."""

LINE_SECONDS = 5.0
"""Where lines are printed instead: seconds between two within one superstep, at least."""

NODES_SHOWN = 6
BAR_WIDTH = 24


class Counts:
    """What the display shows; written by the run's thread, read by the drawing one."""

    def __init__(self) -> None:
        self.graph = ""
        self.started = time.monotonic()
        self.superstep = 0
        self.max_workers = 1
        self.total = 0
        self.done = 0
        self.out: Counter[str] = Counter()
        self.retrying = 0
        self.failures = 0
        self.retries = 0
        self.fallbacks = 0
        self.executions = 0
        self.ended: str | None = None
        self.changes = 0

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started

    @property
    def running(self) -> int:
        """Attempts that hold a slot, as far as the driver can know."""
        return min(self.out.total(), self.max_workers)

    @property
    def waiting(self) -> int:
        """Attempts that wait for one."""
        return self.out.total() - self.running


class Display(Protocol):
    """Shows counts somewhere."""

    def draw(self, counts: Counts) -> None:
        """Show how things stand."""

    def close(self, counts: Counts) -> None:
        """Show how it ended."""


class Progress:
    """Listens to one run and has it displayed.

    Args:
        display: where; by default what suits standard error, or a notebook.
    """

    def __init__(self, display: Display | None = None) -> None:
        self.counts = Counts()
        self._display = display if display is not None else _suitable()
        self._over = threading.Event()
        self._broken = False
        self._retries: set[Any] = set()
        self._thread = threading.Thread(target=self._draw, name="graphorch-progress", daemon=True)
        self._on: dict[type[Event], Callable[[Counts, Any], None]] = {
            ev.RunStarted: self._started,
            ev.SuperstepStarted: self._superstep,
            ev.AttemptStarted: self._attempt_started,
            ev.NodeCompleted: self._completed,
            ev.AttemptFailed: self._failed,
            ev.AttemptCancelled: self._cancelled,
            ev.RetryScheduled: self._retried,
            ev.FallbackInvoked: self._fallback,
            ev.RunFinished: self._finished,
            ev.RunFailed: self._run_failed,
        }

    def on_event(self, event: Event) -> None:
        """Count an event."""
        handler = self._on.get(type(event))
        if handler is not None:
            handler(self.counts, event)
            self.counts.changes += 1

    def close(self) -> None:
        """Show the end. May be called more than once."""
        if not self._over.is_set():
            self._over.set()
            if self._thread.ident is not None:
                self._thread.join(1.0)
            self._show(self._display.close)

    # --- counting -----------------------------------------------------------------------------

    def _started(self, counts: Counts, event: ev.RunStarted) -> None:
        counts.graph, counts.max_workers = event.graph, event.max_workers
        self._thread.start()

    def _superstep(self, counts: Counts, event: ev.SuperstepStarted) -> None:
        counts.superstep = event.superstep
        counts.total = counts.done = counts.retrying = 0
        counts.out.clear()
        self._retries.clear()

    def _attempt_started(self, counts: Counts, event: ev.AttemptStarted) -> None:
        counts.out[event.owner_id] += 1
        key = event.key
        if key.execution in self._retries:
            self._retries.discard(key.execution)
            counts.retrying -= 1
        elif key.role == "node" and key.attempt == key.rerun == 0:
            counts.total += 1
            counts.executions += 1

    def _back(self, counts: Counts, event: Any) -> None:
        counts.out[event.owner_id] -= 1
        if counts.out[event.owner_id] <= 0:
            del counts.out[event.owner_id]

    def _completed(self, counts: Counts, event: ev.NodeCompleted) -> None:
        self._back(counts, event)
        counts.done += 1

    def _failed(self, counts: Counts, event: ev.AttemptFailed) -> None:
        self._back(counts, event)
        counts.failures += 1

    def _cancelled(self, counts: Counts, event: ev.AttemptCancelled) -> None:
        self._back(counts, event)

    def _retried(self, counts: Counts, event: ev.RetryScheduled) -> None:
        self._retries.add(event.execution)
        counts.retrying += 1
        counts.retries += 1

    def _fallback(self, counts: Counts, event: ev.FallbackInvoked) -> None:
        counts.fallbacks += 1

    def _finished(self, counts: Counts, event: ev.RunFinished) -> None:
        counts.superstep = event.superstep
        counts.ended = "finished"

    def _run_failed(self, counts: Counts, event: ev.RunFailed) -> None:
        counts.superstep = event.superstep
        counts.ended = event.status

    # --- drawing ------------------------------------------------------------------------------

    def _draw(self) -> None:
        drawn, at = -1, 0.0
        while not self._over.wait(1 / DRAWS_PER_SECOND):
            now = time.monotonic()
            if self.counts.changes != drawn or now - at >= 1.0:
                drawn, at = self.counts.changes, now
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
        f"{counts.retrying} retrying",
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
    names = list(counts.out)
    shown = ", ".join(names[:NODES_SHOWN])
    more = f" and {len(names) - NODES_SHOWN} more" if len(names) > NODES_SHOWN else ""
    return f"{'█' * full}{'░' * (BAR_WIDTH - full)} {shown}{more}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}:{minutes:02}:{int(rest):02}"
    return f"{minutes}:{int(rest):02}" if minutes else f"{rest:.1f} s"


class TerminalDisplay:
    """Two lines that are drawn over, by rich."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._console = console
        self._begun = False

    def draw(self, counts: Counts) -> None:
        """Draw over what was drawn before."""
        from rich.text import Text

        if not self._begun:
            self._begun = True
            self._live.start()
        text = Text(f"{status_line(counts)}\n{bar_line(counts)}", no_wrap=True, overflow="ellipsis")
        self._live.update(text, refresh=True)

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
