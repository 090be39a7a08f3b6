"""What the tests of the encoding share: a way there and back, and values of every kind."""

from __future__ import annotations

import datetime as dt
import enum
import pathlib
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, PrivateAttr

from graphorch_ray import State
from graphorch_ray.checkpoint.encoding import Encoded, decode, describe, encode


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    ALSO_RED = 1  # noqa: PIE796 (an alias)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Point(NamedTuple):
    x: float
    y: float = 0.0


OldPoint = namedtuple("OldPoint", "x y")


@dataclass
class Item:
    name: str
    price: Decimal = Decimal(1)
    tags: list[str] = field(default_factory=list)
    computed: int = field(init=False)


@dataclass(frozen=True)
class Frozen:
    x: int
    inner: Any = None


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    inner: Any = None


@dataclass
class MyState(State):
    round: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


class Address(BaseModel):
    street: str
    number: int | None = None


class Person(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    address: Address | None = None
    scores: list[float] = []
    _secret: int = PrivateAttr(default=0)


class Opaque:
    """What no kind fits."""

    def __init__(self, **content: Any) -> None:
        self.__dict__.update(content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


def there_and_back(
    value: Any, *, trusted: bool = False, mutable: bool = False, plain: bool = True, **more: Any
) -> Any:
    """Encode and decode a value, and describe it in passing; by default nothing may be pickled."""
    encoded = encode(value, what="state")
    if plain:
        assert encoded.pickled == ()
    assert describe(encoded.document).pickled == () or not plain
    return load(encoded, trusted=trusted, mutable=mutable, **more)


def load(
    encoded: Encoded, *, trusted: bool = False, mutable: bool = False, what: str = "state", **more
) -> Any:
    pieces = joined(encoded)
    return decode(
        encoded.document, pieces.__getitem__, trusted=trusted, mutable=mutable, what=what, **more
    )


def joined(encoded: Encoded) -> list[bytes]:
    return [b"".join(parts) for parts in encoded.pieces]


def item() -> Item:
    made = Item("rod", Decimal("1.50"), ["a"])
    made.computed = 3
    made.extra = "not a field"  # type: ignore[attr-defined]
    return made


def person() -> Person:
    made = Person(name="Ada", address=Address(street="High"), height=1.7)
    made._secret = 7
    return made


def plain_values() -> dict[str, Any]:
    """Return values of all kinds that can be compared with ``==``, by name."""
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    return {
        "none": None,
        "booleans": [True, False],
        "integers": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**200), 10**50],
        "floats": [0.0, 1.5, float("inf"), 5e-324],
        "complex": 1 - 2j,
        "text": "plain, ünïcode, 🙂, \x00 and \ud800 alone",
        "large text": "ü" * 70_000,
        "bytes": b"\x00\xff",
        "large bytes": bytes(range(256)) * 300,
        "bytearray": bytearray(b"abc"),
        "list": [1, [2, [3, []]]],
        "tuple": (1, (2,), ()),
        "dict": {"a": {"b": 1}, "": 0},
        "dict of any keys": {1: "a", None: 2, (1, 2): 3, b"x": 4, 2.5: 5, Colour.RED: 6},
        "set": {1, 2, 3},
        "mixed set": {1, "a", (2, 3), None},
        "frozenset": frozenset({frozenset({1}), 2}),
        "deque": deque([1, [2]], maxlen=5),
        "ordered dict": OrderedDict([("b", 1), (2, [3])]),
        "defaultdict": defaultdict(list, {"a": [1]}),
        "counter": Counter("abca"),
        "range": range(10, -(2**70), -3),
        "slice": slice(1, None, (2,)),
        "constants": [..., NotImplemented],
        "datetime": dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
        "aware": dt.datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=1),
        "offset": dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5), "EST")),
        "utc": dt.datetime(9999, 12, 31, tzinfo=dt.UTC),
        "date": dt.date(2024, 2, 29),
        "time": dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
        "timedelta": dt.timedelta(-1, 5, 7),
        "zones": [berlin, dt.UTC, dt.timezone(dt.timedelta(seconds=1))],
        "decimal": [Decimal("1.10"), Decimal("-0"), Decimal("1E+999"), Decimal("Infinity")],
        "uuid": uuid.UUID(int=7),
        "paths": [
            pathlib.Path("a/b"),
            pathlib.PurePosixPath("/x"),
            pathlib.PureWindowsPath("c:/x"),
        ],
        "enum": [Colour.RED, Colour.GREEN, Colour.ALSO_RED, Level.HIGH],
        "flag": [Access.READ, Access.READ | Access.RUN, Access(0)],
        "namedtuple": [Point(1.0), OldPoint(1, [2])],
        "dataclass": item(),
        "frozen dataclasses": [Frozen(1, [2]), Slotted(3, (4,))],
        "state": State(messages=[1, "a", {"b": (2,)}]),
        "own state": MyState(messages=[1], round=2, notes={"x": {3}}),
        "pydantic": [Address(street="Low"), person()],
        "numpy scalars": [
            np.float32(1.5),
            np.int8(-3),
            np.bool_(True),
            np.str_("a\0"),
            np.bytes_(b"a\0"),
        ],
        "numpy times": [np.datetime64("2024-01-01T00:00", "m"), np.timedelta64(5, "D")],
        "numpy keys": {np.int64(1): "a", np.str_("b"): 2},
    }


def arrays() -> dict[str, np.ndarray]:
    big = np.arange(120_000, dtype=np.float64).reshape(300, 400)
    structured = np.zeros(3, [("a", "<i4"), ("b", ">f8", (2, 2)), ("c", [("d", "S3")])])
    structured["a"] = [1, 2, 3]
    read_only = np.arange(5)
    read_only.flags.writeable = False
    return {
        "large": big,
        "large, Fortran order": np.asfortranarray(big),
        "small": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "strided": big[::2, ::-3],
        "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
        "no dimension": np.array(5.5),
        "empty": np.zeros((0, 3)),
        "empty, large dimension": np.zeros((10**6, 0), dtype=np.int32),
        "read-only": read_only,
        "big-endian": np.arange(5, dtype=">i4"),
        "booleans": np.array([True, False]),
        "complex": np.array([1 + 2j], dtype=np.complex64),
        "half": np.arange(3, dtype=np.float16),
        "texts": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "dates": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        "durations": np.array([1, 2], dtype="m8[25us]"),
        "structured": structured,
        "aligned": np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
        "void": np.zeros(2, "V7"),
    }


def tables() -> dict[str, Any]:
    """Return Arrow data and frames, by name."""
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "s": pa.array(["a", "b", None]),
            "l": pa.array([[1], [], None]),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    ).replace_schema_metadata({"k": "v"})
    days = pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")
    frame = pd.DataFrame(
        {
            "f": [1.0, np.nan, 3.0],
            "i": [1, 2, 3],
            "t": days,
            "c": pd.Categorical(["a", "b", "a"], ordered=True),
            "n": pd.array([1, None, 2], dtype="Int64"),
            "o": ["x", "y", "z"],
        }
    )
    indexed = frame.set_index(pd.date_range("2024-01-01", periods=3, freq="2D", name="when"))
    indexed.attrs = {"unit": ("m", 2)}
    return {
        "table": table,
        "large table": pa.table({"x": np.arange(50_000.0), "y": np.arange(50_000)}),
        "chunked table": pa.concat_tables([table, table]),
        "table without rows": table.schema.empty_table(),
        "record batch": pa.record_batch({"a": [1, 2]}),
        "record batch without rows": pa.record_batch({"a": pa.array([], pa.int8())}),
        "array": pa.array([1, None, 3]),
        "sliced array": pa.array(list(range(100)))[10:20],
        "chunked array": pa.chunked_array([[1], [2, 3]]),
        "frame": frame,
        "frame with an index": indexed,
        "frame of objects": frame[["o"]].astype(object),
        "frame without rows": frame.drop(columns="c").iloc[:0],
        "frame without columns": frame[[]],
        "frame with integer labels": pd.DataFrame(np.arange(6).reshape(2, 3)),
        "series": pd.Series([1.5, 2.5], name=("a", 1)),
        "series without a name": pd.Series(["a", "b"]),
        "polars frame": pl.DataFrame(
            {
                "a": [1, None],
                "s": ["x", "y"],
                "l": [[1.0], []],
                "c": pl.Series(["u", "v"], dtype=pl.Categorical),
                "e": pl.Series(["u", "v"], dtype=pl.Enum(["u", "v"])),
                "d": [Decimal("1.1"), None],
                "t": [dt.datetime(2024, 1, 1), None],
            }
        ),
        "polars series": pl.Series("n", [1, 2, 3], dtype=pl.UInt8),
    }


def assert_same(one: Any, two: Any) -> None:
    """Assert that two values of any kind are equal and of the same type."""
    assert type(one) is type(two)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert one.tobytes() == two.tobytes()
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(
            one, two, check_freq=True, check_column_type="exact", check_index_type="exact"
        )
        assert one.attrs == two.attrs
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, two, check_freq=True, check_index_type="exact")
    elif isinstance(one, (pl.DataFrame, pl.Series)):
        assert one.equals(two)
        assert getattr(one, "schema", one.shape) == getattr(two, "schema", two.shape)
    elif isinstance(one, pa.Table):
        assert one.equals(two, check_metadata=True)
    elif isinstance(one, (pa.RecordBatch, pa.Array, pa.ChunkedArray)):
        assert one.equals(two)
    else:
        assert one == two
        assert repr(one) == repr(two) or isinstance(one, (set, frozenset))
