"""Places to keep checkpoints in: local disk, memory, a real S3 protocol, a plain file system."""

from __future__ import annotations

import secrets
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import GraphWarning
from graphorch_ray.testing import FakeClock
from tests.s3_server import BUCKET, S3Server


@dataclass
class Where:
    """A place, and how to open a store there.

    Attributes:
        kind: ``"local"``, ``"memory"``, ``"s3"`` or ``"plain"``.
        atomic: whether creating a file is one step there.
        clock: what its stores wait on.
    """

    kind: str
    url: str
    options: dict[str, Any] | None = None
    fs: Any = None
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.sleep = self.clock.advance  # one object, so that stores share a connection

    @property
    def atomic(self) -> bool:
        return self.kind != "plain"

    def store(self, **more: Any) -> Store:
        """Open a store there, as another process would."""
        more = {"clock": self.clock.time, "sleep": self.sleep, **more}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GraphWarning)
            store = Store(self.url, storage_options=self.options, fs=self.fs, **more)
            if not self.atomic:
                assert not store.place.files().atomic
        return store


@pytest.fixture(params=["local", "memory", "s3", "plain"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """Run the test once in each kind of place."""
    kind: str = request.param
    if kind == "local":
        return Where(kind, str(tmp_path / "run"))
    if kind == "memory":
        return Where(kind, f"memory://{secrets.token_hex(8)}/run")
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return Where(kind, f"s3://{BUCKET}/{secrets.token_hex(8)}/run", server.options)
    return Where(kind, "run", fs=DirFileSystem(str(tmp_path), LocalFileSystem()))
