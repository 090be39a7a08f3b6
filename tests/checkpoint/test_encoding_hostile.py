"""Damaged and hostile documents: a CheckpointError or a correct value, and nothing else."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray import CheckpointError
from graphorch_ray.checkpoint.encoding import decode, describe, encode

from .codec import Opaque, arrays, joined, plain_values, tables

MUTATIONS = 10_000
MEMORY_TO_SPARE = 512 * 2**20
"""How much memory the fuzzed process may take beyond what it has when it begins, in bytes."""


def corpus() -> list[tuple[bytes, list[bytes]]]:
    """Return documents with their pieces: of every kind, and of several together."""
    loop: list[Any] = [np.zeros(3)]
    loop.append((loop, {1: loop}))
    values = [
        *plain_values().values(),
        *arrays().values(),
        *tables().values(),
        loop,
        [Opaque(x=1), loop],
        list(plain_values().values())[:12],
    ]
    encoded = [encode(value, what="state") for value in values]
    return [(one.document, joined(one)) for one in encoded]


def load_or_refuse(document: bytes, pieces: list[bytes]) -> bool:
    """Load, look at what came, and say whether it loaded. Only a CheckpointError is caught."""

    def piece(number: int) -> bytes:
        if not 0 <= number < len(pieces):
            raise CheckpointError(f"there is no piece {number}")
        return pieces[number]

    try:
        describe(document)
        value = decode(document, piece, trusted=False, what="state")
    except CheckpointError:
        return False
    encode(value, what="state")  # walks through all of it
    return True


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(changed):
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC7, 0xDD, 0xDF, 0xFF))
        elif what == 2:
            del changed[at : at + rng.randrange(1, 9)]
        elif what == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif what == 4:
            start = rng.randrange(len(changed) + 1)
            changed[at:at] = changed[start : start + rng.randrange(1, 40)]
        else:
            changed[at : at + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4))
    return bytes(changed)


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """Load mutated documents and pieces; return how many loaded and how many were refused."""
    rng = random.Random(seed)
    documents = corpus()
    loaded = 0
    for _ in range(count):
        document, pieces = rng.choice(documents)
        if pieces and rng.random() < 0.3:
            at = rng.randrange(len(pieces))
            pieces = [*pieces]
            pieces[at] = mutated(pieces[at][:4096], rng) + pieces[at][4096:]
        else:
            document = mutated(document, rng)
        loaded += load_or_refuse(document, pieces)
    return loaded, count - loaded


def test_mutated_documents_load_or_are_refused() -> None:
    loaded, refused = fuzz(1_500, seed=1)
    assert loaded > 50
    assert refused > 500


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2, 3])
def test_10_000_mutated_documents_under_a_memory_limit(seed: int) -> None:
    code = f"from {__name__} import fuzz_under_limit; fuzz_under_limit({seed})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded, refused = map(int, done.stdout.split())
    assert loaded + refused == MUTATIONS
    assert loaded > 100
    assert refused > 1_000


def fuzz_under_limit(seed: int) -> None:
    corpus()  # all libraries are loaded, and their threads are there
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + MEMORY_TO_SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(*fuzz(MUTATIONS, seed))


@given(st.binary(max_size=200))
def test_any_bytes_load_or_are_refused(data: bytes) -> None:
    load_or_refuse(data, [])
    load_or_refuse(b"\x01" + data, [])


nodes = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["collections:deque", "graphorch_ray.state:State", "<f8", "C", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.tuples(st.integers(0, 52), st.lists(inner, max_size=5)).map(
            lambda node: [msgpack.ExtType(node[0], b""), *node[1]]
        )
    ),
    max_leaves=15,
)


@given(nodes, st.none() | st.lists(nodes, max_size=4))
def test_any_nodes_load_or_are_refused(root: Any, table: list[Any] | None) -> None:
    document = b"\x01" + msgpack.packb(root)
    if table is not None:
        document += msgpack.packb(table) + msgpack.packb(None) + msgpack.packb([5])
    load_or_refuse(document, [b"12345"])


def node(code: int, *args: Any) -> list[Any]:
    return [msgpack.ExtType(code, b""), *args]


def document(root: Any, table: Any = None, pickled: Any = None, sizes: Any = ()) -> bytes:
    parts = [root] if table is None else [root, table, pickled, sizes]
    return b"\x01" + b"".join(map(msgpack.packb, parts))


HUGE_LIST = b"\x01" + b"\xdd\xff\xff\xff\xff"
HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    "empty": b"",
    "another version": b"\x02\xc0",
    "nothing in it": b"\x01",
    "a list that promises 4 billion items": HUGE_LIST,
    "lists in lists that each promise as much as there is": lambda: (
        b"\x01" + b"\xdd\x00\x40\x00\x00" * 900 + b"\x90" * 4_000_000
    ),
    "too deep for msgpack": b"\x01" + b"\x91" * 100_000 + b"\xc0",
    "tuples in tuples": lambda: document(nest(400)),
    "a chain of references": lambda: document(
        node(0, 0), [node(9, node(0, n + 1)) for n in range(5_000)] + [1], None, []
    ),
    "a tuple that is its own item": document(node(0, 0), [node(9, node(0, 0))], None, []),
    "a frozenset that is its own item": document(node(0, 0), [node(15, node(0, 0))], None, []),
    "a reference to itself": document(node(0, 0), [node(0, 0)], None, []),
    "a reference to nothing": document(node(0, 5), [], None, []),
    "a piece that is not there": document(node(6, 7), [], None, [3]),
    "a piece of another size": document(node(6, 0), [], None, [99]),
    "one piece many times": document([node(6, 0)] * 3, [], None, [5]),
    "a shape larger than its bytes": document(node(41, "<f8", [2**40, 2**40], "C", b"12345678")),
    "a shape that is negative": document(node(41, "<f8", [-1], "C", b"")),
    "a shape of zero times too much": document(node(41, "<f8", [0, 2**61], "C", b"")),
    "an array of objects": document(node(41, "|O", [1], "C", b"12345678")),
    "an array of objects in fields": document(
        node(
            41,
            {"fields": [["a", "|O", 0]], "itemsize": 8, "aligned": False},
            [1],
            "C",
            b"12345678",
        )
    ),
    "fields outside the item": document(
        node(
            41,
            {"fields": [["a", "<f8", 4]], "itemsize": 8, "aligned": False},
            [1],
            "C",
            b"12345678",
        )
    ),
    "a dtype that is a list of fields": document(node(41, "f8,O", [], "C", b"")),
    "a key that cannot be hashed": document(node(10, [], 1)),
    "a set of lists": document(node(14, [])),
    "a key without a value": document(node(10, 1)),
    "keys made to collide": lambda: document(
        node(14, *(node(3, (1 + k * (2**61 - 1)).to_bytes(20, "little")) for k in range(2_000)))
    ),
    "an unknown kind": document(node(99)),
    "a mark alone": document(msgpack.ExtType(9, b"")),
    "a mark with content": document([msgpack.ExtType(9, b"x")]),
    "a time stamp of msgpack": document(msgpack.Timestamp(1)),
    "an unset value in a list": document([node(2)]),
    "a pickle that is missing": document(node(1, 0), [], None, []),
    "a zone outside the data base": document(node(25, "../../../etc/passwd")),
    "a day that does not exist": document(node(21, "2024-02-30")),
    "a factory that is code": document(node(12, "eval")),
    "three parts": b"\x01\xc0\xc0\xc0",
    "something after the end": document(1) + b"\xc1",
    "arrow that is none": document(node(48, "Table", b"nonsense")),
    "a pandas table with labels to evaluate": lambda: document(
        node(49, "DataFrame", stream(two_levels()), [], None, {})
    ),
    "an arrow table that is compressed": lambda: document(
        node(48, "Table", stream(pa.table({"x": [0] * 10_000}), compression="zstd"))
    ),
    "an arrow dictionary that is compressed": lambda: document(
        node(
            48,
            "Table",
            stream(pa.table({"x": pa.array(["a" * 9_000]).dictionary_encode()}), compression="lz4"),
        )
    ),
    "an arrow column that points outside": lambda: document(node(48, "Table", bad_offsets())),
}


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = node(9, value)
    return value


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write(table)
    return sink.getvalue().to_pybytes()


def two_levels() -> pa.Table:
    import pandas as pd

    columns = pd.MultiIndex.from_tuples([("a", "1"), ("b", "2")])
    return pa.Table.from_pandas(pd.DataFrame([[1, 2]], columns=columns))


def bad_offsets() -> bytes:
    good = stream(pa.table({"x": ["abcd"]}))
    at = good.index(np.array([0, 4], np.int32).tobytes())
    return good[: at + 4] + np.int32(2**30).tobytes() + good[at + 8 :]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_document_is_refused(name: str) -> None:
    data = HOSTILE[name]
    data = data if isinstance(data, bytes) else data()
    with pytest.raises(CheckpointError, match=r"^state.* (is damaged|cannot be loaded): "):
        decode(data, [b"12345"].__getitem__, trusted=False, what="state")
    for kind in (bytearray, memoryview):
        assert not load_or_refuse(kind(data), [b"12345"])


def test_place_of_the_damage_is_named() -> None:
    data = document({"a": [1, {"b": node(21, "2024-02-30")}]})
    with pytest.raises(CheckpointError, match=r"^state\['a'\]\[1\]\['b'\] is damaged: "):
        decode(data, [].__getitem__, trusted=False, what="state")


@pytest.mark.parametrize("cut", [1, 2, 10, 50])
def test_truncated_document_is_refused(cut: int) -> None:
    data = encode([np.zeros(10), {"x": (1, 2)}], what="state").document
    with pytest.raises(CheckpointError, match="state is damaged"):
        decode(data[:-cut], [].__getitem__, trusted=False, what="state")


def test_truncated_piece_is_refused() -> None:
    encoded = encode(np.zeros(100_000), what="state")
    with pytest.raises(CheckpointError, match="piece 0 is 799999 bytes, not 800000"):
        decode(
            encoded.document,
            lambda _: joined(encoded)[0][:-1],
            trusted=False,
            what="state",
        )
