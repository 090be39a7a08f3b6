"""Does a file system keep the rules that checkpoints stand on? Ask it."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoint.files import Files
from ..checkpoint.manifest import Header, Manifest, Stored
from ..checkpoint.place import Place
from ..checkpoint.store import Store
from ..errors import CheckpointConflictError, GraphOrchestratorException, GraphWarning

__all__ = ["RuleBroken", "StoreReport", "check_store"]

_WRITERS = 4
_ROUNDS = 10


class RuleBroken(GraphOrchestratorException, AssertionError):
    """A file system does not keep a rule that checkpoints stand on.

    Attributes:
        rule: the rule, as `StoreReport.rules` names it.
    """

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {message}")


@dataclass(frozen=True)
class StoreReport:
    """What `check_store` has found.

    Attributes:
        url: the place.
        rules: the rules that it keeps.
        fenced: whether two drivers on one path are kept apart there.
        seconds: how long the check took.
    """

    url: str
    rules: tuple[str, ...]
    fenced: bool
    seconds: float


def check_store(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    fs: Any = None,
    one_driver: bool = False,
    large: int = 8 << 20,
    many: int = 30,
) -> StoreReport:
    """Check that checkpoints can be kept in a place. What it writes it deletes; empty
    folders may be left.

    Args:
        url: a directory to try in; any URL that fsspec knows.
        storage_options: for fsspec.
        fs: a file system object to use in place of the URL's own.
        one_driver: accept a place where two drivers on one path cannot be kept apart.
        large: bytes of the large file that is written; above 100 MB, S3 takes it in parts.
        many: how many files are listed; above 1,000, S3 lists them in pages.

    Raises:
        RuleBroken: a rule is not kept; it names the rule.
        CheckpointError: the place cannot be opened or written to.

    Example:
        ```python
        report = check_store("memory://try")
        assert report.fenced and "one winner" in report.rules
        ```
    """
    began = time.monotonic()
    scratch = f"{url.rstrip('/')}/graphorch-check-{secrets.token_hex(6)}"
    place = Place(scratch, storage_options, fs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphWarning)
        files: Files = place.files()
        check = _Check(files, large, many)
        rules: dict[str, Callable[[], None]] = {
            "absent": check.absent,
            "read after write": check.read_after_write,
            "list after write": check.list_after_write,
            "create-only": check.create_only,
            "one winner": check.one_winner,
            "replace": check.replace,
            "delete": check.delete,
            "ranges": check.ranges,
            "large file": check.large_file,
            "odd names": check.odd_names,
            "protocol": lambda: _protocol(check, scratch, storage_options, fs),
        }
        kept = []
        try:
            for rule, call in rules.items():
                if rule == "one winner" and one_driver and not files.atomic:
                    continue
                check.rule = rule
                call()
                kept.append(rule)
        finally:
            if place.local:
                shutil.rmtree(files.url, ignore_errors=True)
            else:
                _clear(files, "")
        return StoreReport(url, tuple(kept), files.atomic, time.monotonic() - began)


class _Check:
    def __init__(self, files: Files, large: int, many: int) -> None:
        self.files = files
        self.large = large
        self.many = many
        self.rule = ""

    def expect(self, kept: bool, otherwise: str) -> None:
        if not kept:
            raise RuleBroken(self.rule, f"{otherwise} (in '{self.files.url}')")

    def absent(self) -> None:
        self.expect(self.files.size("no/file") is None, "a file that is not there has a size")
        self.expect(self.files.names("no/folder") == [], "a folder that is not there has files")
        self.expect(not self._readable("no/file"), "a file that is not there can be read")
        self.files.delete(["no/file"])

    def read_after_write(self) -> None:
        for i in range(10):
            content = secrets.token_bytes(1000)
            self.files.create(f"read/{i}", content)
            self.expect(self.files.read(f"read/{i}")[0] == content, "a new file reads otherwise")
            self.expect(self.files.size(f"read/{i}") == 1000, "a new file has another length")

    def list_after_write(self) -> None:
        names = []
        for i in range(self.many):
            names.append(f"{i:06d}")
            self.files.create(f"list/{names[-1]}", b"x")
            if i < 10:
                found = self.files.names("list")
                self.expect(found == names, f"a new file is not listed: {found}")
        self.files.create("list/sub/deep", b"x")
        found = self.files.names("list")
        self.expect(found == [*names, "sub"], f"{len(found)} names are listed, not {self.many + 1}")

    def create_only(self) -> None:
        self.files.create("create/1", b"first")
        try:
            self.files.create("create/1", b"second")
        except FileExistsError:
            refused = True
        else:
            refused = False
        self.expect(refused, "a file was created twice")
        self.expect(self.files.read("create/1")[0] == b"first", "a file was created over another")

    def one_winner(self) -> None:
        for i in range(_ROUNDS):
            name = f"race/{i}"
            won: list[bytes] = []
            barrier = threading.Barrier(_WRITERS)

            def write(
                who: int,
                name: str = name,
                won: list[bytes] = won,
                barrier: threading.Barrier = barrier,
            ) -> None:
                content = b"%d" % who * 500
                barrier.wait()
                try:
                    self.files.create(name, content)
                except FileExistsError:
                    return
                won.append(content)

            threads = [threading.Thread(target=write, args=(who,)) for who in range(_WRITERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.expect(len(won) == 1, f"of {_WRITERS} racing writers {len(won)} won")
            self.expect(self.files.read(name)[0] == won[0], "the content is not the winner's")

    def replace(self) -> None:
        for content in (b"old" * 100, b"new"):
            self.files.put("replace", [content], lambda: "1")
            self.expect(
                self.files.read("replace/1")[0] == content, "a replaced file is the old one"
            )

    def delete(self) -> None:
        self.files.create("delete/1", b"x")
        self.files.create("delete/2", b"x")
        self.files.delete(["delete/1", "delete/never"])
        self.expect(self.files.size("delete/1") is None, "a deleted file has a size")
        self.expect(self.files.names("delete") == ["2"], "a deleted file is listed")
        self.expect(not self._readable("delete/1"), "a deleted file can be read")
        self.files.create("delete/1", b"again")

    def ranges(self) -> None:
        content = bytes(range(256))
        self.files.put("range", [content[:100], content[100:]], lambda: "1")
        self.expect(bytes(self.files.get("range/1")) == content, "a file in parts reads otherwise")
        self.expect(
            bytes(self.files.get("range/1", 50, 100)) == content[50:150],
            "a part of a file is another part",
        )
        self.expect(self.files.read("range/1", 10)[0] == content[:10], "a beginning is not it")

    def large_file(self) -> None:
        content = secrets.token_bytes(1 << 16) * (self.large >> 16)
        self.files.put("large", [content], lambda: "1")
        self.expect(self.files.size("large/1") == len(content), "a large file has another length")
        self.expect(self.files.get("large/1") == content, "a large file reads otherwise")

    def odd_names(self) -> None:
        names = ["%2Ebefore@1", "a%20b%2Fc@12", "x" * 200 + "@1", "~-_+=@3"]
        for name in names:
            self.files.create(f"odd/{name}", name.encode())
        found = self.files.names("odd")
        self.expect(found == sorted(names), f"names come back as others: {found}")
        for name in names:
            content = self.files.read(f"odd/{name}")[0]
            self.expect(content == name.encode(), f"{name!r} holds the content of another")

    def _readable(self, name: str) -> bool:
        try:
            self.files.read(name)
        except FileNotFoundError:
            return False
        return True


def _protocol(check: _Check, url: str, storage_options: Mapping[str, Any] | None, fs: Any) -> None:
    """Commit, take over, be refused, prune: what a run does."""
    store = Store(f"{url}/run", storage_options=storage_options, fs=fs, keep_last=2)
    line = store.create_line(Header(run_id="check"))
    value = secrets.token_bytes(100_000)
    for superstep in range(4):
        blob, _ = line.blobs.put([value])
        states = (Stored(b"small"), Stored(b"large", (blob,)))
        line.commit(
            Manifest(kind="superstep", status="running", superstep=superstep, states=states)
        )
        line.prune()
    check.expect(line.blobs.get(blob) == value, "a value that is in use cannot be read")
    check.expect([seq for seq, _ in line.manifests()] == [3, 4], "pruning left other checkpoints")
    check.expect(line.blobs.visible(), "the store does not see itself")
    new = store.line(line.name)
    new.claim()
    try:
        line.commit(Manifest(kind="superstep", status="running", superstep=4))
    except CheckpointConflictError:
        refused = True
    else:
        refused = False
    check.expect(refused, "an owner that was replaced could still commit")
    newest = store.line(line.name).newest()
    check.expect(newest is not None and newest.epoch == 2, "the newest is not the new owner's")


def _clear(files: Files, folder: str) -> None:
    """Delete all that is below a folder."""
    for name in files.names(folder):
        path = f"{folder}/{name}" if folder else name
        if files.size(path) is None:
            _clear(files, path)
        else:
            files.delete([path])
