"""A person in the loop: the graph drafts, somebody at the terminal decides, the graph goes on.

    python examples/human_approval.py
    printf 'shorter\nyes\n' | python examples/human_approval.py

A `HumanInTheLoopNode` always runs in this process, where the terminal is, and holds none of the
`max_workers` slots while it waits. Everything else runs on workers.
"""

from __future__ import annotations

from graphorch_ray import (
    Graph,
    GraphBuilder,
    GraphExecutor,
    HumanInTheLoopNode,
    ProcessingNode,
    State,
    node_action,
    routing_function,
)

DRAFTS = (
    "Dear all, after long thought and much debate we shall very probably meet on Monday.",
    "Dear all, we shall meet on Monday.",
    "Monday.",
)


@node_action
def draft(state: State) -> State:
    """State: the verdicts so far, the newest last. Out: those, and a new draft."""
    shorter = state.messages.count("shorter")
    return State([*state.messages, DRAFTS[min(shorter, len(DRAFTS) - 1)]])


def ask(state: State) -> State:
    """Needs no decorator: the node adds it."""
    *verdicts, text = state.messages
    print(f"\n  {text}")
    while (verdict := input("Send it? [yes / no / shorter] ").strip().lower()) not in (
        "yes",
        "no",
        "shorter",
    ):
        print("Please answer yes, no or shorter.")
    return State([*verdicts, verdict] if verdict == "shorter" else [text, verdict])


@routing_function
def decide(state: State) -> str:
    return {"yes": "send", "no": "end", "shorter": "draft"}[state.messages[-1]]


@node_action
def send(state: State) -> State:
    return State([f"sent: {state.messages[0]}"])


def build_graph() -> Graph:
    builder = GraphBuilder("human_approval")
    builder.add_node(ProcessingNode("draft", draft))
    builder.add_node(HumanInTheLoopNode("ask", ask))
    builder.add_node(ProcessingNode("send", send))
    builder.add_concrete_edge("start", "draft")
    builder.add_concrete_edge("draft", "ask")
    builder.add_conditional_edge("ask", ["send", "draft", "end"], decide)
    builder.add_concrete_edge("send", "end")
    return builder.build_graph()


def main() -> None:
    # No time limit: people take the time they take.
    result = GraphExecutor(build_graph(), State()).run(superstep_timeout=None)
    assert result is not None
    print(result.messages[0] if len(result.messages) == 1 else "not sent")


if __name__ == "__main__":
    main()
