"""Short sync nodes travel together, and nothing but the speed shows it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque

import pytest

from graphorch_ray import (
    AggregatorNode,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    current_execution,
    node_action,
)
from graphorch_ray.model.attempt import AttemptKey, Launch
from graphorch_ray.runtime.on_ray.batches import BATCH_BYTES, BATCH_SECONDS, Timing, Timings
from graphorch_ray.runtime.on_ray.handles import StateHandle
from graphorch_ray.runtime.on_ray.lanes import Pending
from graphorch_ray.runtime.payload import dump

from .nodes import echo, fail, fallback, gather, once, star

SMALL = StateHandle.of(dump(State([1]), "a state"))


def queue_of(*nodes, state=SMALL):
    return deque(
        Pending(
            i,
            Launch(AttemptKey(0, 0, i, "node", 0, 0), node.node_id, node.node_id, (state,), False),
            node,
            None,
        )
        for i, node in enumerate(nodes)
    )


def many(count, action=echo, **options):
    return [ProcessingNode(f"n{i}", action, **options) for i in range(count)]


def known(nodes, seconds):
    timings = Timings()
    timings.of(nodes[0]).note(seconds)
    return timings


def sizes(timings, queue, slots=4):
    found = []
    while queue:
        found.append(len(timings.take(queue, slots)))
    return found


def test_an_unknown_function_is_probed_alone():
    assert len(Timings().take(queue_of(*many(100)), 4)) == 1


def test_batches_shrink_as_the_queue_does_and_lose_nobody():
    nodes = many(2000)
    queue = queue_of(*nodes)
    timings, seen = known(nodes, 0.0001), []
    while queue:
        batch = timings.take(queue, 4)
        assert 0.00015 * len(batch) <= BATCH_SECONDS
        seen += [len(batch)]
    assert sum(seen) == 2000
    assert seen[0] > 100
    assert seen == sorted(seen, reverse=True)


def test_few_short_ones_are_spread_over_the_slots():
    nodes = many(40)
    assert max(sizes(known(nodes, 0.002), queue_of(*nodes))) <= 5


def test_long_ones_travel_alone():
    nodes = many(10)
    assert sizes(known(nodes, 0.02), queue_of(*nodes)) == [1] * 10


def test_a_function_that_is_sometimes_long_gets_small_batches():
    timing = Timing()
    for i in range(100):
        timing.note(1.0 if i % 10 == 0 else 0.0001)
    assert 0.05 < timing.long_share < 0.2
    timings, nodes = Timings(), many(1000)
    for i in range(100):
        timings.of(nodes[0]).note(1.0 if i % 10 == 0 else 0.0001)
    assert max(sizes(timings, queue_of(*nodes))) <= 10


def test_what_a_function_took_long_ago_is_forgotten():
    timing = Timing()
    timing.note(1.0)
    for _ in range(300):
        timing.note(0.0001)
    assert timing.seconds < 0.001
    assert timing.long_share < 0.01


def test_batch_False_and_suspects_travel_alone():
    nodes = many(10, batch=False)
    assert sizes(known(nodes, 0.0001), queue_of(*nodes)) == [1] * 10
    nodes = many(10)
    queue = queue_of(*nodes)
    queue[1].quarantined = True
    timings = known(nodes, 0.0001)
    assert [p.token for p in timings.take(queue, 1)] == [0]
    assert [p.token for p in timings.take(queue, 1)] == [1]


def test_a_batch_brings_no_more_large_states_than_a_worker_should_hold():
    nodes = many(10)
    timings = known(nodes, 0.0001)
    shared = StateHandle(None, object(), BATCH_BYTES, 1)
    assert len(timings.take(queue_of(*nodes, state=shared), 1)) == 10
    queue = queue_of(*nodes)
    for pending in queue:
        state = StateHandle(None, object(), BATCH_BYTES // 2, 1)
        pending.launch = pending.launch._replace(states=(state,))
    assert len(timings.take(queue, 1)) == 2


# --- on Ray -----------------------------------------------------------------------------------


def task_id():
    import ray

    return ray.get_runtime_context().get_task_id()


@node_action
def tell_task(state):
    return State([task_id(), current_execution().node_id])


def executor_of(graph, state, **options):
    return GraphExecutor(graph, state, backend="ray", **options)


@pytest.mark.usefixtures("ray_session")
class TestOnRay:
    def test_short_nodes_share_tasks_and_each_is_an_execution_of_its_own(self):
        nodes = many(400, tell_task)
        executor = executor_of(star(*nodes), State([]), max_workers=4)
        answers = executor.run().messages
        assert [node_id for _, node_id in answers] == [node.node_id for node in nodes]
        tasks = Counter(task for task, _ in answers)
        assert len(tasks) < 100
        assert max(tasks.values()) > 10
        assert all(executor.summary.nodes[node.node_id].attempts == 1 for node in nodes)

    def test_batch_False_gives_each_a_task(self):
        answers = executor_of(star(*many(30, tell_task, batch=False)), State([])).run().messages
        assert len({task for task, _ in answers}) == 30

    def test_what_was_learnt_is_kept_over_supersteps(self):
        first, second = many(50, tell_task), [ProcessingNode(f"m{i}", tell_task) for i in range(50)]
        builder = GraphBuilder("two")
        builder.add_aggregator(AggregatorNode("join", gather))
        for a, b in zip(first, second, strict=True):
            builder.add_node(a)
            builder.add_node(b)
            builder.add_concrete_edge("start", a.node_id)
            builder.add_concrete_edge(a.node_id, b.node_id)
            builder.add_concrete_edge(b.node_id, "join")
        builder.add_concrete_edge("join", "end")
        answers = executor_of(builder.build_graph(), State([])).run().messages
        assert len({task for task, _ in answers}) <= 16

    def test_E5_each_of_a_batch_has_its_own_retries_and_fallback(self):
        good, bad = many(200), [ProcessingNode(f"b{i}", fail) for i in range(20)]
        fallbacks = {node.node_id: ProcessingNode(f"f{i}", fallback) for i, node in enumerate(bad)}
        graph = star(*good, *bad, fallbacks=fallbacks)
        executor = executor_of(graph, State(["x"]), retry_policy=RetryPolicy(1, 0))
        assert executor.run().messages == [["x"]] * 200 + [["fallback"]] * 20
        assert all(executor.summary.nodes[node.node_id].attempts == 2 for node in bad)
        assert all(executor.summary.nodes[node.node_id].attempts == 1 for node in good)

    def test_E6_a_crash_in_a_batch_costs_its_members_a_run_and_nothing_else(self, tmp_path):
        @node_action
        def dies_late(state):
            if current_execution().index == 150:
                (tmp_path / task_id()).touch()
                if once(str(tmp_path / "died")):
                    os.kill(os.getpid(), signal.SIGKILL)
            return State([current_execution().index])

        executor = executor_of(star(*many(200, dies_late)), State([]))
        assert executor.run(superstep_timeout=60).messages == [[i] for i in range(200)]
        assert (tmp_path / "died").exists()
        summary = executor.summary
        assert (summary.workers_lost, summary.infrastructure_failures) == (1, 0)
        assert 1 < summary.uncharged_reruns < 200

    def test_E6_what_kills_its_worker_every_time_is_charged_once_it_is_alone(self):
        @node_action
        def dies(state):
            if current_execution().running_node_id == "n150":
                os.kill(os.getpid(), signal.SIGKILL)
            return State(["ok"])

        graph = star(*many(200, dies), fallbacks={"n150": ProcessingNode("f", fallback)})
        executor = executor_of(graph, State([]), infrastructure_retries=1)
        answers = executor.run(superstep_timeout=60).messages
        assert answers == [["ok"]] * 150 + [["fallback"]] + [["ok"]] * 49
        assert executor.summary.nodes["n150"].infrastructure_failures == 2
        assert executor.summary.infrastructure_failures == 2

    def test_E9_a_timeout_in_a_batch_stops_that_member_alone(self):
        @node_action
        def stuck_at_40(state):
            if current_execution().running_node_id == "n40":
                time.sleep(600)
            return State(["ok"])

        graph = star(
            *many(60, stuck_at_40, timeout=0.5), fallbacks={"n40": ProcessingNode("f", fallback)}
        )
        executor = executor_of(graph, State([]), max_workers=2)
        answers = executor.run(superstep_timeout=60).messages
        assert answers == [["ok"]] * 40 + [["fallback"]] + [["ok"]] * 19
        assert [n for n, node in executor.summary.nodes.items() if node.timeouts] == ["n40"]

    def test_a_batch_that_takes_longer_than_thought_is_handed_back(self):
        @node_action
        def slower_and_slower(state):
            if current_execution().index >= 20:
                time.sleep(0.15)
            return State([task_id()])

        graph = star(*many(40, slower_and_slower))
        answers = executor_of(graph, State([]), max_workers=2, pool="tasks")
        slow = Counter(m[0] for m in answers.run(superstep_timeout=60).messages[20:])
        assert max(slow.values()) == 1

    def test_short_nodes_start_no_more_processes_than_there_are_cores(self):
        @node_action
        def pid(state):
            return State([os.getpid()])

        answers = executor_of(star(*many(200, pid)), State([]), max_workers=16).run().messages
        assert len({m[0] for m in answers}) <= 3  # one may be lost to the pool of idle ones

    def test_E4_long_nodes_reach_max_workers_at_once(self, tmp_path):
        @node_action
        def meet(state):
            (tmp_path / current_execution().node_id).touch()
            end = time.monotonic() + 30
            while len(list(tmp_path.iterdir())) < 6 and time.monotonic() < end:
                time.sleep(0.02)
            return State([len(list(tmp_path.iterdir()))])

        answers = executor_of(star(*many(6, meet)), State([]), max_workers=6).run().messages
        assert answers == [[6]] * 6

    def test_E4_a_batch_takes_one_slot(self, tmp_path):
        @node_action
        def alone(state):
            mine = tmp_path / current_execution().node_id
            mine.touch()
            seen = len(list(tmp_path.iterdir()))
            mine.unlink()
            return State([seen])

        answers = executor_of(star(*many(300, alone)), State([]), max_workers=1).run().messages
        assert answers == [[1]] * 300

    def test_a_node_that_cannot_be_sent_does_not_fail_its_batch(self):
        odd = "\udc80"  # no name that a task could have
        nodes = many(50)
        nodes.insert(30, ProcessingNode(odd, echo))
        graph = star(*nodes, fallbacks={odd: ProcessingNode("f", fallback)})
        answers = executor_of(graph, State(["x"])).run(superstep_timeout=60).messages
        assert len(answers) == 51
        assert answers.count(["x"]) >= 50
