"""The S3 protocol: what is asked, how often, and what a look-alike may get wrong."""

from __future__ import annotations

import secrets
import sys
import warnings
from typing import Any

import pytest

from graphorch_ray.checkpoint import remote
from graphorch_ray.checkpoint.manifest import Header
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointConflictError, CheckpointError, GraphWarning
from tests.checkpoint.makers import step
from tests.s3_server import BUCKET, S3Server

VALUE = secrets.token_bytes(200_000)


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{secrets.token_hex(8)}"


def test_requests_are_counted(s3: S3Server, url: str) -> None:
    """The table in docs/checkpoints.md says these numbers."""
    remote._atomic.clear()
    store = Store(url, storage_options=s3.options, keep_last=2)
    assert s3.counted() == {}
    line = store.create_line(Header(run_id="7"))
    probe = {"PUT": 2, "DELETE": 1}
    assert s3.counted() == {"LIST": 1, "PUT": 1 + probe["PUT"], "DELETE": probe["DELETE"]}
    blob, _ = line.blobs.put([VALUE])
    assert s3.counted() == {"HEAD": 1, "PUT": 1}
    line.commit(step(0, blob))
    assert s3.counted() == {"PUT": 1}
    line.prune()
    assert s3.counted() == {}
    line.blobs.put([VALUE])
    assert s3.counted() == {"HEAD": 1}
    line.commit(step(1, blob))
    assert line.missing([blob]) == []
    assert s3.counted() == {"PUT": 1}
    line.prune()
    assert s3.counted() == {}
    line.commit(step(2))
    s3.counted()
    line.prune()
    assert s3.counted() == {"LIST": 1, "DELETE": 1}
    line.commit(step(3))
    s3.counted()
    line.prune()
    assert s3.counted() == {"LIST": 1, "DELETE": 2}  # the blob goes, too

    again = Store(url, storage_options=s3.options, keep_last=2)
    resumed = again.newest_line()
    assert resumed is not None
    assert s3.counted() == {"LIST": 1, "GET": 1}
    resumed.newest()
    assert s3.counted() == {"LIST": 2, "GET": 1}
    resumed.claim()
    assert s3.counted() == {"LIST": 4, "GET": 1, "PUT": 1}
    resumed.commit(step(4))
    assert s3.counted() == {"PUT": 1}
    resumed.prune()  # the first time it looks at what the owner before has left
    assert s3.counted() == {"LIST": 5, "DELETE": 1}


def test_a_blob_is_read_by_one_request(s3: S3Server, url: str) -> None:
    line = Store(url, storage_options=s3.options).create_line(Header(run_id="7"))
    blob, _ = line.blobs.put([VALUE])
    s3.counted()
    assert line.blobs.get(blob) == VALUE
    assert s3.counted() == {"GET": 1}


def test_a_value_that_goes_up_in_parts_comes_back(s3: S3Server, url: str) -> None:
    line = Store(url, storage_options=s3.options).create_line(Header(run_id="7"))
    value = secrets.token_bytes(1 << 20) * 101
    blob, _ = line.blobs.put([value[:5], value[5:]])
    counted = s3.counted()
    assert counted["POST"] == 2  # begun and completed
    assert counted["PUT"] >= 3
    assert line.blobs.get(blob) == value
    assert line.blobs.put([value]) == (blob, True)


@pytest.mark.chaos  # not for its violence, but for its thousand requests
def test_more_than_a_thousand_names_are_listed_in_pages(s3: S3Server, url: str) -> None:
    files = Store(url, storage_options=s3.options).place.files()
    names = [f"{i:06d}" for i in range(1005)]
    fs = files._files._fs  # type: ignore[attr-defined]
    fs.pipe({f"{url}/many/{name}": b"x" for name in names})  # many at once
    s3.counted()
    assert files.names("many") == names
    assert s3.counted() == {"LIST": 2}
    files.delete(f"many/{name}" for name in names)
    assert s3.counted() == {"DELETE": 2}
    assert files.names("many") == []


def test_a_look_alike_that_ignores_conditions_is_told_once(s3: S3Server, url: str) -> None:
    remote._atomic.clear()
    s3.ignores_conditions = True
    store = Store(url, storage_options=s3.options)
    with pytest.warns(GraphWarning, match=r"two drivers .* cannot be kept apart"):
        line = store.create_line(Header(run_id="7"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line.commit(step(0))
        Store(url, storage_options=s3.options).create_line(Header(run_id="8"))
    # It works all the same, and looks before it writes.
    store.line("000001").claim()
    with pytest.raises(CheckpointConflictError):
        line.commit(step(1))
    remote._atomic.clear()


def test_the_probe_leaves_nothing_and_is_made_once_for_a_bucket(s3: S3Server, url: str) -> None:
    remote._atomic.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = Store(url, storage_options=s3.options)
        store.create_line(Header(run_id="7"))
        Store(url + "/other", storage_options=s3.options).create_line(Header(run_id="7"))
    assert s3.counted() == {"LIST": 2, "PUT": 4, "DELETE": 1}
    assert store.place.files().names("") == ["lines", "other"]


def test_without_s3fs_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec  # noqa: F401 (loads the next one)

    monkeypatch.setitem(sys.modules, "s3fs", None)
    imported: Any = vars(sys.modules["fsspec.registry"])["_registry"]
    monkeypatch.delitem(imported, "s3", raising=False)
    with pytest.raises(CheckpointError, match=r"pip install 'graphorch-ray\[s3\]'"):
        Store("s3://bucket/run-without-s3fs").newest_line()


def test_no_credentials_and_no_server_are_clear_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    options: dict[str, Any] = {
        "endpoint_url": "http://127.0.0.1:9",  # nobody listens there
        "key": "k",
        "secret": "s",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    store = Store("s3://bucket/run", storage_options=options, sleep=waits.append)
    store.place.files()._files._fs.retries = 1  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"Cannot list '.*', 6 times: "):
        store.newest_line()
    assert len(waits) == 5
