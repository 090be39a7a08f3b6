"""Runs that stop and go on: newest, older, beside, failed, cancelled, changed, fenced."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import pkgutil
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray import (
    CheckpointConflictError,
    CheckpointData,
    CheckpointError,
    Graph,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    RetryPolicy,
    State,
    failpoints,
)
from graphorch_ray.checkpoint.store import Store
from tests.checkpoint.runs import Ledger, chain_of, steps

WHOLE = State(["in", "n1", "n2", "n3", "n4"])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "runs")


@pytest.fixture(params=["directory", "file"])
def form(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of each form."""
    return str(tmp_path / ("runs" if request.param == "directory" else "run.ckpt"))


def begun(graph: Graph, place: str, backend: Any, **options: Any) -> GraphExecutor:
    options = {"checkpoint_every": 1, "keep_last": None, **options}
    return GraphExecutor(graph, State(["in"]), checkpoint_path=place, backend=backend, **options)


def stopped(graph: Graph, place: str, backend: Any, supersteps: int, **options: Any) -> Any:
    """A run that has come so far, and no further; gives its executor."""
    executor = begun(graph, place, backend, **options)
    with pytest.raises(GraphExecutionError, match="supersteps"):
        executor.run(max_supersteps=supersteps)
    return executor


# --- going on -------------------------------------------------------------------------------------


def test_resume_goes_on_from_the_newest(backend: Any, form: str, ledger: Ledger) -> None:
    graph = steps(ledger)
    first = stopped(graph, form, backend, 3)
    assert ledger.nodes() == ["n1", "n2"]
    again = GraphExecutor.resume(form, graph, backend=backend)
    assert (again.run_id, again.superstep) == (first.run_id, 3)
    assert list(again.active_states) == ["n3"]
    assert again.run() == WHOLE
    assert ledger.nodes() == ["n1", "n2", "n3", "n4"], "nothing of a committed superstep ran twice"
    assert again.initial_state == State(["in"])


def test_a_finished_run_is_only_told_of(backend: Any, form: str, ledger: Ledger) -> None:
    graph = steps(ledger)
    assert begun(graph, form, backend).run() == WHOLE
    ledger.clear()
    before = CheckpointData.load(form).origin
    again = GraphExecutor.resume(form, graph, backend=backend)
    assert again.final_state == WHOLE
    assert again.run() == WHOLE
    assert ledger.nodes() == []
    assert CheckpointData.load(form).origin == before, "and nothing was written"


def test_a_failed_run_is_gone_on_with(
    backend: Any, form: str, ledger: Ledger, tmp_path: Path
) -> None:
    graph = steps(ledger, broken=f"n3:{tmp_path / 'mended'}")
    with pytest.raises(GraphExecutionError, match="n3 is broken"):
        begun(graph, form, backend).run()
    assert CheckpointData.load(form).status == "failed"
    (tmp_path / "mended").touch()
    assert GraphExecutor.resume(form, graph, backend=backend).run() == WHOLE
    assert ledger.nodes() == ["n1", "n2", "n3", "n3", "n4"]


def test_execute_again_after_a_failure_goes_on_in_the_same_line(
    backend: Any, place: str, ledger: Ledger, tmp_path: Path
) -> None:
    executor = begun(steps(ledger, broken=f"n3:{tmp_path / 'mended'}"), place, backend)
    with pytest.raises(GraphExecutionError, match="n3 is broken"):
        executor.run()
    (tmp_path / "mended").touch()
    assert executor.run() == WHOLE
    store = Store(place)
    assert store.lines() == ["000001"]
    told = [(info.kind, info.superstep) for info in store.checkpoints()]
    assert told == [
        *(("start", 0), ("superstep", 1), ("superstep", 2), ("superstep", 3), ("failure", 3)),
        *(("superstep", 4), ("superstep", 5), ("end", 6)),
    ]


async def test_a_cancelled_run_is_gone_on_with(backend: Any, form: str, ledger: Ledger) -> None:
    def slow(state: State) -> State:
        if ledger.note() == 1:
            time.sleep(30 if backend == "ray" else 1)
        return State([*state.messages, "slow"])

    def quick(state: State) -> State:
        ledger.note()
        return State([*state.messages, "quick"])

    graph = chain_of(("quick", quick), ("slow", slow))
    # Never due by the interval: what is cancelled records where it stands.
    running = asyncio.ensure_future(begun(graph, form, backend, checkpoint_every=100).execute())
    while "slow" not in ledger.nodes():
        await asyncio.sleep(0.02)
        assert not running.done()
    running.cancel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)  # inline, a thread is left to itself
        with pytest.raises(asyncio.CancelledError):
            await running
    again = GraphExecutor.resume(form, graph, backend=backend)
    assert list(again.active_states) == ["slow"]
    assert await again.execute() == State(["in", "quick", "slow"])
    assert ledger.nodes() == ["quick", "slow", "slow"]


def test_options_survive_a_resume(place: str, ledger: Ledger) -> None:
    policy = RetryPolicy(3, 0.5, 1.5, max_delay=9.0, jitter=0.25, retry_on=(OSError, KeyError))
    first = stopped(
        steps(ledger),
        place,
        "inline",
        2,
        max_workers=7,
        retry_policy=policy,
        allow_fallback_from_checkpoint=True,
        on_multiple_states="each",
        infrastructure_retries=5,
        keep_last=2,
        checkpoint_durability="sync",
        checkpoint_granularity="node",
        checkpoint_compression="zstd",
        on_checkpoint_error="warn",
    )
    again = GraphExecutor.resume(place, steps(ledger), backend="inline")
    kept = ("run_id", "branch", "max_workers", "retry_policy", "checkpoint_every", "superstep")
    more = ("allow_fallback_from_checkpoint", "on_multiple_states", "infrastructure_retries")
    for name in (*kept, *more, "_settings"):
        assert getattr(again, name) == getattr(first, name), name
    changed = GraphExecutor.resume(place, steps(ledger), backend="inline", keep_last=9)
    assert changed._settings["keep_last"] == 9


def test_a_relative_and_an_absolute_path_are_one_place(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stopped(steps(ledger), "runs", "inline", 2)
    chkpt = CheckpointData.load("runs")
    place = f"file://{tmp_path / 'runs'}"
    executor = GraphExecutor.from_checkpoint(chkpt, place, graph=steps(ledger), backend="inline")
    assert executor.run() == WHOLE
    assert Store(place).lines() == ["000001"]


# --- time travel ----------------------------------------------------------------------------------


def test_an_older_checkpoint_forks_and_the_old_one_stays(
    backend: Any, place: str, ledger: Ledger
) -> None:
    graph = steps(ledger)
    first = begun(graph, place, backend)
    assert first.run() == WHOLE
    keys = ledger.keys()
    ledger.clear()
    fork = GraphExecutor.resume(place, graph, superstep=3, backend=backend)
    assert fork.branch == "main"
    assert fork.run() == WHOLE
    assert ledger.nodes() == ["n3", "n4"]
    assert fork.run_id == first.run_id
    assert fork.branch.startswith("main/")
    for node in ("n3", "n4"):
        assert ledger.keys()[node] != keys[node], "a fork asks for its effects anew"
        assert f"/{fork.branch}/" in ledger.keys()[node]
    store = Store(place)
    assert store.lines() == ["000001", "000002"]
    header = store.line("000002").header
    assert (header.parent, header.branch) == (("000001", 4), fork.branch)
    assert CheckpointData.load(place, line="000001").status == "finished"
    assert CheckpointData.load(place, line="000001", superstep=1).superstep == 1
    assert list(store.line("000001").pins().values()) == [4], "what was forked from is kept"
    # The newest is the fork's now.
    assert CheckpointData.load(place).branch == fork.branch


def test_a_fork_that_is_broken_off_goes_on_with_its_own_keys(
    place: str, ledger: Ledger, tmp_path: Path
) -> None:
    graph = steps(ledger, broken=f"n4:{tmp_path / 'mended'}")
    with pytest.raises(GraphExecutionError, match="n4 is broken"):
        begun(graph, place, "inline").run()
    fork = GraphExecutor.resume(place, graph, superstep=2, backend="inline")
    with pytest.raises(GraphExecutionError, match="n4 is broken"):
        fork.run()
    key = ledger.keys()["n4"]
    (tmp_path / "mended").touch()
    again = GraphExecutor.resume(place, graph, backend="inline")
    assert again.branch == fork.branch
    assert again.run() == WHOLE
    assert ledger.keys()["n4"] == key


def test_idempotency_keys_are_the_same_over_a_resume(
    backend: Any, place: str, ledger: Ledger, tmp_path: Path
) -> None:
    graph = steps(ledger, broken=f"n3:{tmp_path / 'mended'}")
    with pytest.raises(GraphExecutionError, match="n3 is broken"):
        begun(graph, place, backend).run()
    key = ledger.keys()["n3"]
    (tmp_path / "mended").touch()
    GraphExecutor.resume(place, graph, backend=backend).run()
    assert ledger.keys()["n3"] == key


def test_a_superstep_that_is_not_there_is_an_error_that_lists_those_that_are(
    place: str, ledger: Ledger
) -> None:
    begun(steps(ledger), place, "inline", keep_last=2).run()
    with pytest.raises(CheckpointError, match=r"no checkpoint of superstep 2.*those of: 5, 6"):
        GraphExecutor.resume(place, steps(ledger), superstep=2)


# --- beside another run ---------------------------------------------------------------------------


def test_a_new_run_on_a_used_path_begins_beside_it(
    backend: Any, place: str, ledger: Ledger
) -> None:
    first = stopped(steps(ledger), place, backend, 3, keep_last=1)
    other = steps(ledger, count=2)
    second = begun(other, place, backend, keep_last=1)
    with pytest.warns(GraphWarning, match="is not finished") as caught:
        assert second.run() == State(["in", "n1", "n2"])
    (said,) = (str(w.message) for w in caught)
    assert first.run_id in said
    assert f"GraphExecutor.resume({place!r}" in said
    assert "line='000001'" in said, "the newest line is another one by now"
    old = CheckpointData.load(place, line="000001")
    assert (old.run_id, old.superstep) == (first.run_id, 3)
    again = GraphExecutor.resume(place, steps(ledger), line="000001", backend=backend)
    assert again.run() == WHOLE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert begun(other, place, backend).run() == State(["in", "n1", "n2"])
    assert Store(place).lines() == ["000001", "000002", "000003"]


def test_a_new_run_in_a_single_file_says_what_it_replaces(tmp_path: Path, ledger: Ledger) -> None:
    place = str(tmp_path / "run.ckpt")
    stopped(steps(ledger), place, "inline", 3)
    with pytest.warns(GraphWarning, match="takes its place. Give a directory"):
        begun(steps(ledger), place, "inline").run()


def test_what_a_crash_left_of_a_line_stands_in_nobodys_way(place: str, ledger: Ledger) -> None:
    first = stopped(steps(ledger), place, "inline", 3)
    (Path(place) / "lines/000002/b").mkdir(parents=True)
    torn = Path(place) / "lines/000003/line"
    torn.parent.mkdir()
    torn.write_bytes(b"torn")
    with pytest.warns(GraphWarning, match="Line 000003 .* is passed over"):
        again = GraphExecutor.resume(place, steps(ledger), backend="inline")
    assert again.run_id == first.run_id
    assert again.run() == WHOLE
    with pytest.warns(GraphWarning, match="Line 000003 .* is passed over"):
        assert begun(steps(ledger), place, "inline").run() == WHOLE


def test_a_header_that_was_torn_before_anything_was_committed_is_nothing(place: str) -> None:
    torn = Path(place) / "lines/000001/line"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    with pytest.warns(GraphWarning, match="passed over"), pytest.raises(FileNotFoundError):
        GraphExecutor.resume(place)


def test_where_no_line_can_be_read_the_error_says_why(place: str, ledger: Ledger) -> None:
    stopped(steps(ledger), place, "inline", 3, checkpoint_key="mine")
    with (
        pytest.warns(GraphWarning, match="signature"),
        pytest.raises(CheckpointError, match="signature was not made with this key"),
    ):
        GraphExecutor.resume(place, steps(ledger), checkpoint_key="another")


# --- another graph --------------------------------------------------------------------------------


def changed_graph(ledger: Ledger) -> Graph:
    def step(state: State) -> State:
        ledger.note()
        return State([*state.messages, "new"])

    return chain_of(("n1", step), ("n3", step), ("n5", step))


def test_a_changed_graph_is_refused_with_what_changed(place: str, ledger: Ledger) -> None:
    stopped(steps(ledger), place, "inline", 3)
    with pytest.raises(CheckpointError) as caught:
        GraphExecutor.resume(place, changed_graph(ledger), backend="inline")
    text = str(caught.value)
    for said in ("node 'n5' is new", "node 'n2' is gone", "options of node 'n3' changed"):
        assert said in text
    assert "allow_graph_change=True" in text


def test_a_change_that_is_allowed_lasts(form: str, ledger: Ledger) -> None:
    """What goes on with a changed graph is a line of its own, which tells of the new graph."""
    first = stopped(steps(ledger), form, "inline", 3)
    changed = GraphExecutor.resume(
        form, changed_graph(ledger), allow_graph_change=True, backend="inline"
    )
    with pytest.raises(GraphExecutionError, match="supersteps"):
        changed.run(max_supersteps=4)
    again = GraphExecutor.resume(form, changed_graph(ledger), backend="inline")
    assert (again.run_id, again.branch) == (first.run_id, first.branch)
    assert again.run() == State(["in", "n1", "n2", "new", "new"])
    with pytest.raises(CheckpointConflictError):
        first.run()
    if form.endswith("runs"):
        assert Store(form).line("000002").header.parent == ("000001", 6)
        assert len(Store(form).line("000001").pins()) == 1


def test_states_that_wait_at_a_node_that_is_gone_are_refused(place: str, ledger: Ledger) -> None:
    stopped(steps(ledger), place, "inline", 3)
    with pytest.raises(CheckpointError, match=r"waiting at \['n3'\]"):
        GraphExecutor.resume(place, steps(ledger, count=2), allow_graph_change=True)


# --- two drivers ----------------------------------------------------------------------------------


def files_in(place: str) -> dict[str, bytes]:
    path = Path(place)
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(f.relative_to(path.parent)): f.read_bytes() for f in found if f.is_file()}


def test_the_older_of_two_drivers_stops_and_has_changed_nothing(
    backend: Any, form: str, ledger: Ledger
) -> None:
    graph = steps(ledger)
    old = stopped(graph, form, backend, 2)
    new = GraphExecutor.resume(form, graph, backend=backend)
    with pytest.raises(GraphExecutionError, match="supersteps"):
        new.run(max_supersteps=3)
    there = files_in(form)
    with pytest.raises(CheckpointConflictError, match="Another process"):
        old.run()
    assert files_in(form) == there
    assert new.run() == WHOLE
    assert CheckpointData.load(form).status == "finished"


def test_a_checkpoint_that_a_single_file_no_longer_holds_is_a_conflict(
    tmp_path: Path, ledger: Ledger
) -> None:
    place = str(tmp_path / "run.ckpt")
    stopped(steps(ledger), place, "inline", 2)
    chkpt = CheckpointData.load(place)
    _ = chkpt.initial_state
    assert GraphExecutor.resume(place, steps(ledger), backend="inline").run() == WHOLE
    late = GraphExecutor.from_checkpoint(chkpt, place, graph=steps(ledger), backend="inline")
    with pytest.raises(CheckpointConflictError, match="single file keeps no other"):
        late.run()
    assert CheckpointData.load(place).status == "finished"


def test_who_wanted_the_newest_and_was_overtaken_is_told(place: str, ledger: Ledger) -> None:
    """To go on from what was the newest a moment ago would be to run committed supersteps again."""
    stopped(steps(ledger), place, "inline", 3)
    late = GraphExecutor.resume(place, steps(ledger), backend="inline")
    other = GraphExecutor.resume(place, steps(ledger), backend="inline")
    with pytest.raises(GraphExecutionError, match="supersteps"):
        other.run(max_supersteps=4)
    with pytest.raises(CheckpointConflictError, match=r"further .*line 000001, superstep 4"):
        late.run()
    assert Store(place).lines() == ["000001"]


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ("runs", "graphorch_ray.checkpoint.line.Line.claim"),
        ("run.ckpt", "graphorch_ray.checkpoint.single.SingleLine.claim"),
        ("run.ckpt", "graphorch_ray.checkpoint.single.SingleLine.take"),
    ],
)
def test_of_two_that_resume_one_goes_on_whatever_happens_as_it_claims(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, form: str, where: str
) -> None:
    """The first one commits at the very moment at which the second one claims."""
    place = str(tmp_path / form)
    stopped(steps(ledger), place, "inline", 3)
    late = GraphExecutor.resume(place, steps(ledger), backend="inline")
    first = GraphExecutor.resume(place, steps(ledger), backend="inline")
    owner, name = pkgutil.resolve_name(where.rpartition(".")[0]), where.rpartition(".")[2]
    claim, calls = getattr(owner, name), []

    def claimed_late(line: Any, *given: Any) -> Any:
        calls.append(line)
        if len(calls) == 1:
            with pytest.raises(GraphExecutionError, match="supersteps"):
                first.run(max_supersteps=4)
        return claim(line, *given)

    monkeypatch.setattr(owner, name, claimed_late)
    goes_on, stops = (late, first) if name == "take" else (first, late)
    if stops is late:
        with pytest.raises(CheckpointConflictError, match="further"):
            late.run()
    assert goes_on.run() == WHOLE
    assert ledger.nodes() == ["n1", "n2", "n3", "n4"]
    assert calls
    if stops is first:
        with pytest.raises(CheckpointConflictError, match="Another process"):
            first.run()
    assert CheckpointData.load(place).final_state == WHOLE


def resume_at_once(place: str, ledger: Ledger, start: Any, out: Any) -> None:
    """In a process of its own: load, wait for the others, and go on."""
    executor = GraphExecutor.resume(place, steps(ledger), backend="inline")
    start.wait(30)
    try:
        out.put(executor.run().messages)  # type: ignore[union-attr]
    except CheckpointConflictError as error:
        out.put(str(error))


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_of_two_processes_that_resume_at_once_one_commits(
    form: str, ledger: Ledger, durability: str
) -> None:
    stopped(steps(ledger), form, "inline", 3, checkpoint_durability=durability)
    context = multiprocessing.get_context("fork")
    start, out = context.Barrier(2), context.Queue()
    two = [
        context.Process(target=resume_at_once, args=(form, ledger, start, out)) for _ in range(2)
    ]
    for process in two:
        process.start()
    answers = [out.get(timeout=60) for _ in two]
    for process in two:
        process.join(30)
    assert answers.count(WHOLE.messages) == 1
    (told,) = (answer for answer in answers if answer != WHOLE.messages)
    assert "nother" in told
    assert CheckpointData.load(form).final_state == WHOLE
    if form.endswith("runs"):
        line = Store(form).line("000001")
        ended = [m for _, m in line.manifests() if m is not None and m.kind == "end"]
        assert len(ended) == 1


# --- a superstep's time-out -----------------------------------------------------------------------


@pytest.mark.parametrize("resumed", [False, True])
def test_E10_after_a_timeout_the_run_goes_on_from_its_checkpoint(
    backend: Any, form: str, ledger: Ledger, resumed: bool
) -> None:
    async def slow_once(state: State) -> State:
        if ledger.note() == 1:
            await asyncio.sleep(60)
        return State([*state.messages, "slow"])

    def quick(state: State) -> State:
        ledger.note()
        return State([*state.messages, "quick", b"x" * 100_000])

    graph = chain_of(("quick", quick), ("slow", slow_once))
    executor = begun(graph, form, backend, allow_fallback_from_checkpoint=True)
    if resumed:
        with pytest.raises(GraphExecutionError, match="supersteps"):
            executor.run(max_supersteps=2)
        executor = GraphExecutor.resume(form, graph, backend=backend)
    final = executor.run(superstep_timeout=1.5)
    assert final == State(["in", "quick", b"x" * 100_000, "slow"])
    assert ledger.nodes() == ["quick", "slow", "slow"]


def test_a_driver_that_cannot_read_a_strangers_place_goes_back_to_what_it_wrote_itself(
    ledger: Ledger, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own checkpoint needs no trust, wherever it lies."""

    async def slow_once(state: State) -> State:
        if ledger.note() == 1:
            await asyncio.sleep(60)
        return State([len(state.messages), state.messages[1](2)])

    def pickled(state: State) -> State:
        return State([*state.messages, lambda x: x + 1])

    monkeypatch.setattr("graphorch_ray.checkpoint.files.os.geteuid", lambda: 12345)
    graph = chain_of(("pickled", pickled), ("slow", slow_once))
    executor = begun(graph, place, "inline", allow_fallback_from_checkpoint=True)
    assert executor.run(superstep_timeout=1.0) == State([2, 3])
    assert ledger.nodes() == ["slow", "slow"]


# --- at any failpoint, in one process -------------------------------------------------------------


def test_a_driver_that_breaks_anywhere_while_it_begins_leaves_nothing_in_the_way(
    place: str, ledger: Ledger
) -> None:
    """Also while the graph and a large initial state are written, before the line has a header."""
    initial = State(["in", b"x" * 100_000])
    reached: list[str] = []

    class Broken(BaseException):
        pass

    def fresh() -> GraphExecutor:
        return GraphExecutor(
            steps(ledger), initial, checkpoint_path=place, checkpoint_every=1, backend="inline"
        )

    with failpoints.hook(reached.append), contextlib.suppress(GraphExecutionError):
        fresh().run(max_supersteps=1)
    assert reached.count("blob.before") >= 1
    for number in range(1, reached.index("manifest.after") + 2):
        left = [number]

        def crash(name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Broken(name)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GraphWarning)
            with failpoints.hook(crash), pytest.raises(Broken):
                fresh().run()
            final = GraphExecutor.resume(place, steps(ledger), backend="inline").run()
        assert final == State([*initial.messages, "n1", "n2", "n3", "n4"])
