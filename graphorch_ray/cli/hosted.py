"""`runs`: the hosted runs of a cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .running import join, write_result
from .session import ExitCode, Session, common, flags
from .states import check_output, state_as_data

if TYPE_CHECKING:
    from ..runs import RunHandle, RunStatus

F = TypeVar("F", bound=Callable[..., Any])


def at_address(function: F) -> F:
    """Give a command the option that names the cluster."""
    return click.option(
        "--address", metavar="HOST:PORT", envvar="RAY_ADDRESS", help="The cluster to look at."
    )(function)


@click.group(invoke_without_command=True)
@at_address
@flags
@click.pass_context
def runs(context: click.Context, address: str | None) -> None:
    """Hosted runs: list them, look at one, hold it, stop it, fetch its result.

    A hosted run is one that `run --hosted NAME` or `executor.submit()` has given to the cluster.
    """
    join(address)
    if context.invoked_subcommand is None:
        context.invoke(list_)


@runs.command("list")
@common
def list_(session: Session) -> None:
    """List all runs of the cluster, those that are over as long as their result is kept."""
    _list(session)


@runs.command()
@click.argument("name")
@common
def show(session: Session, name: str) -> None:
    """Tell where a run is."""
    _tell(session, _find(name).status())


@runs.command()
@click.argument("name")
@common
def pause(session: Session, name: str) -> None:
    """Hold a run at its next barrier."""
    handle = _find(name)
    handle.pause()
    _tell(session, handle.status())


@runs.command()
@click.argument("name")
@common
def resume(session: Session, name: str) -> None:
    """Let a run that was held go on."""
    handle = _find(name)
    handle.resume()
    _tell(session, handle.status())


@runs.command()
@click.argument("name")
@common
def cancel(session: Session, name: str) -> None:
    """Stop a run; what is committed stays in its checkpoints."""
    _tell(session, _find(name).cancel())


@runs.command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS")
@click.option("--output", metavar="FILE", help="Write the final state, as `run --output` does.")
@common
def result(session: Session, name: str, timeout: float | None, output: str | None) -> int:
    """Wait for a run's end, and print its final state."""
    check_output(output)
    state = _find(name).result(timeout)
    data = None if state is None else state_as_data(state)
    write_result(session, state, output, {"name": name, "state": data})
    return ExitCode.OK


def _find(name: str) -> RunHandle:
    from ..runs import get_run

    return get_run(name)


def _list(session: Session) -> None:
    from ..runs import list_runs

    found = list_runs()
    session.show(
        "\n".join(_table(found)) if found else "no hosted runs",
        [dataclasses.asdict(status) for status in found],
    )


def _table(found: Iterable[RunStatus]) -> Iterator[str]:
    yield f"{'NAME':24}{'STATE':11}{'SUPERSTEP':>9}  {'STARTED':21}{'RESTARTS':>8}  ACTIVE"
    for run in found:
        superstep = "?" if run.superstep is None else str(run.superstep)
        active = ", ".join(run.active_nodes[:4]) + (" …" if len(run.active_nodes) > 4 else "")
        yield (
            f"{run.name:24}{run.state:11}{superstep:>9}  {_when(run.started):21}"
            f"{run.restarts:>8}  {active}"
        )


def _tell(session: Session, status: RunStatus) -> None:
    lines = [f"{status.name}: {status.state}"]
    for name, value in dataclasses.asdict(status).items():
        if name in ("started", "ended"):
            value = _when(value)
        elif isinstance(value, tuple):
            value = ", ".join(value)
        if name not in ("name", "state") and value not in (None, ""):
            lines.append(f"  {name.replace('_', ' '):16}{value}")
    session.show("\n".join(lines), dataclasses.asdict(status))


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
