"""The smallest graph: two nodes, one after the other. `python examples/hello_graph.py`"""

from graphorch_ray import GraphBuilder, GraphExecutor, ProcessingNode, State, node_action


@node_action
def greet(state: State) -> State:
    return State([f"Hello, {name}" for name in state.messages])


@node_action
def shout(state: State) -> State:
    return State([message.upper() + "!" for message in state.messages])


def main() -> None:
    builder = GraphBuilder("hello")
    builder.add_node(ProcessingNode("greet", greet))
    builder.add_node(ProcessingNode("shout", shout))
    builder.add_concrete_edge("start", "greet")
    builder.add_concrete_edge("greet", "shout")
    builder.add_concrete_edge("shout", "end")
    print(GraphExecutor(builder.build_graph(), State(["world"])).run())


if __name__ == "__main__":
    main()
