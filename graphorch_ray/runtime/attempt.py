"""Running one attempt: the code that runs beside a node, wherever that is.

Two ways in: `run_blocking` for a thread that may block (a Ray task), `run_on_loop` for an event
loop (the in-process pool, shared async workers, model workers). Both take a state apart, call
the node's code, ask the routers that belong beside it, and never raise what node code raised.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..errors import NodeTimeoutError
from ..model.attempt import Failure
from ..model.trail import TraceContext, Trail
from .context import ExecutionInfo, current
from .failures import capture
from .gather import Gatherer, show_state
from .loops import run_to_end
from .payload import Payload, dump
from .stored import InputLost, StoredPayload
from .threads import DaemonThreads

CLEANUP_SECONDS = 1.0
"""How long a cancelled coroutine has for its ``finally`` before it is given up."""

Code = Callable[[Any], Any]
"""Node code as shipped: takes a state (an aggregator's: the list), gives one or an awaitable."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Work:
    """All that is needed to run an attempt, with the code already loaded. Nobody changes it.

    Attributes:
        code: the node's code.
        inputs: the input states, taken apart.
        as_list: hand the code a list of all inputs instead of the only one.
        mutable: give it writable copies of large buffers.
        is_async: the code gives an awaitable.
        info: what `current_execution()` will answer.
        timeout: seconds for this attempt from when it starts, or None.
        routers: by edge position, the routers to ask beside the node.
        local: the result stays in this process, so it must own its memory.
        trace: the span that it runs in; None where nothing is traced.
        begun: what came of it in a thread, where that is something to await on the loop.
    """

    code: Code
    inputs: Sequence[Payload | StoredPayload]
    as_list: bool
    mutable: bool
    is_async: bool
    info: ExecutionInfo
    timeout: float | None
    routers: Mapping[int, Code]
    local: bool = False
    trace: TraceContext | None = None
    begun: Result | None = None


@dataclass(slots=True)
class Result:
    """What came of an attempt: a payload and routes, or a failure. Times are Unix seconds.

    `trail` is what its code left behind beside that; `awaitable` what it gave where that is
    still to be awaited.
    """

    payload: Payload | None
    routes: Mapping[int, str | Failure]
    failure: Failure | None
    started: float
    ended: float
    abandoned: bool = False
    trail: Trail | None = None
    awaitable: Awaitable[Any] | None = None


class Host(Protocol):
    """Who waits, on an event loop, for an attempt that runs in a thread."""

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more."""

    def wait_for(self, answer: Awaitable[Any]) -> str | Failure:
        """In the thread: have a router's answer awaited on the event loop."""


class _TimeUp(BaseException):
    """The time is up; `still_running` where the code did not stop for all that."""

    def __init__(self, still_running: bool) -> None:
        self.still_running = still_running


def _load(work: Work) -> Any:
    states = [payload.load(mutable=work.mutable) for payload in work.inputs]
    show_state("input", states)
    return states if work.as_list else states[0]


def _captured(error: BaseException) -> Failure:
    """A failure of the node's, or of the input that it could not be given."""
    return capture(error, "object_lost" if isinstance(error, InputLost) else "error")


def _taken_apart(work: Work, state: Any) -> Payload:
    what = f"the state returned by node {work.info.running_node_id!r}"
    show_state("output", state)
    payload = dump(state, what, local=work.local)
    return payload.compact() if work.local else payload


def run_blocking(work: Work) -> Result:
    """Run an attempt in this thread; an async function gets an event loop of its own."""
    if work.is_async:
        return _run_on_own_loop(work)
    return run_here(work, Gatherer(work.trace))


def run_here(work: Work, gatherer: Gatherer, host: Host | None = None) -> Result:
    """Run an attempt of a sync function in this thread.

    What it and its routers give to be awaited is awaited here, on a loop of its own; with a host,
    a router's answer by that, and what the function gave is handed back as `Result.awaitable`.
    """
    with gatherer:
        result = _called_here(work, host)
    return _with_trail(result, gatherer)


def _with_trail(result: Result, gatherer: Gatherer) -> Result:
    trail = gatherer.trail()
    return result if trail is None else replace(result, trail=trail)


def _called_here(work: Work, host: Host | None) -> Result:
    started = time.time()
    token = current.set(_with_deadline(work, started))
    try:
        state = work.code(_load(work))
        if inspect.isawaitable(state):
            if host is not None:
                return Result(None, {}, None, started, time.time(), awaitable=state)
            state = _await_here(state)
        payload = _taken_apart(work, state)
    except BaseException as error:
        return Result(None, {}, _captured(error), started, time.time())
    else:
        routes: dict[int, str | Failure] = {}
        for edge, router in work.routers.items():
            if host is not None and host.given_up:
                break
            routes[edge] = _ask_blocking(router, payload, host)
        return Result(payload, routes, None, started, time.time())
    finally:
        current.reset(token)


def _run_on_own_loop(work: Work) -> Result:
    """Run a coroutine here. Nobody can cancel it from outside, so it also keeps the deadline."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(
            run_on_loop(work, DaemonThreads("graphorch-node"), keep_deadline=True)
        )
        if not result.abandoned:  # what was abandoned would hold up the closing, too
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        return result
    finally:
        asyncio.set_event_loop(None)


def _ask_blocking(router: Code, payload: Payload, host: Host | None) -> str | Failure:
    try:
        answer = router(payload.load())
        if inspect.isawaitable(answer):
            if host is not None:
                return host.wait_for(answer)
            answer = _await_here(answer)
        return _plain(answer)
    except BaseException as error:
        return capture(error)


def _plain(answer: Any) -> str:
    """The text itself, also of an enum member or another kind of `str`."""
    return str.__str__(answer) if isinstance(answer, str) else str(answer)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _await_here(awaitable: Awaitable[Any]) -> Any:
    return run_to_end(_awaited(awaitable))


async def run_on_loop(
    work: Work,
    threads: DaemonThreads,
    *,
    keep_deadline: bool = False,
    gatherer: Gatherer | None = None,
) -> Result:
    """Run an attempt on this event loop; a sync function runs in one of `threads`.

    Cancelling this coroutine cancels the node's code, waits up to `CLEANUP_SECONDS` for its
    ``finally``, and raises `asyncio.CancelledError`. With `keep_deadline` the superstep's
    deadline cancels it too, and gives a failure with the reason ``"deadline"``. A `gatherer`
    that is given has been entered already.
    """
    if gatherer is not None:
        result = await _run(work, threads, keep_deadline)
    else:
        with Gatherer(work.trace) as gatherer:
            result = await _run(work, threads, keep_deadline)
    return _with_trail(result, gatherer)


async def _run(work: Work, threads: DaemonThreads, keep_deadline: bool) -> Result:
    started = time.time()
    limit, own = work.timeout, True
    if work.begun is not None:
        now, started = started, work.begun.started
        limit = None if limit is None else max(0.0, limit - (now - started))
    if keep_deadline and work.info.deadline is not None:
        left = max(0.0, work.info.deadline - started)
        if limit is None or left < limit:
            limit, own = left, False
    token = current.set(_with_deadline(work, started))
    try:
        payload, raised = await _limited(lambda: _call(work, threads), limit)
    except _TimeUp as up:
        limit = work.timeout if own else limit
        error = NodeTimeoutError(work.info.running_node_id, limit or 0.0)
        failure = capture(error, "timeout" if own else "deadline")
        abandoned = up.still_running or not work.is_async
        return Result(None, {}, failure, started, time.time(), abandoned)
    except _Cancelled:
        raise asyncio.CancelledError from None
    except BaseException as error:
        return Result(None, {}, capture(error), started, time.time())
    else:
        if raised is not None or payload is None:
            assert raised is not None
            return Result(None, {}, _captured(raised), started, time.time())
        routes: dict[int, str | Failure] = {}
        for edge, router in work.routers.items():
            routes[edge] = await ask_on_loop(router, payload, threads)
        return Result(payload, routes, None, started, time.time())
    finally:
        current.reset(token)


Called = tuple[Payload | None, BaseException | None]


async def _call(work: Work, threads: DaemonThreads) -> Called:
    """Call the code, and take its state apart where it would block the loop the least."""

    def blocking() -> Any:
        state = work.code(_load(work))
        return state if inspect.isawaitable(state) else _taken_apart(work, state)

    if work.begun is not None:
        state = work.begun.awaitable
    elif work.is_async:
        state = work.code(_load(work))
    else:
        state, error = await threads.attempt(blocking)
        if error is not None or isinstance(state, Payload):
            return state, error
    if inspect.isawaitable(state):
        state = await state
    return _taken_apart(work, state), None


class _Cancelled(BaseException):
    """This attempt was cancelled from outside (not by its own code)."""


async def _limited(call: Callable[[], Awaitable[Called]], limit: float | None) -> Called:
    """Await `call` for `limit` seconds at most; stop it properly when it is cancelled."""

    async def guarded() -> Called:
        # Task re-raises SystemExit and KeyboardInterrupt into the loop; node code may not.
        try:
            return await call()
        except BaseException as error:
            return None, error

    outer = asyncio.current_task()
    task = asyncio.create_task(guarded(), name=outer.get_name() if outer is not None else None)
    try:
        done, _ = await asyncio.wait((task,), timeout=limit)
    except asyncio.CancelledError:
        task.cancel()
        await _uninterrupted(task)
        raise _Cancelled from None
    if not done:
        task.cancel()
        await _uninterrupted(task)
        raise _TimeUp(not task.done())
    return task.result()


async def _uninterrupted(task: asyncio.Future[Any]) -> None:
    """Give a cancelled task its clean-up time, whoever cancels the waiting meanwhile."""
    end = time.monotonic() + CLEANUP_SECONDS
    while not task.done() and (left := end - time.monotonic()) > 0:
        try:
            await asyncio.wait((task,), timeout=left)
        except asyncio.CancelledError:
            continue


async def ask_on_loop(
    router: Code, payload: Payload | StoredPayload, threads: DaemonThreads
) -> str | Failure:
    """Ask a router about a private copy of the state; a sync router runs in a thread."""
    if inspect.iscoroutinefunction(router):
        try:
            answer = router(payload.load())
        except BaseException as error:
            return capture(error)
    else:
        answer, raised = await threads.attempt(lambda: router(payload.load()))
        if raised is not None:
            return capture(raised)
    return await waited_for(answer) if inspect.isawaitable(answer) else said(answer)


async def waited_for(answer: Awaitable[Any]) -> str | Failure:
    """What a router says that gives something to be awaited."""
    try:
        return _plain(await answer)
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
            raise  # from outside, not by what it awaits
        return capture(error)


def said(answer: Any) -> str | Failure:
    """What a router says, which may be anything."""
    try:
        return _plain(answer)
    except BaseException as error:
        return capture(error)


def _with_deadline(work: Work, started: float) -> ExecutionInfo:
    """The execution's info with the earlier of the superstep's and the attempt's deadline."""
    info = work.info
    if work.timeout is None:
        return info
    own = started + work.timeout
    if info.deadline is not None and info.deadline <= own:
        return info
    return replace(info, deadline=own)
