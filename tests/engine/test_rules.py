"""The rules of a run, one by one, on the bare machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphorch_ray import RetryPolicy, WorkerLostError
from graphorch_ray.engine import (
    CancelRest,
    DeadlineExpired,
    EngineOptions,
    Phase,
    RestoreCheckpoint,
    RetryDue,
    RouterAnswered,
    RunFailed,
    SuperstepMachine,
)
from graphorch_ray.model.attempt import AttemptFailed, AttemptSucceeded, Launch

from .harness import Broken, drive, failure, graph_of, on_worker

DIAMOND = [("start", "a"), ("start", "b"), ("a", "j"), ("b", "j"), ("j", "end")]


def diamond(**options):
    return graph_of(["a", "b", "j"], DIAMOND, aggregators=["j"], **options)


def started(graph, **options):
    """A machine past `start`, with its launches of the second superstep."""
    machine = SuperstepMachine(graph, EngineOptions(**options))
    machine.begin("i")
    (launch,) = [c for c in machine.proceed() if isinstance(c, Launch)]
    machine.handle([AttemptSucceeded(launch.key, "s")])
    return machine, [c for c in machine.proceed() if isinstance(c, Launch)]


def failing(*node_ids, error=None):
    def behave(launch):
        if launch.node_id in node_ids:
            raise error or ValueError(f"{launch.node_id} failed")
        return launch.node_id

    return behave


def test_E1_start_is_first_and_the_run_ends_when_nothing_is_active():
    run = drive(diamond())
    assert run.supersteps == [["start"], ["a", "b"], ["j"], ["end"]]
    assert run.machine.phase is Phase.FINISHED


def test_E1_nothing_of_the_next_superstep_starts_before_the_barrier():
    machine, (a, b) = started(diamond())
    assert machine.handle([AttemptSucceeded(b.key, "b")]) == []
    machine.handle([AttemptSucceeded(a.key, "a")])
    assert machine.phase is Phase.READY


def test_E2_an_aggregator_gets_states_in_launch_order_whatever_finished_first():
    machine, (a, b) = started(diamond())
    machine.handle([AttemptSucceeded(b.key, "b")])
    machine.handle([AttemptSucceeded(a.key, "a")])
    (join,) = [c for c in machine.proceed() if isinstance(c, Launch)]
    assert join.states == ("a", "b")
    assert join.as_list


def test_E2_launch_order_is_first_arrival_by_source_then_edge_creation():
    edges = [("start", "b"), ("start", "a"), ("a", "y"), ("b", "z"), ("b", "x"), ("a", "x")]
    edges += [(node, "end") for node in "xyz"]
    assert drive(graph_of(list("abxyz"), edges)).supersteps[2] == ["z", "x", "y"]


def test_E3_first_uses_the_first_state_and_says_how_many_were_dropped():
    graph = graph_of(["a", "b"], [("start", "a"), ("start", "b"), ("a", "end"), ("b", "end")])
    run = drive(graph)
    assert run.result == "end(a(start(i)))"
    (dropped,) = run.dropped
    assert (dropped.node_id, dropped.arrived, dropped.sources) == ("end", 2, ("a", "b"))


def test_E3_each_runs_the_node_once_for_each_state_in_order():
    graph = graph_of(["a", "b"], [("start", "a"), ("start", "b"), ("a", "end"), ("b", "end")])
    run = drive(graph, on_multiple_states="each")
    assert run.inputs("end") == [("a(start(i))",), ("b(start(i))",)]
    assert run.result == "end(b(start(i)))"


def test_E3_error_names_the_node_and_its_sources():
    graph = graph_of(["a", "b"], [("start", "a"), ("start", "b"), ("a", "end"), ("b", "end")])
    run = drive(graph, on_multiple_states="error")
    assert run.failed is not None
    assert run.failed.node_id == "end"
    assert "'a', 'b'" in run.failed.message


def test_E5_a_node_is_tried_max_retries_plus_one_times_with_growing_waits():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    run = drive(graph, failing("a"), retry_policy=RetryPolicy(3, 0.5, 2.0))
    assert len(run.inputs("a")) == 4
    assert [retry.delay for retry in run.retries] == [0.5, 1.0, 2.0]
    assert run.failed is not None


def test_E5_a_nodes_own_policy_comes_before_the_executors():
    graph = graph_of(
        ["a"], [("start", "a"), ("a", "end")], policies={"a": RetryPolicy(1, 0.0, 1.0)}
    )
    assert len(drive(graph, failing("a"), retry_policy=RetryPolicy(5, 0, 1)).inputs("a")) == 2


def test_E5_code_that_its_worker_cannot_load_is_not_retried():
    def behave(launch):
        if launch.node_id == "a":
            unknown = replace(failure("no module"), reason="not_loaded")
            return AttemptFailed(launch.key, unknown)
        return "done"

    edges = [("start", "a"), ("a", "end")]
    policy = RetryPolicy(max_retries=3, delay=9)
    run = drive(graph_of(["a"], edges), behave, retry_policy=policy)
    assert (run.failed is not None, run.retries) == (True, [])
    run = drive(graph_of(["a", "f"], edges, fallbacks={"a": "f"}), behave, retry_policy=policy)
    assert (run.result, run.retries, len(run.fallbacks)) == ("done", [], 1)


def test_E5_no_policy_means_no_retry():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    assert len(drive(graph, failing("a")).inputs("a")) == 1


def test_E5_retry_on_limits_what_is_retried():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    policy = RetryPolicy(3, 0, 1, retry_on=KeyError)
    assert len(drive(graph, failing("a"), retry_policy=policy).inputs("a")) == 1
    again = drive(graph, failing("a", error=KeyError("k")), retry_policy=policy)
    assert len(again.inputs("a")) == 4


def test_E5_jitter_shortens_waits_and_repeats_within_a_run():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    policy = RetryPolicy(5, 1.0, 1.0, jitter=0.5)
    delays = [
        [r.delay for r in drive(graph, failing("a"), retry_policy=policy, jitter_seed=s).retries]
        for s in ("x", "x", "y")
    ]
    assert delays[0] == delays[1] != delays[2]
    assert all(0.5 <= delay <= 1.0 for delay in delays[0])


def test_E5_while_a_retry_waits_nothing_is_out_for_it():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    machine, (a,) = started(graph, retry_policy=RetryPolicy(1, 9.0))
    (wait,) = machine.handle([AttemptFailed(a.key, failure())])
    assert machine.handle([AttemptSucceeded(wait.key, "too early")]) == []
    (again,) = machine.handle([RetryDue(wait.key)])
    assert again.key.attempt == 1
    assert again.states == a.states


def test_E6_infrastructure_failures_have_a_budget_of_their_own():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    lost = iter([True, True, True, False])

    def behave(launch):
        if launch.node_id == "a" and next(lost):
            raise Broken("worker gone")
        return "fine"

    run = drive(graph, behave)
    assert run.result == "fine"
    assert [launch.key.rerun for launch in run.launches if launch.node_id == "a"] == [0, 1, 2, 3]
    assert run.retries == []


def test_E6_a_spent_budget_fails_the_execution():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])

    def behave(launch):
        if launch.node_id == "a":
            raise Broken("worker gone")
        return "fine"

    run = drive(graph, behave, retry_policy=RetryPolicy(5, 0, 1), infrastructure_budget=2)
    assert len(run.inputs("a")) == 3
    assert run.failed is not None
    assert isinstance(run.failed.failure.exception, WorkerLostError)
    assert "3 times" in run.failed.message


def test_E6_a_spent_budget_goes_to_the_fallback():
    graph = graph_of(["a", "f"], [("start", "a"), ("a", "end")], fallbacks={"a": "f"})

    def behave(launch):
        if launch.node_id == "a":
            raise Broken("worker gone")
        return launch.node_id

    assert drive(graph, behave).inputs("end") == [("f",)]


def test_E7_the_fallback_gets_the_same_input_and_takes_the_nodes_place():
    graph = graph_of(
        ["a", "f", "x"], [("start", "a"), ("a", "x"), ("x", "end")], fallbacks={"a": "f"}
    )
    run = drive(graph, failing("a"))
    assert run.inputs("f") == run.inputs("a") == [("start",)]
    assert run.inputs("x") == [("f",)]
    (fallback,) = [launch for launch in run.launches if launch.node_id == "f"]
    assert (fallback.owner_id, fallback.key.role) == ("a", "fallback")


def test_E7_an_aggregators_fallback_gets_the_list():
    graph = graph_of(["a", "b", "j", "f"], DIAMOND, aggregators=["j", "f"], fallbacks={"j": "f"})
    run = drive(graph, failing("j"))
    assert run.inputs("f") == [("a", "b")]
    assert all(launch.as_list for launch in run.launches if launch.node_id == "f")


def test_E7_the_fallback_follows_its_own_policy_else_the_executors():
    graph = graph_of(
        ["a", "f"],
        [("start", "a"), ("a", "end")],
        fallbacks={"a": "f"},
        policies={"a": RetryPolicy(0, 0, 0), "f": RetryPolicy(2, 0, 1)},
    )
    run = drive(graph, failing("a", "f"), retry_policy=RetryPolicy(7, 0, 1))
    assert len(run.inputs("a")) == 1
    assert len(run.inputs("f")) == 3


def test_E7_a_failing_fallback_is_named_and_does_not_chain():
    graph = graph_of(
        ["a", "f", "g"], [("start", "a"), ("a", "end")], fallbacks={"a": "f", "f": "g"}
    )
    run = drive(graph, failing("a", "f"))
    assert run.failed is not None
    assert run.failed.node_id == "f"
    assert run.failed.message == "Fallback node failed: f failed"
    assert run.inputs("g") == []


def test_E7_fallbacks_run_beside_the_other_nodes():
    machine, (a, b) = started(
        graph_of(["a", "b", "j", "f"], DIAMOND, aggregators=["j"], fallbacks={"a": "f"})
    )
    commands = machine.handle([AttemptFailed(a.key, failure())])
    assert [c.node_id for c in commands if isinstance(c, Launch)] == ["f"]
    assert b.key.superstep == machine.superstep


def test_E8_the_first_failure_in_launch_order_is_named_and_the_rest_is_cancelled():
    machine, (a, b) = started(diamond())
    commands = machine.handle(
        [AttemptFailed(b.key, failure("late")), AttemptFailed(a.key, failure("early"))]
    )
    assert isinstance(commands[0], CancelRest)
    failed = commands[1]
    assert isinstance(failed, RunFailed)
    assert (failed.node_id, failed.message) == ("a", "early")
    assert failed.others == (("b", "late"),)


def test_E8_a_failure_ends_the_run_without_waiting_for_the_others():
    machine, (_, b) = started(diamond())
    commands = machine.handle([AttemptFailed(b.key, failure("late"))])
    assert [type(command) for command in commands] == [CancelRest, RunFailed]


def test_E9_a_superstep_timeout_names_the_first_unfinished_and_calls_no_fallback():
    graph = graph_of(["a", "b", "j", "f"], DIAMOND, aggregators=["j"], fallbacks={"b": "f"})
    machine, (a, _) = started(graph, superstep_timeout=2)
    machine.handle([AttemptSucceeded(a.key, "a")])
    commands = machine.handle([DeadlineExpired(machine.epoch, 1)])
    assert [type(command) for command in commands] == [CancelRest, RunFailed]
    assert (commands[1].node_id, commands[1].message) == ("b", "Execution timed out after 2s.")


def test_E9_waiting_retries_and_running_fallbacks_share_the_deadline():
    graph = graph_of(["a", "f"], [("start", "a"), ("a", "end")], fallbacks={"a": "f"})
    machine, (a,) = started(graph, superstep_timeout=0.5)
    machine.handle([AttemptFailed(a.key, failure())])
    commands = machine.handle([DeadlineExpired(machine.epoch, 1)])
    assert (commands[1].node_id, commands[1].message) == ("a", "Execution timed out after 0.5s.")


def test_E9_a_deadline_of_another_superstep_is_ignored():
    machine, (a, b) = started(diamond())
    assert machine.handle([DeadlineExpired(machine.epoch, 0)]) == []
    machine.handle([AttemptSucceeded(a.key, "a"), AttemptSucceeded(b.key, "b")])
    assert machine.phase is Phase.READY


def test_E9_what_finished_with_the_deadline_counts_as_finished():
    machine, (a, b) = started(diamond())
    done = [AttemptSucceeded(a.key, "a"), AttemptSucceeded(b.key, "b")]
    machine.handle([DeadlineExpired(machine.epoch, 1), *done])
    assert machine.phase is Phase.READY


def test_E10_the_first_timeout_asks_for_a_checkpoint_the_second_fails():
    machine, _ = started(diamond(), restore_on_timeout=True, superstep_timeout=1)
    commands = machine.handle([DeadlineExpired(machine.epoch, 1)])
    assert [type(command) for command in commands] == [CancelRest, RestoreCheckpoint]
    machine.restore(1, machine.frontier, None)
    machine.proceed()
    commands = machine.handle([DeadlineExpired(machine.epoch, 1)])
    assert [type(command) for command in commands] == [CancelRest, RunFailed]


def test_E11_a_conditional_edge_fires_to_the_sink_its_router_names():
    graph = graph_of(
        ["a", "x", "y"], [("start", "a"), ("a", ["x", "y"]), ("x", "end"), ("y", "end")]
    )
    assert drive(graph, route=lambda node_id, state: "y").supersteps[2] == ["y"]


def test_E11_concrete_and_conditional_edges_fire_together():
    graph = graph_of(
        ["a", "x", "y", "z"],
        [("start", "a"), ("a", ["x", "y"]), ("a", "z"), ("x", "end"), ("y", "end"), ("z", "end")],
    )
    assert drive(graph, route=lambda node_id, state: "y").supersteps[2] == ["y", "z"]


@pytest.mark.parametrize("answer", ["ghost", ""])
def test_E11_a_name_outside_the_sinks_fails_the_source(answer):
    graph = graph_of(["a", "x"], [("start", "a"), ("a", ["x", "end"]), ("x", "end")])
    run = drive(graph, route=lambda node_id, state: answer)
    assert run.failed is not None
    assert (run.failed.node_id, run.failed.message) == ("a", f"Invalid routing output: {answer!r}")


def test_E11_an_exception_in_a_router_is_the_sources_and_is_not_retried():
    graph = graph_of(["a", "x"], [("start", "a"), ("a", ["x", "end"]), ("x", "end")])
    machine, (a,) = started(graph, retry_policy=RetryPolicy(3, 0, 1))
    (ask,) = machine.handle([AttemptSucceeded(a.key, "a")])
    broken = failure("no way")
    event = RouterAnswered(ask.epoch, ask.superstep, ask.index, ask.edge, broken)
    commands = machine.handle([event])
    assert [type(command) for command in commands] == [CancelRest, RunFailed]
    assert (commands[1].node_id, commands[1].failure) == ("a", broken)


def test_E11_a_router_on_the_worker_is_not_asked_again():
    graph = graph_of(
        ["a", "x"], [("start", "a"), ("a", ["x", "end"]), ("x", "end")], router=on_worker
    )
    machine, (a,) = started(graph)
    assert a.worker_edges == (0,)
    machine.handle([AttemptSucceeded(a.key, "a", {0: "x"})])
    assert [activation.node_id for activation in machine.frontier] == ["x"]


def test_E11_a_router_that_failed_beside_its_node_wins_over_the_deadline():
    graph = graph_of(["a"], [("start", "a"), ("a", ["end"])], router=on_worker)
    machine, (a,) = started(graph)
    commands = machine.handle(
        [AttemptSucceeded(a.key, "a", {0: failure("no way")}), DeadlineExpired(machine.epoch, 1)]
    )
    assert [type(command) for command in commands] == [CancelRest, RunFailed]
    assert commands[1].message == "no way"


def test_E12_the_result_is_what_end_produced_last():
    graph = graph_of(["a", "b"], [("start", "a"), ("start", "end"), ("a", "b"), ("b", "end")])
    run = drive(graph)
    assert len(run.inputs("end")) == 2
    assert run.result == "end(b(a(start(i))))"


def test_E12_without_end_the_result_is_none():
    graph = graph_of(["a", "b"], [("start", "a"), ("a", ["b", "end"])])
    assert drive(graph, route=lambda node_id, state: "b").result is None


def test_E13_max_supersteps_reached_with_work_left_fails():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    run = drive(graph, max_supersteps=2)
    assert run.failed is not None
    assert (run.failed.node_id, run.failed.message) == ("N/A", "Max supersteps reached")


def test_E13_finishing_exactly_there_succeeds():
    graph = graph_of(["a"], [("start", "a"), ("a", "end")])
    assert drive(graph, max_supersteps=3).result == "end(a(start(i)))"


def test_E13_the_count_goes_on_after_a_resume():
    graph = graph_of(["a"], [("start", "a"), ("a", ["a", "end"])])
    machine = SuperstepMachine(graph, EngineOptions(max_supersteps=10))
    first = drive(graph, route=lambda node_id, state: "a", max_supersteps=5)
    machine.restore(5, first.machine.frontier, None)
    run = drive(graph, route=lambda node_id, state: "a", machine=machine)
    assert len(run.supersteps) == 5


def test_E14_the_counter_advances_at_each_barrier():
    assert [ended.superstep for ended in drive(diamond()).ended] == [1, 2, 3, 4]


def test_E15_after_a_failure_the_superstep_repeats_from_the_same_inputs():
    graph = diamond()
    run = drive(graph, failing("b"))
    before = run.machine.frontier
    run.machine.restart()
    again = drive(graph, machine=run.machine)
    assert again.supersteps[0] == [activation.node_id for activation in before] == ["a", "b"]
    assert again.launches[0].states == ("start",)
    assert again.result is not None


def test_fencing_a_late_twin_is_ignored():
    machine, (a, b) = started(diamond())
    machine.handle([AttemptFailed(a.key, failure(), infrastructure=True)])
    late = AttemptSucceeded(a.key, "from a worker thought lost")
    assert machine.handle([late, AttemptSucceeded(b.key, "b")]) == []
    machine.restart()
    assert machine.handle([late]) == []
    assert machine.phase is Phase.READY


def test_fencing_a_second_answer_is_ignored():
    machine, (a, b) = started(diamond())
    machine.handle([AttemptSucceeded(a.key, "first")])
    machine.handle([AttemptSucceeded(a.key, "second"), AttemptSucceeded(b.key, "b")])
    assert machine.frontier[0].states == ("first", "b")
