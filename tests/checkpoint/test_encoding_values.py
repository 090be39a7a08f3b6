"""Values come back as what they were, to the type; nothing plain is pickled."""

from __future__ import annotations

import datetime as dt
import math
import struct
import uuid
from collections import defaultdict, deque
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphorch_ray import CheckpointError, State
from graphorch_ray.checkpoint.encoding import PIECE_BYTES, describe, encode

from .codec import Colour, Opaque, Slotted, assert_same, load, plain_values, there_and_back

VALUES = plain_values()


@pytest.mark.parametrize("name", VALUES)
def test_plain_value_comes_back_exactly(name: str) -> None:
    value = VALUES[name]
    assert_same(there_and_back(value), value)
    assert_same(there_and_back([value, {"x": value}])[1]["x"], value)


def test_type_of_each_key_and_item_is_kept() -> None:
    value = [True, 1, 1.0, np.int64(1), np.str_("a"), "a", (1,), [1]]
    assert [type(item) for item in there_and_back(value)] == [type(item) for item in value]
    keys = {1: "int", "1": "str", np.float32(2.5): "numpy"}
    assert [*map(type, there_and_back(keys))] == [*map(type, keys)]


def test_order_of_a_dict_is_kept() -> None:
    value = dict.fromkeys(["z", "a", 3, "b", 1])
    assert list(there_and_back(value)) == list(value)


def test_nan_and_signed_zero_are_kept_to_the_bit() -> None:
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_1234))[0]
    got = there_and_back([odd, -0.0, complex(-0.0, math.nan), Decimal("sNaN")])
    assert struct.pack("<d", got[0]) == struct.pack("<d", odd)
    assert math.copysign(1, got[1]) == -1
    assert math.copysign(1, got[2].real) == -1
    assert math.isnan(got[2].imag)
    assert got[3].is_snan()


def test_memoryview_keeps_format_and_shape() -> None:
    value = memoryview(np.arange(6, dtype=np.int32).reshape(2, 3))
    got = there_and_back(value)
    assert (got.format, got.shape, got.tolist()) == ("i", (2, 3), value.tolist())
    assert got.readonly
    assert not there_and_back(value, mutable=True).readonly
    assert there_and_back(memoryview(b"")).nbytes == 0


def test_uuid_keeps_whether_it_is_safe() -> None:
    value = uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)
    assert there_and_back(value).is_safe is uuid.SafeUUID.safe


def test_fold_and_name_of_a_zone_are_kept() -> None:
    zone = dt.timezone(dt.timedelta(hours=1), "Home")
    got = there_and_back(dt.datetime(2024, 1, 1, fold=1, tzinfo=zone))
    assert (got.fold, got.tzname()) == (1, "Home")


def test_defaultdict_and_deque_keep_what_they_do() -> None:
    got = there_and_back([defaultdict(list), defaultdict(None, {1: 2}), deque([1], 1)])
    assert got[0]["new"] == []
    assert got[1].default_factory is None
    assert got[2].maxlen == 1


def test_large_collections() -> None:
    long = list(range(1_000_000))
    assert there_and_back(State(messages=long)).messages == long
    wide = {f"key {n}": n for n in range(100_000)}
    assert there_and_back(wide) == wide
    numbered = {n: str(n) for n in range(100_000)}
    assert there_and_back(numbered) == numbered


def test_any_depth_of_lists_and_dicts() -> None:
    deep: Any = "the end"
    for _ in range(50_000):
        deep = [{"next": deep}]
    got = there_and_back(deep)
    for _ in range(50_000):
        got = got[0]["next"]
    assert got == "the end"


def test_tuples_nested_too_deep_are_a_clear_error() -> None:
    deep: Any = ()
    for _ in range(5_000):
        deep = (deep,)
    with pytest.raises(CheckpointError, match="tuples in it are nested more than 64 deep"):
        encode(deep, what="state")
    shared: Any = ()
    kept = [shared := (shared, 1) for _ in range(500)]
    with pytest.raises(CheckpointError, match="nested more than 64 deep"):
        encode(kept, what="state")


def test_a_doubling_graph_of_tuples_stays_small() -> None:
    value: Any = ("leaf",)
    for _ in range(60):
        value = (value, value)
    got = there_and_back(value)
    assert got[0] is got[1]


def test_only_large_buffers_become_pieces() -> None:
    encoded = encode([b"a" * (PIECE_BYTES - 1), "b" * (PIECE_BYTES - 1)], what="state")
    assert encoded.pieces == ()
    large = b"a" * PIECE_BYTES
    encoded = encode([large, {"x": "b" * PIECE_BYTES}, large], what="state")
    assert [len(parts[0]) for parts in encoded.pieces] == [PIECE_BYTES, PIECE_BYTES]
    assert encoded.pieces[0][0] is large  # not a copy
    assert load(encoded)[2] == large


def test_equal_values_make_equal_documents() -> None:
    one = {"tags": {f"tag {n}" for n in range(100)}}
    two = {"tags": {f"tag {n}" for n in reversed(range(100))}}
    assert encode(one, what="a").document == encode(two, what="b").document


def test_document_of_a_small_state_is_small() -> None:
    assert len(encode(State(messages=[1]), what="state").document) < 64


def test_description_tells_types_sizes_and_places_without_the_pieces() -> None:
    value = State(messages=[np.zeros((100, 200)), "hello", (1, Colour.RED), {"model": Opaque()}])
    encoded = encode(value, what="state")
    assert encoded.pickled == ("state.messages[3]['model'] (a tests.checkpoint.codec.Opaque)",)
    told = describe(encoded.document)
    assert told.type == "graphorch_ray.state:State"
    ((label, messages),) = told.children
    assert (label, messages.type, messages.length) == (".messages", "list", 4)
    array, text, pair, _ = (child for _, child in messages.children)
    assert array.type == "numpy array of <f8 (100, 200)"
    assert (array.nbytes, array.pieces) == (160_000, (0,)) or array.pieces == (1,)
    assert (text.type, text.length, text.nbytes) == ("str", 5, 5)
    assert [child.type for _, child in pair.children] == ["int", "tests.checkpoint.codec:Colour"]
    assert told.pickled == (".messages[3]['model']",)
    assert told.nbytes > 160_005


def test_description_of_something_long_or_cyclic_is_short() -> None:
    loop: list[Any] = list(range(1000))
    loop.append(loop)
    told = describe(encode(loop, what="state").document)
    assert (told.type, told.length, len(told.children)) == ("list", 1001, 100)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from(Colour)
)
hashables = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(hashables, inner)
        | st.sets(hashables)
        | st.lists(inner).map(deque)
        | st.builds(State, messages=st.lists(inner))
        | st.builds(Slotted, st.integers(), inner)
    ),
    max_leaves=30,
)


@given(values)
def test_any_nested_plain_value_comes_back(value: Any) -> None:
    assert there_and_back(value) == value
