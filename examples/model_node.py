"""A model in a graph: built once in each model worker, then used by every visit.

    python examples/model_node.py        # needs scikit-learn; nothing is downloaded

`AIActionBase` has two methods to fill in. `build_model` is costly: it runs once per worker, never
in this process. `process_state` is cheap and runs at every visit; here the graph visits the node
again and again, a batch of pictures each time, until none is left.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from graphorch_ray import (
    AIActionBase,
    AINode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    State,
    routing_function,
)


@dataclass
class Pictures(State):
    """`messages` collects what the model said, batch by batch."""

    pictures: Any = None  # 8 by 8 points each, one row for each picture
    answers: Any = None
    seen: int = 0
    builders: set[int] = field(default_factory=set)  # the processes that built a model


class DigitReader(AIActionBase):
    """Reads handwritten digits."""

    def build_model(self) -> None:
        digits = load_digits()
        known = slice(0, self.config["train"])
        self.model = LogisticRegression(max_iter=self.config["iterations"])
        self.model.fit(digits.data[known] / 16, digits.target[known])
        self.built_by = os.getpid()
        self._model_built = True

    def process_state(self, state: State) -> State:
        assert isinstance(state, Pictures)
        batch = slice(state.seen, state.seen + self.config["batch"])
        read = self.model.predict(state.pictures[batch])
        right = int(np.sum(read == state.answers[batch]))
        return replace(
            state,
            messages=[*state.messages, (right, len(read))],
            seen=state.seen + len(read),
            builders=state.builders | {self.built_by},
        )


@routing_function
def more_to_read(state: Pictures) -> str:
    return "read" if state.seen < len(state.pictures) else "end"


def build_graph(train: int, batch: int) -> Graph:
    reader = DigitReader({"train": train, "batch": batch, "iterations": 200})
    builder = GraphBuilder("model_node")
    builder.add_node(AINode("read", "Reads handwritten digits.", reader, replicas=1))
    builder.add_concrete_edge("start", "read")
    builder.add_conditional_edge("read", ["read", "end"], more_to_read)
    return builder.build_graph()


def main(train: int = 1000, batch: int = 100) -> None:
    digits = load_digits()
    todo = Pictures(pictures=digits.data[train:] / 16, answers=digits.target[train:])
    result = GraphExecutor(build_graph(train, batch), todo).run()
    assert isinstance(result, Pictures)
    for number, (right, of) in enumerate(result.messages):
        print(f"batch {number}: {right} of {of} right")
    right = sum(right for right, _ in result.messages)
    print(f"all: {right / result.seen:.0%} of {result.seen} pictures")
    print(f"visits: {len(result.messages)}; processes that built a model: {len(result.builders)}")


if __name__ == "__main__":
    main()
