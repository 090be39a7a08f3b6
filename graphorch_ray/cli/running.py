"""`run` and `resume`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, get_args

import click

from ..checkpoint.settings import Durability
from ..policies import OnMultipleStates, RetryPolicy
from ..runtime import Backend, PoolKind
from ..state import State
from .session import CommandError, ExitCode, Session, Terminated, common, exit_code_of
from .states import check_folder, check_output, read_state, state_as_data, write_state
from .targets import load_class, load_graph

if TYPE_CHECKING:
    from ..executor import GraphExecutor
    from ..model import Graph

SHOWN_CHARACTERS = 4000
"""How much of a result a terminal is shown; a pipe or a file gets all."""


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    """A number of seconds, or ``none`` for no limit."""
    if value.lower() == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"'{value}' is no number of seconds, and not 'none'") from None


def _count_or_all(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """A whole number of 1 or more, or ``all``."""
    if value.lower() == "all":
        return None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"'{value}' is no number of 1 or more, and not 'all'")
    return int(value)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


how_it_runs = _options(
    click.option(
        "--address",
        metavar="HOST:PORT",
        envvar="RAY_ADDRESS",
        help="The Ray cluster to join. Default: a Ray of this process's own.",
    ),
    click.option(
        "--backend",
        type=click.Choice(get_args(Backend)),
        help="Where nodes run: Ray, or this process.",
    ),
    click.option(
        "--pool",
        type=click.Choice(get_args(PoolKind)),
        default="auto",
        show_default=True,
        help="What sync nodes run in on Ray: tasks, actors, or whatever is quickest.",
    ),
    click.option(
        "--max-supersteps", type=click.IntRange(0), default=100, show_default=True, metavar="N"
    ),
    click.option(
        "--superstep-timeout",
        metavar="SECONDS",
        callback=_seconds,
        default="300",
        show_default=True,
        help="Seconds for a whole superstep, or 'none'.",
    ),
    click.option(
        "--progress/--no-progress",
        default=None,
        help="Show how it goes. Default: where standard error is a terminal.",
    ),
    click.option(
        "--report", metavar="FILE", type=click.Path(dir_okay=False), help="Write the HTML report."
    ),
    click.option(
        "--trace",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Append the spans of the run, one JSON object a line.",
    ),
    click.option(
        "--output",
        metavar="FILE",
        help="Write the final state: .json, .jsonl, .parquet or .arrow. Default: JSON on "
        "standard output.",
    ),
)


@click.command()
@click.argument("graph", metavar="MODULE:GRAPH")
@click.option(
    "--input",
    "source",
    metavar="FILE|-",
    help="The initial state: JSON, JSON lines, Parquet or Arrow; '-' is standard input.",
)
@click.option(
    "--rows",
    type=click.Choice(["messages", "table"]),
    default="messages",
    show_default=True,
    help="A table's rows as messages, or the whole table as one.",
)
@click.option("--state", metavar="MODULE:CLASS", help="The class of the state, where not State.")
@click.option("--checkpoint", metavar="URL", help="Where to keep checkpoints.")
@click.option(
    "--resume/--anew",
    "goes_on",
    default=False,
    show_default=True,
    help="Go on with the newest run in --checkpoint, where there is one; for what restarts jobs.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Supersteps from one to the next.",
)
@click.option("--checkpoint-durability", type=click.Choice(get_args(Durability)))
@click.option(
    "--keep-last",
    metavar="N|all",
    default="3",
    show_default=True,
    callback=_count_or_all,
    help="How many supersteps are kept.",
)
@click.option("--max-workers", type=click.IntRange(1), default=4, show_default=True, metavar="N")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="For nodes without a policy of their own; waits of 1 s, 2 s, 4 s, …",
)
@click.option(
    "--hosted",
    metavar="NAME",
    help="Give the run to the cluster under this name, and end; see `runs`.",
)
@click.option(
    "--on-multiple-states", type=click.Choice(get_args(OnMultipleStates)), default="first"
)
@how_it_runs
@common
def run(
    session: Session,
    graph: str,
    source: str | None,
    rows: Any,
    state: str | None,
    checkpoint: str | None,
    goes_on: bool,
    checkpoint_every: int,
    checkpoint_durability: Any,
    keep_last: int | None,
    max_workers: int,
    retries: int,
    hosted: str | None,
    on_multiple_states: OnMultipleStates,
    address: str | None,
    backend: Backend | None,
    pool: PoolKind,
    **how: Any,
) -> int:
    """Run a graph.

    MODULE:GRAPH names it: a module or a file (path/to/file.py), and in it a graph, a builder, or
    a function that gives one.
    """
    _check_files(how)
    found = load_graph(graph)
    state_class = State if state is None else load_class(state, State)
    initial = read_state(source, rows, state_class)
    join(address)
    from ..executor import GraphExecutor

    kept: dict[str, Any] = {}
    if checkpoint is not None:
        kept = {
            "checkpoint_path": checkpoint,
            "checkpoint_every": checkpoint_every,
            "keep_last": keep_last,
        }
        if checkpoint_durability is not None:
            kept["checkpoint_durability"] = checkpoint_durability
    executor = None
    if goes_on:
        executor = _newest_run(session, checkpoint, found, backend)
    if executor is None:
        executor = GraphExecutor(
            found,
            initial,
            max_workers,
            RetryPolicy(max_retries=retries) if retries else None,
            backend=backend,
            on_multiple_states=on_multiple_states,
            **kept,
        )
    executor.pool = pool
    if hosted is not None:
        return _host(session, executor, hosted, how)
    return go(session, executor, f" --graph {graph}", **how)


def _host(session: Session, executor: GraphExecutor, name: str, how: dict[str, Any]) -> int:
    """Give a run to the cluster."""
    for option in ("output", "report", "trace"):
        if how[option] is not None:
            raise CommandError(f"--{option} needs somebody who waits for it, --hosted nobody")
    if not os.environ.get("RAY_ADDRESS"):
        raise CommandError("--hosted needs a cluster that stays: give --address, or RAY_ADDRESS")
    executor.submit(how["max_supersteps"], how["superstep_timeout"], name=name)
    session.tell(f"it runs in the cluster; see to it with `graphorch-ray runs show {name}`")
    session.show(name, {"name": name, "run_id": executor.run_id})
    return ExitCode.OK


@click.command()
@click.argument("url")
@click.option("--graph", metavar="MODULE:GRAPH", help="The run's graph. Default: the kept one.")
@click.option("--superstep", type=click.IntRange(0), metavar="N", help="Go back to a superstep.")
@click.option("--savepoint", metavar="NAME", help="Go back to a savepoint.")
@click.option("--line", metavar="LINE", help="The run or branch to go on with.")
@click.option("--allow-graph-change", is_flag=True, help="Go on though the graph has changed.")
@click.option("--allow-pickle", is_flag=True, help="Load pickles, whoever wrote them.")
@how_it_runs
@common
def resume(
    session: Session,
    url: str,
    graph: str | None,
    superstep: int | None,
    savepoint: str | None,
    line: str | None,
    allow_graph_change: bool,
    allow_pickle: bool,
    address: str | None,
    backend: Backend | None,
    pool: PoolKind,
    **how: Any,
) -> int:
    """Go on with a run from its newest checkpoint, or from an older one.

    URL is where the checkpoints are. The kept graph is a pickle, which is loaded only from a place
    that is trusted; give --graph where you have it.
    """
    _check_files(how)
    found = None if graph is None else load_graph(graph)
    join(address)
    from ..executor import GraphExecutor

    executor = GraphExecutor.resume(
        url,
        found,
        superstep=superstep,
        savepoint=savepoint,
        line=line,
        allow_graph_change=allow_graph_change,
        backend=backend,
        allow_pickle=allow_pickle,
    )
    executor.pool = pool
    named = "" if graph is None else f" --graph {graph}"
    return go(session, executor, named, **how)


def go(
    session: Session,
    executor: GraphExecutor,
    named: str,
    *,
    max_supersteps: int,
    superstep_timeout: float | None,
    progress: bool | None,
    report: str | None,
    trace: str | None,
    output: str | None,
) -> int:
    """Run an executor, and give its result or its error.

    Args:
        session: the call.
        executor: what to run.
        named: how `resume` is told of the graph.
    """
    began = time.monotonic()
    error: BaseException | None = None
    try:
        if executor.backend == "ray":
            connect()
        with _told_to_end(), _tracing(trace):
            if report is not None:
                executor.report(report)
            executor.run(
                max_supersteps,
                superstep_timeout,
                progress=sys.stderr.isatty() if progress is None else progress,
            )
    except (Exception, KeyboardInterrupt) as raised:
        error = raised
    facts = _facts(executor, time.monotonic() - began, report)
    if error is not None:
        return _failed(session, executor, error, named, facts)
    state = executor.final_state
    if output is not None:
        facts["output"] = _written(state if state is not None else State(), output)
    else:
        facts["state"] = None if state is None else state_as_data(state)
    present(session, facts)
    return ExitCode.OK


def present(session: Session, facts: dict[str, Any]) -> None:
    """Print the result of a run, and a line about it."""
    if "output" in facts:
        session.show(f"wrote {facts['output']}", facts)
    else:
        session.show(_shortened(session.out, facts["state"]), facts)
    if session.quiet:
        return
    report = f"; report: {facts['report']}" if facts["report"] else ""
    session.tell(
        f"{facts['graph']}: {facts['status']}, {facts['supersteps']} supersteps in "
        f"{facts['seconds']:.1f} s{report}"
    )


def _newest_run(
    session: Session, url: str | None, graph: Graph, backend: Backend | None
) -> GraphExecutor | None:
    """The newest run in a place, to go on with; None where there is none yet."""
    from ..executor import GraphExecutor

    if url is None:
        raise CommandError("--resume needs --checkpoint: there is nothing to go on from")
    try:
        executor = GraphExecutor.resume(url, graph, backend=backend)
    except FileNotFoundError:
        return None
    session.tell(f"going on with run {executor.run_id} from superstep {executor.superstep}")
    return executor


def write_result(
    session: Session, state: State | None, output: str | None, facts: dict[str, Any]
) -> None:
    """Print a final state, or write it to a file, with facts about it for scripts."""
    if output is not None:
        facts = {**facts, "output": _written(state if state is not None else State(), output)}
        session.show(f"wrote {facts['output']}", facts)
    else:
        session.show(_shortened(session.out, facts["state"]), facts)


def _written(state: State, path: str) -> str:
    """Write the result, as JSON beside its place where it cannot be written as asked for.

    Raises:
        CommandError: it could not; says where it is.
    """
    try:
        write_state(state, path)
    except CommandError as error:
        write_state(state, f"{path}.json")
        raise CommandError(f"{error.message}. The result is in '{path}.json'") from error
    return path


def _failed(
    session: Session,
    executor: GraphExecutor,
    error: BaseException,
    named: str,
    facts: dict[str, Any],
) -> int:
    code = exit_code_of(error)
    if isinstance(error, KeyboardInterrupt):
        code = ExitCode.TERMINATED if isinstance(error, Terminated) else ExitCode.INTERRUPTED
        if not error.args:
            error = KeyboardInterrupt("interrupted")
    url = executor.checkpoint_path
    if url is not None and code in (ExitCode.FAILED, ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        facts["resume"] = f"graphorch-ray resume {url}{named}"
        done = session.fail(error, code, run=facts)
        session.tell(f"it can go on from its newest checkpoint: {facts['resume']}")
        return done
    return session.fail(error, code, run=facts)


def _facts(executor: GraphExecutor, seconds: float, report: str | None) -> dict[str, Any]:
    summary = executor.summary
    return {
        "run_id": executor.run_id,
        "branch": executor.branch,
        "graph": executor.graph.name,
        "backend": executor.backend,
        "status": "finished" if executor.final_state is not None else summary.status,
        "superstep": executor.superstep,
        "supersteps": summary.supersteps,
        "seconds": round(seconds, 3),
        "executions": sum(node.executions for node in summary.nodes.values()),
        "retries": sum(node.retries for node in summary.nodes.values()),
        "fallbacks": sum(node.fallbacks for node in summary.nodes.values()),
        "workers_lost": summary.workers_lost,
        "checkpoint": executor.checkpoint_path,
        "report": report,
    }


def _shortened(out: TextIO, data: Any) -> str:
    text = json.dumps(data, indent=2)
    if not out.isatty() or len(text) <= SHOWN_CHARACTERS:
        return text
    more = len(text) - SHOWN_CHARACTERS
    return f"{text[:SHOWN_CHARACTERS]}\n… ({more:,} more characters; --output FILE writes all)"


def _check_files(how: dict[str, Any]) -> None:
    check_output(how["output"])
    for option in ("report", "trace"):
        check_folder(f"--{option}", how[option])


def connect() -> None:
    """Have a Ray before signals are taken care of, for it takes them over when it starts."""
    from ..runtime.on_ray.ray_connect import ensure_ray, say

    connected = ensure_ray()
    if connected is not None:
        say(connected)


def join(address: str | None) -> None:
    """Name the cluster that this process is to join, where it joins one."""
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Stop cleanly when told to end by SIGTERM, as at Ctrl-C.

    The handler of Ctrl-C is called by hand: below a Ray worker that signal itself is blocked.
    """
    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        at_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(at_ctrl_c):
            raise KeyboardInterrupt
        at_ctrl_c(signal.SIGINT, frame)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: whoever called us handles signals
        yield
        return
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise (Terminated("terminated") if told else interrupt) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _tracing(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    from .. import telemetry

    telemetry.configure(file=Path(path))
    try:
        yield
    finally:
        telemetry.shutdown()
