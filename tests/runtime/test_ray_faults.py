"""Stuck code, dead workers, cancelled runs: every fault is shown to have happened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from graphorch_ray import (
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    RetryPolicy,
    State,
    WorkerLostError,
    node_action,
)
from graphorch_ray.runtime.on_ray.carriers import TaskCarrier
from graphorch_ray.runtime.on_ray.warm_workers import WarmWorker

from .nodes import (
    STUCK,
    alabel,
    always_killed,
    async_killed_once,
    chain,
    exit_once,
    fallback,
    gone,
    killed_once,
    label,
    pids,
    star,
)

pytestmark = pytest.mark.usefixtures("ray_session")


def executor_of(graph, state, **options):
    return GraphExecutor(graph, state, backend="ray", **options)


@pytest.mark.parametrize("stuck", STUCK, ids=lambda function: function.__name__)
def test_E9_a_superstep_timeout_stops_stuck_code_and_frees_its_slot(stuck, tmp_path):
    path = tmp_path / "pids"
    executor = executor_of(
        star(ProcessingNode("stuck", node_action(stuck)), ProcessingNode("ok", label)),
        State([str(path)]),
        max_workers=2,
    )
    began = time.monotonic()
    with pytest.raises(GraphExecutionError, match=r"'stuck': Execution timed out after 1.5s\."):
        executor.run(superstep_timeout=1.5)
    assert time.monotonic() - began < 10  # far from the 600 s that it would have taken
    assert len(pids(path)) == 1
    assert gone(path)
    after = executor_of(star(ProcessingNode("next", label)), State([]), max_workers=1)
    assert after.run(superstep_timeout=30) == State([["next"]])


@pytest.mark.parametrize("crowd", ["sync", "async"])
@pytest.mark.parametrize("stuck", STUCK, ids=lambda function: function.__name__)
def test_E9_a_nodes_timeout_kills_only_that_attempt(stuck, crowd, tmp_path):
    path = tmp_path / "pids"
    others = [ProcessingNode(f"n{i}", label if crowd == "sync" else alabel) for i in range(20)]
    graph = star(
        ProcessingNode("stuck", node_action(stuck), timeout=0.5),
        *others,
        fallbacks={"stuck": ProcessingNode("f", fallback)},
        policies={"stuck": RetryPolicy(1, 0)},
    )
    workers = 3 if crowd == "sync" else 25
    executor = executor_of(graph, State([str(path)]), max_workers=workers)
    with _maybe_warned():
        result = executor.run(superstep_timeout=60)
    assert result.messages[0] == ["fallback"]
    assert [messages[-1] for messages in result.messages[1:]] == [node.node_id for node in others]
    summary = executor.summary
    assert len(pids(path)) == 2  # both attempts began
    assert gone(path)
    assert (summary.nodes["stuck"].timeouts, summary.nodes["stuck"].fallbacks) == (2, 1)
    if crowd == "sync":
        assert all(summary.nodes[node.node_id].attempts == 1 for node in others)
        assert summary.uncharged_reruns == 0


def test_E9_finished_async_neighbours_of_a_stuck_node_are_not_run_again(tmp_path):
    @node_action
    async def counted(state):
        await asyncio.sleep(0.1)
        fd = os.open(str(tmp_path / "ledger"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(fd, b".")
        os.close(fd)
        return State(["counted"])

    @node_action
    async def stuck(state):
        await asyncio.sleep(0.5)
        time.sleep(600)
        return state

    others = [ProcessingNode(f"n{i}", counted) for i in range(50)]
    graph = star(
        ProcessingNode("stuck", stuck, timeout=1.5),
        *others,
        fallbacks={"stuck": ProcessingNode("f", fallback)},
    )
    executor = executor_of(graph, State([]), max_workers=100)
    with pytest.warns(GraphWarning, match="'stuck' blocks its event loop"):
        result = executor.run(superstep_timeout=60)
    assert result.messages == [["fallback"]] + [["counted"]] * 50
    assert (tmp_path / "ledger").read_text() == "." * 50


@pytest.mark.parametrize("action", [exit_once, killed_once, async_killed_once])
def test_E6_a_worker_that_dies_costs_the_node_no_retry(action, tmp_path):
    path = tmp_path / "died"
    executor = executor_of(
        star(ProcessingNode("dies", action), ProcessingNode("ok", label)), State([str(path)])
    )
    assert executor.run(superstep_timeout=60).messages[0] == ["survived"]
    assert path.exists()
    summary = executor.summary
    assert (summary.workers_lost, summary.nodes["dies"].infrastructure_failures) == (1, 1)
    assert summary.nodes["dies"].retries == 0


def test_E6_a_crash_in_a_shared_worker_charges_nobody_who_survives_alone(tmp_path):
    others = [ProcessingNode(f"n{i}", alabel) for i in range(20)]
    executor = executor_of(
        star(ProcessingNode("dies", async_killed_once), *others),
        State([str(tmp_path / "died")]),
        max_workers=30,
    )
    result = executor.run(superstep_timeout=60)
    assert result.messages[0] == ["survived"]
    assert len(result.messages) == 21
    assert (tmp_path / "died").exists()
    assert executor.summary.workers_lost == 1
    assert executor.summary.infrastructure_failures == 0


def test_E6_what_kills_its_worker_every_time_fails_in_the_end():
    executor = executor_of(
        star(ProcessingNode("dies", always_killed)), State([]), infrastructure_retries=2
    )
    with pytest.raises(GraphExecutionError, match="lost 3 times") as caught:
        executor.run(superstep_timeout=60)
    assert isinstance(caught.value.__cause__, WorkerLostError)
    assert executor.summary.workers_lost == 3


def test_E6_a_lost_worker_leads_to_the_fallback_in_the_end():
    graph = star(
        ProcessingNode("dies", always_killed), fallbacks={"dies": ProcessingNode("f", fallback)}
    )
    executor = executor_of(graph, State([]), infrastructure_retries=0)
    assert executor.run(superstep_timeout=60) == State([["fallback"]])


def test_E8_a_failure_stops_the_rest_of_the_superstep(tmp_path):
    @node_action
    def fail_soon(state):
        while len(pids(tmp_path / "pids")) < 2:
            time.sleep(0.02)
        raise ValueError("enough")

    graph = star(
        ProcessingNode("a", node_action(STUCK[0])),
        ProcessingNode("b", node_action(STUCK[1])),
        ProcessingNode("fails", fail_soon),
    )
    executor = executor_of(graph, State([str(tmp_path / "pids")]), max_workers=3)
    with pytest.raises(GraphExecutionError, match="node 'fails': enough"):
        executor.run(superstep_timeout=60)
    assert len(pids(tmp_path / "pids")) == 2
    assert gone(tmp_path / "pids")


async def test_E8_cancelling_the_awaiting_task_kills_sync_code(tmp_path):
    path = tmp_path / "pids"
    executor = executor_of(star(ProcessingNode("a", node_action(STUCK[0]))), State([str(path)]))
    task = asyncio.ensure_future(executor.execute())
    while not pids(path):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(path)


def test_E8_ctrl_c_stops_everything(ray_session, tmp_path):
    import ray

    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal
            import sys
            from tests.runtime.nodes import STUCK, chain
            from graphorch_ray import GraphExecutor, ProcessingNode, State, node_action
            graph = chain(ProcessingNode("a", node_action(STUCK[0])))
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
            try:
                GraphExecutor(graph, State([sys.argv[1]])).run()
            except KeyboardInterrupt:
                print("interrupted")
            """
        )
    )
    path = tmp_path / "pids"
    environment = {**os.environ, "RAY_ADDRESS": ray_session, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, str(script), str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not pids(path) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert pids(path), process.communicate(timeout=5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert out == "interrupted\n"
    assert f"joined the Ray cluster at {ray_session}" in err
    assert gone(path)
    assert ray.is_initialized()


def test_E4_workers_and_actors_are_given_back():
    import ray

    graph = star(*[ProcessingNode(f"n{i}", alabel) for i in range(20)])
    executor_of(graph, State([]), max_workers=20).run()
    end = time.monotonic() + 5
    while time.monotonic() < end and ray.available_resources().get("CPU") != 2:
        time.sleep(0.05)
    assert ray.available_resources()["CPU"] == 2
    mine = psutil.Process().children(recursive=True)
    assert not [p for p in mine if "ray::GraphWorker" in " ".join(_cmdline(p))]


def test_async_nodes_share_a_few_processes():
    @node_action
    async def wait(state):
        await asyncio.sleep(0.2)
        return State([os.getpid()])

    executor = executor_of(
        star(*[ProcessingNode(f"n{i}", wait) for i in range(200)]), State([]), max_workers=200
    )
    result = executor.run()
    assert len({messages[0] for messages in result.messages}) <= 4
    assert executor.summary.processes <= 5  # those, and the one that joined


def test_a_blocking_async_node_does_not_fail_but_is_moved(tmp_path):
    @node_action
    async def busy(state):
        time.sleep(0.9)
        return State(["busy"])

    graph = star(*[ProcessingNode(f"n{i}", alabel) for i in range(6)], ProcessingNode("busy", busy))
    executor = executor_of(graph, State([]), max_workers=10)
    with pytest.warns(GraphWarning, match="'busy' blocks its event loop"):
        assert executor.run(superstep_timeout=60).messages[-1] == ["busy"]
    assert executor.summary.nodes["busy"].attempts == 1


def test_printing_chain_of_nodes_runs_in_other_processes():
    @node_action
    def pid(state):
        return State([*state.messages, os.getpid()])

    result = executor_of(chain(ProcessingNode("a", pid)), State([])).run()
    assert result.messages[0] != os.getpid()


def _cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class _maybe_warned:
    """Lets the warning about a blocked event loop pass, whether or not it is given."""

    def __enter__(self):
        import warnings

        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.filterwarnings("ignore", "Async node", GraphWarning)

    def __exit__(self, *error):
        self._catch.__exit__(*error)


@pytest.mark.chaos
def test_E9_a_function_known_to_block_does_not_go_back_to_the_shared_workers():
    async def block(state):
        time.sleep(600)
        return state

    action = node_action(block)
    stuck = [ProcessingNode(f"s{i}", action, timeout=1) for i in range(6)]
    graph = star(
        *stuck,
        ProcessingNode("ok", alabel),
        fallbacks={node.node_id: ProcessingNode(f"f{node.node_id}", fallback) for node in stuck},
    )
    executor = executor_of(graph, State([]), max_workers=10)
    with pytest.warns(GraphWarning, match="blocks its event loop"):
        result = executor.run(superstep_timeout=60)
    assert result.messages == [["fallback"]] * 6 + [["ok"]]
    assert all(executor.summary.nodes[node.node_id].timeouts == 1 for node in stuck)
    assert executor.summary.uncharged_reruns <= 7  # one kill of the shared worker, not six


def test_a_fake_clock_does_not_end_async_nodes_on_ray():
    from graphorch_ray.testing import FakeClock

    @node_action
    async def wait(state):
        await asyncio.sleep(0.2)
        return State(["waited"])

    executor = executor_of(chain(ProcessingNode("a", wait)), State([]), clock=FakeClock())
    assert executor.run() == State(["waited"])


def test_a_node_may_have_a_name_that_no_task_could_have():
    names = ["ok", "\udc80", "\udc81"]
    graph = star(*(ProcessingNode(name, label) for name in names))
    executor = executor_of(graph, State([]), max_workers=1)
    assert executor.run(superstep_timeout=60) == State([[name] for name in names])


@pytest.mark.parametrize(("pool", "carrier"), [("tasks", TaskCarrier), ("auto", WarmWorker)])
def test_a_call_that_cannot_be_made_is_a_failure_of_its_node(monkeypatch, pool, carrier):
    send, refused = carrier.send, []

    def refuse(self, call, job, arguments):
        (pending, *_) = call._open.values()
        if pending.node.node_id == "bad":
            refused.append(pending.launch.key)
            raise ValueError("Ray takes no such call")
        send(self, call, job, arguments)

    monkeypatch.setattr(carrier, "send", refuse)
    graph = star(
        ProcessingNode("bad", label),
        ProcessingNode("ok", label),
        fallbacks={"bad": ProcessingNode("f", fallback)},
    )
    executor = executor_of(graph, State([]), max_workers=1, pool=pool)
    assert executor.run(superstep_timeout=60) == State([["fallback"], ["ok"]])
    assert refused
