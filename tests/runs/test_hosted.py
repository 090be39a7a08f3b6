"""Runs hosted on Ray: what a handle gives, and what becomes of a run whose driver dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import graphorch_ray
from graphorch_ray import (
    CheckpointError,
    ClusterConnectionError,
    GraphExecutionError,
    GraphExecutor,
    ProcessingNode,
    ResourceRequestError,
    RetryPolicy,
    RunCancelledError,
    RunExistsError,
    RunLostError,
    RunNotFoundError,
    SerializationError,
    State,
    get_run,
    list_runs,
    node_action,
)
from graphorch_ray.runs.cluster import Notes
from graphorch_ray.testing import FakeClock
from tests.runtime.nodes import chain, echo
from tests.s3_server import BUCKET

from .nodes import kill_driver, ledger, step, steps, until

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore:The Ray that the run is hosted on was started by this"),
]


def end_all_runs():
    import ray
    from ray._private.state import actors

    for named in ray.util.list_named_actors(all_namespaces=True):
        if named["namespace"] == "graphorch_ray":
            ray.kill(ray.get_actor(**named))
    for actor in actors().values():
        if actor["ActorClassName"] == "HostedRun":
            Notes(actor["ActorID"]).remove()
    until(lambda: not ray.util.list_named_actors(all_namespaces=True), "they are gone")


@pytest.fixture(autouse=True)
def no_other_runs(ray_session):
    """A cluster with no runs but the test's own."""
    end_all_runs()
    yield
    end_all_runs()


def executor(tmp_path, *, count=4, stored=True, **options):
    if stored:
        options = {"checkpoint_path": str(tmp_path / "run"), "checkpoint_every": 1, **options}
    return GraphExecutor(steps(count), State([str(tmp_path)]), **options)


def gate(folder: Path, superstep: int) -> Path:
    path = folder / f"gate-{superstep}"
    path.touch()
    return path


# --- what a handle gives --------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
async def test_a_hosted_run_gives_what_execute_would(tmp_path, stored):
    opened = gate(tmp_path, 2)
    handle = executor(tmp_path, stored=stored).submit(name="nightly")
    until(lambda: handle.status().superstep == 2, "it reaches the gate")
    status = handle.status()
    assert status == get_run("nightly").status()
    assert (status.name, status.state, status.graph) == ("nightly", "running", "chain")
    assert (status.active_nodes, status.restarts, status.ended) == (("step2",), 0, None)
    assert status.checkpoint_path == (str(tmp_path / "run") if stored else None)
    assert abs(status.started - time.time()) < 60
    assert [run.name for run in list_runs()] == ["nightly"]
    with pytest.raises(TimeoutError, match="'nightly' is not over yet"):
        handle.result(timeout=0.1)
    assert handle.wait(timeout=0.1).state == "running"
    opened.unlink()
    assert await handle == State([str(tmp_path), 1, 2, 3, 4])
    assert get_run("nightly").result() == handle.result()
    status = handle.wait()
    assert (status.state, status.active_nodes, status.error) == ("finished", (), None)
    assert status.ended >= status.started
    names = [event.name for event in handle.events()]
    assert (names[0], names[-1]) == ("execution_start", "execution_complete")
    assert [event.name async for event in get_run("nightly").events()] == names
    assert [event.name for event in handle.events(since="now")] == []


@node_action
def refuse(state: State) -> State:
    raise ValueError("no luck", 7)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_the_exception_of_a_node_is_raised_as_execute_raises_it(tmp_path, stored):
    path = {"checkpoint_path": str(tmp_path)} if stored else {}
    graph = chain(ProcessingNode("refuse", refuse))
    handle = GraphExecutor(graph, State(), retry_policy=RetryPolicy(1, 0), **path).submit()
    with pytest.raises(GraphExecutionError, match="at node 'refuse'") as hosted:
        handle.result()
    with pytest.raises(GraphExecutionError) as here:
        GraphExecutor(graph, State(), retry_policy=RetryPolicy(1, 0)).run()
    for raised in (hosted.value, here.value):
        assert (type(raised.__cause__), raised.__cause__.args) == (ValueError, ("no luck", 7))
        assert (raised.node_id, raised.attempt, raised.superstep) == ("refuse", 1, 1)
        assert "in refuse" in raised.__notes__[0]
    status = handle.status()
    assert (status.state, status.error) == ("failed", str(here.value))
    assert status.active_nodes == ("refuse",)


def test_a_paused_run_waits_at_its_barrier_until_it_is_resumed(tmp_path):
    opened = gate(tmp_path, 1)
    handle = executor(tmp_path).submit()
    until(lambda: ledger(tmp_path) == [1], "it is in the first node")
    handle.pause()
    assert handle.status().state == "running", "what runs is brought to its end first"
    opened.unlink()
    until(lambda: handle.status().state == "paused", "it is held at the barrier")
    assert handle.status().superstep == 2
    assert kill_driver(handle) == 0
    until(lambda: handle.status().restarts == 1, "its driver is replaced")
    until(lambda: handle.status().state == "paused", "it is paused still")
    handle.resume()
    assert handle.result(timeout=60) == State([str(tmp_path), 1, 2, 3, 4])


def test_a_cancelled_run_stops_and_says_so(tmp_path):
    gate(tmp_path, 2)
    handle = executor(tmp_path).submit(name="cancelled")
    until(lambda: 2 in ledger(tmp_path), "it is in the second node")
    assert handle.cancel().state == "cancelled"
    with pytest.raises(RunCancelledError, match="Run 'cancelled' was cancelled"):
        handle.result()
    assert handle.cancel().state == "cancelled", "twice is as good as once"
    kill_driver(handle)
    until(lambda: handle.status().restarts == 1, "its driver is replaced")
    assert handle.wait(timeout=60).state == "cancelled", "a new driver does not go on with it"
    (tmp_path / "gate-2").unlink()
    again = GraphExecutor.resume(str(tmp_path / "run"), backend="inline")
    assert again.run() == State([str(tmp_path), 1, 2, 3, 4])


# --- drivers that die -----------------------------------------------------------------------------


def test_a_driver_that_dies_is_replaced_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    opened = gate(tmp_path, 3)
    large = np.ones(2_000_000)
    graph = chain(
        *(ProcessingNode(f"step{i}", step) for i in range(1, 5)),
        ProcessingNode("large", node_action(lambda s: State([*s.messages, float(large.sum())]))),
    )
    run = GraphExecutor(
        graph,
        State([str(tmp_path)]),
        retry_policy=RetryPolicy(1, 0, retry_on=OurError),
        checkpoint_path=str(tmp_path / "run"),
        checkpoint_every=1,
        checkpoint_durability="sync",
    )
    handle = run.submit(name="replaced")
    until(lambda: 3 in ledger(tmp_path), "it is in the third node")
    assert kill_driver(handle) == 0
    until(lambda: ledger(tmp_path).count(3) == 2, "the superstep that was not over runs again")
    opened.unlink()
    assert handle.result(timeout=60) == State([str(tmp_path), 1, 2, 3, 4, 2e6])
    assert handle.status().restarts == 1
    assert ledger(tmp_path) == [1, 2, 3, 3, 4], "nothing that is committed runs twice"
    kill_driver(handle)
    assert handle.result(timeout=60).messages[-1] == 2e6, "the result outlives a driver too"
    assert ledger(tmp_path) == [1, 2, 3, 3, 4]


class OurError(Exception):
    pass


def test_a_driver_is_given_ids_and_not_the_graph_or_the_state(tmp_path, monkeypatch):
    import cloudpickle

    from graphorch_ray.runs import submit

    given = []

    class Recorder:
        def options(self, **options):
            return self

        def remote(self, *arguments):
            given.extend(arguments)
            raise InterruptedError

    monkeypatch.setattr(submit, "hosted_run", Recorder)
    large = np.ones(1_000_000)
    graph = chain(ProcessingNode("n", node_action(lambda s: State([large.sum()]))))
    run = GraphExecutor(graph, State([large]), checkpoint_path=str(tmp_path))
    with pytest.raises(InterruptedError):
        run.submit()
    assert len(cloudpickle.dumps(given)) < 10_000
    assert run.run() == State([1e6]), "a run that was not handed over may be run here"


@pytest.mark.parametrize("stored", [True, False])
def test_a_driver_runs_nodes_in_what_the_executor_was_told(tmp_path, monkeypatch, stored):
    from graphorch_ray.runs import submit
    from graphorch_ray.runs.assignment import executor_of

    made = []

    class Recorder:
        def options(self, **options):
            return self

        def remote(self, *arguments):
            made.append(executor_of(*arguments))
            raise InterruptedError

    monkeypatch.setattr(submit, "hosted_run", Recorder)
    with pytest.raises(InterruptedError):
        executor(tmp_path, stored=stored, pool="actors").submit()
    assert [run.pool for run in made] == ["actors"]


def test_a_driver_without_a_store_is_not_replaced_and_the_handle_says_what_is_lost(tmp_path):
    gate(tmp_path, 2)
    handle = executor(tmp_path, stored=False).submit(name="lost")
    until(lambda: 2 in ledger(tmp_path), "it is in the second node")
    kill_driver(handle)
    with pytest.raises(RunLostError, match="graph and states were nowhere else") as raised:
        handle.result(timeout=60)
    assert "checkpoint_path" in str(raised.value)
    for one in (handle.status(), get_run("lost").status(), *list_runs()):
        assert (one.name, one.state, one.error) == ("lost", "lost", str(raised.value))
        assert one.run_id
        assert one.is_over
    with pytest.raises(RunLostError):
        handle.pause()
    with pytest.raises(RunLostError):
        list(handle.events())


@pytest.mark.chaos  # with the others it would take the suite too long
def test_when_the_budget_is_spent_the_handle_says_how_to_go_on(tmp_path):
    opened = gate(tmp_path, 2)
    handle = executor(tmp_path, checkpoint_durability="sync").submit(name="spent", max_restarts=1)
    until(lambda: ledger(tmp_path).count(2) == 1, "it is in the second node")
    assert kill_driver(handle) == 0
    until(lambda: ledger(tmp_path).count(2) == 2, "it is there again")
    assert kill_driver(handle) == 1
    with pytest.raises(RunLostError, match="replaced 1 times at most") as raised:
        handle.result(timeout=60)
    opened.unlink()
    told = str(raised.value).partition("go on with ")[2].partition(". Ray says")[0]
    again = eval(told, {"GraphExecutor": GraphExecutor})
    assert again.run() == State([str(tmp_path), 1, 2, 3, 4])
    assert ledger(tmp_path) == [1, 2, 2, 2, 3, 4]


@pytest.mark.chaos  # with the others it would take the suite too long
def test_on_s3_a_driver_trusts_what_its_client_signed_and_nobody_else_does(tmp_path, s3):
    path = f"s3://{BUCKET}/{tmp_path.name}"
    keys = {"key": os.environ["AWS_ACCESS_KEY_ID"], "secret": os.environ["AWS_SECRET_ACCESS_KEY"]}
    options = {**s3.options, **keys}  # the cluster was started without them
    opened = gate(tmp_path, 2)

    class Odd:  # no plain data: a state that holds one is a pickle
        def __reduce__(self):
            return int, (7,)

    graph = chain(
        ProcessingNode("odd", node_action(lambda s: State([*s.messages, [Odd()]]))),
        ProcessingNode("step2", step),
    )
    run = GraphExecutor(
        graph,
        State([str(tmp_path)]),
        checkpoint_path=path,
        checkpoint_every=1,
        checkpoint_durability="sync",
        storage_options=options,
    )
    handle = run.submit()
    until(lambda: 2 in ledger(tmp_path) or handle.status().is_over, "it is in the second node")
    assert handle.status().error is None
    kill_driver(handle)
    until(lambda: ledger(tmp_path) == [2, 2], "another driver goes on")
    opened.unlink()
    assert handle.result(timeout=60) == State([str(tmp_path), [7], 2])
    assert handle.status().checkpoint_path == path
    with pytest.raises(CheckpointError, match="valid signature"):
        GraphExecutor.resume(path, storage_options=options)


# --- what is left ---------------------------------------------------------------------------------


def test_when_the_time_is_over_nothing_is_left_but_what_the_store_has(tmp_path):
    import ray
    from ray.experimental.internal_kv import _internal_kv_list

    handle = executor(tmp_path, count=1).submit(name="brief", keep_result=2)
    found = get_run("brief")
    assert handle.wait(timeout=60).state == "finished"
    until(lambda: not ray.util.list_named_actors(all_namespaces=True), "its driver leaves")
    assert handle.status().state == "finished", "it knows what it was told"
    assert handle.result() == State([str(tmp_path), 1]), "it is in the store"
    with pytest.raises(RunNotFoundError, match="its result was kept"):
        found.status()
    with pytest.raises(RunNotFoundError, match="these runs: none"):
        get_run("brief")
    assert list_runs() == []
    assert _internal_kv_list("", namespace=b"graphorch_ray") == []


@pytest.mark.chaos  # with the others it would take the suite too long
def test_without_a_store_the_result_goes_with_the_driver(tmp_path):
    import ray

    handle = executor(tmp_path, count=1, stored=False).submit(name="brief", keep_result=0.5)
    until(lambda: not ray.util.list_named_actors(all_namespaces=True), "its driver leaves")
    with pytest.raises(RunNotFoundError, match=r"kept for the 0\.5 s that were asked for"):
        handle.result()


# --- where a run may begin ------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_a_run_that_failed_here_goes_on_in_the_cluster(tmp_path, stored):
    @node_action
    def blocked(state):
        if Path(state.messages[0], "blocked").exists():
            raise ValueError("blocked")
        return state

    (tmp_path / "blocked").touch()
    graph = chain(ProcessingNode("step1", step), ProcessingNode("blocked", blocked))
    path = {"checkpoint_path": str(tmp_path / "run")} if stored else {}
    run = GraphExecutor(graph, State([str(tmp_path)]), backend="inline", **path)
    with pytest.raises(GraphExecutionError, match="blocked"):
        run.run()
    (tmp_path / "blocked").unlink()
    assert run.submit().result(timeout=60) == State([str(tmp_path), 1])
    assert ledger(tmp_path) == [1]
    with pytest.raises(RuntimeError, match="running already"):
        run.run()


def test_a_run_that_was_resumed_goes_on_in_the_cluster_with_the_graph_that_is_given(tmp_path):
    path = str(tmp_path / "run")
    first = GraphExecutor(
        steps(2), State([str(tmp_path)]), checkpoint_path=path, checkpoint_every=1
    )
    first.backend = "inline"
    with pytest.raises(GraphExecutionError, match="Max supersteps"):
        first.run(max_supersteps=2)
    graph = steps(2)
    handle = GraphExecutor.resume(path, graph, backend="inline").submit()
    assert handle.wait(timeout=60).run_id == first.run_id
    assert handle.result(timeout=60) == State([str(tmp_path), 1, 2])
    assert ledger(tmp_path) == [1, 2]


# --- wrong use ------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_told_at_once(tmp_path):
    executor(tmp_path, count=1, stored=False).submit(name="one")
    path = str(tmp_path / "other")
    other = GraphExecutor(steps(1), State([str(tmp_path)]), checkpoint_path=path)
    with pytest.raises(RunExistsError, match="a run named 'one' already"):
        other.submit(name="one")
    assert not Path(path).exists()
    with pytest.raises(RunNotFoundError, match=r"no run named 'two': .* these runs: 'one'"):
        get_run("two")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ({"max_restarts": 2}, {}, ValueError, "max_restarts=2 needs a checkpoint_path"),
        ({"max_restarts": -1}, {}, ValueError, "max_restarts must be at least 0"),
        ({"keep_result": -1}, {}, ValueError, "keep_result must be seconds"),
        ({"name": 7}, {}, TypeError, "name must be text"),
        ({"name": " "}, {}, ValueError, "printable"),
        ({"actor_options": {"lifetime": None}}, {}, ValueError, "actor_options has no 'lifetime'"),
        ({"actor_options": {"num_cpus": "x"}}, {}, TypeError, "num_cpus"),
        ({"actor_options": {"resources": {"moon": 1}}}, {}, ResourceRequestError, "'moon': 1"),
        ({"actor_options": {"label_selector": {"zone": "x"}}}, {}, ResourceRequestError, "zone"),
        ({"max_supersteps": -1}, {}, ValueError, "max_supersteps"),
        ({}, {"clock": FakeClock()}, ValueError, "the cluster's time"),
        ({}, {"checkpoint_path": "memory://x"}, CheckpointError, "'memory://x' is this process's"),
        ({}, {"checkpoint_path": "/proc/no"}, CheckpointError, "/proc/no"),
    ],
)
def test_wrong_arguments_are_named_before_any_work(tmp_path, arguments, options, error, said):
    run = GraphExecutor(steps(1), State([str(tmp_path)]), **options)
    with pytest.raises(error, match=said):
        run.submit(**arguments)
    assert list_runs() == []


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_a_graph_that_cannot_travel_is_named_before_any_work(tmp_path, stored):
    lock = threading.Lock()

    @node_action
    def locked(state):
        with lock:
            return state

    path = {"checkpoint_path": str(tmp_path / "run")} if stored else {}
    graph = chain(ProcessingNode("locked", locked))
    with pytest.raises(SerializationError, match="lock"):
        GraphExecutor(graph, State(), **path).submit()
    assert list_runs() == []


def test_a_run_that_waits_for_a_machine_is_pending_and_can_be_called_off(tmp_path):
    import ray

    holder = ray.remote(num_cpus=2)(Holder).remote()
    ray.get(holder.ready.remote())
    run = executor(tmp_path)
    handle = run.submit(name="waits", actor_options={"num_cpus": 2})
    assert [(r.name, r.state, r.started) for r in list_runs()] == [("waits", "pending", None)]
    assert handle.wait(timeout=0.1).state == "pending"
    assert handle.cancel().state == "cancelled"
    with pytest.raises(RunCancelledError):
        handle.result(timeout=10)
    assert list_runs() == []
    ray.kill(holder)


class Holder:
    def ready(self):
        return True


def test_observers_and_reports_are_not_lost_in_silence(tmp_path):
    run = executor(tmp_path, stored=False)
    observer = run.add_observer(print)
    with pytest.raises(RuntimeError, match=r"read handle\.events\(\)"):
        run.submit()
    observer.remove()
    run.report(tmp_path / "report.html")
    with pytest.raises(RuntimeError, match=r"read handle\.events\(\)"):
        run.submit()


@pytest.mark.chaos  # with the others it would take the suite too long
def test_a_place_that_the_driver_does_not_see_is_named(tmp_path):
    path = tmp_path / "run"
    run = GraphExecutor(chain(ProcessingNode("n", echo)), State(), checkpoint_path=str(path))
    hidden = {"env_vars": {"GRAPHORCH_TEST_HIDE": str(path), "PYTHONPATH": str(HIDING)}}
    handle = run.submit(actor_options={"runtime_env": hidden})
    with pytest.raises(CheckpointError, match=f"finds no checkpoint of the run in '{path}'"):
        handle.result(timeout=60)
    assert handle.status().state == "failed"


HIDING = os.pathsep.join([str(Path(__file__).parent / "hiding"), os.environ.get("PYTHONPATH", "")])

NO_CLUSTER = """
import os, sys, time
import graphorch_ray
for address in (None, "127.0.0.1:1"):
    if address:
        os.environ["RAY_ADDRESS"] = address
    for call in (graphorch_ray.list_runs, lambda: graphorch_ray.get_run("x")):
        began = time.monotonic()
        try:
            call()
        except graphorch_ray.ClusterConnectionError as error:
            print(time.monotonic() - began < 10, error)
"""


def test_no_cluster_is_one_clear_error_in_time():
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", NO_CLUSTER], env=env, capture_output=True, text=True, timeout=100
    )
    lines = done.stdout.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["True"] * 4, done.stderr
    assert all("it names no cluster to look for runs in" in line for line in lines[:2])
    assert all("nothing answers there" in line for line in lines[2:])


# --- telemetry ------------------------------------------------------------------------------------


def test_the_runs_span_is_a_child_of_the_span_it_was_submitted_in(tmp_path):
    from opentelemetry.sdk.trace import TracerProvider

    handle = None
    with TracerProvider().get_tracer("test").start_as_current_span("client") as span:
        handle = executor(tmp_path, count=1, backend="inline").submit(
            actor_options={"runtime_env": {"env_vars": {"OTEL_TRACES_EXPORTER": "console"}}}
        )
    handle.result(timeout=60)
    told = GraphExecutor.resume(str(tmp_path / "run"), backend="inline").to_checkpoint().trace
    assert told["traceparent"].split("-")[1] == f"{span.get_span_context().trace_id:032x}"


# --- versions ---------------------------------------------------------------------------------


def test_a_driver_of_another_version_is_told_in_one_line_that_names_both(tmp_path, monkeypatch):
    handle = executor(tmp_path).submit(name="theirs")
    handle.result(60)
    found, version = get_run("theirs"), graphorch_ray.__version__
    monkeypatch.setattr("graphorch_ray.__version__", "9.8.7")
    began = time.monotonic()
    for ask in (found.status, found.result, found.wait, found.pause, found.cancel):
        with pytest.raises(ClusterConnectionError) as told:
            ask()
        assert "run 'theirs'" in str(told.value)
        assert f"runs graphorch_ray {version} on Python 3." in str(told.value)
        assert "this process graphorch_ray 9.8.7 on Python 3." in str(told.value)
    with pytest.raises(ClusterConnectionError, match=r"9\.8\.7"):
        next(iter(found.events()))
    (listed,) = list_runs()
    assert (listed.name, listed.state) == ("theirs", "running")
    assert "9.8.7" in (listed.error or "")
    assert time.monotonic() - began < 10
    assert handle.status().state == "finished", "it knew the driver already"
