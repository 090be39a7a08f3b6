"""The kit that checks a place for checkpoints: it passes what is good, and names what is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from graphorch_ray.testing import FaultyFileSystem, RuleBroken, check_store
from tests.checkpoint.conftest import Where


def test_good_places_keep_every_rule(where: Where) -> None:
    one_driver = not where.atomic
    report = check_store(
        where.url, where.options, fs=where.fs, one_driver=one_driver, large=1 << 20
    )
    assert report.fenced is where.atomic
    assert ("one winner" in report.rules) is where.atomic
    assert {"create-only", "list after write", "protocol", "large file"} <= set(report.rules)
    assert report.seconds > 0
    if where.kind == "local":
        assert os.listdir(where.url) == []
    else:
        assert where.store().place.files().names("") == [] or where.kind == "plain"


def test_a_plain_file_system_does_not_keep_writers_apart(tmp_path: Path) -> None:
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    class Slow(LocalFileSystem):  # type: ignore[misc]
        def exists(self, path: str, **kwargs: Any) -> bool:
            found: bool = super().exists(path, **kwargs)
            return found

        def info(self, path: str, **kwargs: Any) -> Any:
            import time

            try:
                return super().info(path, **kwargs)
            finally:
                time.sleep(0.01)  # all racers have looked before one writes

    with pytest.raises(RuleBroken, match="racing writers") as caught:
        check_store("run", fs=DirFileSystem(str(tmp_path), Slow()))
    assert caught.value.rule == "one winner"


class Broken(MemoryFileSystem):  # type: ignore[misc]
    """A memory of its own, with one thing wrong."""

    cachable = False
    wrong = ""

    def __init__(self, wrong: str) -> None:
        super().__init__(global_store=False)
        self.wrong = wrong

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if self.wrong == "overwrites":
            mode = "overwrite"
        if self.wrong == "keeps" and self.exists(path) and mode == "overwrite":
            return
        if self.wrong == "cuts":
            value = value[:100_000]
        super().pipe_file(path, value, mode=mode, **kwargs)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        if self.wrong == "no ranges":
            start = end = None
        content: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        return content.upper() if self.wrong == "changes" else content

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        found = super().ls(path, detail=detail, **kwargs)
        return found[:5] if self.wrong == "lists five" else found

    def rm_file(self, path: str) -> None:
        if self.wrong != "keeps deleted":
            super().rm_file(path)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("overwrites", "create-only"),
        ("keeps", "replace"),
        ("cuts", "large file"),
        ("no ranges", "ranges"),
        ("changes", "read after write"),
        ("lists five", "list after write"),
        ("keeps deleted", "delete"),
    ],
)
def test_a_broken_place_fails_with_the_rule_named(wrong: str, rule: str) -> None:
    with pytest.raises(RuleBroken) as caught:
        check_store("/try", fs=Broken(wrong))
    assert caught.value.rule == rule
    assert str(caught.value).startswith(f"{rule}: ")
    assert "/try" in str(caught.value)


def test_a_place_whose_listings_are_late_is_found_out() -> None:
    fs = FaultyFileSystem(fsspec.filesystem("memory"), ["stale"] * 10_000)
    with pytest.raises(RuleBroken) as caught:
        check_store("/late", fs=fs)
    assert caught.value.rule == "list after write"
    assert fs.injected["stale"] > 0
