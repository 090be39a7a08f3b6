"""Getting a Ray to run on: the one that is there, the one that is named, or one of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from typing import Any

from ...errors import ClusterConnectionError
from .ray_cluster import Cluster, check_joinable, describe

CONNECT_SECONDS = 10.0
"""How long an address has to answer."""


def ensure_ray() -> str | None:
    """Connect to Ray unless this process is connected already.

    `RAY_ADDRESS` names a cluster to join; without it a Ray of this process's own is started, on
    the loopback interface, with no dashboard. Another process's Ray is never joined by chance.

    Returns:
        One line that says what was done; None where Ray was already there.

    Raises:
        ClusterConnectionError: the address does not answer within `CONNECT_SECONDS`.
    """
    with _connecting:
        return _ensure_ray()


_connecting = threading.Lock()


def _ensure_ray() -> str | None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS", "").strip()
    joins = bool(address) and address != "local"
    if not joins:
        # Read when Ray is imported: without it Ray swaps 127.0.0.1 for the machine's own address,
        # and listens on every interface.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return None
    if joins:
        check_joinable(address, probe(address))
        _quiet(address=address)
        return f"joined the Ray cluster at {address} ({_size()})"
    _quiet(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
    return f"started a local Ray ({_size()})"


def _quiet(**options: Any) -> None:
    import ray

    ray.init(logging_level=logging.ERROR, log_to_driver=True, **options)


def _size() -> str:
    import ray

    total = ray.cluster_resources()
    machines = sum(1 for node in ray.nodes() if node["Alive"])
    parts = [f"{machines} machine{'s' * (machines != 1)}", f"{total.get('CPU', 0):g} CPUs"]
    if total.get("GPU"):
        parts.append(f"{total['GPU']:g} GPUs")
    return ", ".join(parts)


def probe(address: str) -> Cluster:
    """Make sure that a Ray answers at an address, for `ray.init` would wait for ever.

    Returns:
        What it says of itself. Whether this process can join it, `check_joinable` says.

    Raises:
        ClusterConnectionError: it does not, or the address is of a kind that cannot be used.
    """
    if address == "auto":
        raise ClusterConnectionError(
            address,
            "'auto' may join whatever Ray runs on this machine, another user's included. "
            "Give the address itself, as host:port (`ray status` on the head node shows it)",
        )
    if "://" in address:
        raise ClusterConnectionError(
            address,
            "a Ray Client address cannot be used, for the driver must be part of the cluster. "
            "Send the run as a job (`graphorch-ray submit`), or give the head's own address, "
            "host:port",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterConnectionError(address, "an address is host:port, for example 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS / 2):
            pass
    except OSError as error:
        raise ClusterConnectionError(
            address,
            f"nothing answers there ({error}). Check the address, that the head node is up, and "
            "that its port can be reached from here; or unset RAY_ADDRESS to run locally",
        ) from error
    return _ask_head(address)


def _ask_head(address: str) -> Cluster:
    """Ask the cluster's control service what it is, in a thread, with a deadline."""
    answer: list[Cluster | Exception] = []

    def ask() -> None:
        try:
            answer.append(describe(address, timeout=5))
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name="graphorch-probe", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS / 2)
    if not answer or isinstance(answer[0], Exception):
        what = f"{type(answer[0]).__name__}: {answer[0]}" if answer else "no answer in time"
        raise ClusterConnectionError(
            address,
            f"something listens there, but not a Ray head that talks to this one ({what}). Check "
            "the port (6379 by default), that both ends run the same Ray version, and the "
            "cluster's token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)",
        )
    return answer[0]


def say(line: str) -> None:
    """Tell the user one line, on the error stream, so that a program's output stays its own."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"graphorch_ray: {line}\n")


def held_by_this_process() -> tuple[bool, float]:
    """Whether this is a Ray task's main thread, and the CPUs an actor or thread here holds.

    A task gives its CPU back while its main thread blocks in Ray; an actor never does.
    """
    import ray

    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return False, 0.0
    in_task = context.get_actor_id() is None
    main = threading.current_thread() is threading.main_thread()
    if in_task and main:
        return True, 0.0
    held = context.get_assigned_resources()
    return False, float(held.get("CPU", 0.0))
