"""Lines of checkpoints: committed once, owned by one, found again."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from graphorch_ray.checkpoint.manifest import Active, Header, Manifest, Stored
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointConflictError


def step(superstep: int, *states: Stored) -> Manifest:
    return Manifest(
        kind="superstep",
        status="running",
        superstep=superstep,
        states=states or (Stored(b"x"),),
        active=(Active("a", (), (0,)),),
    )


def test_the_newest_commit_is_found_again(tmp_path: Path) -> None:
    line = Store(tmp_path / "run").create_line(Header(run_id="7"))
    for superstep in range(3):
        line.commit(step(superstep))
    again = Store(tmp_path / "run").newest_line()
    assert again is not None
    newest = again.newest()
    assert newest is not None
    assert (newest.superstep, newest.seq, newest.epoch) == (2, 3, 1)


def test_a_claim_fences_the_owner_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.create_line(Header(run_id="7"))
    old.commit(step(0))
    new = store.line("000001")
    assert new.claim().epoch == 2
    with pytest.raises(CheckpointConflictError, match="epoch 2"):
        old.commit(step(1))
    assert new.commit(step(1)).seq == 3


def test_blobs_travel_and_are_shared(tmp_path: Path) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    value = bytes(range(256)) * 40_000
    blob, reused = pickle.loads(pickle.dumps(line.blobs)).put([value[:1000], value[1000:]])
    assert not reused
    assert line.blobs.put([value]) == (blob, True)
    assert line.blobs.get(blob) == value
