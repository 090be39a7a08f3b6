"""The code of a warm worker: what it runs comes over a connection to the driver.

What it says goes the same way, but for large states: they become objects of the driver's, in the
stream that Ray gives it, and so does all that follows them in the answer to one call.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from ..payload import Payload
from .connections import Address, DriverLine
from .items import Said, said_of, streamed, where
from .lending import fetched, lend
from .wire import Job, report, unpacked


def framed(job: bytes, arguments: Sequence[Any], *, single: bool) -> bytes:
    """A packed job, and references to large states, as a warm worker is sent them."""
    lent = [lend(ref) for ref in arguments]
    return pickle.dumps((job, lent, single), pickle.HIGHEST_PROTOCOL)


def run_task(way: bool | Address, sent: Job | bytes, *arguments: Payload) -> Iterator[Any]:
    """The one function behind all tasks.

    Args:
        way: whether the job is one attempt, which gives two values, the report and the payload that
            may follow it; or where the driver is that sends more.
        sent: the job; framed, where there is more to come.
        arguments: large states.
    """
    if isinstance(way, Address):
        yield from serve(way, sent)
        return
    said = said_of(unpacked(sent), arguments, way)
    if way:
        ((told, payloads),) = said
        yield told
        yield payloads[0] if payloads else None
    else:
        yield from streamed(said)


class WarmProcess:
    """A warm worker that is an actor, for the whole of a run."""

    def serve(self, address: Address) -> Iterator[Any]:
        """`serve`, here."""
        yield from serve(address)


def serve(address: Address, sent: Any = None) -> Iterator[bytes | Payload]:
    """Run what came along, and then what the driver sends until it hangs up.

    Where the driver cannot be reached, only what came along is run, and told in the stream, behind
    an empty report.
    """
    try:
        line = DriverLine(address)
    except OSError:
        line = None
        yield report((), 0, where())
    codes: dict[str, Any] = {}  # each piece of code is sent once
    try:
        if sent is not None:
            yield from _answered(line, _run(sent, codes))
        if line is not None:
            for frame in line.frames():
                yield from _answered(line, _run(frame, codes))
    finally:
        if line is not None:
            line.close()


def _run(frame: bytes, codes: dict[str, Any]) -> Iterator[Said]:
    packed, lent, single = pickle.loads(frame)
    job: Job = unpacked(packed)
    codes.update(job.codes)
    return said_of(job._replace(codes=codes), fetched(lent), single)


def _answered(line: DriverLine | None, said: Iterator[Said]) -> Iterator[bytes | Payload]:
    """Send what is said; what cannot be sent, and all behind it, goes into the stream.

    An empty frame says so, for neither way is known to be the quicker one.
    """
    for told, payloads in said:
        if line is not None:
            with contextlib.suppress(OSError):
                line.send(told if not payloads else b"")
                if not payloads:
                    continue
            line = None
        yield from streamed(iter([(told, payloads)]))
