"""What local disk promises: durable, whole or not there, and clear when it cannot be."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray.checkpoint import files
from graphorch_ray.checkpoint.files import LocalFiles, local_path
from graphorch_ray.checkpoint.manifest import Header
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointConflictError, CheckpointError
from tests.checkpoint.makers import step


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The calls of the operating system that make things durable, with the names they are about."""
    seen: list[tuple[str, str]] = []

    def named(path: str) -> str:
        name = os.path.basename(path)
        return "temporary" if name.startswith(".tmp-") else name

    def record(name: str, about: Callable[..., str]) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            result = original(*arguments, **more)
            seen.append((name, about(*arguments)))
            return result

        monkeypatch.setattr(os, name, call)

    record("fsync", lambda file: named(os.readlink(f"/proc/self/fd/{file}").split(" ")[0]))
    record("link", lambda source, target: named(target))
    record("replace", lambda source, target: named(target))
    record("mkdir", named)
    return seen


@pytest.mark.parametrize("own_disk", [True, False])
def test_a_commit_syncs_the_file_and_then_its_directory(
    tmp_path: Path,
    calls: list[tuple[str, str]],
    own_disk: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a disk of this machine it has its name by then; elsewhere its name would be seen first."""
    monkeypatch.setattr(files, "_is_own_disk", lambda file: own_disk)
    line = Store(tmp_path).create_line(Header(run_id="7"))
    line.commit(step(0))
    calls.clear()
    line.commit(step(1))
    file = [("fsync", "temporary"), ("link", "000000002")]
    assert calls == [*(reversed(file) if own_disk else file), ("fsync", "000000")]
    assert line.newest() is not None


def test_a_network_or_memory_file_system_is_not_taken_for_a_disk_of_this_machine() -> None:
    """`/proc` and `/dev/shm` have no block device, as NFS, FUSE and overlays have none."""
    for path in ("/proc/self/stat", "/dev/shm"):
        handle = os.open(path, os.O_RDONLY)
        try:
            assert not files._is_own_disk(handle)
        finally:
            os.close(handle)


def test_a_commit_that_cannot_be_synced_is_told_and_not_lost_sight_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    line.commit(step(0))
    failed = []

    def broken(file: int) -> None:
        failed.append(file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "_sync", broken)
    with pytest.raises(CheckpointError, match="Input/output error"):
        line.commit(step(1))
    assert failed
    monkeypatch.undo()
    before = line.newest()
    assert before is not None
    assert before.superstep == 0
    line.commit(step(2))
    newest = line.newest()
    assert newest is not None
    assert newest.superstep == 2


def test_a_blob_is_synced_before_it_gets_its_name(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    for size in (100, 9_000_000):
        line.blobs.put([b"warm up"])
        calls.clear()
        blob, _ = line.blobs.put([bytes(size)])
        assert calls == [("fsync", "temporary"), ("replace", blob.digest), ("fsync", "b")]


def test_new_directories_are_made_durable_in_the_ones_above(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    Store(tmp_path / "a" / "b").create_line(Header(run_id="7"))
    made = [name for call, name in calls if call == "mkdir"]
    assert made == ["a", "b", "lines", "000001"]
    for folder, above in zip(made, [tmp_path.name, *made], strict=False):
        at = calls.index(("mkdir", folder))
        assert ("fsync", above) in calls[at:]


def test_nothing_is_left_beside_what_is_written(tmp_path: Path) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    line.commit(step(0, line.blobs.put([bytes(9_000_000)])[0]))
    assert not list(tmp_path.rglob(".*"))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses hard links."""

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
def test_where_hard_links_are_refused_files_are_created_in_place(tmp_path: Path) -> None:
    files = LocalFiles(str(tmp_path))
    files.create("a/1", b"first")
    assert not files.atomic
    with pytest.raises(FileExistsError):
        files.create("a/1", b"second")
    assert files.read("a/1")[0] == b"first"
    assert os.listdir(tmp_path / "a") == ["1"]


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_a_claim_sees_what_became_whole_meanwhile(tmp_path: Path) -> None:
    owner = Store(tmp_path).create_line(Header(run_id="7"))
    owner.commit(step(0))
    line = Store(tmp_path).line("000001")
    whole = owner.commit(step(1))
    path = tmp_path / "lines/000001/m/000000/000000002"
    content = path.read_bytes()
    path.write_bytes(content[:100])  # as it is for a moment while it is being written
    original = line._create

    def create(manifest: Any) -> None:
        original(manifest)
        path.write_bytes(content)

    line._create = create  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="is torn"):
        claimed = line.claim()
    assert claimed.superstep == whole.superstep
    assert claimed.fences == (3, 4)  # the owner's next number, and the claim's own
    with pytest.raises(CheckpointConflictError):
        owner.commit(step(2))


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_a_commit_sees_a_claim_that_did_not_see_it(tmp_path: Path) -> None:
    owner = Store(tmp_path).create_line(Header(run_id="7"))
    owner.commit(step(0))
    line = Store(tmp_path).line("000001")
    line._taken = 2  # it takes number 2 for torn, and claims number 3
    original = owner._create

    def create(manifest: Any) -> None:
        line.claim()
        original(manifest)

    owner._create = create  # type: ignore[method-assign]
    with pytest.raises(CheckpointConflictError, match="epoch 2"):
        owner.commit(step(1))


def fail_with(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[int]:
    fired: list[int] = []

    def fail(*arguments: Any, **more: Any) -> Any:
        fired.append(number)
        raise OSError(number, os.strerror(number), "the file")

    monkeypatch.setattr(os, name, fail)
    return fired


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        ("write", errno.ENOSPC, "the disk is full"),
        ("write", errno.EDQUOT, "the quota is used up"),
        ("open", errno.EROFS, "the file system is read-only"),
        ("open", errno.EACCES, "permission denied"),
        ("fsync", errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_cannot_write_is_one_clear_error_and_the_last_checkpoint_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, message: str
) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    good = line.commit(step(0))
    with monkeypatch.context() as patch:
        fired = fail_with(patch, call, number)
        with pytest.raises(CheckpointError, match=rf"Cannot write '.*000000002': .*{message}"):
            line.commit(step(1))
        assert fired == [number]  # a disk's errors are final: no second try
    assert line.newest() == good
    assert not list(tmp_path.rglob(".tmp-*"))
    assert line.commit(step(1)).seq == 2


def test_a_busy_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    line = Store(tmp_path, sleep=waits.append).create_line(Header(run_id="7"))
    line.commit(step(0))
    original = os.link
    left = [errno.EBUSY, errno.EAGAIN]

    def link(*arguments: Any) -> None:
        if left:
            raise OSError(left.pop(), "busy")
        original(*arguments)

    monkeypatch.setattr(os, "link", link)
    line.commit(step(1))
    assert left == []
    assert len(waits) == 2
    assert 0.1 <= waits[0] <= 0.2 <= waits[1] <= 0.4


def test_a_path_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a directory")
    with pytest.raises(CheckpointError, match="a part of the path is a file, not a directory"):
        Store(tmp_path / "run").create_line(Header(run_id="7"))
    with pytest.raises(CheckpointError, match="a part of the path is a file, not a directory"):
        Store(tmp_path / "run").newest_line()


def test_own_files_are_trusted_unless_others_can_write_to_them(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        store = Store(tmp_path)
        line = store.create_line(Header(run_id="7"))
        line.commit(step(0))
    finally:
        os.umask(before)
    path = tmp_path / "lines/000001/m/000000/000000001"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    for mode, trusted in ((0o600, True), (0o644, True), (0o664, False), (0o646, False)):
        path.chmod(mode)
        newest = line.newest()
        assert newest is not None
        assert store.trusted(newest) is trusted
        assert Store(tmp_path, allow_pickle=True).trusted(newest)


def test_files_of_other_users_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Store(tmp_path).create_line(Header(run_id="7"))
    line.commit(step(0))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    newest = line.newest()
    assert newest is not None
    assert not newest.trusted


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("local:///a/../b", "/b"),
        ("~/x", os.path.expanduser("~/x")),
        ("memory://a", None),
        ("s3://b/x", None),
        ("zip::file:///a.zip", None),
    ],
)
def test_a_url_is_local_or_it_is_not(url: str, path: str | None) -> None:
    assert local_path(url) == path


def test_a_changed_large_value_is_seen_to_be_new_or_hashed_to_tell(tmp_path: Path) -> None:
    """Comparing a few places never takes a new value for an old one."""
    line = Store(tmp_path).create_line(Header(run_id="7"))
    value = bytearray(8_000_000)
    blob, _ = line.blobs.put([value])
    assert line.blobs.put([value[:5], memoryview(value)[5:]]) == (blob, True)
    value[-1] = value[0] = 1  # at a place that is compared
    first, reused = line.blobs.put([bytes(value)])
    assert not reused
    value[5000] = 1  # at one that is not
    second, reused = line.blobs.put([bytes(value)])
    assert not reused
    assert len({blob.digest, first.digest, second.digest}) == 3
