"""What whole runs write: when, how often, how much, and what happens where it fails."""

from __future__ import annotations

import errno
import secrets
import threading
import warnings
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from graphorch_ray import (
    AggregatorNode,
    CheckpointData,
    CheckpointError,
    Graph,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    State,
    aggregator_action,
    checkpointing,
    failpoints,
    node_action,
)
from graphorch_ray.checkpoint.line import Line
from graphorch_ray.checkpoint.store import Store
from tests.checkpoint.runs import Ledger, chain_of, diamond, steps

MEGABYTE = 2**20

# Nodes that run inline may tell the test what they see.
pytestmark = pytest.mark.filterwarnings("ignore:Node .* changes the variable")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "runs")


def run(graph: Graph, place: str, backend: Any, state: State | None = None, **options: Any) -> Any:
    options = {"checkpoint_every": 1, "keep_last": None, **options}
    executor = GraphExecutor(
        graph, state or State(["in"]), checkpoint_path=place, backend=backend, **options
    )
    executor.run()
    return executor


def kinds(place: str) -> list[tuple[str, int]]:
    return [(info.kind, info.superstep) for info in Store(place).checkpoints()]


def blob_files(place: str) -> list[Path]:
    return sorted(Path(place).glob("lines/*/b/*"))


# --- when -----------------------------------------------------------------------------------------


def watching(place: str, seen: list[list[tuple[str, int]]]) -> Graph:
    """A chain of three whose nodes look at what is on disk when they run (inline)."""

    def look(state: State) -> State:
        seen.append(kinds(place))
        return state

    return chain_of(("a", look), ("b", look), ("c", look))


def test_sync_starts_nothing_before_the_checkpoint_is_there(place: str) -> None:
    seen: list[list[tuple[str, int]]] = []
    run(watching(place, seen), place, "inline", checkpoint_durability="sync")
    assert [there[-1] for there in seen] == [("superstep", n) for n in (1, 2, 3)]


def test_exit_writes_where_the_run_starts_and_ends_only(place: str) -> None:
    seen: list[list[tuple[str, int]]] = []
    options = {"checkpoint_durability": "exit", "checkpoint_granularity": "node"}
    run(watching(place, seen), place, "inline", **options)
    assert seen == [[("start", 0)]] * 3
    assert kinds(place) == [("start", 0), ("end", 5)]


def test_async_writes_while_the_next_superstep_runs(place: str) -> None:
    """Each checkpoint waits, in a slow store, until the node of the next superstep has run."""
    ran = threading.Condition()
    nodes = written = 0

    def note(state: State) -> State:
        nonlocal nodes
        with ran:
            nodes += 1
            ran.notify_all()
        return state

    def slow(name: str) -> None:
        nonlocal written
        if name == "manifest.before":
            with ran:
                assert ran.wait_for(lambda: nodes >= min(written, 4), 20)
            written += 1

    with failpoints.hook(slow):
        run(chain_of(*((f"n{i}", note) for i in range(4))), place, "inline")
    assert written == 7


def test_async_is_at_most_one_behind(place: str) -> None:
    behind: list[int] = []
    due, written = 1, 0  # the start
    slow = threading.Event()

    def hook(name: str) -> None:
        nonlocal due, written
        due += name == "barrier.after"
        written += name == "manifest.after"
        if name == "dispatch.before":
            behind.append(due - written)
        if name == "manifest.before":
            slow.wait(0.05)

    with failpoints.hook(hook):
        run(chain_of(*((f"n{i}", pass_on) for i in range(6))), place, "inline")
    assert max(behind) == 1


def pass_on(state: State) -> State:
    return state


def test_the_interval_says_when(place: str, ledger: Ledger) -> None:
    run(steps(ledger), place, "inline", checkpoint_every=2)
    assert kinds(place) == [("start", 0), ("superstep", 2), ("superstep", 4), ("end", 6)]


def test_keep_last_prunes(backend: Any, place: str) -> None:
    def grow(state: State) -> State:
        return State([np.full(20_000, state.messages[0][0] + 1)])

    graph = chain_of(*((f"n{i}", grow) for i in range(6)))
    executor = run(graph, place, backend, State([np.zeros(20_000)]), keep_last=2)
    assert executor.final_state.messages[0][0] == 6
    assert kinds(place) == [("superstep", 7), ("end", 8)]
    # The initial state's, and that of the newest two, which is one and the same.
    assert len(blob_files(place)) == 2
    assert CheckpointData.load(place).initial_state.messages[0][0] == 0


def test_a_run_in_which_nodes_are_kept_runs_only_the_unfinished_again(
    backend: Any, place: str, ledger: Ledger, tmp_path: Path
) -> None:
    def left(state: State) -> State:
        ledger.note()
        return State([*state.messages, "left"])

    def right(state: State) -> State:
        """Wait until the other node is kept, then break."""
        ledger.note()
        for _ in range(3000):
            if _newest_done(place) or (tmp_path / "mended").exists():
                break
            threading.Event().wait(0.01)
        if not (tmp_path / "mended").exists():
            raise ValueError("broken after left was kept")
        return State([*state.messages, "right"])

    graph = diamond(left, right)
    with pytest.raises(GraphExecutionError, match="after left was kept"):
        run(graph, place, backend, checkpoint_granularity="node")
    # As a crash would leave it: without the record of the failure.
    line = Store(place).line("000001")
    newest = line.newest()
    assert newest is not None
    assert newest.kind == "failure"
    (Path(place) / f"lines/000001/m/000000/{newest.seq:09d}").unlink()
    (tmp_path / "mended").touch()
    again = GraphExecutor.resume(place, graph, backend=backend)
    assert again.run() == State([["in", "a", "left"], ["in", "a", "right"]])
    assert sorted(ledger.nodes()) == ["left", "right", "right"]


def _newest_done(place: str) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        newest = Store(place).line("000001").newest()
    return newest.done if newest is not None else ()


# --- how much -------------------------------------------------------------------------------------


def fan(sinks: int) -> Graph:
    """start, one that makes a large value, many that pass it on, a join, end."""

    def make(state: State) -> State:
        return State([np.arange(MEGABYTE // 8) + state.messages[0]])

    def look(state: State) -> State:
        return State([float(state.messages[0][-1])])

    @aggregator_action
    def join(states: list[State]) -> State:
        return State([message for state in states for message in state.messages])

    builder = GraphBuilder("fan")
    builder.add_node(ProcessingNode("make", node_action(make)))
    builder.add_aggregator(AggregatorNode("join", join))
    builder.add_concrete_edge("start", "make")
    for number in range(sinks):
        builder.add_node(ProcessingNode(f"sink{number}", node_action(look)))
        builder.add_concrete_edge("make", f"sink{number}")
        builder.add_concrete_edge(f"sink{number}", "join")
    builder.add_concrete_edge("join", "end")
    return builder.build_graph()


def test_a_state_that_goes_to_eight_nodes_is_written_once(backend: Any, place: str) -> None:
    executor = run(fan(8), place, backend, State([1]))
    assert executor.final_state.messages == [float(MEGABYTE // 8)] * 8
    manifest = Store(place).line("000001").at(2)
    assert len(manifest.active) == 8
    assert {active.states for active in manifest.active} == {(0,)}
    assert len(manifest.states) == 1
    (blob,) = blob_files(place)
    assert MEGABYTE <= blob.stat().st_size < MEGABYTE + 4096


def test_a_large_value_that_stays_is_written_once(backend: Any, place: str) -> None:
    """Ten supersteps with an array that none of them changes: one copy of it in all."""

    def count(state: State) -> State:
        return State([state.messages[0] + 1, *state.messages[1:]])

    array = np.frombuffer(secrets.token_bytes(MEGABYTE))
    graph = chain_of(*((f"n{i}", count) for i in range(10)))
    executor = run(graph, place, backend, State([0, array]))
    assert executor.final_state.messages[0] == 10
    assert len(kinds(place)) == 13
    (blob,) = blob_files(place)
    whole = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    assert blob.stat().st_size <= whole < 1.1 * MEGABYTE


def test_a_manifest_does_not_grow_with_the_graph(tmp_path: Path, ledger: Ledger) -> None:
    sizes = []
    for count in (4, 150):
        place = tmp_path / str(count)
        with pytest.raises(GraphExecutionError, match="supersteps"):
            GraphExecutor(
                steps(ledger, count=count),
                State(["in"]),
                checkpoint_path=str(place),
                checkpoint_every=1,
                backend="inline",
            ).run(max_supersteps=3)
        newest = max((place / "lines/000001/m/000000").iterdir())
        sizes.append(newest.stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 16
    assert sizes[1] < 1000


def test_compressed_values_come_back(backend: Any, place: str) -> None:
    graph = chain_of(("a", pass_on), ("b", pass_on))
    state = State([np.zeros(MEGABYTE)])
    run(graph, place, backend, state, checkpoint_compression="zstd")
    (blob,) = blob_files(place)
    assert blob.stat().st_size < MEGABYTE
    assert (CheckpointData.load(place).final_state.messages[0] == 0).all()
    again = GraphExecutor.resume(place, graph, superstep=1, backend=backend)
    assert (again.run().messages[0] == state.messages[0]).all()


def test_memory_is_a_place(backend: Any) -> None:
    """On Ray, workers do not see it: the values come to the driver."""
    place = f"memory://{secrets.token_hex(8)}/run"

    def grow(state: State) -> State:
        return State([state.messages[0] + 1])

    graph = chain_of(("a", grow), ("b", grow))
    state = State([np.zeros(50_000)])
    executor = GraphExecutor(
        graph, state, checkpoint_path=place, checkpoint_every=1, backend=backend
    )
    with pytest.raises(GraphExecutionError, match="supersteps"):
        executor.run(max_supersteps=2)
    final = GraphExecutor.resume(place, graph, backend=backend).run()
    assert (final.messages[0] == 2).all()
    assert len(fsspec.filesystem("memory").ls(f"{place}/lines/000001/b")) == 3


# --- where it fails -------------------------------------------------------------------------------


def full_from(superstep: int) -> Any:
    """A disk that is full when the checkpoint before a superstep is written."""
    left = [superstep + 1]  # the start is one, too

    def hook(name: str) -> None:
        if name == "manifest.before":
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")

    return failpoints.hook(hook)


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_names_the_last_good_one(
    backend: Any, place: str, ledger: Ledger
) -> None:
    graph = steps(ledger)
    with (
        full_from(2),
        pytest.raises(CheckpointError, match=r"superstep 2 could not be written.*No space") as told,
    ):
        run(graph, place, backend)
    assert "The last good one is of superstep 1: go on from it" in str(told.value)
    again = GraphExecutor.resume(place, graph, backend=backend)
    assert again.superstep == 1
    assert again.run() == State(["in", "n1", "n2", "n3", "n4"])


def test_where_checkpoints_are_a_bonus_a_failure_is_told_once(
    backend: Any, place: str, ledger: Ledger
) -> None:
    graph = steps(ledger)
    with full_from(2), pytest.warns(GraphWarning, match="could not be written") as caught:
        executor = run(graph, place, backend, on_checkpoint_error="warn")
    assert executor.final_state == State(["in", "n1", "n2", "n3", "n4"])
    assert len(caught) == 1
    assert "The run goes on" in str(caught[0].message)
    assert CheckpointData.load(place).superstep == 1


@pytest.mark.parametrize("ending", ["runs", "run.ckpt"])
def test_where_checkpoints_are_a_bonus_a_place_that_cannot_be_written_is_told_and_done_without(
    backend: Any, tmp_path: Path, ledger: Ledger, ending: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    place = str(tmp_path / "file" / ending)
    with pytest.raises(CheckpointError):
        run(steps(ledger), place, backend)
    with pytest.warns(GraphWarning, match="The run goes on without") as caught:
        executor = run(steps(ledger), place, backend, on_checkpoint_error="warn")
    assert executor.final_state == State(["in", "n1", "n2", "n3", "n4"])
    assert len(caught) == 1


def test_a_value_that_goes_between_its_reuse_and_the_manifest_is_written_again(
    backend: Any, place: str
) -> None:
    """As when the owner before prunes it: it lay there when the value was to be written."""
    there: dict[Path, bytes] = {}
    put_back: list[Path] = []
    gone: list[Path] = []

    def flip(state: State) -> State:
        return State([1.0 - state.messages[0]])

    def meddle(name: str) -> None:
        if name == "prune.before":
            there.update({file: file.read_bytes() for file in blob_files(place)})
        elif name == "barrier.before":
            put_back[:] = [file for file in there if not file.exists()]
            for file in put_back:
                file.write_bytes(there[file])
        elif name == "manifest.before":
            gone.extend(put_back)
            for file in put_back:
                file.unlink()
            put_back.clear()

    graph = chain_of(*((f"n{i}", flip) for i in range(6)))
    options = {"checkpoint_durability": "sync", "keep_last": 1}
    with failpoints.hook(meddle):
        run(graph, place, backend, State([np.full(20_000, 3.0)]), **options)
    assert len(gone) >= 3
    assert CheckpointData.load(place).final_state.messages[0][0] == 3.0


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_disk_that_is_quick_is_written_to_without_a_thread_and_a_slow_one_never_is(
    place: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, durability: Any, quick: bool
) -> None:
    """The first commit is measured in a thread; each says how the next one is made."""
    monkeypatch.setattr(checkpointing, "QUICK_SECONDS", float("inf") if quick else 0.0)
    commit, beside = Line.commit, []

    def committed(self: Line, manifest: Any) -> Any:
        beside.append(threading.current_thread() is not threading.main_thread())
        return commit(self, manifest)

    monkeypatch.setattr(Line, "commit", committed)
    run(steps(ledger), place, "inline", checkpoint_durability=durability)
    assert len(beside) > 4
    assert all(beside[:1])
    assert all(beside[1:]) != quick
    assert any(beside[1:]) != quick
