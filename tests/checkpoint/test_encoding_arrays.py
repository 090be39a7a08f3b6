"""Arrays, Arrow data and frames: exact, without a pickle, and without a copy where that can be."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from graphorch_ray import State
from graphorch_ray.checkpoint.encoding import PIECE_BYTES, decode, encode

from .codec import arrays, assert_same, load, tables, there_and_back

ARRAYS = arrays()
TABLES = tables()


def address(data: Any) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


@pytest.mark.parametrize("name", ARRAYS)
def test_array_comes_back_exactly_and_read_only(name: str) -> None:
    array = ARRAYS[name]
    got = there_and_back(State(messages=[array])).messages[0]
    assert_same(got, array)
    assert not got.flags.writeable
    if array.flags.f_contiguous:
        assert got.flags.f_contiguous


@pytest.mark.parametrize("name", ARRAYS)
def test_array_can_be_had_writable(name: str) -> None:
    got = there_and_back(ARRAYS[name], mutable=True)
    assert_same(got, ARRAYS[name])
    assert got.flags.writeable


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("mutable", [False, True])
def test_table_comes_back_exactly(name: str, mutable: bool) -> None:
    assert_same(there_and_back([TABLES[name]], mutable=mutable)[0], TABLES[name])


@pytest.mark.parametrize("name", ["frame", "series", "frame with an index"])
def test_mutable_frame_can_be_written_to(name: str) -> None:
    got = there_and_back(TABLES[name], mutable=True)
    got.iloc[0] = got.iloc[1]


@pytest.mark.parametrize("array", [ARRAYS["large"], np.asfortranarray(ARRAYS["large"]).T])
def test_piece_of_an_array_is_its_own_memory(array: np.ndarray) -> None:
    ((part,),) = encode(array, what="state").pieces
    assert address(part) == array.ctypes.data
    assert len(part) == array.nbytes


def test_piece_of_a_ray_object_s_read_only_memory_is_that_memory() -> None:
    store = memoryview(bytes(200_000))
    array = np.frombuffer(store, np.int64)
    ((part,),) = encode(array, what="state").pieces
    assert address(part) == address(store)


def test_array_lies_over_the_piece_it_is_read_from() -> None:
    encoded = encode(ARRAYS["large"], what="state")
    piece = bytes(encoded.pieces[0][0])
    got = decode(encoded.document, lambda _: piece, trusted=False, what="state")
    assert got.ctypes.data == address(piece)


def test_array_and_table_lie_over_a_mapped_file(tmp_path: Path) -> None:
    table = TABLES["large table"]
    for value in (ARRAYS["large"], table, table.to_pandas(), pl.from_arrow(table)):
        encoded = encode(value, what="state")
        (parts,) = encoded.pieces
        path = tmp_path / type(value).__name__
        path.write_bytes(b"".join(parts))
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        got = decode(encoded.document, lambda _, held=mapped: held, trusted=False, what="state")
        first = address(mapped)
        assert first <= _address_of(got) < first + len(mapped)
        assert_same(got, value)


def _address_of(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return int(value.ctypes.data)
    if isinstance(value, pd.DataFrame):
        return int(value["x"].to_numpy().ctypes.data)
    column = value["x"]
    if isinstance(column, pl.Series):
        return int(column.to_numpy(allow_copy=False).ctypes.data)
    return int(column.chunk(0).buffers()[1].address)


def test_buffers_of_a_table_are_not_copied_when_written() -> None:
    table = TABLES["large table"]
    ((*parts,),) = encode(table, what="state").pieces
    there = {address(part) for part in parts if len(part) >= PIECE_BYTES}
    assert there == {column.chunk(0).buffers()[1].address for column in table.columns}


def test_slice_of_a_large_table_is_written_alone() -> None:
    sliced = TABLES["large table"].slice(10, 5)
    encoded = encode(sliced, what="state")
    assert len(encoded.document) + sum(map(len, sum(encoded.pieces, ()))) < 10_000
    assert load(encoded).equals(sliced)


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a"], dtype=object),
        np.rec.array([(1, 2.0)]),
        np.ma.masked_array([1], [True]),
        pd.DataFrame({"a": [1, "b"]}),
        pd.DataFrame({"a": [1]}, index=pd.Index([object])),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
        pd.DataFrame({"a": [1 + 2j]}),
        pd.Timestamp("2024-01-01"),
        pl.LazyFrame({"a": [1]}),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_what_would_not_come_back_exactly_is_pickled_and_marked(value: Any) -> None:
    encoded = encode({"x": value}, what="state")
    assert len(encoded.pickled) == 1
    assert encoded.pickled[0].startswith("state['x'] (a ")
    assert type(load(encoded, trusted=True)["x"]) is type(value)


def test_large_buffers_of_a_pickle_are_pieces_too() -> None:
    value = np.ma.masked_array(np.arange(100_000), np.zeros(100_000, bool))
    encoded = encode(value, what="state")
    assert len(encoded.document) < 2_000
    assert (load(encoded, trusted=True) == value).all()


@given(npst.arrays(npst.scalar_dtypes() | npst.array_dtypes(), npst.array_shapes(min_side=0)))
def test_any_array_comes_back(array: np.ndarray) -> None:
    assert_same(there_and_back(array), array)


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats() | st.integers(-(2**53), 2**53).map(float),
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        )
    ),
    st.integers(0, 3),
)
def test_any_table_comes_back(rows: list[tuple[Any, ...]], start: int) -> None:
    schema = pa.schema([("i", pa.int64()), ("f", pa.float64()), ("s", pa.string())])
    table = pa.Table.from_pylist([dict(zip("ifs", row, strict=True)) for row in rows], schema)
    table = table.slice(min(start, table.num_rows))
    got = there_and_back(table)
    assert got.schema == table.schema
    assert repr(got.to_pylist()) == repr(table.to_pylist())


@pytest.mark.parametrize("order", ["C", "F"])
def test_array_of_200_mb_costs_no_copy(order: str) -> None:
    array = np.ndarray((25_000, 1_000), np.float64, bytearray(200_000_000), order=order)  # type: ignore[call-overload]
    encoded = encode(State(messages=[array]), what="state")
    ((part,),) = encoded.pieces
    got = decode(encoded.document, lambda _: part, trusted=False, what="state").messages[0]
    assert got.ctypes.data == array.ctypes.data
    assert got.strides == array.strides
