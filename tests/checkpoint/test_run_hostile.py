"""Damaged and hostile checkpoint files: an error in plain words, or a checkpoint, nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import msgpack
import pytest

from graphorch_ray import CheckpointData, CheckpointError, GraphExecutionError, GraphExecutor, State
from graphorch_ray.checkpoint.manifest import seal, unseal
from graphorch_ray.checkpoint.single import _MAGIC, _PREFIX
from tests.checkpoint.test_encoding_hostile import MEMORY_TO_SPARE, mutated
from tests.checkpoint.test_golden_run import INITIAL, assert_all_same, graph

MUTATIONS = 10_000


def make_runs(folder: Path) -> list[Path]:
    """Checkpoints of every form, some with pickles; gives their places."""
    pickled = State([*INITIAL.messages, lambda: os._exit(66)])
    forms: list[tuple[str, State, dict[str, Any]]] = [
        ("plain", INITIAL, {"checkpoint_granularity": "node"}),
        ("compressed", INITIAL, {"checkpoint_compression": "zstd"}),
        ("pickled", pickled, {}),
        ("run.ckpt", INITIAL, {}),
        ("pickled.ckpt", pickled, {}),
    ]
    for name, state, options in forms:
        executor = GraphExecutor(
            graph(),
            state,
            checkpoint_path=str(folder / name),
            checkpoint_every=1,
            backend="inline",
            **options,
        )
        with pytest.raises(GraphExecutionError, match="supersteps"):
            executor.run(max_supersteps=2)
    return [folder / name for name, _, _ in forms]


def resealed(data: bytes, rng: random.Random) -> bytes:
    """Change what is in a file, and make its checksum anew: as somebody would who means harm."""
    for kind in (b"H", b"M"):
        if data.startswith(b"GOR" + kind):
            body, _ = unseal(kind, data, None, "")
            return seal(kind, mutated(body, rng), None, "")
    if not data.startswith(_MAGIC):
        return mutated(data, rng)
    _, length = _PREFIX.unpack_from(data)
    end = _PREFIX.size + length
    body, _ = unseal(b"S", data[_PREFIX.size : end], None, "")
    parts = msgpack.unpackb(body)
    at = rng.randrange(3)
    if at == 2:
        table = mutated(msgpack.packb(parts[2]), rng)
        try:
            parts[2] = msgpack.unpackb(table)
        except Exception:
            parts[2] = rng.choice([None, [[b"", -1]], [[b"x" * 32, 1 << 62]], {}])
    else:
        parts[at] = resealed(parts[at], rng)
    index = seal(b"S", msgpack.packb(parts), None, "")
    return _PREFIX.pack(_MAGIC, len(index)) + index + data[end:]


def read_all(place: Path, *, genuine: bool) -> None:
    """Load a checkpoint and everything in it; what is genuine and can be read must be right."""
    chkpt = CheckpointData.load(place)
    repr(chkpt)
    found = {}
    for name in ("initial_state", "active_states", "final_state", "retry_policy", "graph"):
        with contextlib.suppress(CheckpointError):
            found[name] = getattr(chkpt, name)
    if genuine:
        waiting = chained(*found.get("active_states", {}).values())
        for state in [*waiting, found.get("initial_state", INITIAL)]:
            assert_all_same(state.messages[:3], INITIAL.messages)
    GraphExecutor.from_checkpoint(chkpt, graph=graph(), allow_graph_change=True, backend="inline")


def chained(*lists: list[Any]) -> list[Any]:
    return [item for one in lists for item in one]


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """Mutate one file at a time, and read; gives how often what came of it."""
    rng = random.Random(seed)
    came: Counter[str] = Counter()
    places = make_runs(folder)
    with mock.patch("os.geteuid", return_value=os.geteuid() + 1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(count):
            at = rng.randrange(len(places))
            # Under another name, so that nothing is known of it from before.
            name = places[at].name.rpartition("-")[2]
            renamed = places[at] = places[at].rename(folder / f"{number}-{name}")
            files = [f for f in [renamed, *renamed.rglob("*")] if f.is_file()]
            file = rng.choice(files)
            data = file.read_bytes()
            genuine = rng.random() < 0.4
            replace_file(file, (mutated if genuine else resealed)(data, rng))
            try:
                read_all(renamed, genuine=genuine)
                came["loaded"] += 1
            except (CheckpointError, FileNotFoundError):
                came["refused"] += 1
            finally:
                replace_file(file, data)
    return came


def replace_file(file: Path, data: bytes) -> None:
    """Give the name to another file: the old one may be mapped."""
    other = file.with_name(file.name + ".new")
    other.write_bytes(data)
    other.rename(file)


def test_a_file_whose_checksum_is_right_and_whose_content_is_not(tmp_path: Path) -> None:
    came = fuzz(600, 1, tmp_path)
    assert came["refused"] > 50
    assert came["loaded"] > 50


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_10_000_mutated_checkpoint_files_under_a_memory_limit() -> None:
    """No crash, no hang, no unbounded memory, no code run."""
    code = f"from {__name__} import fuzz_under_limit; fuzz_under_limit(2)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded, refused = map(int, done.stdout.split())
    assert loaded + refused == MUTATIONS
    assert loaded > 500
    assert refused > 500


def fuzz_under_limit(seed: int) -> None:
    """Print how many loaded, and how many were refused."""
    with tempfile.TemporaryDirectory() as folder:
        fuzz(10, 0, Path(folder))  # all libraries are loaded, and their threads are there
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + MEMORY_TO_SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        came = fuzz(MUTATIONS, seed, Path(folder))
    print(came["loaded"], came["refused"])
