"""The single-file form."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray.checkpoint.manifest import Blob, Header, Stored
from graphorch_ray.checkpoint.single import SingleStore, is_single
from graphorch_ray.errors import CheckpointConflictError, CheckpointError, GraphWarning
from tests.checkpoint.conftest import Where
from tests.checkpoint.makers import step

VALUE = bytes(range(256)) * 1000


def open_single(where: Where, **more: Any) -> SingleStore:
    return SingleStore(
        f"{where.url}.ckpt",
        storage_options=where.options,
        fs=where.fs,
        clock=where.clock.time,
        sleep=where.sleep,
        **more,
    )


@pytest.fixture
def where(where: Where) -> Where:
    with warnings.catch_warnings():  # that of a place where creating is not one step
        warnings.simplefilter("ignore", GraphWarning)
        assert open_single(where).place.files().atomic is where.atomic
    return where


def test_the_file_holds_the_newest_checkpoint_and_all_it_needs(where: Where) -> None:
    store = open_single(where)
    assert store.newest_line() is None
    assert store.lines() == []
    assert store.checkpoints() == []
    line = store.create_line(lambda b: Header(run_id="7", graph=Stored(b.put([b"graph"])[0])))
    assert line.newest() is None
    unchanged, _ = line.blobs.put([VALUE[:77], VALUE[77:]])
    for superstep in range(3):
        new, _ = line.blobs.put([b"%d" % superstep * 100])
        made = line.commit(step(superstep, unchanged, new))
        line.prune()
    again = open_single(where).newest_line()
    assert again is not None
    assert again.newest() == made == again.at(2)
    assert again.blobs.get(unchanged) == VALUE
    assert again.blobs.get(new) == b"2" * 100
    assert pickle.loads(pickle.dumps(line.blobs)).get(new) == b"2" * 100 or where.kind == "plain"
    assert not again.blobs.visible()
    graph = again.header.graph
    assert graph is not None
    assert isinstance(graph.document, Blob)
    assert bytes(again.blobs.get(graph.document)) == b"graph"
    assert [(i.seq, i.superstep) for i in store.checkpoints()] == [(3, 2)]
    with pytest.raises(CheckpointError, match="that of 2 only: a single file keeps the newest"):
        again.at(1)
    with pytest.raises(CheckpointError, match="Give a directory"):
        again.pin("a", 3)


def test_values_are_aligned_so_that_arrays_can_be_mapped(tmp_path: Path) -> None:
    line = SingleStore(tmp_path / "run.ckpt").create_line(Header(run_id="7"))
    values = [bytes([i + 1]) * (1000 + i) for i in range(3)]
    stored = [line.blobs.put([value])[0] for value in values]
    line.commit(step(0, *stored))
    content = (tmp_path / "run.ckpt").read_bytes()
    assert [content.index(value) % 64 for value in values] == [0, 0, 0]
    assert sorted(os.listdir(tmp_path)) == ["run.ckpt", "run.ckpt.claims"]


def test_a_claim_fences_the_owner_before(where: Where) -> None:
    old = open_single(where).create_line(Header(run_id="7"))
    old.commit(step(0))
    new = open_single(where).line()
    claimed = new.claim()
    assert (claimed.superstep, claimed.epoch) == (0, 2)
    for _ in range(2):
        with pytest.raises(CheckpointConflictError, match=r"epoch 2.*This one \(epoch 1"):
            old.commit(step(1))
    assert new.newest() == claimed or new.newest() is not None
    assert new.commit(step(1)).seq == 2


def test_a_commit_that_a_claim_overtakes_is_not_said_to_be_good(where: Where) -> None:
    old = open_single(where).create_line(Header(run_id="7"))
    old.commit(step(0))
    new = open_single(where).line()
    files: Any = old._files
    original = files.put

    def put(*arguments: Any) -> None:
        new.claim()
        original(*arguments)

    files.put = put
    with pytest.raises(CheckpointConflictError):
        old.commit(step(1))
    files.put = original
    made = new.commit(step(1))
    assert open_single(where).line().newest() == made


def test_a_new_run_in_the_same_file_fences_the_old_one(where: Where) -> None:
    old = open_single(where).create_line(Header(run_id="7"))
    old.commit(step(0))
    new = open_single(where).create_line(Header(run_id="8"))
    with pytest.raises(CheckpointConflictError):
        old.commit(step(1))
    assert open_single(where).line().header.run_id == "7"  # until the first commit
    new.commit(step(0))
    assert open_single(where).line().header.run_id == "8"


def test_of_two_that_claim_at_once_one_is_refused(where: Where) -> None:
    open_single(where).create_line(Header(run_id="7")).commit(step(0))
    line = open_single(where).line()
    open_single(where).line().claim()
    names = line._files.names
    line._files.names = lambda folder: names(folder)[:-1]  # type: ignore[method-assign]
    try:
        with pytest.raises(CheckpointConflictError, match=r"at the same time: .*pid"):
            line.claim()
    finally:
        line._files.names = names  # type: ignore[method-assign]


def test_a_run_at_rest_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    line = SingleStore(tmp_path / "run.ckpt").create_line(Header(run_id="7"))
    line.commit(step(0))
    line.release()
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]
    line.commit(step(1))  # it goes on, if nobody else has been there
    line.release()
    newer = SingleStore(tmp_path / "run.ckpt").line()
    newer.claim()
    newer.commit(step(2))
    newer.release()
    with pytest.raises(CheckpointConflictError, match="since this run was there last"):
        line.commit(step(2))
    assert SingleStore(tmp_path / "run.ckpt").line().newest() is not None


def test_an_owner_whose_claim_was_cleared_away_stops(tmp_path: Path) -> None:
    old = SingleStore(tmp_path / "run.ckpt").create_line(Header(run_id="7"))
    old.commit(step(0))
    new = SingleStore(tmp_path / "run.ckpt").line()
    new.claim()
    new.commit(step(1))
    new.release()
    with pytest.raises(CheckpointConflictError):
        old.commit(step(1))


def test_values_wait_for_two_commits_and_no_longer(tmp_path: Path) -> None:
    line = SingleStore(tmp_path / "run.ckpt").create_line(Header(run_id="7"))
    late, _ = line.blobs.put([b"late"])
    never, _ = line.blobs.put([b"never"])
    line.commit(step(0))
    line.commit(step(1, late))
    assert bytes(line.blobs.get(late)) == b"late"
    line.commit(step(2))
    with pytest.raises(CheckpointError, match="is not in"):
        line.blobs.get(never)


def test_signatures_hold_for_single_files_too(where: Where) -> None:
    open_single(where, key="k").create_line(Header(run_id="7")).commit(step(0))
    signed = open_single(where, key="k")
    manifest = signed.line().newest()
    assert manifest is not None
    assert signed.trusted(manifest)
    with pytest.raises(CheckpointError, match="signature"):
        open_single(where, key="other").line()


@pytest.mark.parametrize("content", [b"", b"\x80\x05K\x01.", b"GORCKPT\n", b"x" * 100_000])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.pkl' is not a checkpoint that can be read"):
        SingleStore(tmp_path / "run.pkl").newest_line()


@given(st.data())
def test_a_damaged_file_is_an_error_or_right(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("single") / "run.ckpt"
    line = SingleStore(path).create_line(Header(run_id="7"))
    blob, _ = line.blobs.put([VALUE[:3000]])
    made = line.commit(step(0, blob))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        again = SingleStore(path).line()
        assert again.newest() == made
        assert again.blobs.get(blob) == VALUE[:3000]


@pytest.mark.parametrize(
    ("url", "single"),
    [("run.ckpt", True), ("s3://b/x.pkl", True), ("run", False), ("a.ckpt/run", False)],
)
def test_the_ending_says_which_form_it_is(url: str, single: bool) -> None:
    assert is_single(url) is single
