"""Who listens to a run, and how they are told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ..model.attempt import AttemptFacts, AttemptKey, Launch
from ..model.trail import TraceContext
from . import events as ev
from .edges_taken import EdgesTaken
from .event import Event
from .observers import Observer
from .report_once import Once

SETTLE_SECONDS = 0.5
"""How long the end of a run waits for observers that have not read everything yet."""

EVENTS_BEFORE_RUN = 100
"""Events from before a run that are kept for it, at most; the newest."""


Ignored = frozenset[type[Event]]
"""Kinds of event that are nothing to a listener."""


class Listener(Protocol):
    """Told the events of a run, in the run's own thread: it must be quick.

    A class may name, in ``ignores``, kinds of event that are nothing to it: what is nothing to
    any listener is not made. It may be told one all the same.
    """

    def on_event(self, event: Event) -> None:
        """Something happened."""


@runtime_checkable
class SpanListener(Listener, Protocol):
    """A listener that makes spans. What there is most of it is told without events.

    An event for each attempt's start and end, and for each edge taken, would cost the run's thread
    more than all else that it does for spans.
    """

    def launched(self, launches: Sequence[Launch], time: float) -> Sequence[Launch]:
        """Attempts are handed out at `time`, in Unix seconds; gives each with its span's ids."""

    def succeeded(self, key: AttemptKey, facts: AttemptFacts, time: float) -> None:
        """An attempt gave a state, and the driver had it at `time`."""

    def edges_taken(self, taken: EdgesTaken) -> None:
        """A barrier passed."""


TOLD_DIRECTLY: Ignored = frozenset(
    (ev.AttemptStarted, ev.CodeStarted, ev.CodeEnded, ev.NodeCompleted, ev.EdgeTaken)
)
"""What a `SpanListener` has in ``ignores``: it knows all of it from its other methods."""


class Tracer(SpanListener, Protocol):
    """The one whose spans node code is told of."""

    def carrier(self) -> dict[str, str]:
        """The run's span as a small dict."""


Opened = Callable[["Broadcast"], Sequence[Listener]]
"""Gives the listeners that the configuration asks for, when a run starts."""


class Broadcast:
    """Tells events to those who listen.

    Args:
        run_id: the run.
        opened: called when a run starts; None where nothing is configured.

    Attributes:
        links: traces that the next run continues.
        tracer: who makes spans of the current run.
        untraced: what attempts are told where nobody makes spans; None tells them nothing.
    """

    def __init__(self, run_id: str, opened: Opened | None) -> None:
        self.run_id = run_id
        self.links: list[Mapping[str, str]] = []
        self.tracer: Tracer | None = None
        self.untraced: TraceContext | None = None
        self._opened = opened
        self._added: list[Listener] = []
        self._listeners: tuple[Listener, ...] = ()
        self._span_listeners: list[SpanListener] = []
        self._unheard: Ignored = frozenset()
        self._before: deque[Event] = deque(maxlen=EVENTS_BEFORE_RUN)
        self._running = False
        self._broken = Once()

    def _open(self) -> bool:
        """A run starts; say whether anybody listens."""
        self._running = True
        if self.tracer is not None:
            self.link_from(self.tracer.carrier())
        self.tracer = None
        opened = self._opened(self) if self._opened is not None else ()
        self._listen((*opened, *self._added))
        return bool(self._listeners)

    def _listen(self, listeners: tuple[Listener, ...]) -> None:
        """Have these be told from now on."""
        self._listeners = listeners
        self._span_listeners = [one for one in listeners if isinstance(one, SpanListener)]
        nothing: Ignored = frozenset()
        ignored = [getattr(listener, "ignores", nothing) for listener in listeners]
        self._unheard = frozenset.intersection(*ignored) if ignored else nothing

    def _tell_what_came_before(self) -> None:
        while self._before:
            self.tell(self._before.popleft())

    async def _close(self, *, patient: bool) -> None:
        """The run has ended; a patient one gives observers a moment."""
        observers = [one for one in self._listeners if isinstance(one, Observer)]
        self._listen(())
        if patient:
            await _settle(observers)

    def add_observer(self, function: Callable[[Event], Any]) -> Observer:
        """Tell a function every event from now on, in a thread of its own."""
        observer = Observer(function, self.remove)
        self.add(observer)
        return observer

    def add(self, listener: Listener) -> None:
        """Tell a listener every event from now on."""
        self._added.append(listener)
        if self._listeners:
            self._listen((*self._listeners, listener))

    @property
    def has_listeners(self) -> bool:
        """Whether somebody was added, and not removed."""
        return bool(self._added)

    def remove(self, listener: Listener) -> None:
        """Tell a listener nothing more."""
        self._added = [other for other in self._added if other is not listener]
        self._listen(tuple(other for other in self._listeners if other is not listener))

    def tell(self, event: Event) -> None:
        """Tell everybody who listens; one that breaks is reported once and told nothing more."""
        for listener in self._listeners:
            try:
                listener.on_event(event)
            except Exception as error:
                self._switch_off(listener, event.name, error)

    def _switch_off(self, listener: Listener, what: str, error: Exception) -> None:
        self.remove(listener)
        self._broken.say(
            f"{type(listener).__name__} failed at {what!r} and is off for the rest of the run: "
            f"{type(error).__name__}: {error}"
        )

    def _tell_directly(self, what: str, call: Callable[[SpanListener], Any]) -> Any:
        """Tell those that make spans, without an event; gives what the tracer answers."""
        answer = None
        for listener in self._span_listeners:
            try:
                said = call(listener)
            except Exception as error:
                self._switch_off(listener, what, error)
            else:
                if listener is self.tracer:
                    answer = said
        return answer

    def _heard(self, kind: type[Event]) -> bool:
        """Whether an event of this kind is something to anybody."""
        return kind not in self._unheard

    def say(self, kind: type[Event], **facts: Any) -> None:
        """Make an event of this kind and tell it; outside of a run, when the next one starts."""
        if self._listeners:
            self.tell(kind(**self._now(), **facts))
        elif not self._running:
            self._before.append(kind(**self._now(), **facts))

    def refused(self, reason: str) -> None:
        """The executor cannot be made: tell that, for there will be no run to tell it."""
        self._listen(tuple(self._opened(self)) if self._opened is not None else ())
        for event in self._before:
            self.tell(event)
        self.say(ev.ExecutorInitFailed, reason=reason)
        self._listen(())

    # --- trace context for checkpoints --------------------------------------------------------

    def capture(self) -> dict[str, str]:
        """The trace of the run as a small dict, for a checkpoint.

        Where the run is not traced, the one that it continues; empty where there is none.
        """
        if self.tracer is not None:
            return self.tracer.carrier()
        return dict(self.links[-1]) if self.links else {}

    def link_from(self, carrier: Mapping[str, str]) -> None:
        """Have the next run span link to the one that `capture` gave."""
        if carrier:
            self.links.append(dict(carrier))

    def _now(self) -> dict[str, Any]:
        return {"time": time.time(), "run_id": self.run_id}


async def _settle(observers: Sequence[Observer]) -> None:
    """Give observers a moment to read what is left; a slow one goes on by itself."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end and not all(one.wait(0) for one in observers):
        await asyncio.sleep(0.002)
