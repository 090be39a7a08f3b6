"""What checkpoints a place holds: listing, describing, and keeping one under a name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointError
from .data import find
from .encoding import Description
from .encoding import describe as describe_document
from .manifest import Blob, Stored
from .places import open_store
from .store import CheckpointInfo


@dataclass(frozen=True, slots=True)
class StateInfo:
    """What is known of a state without loading it.

    Attributes:
        nbytes: its bytes, small and large values together.
        stored: bytes that its large values take in the store.
        messages: how many messages it has.
        description: its parts by type, length and size.
    """

    nbytes: int
    stored: int
    messages: int
    description: Description = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckpointDescription:
    """A checkpoint, described without loading its values.

    Attributes:
        url, line, seq: where it is.
        run_id, branch, graph_name: whose it is.
        superstep, status, kind, created: as in `CheckpointInfo`.
        trusted: whether pickles in it would be loaded without more ado.
        active: by node id, the states that wait there.
        final: what `end` produced last, or None.
        done: executions of the superstep that are done already.
        versions: what the run was made with.
        options: the executor's.
    """

    url: str
    line: str
    seq: int
    run_id: str
    branch: str
    graph_name: str
    superstep: int
    status: str
    kind: str
    created: float
    trusted: bool
    active: dict[str, tuple[StateInfo, ...]]
    final: StateInfo | None
    done: int
    versions: dict[str, Any]
    options: dict[str, Any]


def list_checkpoints(url: str | os.PathLike[str], **store: Any) -> list[CheckpointInfo]:
    """Every checkpoint of a place, oldest line first. Reads manifests, and no state.

    Args:
        url: a local path or any fsspec URL.
        store: `key`, `allow_pickle` and `storage_options`, as for `CheckpointData.load`.

    Example:
        ```python
        for info in list_checkpoints("runs/7"):
            print(info.superstep, info.status, info.active)
        ```
    """
    return open_store(url, **store).checkpoints()


def describe(
    url: str | os.PathLike[str],
    *,
    superstep: int | None = None,
    savepoint: str | None = None,
    line: str | None = None,
    **store: Any,
) -> CheckpointDescription:
    """Describe the newest checkpoint of a place, or another one, without loading its values.

    Args:
        url: a local path or any fsspec URL.
        superstep, savepoint, line: which one, as for `CheckpointData.load`.
        store: as for `list_checkpoints`.

    Raises:
        FileNotFoundError: there is no checkpoint.
        CheckpointError: it cannot be read.
    """
    place = open_store(url, **store)
    found, manifest = find(place, superstep=superstep, savepoint=savepoint, line=line)
    header = found.header
    infos = [_info(found.blobs, stored) for stored in manifest.states]
    return CheckpointDescription(
        url=place.url,
        line=found.name,
        seq=manifest.seq,
        run_id=header.run_id,
        branch=header.branch,
        graph_name=header.graph_name,
        superstep=manifest.superstep,
        status=manifest.status,
        kind=manifest.kind,
        created=manifest.created,
        trusted=place.trusted(manifest),
        active={
            active.node_id: tuple(infos[number] for number in active.states)
            for active in manifest.active
        },
        final=None if manifest.final is None else infos[manifest.final],
        done=len(manifest.done),
        versions=dict(header.versions),
        options=dict(manifest.options),
    )


def keep(
    url: str | os.PathLike[str],
    name: str,
    *,
    superstep: int | None = None,
    line: str | None = None,
    **store: Any,
) -> None:
    """Keep a checkpoint under a name: a savepoint, which is never pruned.

    Args:
        url: a local path or any fsspec URL.
        name: what to call it; `CheckpointData.load(url, savepoint=name)` finds it again.
        superstep, line: which one; default: the newest.
        store: as for `list_checkpoints`.

    Raises:
        CheckpointError: the name is taken, or the place is a single file.
    """
    place = open_store(url, **store)
    found, manifest = find(place, superstep=superstep, line=line)
    found.pin(name, manifest.seq)


def release(url: str | os.PathLike[str], name: str, **store: Any) -> None:
    """Take a savepoint's name away, so that it may be pruned like any other.

    Raises:
        CheckpointError: there is no such savepoint.
    """
    place = open_store(url, **store)
    for line_name in place.lines():
        line = place.line(line_name)
        if name in line.pins():
            line.unpin(name)
            return
    raise CheckpointError(f"'{place.url}' has no savepoint {name!r}.")


def _info(blobs: Any, stored: Stored) -> StateInfo:
    document = stored.document
    content = blobs.get(document) if isinstance(document, Blob) else document
    return StateInfo(
        stored.nbytes,
        sum(blob.stored for blob in set(stored.blobs())),
        stored.size,
        describe_document(content),
    )
