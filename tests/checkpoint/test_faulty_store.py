"""A store that fails in every way it can: nothing is lost, nothing is doubled."""

from __future__ import annotations

import secrets
import warnings
from collections import Counter
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphorch_ray.checkpoint.manifest import Header, Manifest
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointConflictError, CheckpointError, GraphWarning
from graphorch_ray.policies import RetryPolicy
from graphorch_ray.testing import FakeClock, FaultyFileSystem
from tests.checkpoint.makers import step


def faulty(*schedule: str | None) -> FaultyFileSystem:
    return FaultyFileSystem(fsspec.filesystem("memory"), schedule)


def open_store(fs: Any, root: str, clock: FakeClock | None = None, **more: Any) -> Store:
    clock = clock or FakeClock()
    return Store(root, fs=fs, clock=clock.time, sleep=clock.advance, **more)


@pytest.fixture
def root() -> str:
    return f"/{secrets.token_hex(8)}"


@pytest.mark.parametrize("fault", ["before", "after", "unavailable", "throttled"])
def test_a_transient_fault_of_a_commit_is_waited_out(root: str, fault: str) -> None:
    fs, clock = faulty(), FakeClock(0.0)
    line = open_store(fs, root, clock).create_line(Header(run_id="7"))
    fs.plan([fault] * 3)
    made = line.commit(step(0))
    # After the first write has landed, the second is refused: it is read, and known as ours.
    assert fs.injected == {fault: 3} if fault != "after" else {fault: 1}
    assert line.newest() == made
    assert [seq for seq, _ in line.manifests()] == [1]
    fs.plan([])
    assert 0.1 <= clock.now <= 1.4


def test_waits_grow_and_end(root: str) -> None:
    waits: list[float] = []
    fs = faulty()
    retry = RetryPolicy(max_retries=3, delay=1.0, backoff=2.0, jitter=0.0)
    store = Store(root, fs=fs, retry=retry, sleep=waits.append)
    line = store.create_line(Header(run_id="7"))
    good = line.commit(step(0))
    fs.plan(["unavailable"] * 100)
    with pytest.raises(CheckpointError, match=r"Cannot write '.*000000002', 4 times: .*503"):
        line.commit(step(1))
    assert waits == [1.0, 2.0, 4.0]
    assert fs.injected == {"unavailable": 4}
    fs.plan([])
    assert line.newest() == good
    assert line.commit(step(1)).seq == 2


def test_an_ambiguous_write_is_known_as_ours_even_after_giving_up(root: str) -> None:
    fs, clock = faulty(), FakeClock()
    store = open_store(fs, root, clock, retry=RetryPolicy(max_retries=0))
    line = store.create_line(Header(run_id="7"))
    fs.plan(["after"])
    with pytest.raises(CheckpointError, match="no answer"):
        line.commit(step(0))
    assert fs.injected == {"after": 1}
    clock.advance(1.0)
    made = line.commit(step(0))
    assert made.seq == 2
    assert [m.writer for _, m in line.manifests() if m] == [line.writer] * 2


def test_a_torn_manifest_is_stepped_over(root: str) -> None:
    fs = faulty()
    line = open_store(fs, root).create_line(Header(run_id="7"))
    fs.plan(["torn"])
    with pytest.warns(GraphWarning, match=r"m/000000/000000001' is passed over: it is torn"):
        made = line.commit(step(0))
    assert fs.injected == {"torn": 1}
    assert (made.seq, made.fences) == (2, (1,))
    newest = open_store(fs, root).line("000001").newest()
    assert newest == made


def test_a_torn_blob_is_written_again(root: str) -> None:
    fs = faulty()
    line = open_store(fs, root).create_line(Header(run_id="7"))
    value = secrets.token_bytes(100_000)
    fs.plan([None, "torn"])
    blob, reused = line.blobs.put([value])
    assert (fs.injected, reused) == ({"torn": 1}, False)
    assert line.blobs.get(blob) == value


def test_a_stale_listing_does_not_hide_an_owner(root: str) -> None:
    fs = faulty()
    owner = open_store(fs, root).create_line(Header(run_id="7"))
    owner.commit(step(0))
    line = open_store(fs, root).line("000001")
    line.newest()
    owner.commit(step(1))
    fs.plan([None, "stale"])  # the groups, and what is in the group
    claimed = line.claim()
    assert fs.injected == {"stale": 1}
    assert (claimed.superstep, claimed.seq) == (1, 3)
    with pytest.raises(CheckpointConflictError):
        owner.commit(step(2))


def test_a_newest_that_cannot_be_read_now_is_not_taken_for_damaged(root: str) -> None:
    """Going on from the one before would run a committed superstep again."""
    fs = faulty()
    store = open_store(fs, root, retry=RetryPolicy(max_retries=1))
    line = store.create_line(Header(run_id="7"))
    for superstep in range(2):
        line.commit(step(superstep))
    fs.plan([None, None, "unavailable", "unavailable"])  # two listings, and then the manifest
    with pytest.raises(CheckpointError, match=r"Cannot read '.*000000002', 2 times: .*503"):
        line.newest()
    store.create_line(Header(run_id="8"))
    fs.plan([None, "unavailable", "unavailable"])
    with pytest.raises(CheckpointError, match=r"Cannot read '.*000002/line', 2 times"):
        store.newest_line()
    assert fs.injected == {"unavailable": 4}


def test_a_line_whose_header_is_damaged_is_passed_over(root: str) -> None:
    store = open_store(faulty(), root)
    store.create_line(Header(run_id="7"))
    store.place.files().create("lines/000002/line", b"torn")
    with pytest.warns(GraphWarning, match="Line 000002 .* is torn"):
        newest = store.newest_line()
    assert newest is not None
    assert newest.name == "000001"


def test_a_slow_store_is_only_slow(root: str) -> None:
    slept: list[float] = []
    fs = FaultyFileSystem(
        fsspec.filesystem("memory"), ["slow"] * 100, seconds=3.0, sleep=slept.append
    )
    line = open_store(fs, root).create_line(Header(run_id="7"))
    line.commit(step(0))
    assert slept == [3.0] * fs.injected["slow"]
    assert len(slept) >= 3


ANY_FAULT = st.sampled_from(
    [None, None, "before", "after", "torn", "unavailable", "throttled", "slow", "stale"]
)
ACTIONS = st.lists(
    st.sampled_from(["commit", "commit", "prune", "reopen", "rival", "blob", "pin"]),
    min_size=1,
    max_size=12,
)


class Expecting:
    """Counts what a schedule has handed out, on its own account."""

    def __init__(self, schedule: list[str | None]) -> None:
        self.schedule = schedule
        self.fs = FaultyFileSystem(fsspec.filesystem("memory"), (), sleep=lambda seconds: None)
        self.due: Counter[str] = Counter()

    def start(self) -> None:
        """Begin the schedule, counting a fault when it is raised or shows."""
        from graphorch_ray.testing.faults import FAULTS

        original = self.fs._before

        def before(operation: str) -> str | None:
            if self.schedule:
                fault = self.schedule.pop(0)
                self.fs.plan([fault])
                if fault in FAULTS[operation]:
                    self.due[fault] += 1
            return original(operation)

        self.fs._before = before  # type: ignore[method-assign]


@settings(max_examples=300)
@given(ACTIONS, st.lists(ANY_FAULT, max_size=60))
def test_nothing_is_lost_and_nothing_doubled(
    actions: list[str], schedule: list[str | None]
) -> None:
    """Whatever fails, what was committed is there, in order, and what is newest is what was last.

    A commit that raised may have landed, and must not have where another owner was in between.
    """
    root = f"/{secrets.token_hex(8)}"
    expecting = Expecting(schedule)
    fs = expecting.fs
    plain = fsspec.filesystem("memory")
    retry = RetryPolicy(max_retries=2, delay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)
        line = open_store(fs, root, retry=retry, keep_last=2).create_line(Header(run_id="7"))
        line.commit(step(0))
        expecting.start()
        committed = [0]  # supersteps, by whoever owned the line
        maybe: set[int] = set()
        named = []
        pinned: set[int] = set()
        for number, action in enumerate(actions, 1):
            try:
                if action == "commit":
                    line.commit(step(number))
                    committed.append(number)
                elif action == "blob":
                    blob, _ = line.blobs.put([b"%d" % (number % 3) * 100])
                    line.commit(step(number, blob))
                    if line.missing([blob]):
                        line.blobs.put([b"%d" % (number % 3) * 100], force=True)
                    committed.append(number)
                    named.append((number, blob))
                elif action == "prune":
                    line.prune()
                elif action == "pin":
                    newest = line.newest()
                    if newest is not None:
                        line.pin(f"p{newest.seq}", newest.seq)
                        pinned.add(newest.seq)
                else:
                    other = open_store(fs, root, retry=retry, keep_last=2).line("000001")
                    claimed = other.claim()
                    # What was promised is what the new owner goes on from, or something newer.
                    assert claimed.superstep >= committed[-1]
                    assert claimed.superstep == committed[-1] or claimed.superstep in maybe
                    if action == "rival":
                        with pytest.raises(CheckpointError):
                            line.commit(step(999))
                    line = other
                    if claimed.superstep != committed[-1]:
                        committed.append(claimed.superstep)
            except CheckpointError:
                if action in ("commit", "blob"):
                    maybe.add(number)
        assert fs.injected == expecting.due
        fs.plan([])
        expecting.schedule.clear()
        after = open_store(plain, root).line("000001")
        newest = after.newest()
        assert newest is not None
        assert newest.superstep == committed[-1] or newest.superstep in maybe
        assert newest.superstep >= committed[-1]
        there = [m for _, m in after.manifests() if m is not None and m.complete]
        supersteps = [m.superstep for m in there]
        assert supersteps == sorted(supersteps)
        assert len(set(supersteps)) == len(supersteps)
        assert set(supersteps) <= set(committed) | maybe
        assert set(committed[-2:]) <= set(supersteps)
        assert pinned <= {seq for seq, _ in after.manifests()}
        for superstep, blob in named:
            if superstep == newest.superstep:
                after.blobs.get(blob)


def test_every_prefix_of_the_writes_is_a_valid_store(root: str) -> None:
    """A crash between any two writes leaves a store whose newest checkpoint is the last written."""
    fs = faulty()
    line = open_store(fs, root, keep_last=2).create_line(Header(run_id="7"))
    last: list[tuple[int, Manifest | None]] = [(len(fs.writes), None)]
    values = [secrets.token_bytes(1000) for _ in range(3)]
    for superstep in range(6):
        blob, _ = line.blobs.put([values[superstep % 3]])
        made = line.commit(step(superstep, blob))
        last.append((len(fs.writes), made))
        line.prune()
        if superstep == 3:
            line = open_store(fs, root, keep_last=2).line("000001")
            last.append((len(fs.writes) + 1, line.claim()))
    memory = fsspec.filesystem("memory")
    assert len(fs.writes) >= 20
    seen = set()
    for end in range(len(fs.writes) + 1):
        copy = f"/{secrets.token_hex(8)}"
        for path, content in fs.writes[:end]:
            if content is None:
                memory.rm_file(copy + path.removeprefix(root))
            else:
                memory.pipe_file(copy + path.removeprefix(root), content)
        store = open_store(memory, copy)
        expected = [made for at, made in last if at <= end][-1:]
        found = store.newest_line()
        newest = found.newest() if found else None
        assert newest == (expected[0] if expected else None), end
        if newest is not None:
            assert found is not None
            seen.add(newest.seq)
            for blob in newest.blobs():
                found.blobs.get(blob)
    assert seen == set(range(1, 8))
