"""`checkpoints`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ..checkpoint import (
    CheckpointDescription,
    describe,
    keep,
    list_checkpoints,
    release,
)
from ..checkpoint.catalog import StateInfo
from ..checkpoint.data import find
from ..checkpoint.places import open_store
from .differences import Opened, differences, few, size
from .session import CommandError, ExitCode, Session, common

CHANGES_SHOWN = 50


@dataclasses.dataclass(frozen=True)
class Which:
    """Which checkpoint is meant, as `describe` takes it."""

    superstep: int | None = None
    savepoint: str | None = None
    line: str | None = None


def _which(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """``newest``, a superstep, or a savepoint's name; after a line, if need be: ``000002:5``."""
    if value is None or isinstance(value, tuple):
        return None if value is None else tuple(_which(context, parameter, one) for one in value)
    line, colon, rest = value.rpartition(":")
    named = line if colon else None
    if rest == "newest":
        return Which(line=named)
    if rest.isdigit():
        return Which(superstep=int(rest), line=named)
    if not rest:
        raise click.BadParameter("write 'newest', a superstep, or a savepoint's name")
    return Which(savepoint=rest, line=named)


@click.command()
@click.argument("url")
@click.option("--show", metavar="WHICH", callback=_which, help="Describe one.")
@click.option(
    "--diff", metavar="WHICH WHICH", callback=_which, nargs=2, help="What differs between two."
)
@click.option("--keep", "kept_as", metavar="NAME", help="Keep the newest for good, as a savepoint.")
@click.option("--release", "released", metavar="NAME", help="Let a savepoint go.")
@common
def checkpoints(
    session: Session,
    url: str,
    show: Which | None,
    diff: tuple[Which, Which] | None,
    kept_as: str | None,
    released: str | None,
) -> None:
    """List, describe or compare the checkpoints of a run.

    URL is where they are. WHICH is 'newest', a superstep, or a savepoint's name; '000002:5' is
    superstep 5 of line 000002. No pickle is loaded, so nothing has to be trusted.
    """
    if sum(option is not None for option in (show, diff, kept_as, released)) > 1:
        raise CommandError("Give one of --show, --diff, --keep and --release")
    if show is not None:
        found = _describe(url, show)
        session.show("\n".join(_described(found)), _as_data(found))
    elif diff is not None:
        changes = list(differences(*(_open(url, which) for which in diff)))
        told = [f"{place}: {before} -> {after}" for place, before, after in changes]
        if len(told) > CHANGES_SHOWN:
            told[CHANGES_SHOWN:] = [f"… and {len(changes) - CHANGES_SHOWN} more"]
        keys = ("what", "before", "after")
        session.show(
            "\n".join(told) or "no difference",
            [dict(zip(keys, change, strict=True)) for change in changes],
        )
    elif kept_as is not None:
        keep(url, kept_as)
        session.show(f"kept the newest checkpoint as {kept_as!r}", {"savepoint": kept_as})
    elif released is not None:
        release(url, released)
        session.show(f"released {released!r}", {"released": released})
    else:
        infos = list_checkpoints(url)
        if not infos:
            raise CommandError(f"There are no checkpoints in '{url}'", ExitCode.CHECKPOINT)
        session.show(
            "\n".join(_table(infos)), [{**dataclasses.asdict(info), "url": url} for info in infos]
        )


def _open(url: str, which: Which) -> Opened:
    """A checkpoint with its description, as it is to be compared."""
    found, manifest = find(open_store(url), **dataclasses.asdict(which))
    return Opened(_describe(url, which), manifest, found.blobs)


def _describe(url: str, which: Which) -> CheckpointDescription:
    return describe(url, superstep=which.superstep, savepoint=which.savepoint, line=which.line)


# --- as text --------------------------------------------------------------------------------------


def _table(infos: Iterable[Any]) -> Iterator[str]:
    yield f"{'LINE':8}{'SUPERSTEP':>9}  {'KIND':11}{'STATUS':10}{'WRITTEN':21}{'SIZE':>10}  ACTIVE"
    for info in infos:
        if not info.valid:
            yield f"{info.line:8}{'?':>9}  damaged: manifest {info.seq}"
            continue
        names = f" [{', '.join(info.savepoints)}]" if info.savepoints else ""
        yield (
            f"{info.line:8}{info.superstep:>9}  {info.kind:11}{info.status:10}"
            f"{_when(info.created):21}{size(info.nbytes):>10}  {few(list(info.active))}{names}"
        )


def _described(found: CheckpointDescription) -> Iterator[str]:
    yield f"{found.graph_name}, line {found.line}, superstep {found.superstep}: {found.status}"
    yield f"  run        {found.run_id} (branch {found.branch})"
    yield f"  written    {_when(found.created)}, {found.kind}"
    trust = "loaded without more ado" if found.trusted else "need a signature or --allow-pickle"
    yield f"  pickles    {trust}"
    yield f"  made with  {', '.join(f'{k} {v}' for k, v in found.versions.items())}"
    yield f"  options    {', '.join(f'{k}={v}' for k, v in found.options.items())}"
    if found.done:
        yield f"  done       {found.done} executions of this superstep"
    for node_id, states in found.active.items():
        for state in states:
            yield f"  waiting at {node_id!r}: {_state(state)}"
    if found.final is not None:
        yield f"  result     {_state(found.final)}"


def _state(state: StateInfo) -> str:
    text = f"{state.messages} messages, {size(state.nbytes)}"
    parts = dict(state.description.children).get(".messages") or state.description
    kinds = [child.type.rpartition(":")[2] for _, child in parts.children]
    return f"{text} ({few(kinds)})" if kinds else text


def _when(created: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))


def _as_data(found: CheckpointDescription) -> dict[str, Any]:
    return dataclasses.asdict(found)
