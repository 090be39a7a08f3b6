"""The byte form of manifests: small, exact, and hard to fool."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray.checkpoint.manifest import (
    Active,
    Blob,
    Done,
    Header,
    Manifest,
    Stored,
    seal,
    unseal,
)
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointError

blobs = st.builds(
    Blob,
    st.sampled_from(["", "000001", "000012"]),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.sampled_from(["", "zstd"]),
)
stored = st.builds(
    Stored,
    st.binary(max_size=20) | blobs,
    st.lists(blobs, max_size=2).map(tuple),
    st.integers(0, 2**50),
    st.integers(0, 100),
)
numbers = st.integers(0, 2**31)
texts = st.text(max_size=8).filter(lambda text: text.isprintable())
plain = st.dictionaries(
    texts, st.integers(-5, 5) | texts | st.none() | st.lists(numbers), max_size=2
)
manifests = st.builds(
    Manifest,
    line=st.sampled_from(["", "000001"]),
    seq=numbers,
    epoch=numbers,
    writer=texts,
    created=st.floats(0, 1e12),
    kind=st.sampled_from(["start", "superstep", "partial", "claim", "end"]),
    status=st.sampled_from(["running", "finished", "failed"]),
    superstep=numbers,
    states=st.lists(stored, max_size=3).map(tuple),
    active=st.lists(
        st.builds(
            Active, texts, st.lists(texts).map(tuple), st.lists(numbers, max_size=3).map(tuple)
        ),
        max_size=2,
    ).map(tuple),
    final=st.none() | numbers,
    done=st.lists(
        st.builds(Done, numbers, st.sampled_from(["node", "fallback"]), numbers, plain), max_size=2
    ).map(tuple),
    fences=st.lists(numbers, max_size=3).map(tuple),
    options=plain,
    trace=plain,
    extra=plain,
)
headers = st.builds(
    Header,
    run_id=texts,
    branch=texts,
    parent=st.none() | st.tuples(st.just("000001"), numbers),
    nonce=texts,
    graph=st.none() | stored,
    initial=st.none() | stored,
    options=plain,
)
keys = st.none() | st.binary(min_size=1, max_size=40)
SMALL = Manifest(kind="start", status="running", superstep=0, states=(Stored(b"x" * 300),))


@given(manifests, keys, texts)
def test_a_manifest_comes_back_as_it_was(
    manifest: Manifest, key: bytes | None, context: str
) -> None:
    again = Manifest.from_bytes(manifest.to_bytes(key, context), key, context)
    assert again == manifest
    assert again.trusted is (key is not None)
    assert list(again.blobs()) == list(manifest.blobs())


@given(headers, keys)
def test_a_header_comes_back_as_it_was(header: Header, key: bytes | None) -> None:
    assert Header.from_bytes(header.to_bytes(key), key) == header


def test_a_manifest_of_one_small_state_is_small() -> None:
    made = Manifest(
        line="000001",
        seq=123456,
        epoch=3,
        writer="somebody@a-rather-long-host-name.example.com pid 4194304 (0a1b2c3d)",
        created=time.time(),
        kind="superstep",
        status="running",
        superstep=123456,
        states=(Stored(b"x" * 300),),
        active=(Active("a_node_with_a_name", ("another_node",), (0,)),),
        fences=(7, 1000),
        trace={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    )
    assert len(made.to_bytes(b"key", "nonce")) < 1000


@given(st.data())
def test_any_change_of_the_bytes_is_noticed(data: st.DataObject) -> None:
    key = data.draw(keys)
    content = bytearray(SMALL.to_bytes(key, "here"))
    for _ in range(data.draw(st.integers(1, 3))):
        how = data.draw(st.sampled_from(["flip", "cut", "add", "drop"]))
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        if how == "flip" and content:
            content[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del content[at:]
        elif how == "drop" and content:
            del content[at]
        elif how == "add":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=4))
    if bytes(content) == SMALL.to_bytes(key, "here"):
        return
    with pytest.raises(CheckpointError, match=r"^its? "):
        Manifest.from_bytes(bytes(content), key, "here")


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.binary(max_size=8)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)
NAMES = [
    "line",
    "seq",
    "kind",
    "status",
    "superstep",
    "states",
    "active",
    "final",
    "done",
    "fences",
]


@given(st.dictionaries(st.sampled_from(NAMES), junk) | junk)
def test_a_body_of_anything_is_an_error_or_a_manifest(body: Any) -> None:
    """A checksum proves nothing about who made a file."""
    try:
        packed = msgpack.packb(body)
    except (ValueError, OverflowError):
        return
    with contextlib.suppress(CheckpointError):
        manifest = Manifest.from_bytes(seal(b"M", packed, None, ""))
        assert all(isinstance(item, Stored) for item in manifest.states)
        assert type(manifest.superstep) is int


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 100_000,  # lists in lists
        b"\xdf\xff\xff\xff\xff",  # a mapping of 4 billion
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"",
        b"\xc1",
    ],
)
def test_a_hostile_body_is_an_error_at_once(body: bytes) -> None:
    with pytest.raises(CheckpointError, match="does not hold what it should"):
        Manifest.from_bytes(seal(b"M", body, None, ""))


@pytest.mark.parametrize("line", ["../../etc", "a/b", "..", "1/2", "\u0661"])
def test_a_line_name_that_leads_elsewhere_is_refused(line: str) -> None:
    bad = Manifest(
        kind="start",
        status="running",
        superstep=0,
        states=(Stored(b"", (Blob(line, "0" * 64, 1, 1),)),),
    )
    with pytest.raises(CheckpointError, match="is no name of a line"):
        Manifest.from_bytes(bad.to_bytes())


def test_a_signature_holds_for_its_key_and_its_place() -> None:
    content = SMALL.to_bytes(b"key", "line 1")
    assert Manifest.from_bytes(content, b"key", "line 1").trusted
    assert not Manifest.from_bytes(content).trusted  # without a key it cannot be checked
    assert not Manifest.from_bytes(SMALL.to_bytes(), b"key").trusted
    assert Manifest.from_bytes(SMALL.to_bytes(), own=True).trusted
    for key, context in ((b"other", "line 1"), (b"key", "line 2")):
        with pytest.raises(CheckpointError, match="not made with this key for this place"):
            Manifest.from_bytes(content, key, context)
    with pytest.raises(CheckpointError, match="as no file of its kind does"):
        Header.from_bytes(content, b"key")


def test_a_newer_version_is_said_to_be_newer() -> None:
    import hashlib

    content = bytearray(SMALL.to_bytes())
    content[4] = 2
    content[-32:] = hashlib.sha256(content[:-32]).digest()
    with pytest.raises(CheckpointError, match=r"newer graphorch_ray \(format 2"):
        Manifest.from_bytes(bytes(content))


def test_what_is_not_plain_cannot_be_put_into_a_manifest() -> None:
    with pytest.raises(CheckpointError, match="a Manifest must hold plain data"):
        Manifest(kind="start", status="", superstep=0, extra={"a": object()}).to_bytes()


def test_seal_and_unseal() -> None:
    assert unseal(b"X", seal(b"X", b"body", None, ""), None, "") == (b"body", False)
    assert unseal(b"X", seal(b"X", b"body", b"k", "c"), b"k", "c") == (b"body", True)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHORCH_CHECKPOINT_KEY", "secret")
    assert Store("x").key == b"secret"
    assert Store("x", key=b"mine").key == b"mine"
    monkeypatch.setenv("GRAPHORCH_CHECKPOINT_KEY", "")
    assert Store("x").key is None
