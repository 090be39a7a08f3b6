"""Where a cluster saturates: `python -m benchmarks.scaling`.

The driver is one process. Each node execution costs it some processor time, so that there is a
number of nodes at once beyond which more machines do not help. This fits that cost to measured
runs and predicts the number. Assumptions:

1. The driver's processor time grows linearly with the nodes of a superstep. It is measured, not its
   wall time: here workers share its cores, on a cluster they have their own.
2. Nodes of some length travel alone, one task each (`batch=False`). Short ones travel together
   and cost less, so this is the upper bound.
3. One core is the driver's, as fast as this machine's, and it keeps up until that core is full.
4. The network, the scheduler of each machine and Ray's control store keep up. They are not
   modelled: a simulated cluster on one machine cannot measure them.
5. States of up to 100 KB travel inline. Larger ones stay in the object store of the machine that
   made them; a transfer costs what storing and reading its bytes costs here, or the network's
   time if that is longer.

`--check` compares predictions with runs on a simulated cluster: several raylets on this machine
with made-up cores, and nodes that sleep. There everything shares the real cores, so that it is of
use on an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import local_ray
from .reporting import number

SIZES = (10, 100, 1000, 10_000, 50_000)
MEGABYTES = (1, 10, 100)
MACHINES, SLOTS_EACH = 100, 16


_said: list[str] = []


def say(text: str) -> None:
    """Print a line, and keep it for `--text`."""
    print(text, flush=True)
    _said.append(text)


@dataclass(frozen=True)
class Line:
    """A cost with a fixed part and a part for each unit."""

    fixed: float
    each: float

    def at(self, count: float) -> float:
        """The cost of so many units."""
        return self.fixed + self.each * count


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line nearest to some points, by relative error, with neither part below zero.

    Args:
        points: two or more of counts and positive costs, at two different counts at least.
    """
    weights = [1 / cost**2 for _, cost in points]
    total = sum(weights)
    x = sum(w * count for w, (count, _) in zip(weights, points, strict=True)) / total
    y = sum(w * cost for w, (_, cost) in zip(weights, points, strict=True)) / total
    spread = sum(w * (count - x) ** 2 for w, (count, _) in zip(weights, points, strict=True))
    both = sum(w * (c - x) * (d - y) for w, (c, d) in zip(weights, points, strict=True))
    each = max(0.0, both / spread)
    fixed = y - each * x
    if fixed >= 0:
        return Line(fixed, each)
    squares = sum(w * count**2 for w, (count, _) in zip(weights, points, strict=True))
    return Line(0.0, sum(w * c * d for w, (c, d) in zip(weights, points, strict=True)) / squares)


@dataclass(frozen=True)
class Model:
    """What supersteps cost.

    Attributes:
        driver: seconds of the driver's processor, by nodes.
        memory: MB of the driver's own memory, by nodes.
        store: seconds to store and read a state, by MB.
    """

    driver: Line
    memory: Line
    store: Line

    def superstep(self, nodes: int, seconds: float, slots: int, megabytes: float = 0.0) -> float:
        """Seconds of a superstep of equal nodes: the work, or the driver where that is longer.

        Args:
            nodes: how many.
            seconds: the length of each.
            slots: nodes at once in the cluster.
            megabytes: the size of the state that each gives.
        """
        stored = self.store.at(megabytes) if megabytes > 0.1 else 0.0
        waves = math.ceil(nodes / slots)
        return self.driver.fixed + max(waves * (seconds + stored), self.driver.each * nodes)

    def shortest_node(self, slots: int) -> float:
        """The length of a node, in seconds, from which on one driver keeps so many slots busy."""
        return self.driver.each * slots

    def most_slots(self, seconds: float) -> float:
        """How many slots one driver keeps busy with nodes of some length."""
        return seconds / self.driver.each


def measured(sizes: Sequence[int]) -> Model:
    """Fit a model to runs on the Ray that is running."""
    import numpy as np
    import ray

    from graphorch_ray import State, node_action

    from .contenders.graphorch import run, star_of
    from .memory import DRIVER, with_driver_memory

    @node_action(batch=False)
    def nothing(state: State) -> State:
        return state

    run(star_of(nothing, 10), State([1]), max_workers=2)  # workers are there
    processor, memory = [], []
    for size in sizes:
        graph = star_of(nothing, size)
        began = time.process_time()
        told = with_driver_memory(partial(run, graph, State([1]), max_workers=2))()
        processor.append((size, time.process_time() - began))
        memory.append((size, max(0.001, told.values[DRIVER])))
        say(f"{size:>7,} nodes: driver {number(processor[-1][1])} s, {number(memory[-1][1])} MB")
    stored = []
    for megabytes in MEGABYTES:
        array = np.ones(megabytes * 125_000)
        began = time.perf_counter()
        float(ray.get(ray.put(array)).sum())
        stored.append((megabytes, time.perf_counter() - began))
    return Model(fit(processor), fit(memory), fit(stored))


def told(model: Model) -> str:
    """What a model predicts, in words."""
    slots = MACHINES * SLOTS_EACH
    lines = [
        f"driver: {number(model.driver.each * 1e6)} µs for each node execution",
        f"memory: {number(model.memory.each * 1000)} KB for each node of a superstep",
        f"store:  {number(1 / model.store.each if model.store.each else math.inf)} MB/s",
        f"{MACHINES} machines of {SLOTS_EACH} slots are kept busy by nodes of "
        f"{number(model.shortest_node(slots))} s or more",
    ]
    lines += [
        f"nodes of {seconds:g} s: saturated at {model.most_slots(seconds):,.0f} slots, that is "
        f"{model.most_slots(seconds) / SLOTS_EACH:,.0f} machines"
        for seconds in (0.01, 0.1, 1.0, 10.0)
    ]
    return "\n".join(lines)


def check(model: Model, machines: int, slots_each: int, seconds: float, nodes: int) -> Any:
    """Run sleeping nodes on a simulated cluster, and compare with what the model predicts.

    Returns:
        Seconds predicted and seconds taken.
    """
    import ray
    from ray.cluster_utils import Cluster

    from graphorch_ray import State, node_action

    from .contenders.graphorch import run, star_of

    slots = machines * slots_each

    @node_action(num_cpus=1, batch=False)
    def sleep(state: State) -> State:
        time.sleep(seconds)
        return state

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"},
    )
    try:
        for _ in range(machines):
            # Slots are made-up CPUs: a raylet keeps no more idle workers than it has of them.
            cluster.add_node(num_cpus=slots_each, object_store_memory=100_000_000)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        run(star_of(sleep, 2 * slots), State([1]), max_workers=slots)  # every worker is there
        graph = star_of(sleep, nodes)
        began = time.perf_counter()
        run(graph, State([1]), max_workers=slots)
        return model.superstep(nodes, seconds, slots), time.perf_counter() - began
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> int:
    """Fit the model, say what it predicts, and check it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="nodes, two or more")
    parser.add_argument("--check", type=int, metavar="MACHINES", help="simulate so many machines")
    parser.add_argument("--json", type=Path, help="write the model to this file")
    parser.add_argument("--text", type=Path, help="write what is said to this file too")
    arguments = parser.parse_args()
    if len(set(arguments.sizes)) < 2:
        parser.error("--sizes needs two different sizes")
    local_ray.prepare_environment()
    with local_ray.local_ray():
        model = measured(arguments.sizes)
    say(told(model))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(model), indent=1) + "\n")
    for seconds, nodes in ((0.5, 160), (0.01, 1000)) if arguments.check else ():
        predicted, taken = check(model, arguments.check, 4, seconds, nodes)
        say(
            f"{arguments.check} simulated machines of 4 slots, {nodes:,} nodes of {seconds} s: "
            f"predicted {number(predicted)} s, took {number(taken)} s"
        )
    if arguments.text:
        arguments.text.write_text("\n".join(_said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
