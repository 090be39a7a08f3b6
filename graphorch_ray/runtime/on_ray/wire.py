"""What driver and workers say to each other: plain tuples that pickle fast.

A call carries a `Job`: items of work and the keys of the code they need. Answers come back as a
stream: a `Report` with messages, then as many payloads as it announces, each an object of its
own, so that the driver learns of a large state without ever holding its bytes.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ...errors import SerializationError
from ...model.attempt import NOT_LOADED, Failure, Role
from ...model.trail import TraceContext, Trail
from ..attempt import Code, Result, Work
from ..context import ExecutionInfo
from ..failures import capture, pack
from ..payload import INLINE_BYTES, Payload, load_code
from ..stored import StoredPayload

CACHED_CODES = 4096
"""Pieces of node code that a worker process keeps loaded, at most."""

CACHED_BYTES = 64 * 2**20
"""Pickled bytes that they may have together; the piece in use is kept whatever its size."""

MESSAGES_PER_REPORT = 256


class Shipped(NamedTuple):
    """Node code on its way.

    `what` names it in errors; `refs` are the Ray references and actor handles that it uses;
    `import_path` is the driver's.
    """

    what: str
    pickled: bytes
    refs: tuple[Any, ...]
    import_path: tuple[str, ...]


class Kind(NamedTuple):
    """What many items share: the code to run, and how.

    `code` and the routers are keys; a router has its edge's position.
    """

    code: str
    as_list: bool
    mutable: bool
    is_async: bool
    timeout: float | None
    routers: tuple[tuple[int, str], ...]


class Item(NamedTuple):
    """One attempt to run.

    `kind` is a position among the job's. `inputs` are payloads (here or in the vault), or
    positions among the call's arguments. From `superstep` on it says which execution this is, as
    `ExecutionInfo` does.
    """

    token: int
    kind: int
    inputs: tuple[Payload | StoredPayload | int, ...]
    trace: TraceContext | None
    superstep: int
    execution: int
    node_id: str
    running_node_id: str
    role: Role
    attempt: int
    rerun: int


class Step(NamedTuple):
    """A node that may follow another on the same worker, and what may follow it.

    `sinks` are those of its only edge: one, or those among which a router beside the node chooses.
    None are given where it has other edges than that, and at the end of the graph.
    """

    kind: Kind
    sinks: tuple[str, ...]


class Track(NamedTuple):
    """The way on from a job's only item, for as many supersteps as the driver may be left behind.

    `steps` are the nodes that it may come to, and the first. `superstep_timeout` is in seconds.
    Each attempt has the token, and the span, after those of the one before it.
    """

    steps: Mapping[str, Step]
    limit: int
    superstep_timeout: float | None


class Job(NamedTuple):
    """What one call carries.

    `codes` maps keys to node code: a small piece itself, a large one as a reference in a list,
    nested so that Ray fetches it only where it is needed. `time_left` is the superstep's, in
    seconds: a time of day would mean something else on a machine whose clock is off. With a
    `track`, what follows the only item is run there too. `announce` asks to be told of each start.
    A state of up to `inline_bytes` comes back with the message about it.
    """

    run_id: str
    graph_name: str
    branch: str
    items: tuple[Item, ...]
    kinds: tuple[Kind, ...]
    codes: Mapping[str, Shipped | list[Any]]
    time_left: float | None
    track: Track | None = None
    announce: bool = False
    inline_bytes: int = INLINE_BYTES


class Where(NamedTuple):
    """The process that ran an attempt."""

    pid: int
    ray_node: str


class Started(NamedTuple):
    """An attempt is about to run."""

    token: int
    started: float


class Done(NamedTuple):
    """An attempt gave a state. `payload` is None where it follows as an object of its own.

    A route is a sink's id, or a packed failure. A state that was `left_behind` on a track stays
    with the worker: the next superstep has taken it, and is over too.
    """

    token: int
    payload: Payload | None
    nbytes: int
    size: int
    routes: Mapping[int, str | tuple[Failure, bytes | None]]
    started: float
    ended: float
    trail: Trail | None = None
    left_behind: bool = False


class Failed(NamedTuple):
    """An attempt failed; `error` is the exception, pickled, where it can travel.

    `abandoned` says that its code still runs, and only the end of the process will stop it.
    """

    token: int
    failure: Failure
    error: bytes | None
    started: float
    ended: float
    abandoned: bool
    trail: Trail | None = None


class Blocked(NamedTuple):
    """The worker's event loop does not answer, or (`blocked` false) answers again.

    `token` is the attempt that holds it, where that is known.
    """

    token: int | None
    blocked: bool


class Unstarted(NamedTuple):
    """These attempts were not begun: the batch had taken its time. They are handed back."""

    tokens: tuple[int, ...]


class Stopped(NamedTuple):
    """A track is followed no further: `token` is the last attempt on it that was run."""

    token: int


class Cancelled(NamedTuple):
    """A cancel was heard, or (`finished`) all that was cancelled has stopped."""

    finished: bool


Message = Started | Done | Failed | Unstarted | Stopped | Blocked | Cancelled


class Report(NamedTuple):
    """Messages, in order; `follow` payloads come next in the stream, for its `Done`s without."""

    messages: tuple[Message, ...]
    follow: int
    where: Where


def packed(job: Job) -> Job | bytes:
    """The job as bytes, where nothing in it needs Ray's own pickling, which is far slower."""
    for shipped in job.codes.values():
        if isinstance(shipped, list) or shipped.refs:
            return job
    for item in job.items:
        if any(isinstance(given, StoredPayload) for given in item.inputs):
            return job
    return pickle.dumps(job, pickle.HIGHEST_PROTOCOL)


def report(messages: Sequence[Message], follow: int, where: Where) -> bytes:
    """A report as it travels: plain data, so that Ray need not pickle it."""
    return pickle.dumps(Report(tuple(messages), follow, where), pickle.HIGHEST_PROTOCOL)


def unpacked(value: Any) -> Any:
    """What `packed` or `report` was given; other things as they are."""
    return pickle.loads(value) if isinstance(value, bytes) else value


def tell(
    token: int, result: Result, inline_bytes: int = INLINE_BYTES
) -> tuple[Message, Payload | None]:
    """The message for a result, and the payload that has to follow it, if any."""
    if result.failure is not None:
        bare, error = pack(result.failure)
        return Failed(
            token, bare, error, result.started, result.ended, result.abandoned, result.trail
        ), None
    payload = result.payload
    assert payload is not None
    routes = {
        edge: pack(route) if isinstance(route, Failure) else route
        for edge, route in result.routes.items()
    }
    inline = payload.fits(inline_bytes)
    message = Done(
        token,
        payload.compact() if inline else None,
        payload.nbytes,
        payload.size,
        routes,
        result.started,
        result.ended,
        result.trail,
    )
    return message, None if inline else payload


class CodeCache:
    """The node code that this process has loaded, by key."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[str, tuple[Code, int]] = OrderedDict()
        self._bytes = 0

    def load(self, key: str, codes: Mapping[str, Shipped | list[Any]]) -> Code:
        """The code under a key, fetched from the object store the first time.

        Raises:
            SerializationError: it cannot be loaded here; says why, and what to do.
        """
        known = self._loaded.get(key)
        if known is not None:
            self._loaded.move_to_end(key)
            return known[0]
        shipped = codes[key]
        if isinstance(shipped, list):
            import ray

            shipped = ray.get(shipped[0])
        assert isinstance(shipped, Shipped)
        present = set(sys.path)
        sys.path.extend(path for path in shipped.import_path if path not in present)
        try:
            loaded = load_code(shipped.pickled, shipped.refs)
        except (OSError, MemoryError):
            raise  # this worker's trouble at this moment, not the code's
        except Exception as error:
            raise SerializationError(shipped.what, _why_not_loaded(error)) from error
        code = cast(Code, loaded)
        self._loaded[key] = (code, len(shipped.pickled))
        self._bytes += len(shipped.pickled)
        while len(self._loaded) > CACHED_CODES or (
            self._bytes > CACHED_BYTES and len(self._loaded) > 1
        ):
            _, (_, size) = self._loaded.popitem(last=False)
            self._bytes -= size
        return code


def _why_not_loaded(error: Exception) -> str:
    """Why code that was sent does not load here, and what to do about it."""
    ship = (
        "ship it with ray.init(runtime_env={'working_dir': '.'}) or "
        "runtime_env={'py_modules': [...]} on the node"
    )
    if isinstance(error, ModuleNotFoundError):
        return (
            f"it needs the module {error.name!r}, which is not on this worker. Install it "
            f"there, or {ship}"
        )
    return (
        f"it does not load on this worker: {type(error).__name__}: {error}. A module or package "
        f"there is of another version than in the driver. Install the same one there, or {ship}"
    )


def work_of(
    item: Item, kind: Kind, job: Job, arguments: Sequence[Payload], cache: CodeCache
) -> Work:
    """Load all that an item needs."""
    info = ExecutionInfo(
        run_id=job.run_id,
        graph_name=job.graph_name,
        branch=job.branch,
        superstep=item.superstep,
        index=item.execution,
        node_id=item.node_id,
        running_node_id=item.running_node_id,
        role=item.role,
        attempt=item.attempt,
        rerun=item.rerun,
        deadline=None if job.time_left is None else time.time() + job.time_left,
    )
    return Work(
        cache.load(kind.code, job.codes),
        [arguments[i] if isinstance(i, int) else i for i in item.inputs],
        kind.as_list,
        kind.mutable,
        kind.is_async,
        info,
        kind.timeout,
        {edge: cache.load(key, job.codes) for edge, key in kind.routers},
        trace=item.trace,
    )


def not_loaded(error: BaseException, now: float) -> Result:
    """The result of an attempt whose code or state could not be loaded."""
    reason = NOT_LOADED if isinstance(error, SerializationError) else "error"
    return Result(None, {}, capture(error, reason), now, now)
