"""Ray heads on loopback, each a process of its own with ports and a directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

START_SECONDS = 100.0
TRIES = 3
TOKEN = "t" * 64


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Head:
    """A head with a job server and token authentication.

    Attributes:
        arguments: more of them for `ray start`.
        environment: what the head's processes find in theirs besides.
        url: of its job server.
        address: of its control service.
        env: the environment in which its clients can reach it.
    """

    cpus: int = 2
    token: str = TOKEN
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    agent_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.dashboard_port}"
        self.address = f"127.0.0.1:{self.port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback; see conftest.py
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    def start(self) -> None:
        """Start it, and wait until it takes jobs; Ray gives up too soon on a busy machine."""
        for _ in range(TRIES):
            self._launch()
            end = time.monotonic() + START_SECONDS
            while self._process.poll() is None and time.monotonic() < end:
                if self._takes_jobs():
                    return
                time.sleep(0.3)
            told = self._log.read_text()
            self.kill()
        raise AssertionError(told)

    def _launch(self) -> None:
        self.temp_dir = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths are short
        self._log = Path(self.temp_dir, "head.log")
        env = {name: value for name, value in self.env.items() if name != "PYTHONPATH"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
                    *(f"--port={self.port}", "--node-ip-address=127.0.0.1"),
                    *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}"),
                    f"--dashboard-agent-listen-port={self.agent_port}",
                    *(f"--temp-dir={self.temp_dir}/r", f"--num-cpus={self.cpus}"),
                    *("--object-store-memory=200000000", "--disable-usage-stats"),
                    *self.arguments,
                ],
                env={**env, **self.environment},
                cwd=self.temp_dir,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _takes_jobs(self) -> bool:
        headers = {"authorization": f"Bearer {self.token}"}
        with contextlib.suppress(httpx.HTTPError):
            for port in (self.dashboard_port, self.agent_port):
                answer = httpx.get(f"http://127.0.0.1:{port}/api/version", headers=headers)
                if port == self.dashboard_port and answer.status_code != 200:
                    return False
            return True
        return False

    def kill(self) -> None:
        """End it at once, with all that it has started, and whatever it knew."""
        mine = [process for process in psutil.process_iter() if self._is_mine(process)]
        for process in mine:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait(30)
        psutil.wait_procs(mine, timeout=30)
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _is_mine(self, process: psutil.Process) -> bool:
        """Whether it belongs to this head: it, its children, and what names its directory."""
        with contextlib.suppress(psutil.Error):
            if process.pid == self._process.pid:
                return True
            if any(parent.pid == self._process.pid for parent in process.parents()):
                return True
            return process.pid != os.getpid() and self.temp_dir in " ".join(process.cmdline())
        return False

    def __enter__(self) -> Head:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
