"""Programs as a user of GraphOrchestrator would write them, with only the imports changed.

`backend` runs a program on both backends. What a program is to show on Ray too goes through the
returned state or through a file (`journal`): a closure over a driver variable shows nothing there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest


class Journal:
    """Lines appended to a file by node code, in whatever process that runs."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def write(self, line: str) -> int:
        """Append a line and return how many equal lines there are now."""
        handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        try:
            os.write(handle, f"{line}\n".encode())
        finally:
            os.close(handle)
        return self.lines().count(line)

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []

    def count(self, line: str) -> int:
        return self.lines().count(line)

    def wait_for(self, line: str, seconds: float = 5.0) -> None:
        """Sleep until the line is there."""
        end = time.monotonic() + seconds
        while line not in self.lines():
            if time.monotonic() > end:
                raise TimeoutError(f"no line {line!r} in {seconds} s")
            time.sleep(0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.txt")


@pytest.fixture(params=["inline", "ray"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    monkeypatch.setenv("GRAPHORCH_BACKEND", request.param)
    return request.param


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs that look into the driver's variables."""
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
