"""The code Ray runs for sync nodes: a batch one after another, or one node and what follows it.

Both answer in the stream of `Report`s that `wire` describes. Neither raises what node code
raised, so an error that Ray reports is always about the machinery.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache

from ..attempt import Result, run_blocking
from ..gather import settle_in
from ..payload import Payload
from .batches import BATCH_SECONDS, SLICE_SECONDS
from .wire import (
    CodeCache,
    Done,
    Item,
    Job,
    Kind,
    Message,
    Started,
    Stopped,
    Track,
    Unstarted,
    Where,
    not_loaded,
    report,
    tell,
    work_of,
)

REPORT_SECONDS = 0.02
"""How long an answer may wait for others to leave with."""

FIRST_REPORT_SECONDS = 0.002
"""How long the first answers of a call wait; then twice as long each time, up to the above. The
driver has nothing to do before they come."""

SWITCH_SECONDS = 0.0005
"""How long the thread that reports waits for the one that runs nodes, where it has to."""

TRACK_SECONDS = 0.5
"""How long after its start a track is followed to another node."""

TRACK_BYTES = 32 * 2**20
"""States that a track gives the driver, until it is followed no further: the driver, which frees
them, may be behind."""

LEFT_BYTES = 4 * 1024
"""States up to this size are all given to the driver."""

REST_STEPS = 16
"""Of the larger ones one in so many, at which the driver may rest."""

codes = CodeCache()
"""The node code of this process."""


@cache
def where() -> Where:
    """Tell which process this is."""
    import ray

    return Where(os.getpid(), ray.get_runtime_context().get_node_id())


Said = tuple[bytes, list[Payload]]
"""A report, and the payloads that follow it."""


def said_of(job: Job, arguments: Sequence[Payload], single: bool) -> Iterator[Said]:
    """Run what a job asks for: its only item, its items one after another, or along its track."""
    settle_in()
    if single:
        yield _run_one(job, arguments)
    elif job.track is None:
        yield from _run_batch(job, arguments)
    else:
        yield from _Walk(job, job.track, arguments).reports()


def streamed(said: Iterator[Said]) -> Iterator[bytes | Payload]:
    """What is said, one object after another."""
    for report_bytes, payloads in said:
        yield report_bytes
        while payloads:
            yield payloads.pop(0)


def _run_one(job: Job, arguments: Sequence[Payload]) -> Said:
    (item,) = job.items
    result = _run_item(item, job.kinds[item.kind], job, arguments)
    message, payload = tell(item.token, result, job.inline_bytes)
    payloads = [] if payload is None else [payload]
    return report((message,), len(payloads), where()), payloads


def _run_batch(job: Job, arguments: Sequence[Payload]) -> Iterator[Said]:
    """Run items one after another; answers leave together as time goes by.

    What is announced is reported before it starts, and no answer waits behind it.
    """
    began = reported = time.monotonic()
    seconds = FIRST_REPORT_SECONDS
    messages: list[Message] = []
    payloads: list[Payload] = []
    after_announced = False
    for position, item in enumerate(job.items):
        kind, now = job.kinds[item.kind], time.monotonic()
        announced = job.announce or kind.timeout is not None
        if position and now - began > SLICE_SECONDS:
            messages.append(Unstarted(tuple(left.token for left in job.items[position:])))
            break
        if announced:
            messages.append(Started(item.token, time.time()))
        if announced or after_announced or now - reported > seconds:
            yield report(messages, len(payloads), where()), payloads
            messages.clear()
            payloads.clear()
            reported = time.monotonic()
            seconds = min(2 * seconds, REPORT_SECONDS)
        result = _run_item(item, kind, job, arguments)
        message, payload = tell(item.token, result, job.inline_bytes)
        del result
        messages.append(message)
        after_announced = announced
        if payload is not None:
            payloads.append(_settled(payload) if position + 1 < len(job.items) else payload)
            del payload
    yield report(messages, len(payloads), where()), payloads


def _run_item(item: Item, kind: Kind, job: Job, arguments: Sequence[Payload]) -> Result:
    try:
        work = work_of(item, kind, job, arguments, codes)
    except BaseException as error:
        return not_loaded(error, time.time())
    return run_blocking(work)


def _settled(payload: Payload) -> Payload:
    """What a node gave, out of reach of it: the code that runs next may use its arrays again."""
    return payload.compact()


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    """Let the thread that reports have its turn soon: Python gives it one each 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _Walk:
    """Follows a track: each superstep has one node, and its state is the next one's.

    Node code runs in a thread of its own, so that reports leave while it runs: if one of the
    nodes hangs or kills the process, the driver knows those before it.
    """

    def __init__(self, job: Job, track: Track, arguments: Sequence[Payload]) -> None:
        self._job = job
        self._track = track
        self._arguments = arguments
        self._lock = threading.Lock()
        self._said: list[tuple[Message, Payload | None]] = []
        self._done: list[int] = []  # where in it attempts are that gave a state
        self._bytes = 0
        self._over = threading.Event()
        self._broke: BaseException | None = None

    def reports(self) -> Iterator[Said]:
        """Start, and report what there is as time goes by."""
        with _quick_switches():
            threading.Thread(target=self._work, name="graphorch-track", daemon=True).start()
            yield from self._reports()
        if self._broke is not None:
            raise self._broke

    def _reports(self) -> Iterator[Said]:
        over, seconds = False, FIRST_REPORT_SECONDS
        while not over:
            over = self._over.wait(seconds)
            seconds = min(2 * seconds, REPORT_SECONDS)
            with self._lock:
                said, self._said, self._done = self._said, [], []
            if said:
                payloads = [payload for _, payload in said if payload is not None]
                messages = [message for message, _ in said]
                del said
                yield report(messages, len(payloads), where()), payloads

    def _work(self) -> None:
        try:
            self._follow()
        except BaseException as error:
            self._broke = error
        finally:
            self._over.set()

    def _say(self, *said: tuple[Message, Payload | None]) -> None:
        """Have messages reported, each with the payload that is to follow.

        The driver needs the last state that it is told of, to go on from; the one before, if the
        last attempt turns out to have failed for it; and one now and then, to rest at. Other large
        ones are left behind.
        """
        with self._lock:
            for message, payload in said:
                if isinstance(message, Done):
                    self._bytes += message.nbytes
                    self._done.append(len(self._said))
                    if len(self._done) > 2:
                        self._leave_behind(self._done[-3])
                self._said.append((message, payload))

    def _leave_behind(self, position: int) -> None:
        """Let a state go that has not been sent, if the driver can do without it."""
        message, _ = self._said[position]
        assert isinstance(message, Done)
        if message.nbytes > LEFT_BYTES and message.token % REST_STEPS:
            self._said[position] = message._replace(payload=None, left_behind=True), None
            self._bytes -= message.nbytes

    def _follow(self) -> None:
        began = time.monotonic()
        track, job = self._track, self._job
        item = job.items[0]
        kind, last = job.kinds[item.kind], item.token + track.limit
        while True:
            if kind.timeout is not None:
                self._say((Started(item.token, time.time()), None))
            result = _run_item(item, kind, job, self._arguments)
            message, payload = tell(item.token, result, job.inline_bytes)
            del result
            payload = None if payload is None else _settled(payload)
            onward = None
            if item.token < last and time.monotonic() - began < TRACK_SECONDS:
                onward = self._next(item.node_id, message, payload)
            if onward is None or self._bytes > TRACK_BYTES:
                self._say((message, payload), (Stopped(item.token), None))
                return
            self._say((message, payload))
            node_id, state = onward
            kind = track.steps[node_id].kind
            item = Item(
                token=item.token + 1,
                kind=0,
                inputs=(state,),
                trace=item.trace and item.trace.next(),
                superstep=item.superstep + 1,
                execution=0,
                node_id=node_id,
                running_node_id=node_id,
                role="node",
                attempt=0,
                rerun=0,
            )
            job = job._replace(time_left=track.superstep_timeout)

    def _next(
        self, node_id: str, message: Message, large: Payload | None
    ) -> tuple[str, Payload] | None:
        """The node that is active in the next superstep, and its state, if it is to run here.

        What is long runs by itself.
        """
        if not isinstance(message, Done):
            return None
        if message.ended - message.started > BATCH_SECONDS:
            return None
        sinks = self._track.steps[node_id].sinks
        sink, *others = tuple(message.routes.values()) or sinks or (None,)
        if others or sink not in sinks or sink not in self._track.steps:
            return None  # the driver knows what to make of a wrong answer
        state = message.payload or large
        return None if state is None else (sink, state)
