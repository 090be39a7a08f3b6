"""Where nodes run on Ray, and what they may ask for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from graphorch_ray import (
    AIActionBase,
    AINode,
    GraphExecutionError,
    GraphExecutor,
    GraphWarning,
    HumanInTheLoopNode,
    ProcessingNode,
    ResourceRequestError,
    RetryPolicy,
    State,
    current_execution,
    node_action,
)
from graphorch_ray.runtime.on_ray.resources import (
    Ledger,
    Machine,
    check_possible,
    default_share,
    machines_to_come,
)

from .nodes import chain, echo, fallback, gone, label, pids, sleep_forever, star

pytestmark = pytest.mark.usefixtures("ray_session")


def run(graph, state=None, **options):
    return GraphExecutor(graph, state or State([]), backend="ray", **options).run(
        superstep_timeout=60
    )


@node_action
def where(state):
    return State([*state.messages, os.getpid()])


class Model(AIActionBase):
    """Writes down each time it is built."""

    def build_model(self):
        with open(self.config["log"], "a") as file:
            file.write(f"{os.getpid()}\n")
        self.model = self.config["factor"]

    def process_state(self, state):
        if state.messages and state.messages[0] == "stuck":
            time.sleep(600)
        return State([*state.messages, os.getpid(), self.model])


def test_M4_a_model_is_built_once_per_worker_and_kept_over_supersteps(tmp_path):
    log = tmp_path / "built"
    action = Model({"log": str(log), "factor": 3})
    one, two = AINode("one", "a model", action), ProcessingNode("two", echo)
    from graphorch_ray import GraphBuilder, routing_function

    @routing_function
    def again(state):
        return "end" if len(state.messages) >= 6 else "two"

    builder = GraphBuilder()
    builder.add_node(one)
    builder.add_node(two)
    builder.add_concrete_edge("start", "one")
    builder.add_conditional_edge("one", ["two", "end"], again)
    builder.add_concrete_edge("two", "one")
    result = run(builder.build_graph())
    assert result.messages[1::2] == [3, 3, 3]
    assert len({*result.messages[::2]}) == 1
    assert pids(log) == [result.messages[0]]
    assert result.messages[0] != os.getpid()
    assert action.model is None


def test_M4_a_model_built_in_the_driver_is_not_shipped(tmp_path):
    action = Model({"log": str(tmp_path / "built"), "factor": 3})
    action.model, action._model_built = 99, True
    assert run(chain(AINode("m", "d", action))).messages[1] == 3


def test_M4_a_stuck_model_is_killed_and_built_anew(tmp_path):
    log = tmp_path / "built"
    node = AINode("m", "d", Model({"log": str(log), "factor": 3}), timeout=0.4)
    graph = star(node, fallbacks={"m": ProcessingNode("f", fallback)})
    executor = GraphExecutor(graph, State(["stuck"]), retry_policy=RetryPolicy(1, 0), backend="ray")
    assert executor.run(superstep_timeout=60) == State([["fallback"]])
    assert executor.summary.nodes["m"].timeouts == 2
    assert len(pids(log)) == 2
    assert gone(log)


def test_M4_replicas_share_the_work(tmp_path):
    class Slow(AIActionBase):
        def build_model(self):
            pass

        def process_state(self, state):
            time.sleep(0.3)
            return State([os.getpid()])

    action = Slow({})
    graph = star(*[AINode(f"m{i}", "d", action, replicas=2) for i in range(2)])
    assert len({m[0] for m in run(graph, max_workers=4).messages}) == 2


def test_human_nodes_and_pass_through_run_in_the_driver():
    def answer(state):
        return State([os.getpid()])

    assert run(chain(HumanInTheLoopNode("human", answer))) == State([os.getpid()])


def test_E4_a_custom_resource_caps_what_runs_at_once(tmp_path):
    # `memory` is a resource that every machine has: ask for more than half of it.
    import ray

    most = int(ray.cluster_resources()["memory"] * 0.6)

    @node_action(memory=most, num_cpus=0)
    def alone(state):
        mine = Path(state.messages[0]) / current_execution().node_id
        mine.touch()
        time.sleep(0.2)
        seen = len(list(mine.parent.iterdir()))
        mine.unlink()
        return State([seen])

    graph = star(*[ProcessingNode(f"n{i}", alone) for i in range(3)])
    assert run(graph, State([str(tmp_path)]), max_workers=8).messages == [[1], [1], [1]]


def test_E4_a_node_that_waits_for_resources_holds_no_slot(tmp_path):
    import ray

    most = int(ray.cluster_resources()["memory"] * 0.6)

    @node_action(memory=most, num_cpus=0)
    def greedy(state):
        path = Path(state.messages[0]) / "small-done"
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return State([path.exists()])

    @node_action(num_cpus=0)
    def small(state):
        (Path(state.messages[0]) / "small-done").touch()
        return State(["small"])

    nodes = [ProcessingNode("g1", greedy), ProcessingNode("g2", greedy)]
    graph = star(*nodes, ProcessingNode("small", small))
    result = run(graph, State([str(tmp_path)]), max_workers=2)
    assert result.messages == [[True], [True], ["small"]]


def test_E4_an_idle_model_gives_up_what_another_node_waits_for(tmp_path):
    import ray

    most = int(ray.cluster_resources()["memory"] * 0.6)
    log = str(tmp_path / "built")

    class Light(AIActionBase):  # does not call the base class's __init__
        def __init__(self, config):
            self.config = config

        def build_model(self):
            pass

        def process_state(self, state):
            return State(["model"])

    @node_action(num_cpus=0)
    def slow(state):
        end = time.monotonic() + 20
        while not Path(state.messages[0]).exists() and time.monotonic() < end:
            time.sleep(0.02)
        return State([Path(state.messages[0]).exists()])

    @node_action(memory=most, num_cpus=0)
    def greedy(state):
        Path(state.messages[0]).touch()
        return State(["greedy"])

    graph = star(
        ProcessingNode("slow", slow),
        AINode("m", "d", Light({}), memory=most),
        ProcessingNode("greedy", greedy),
    )
    result = run(graph, State([log]), max_workers=4)
    assert result.messages == [[True], ["model"], ["greedy"]]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_gpus": 1}, "'GPU': 1.0"),
        ({"num_cpus": 64}, "'CPU': 64.0"),
        ({"resources": {"licence": 1}}, "'licence': 1.0"),
        ({"label_selector": {"zone": "moon"}}, "moon"),
    ],
)
def test_E4_an_impossible_request_is_refused_before_anything_runs(options, named, tmp_path):
    @node_action
    def touch(state):
        Path(state.messages[0]).touch()
        return state

    graph = chain(ProcessingNode("first", touch), ProcessingNode("greedy", echo, **options))
    with pytest.raises(ResourceRequestError, match=r"Node 'greedy' asks for") as caught:
        run(graph, State([str(tmp_path / "ran")]))
    assert named in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_runtime_env_and_scheduling_strategy_reach_the_node():
    @node_action(runtime_env={"env_vars": {"GREETING": "hello"}}, scheduling_strategy="SPREAD")
    def greet(state):
        return State([os.environ.get("GREETING")])

    assert run(chain(ProcessingNode("a", greet))) == State(["hello"])


def test_E4_the_default_share_lets_max_workers_run_at_once():
    def cluster(*cpus):
        return [Machine({"CPU": float(cpu)}, {}) for cpu in cpus]

    def fits(machines, share):
        return sum(int(m.resources["CPU"] / share + 1e-6) for m in machines)

    assert default_share(cluster(8), 4) == 1
    assert default_share(cluster(2), 4) == 0.5
    assert default_share(cluster(0), 4) == 0
    for machines in (cluster(2), cluster(2, 1), cluster(7, 3, 1), cluster(64, 64)):
        for workers in (1, 3, 4, 10, 97, 1000):
            share = default_share(machines, workers)
            assert 0 < share <= 1
            assert fits(machines, share) >= workers


def test_E4_any_number_of_workers_is_reckoned_with_at_once():
    assert 0 < default_share([Machine({"CPU": 2.0}, {})], 10**9) <= 0.0002


def test_E4_label_selectors_are_understood_as_ray_spells_them():
    machines = [Machine({"CPU": 2.0}, {"zone": "a"})]
    for selector, possible in (
        ("a", True),
        ("b", False),
        ("!b", True),
        ("!a", False),
        ("in(a, b)", True),
        ("!in(a,b)", False),
    ):
        node = ProcessingNode("n", echo, label_selector={"zone": selector})
        if possible:
            check_possible([node], machines, 1.0)
        else:
            with pytest.raises(ResourceRequestError):
                check_possible([node], machines, 1.0)


def test_E4_what_an_autoscaler_could_add_is_waited_for_and_not_refused(monkeypatch):
    from ray._private import state
    from ray.core.generated import autoscaler_pb2

    config = autoscaler_pb2.ClusterConfig()
    group = config.node_group_configs.add(name="gpu", max_count=2)
    group.resources["CPU"] = 8
    group.resources["GPU"] = 1
    monkeypatch.setattr(state.state, "get_cluster_config", lambda: config)
    to_come = machines_to_come([])
    assert [machine.resources for machine in to_come] == [{"CPU": 8.0, "GPU": 1.0}] * 2
    small = [Machine({"CPU": 2.0}, {})]
    one, two = (ProcessingNode(f"n{i}", echo, num_gpus=i) for i in (1, 2))
    assert check_possible([one], small, 1.0, to_come) == ["n1"]
    with pytest.raises(ResourceRequestError, match="'n2'"):
        check_possible([one, two], small, 1.0, to_come)
    executor = GraphExecutor(chain(one), State([]), backend="ray")
    with (
        pytest.warns(GraphWarning, match="autoscaler may add one"),
        pytest.raises(GraphExecutionError, match="'n1': Execution timed out"),
    ):
        executor.run(superstep_timeout=0.5)


@pytest.mark.parametrize("kind", ["task", "model"])
def test_E4_the_wait_for_an_autoscaler_is_bounded(monkeypatch, kind):
    to_come = [Machine({"CPU": 8.0, "GPU": 1.0}, {})]
    monkeypatch.setattr(
        "graphorch_ray.runtime.on_ray.capacity.machines_to_come", lambda present, requests: to_come
    )
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.MACHINE_WAIT_SECONDS", 0.3)
    if kind == "task":
        node = ProcessingNode("n", echo, num_gpus=1)
    else:
        node = AINode("n", "never built", Echo({}), num_gpus=1)
    executor = GraphExecutor(chain(node), State([]), backend="ray")
    with (
        pytest.warns(GraphWarning, match=r"wait for it, 0\.3 s at most"),
        pytest.raises(GraphExecutionError, match="at node 'n'") as raised,
    ):
        executor.run(superstep_timeout=None)
    assert isinstance(raised.value.__cause__, ResourceRequestError)


class Echo(AIActionBase):
    def build_model(self):
        self.model, self._model_built = "echo", True

    def process_state(self, state):
        return state


def test_E4_the_ledger_counts_what_is_taken():
    ledger = Ledger([Machine({"GPU": 1.0}, {}), Machine({"GPU": 1.0}, {})])
    for _ in range(2):
        assert ledger.fits({"GPU": 1.0})
        ledger.take({"GPU": 1.0})
    assert not ledger.fits({"GPU": 0.1})
    ledger.give({"GPU": 1.0})
    assert ledger.fits({"GPU": 1.0})


def test_max_workers_beyond_memory_is_said():
    nodes = [ProcessingNode(f"n{i}", label) for i in range(1000)]
    graph = star(*nodes)
    executor = GraphExecutor(graph, State([]), max_workers=1000, backend="ray")
    with (
        pytest.warns(GraphWarning, match="could need as many processes"),
        pytest.raises(GraphExecutionError, match="timed out"),
    ):
        executor.run(superstep_timeout=0.01)


def test_node_code_may_hold_an_actor_handle_in_a_closure():
    import ray

    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

    counter = Counter.remote()

    @node_action
    def count(state):
        return State([ray.get(counter.add.remote())])

    graph = star(*[ProcessingNode(f"n{i}", count) for i in range(5)])
    assert sorted(m[0] for m in run(graph).messages) == [1, 2, 3, 4, 5]
    ray.kill(counter)


def test_object_references_in_a_state_travel():
    import ray

    @node_action
    def follow(state):
        return State([ray.get(state.messages[0]) + 1, state.messages[0]])

    result = run(
        chain(ProcessingNode("a", follow), ProcessingNode("b", echo)), State([ray.put(41)])
    )
    assert result.messages[0] == 42
    assert ray.get(result.messages[1]) == 41


def test_stuck_code_is_found_by_its_pid(tmp_path):
    path = tmp_path / "pids"
    graph = chain(ProcessingNode("a", node_action(sleep_forever), timeout=0.3))
    with pytest.raises(GraphExecutionError, match=r"exceeded its timeout of 0.3s"):
        run(graph, State([str(path)]))
    assert len(pids(path)) == 1
    assert gone(path)
