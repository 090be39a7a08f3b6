"""AI nodes, human nodes and tool-set nodes in programs."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from graphorch_ray import (
    AggregatorNode,
    AIActionBase,
    AINode,
    GraphBuilder,
    GraphExecutionError,
    GraphExecutor,
    HumanInTheLoopNode,
    InvalidAIActionOutput,
    InvalidNodeActionOutput,
    ProcessingNode,
    RetryPolicy,
    State,
    ToolSetNode,
    aggregator_action,
    node_action,
    routing_function,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::graphorch_ray.GraphWarning"),
]


def chain(*nodes):
    builder = GraphBuilder()
    before = "start"
    for node in nodes:
        builder.add_node(node)
        builder.add_concrete_edge(before, node.node_id)
        before = node.node_id
    builder.add_concrete_edge(before, "end")
    return builder.build_graph()


# --- models ------------------------------------------------------------------------------------


class Adder(AIActionBase):
    def build_model(self):
        self.model = self.config["amount"]
        self._model_built = True

    async def process_state(self, state):
        await asyncio.sleep(0)
        return State([m + self.model for m in state.messages])


class SyncAdder(Adder):
    def process_state(self, state):
        return State([m + self.model for m in state.messages])


@pytest.mark.parametrize("cls", [Adder, SyncAdder])
async def test_ai_node(cls):
    graph = chain(AINode("ai", "adds", cls({"amount": 10})))
    assert await GraphExecutor(graph, State([1, 2])).execute() == State([11, 12])


async def test_an_action_that_never_sets_its_model():
    class Label(AIActionBase):
        def build_model(self):
            self._model_built = True

        async def process_state(self, state):
            state.messages.append("ai")
            return state

    graph = chain(AINode(node_id="ai", description="labels", model_action=Label(config={})))
    assert "ai" in (await GraphExecutor(graph, State()).execute()).messages


async def test_the_model_is_built_once_for_many_visits(journal):
    class Counting(AIActionBase):
        def build_model(self):
            journal.write("built")
            self.model = object()
            self._model_built = True

        def process_state(self, state):
            return State([*state.messages, "visit"])

    @routing_function
    def five(state):
        return "end" if len(state.messages) == 5 else "ai"

    builder = GraphBuilder()
    builder.add_node(AINode("ai", "counts", Counting({})))
    builder.add_concrete_edge("start", "ai")
    builder.add_conditional_edge("ai", ["ai", "end"], five)
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["visit"] * 5
    assert journal.lines() == ["built"]


async def test_a_model_that_cannot_be_pickled_is_built_where_it_is_used():
    class Locked(AIActionBase):
        def build_model(self):
            self.model = threading.Lock()
            self._model_built = True

        def process_state(self, state):
            with self.model:
                return State(["locked"])

    action = Locked({})
    action.build_model()  # in the driver: not shipped
    assert await GraphExecutor(chain(AINode("ai", "d", action)), State()).execute() == State(
        ["locked"]
    )


async def test_wrong_output_and_failing_build():
    class Wrong(AIActionBase):
        def build_model(self):
            self._model_built = True

        async def process_state(self, state):
            return "text"

    class NoModel(Wrong):
        def build_model(self):
            raise FileNotFoundError("weights.bin")

    with pytest.raises(GraphExecutionError) as caught:
        await GraphExecutor(chain(AINode("ai", "d", Wrong({}))), State()).execute()
    assert caught.value.message == "AI action must return a state, but got str"
    assert isinstance(caught.value.__cause__, InvalidAIActionOutput)
    with pytest.raises(GraphExecutionError, match=r"at node 'ai': weights\.bin"):
        await GraphExecutor(chain(AINode("ai", "d", NoModel({}))), State()).execute()


async def test_ai_node_with_retry_and_fallback(journal):
    class Flaky(AIActionBase):
        def build_model(self):
            self._model_built = True

        def process_state(self, state):
            journal.write("ai")
            raise OSError("no capacity")

    @node_action
    def rules(state):
        return State(["rule"])

    builder = GraphBuilder()
    builder.add_node(AINode("ai", "d", Flaky({})))
    builder.add_node(ProcessingNode("rules", rules))
    builder.set_fallback_node("ai", "rules")
    builder.add_concrete_edge("start", "ai")
    builder.add_concrete_edge("ai", "end")
    executor = GraphExecutor(builder.build_graph(), State(), retry_policy=RetryPolicy(2, 0, 0))
    assert await executor.execute() == State(["rule"])
    assert journal.count("ai") == 3


async def test_one_action_in_two_nodes_and_a_function_in_an_ai_node():
    @node_action
    def act(state):
        return State([*state.messages, "f"])

    action = Adder({"amount": 1})
    graph = chain(AINode("a", "d", action), AINode("b", "d", action), AINode("c", "d", act))
    assert await GraphExecutor(graph, State([0])).execute() == State([2, "f"])


# --- people ------------------------------------------------------------------------------------


async def test_human_handlers_run_in_the_driver():
    seen = []

    def approve(state):
        seen.append(list(state.messages))
        return State([*state.messages, "approved"])

    @node_action
    async def sign(state):
        seen.append("signed")
        return State([*state.messages, "signed"])

    graph = chain(
        HumanInTheLoopNode("approve", approve, {"role": "boss"}),
        HumanInTheLoopNode("sign", sign, metadata={"role": "clerk"}),
    )
    final = await GraphExecutor(graph, State(["draft"])).execute()
    assert final.messages == ["draft", "approved", "signed"]
    assert seen == [["draft"], "signed"]


async def test_a_rejecting_human_goes_through_retry_and_fallback():
    asked = []

    def reject(state):
        asked.append(1)
        raise PermissionError("Nope")

    def deputy(state):
        return State(["deputy"])

    builder = GraphBuilder()
    builder.add_node(HumanInTheLoopNode("boss", reject))
    builder.add_node(HumanInTheLoopNode("deputy", deputy))
    builder.add_concrete_edge("start", "boss")
    builder.add_concrete_edge("boss", "end")
    graph = builder.build_graph()
    with pytest.raises(GraphExecutionError, match="Nope"):
        await GraphExecutor(graph, State(), retry_policy=RetryPolicy(1, 0, 0)).execute()
    assert len(asked) == 2
    builder.set_fallback_node("boss", "deputy")
    assert await GraphExecutor(builder.build_graph(), State()).execute() == State(["deputy"])


async def test_a_human_who_returns_nonsense():
    graph = chain(HumanInTheLoopNode("h", lambda state: "not a state"))
    with pytest.raises(GraphExecutionError, match="not a state") as caught:
        await GraphExecutor(graph, State()).execute()
    assert isinstance(caught.value.__cause__, InvalidNodeActionOutput)


async def test_a_human_loop_with_a_decision():
    answers = iter(["no", "no", "yes"])

    async def ask(state):
        return State([*state.messages, next(answers)])

    @routing_function
    def decided(state):
        return "end" if state.messages[-1] == "yes" else "ask"

    builder = GraphBuilder()
    builder.add_node(HumanInTheLoopNode("ask", ask))
    builder.add_concrete_edge("start", "ask")
    builder.add_conditional_edge("ask", ["ask", "end"], decided)
    final = await GraphExecutor(builder.build_graph(), State()).execute()
    assert final.messages == ["no", "no", "yes"]


# --- tool sets ---------------------------------------------------------------------------------


class ToolServer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: list

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, body))
        name = self.path.rpartition("/")[2]
        status, answer = 200, {"messages": [*body["messages"], "pong"]}
        if name == "silent":
            answer = {}
        elif name == "broken":
            status, answer = 500, {"detail": "broken"}
        elif not self.path.startswith("/tools/"):
            status, answer = 404, {"detail": "Not Found"}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    class Handler(ToolServer):
        requests: list = []  # noqa: RUF012

    class Server(ThreadingHTTPServer):
        request_queue_size = 64
        daemon_threads = True

    made = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_port}"
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


async def test_tool_set_node_directly(server):
    node = ToolSetNode(node_id="t", base_url=server.url + "/", tool_name="ping")
    state = State(["hello"])
    assert await node.execute(state) == State(["hello", "pong"])
    assert state == State(["hello"])
    assert server.RequestHandlerClass.requests == [("/tools/ping", {"messages": ["hello"]})]
    assert await ToolSetNode("t", server.url, "silent").execute(state) == State([])
    with pytest.raises(httpx.HTTPStatusError):
        await ToolSetNode("t", server.url, "broken").execute(state)
    with pytest.raises(httpx.HTTPStatusError):
        await ToolSetNode("t", f"{server.url}/nowhere", "ping").execute(state)


async def test_tool_set_node_with_nobody_there():
    with pytest.raises(httpx.RequestError):
        await ToolSetNode("t", "http://127.0.0.1:9", "ping").execute(State())


async def test_tool_set_nodes_in_a_graph(server):
    graph = chain(ToolSetNode("a", server.url, "ping"), ToolSetNode("b", server.url, "ping"))
    assert await GraphExecutor(graph, State(["A"])).execute() == State(["A", "pong", "pong"])


async def test_a_failing_tool_in_a_graph(server):
    graph = chain(ToolSetNode("a", server.url, "broken"))
    executor = GraphExecutor(graph, State(), retry_policy=RetryPolicy(2, 0, 0))
    with pytest.raises(GraphExecutionError, match="500") as caught:
        await executor.execute()
    assert caught.value.node_id == "a"
    assert isinstance(caught.value.__cause__, httpx.HTTPStatusError)
    assert len(server.RequestHandlerClass.requests) == 3


async def test_many_calls_at_once(server):
    node = ToolSetNode("t", server.url, "ping")
    results = await asyncio.gather(*(node.execute(State([n])) for n in range(20)))
    assert results == [State([n, "pong"]) for n in range(20)]

    @aggregator_action
    def count(states):
        return State([len(states), {m for s in states for m in s.messages}])

    builder = GraphBuilder()
    builder.add_aggregator(AggregatorNode("agg", count))
    for n in range(10):
        builder.add_node(ToolSetNode(f"t{n}", server.url, f"tool{n}"))
        builder.add_concrete_edge("start", f"t{n}")
        builder.add_concrete_edge(f"t{n}", "agg")
    builder.add_concrete_edge("agg", "end")
    final = await GraphExecutor(builder.build_graph(), State([1]), max_workers=10).execute()
    assert final == State([10, {1, "pong"}])


async def test_a_replaced_client(monkeypatch):
    class Response:
        status_code = 200

        def raise_for_status(self):
            pass

        def json(self):
            return {"messages": ["hello", "pong"]}

    class Client:
        def __init__(self, *args, **kwargs):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *args):
            return False

        async def post(self, url, json, timeout):
            assert url == "http://example.com/api/tools/ping"
            assert timeout == 10.0
            if json["messages"] == ["fail"]:
                raise httpx.RequestError("permanent failure")
            return Response()

    monkeypatch.setattr(ToolSetNode.httpx, "AsyncClient", Client)
    node = ToolSetNode(node_id="t", base_url="http://example.com/api/", tool_name="ping")
    assert await node.execute(State(["hello"])) == State(["hello", "pong"])
    with pytest.raises(httpx.RequestError, match="permanent failure"):
        await node.execute(State(["fail"]))


async def test_a_tool_set_node_with_a_replaced_client_in_a_graph(monkeypatch):
    class Response:
        status_code = 200

        def raise_for_status(self):
            pass

        def json(self):
            return {"messages": ["A", "pong"]}

    class Client:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *args):
            return False

        async def post(self, url, json, timeout):
            return Response()

    monkeypatch.setattr(httpx, "AsyncClient", Client)
    graph = chain(ToolSetNode(node_id="t", base_url="http://example.com", tool_name="ping"))
    assert await GraphExecutor(graph, State(["A"])).execute() == State(["A", "pong"])
