"""Of several processes on one line, one goes on."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest

from graphorch_ray import failpoints
from graphorch_ray.checkpoint.line import Line
from graphorch_ray.checkpoint.manifest import Header
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointConflictError, CheckpointError, GraphWarning
from tests.checkpoint.conftest import Where
from tests.checkpoint.makers import step

WRITERS = 4


@pytest.fixture
def fenced(where: Where) -> Where:
    if not where.atomic:
        pytest.skip("two writers cannot be kept apart there; a warning says so")
    return where


def outcomes(calls: list[Any]) -> list[Any]:
    """Make calls in threads of their own, at once; return results or errors."""
    barrier = threading.Barrier(len(calls))
    found: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = calls[number]()
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_claim_fences_the_owner_before(where: Where) -> None:
    old = where.store().create_line(Header(run_id="7"))
    old.commit(step(0))
    new = where.store().line("000001")
    claimed = new.claim()
    assert (claimed.epoch, claimed.seq, claimed.superstep, claimed.kind) == (2, 2, 0, "claim")
    before = [seq for seq, _ in new.manifests()]
    for _ in range(2):
        with pytest.raises(CheckpointConflictError) as caught:
            old.commit(step(1))
    text = str(caught.value)
    assert "line 000001" in text
    assert f"epoch 2, {new.writer}" in text
    assert f"epoch 1, {old.writer}" in text
    assert "pid" in new.writer
    old.prune()
    assert [seq for seq, _ in new.manifests()] == before
    assert new.commit(step(1)).seq == 3


def test_a_line_that_is_not_claimed_cannot_be_written_to(where: Where) -> None:
    where.store().create_line(Header(run_id="7")).commit(step(0))
    with pytest.raises(CheckpointError, match="must be claimed"):
        where.store().line("000001").commit(step(1))


def test_a_line_without_a_checkpoint_cannot_be_claimed(where: Where) -> None:
    where.store().create_line(Header(run_id="7"))
    with pytest.raises(CheckpointError, match="no readable checkpoint to go on from"):
        where.store().line("000001").claim()


def test_of_racing_processes_that_resume_one_goes_on(fenced: Where) -> None:
    old = fenced.store().create_line(Header(run_id="7"))
    old.commit(step(0))
    for superstep in range(1, 6):
        lines = [fenced.store().line("000001") for _ in range(WRITERS)]

        def resume(line: Line, superstep: int = superstep) -> Any:
            line.claim()
            return line.commit(step(superstep))

        found = outcomes([lambda line=line: resume(line) for line in lines])
        won = [item for item in found if not isinstance(item, Exception)]
        lost = [item for item in found if isinstance(item, Exception)]
        assert all(isinstance(item, CheckpointConflictError) for item in lost), lost
        # One that claimed, committed and was done before another had begun is no race.
        newest = fenced.store().line("000001").newest()
        assert newest in won
        assert newest is not None
        still = [line for line in lines if line.writer == newest.writer]
        assert len(still) == 1
        for line in lines:
            if line not in still:
                with pytest.raises(CheckpointError):
                    line.commit(step(99))
        still[0].commit(step(superstep))


def test_of_racing_commits_of_one_number_one_lands(fenced: Where) -> None:
    owner = fenced.store().create_line(Header(run_id="7"))
    owner.commit(step(0))
    for superstep in range(1, 6):
        # Copies of one owner cannot be told apart by their place in the line, only by name.
        lines = []
        for _ in range(WRITERS):
            line = fenced.store().line("000001")
            line.epoch, line._next = 1, superstep + 1
            lines.append(line)
        ours = step(superstep)
        found = outcomes([lambda line=line, m=ours: line.commit(m) for line in lines])
        won = [item for item in found if not isinstance(item, Exception)]
        assert len(won) == 1, found
        assert sum(isinstance(item, CheckpointConflictError) for item in found) == WRITERS - 1
        assert fenced.store().line("000001").newest() == won[0]


def test_racing_processes_that_begin_lines_get_one_each(fenced: Where) -> None:
    fenced.store()
    found = outcomes([lambda: fenced.store().create_line(Header(run_id="7"))] * WRITERS)
    assert sorted(line.name for line in found) == [f"{n:06d}" for n in range(1, WRITERS + 1)]


def commit_one(url: str, options: dict[str, Any] | None, number: int, start: Any, out: Any) -> None:
    """In a process of its own: claim and commit, when told to."""
    line = Store(url, storage_options=options).line("000001")
    start.wait()
    try:
        line.claim()
        line.commit(step(number))
        out.put((number, ""))
    except CheckpointConflictError:
        out.put((number, "conflict"))


@pytest.mark.parametrize("where", ["local", "s3"], indirect=True)
def test_of_racing_processes_one_is_newest_and_the_others_are_told(where: Where) -> None:
    where.store().create_line(Header(run_id="7")).commit(step(0))
    context = multiprocessing.get_context("spawn")
    start, out = context.Event(), context.Queue()
    processes = [
        context.Process(target=commit_one, args=(where.url, where.options, number, start, out))
        for number in range(10, 10 + WRITERS)
    ]
    for process in processes:
        process.start()
    start.set()
    found = dict(out.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    newest = where.store().line("000001").newest()
    assert newest is not None
    assert found[newest.superstep] == ""
    # Nobody was told of success whose checkpoint is not there.
    there = {m.superstep for _, m in where.store().line("000001").manifests() if m}
    assert {number for number, told in found.items() if not told} <= there


def test_a_claim_loses_to_one_that_comes_between(where: Where) -> None:
    where.store().create_line(Header(run_id="7")).commit(step(0))
    first, second = where.store().line("000001"), where.store().line("000001")
    original = first._create

    def slow_create(manifest: Any) -> None:
        first._create = original  # type: ignore[method-assign]
        second.claim()
        first._create(manifest)

    first._create = slow_create  # type: ignore[method-assign]
    with pytest.raises(CheckpointConflictError, match="at the same time: epoch 2"):
        first.claim()
    second.commit(step(1))


def test_a_claim_goes_on_from_what_the_owner_commits_meanwhile(where: Where) -> None:
    owner = where.store().create_line(Header(run_id="7"))
    owner.commit(step(0))
    line = where.store().line("000001")
    original = line._create

    def slow_create(manifest: Any) -> None:
        line._create = original  # type: ignore[method-assign]
        owner.commit(step(1))
        line._create(manifest)

    line._create = slow_create  # type: ignore[method-assign]
    claimed = line.claim()
    assert (claimed.superstep, claimed.seq) == (1, 3)


def test_a_claim_is_not_fooled_by_numbers_that_were_pruned(where: Where) -> None:
    """The owner goes on so far, between our look and our claim, that our number is free again."""
    owner = where.store(keep_last=1).create_line(Header(run_id="7"))
    owner.commit(step(0))
    line = where.store().line("000001")
    original = line._create

    def slow_create(manifest: Any) -> None:
        line._create = original  # type: ignore[method-assign]
        for superstep in range(1, 6):
            owner.commit(step(superstep))
            owner.prune()
        assert [seq for seq, _ in owner.manifests()] == [6]
        line._create(manifest)

    line._create = slow_create  # type: ignore[method-assign]
    claimed = line.claim()
    assert (claimed.superstep, claimed.seq) == (5, 7)
    with pytest.raises(CheckpointConflictError):
        owner.commit(step(6))


def test_an_owner_that_slept_through_everything_is_still_fenced(where: Where) -> None:
    """However much the new owner has pruned, the old one's next number stays taken."""
    sleeper = where.store().create_line(Header(run_id="7"))
    sleeper.commit(step(0))
    for _ in range(2):
        line = where.store(keep_last=1).line("000001")
        line.claim()
        for superstep in range(1, 6):
            line.commit(step(superstep))
            line.prune()
    seqs = [seq for seq, _ in line.manifests()]
    assert seqs == [2, 8, 13]  # two fences and the newest
    assert [info.seq for info in where.store().checkpoints()] == [13]
    with pytest.raises(CheckpointConflictError):
        sleeper.commit(step(1))


def test_a_commit_whose_answer_was_lost_is_known_as_our_own(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7"))
    line.commit(step(0))
    line._next = 1  # as if the first answer had never come
    made = line.commit(step(1))
    assert made.seq == 2
    assert line.newest() == made


def test_a_torn_file_in_the_way_is_stepped_over_and_stays(where: Where) -> None:
    line = where.store(keep_last=1).create_line(Header(run_id="7"))
    line.commit(step(0))
    line._files.put("lines/000001/m/000000", [b"torn"], lambda: "000000002")
    with pytest.warns(GraphWarning, match=r"000000002' is passed over: it is torn"):
        made = line.commit(step(1))
    assert (made.seq, made.fences) == (3, (2,))
    for superstep in range(2, 5):
        line.commit(step(superstep))
        line.prune()
    assert line._files.names("lines/000001/m/000000") == ["000000002", "000000006"]


def test_a_manifest_of_another_key_is_another_owner(where: Where) -> None:
    ours = where.store(key="ours").create_line(Header(run_id="7"))
    ours.commit(step(0))
    theirs = where.store(key="theirs")
    with pytest.raises(CheckpointError, match="its signature was not made with this key"):
        theirs.line("000001")
    thief = where.store().line("000001")
    thief.claim()
    with pytest.raises(CheckpointConflictError):
        ours.commit(step(1))


def test_failpoints_are_reached_in_order(where: Where) -> None:
    seen: list[str] = []
    with failpoints.hook(seen.append):
        line = where.store(keep_last=1).create_line(Header(run_id="7"))
        line.blobs.put([b"x" * 100])
        line.commit(step(0))
        line.prune()
        where.store().line("000001").claim()
    assert seen == [
        *("blob.before", "blob.after", "manifest.before", "manifest.after"),
        *("prune.before", "prune.after", "claim.before", "claim.after"),
    ]
