"""Fixtures for all tests: one private Ray per session, and the two backends."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

from tests.s3_server import s3, s3_server

__all__ = ["s3", "s3_server"]  # fixtures for all tests

RAY_CPUS = 2
OBJECT_STORE_BYTES = 1_000_000_000
SECONDS_TO_STOP = 15.0

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


def pytest_configure() -> None:
    """Set what Ray reads when it is imported, and take away what would lead to another Ray."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # a private Ray on loopback needs no token
    # Despite its name this is what makes Ray take 127.0.0.1 for its own address, on Linux too: a
    # `_node_ip_address` of 127.0.0.1 is replaced by the machine's, and its servers then listen
    # on every interface.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name in ("RAY_ADDRESS", "RAY_NAMESPACE", "GRAPHORCH_BACKEND"):
        os.environ.pop(name, None)
    settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """Run a private Ray on loopback with two CPUs for the whole session; gives its address.

    Fails if a process of it outlives `ray.shutdown()`.
    """
    import ray

    me = psutil.Process()
    before = set(me.children(recursive=True))
    # Ray's Unix sockets lie in here, and their paths may have about 107 characters.
    temp_dir = tempfile.mkdtemp(prefix="gor", dir="/tmp")
    try:
        ray.init(
            address="local",
            num_cpus=RAY_CPUS,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=temp_dir,
        )
        yield ray.get_runtime_context().gcs_address
        # Workers belong to the raylet, which is gone after the shutdown: look first.
        started = [
            child
            for child in me.children(recursive=True)
            if child not in before and "resource_tracker" not in _describe(child)  # Python's own
        ]
        ray.shutdown()
        _, alive = psutil.wait_procs(started, timeout=SECONDS_TO_STOP)
        left = [_describe(process) for process in alive]
        for process in alive:
            process.kill()
        if left:
            pytest.fail("still running after ray.shutdown(): " + "; ".join(left))
    finally:
        ray.shutdown()
        shutil.rmtree(temp_dir, ignore_errors=True)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)


@pytest.fixture(params=["inline", "ray"])
def backend(request: pytest.FixtureRequest) -> str:
    """Run the test once on each backend; only the second one starts Ray."""
    name: str = request.param
    if name == "ray":
        request.getfixturevalue("ray_session")
    return name
