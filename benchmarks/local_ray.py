"""One Ray for all contenders: on this machine alone, on the loopback interface."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

OBJECT_STORE_BYTES = 6_000_000_000


def prepare_environment() -> None:
    """Set what Ray and others read when they are imported: nothing leaves this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"  # a private Ray on loopback needs no token
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on 127.0.0.1 only
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["HAMILTON_TELEMETRY_ENABLED"] = "false"
    os.environ["LANGSMITH_TRACING"] = "false"
    for name in ("RAY_ADDRESS", "RAY_NAMESPACE", "GRAPHORCH_BACKEND"):
        os.environ.pop(name, None)


@contextmanager
def local_ray(num_cpus: int | None = None) -> Iterator[str]:
    """A Ray of our own, gone afterwards; gives its address.

    Args:
        num_cpus: the cores it may use; default, all of this machine.
    """
    import ray

    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths must be short
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
