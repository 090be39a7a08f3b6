"""`checkpoints`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ..checkpoint import (
    CheckpointDescription,
    Description,
    describe,
    keep,
    list_checkpoints,
    release,
)
from ..checkpoint.catalog import StateInfo
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
    superstep 5 of line 000002. No state is loaded, so nothing has to be trusted.
    """
    if sum(option is not None for option in (show, diff, kept_as, released)) > 1:
        raise CommandError("Give one of --show, --diff, --keep and --release")
    if show is not None:
        found = _describe(url, show)
        session.show("\n".join(_described(found)), _as_data(found))
    elif diff is not None:
        changes = list(_changes(*(_describe(url, which) for which in diff)))
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
            f"{_when(info.created):21}{size(info.nbytes):>10}  {_few(info.active)}{names}"
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
    return f"{text} ({_few(kinds)})" if kinds else text


def _few(names: Iterable[str], most: int = 4) -> str:
    named = list(names)
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more


def _when(created: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))


def size(nbytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"


# --- as data, and compared ------------------------------------------------------------------------


def _as_data(found: CheckpointDescription) -> dict[str, Any]:
    return dataclasses.asdict(found)


def _changes(
    before: CheckpointDescription, after: CheckpointDescription
) -> Iterator[tuple[str, Any, Any]]:
    """What differs, as place, before and after, without loading a value."""
    for name in ("graph_name", "run_id", "branch", "superstep", "status"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield name, old, new
    for name in ("options", "versions"):
        olds, news = getattr(before, name), getattr(after, name)
        for key in [*olds, *(key for key in news if key not in olds)]:
            if olds.get(key) != news.get(key):
                yield f"{name}.{key}", olds.get(key), news.get(key)
    states = {**_states(before)}
    later = _states(after)
    for place in [*states, *(place for place in later if place not in states)]:
        yield from _state_changes(place, states.get(place), later.get(place))


def _states(found: CheckpointDescription) -> dict[str, StateInfo]:
    named = {
        f"active[{node_id!r}][{number}]": state
        for node_id, states in found.active.items()
        for number, state in enumerate(states)
    }
    return named if found.final is None else {**named, "final": found.final}


def _state_changes(
    place: str, before: StateInfo | None, after: StateInfo | None
) -> Iterator[tuple[str, Any, Any]]:
    if before is None or after is None:
        yield place, None if before is None else _state(before), after and _state(after)
        return
    yield from _part_changes(place, before.description, after.description)


def _maybe(state: StateInfo | None) -> str | None:
    return None if state is None else _state(state)


def _part_changes(
    place: str, before: Description, after: Description
) -> Iterator[tuple[str, Any, Any]]:
    old, new = _part(before), _part(after)
    if old != new and not (before.children and after.children and before.type == after.type):
        yield place, old, new
        return
    if before.length != after.length:
        yield f"{place}.length", before.length, after.length
    olds, news = dict(before.children), dict(after.children)
    for label in [*olds, *(label for label in news if label not in olds)]:
        if label in olds and label in news:
            yield from _part_changes(place + label, olds[label], news[label])
        else:
            yield place + label, _part(olds.get(label)), _part(news.get(label))


def _part(found: Description | None) -> str | None:
    if found is None:
        return None
    length = "" if found.length is None else f"[{found.length}]"
    return f"{found.type}{length}, {size(found.nbytes)}"
