"""What a Ray cluster says of itself to somebody who has not joined it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ClusterConnectionError


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a cluster.

    Attributes:
        host: its name.
        resources: what Ray has there, by name; memory in bytes.
        is_here: whether this process runs on it.
    """

    host: str
    resources: Mapping[str, float]
    is_here: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster.

    Attributes:
        ray_version, python_version: what its head runs; empty where it does not say.
        machines: those that are up.
    """

    ray_version: str
    python_version: str
    machines: tuple[Machine, ...]


def describe(address: str, timeout: float) -> Cluster:
    """Ask the control service at an address. It may still take longer than `timeout` seconds.

    Raises:
        Exception: Ray's, of many kinds: nothing there, another protocol, a wrong token.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    client = GcsClient(address=address)
    said = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=timeout)
    versions = json.loads(said) if said else {}
    machines = tuple(
        Machine(
            node.node_manager_hostname or node.node_manager_address,
            {
                name: amount
                for name, amount in node.resources_total.items()
                if not name.startswith("node:")
            },
            os.path.exists(node.raylet_socket_name),
        )
        for node in client.get_all_node_info(timeout=timeout).values()
        if node.state == node.ALIVE
    )
    return Cluster(versions.get("ray_version", ""), versions.get("python_version", ""), machines)


def check_joinable(address: str, cluster: Cluster) -> None:
    """Refuse to join where Ray would fail late, or in many words.

    Raises:
        ClusterConnectionError: the versions differ, or this machine is no part of the cluster.
    """
    import ray

    ours, python = ray.__version__, platform.python_version()
    if cluster.ray_version not in ("", ours):
        raise ClusterConnectionError(
            address,
            f"it runs Ray {cluster.ray_version} and this process Ray {ours}; all of a cluster "
            f"runs one version: pip install ray=={cluster.ray_version}",
        )
    if not _same_python(cluster.python_version, python):
        raise ClusterConnectionError(
            address,
            f"it runs Python {cluster.python_version} and this process Python {python}; run this "
            "with the cluster's version, or send it as a job (`graphorch-ray submit`)",
        )
    if cluster.machines and not any(machine.is_here for machine in cluster.machines):
        raise ClusterConnectionError(
            address,
            "this machine is no part of that cluster, so a run cannot be driven from here. Send it "
            "as a job: graphorch-ray submit --address http://HEAD:8265 -- run …",
        )


def _same_python(theirs: str, ours: str) -> bool:
    """Compare as closely as Ray does, which a variable of its own can loosen."""
    level = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch")
    digits = 3 if level == "patch" else 2
    return not theirs or theirs.split(".")[:digits] == ours.split(".")[:digits]
