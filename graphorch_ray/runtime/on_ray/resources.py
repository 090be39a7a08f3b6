"""What nodes ask of Ray: defaults, what fits at once, and what could never fit."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ...errors import ResourceRequestError
from ...policies import NodeOptions

MANY_MACHINES = 100
"""How many machines of a kind are reckoned with where an autoscaler sets no limit."""

SMALLEST_SHARE = 0.0001
"""Ray counts resources in ten-thousandths."""

BYTES_PER_PROCESS = 256 * 2**20
"""Memory that a worker process is reckoned with where nodes are to share cores."""


NODE_GROUP_LABEL = "ray.io/node-group"
"""The label by which Ray says to which of an autoscaler's groups a machine belongs."""


class Machine:
    """One machine of the cluster: its total resources and its labels."""

    __slots__ = ("labels", "resources")

    def __init__(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> None:
        self.resources = dict(resources)
        self.labels = dict(labels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Machine):
            return NotImplemented
        return self.resources == other.resources and self.labels == other.labels

    __hash__ = None  # type: ignore[assignment]

    def another(self) -> Machine:
        """One like it, without what only this one has."""
        own = {name for name in self.resources if name.startswith("node:")}
        return Machine({k: v for k, v in self.resources.items() if k not in own}, {})


def machines(held_cpus: float = 0.0) -> list[Machine]:
    """The machines that are alive now; `held_cpus` are kept by this very process for good."""
    import ray

    found = [
        Machine(node["Resources"], node.get("Labels") or {})
        for node in ray.nodes()
        if node["Alive"]
    ]
    if held_cpus:
        here = "node:" + ray.util.get_node_ip_address()
        for machine in found:
            if here in machine.resources:
                cpus = machine.resources.get("CPU", 0.0)
                machine.resources["CPU"] = max(0.0, cpus - held_cpus)
                break
    return found


def machines_to_come(
    present: Sequence[Machine], requests: Iterable[Mapping[str, float]] = ()
) -> list[Machine]:
    """The machines that an autoscaler could add to the cluster; none where there is none.

    Some platforms report the limits of their groups of machines. Ray's own autoscaler and KubeRay
    do not; all that can be seen is that machines belong to groups. Then as much again as there is
    counts as to come, and a machine for each request that none could meet: what waits for them
    is sent to Ray, which is how an autoscaler learns of it.

    Args:
        present: the machines that are there.
        requests: what nodes ask for.
    """
    from ray._private import state

    config = state.state.get_cluster_config()
    groups = Counter(machine.labels.get(NODE_GROUP_LABEL) for machine in present)
    if config is None:
        if set(groups) <= {None}:
            return []
        shapes = {tuple(sorted(request.items())): request for request in requests}
        wanted = [Machine(request, {}) for request in shapes.values()]
        missing = [w for w in wanted if not any(_fits(w.resources, {}, m) for m in present)]
        return [*missing, *(machine.another() for machine in present)]
    found: list[Machine] = []
    for group in config.node_group_configs:
        count = group.max_count - groups[group.name] if group.max_count >= 0 else MANY_MACHINES
        machine = Machine({name: float(n) for name, n in group.resources.items()}, {})
        found.extend([machine] * max(0, min(count, MANY_MACHINES)))
    return found


def default_share(cluster: Sequence[Machine], max_workers: int) -> float:
    """CPUs that a sync node asks for when it says nothing: one, or less where workers are many.

    The largest share, up to 1, at which `max_workers` executions fit on the cluster at once; 0
    where there are no CPUs to share out.
    """
    cpus = [machine.resources.get("CPU", 0.0) for machine in cluster]
    if sum(cpus) < 1:
        return 0.0
    fitting = sum(int(cpu) for cpu in cpus)
    share = 1.0
    # Give each next execution to the machine where it costs the least share (D'Hondt's method).
    steps = [(-cpu / (int(cpu) + 1), int(cpu) + 1, cpu) for cpu in cpus if cpu > 0]
    heapq.heapify(steps)
    while fitting < max_workers and -steps[0][0] > SMALLEST_SHARE:
        largest, count, cpu = steps[0]
        share = -largest
        heapq.heapreplace(steps, (-cpu / (count + 1), count + 1, cpu))
        fitting += 1
    return max(SMALLEST_SHARE, int(share / SMALLEST_SHARE) * SMALLEST_SHARE)


def process_limit(cluster: Iterable[Machine]) -> int:
    """How many worker processes the cluster has memory for."""
    found = list(cluster)
    memory = sum(machine.resources.get("memory", 0.0) for machine in found)
    cpus = sum(machine.resources.get("CPU", 0.0) for machine in found)
    return max(int(cpus), int(memory // BYTES_PER_PROCESS), 4)


def request_of(options: NodeOptions, default_cpus: float) -> dict[str, float]:
    """The resources that a node takes while it runs."""
    request = dict(options.resources or {})
    request["CPU"] = default_cpus if options.num_cpus is None else options.num_cpus
    if options.num_gpus:
        request["GPU"] = options.num_gpus
    if options.memory:
        request["memory"] = options.memory
    return {name: float(amount) for name, amount in request.items() if amount}


def ray_options(options: NodeOptions, default_cpus: float) -> dict[str, Any]:
    """The same as keywords of Ray's `.options()`."""
    chosen: dict[str, Any] = {
        "num_cpus": default_cpus if options.num_cpus is None else options.num_cpus
    }
    for name in (
        "num_gpus",
        "memory",
        "resources",
        "label_selector",
        "runtime_env",
        "scheduling_strategy",
    ):
        value = getattr(options, name)
        if value is not None:
            chosen[name] = dict(value) if isinstance(value, Mapping) else value
    return chosen


class Asking(Protocol):
    """What asks for a place: a node, or a hosted driver."""

    @property
    def node_id(self) -> str:
        """How errors name it."""

    @property
    def placement(self) -> str:
        """As `Node.placement`; what is in the driver asks for nothing."""

    @property
    def options(self) -> NodeOptions:
        """What it asks for."""


def check_possible(
    nodes: Iterable[Asking],
    cluster: Sequence[Machine],
    default_cpus: float,
    to_come: Sequence[Machine] = (),
) -> list[str]:
    """Make sure that some machine could run each node.

    Args:
        nodes: the graph's nodes, or what asks as they do.
        cluster: the machines that are there.
        default_cpus: what a sync node takes that says nothing.
        to_come: the machines that an autoscaler could add.

    Returns:
        The ids of nodes that only a machine could run that is still to come.

    Raises:
        ResourceRequestError: naming the first node that none could, and what there is.
    """
    waiting: list[str] = []
    checked: set[tuple[Any, ...]] = set()
    seen: set[tuple[Any, ...]] = set()
    for node in nodes:
        placement, options = node.placement, node.options
        if placement == "driver" or (placement, id(options)) in seen:
            continue
        seen.add((placement, id(options)))  # nodes of one function share theirs
        own_cpus = default_cpus if placement == "task" else 0.0
        request = request_of(options, own_cpus)
        labels = dict(options.label_selector or {})
        shape = (tuple(sorted(request.items())), tuple(sorted(labels.items())))
        if shape in checked:
            continue
        checked.add(shape)
        if options.scheduling_strategy is not None and not isinstance(
            options.scheduling_strategy, str
        ):
            continue  # a placement group or an affinity: Ray knows what it holds
        if any(_fits(request, labels, machine) for machine in cluster):
            continue
        waiting.append(node.node_id)
        # Labels of machines to come are not told: the benefit of the doubt is theirs.
        if not any(_fits(request, {}, machine) for machine in to_come):
            raise ResourceRequestError(
                node.node_id,
                {**request, **({"label_selector": labels} if labels else {})},
                _largest([*cluster, *to_come], request),
            )
    return waiting


def _fits(request: Mapping[str, float], labels: Mapping[str, str], machine: Machine) -> bool:
    enough = all(
        machine.resources.get(name, 0.0) + 1e-9 >= amount for name, amount in request.items()
    )
    return enough and all(_matches(machine.labels.get(k), wish) for k, wish in labels.items())


def _matches(value: str | None, wish: str) -> bool:
    """Ray's label expressions: ``v``, ``!v``, ``in(a, b)``, ``!in(a, b)``."""
    negated = wish.startswith("!")
    wish = wish.removeprefix("!")
    if wish.startswith("in(") and wish.endswith(")"):
        wanted = {part.strip() for part in wish[3:-1].split(",")}
    else:
        wanted = {wish}
    return (value in wanted) is not negated


def _largest(cluster: Sequence[Machine], request: Mapping[str, float]) -> dict[str, float]:
    """The most that any one machine has of what was asked for."""
    return {
        name: max((machine.resources.get(name, 0.0) for machine in cluster), default=0.0)
        for name in request
    }


class Ledger:
    """What is taken of the cluster's resources by one run, so that nothing is sent to wait.

    A node whose request does not fit now stays with us, and others may go ahead; sent to Ray it
    would hold a slot while it waits.
    """

    def __init__(self, cluster: Iterable[Machine] = (), to_come: Iterable[Machine] = ()) -> None:
        self._free: dict[str, float] = {}
        self._total: dict[str, float] = {}
        self._to_come: dict[str, float] = {}
        self.resize(cluster, to_come)

    def resize(self, cluster: Iterable[Machine], to_come: Iterable[Machine] = ()) -> None:
        """Reckon with these machines from now on; what is taken stays taken.

        Args:
            cluster: the machines that are there.
            to_come: those that an autoscaler adds where work waits for them.
        """
        self._to_come = _sum(to_come)
        total = _sum(cluster)
        for name, amount in self._to_come.items():
            total[name] = total.get(name, 0.0) + amount
        for name in total.keys() | self._total.keys():
            grown = total.get(name, 0.0) - self._total.get(name, 0.0)
            self._free[name] = self._free.get(name, 0.0) + grown
        self._total = total

    def fits(self, request: Mapping[str, float]) -> bool:
        """Whether the request could be met now."""
        return all(self._free.get(name, 0.0) + 1e-6 >= amount for name, amount in request.items())

    def fits_now(self, request: Mapping[str, float]) -> bool:
        """Whether the request could be met without a machine that is still to come."""
        return all(
            self._free.get(name, 0.0) - self._to_come.get(name, 0.0) + 1e-6 >= amount
            for name, amount in request.items()
        )

    def take(self, request: Mapping[str, float]) -> None:
        """Note that the request is being met."""
        for name, amount in request.items():
            self._free[name] = self._free.get(name, 0.0) - amount

    def give(self, request: Mapping[str, float]) -> None:
        """Note that it is over."""
        for name, amount in request.items():
            self._free[name] = self._free.get(name, 0.0) + amount


def _sum(cluster: Iterable[Machine]) -> dict[str, float]:
    """The resources of some machines together."""
    total: dict[str, float] = {}
    for machine in cluster:
        for name, amount in machine.resources.items():
            total[name] = total.get(name, 0.0) + amount
    return total
