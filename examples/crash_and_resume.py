"""A run whose program is killed in the middle, and goes on in another process.

    python examples/crash_and_resume.py

Trains a tiny model, round by round, and keeps a checkpoint after each. The first process kills
itself in round 4, as a crash or an operator would; the second finds the newest checkpoint and
does the rounds that are missing. The third goes back in time, and takes another turn from there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from graphorch_ray import (
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    State,
    list_checkpoints,
    node_action,
    routing_function,
)

ROUNDS = 6
DATA = [(x / 10, 3 * x / 10 + 2) for x in range(-20, 21)]


@node_action
def train(state: State) -> State:
    """One round of gradient descent for y = a x + b; the state is [round, a, b]."""
    done, a, b = state.messages
    for _ in range(50):
        errors = [(a * x + b - y, x) for x, y in DATA]
        a -= 0.1 * sum(error * x for error, x in errors) / len(DATA)
        b -= 0.1 * sum(error for error, _ in errors) / len(DATA)
    return State([done + 1, a, b])


@routing_function
def enough(state: State) -> str:
    """Runs in the driver: where asked to, it kills it."""
    if str(state.messages[0]) == os.environ.get("DIE_IN_ROUND"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "end" if state.messages[0] >= ROUNDS else "train"


def build() -> Graph:
    builder = GraphBuilder("training")
    builder.add_node(ProcessingNode("train", train))
    builder.add_concrete_edge("start", "train")
    builder.add_conditional_edge("train", ["train", "end"], enough)
    return builder.build_graph()


def first(place: str) -> None:
    GraphExecutor(
        build(),
        State([0, 0.0, 0.0]),
        checkpoint_path=place,
        checkpoint_every=1,
        checkpoint_durability="sync",  # no round begins before the one before it is on disk
        keep_last=None,
    ).run()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "runs")
        died = subprocess.run(
            [sys.executable, __file__, place],
            env={**os.environ, "DIE_IN_ROUND": "4"},
            check=False,
        )
        print(f"the first process ended with {signal.Signals(-died.returncode).name}")
        newest = list_checkpoints(place)[-1]
        print(f"newest checkpoint: superstep {newest.superstep}, {newest.status}")

        executor = GraphExecutor.resume(place, build())
        final = executor.run()
        assert final is not None
        done, a, b = final.messages
        print(f"resumed: {executor.summary.nodes['train'].executions} more rounds of {done}")
        print(f"y = {a:.2f} x + {b:.2f}")

        again = GraphExecutor.resume(place, build(), superstep=2)
        again.run()
        print(f"from superstep 2: {again.summary.nodes['train'].executions} rounds, a new branch")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        first(sys.argv[1])
    else:
        main()
