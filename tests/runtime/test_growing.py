"""Machines that come and go while a run lasts, as far as one machine can show it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray import (
    GraphExecutor,
    GraphWarning,
    ProcessingNode,
    State,
    node_action,
)
from graphorch_ray.runtime.on_ray.capacity import Capacity, ClusterWatch
from graphorch_ray.runtime.on_ray.lane_table import LaneTable
from graphorch_ray.runtime.on_ray.resources import (
    NODE_GROUP_LABEL,
    Ledger,
    Machine,
    machines_to_come,
)
from graphorch_ray.runtime.pool import RunContext

from .nodes import echo, star


def cluster(*cpus: float) -> list[Machine]:
    return [Machine({"CPU": float(cpu)}, {}) for cpu in cpus]


def context(graph, max_workers: int = 4) -> RunContext:
    return RunContext(
        graph=graph,
        run_id="r",
        branch=lambda: "",
        max_workers=max_workers,
        deliver=lambda events: None,
        warn=lambda text: None,
    )


# --- the ledger ------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("resize"), st.lists(st.integers(0, 8), max_size=4)),
            st.tuples(st.just("take"), st.integers(1, 3)),
            st.tuples(st.just("give"), st.integers(1, 3)),
        )
    )
)
def test_E4_the_ledger_knows_what_is_free_whatever_comes_and_goes(steps):
    ledger, total, taken = Ledger(cluster(4)), 4, []
    for step, value in steps:
        if step == "resize":
            ledger.resize(cluster(*value))
            total = sum(value)
        elif step == "take":
            ledger.take({"CPU": value})
            taken.append(value)
        elif value in taken:
            ledger.give({"CPU": value})
            taken.remove(value)
        free = total - sum(taken)
        assert ledger.fits({"CPU": free}) or free < 0
        assert not ledger.fits({"CPU": free + 1})


def test_E4_what_is_still_to_come_is_told_apart_from_what_is_there():
    ledger = Ledger(cluster(2), cluster(8))
    assert ledger.fits_now({"CPU": 2})
    ledger.take({"CPU": 2})
    assert ledger.fits({"CPU": 8})
    assert not ledger.fits_now({"CPU": 1})
    ledger.resize(cluster(2, 8))  # it has come
    assert ledger.fits_now({"CPU": 8})


# --- what an autoscaler says -----------------------------------------------------------------


def test_E4_machines_of_a_group_that_are_there_count_against_its_limit(monkeypatch):
    from ray._private import state
    from ray.core.generated import autoscaler_pb2

    config = autoscaler_pb2.ClusterConfig()
    for name, limit in (("small", 3), ("full", 1), ("endless", -1)):
        config.node_group_configs.add(name=name, max_count=limit).resources["CPU"] = 4
    monkeypatch.setattr(state.state, "get_cluster_config", lambda: config)
    there = [Machine({"CPU": 4.0}, {NODE_GROUP_LABEL: name}) for name in ("small", "full", "full")]
    config.node_group_configs.pop()
    assert len(machines_to_come(there)) == 2  # of "small"
    assert len(machines_to_come(())) == 4


def test_E4_where_groups_do_not_tell_their_limits_as_much_again_may_come(monkeypatch):
    from ray._private import state

    monkeypatch.setattr(state.state, "get_cluster_config", lambda: None)
    there = [Machine({"CPU": 2.0, "node:10.0.0.1": 1.0}, {NODE_GROUP_LABEL: "workers"})]
    requests = [{"CPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}]
    to_come = machines_to_come(there, requests)
    assert [machine.resources for machine in to_come] == [{"GPU": 1.0}, {"CPU": 2.0}]
    assert machines_to_come(cluster(2), requests) == [], "these are in no group"


def test_E4_nodes_ask_for_whole_cores_where_an_autoscaler_can_add_them(monkeypatch):
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.machines", lambda held: cluster(0))
    graph = star(*(ProcessingNode(f"n{i}", echo) for i in range(4)))
    monkeypatch.setattr(
        "graphorch_ray.runtime.on_ray.capacity.machines_to_come",
        lambda present, requests: cluster(2),
    )
    capacity = Capacity(context(graph, 4), 0.0)
    assert (capacity.share, capacity.grows) == (1.0, True)
    assert all(capacity.ledger.fits({"CPU": cpus}) for cpus in (1, 2))
    monkeypatch.setattr(
        "graphorch_ray.runtime.on_ray.capacity.machines_to_come", lambda present, requests: []
    )
    capacity = Capacity(context(graph, 4), 0.0)
    assert (capacity.share, capacity.grows) == (0.0, False)


# --- looking -----------------------------------------------------------------------------------


async def test_the_cluster_is_looked_at_once_a_second_at_most(monkeypatch):
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.LOOK_SECONDS", 0.1)
    looked: list[bool] = []

    class Known:
        def look(self):
            return None

        def take_in(self, found):
            if len(looked) == 1:
                raise ConnectionError("Ray does not answer")
            return True

    watch = ClusterWatch(looked.append)
    watch.begin(Known())  # type: ignore[arg-type]
    began = time.monotonic()
    while len(looked) < 3:
        for _ in range(100):
            watch.look_soon()
        await asyncio.sleep(0)
    assert time.monotonic() - began >= 0.3
    assert looked == [True, False, True]
    watch.look_soon()
    watch.close()
    await asyncio.sleep(0.2)
    assert len(looked) == 3


# --- runs --------------------------------------------------------------------------------------


def meeting(folder: Path, node_id: str, others: int):
    """A node that ends when `others` run beside it."""
    path = str(folder)

    @node_action(num_cpus=1, batch=False)
    def meet(state):
        import time
        from pathlib import Path

        Path(path, node_id).touch()
        while len(list(Path(path).iterdir())) <= others:
            time.sleep(0.01)
        return state

    return ProcessingNode(node_id, meet)


def test_E4_a_machine_that_is_added_takes_what_waits(monkeypatch, tmp_path, ray_session):
    there = cluster(1)
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.machines", lambda held: list(there))

    def add(event):
        if event.name == "node_execution_attempt" and len(there) == 1:
            there.append(cluster(1)[0])

    graph = star(*(meeting(tmp_path, f"n{i}", 1) for i in range(2)))
    executor = GraphExecutor(graph, State([]), backend="ray")
    executor.add_observer(add)
    assert executor.run(superstep_timeout=60) == State([[], []])
    assert len(there) == 2, "the second machine came while the first node ran"


def test_E4_a_machine_that_has_gone_is_reckoned_with_no_longer(monkeypatch):
    there = cluster(2, 2)
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.machines", lambda held: list(there))
    monkeypatch.setattr(
        "graphorch_ray.runtime.on_ray.capacity.machines_to_come", lambda present, requests: []
    )
    capacity = Capacity(context(star(ProcessingNode("n", echo)), 4), 0.0)
    assert (capacity.cores, capacity.share) == (4, 1.0)
    for _ in range(3):
        capacity.ledger.take({"CPU": 1})
    del there[0]
    assert capacity.take_in(capacity.look())
    assert (capacity.cores, capacity.share, capacity.alone) == (2, 0.5, False)
    assert not capacity.ledger.fits({"CPU": 0.5})  # what ran there is not reported lost yet
    assert not capacity.take_in(capacity.look()), "nothing new"


def test_E4_what_waits_asks_for_the_share_of_the_cluster_as_it_is(
    monkeypatch, tmp_path, ray_session
):
    there = cluster(1)
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.machines", lambda held: list(there))
    monkeypatch.setattr("graphorch_ray.runtime.on_ray.capacity.process_limit", lambda machines: 1)
    path, shares = str(tmp_path), []

    @node_action(batch=False)
    def hold(state):
        import time
        from pathlib import Path

        import ray

        while not Path(path, "added").exists():
            time.sleep(0.01)
        return State([ray.get_runtime_context().get_assigned_resources()["CPU"]])

    def add(event):
        if event.name == "node_execution_attempt" and len(there) == 1:
            there.append(cluster(1)[0])

    real = Capacity.take_in

    def take_in(self, found):
        news = real(self, found)
        if news:
            shares.append(self.share)
            Path(path, "added").touch()
        return news

    monkeypatch.setattr(Capacity, "take_in", take_in)
    graph = star(*(ProcessingNode(f"n{i}", hold) for i in range(3)))
    executor = GraphExecutor(graph, State([]), 2, backend="ray")
    executor.add_observer(add)
    with pytest.warns(GraphWarning, match="memory is good for about 1"):
        assert executor.run(superstep_timeout=60) == State([[0.5], [1.0], [1.0]])
    assert shares == [1.0]


class StubLane:
    """A lane that waits for resources, or one that holds some."""

    def __init__(self, waiting: int, ready: bool) -> None:
        self.queue = [SimpleNamespace(order=number) for number in range(waiting)]
        self.is_ready, self.released = ready, 0

    def ready(self):
        return self.is_ready

    def starved(self):
        return True

    def release_idle(self):
        self.released += 1
        return True


@pytest.mark.parametrize(("grows", "ready", "released"), [(True, True, 1), (False, True, 0)])
def test_E4_what_is_idle_is_given_up_before_a_machine_is_asked_for(grows, ready, released):
    table = LaneTable(SimpleNamespace(capacity=SimpleNamespace(grows=grows)))  # type: ignore[arg-type]
    waits, idle = StubLane(1, ready), StubLane(0, False)
    table._lanes.update(waits=waits, idle=idle)  # type: ignore[dict-item]
    assert table.next(idle=False) is waits
    assert (idle.released, waits.released) == (released, 0)
