"""Large states stay in the object store: the driver never holds their bytes."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import psutil
import pyarrow as pa
import pytest

from graphorch_ray import GraphExecutor, ProcessingNode, State, node_action

from .nodes import chain, star

pytestmark = pytest.mark.usefixtures("ray_session")

MEGABYTE = 2**20


class PrivateMemory:
    """The most private memory (USS) that this process had, above what it began with."""

    def __enter__(self):
        gc.collect()
        self._process = psutil.Process()
        self._start = self._most = self._process.memory_full_info().uss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._over.wait(0.02):
            self._most = max(self._most, self._process.memory_full_info().uss)

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    @property
    def grown(self):
        return self._most - self._start


@node_action
def make_array(state):
    return State([np.ones(200 * MEGABYTE // 8)])


@node_action
def next_array(state):
    return State([state.messages[0] + 1])


@node_action
def make_table(state):
    return State([pa.table({"x": np.ones(200 * MEGABYTE // 8)})])


@node_action
def next_table(state):
    table = state.messages[0]
    return State([table.set_column(0, "x", pa.array(table["x"].to_numpy() + 1))])


@node_action
def total(state):
    value = state.messages[0]
    first = value["x"][0].as_py() if isinstance(value, pa.Table) else float(value[0])
    return State([first])


@pytest.mark.parametrize(
    ("first", "then"), [(make_array, next_array), (make_table, next_table)], ids=["numpy", "arrow"]
)
def test_200_mb_through_ten_nodes_stay_out_of_the_driver(first, then):
    nodes = [ProcessingNode(f"n{i}", then) for i in range(9)]
    graph = chain(ProcessingNode("first", first), *nodes, ProcessingNode("last", total))
    with PrivateMemory() as memory:
        result = GraphExecutor(graph, State([]), backend="ray").run()
    assert result == State([10.0])
    assert memory.grown < 50 * MEGABYTE


def test_fan_out_shares_one_object_and_nothing_is_left_in_the_store():
    import ray

    @node_action
    def one_number(state):
        return State([float(state.messages[0][0])])

    @node_action
    def array(state):
        return State([np.ones(50 * MEGABYTE // 8)])

    from graphorch_ray import AggregatorNode, GraphBuilder

    from .nodes import gather

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("source", array))
    builder.add_aggregator(AggregatorNode("join", gather))
    builder.add_concrete_edge("start", "source")
    for i in range(16):  # 16 private copies would not fit into the store
        builder.add_node(ProcessingNode(f"n{i}", one_number))
        builder.add_concrete_edge("source", f"n{i}")
        builder.add_concrete_edge(f"n{i}", "join")
    builder.add_concrete_edge("join", "end")
    before = ray.available_resources().get("object_store_memory", 0)
    result = GraphExecutor(builder.build_graph(), State([]), backend="ray").run()
    assert result.messages == [[1.0]] * 16
    gc.collect()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if ray.available_resources().get("object_store_memory", 0) >= before - MEGABYTE:
            break
        time.sleep(0.1)
    assert ray.available_resources()["object_store_memory"] >= before - MEGABYTE


def test_a_large_result_survives_the_run_and_is_read_only():
    graph = chain(ProcessingNode("first", make_array))
    executor = GraphExecutor(graph, State([]), backend="ray")
    result = executor.run()
    assert result.messages[0].sum() == 200 * MEGABYTE // 8
    assert executor.final_state is result


def test_large_states_join_by_reference():
    graph = star(*[ProcessingNode(f"n{i}", make_small) for i in range(4)])
    result = GraphExecutor(graph, State([]), backend="ray").run()
    assert [messages[0].nbytes for messages in result.messages] == [4 * MEGABYTE] * 4


@node_action
def make_small(state):
    return State([np.zeros(4 * MEGABYTE // 8)])


def test_a_chain_of_large_states_holds_one_and_not_all():
    """Without the help of the garbage collector, which may not run for a long time."""
    import ray

    @node_action
    def free_store(state):
        return State([ray.available_resources().get("object_store_memory", 0)])

    nodes = [ProcessingNode(f"n{i}", next_small) for i in range(12)]
    graph = chain(ProcessingNode("first", make_small), *nodes, ProcessingNode("last", free_store))
    gc.collect()
    gc.disable()
    try:
        before = ray.available_resources()["object_store_memory"]
        (left,) = GraphExecutor(graph, State([]), backend="ray").run().messages
    finally:
        gc.enable()
    assert before - left <= 5 * 4 * MEGABYTE  # of 13 states of 4 MB


@node_action
def next_small(state):
    time.sleep(0.15)  # what is available is told with some delay
    return State([state.messages[0] + 1])
