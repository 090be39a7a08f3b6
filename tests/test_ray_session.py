"""The test bench itself: the private Ray is private, small and reachable on loopback only."""

from __future__ import annotations

import ipaddress
import os

import psutil


def pid_of_worker() -> int:
    return os.getpid()


def test_ray_session_has_two_cpus_and_its_own_place(ray_session: str) -> None:
    import ray

    assert ray_session.startswith("127.0.0.1:")
    assert ray.cluster_resources()["CPU"] == 2
    assert "object_store_memory" in ray.cluster_resources()
    session_dir = ray._private.worker.global_worker.node.get_session_dir_path()
    assert session_dir.startswith("/tmp/gor")


def test_ray_session_runs_a_function_of_a_test_module(ray_session: str) -> None:
    import ray

    pid = ray.get(ray.remote(pid_of_worker).remote(), timeout=60)
    assert pid != os.getpid()


def test_ray_session_listens_on_loopback_only(ray_session: str) -> None:
    listening = {
        ipaddress.ip_address(connection.laddr.ip)
        for process in psutil.Process().children(recursive=True)
        for connection in _connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert [str(ip) for ip in listening if not _is_loopback(ip)] == []


def test_backend_fixture_starts_ray_only_for_ray(backend: str) -> None:
    import ray

    assert backend in ("inline", "ray")
    assert backend == "inline" or ray.is_initialized()


def _connections(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        return process.net_connections(kind="tcp")
    except psutil.Error:
        return []


def _is_loopback(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(ip, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return ip.is_loopback or (mapped is not None and mapped.is_loopback)
