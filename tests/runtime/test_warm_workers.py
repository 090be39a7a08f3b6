"""Warm workers: processes that are kept for a run's sync nodes, and treated as tasks are."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import numpy as np
import psutil
import pytest

from graphorch_ray import (
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    node_action,
    routing_function,
)
from graphorch_ray.runtime.on_ray import connections, warm_workers
from graphorch_ray.runtime.on_ray.connections import Address, DriverLine, Exchange
from graphorch_ray.runtime.on_ray.warm_workers import WarmWorker

from .nodes import echo, fallback, once, star
from .test_stretches import line_of, loop_of, short_is_short_on_a_busy_machine, until

pytestmark = pytest.mark.usefixtures("ray_session", short_is_short_on_a_busy_machine.__name__)

TURNS = 3_000  # an actor is there in a second or two; nobody needs as many


def actor_id():
    import ray

    return ray.get_runtime_context().get_actor_id()


def task_id():
    """Whatever runs in one warm worker is in one task of Ray's."""
    import ray

    return ray.get_runtime_context().get_task_id()


_seen: dict[str, int] = {}


def in_warm_worker():
    """Whether this process has run something in this very task before."""
    _seen[task_id()] = _seen.get(task_id(), 0) + 1
    return _seen[task_id()] > 1


@node_action
def note_task(state):
    turn, *seen = state.messages
    return State([turn + 1, *seen, task_id()])


@pytest.fixture
def begun(monkeypatch):
    """The warm workers that are begun."""
    found = []
    init = WarmWorker.__init__

    def counting(self, *given):
        found.append(self)
        init(self, *given)

    monkeypatch.setattr(WarmWorker, "__init__", counting)
    return found


def tasks_of_loop(turns, **options):
    """The tasks that the turns of a loop ran in, its router in the driver."""
    graph = loop_of(note_task, until(turns, "driver"))
    executor = GraphExecutor(graph, State([0]), backend="ray", **options)
    count, *tasks = executor.run(max_supersteps=turns + 2).messages
    assert count == turns == len(tasks)
    return tasks


# --- when there is one ----------------------------------------------------------------------------


def test_auto_keeps_a_warm_worker_where_a_run_waits_for_round_trips_alone():
    assert len(set(tasks_of_loop(30))) == 1


def test_after_a_crash_the_third_short_call_starts_another(tmp_path, begun):
    @node_action
    def dies(state):
        turn, *seen = state.messages
        if turn == 5 and once(str(tmp_path / "died")):
            os.kill(os.getpid(), signal.SIGKILL)
        return State([turn + 1, *seen, task_id()])

    executor = GraphExecutor(loop_of(dies, until(30, "driver")), State([0]), backend="ray")
    _, *tasks = executor.run(max_supersteps=40).messages
    assert (tmp_path / "died").exists()
    assert len(begun) == 2
    assert len(set(tasks[:5])) == len(set(tasks[10:])) == 1


def test_functions_that_are_not_known_share_the_process_that_the_first_one_began(begun):
    nodes = [ProcessingNode(f"n{i}", node_action(lambda state: State([*state.messages, task_id()])))
             for i in range(6)]  # fmt: skip
    executor = GraphExecutor(line_of(nodes), State([]), backend="ray")
    assert len(set(executor.run().messages)) == 1
    assert len(begun) == 1


def test_tasks_keeps_none():
    assert len(set(tasks_of_loop(30, pool="tasks"))) == 30


def test_a_node_that_wants_a_process_to_itself_gets_tasks(begun):
    graph = loop_of(note_task, until(20, "driver"), batch=False)
    _, *tasks = GraphExecutor(graph, State([0]), backend="ray").run().messages
    assert len(set(tasks)) == 20
    assert not begun


def test_behind_a_batch_there_is_one_for_each_core(begun):
    nodes = [ProcessingNode(f"n{i}", note_task) for i in range(400)]
    executor = GraphExecutor(star(*nodes), State([0]), backend="ray", max_workers=50)
    tasks = [messages[1] for messages in executor.run().messages]
    assert 1 <= len(begun) <= 2
    assert len(set(tasks)) <= 10


def test_actors_keeps_actors_and_ends_them_with_the_run():
    @node_action
    def note_actor(state):
        turn, *seen = state.messages
        return State([turn + 1, *seen, *([os.getpid()] if actor_id() else [])])

    @routing_function
    def until_actors(state):
        return "end" if len(state.messages) > 3 or state.messages[0] >= TURNS else "work"

    graph = loop_of(note_actor, until_actors)
    executor = GraphExecutor(graph, State([0]), backend="ray", pool="actors")
    _, *pids = executor.run(max_supersteps=TURNS + 2).messages
    assert len(pids) == 3
    psutil.wait_procs([psutil.Process(pid) for pid in set(pids) if psutil.pid_exists(pid)], 5)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool must be one of 'auto', 'tasks', 'actors'"):
        GraphExecutor(star(ProcessingNode("a", echo)), State([1]), pool="threads")


def test_one_that_is_idle_is_let_go(monkeypatch, begun):
    monkeypatch.setattr(warm_workers, "IDLE_SECONDS", 0.0)

    @routing_function
    async def slow(state):
        await asyncio.sleep(0.02)
        return "end" if state.messages[0] >= 8 else "work"

    executor = GraphExecutor(loop_of(note_task, slow), State([0]), backend="ray")
    assert executor.run().messages[0] == 8
    assert len(begun) > 1


def test_what_needs_its_resources_gets_them(begun):
    @node_action(num_cpus=2)
    def wide(state):
        return State([*state.messages, "wide"])

    @routing_function
    def on(state):
        return "wide" if state.messages[0] >= 20 else "work"

    from graphorch_ray import GraphBuilder

    builder = GraphBuilder()
    builder.add_node(ProcessingNode("work", note_task))
    builder.add_node(ProcessingNode("wide", wide))
    builder.add_concrete_edge("start", "work")
    builder.add_conditional_edge("work", ["work", "wide"], on)
    builder.add_concrete_edge("wide", "end")
    executor = GraphExecutor(builder.build_graph(), State([0]), backend="ray", pool="auto")
    assert executor.run().messages[-1] == "wide"
    assert begun


# --- what goes over the connection ----------------------------------------------------------------


def test_large_states_go_and_come_as_references(begun):
    @node_action
    def grow(state):
        turn, _, *seen = state.messages
        return State([turn + 1, np.full(100_000, turn + 1.0), *seen, task_id()])

    graph = loop_of(grow, until(30, "driver"))
    executor = GraphExecutor(graph, State([0, None]), backend="ray")
    turn, array, *tasks = executor.run().messages
    assert float(array[0]) == turn == 30
    assert array.shape == (100_000,)
    assert len(begun) == 1
    assert len(set(tasks)) == 1


def test_code_is_sent_once(monkeypatch):
    sent = []
    send = connections.Connection.send

    def counting(self, frame):
        sent.append(len(frame))
        send(self, frame)

    monkeypatch.setattr(connections.Connection, "send", counting)
    table = bytes(range(256)) * 20  # part of the function's pickle

    @node_action
    def with_table(state):
        return State([state.messages[0] + table[1]])

    graph = loop_of(with_table, until(20, "driver"))
    assert GraphExecutor(graph, State([0]), backend="ray").run().messages == [20]
    assert len(sent) > 10
    assert max(sent) < len(table)


def test_code_that_is_large_goes_by_tasks(begun):
    table = bytes(range(256)) * 400

    @node_action
    def with_table(state):
        return State([state.messages[0] + table[1]])

    graph = loop_of(with_table, until(20, "driver"))
    assert GraphExecutor(graph, State([0]), backend="ray").run().messages == [20]
    assert not begun


def test_a_wide_superstep_shares_actors_with_tasks():
    nodes = [ProcessingNode(f"n{i}", note_task) for i in range(300)]
    bad = ProcessingNode("bad", fallback)
    graph = star(*nodes, bad)
    executor = GraphExecutor(graph, State([0]), backend="ray", pool="actors", max_workers=4)
    answers = executor.run().messages
    assert len(answers) == 301
    assert all(executor.summary.nodes[node.node_id].attempts == 1 for node in nodes)


# --- faults ---------------------------------------------------------------------------------------


def kept(action, pool="auto", **options):
    """Run a loop until its state's last message is True."""

    @routing_function
    def on(state):
        return "end" if state.messages[-1] is True else "work"

    executor = GraphExecutor(
        loop_of(action, on, **options),
        State([0, False]),
        backend="ray",
        pool=pool,
        retry_policy=RetryPolicy(1, 0),
    )
    return executor, executor.run(max_supersteps=TURNS, superstep_timeout=60)


@pytest.mark.parametrize("pool", ["auto", "actors"])
def test_E6_a_warm_worker_that_dies_is_replaced_and_charged(tmp_path, pool):
    @node_action
    def dies(state):
        turn = state.messages[0]
        if not (actor_id() if pool == "actors" else in_warm_worker()):
            return State([turn + 1, False])
        if once(str(tmp_path / "died")):
            os.kill(os.getpid(), signal.SIGKILL)
        return State([turn + 1, True])

    executor, state = kept(dies, pool)
    assert state.messages[-1] is True
    assert (tmp_path / "died").exists()
    assert executor.summary.workers_lost == 1
    assert executor.summary.infrastructure_failures == 1


@pytest.mark.parametrize("pool", ["auto", "actors"])
def test_E9_a_timeout_kills_a_warm_worker_and_is_the_nodes_own(tmp_path, pool):
    @node_action
    def hangs(state):
        turn = state.messages[0]
        if not (actor_id() if pool == "actors" else in_warm_worker()):
            return State([turn + 1, False])
        if once(str(tmp_path / "hung")):
            time.sleep(600)
        return State([turn + 1, True])

    executor, state = kept(hangs, pool, timeout=3.0)
    assert state.messages[-1] is True
    assert executor.summary.nodes["work"].timeouts == 1
    assert executor.summary.workers_lost == 0


def test_a_connection_that_breaks_costs_nothing(begun, tmp_path):
    """What the worker has to say comes through Ray then, and the next call starts another one."""
    cut = []

    @node_action
    def slow(state):
        turn, *seen = state.messages
        if turn == 10:
            time.sleep(0.3)
        with open(tmp_path / "runs", "a") as file:
            file.write("x")
        return State([turn + 1, *seen, task_id()])

    @routing_function
    async def on(state):
        if state.messages[0] == 10:
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, cut.append, True)
            loop.call_later(0.1, begun[0]._connection._transport.abort)
        return "end" if state.messages[0] >= 20 else "work"

    executor = GraphExecutor(loop_of(slow, on), State([0]), backend="ray")
    turn, *tasks = executor.run().messages
    assert turn == 20
    assert cut
    assert tasks[10] == tasks[9] != tasks[11]
    assert (tmp_path / "runs").read_text() == "x" * 20
    assert executor.summary.workers_lost == 0


@pytest.fixture
def slow_connections(monkeypatch):
    """Each lone call starts a warm worker, and what that sends takes half a second."""
    for name in ("data_received", "connection_lost"):
        original = getattr(connections.Connection, name)

        def late(self, said, original=original):
            asyncio.get_running_loop().call_later(0.5, original, self, said)

        monkeypatch.setattr(connections.Connection, name, late)
    monkeypatch.setattr(warm_workers, "LONE_CALLS", 0)
    monkeypatch.setattr(warm_workers, "LAST_WORDS_SECONDS", 5.0)


def enter(folder, turn):
    """Note, outside of all states, that a turn has run."""
    with open(folder / "ledger", "a") as ledger:
        ledger.write(f"{turn} ")


def entered(folder):
    """The turns that have run, in order."""
    return [int(turn) for turn in (folder / "ledger").read_text().split()]


@pytest.mark.usefixtures("slow_connections")
def test_what_overtakes_the_connection_waits_for_it(begun, tmp_path):
    """Small states come over the connection, large ones through Ray: in order all the same."""

    @node_action
    def now_and_then_large(state):
        turn = state.messages[0] + 1
        enter(tmp_path, turn)
        time.sleep(0.003)  # several reports of one call
        return State([turn, "x" * (100_000 if turn % 25 == 0 else 1)])

    graph = loop_of(now_and_then_large, until(120))
    executor = GraphExecutor(graph, State([0]), backend="ray", pool="auto")
    answer = executor.run(max_supersteps=200, superstep_timeout=20)
    assert answer.messages[0] == 120
    assert begun
    assert entered(tmp_path) == [*range(1, 121)]


@pytest.mark.usefixtures("slow_connections")
def test_last_words_are_heard_before_the_death(begun, tmp_path):
    """What had been said when the process died still counts, however late it is read."""

    @node_action
    def dies_at_60(state):
        turn = state.messages[0] + 1
        enter(tmp_path, turn)
        time.sleep(0.003)
        if turn == 60 and once(str(tmp_path / "died")):
            time.sleep(0.2)  # what came before is reported
            os.kill(os.getpid(), signal.SIGKILL)
        return State([turn])

    executor = GraphExecutor(loop_of(dies_at_60, until(100)), State([0]), backend="ray")
    assert executor.run(max_supersteps=200).messages == [100]
    assert begun
    assert (tmp_path / "died").exists()
    assert sorted(entered(tmp_path)) == [*range(1, 61), *range(60, 101)]


def test_where_the_driver_cannot_be_reached_calls_go_by_tasks(monkeypatch, begun):
    with socket.create_server(("127.0.0.1", 0)) as other:
        nobody = other.getsockname()[1]
    address = Exchange.address

    def wrong(self):
        right = address(self)
        return right and right._replace(port=nobody)

    monkeypatch.setattr(Exchange, "address", wrong)
    assert len(set(tasks_of_loop(30))) == 30
    assert 1 <= len(begun) <= 2


# --- who may connect ------------------------------------------------------------------------------


class Told:
    """Notes what it is told."""

    def __init__(self):
        self.frames = []
        self.connection = None
        self.gone = asyncio.Event()

    def connected(self, connection):
        self.connection = connection

    def received(self, frame):
        self.frames.append(frame)
        self.connection.close()
        self.gone.set()

    def hung_up(self):
        self.gone.set()


def exchanged(use):
    """Run `use(address)` in a thread, beside an exchange that expects one worker."""

    async def go():
        exchange, told = Exchange(), Told()
        address = exchange.address()
        exchange.expect(address, told)
        answer = await asyncio.to_thread(use, address)
        if answer is None:
            await asyncio.wait_for(told.gone.wait(), 10)
        await exchange.close()
        return answer, told

    return asyncio.run(go())


def heard(address: Address, greeting: bytes) -> bytes:
    """What somebody is told who says this."""
    with socket.create_connection(address[:2], timeout=10) as line:
        line.sendall(greeting)
        try:
            return line.recv(100)
        except ConnectionResetError:
            return b""


def test_a_worker_says_who_it_is_and_is_heard():
    def use(address):
        line = DriverLine(address)
        line.send(b"frame")
        assert list(line.frames()) == []  # the driver has hung up
        line.close()

    _, told = exchanged(use)
    assert told.frames == [b"frame"]


@pytest.mark.parametrize("what", ["secret", "number"])
def test_who_does_not_know_the_secret_or_is_not_expected_is_told_nothing(what):
    def use(address):
        secret, number = address.secret[:32], address.number
        if what == "secret":
            secret = bytes(32)
        else:
            number += 1
        return heard(address, secret + number.to_bytes(8, "big"))

    answer, told = exchanged(use)
    assert answer == b""
    assert told.connection is None


def test_who_says_nothing_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(connections, "HELLO_SECONDS", 0.05)
    answer, told = exchanged(lambda address: heard(address, b"half"))
    assert answer == b""
    assert told.connection is None


def test_a_driver_that_does_not_know_the_secret_is_not_obeyed():
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        host, port = impostor.getsockname()
        line = DriverLine(Address(host, port, 1, bytes(range(64))))
        other, _ = impostor.accept()
        other.sendall(bytes(32) + (3).to_bytes(8, "big") + b"job")
        assert list(line.frames()) == []
        assert other.recv(100) == bytes(range(32)) + (1).to_bytes(8, "big")
        other.close()
        line.close()


def test_where_ray_encrypts_there_are_no_connections(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert Exchange().address() is None
