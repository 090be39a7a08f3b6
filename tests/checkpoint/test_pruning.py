"""What is kept, and what goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray.checkpoint.manifest import Header
from graphorch_ray.checkpoint.pruning import Entry, retained
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointError
from tests.checkpoint.conftest import Where
from tests.checkpoint.makers import step


def value(number: int) -> list[bytes]:
    return [b"%06d" % number * 100]


def seqs(where: Where, line: str = "000001") -> list[int]:
    return [seq for seq, _ in where.store().line(line).manifests()]


def test_the_newest_supersteps_are_kept_with_what_they_name(where: Where) -> None:
    line = where.store(keep_last=2).create_line(Header(run_id="7"))
    always, _ = line.blobs.put(value(99))
    blobs = []
    for superstep in range(5):
        blobs.append(line.blobs.put(value(superstep))[0])
        line.commit(step(superstep, blobs[-1], always))
        line.prune()
    assert seqs(where) == [4, 5]
    assert line.missing([*blobs, always]) == blobs[:3]
    for blob in (*blobs[3:], always):
        line.blobs.get(blob)


def test_keep_last_none_keeps_all(where: Where) -> None:
    line = where.store(keep_last=None).create_line(Header(run_id="7"))
    for superstep in range(5):
        line.commit(step(superstep))
        line.prune()
    assert seqs(where) == [1, 2, 3, 4, 5]


def test_parts_of_a_superstep_are_kept_until_it_is_complete(where: Where) -> None:
    line = where.store(keep_last=2).create_line(Header(run_id="7"))
    line.commit(step(0))
    for _ in range(4):
        line.commit(step(0, kind="partial"))
        line.prune()
    assert seqs(where) == [1, 4, 5]
    line.commit(step(1))
    line.prune()
    assert seqs(where) == [1, 6]


def test_a_pinned_checkpoint_is_never_pruned(where: Where) -> None:
    line = where.store(keep_last=1).create_line(Header(run_id="7"))
    blob, _ = line.blobs.put(value(0))
    line.commit(step(0, blob))
    line.pin("first / try .", 1)
    line.pin("first / try .", 1)
    for superstep in range(1, 4):
        line.commit(step(superstep))
        line.prune()
    assert seqs(where) == [1, 4]
    assert line.pins() == {"first / try .": 1}
    assert line.at(0).seq == 1
    line.blobs.get(blob)
    # A new owner keeps it, too, and lets it go when it is unpinned.
    new = where.store(keep_last=1).line("000001")
    new.claim()
    new.commit(step(5))
    new.prune()
    assert seqs(where) == [1, 5, 6]
    new.unpin("first / try .")
    new.commit(step(6))
    new.prune()
    assert seqs(where) == [5, 7]
    assert new.missing([blob]) == [blob]


def test_a_pin_is_refused_where_it_means_nothing(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7"))
    line.commit(step(0))
    line.commit(step(1))
    line.pin("a", 1)
    for name, seq, message in [
        ("a", 2, r"has a savepoint 'a' already \(manifest 1\)"),
        ("b", 9, "has no manifest 9 to pin"),
        ("", 1, "must have 1 to 200 bytes"),
        ("é" * 100, 1, "must have 1 to 200 bytes"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            line.pin(name, seq)
    line.pin("..", 1)
    assert line.pins() == {"a": 1, "..": 1}


def test_other_lines_are_never_touched(where: Where) -> None:
    store = where.store(keep_last=1, grace=0.0)
    first = store.create_line(Header(run_id="7"))
    blob, _ = first.blobs.put(value(0))
    first.commit(step(0, blob))
    orphan, _ = first.blobs.put(value(1))
    second = store.create_line(Header(run_id="8", parent=("000001", 1)))
    for superstep in range(4):
        second.commit(step(superstep, *([blob] if superstep == 0 else [])))
        second.prune()
    assert seqs(where) == [1]
    for kept in (blob, orphan):
        second.blobs.get(kept)


def test_pruning_follows_an_own_commit_only(where: Where) -> None:
    line = where.store(keep_last=1).create_line(Header(run_id="7"))
    for superstep in range(3):
        line.commit(step(superstep))
    other = where.store(keep_last=1).line("000001")
    other.prune()
    assert seqs(where) == [1, 2, 3]
    other.claim()
    other.prune()
    assert seqs(where) == [1, 2, 3, 4]
    other.commit(step(3))
    other.prune()
    assert seqs(where) == [4, 5]


def test_what_nobody_names_goes_after_the_grace_period(where: Where) -> None:
    old = where.store().create_line(Header(run_id="7"))
    orphan, _ = old.blobs.put(value(0))
    old.commit(step(0))
    line = where.store(keep_last=1, grace=60.0).line("000001")
    line.claim()
    early, _ = line.blobs.put(value(1))
    line.commit(step(1))
    line.prune()
    where.clock.advance(59)
    line.commit(step(2))
    line.prune()
    assert line.missing([orphan, early]) == []
    where.clock.advance(2)
    line.commit(step(3, early))
    line.prune()
    assert line.missing([orphan]) == [orphan]
    line.blobs.get(early)  # it was named in time


def test_what_a_crash_left_half_written_goes_after_the_grace_period(tmp_path: Path) -> None:
    now = [0.0]
    store = Store(tmp_path, keep_last=1, grace=60.0, clock=lambda: now[0])
    store.create_line(Header(run_id="7")).commit(step(0))
    left = tmp_path / "lines/000001/b/.tmp-1234-abc"
    left.parent.mkdir()
    left.write_bytes(b"half")
    line = store.line("000001")
    line.claim()
    line.commit(step(1))
    line.prune()
    assert left.exists()
    now[0] = 61.0
    line.commit(step(2))
    line.prune()
    assert not left.exists()


def test_a_reused_blob_that_was_pruned_under_us_is_found_and_written_again(where: Where) -> None:
    line = where.store(keep_last=1).create_line(Header(run_id="7"))
    line.commit(step(0, line.blobs.put(value(0))[0]))
    line.commit(step(1))
    blob, reused = line.blobs.put(value(0))
    assert reused
    line.prune()
    line.commit(step(2, blob))
    assert line.missing([blob, blob]) == [blob]
    assert line.blobs.put(value(0), force=True) == (blob, False)
    assert line.missing([blob]) == []


def test_a_blob_that_the_next_manifest_will_name_is_kept_when_asked(where: Where) -> None:
    line = where.store(keep_last=1).create_line(Header(run_id="7"))
    line.commit(step(0, line.blobs.put(value(0))[0]))
    line.commit(step(1))
    blob, _ = line.blobs.put(value(0))
    line.prune(keep=[blob])
    line.commit(step(2, blob))
    assert line.missing([blob]) == []


def test_the_blobs_of_the_header_are_kept(where: Where) -> None:
    from graphorch_ray.checkpoint.manifest import Stored

    store = where.store(keep_last=1, grace=0.0)
    line = store.create_line(lambda blobs: Header(run_id="7", graph=Stored(blobs.put([b"g"])[0])))
    line.commit(step(0))
    again = where.store(keep_last=1, grace=0.0).line("000001")
    again.claim()
    for superstep in range(1, 4):
        again.commit(step(superstep))
        again.prune()
    again.blobs.get(next(iter(line.header.blobs())))


def test_empty_directories_go(tmp_path: Path) -> None:
    line = Store(tmp_path, keep_last=1).create_line(Header(run_id="7"))
    line._next = 999
    for superstep in range(3):
        line.commit(step(superstep))
        line.prune()
    assert os.listdir(tmp_path / "lines/000001/m") == ["000001"]


entries = st.dictionaries(
    st.integers(1, 60),
    st.builds(Entry, st.integers(0, 8), st.booleans(), st.just(frozenset[str]())),
)


@given(entries, st.integers(1, 4))
def test_retained_is_the_newest_of_each_of_the_newest_supersteps(
    there: dict[int, Entry], keep_last: int
) -> None:
    kept = retained(there, keep_last)
    complete = [seq for seq in kept if there[seq].complete]
    assert len({there[seq].superstep for seq in complete}) == len(complete) <= keep_last
    if there:
        assert max(there) in kept
    for seq in kept:
        newer = [n for n, e in there.items() if n > seq and e.complete]
        if there[seq].complete:
            assert all(there[n].superstep != there[seq].superstep for n in newer)
            assert len({there[n].superstep for n in newer}) < keep_last
        else:
            assert not newer
    assert len(kept) - len(complete) <= keep_last
    # Taking away what is not kept changes nothing more.
    assert retained({seq: there[seq] for seq in kept}, keep_last) == kept
