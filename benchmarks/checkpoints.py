"""What checkpoints cost: time and bytes, against LangGraph's savers and the disk itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from graphorch_ray import GraphExecutionError, GraphExecutor, GraphWarning, State, node_action

from . import functions
from .contenders import graphorch as ours
from .measuring import SECONDS, Goal, Measured, Work

INLINE = "graphorch_ray, inline"
DISK = "the disk: write and fsync"
WRITTEN = "MB written"
EACH = "KB each"
ON_DISK = "KB each, in blocks"
FIRST_NODE = "seconds to the first node"
DURABLE: dict[str, Any] = {
    "checkpoint_every": 1,
    "checkpoint_durability": "sync",
    "keep_last": None,
}
# Folders for checkpoints lie where temporary files do: TMPDIR chooses the disk that is measured.


KEPT_BYTES = 100_000_000
"""Folders that are larger are deleted as soon as they are measured; others, at the end.

Where a thousand files were deleted a moment ago, ext4 takes ten times as long to make another one,
for a minute: one contender would pay for the files of the one before.
"""

_kept: list[tempfile.TemporaryDirectory[str]] = []


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, and a disk that has nothing left to write from before."""
    place = tempfile.TemporaryDirectory(prefix="graphorch-bench-")
    os.sync()
    yield Path(place.name)
    if size_of(Path(place.name))[0] > KEPT_BYTES:
        place.cleanup()
    else:
        _kept.append(place)


def size_of(path: Path) -> tuple[int, int]:
    """Bytes of all files below a folder, and bytes of the disk's blocks that they take."""
    stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(s.st_size for s in stats), sum(s.st_blocks * 512 for s in stats)


def ends_of(array: Any) -> list[int]:
    """What tells whether two arrays are the same, by their ends and length."""
    return [int(array[0]), int(array[-1]), len(array)]


def _saved(
    graph: Any, value: Any, backend: str, supersteps: int | None = None
) -> Callable[[], Measured]:
    """A run of ours with each superstep durable before the next."""

    def run() -> Measured:
        with folder() as path:
            began = time.perf_counter()
            result = ours.run(
                graph, State([value]), backend=backend, checkpoint_path=str(path), **DURABLE
            )
            seconds = time.perf_counter() - began
            return _measured(result.messages[0], seconds, *size_of(path), supersteps)

    return run


def _measured(
    answer: Any, seconds: float, size: int, blocks: int, supersteps: int | None
) -> Measured:
    """Bytes are told for each superstep, or in all where no number of supersteps is given."""
    values = {SECONDS: seconds}
    if supersteps is None:
        values[WRITTEN] = size / 1e6
    else:
        values[EACH] = size / 1e3 / supersteps
        if blocks:
            values[ON_DISK] = blocks / 1e3 / supersteps
    return Measured(ends_of(answer) if isinstance(answer, np.ndarray) else answer, values)


def _peers(
    graph: Callable[[Any], Any], value: Any, supersteps: int | None = None
) -> dict[str, Any]:
    """LangGraph with SQLite and in memory; `graph` makes the graph from its module."""

    def sqlite() -> Measured:
        from .contenders import saver

        with folder() as path, saver.sqlite_saver(path) as database:
            began = time.perf_counter()
            answer = saver.run(graph(saver), value, database)
            seconds = time.perf_counter() - began
            return _measured(answer, seconds, *size_of(path), supersteps)

    def memory() -> Measured:
        from .contenders import saver

        kept = saver.memory_saver()
        began = time.perf_counter()
        answer = saver.run(graph(saver), value, kept)
        seconds = time.perf_counter() - began
        return _measured(answer, seconds, saver.held_by(kept), 0, supersteps)

    return {"LangGraph, SQLite": sqlite, "LangGraph, in memory": memory}


def arrays(quick: bool) -> Work:
    """C1: a new array each superstep."""
    megabytes, count = (10, 4) if quick else (100, 10)
    make = functions.next_small_array if quick else functions.next_array
    graph = ours.chain_of([ours.node_of(make)] * count)

    def disk() -> Measured:
        contents = [functions.array_of(megabytes, number) for number in range(count)]
        with folder() as path:
            began = time.perf_counter()
            for number, content in enumerate(contents):
                with open(path / str(number), "wb", buffering=0) as file:
                    view = memoryview(content.view(np.uint8))
                    while view:
                        view = view[file.write(view) :]
                    os.fsync(file.fileno())
            seconds = time.perf_counter() - began
            return _measured(contents[-1], seconds, *size_of(path), None)

    return Work(
        "C1",
        f"{count} nodes, each makes a new array of {megabytes} MB, each superstep durable",
        {
            ours.NAME: _saved(graph, 0, "ray"),
            DISK: disk,
            **_peers(lambda peer: peer.chain(make, count), 0),
        },
        [Goal(ours.NAME, 1.5, DISK), Goal(ours.NAME, 1.0, "LangGraph, SQLite")],
        note="The disk's part is writing and syncing alone: its arrays are made beforehand.",
    )


def small_supersteps(quick: bool) -> Work:
    """W12: many small supersteps, each durable."""
    count = 50 if quick else 1000
    graph = ours.loop_of(ours.node_of(functions.one_more), count, "worker")
    return Work(
        "W12",
        f"a loop of {count:,} small supersteps, each durable",
        {
            ours.NAME: _saved(graph, 0, "ray", count),
            INLINE: _saved(graph, 0, "inline", count),
            **_peers(lambda peer: peer.loop(functions.one_more, count), 0, count),
        },
        [Goal(ours.NAME, 1.0, "LangGraph, SQLite"), Goal(INLINE, 1.0, "LangGraph, SQLite")],
        note="In memory, LangGraph's supersteps survive no crash; it is here for scale.",
    )


def unchanged(quick: bool) -> Work:
    """C2: one array through many supersteps."""
    megabytes, count = (10, 4) if quick else (100, 10)
    array = functions.array_of(megabytes, 6)
    graph = ours.chain_of([ours.node_of(functions.same)] * count)
    return Work(
        "C2",
        f"one array of {megabytes} MB, unchanged over {count} supersteps, each durable",
        {
            ours.NAME: _saved(graph, array, "ray"),
            **_peers(lambda peer: peer.chain(functions.same, count), array),
        },
        [Goal(ours.NAME, 1.1 * megabytes, measure=WRITTEN)],
        note="Bytes are those of all files at the end; with keep_last=None nothing is deleted.",
    )


def long_chain(quick: bool) -> Work:
    """C3: the bytes of a long history."""
    count = 50 if quick else 1000
    graph = ours.chain_of([ours.node_of(functions.one_more)] * count)
    return Work(
        "C3",
        f"a chain of {count:,} supersteps with one integer, all history kept",
        {
            ours.NAME: _saved(graph, 0, "ray", count),
            INLINE: _saved(graph, 0, "inline", count),
            **_peers(lambda peer: peer.chain(functions.one_more, count), 0, count),
        },
        [Goal(ours.NAME, 3.0, measure=EACH), Goal(INLINE, 3.0, measure=EACH)],
        rounds=3,
        note="A file takes at least one block of the disk, whatever its length; both are told.",
    )


@node_action
def note_begin(state: State) -> State:
    """When this node began, and something of the array it got."""
    return State([time.time(), ends_of(state.messages[0])])


def restore(quick: bool) -> Work:
    """C4: from `resume` to the first node."""
    megabytes = 50 if quick else 1000

    @node_action
    def make(state: State) -> State:
        return State([functions.array_of(megabytes, 0)])

    graph = ours.chain_of([make, note_begin])
    kept = tempfile.TemporaryDirectory(prefix="graphorch-bench-")

    def prepare() -> Path:
        path = Path(kept.name) / "run"
        if not path.exists():
            executor = GraphExecutor(
                graph, State([0]), backend="ray", checkpoint_path=str(path), **DURABLE
            )
            try:
                executor.run(max_supersteps=2)  # `start` and the array; the last node is left
            except GraphExecutionError:
                pass
            else:
                raise AssertionError("the run was to stop before its last node")
        return path

    def resume() -> Measured:
        source = prepare()
        ours.run(
            ours.chain_of([ours.node_of(functions.one_more)]), State([0])
        )  # Ray and a worker are warm
        with tempfile.TemporaryDirectory(dir=kept.name) as place:
            path = shutil.copytree(source, Path(place) / "run", copy_function=os.link)
            began = time.time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GraphWarning)
                result = GraphExecutor.resume(str(path), graph, backend="ray").run()
            ended = time.time()
        assert result is not None
        first, ends = result.messages
        return Measured(ends, {SECONDS: ended - began, FIRST_NODE: first - began})

    return Work(
        "C4",
        f"resume from a local checkpoint of {megabytes:,} MB, on a warm Ray",
        {ours.NAME: resume},
        [Goal(ours.NAME, 2.0, measure=FIRST_NODE)],
        note="The files are in the system's page cache, as they are right after a crash.",
    )


WORKS: dict[str, Callable[[bool], Work]] = {
    "C1": arrays,
    "C2": unchanged,
    "C3": long_chain,
    "C4": restore,
    "W12": small_supersteps,
}
