"""Kinds of value that pyarrow writes: Arrow data, pandas and polars frames. Never a pickle."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from .kinds import Buffer, Damaged, Kind, Outline, Reader, Writer, expect, numbered


class _Parts:
    """A file that keeps what is written to it, uncopied."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[Buffer] = []

    def write(self, part: Any) -> int:
        self.parts.append(part if isinstance(part, bytes) else memoryview(part).cast("B"))
        return len(part)

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def _to_stream(table: Any) -> list[Buffer]:
    """Write a table or record batch as an Arrow IPC stream; the buffers of it are not copied."""
    import pyarrow as pa

    out = _Parts()
    with pa.PythonFile(out, mode="w") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write(table)
    return out.parts


def _from_stream(data: memoryview, *, trusted: bool) -> Any:
    """Return the table of an Arrow IPC stream, over the bytes that are given."""
    import pyarrow as pa

    if not trusted:
        _refuse_compressed(data)
    with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        table = stream.read_all()
    if not trusted:  # offsets that point elsewhere would be read, by whoever uses the table
        table.validate(full=True)
    return table


def _refuse_compressed(data: memoryview) -> None:
    """Raise if a buffer is compressed: a few bytes could fill the memory, and none is ever written.

    pyarrow does not tell, so this looks into the messages: flatbuffers, whose tables point to
    a list of where their fields are (https://flatbuffers.dev/internals).
    """
    import pyarrow as pa

    def field(table: int, number: int) -> int:
        fields = table - number_at("<i", table)
        place = 4 + 2 * number
        there = number_at("<H", fields + place) if place < number_at("<H", fields) else 0
        return table + there if there else 0

    def follow(place: int) -> int:
        return place + number_at("<I", place)

    def number_at(layout: str, place: int) -> int:
        expect(0 <= place <= len(message.metadata), "its messages are damaged")
        return int(struct.unpack_from(layout, message.metadata, place)[0])

    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(data)):
        if message.type not in ("record batch", "dictionary"):
            continue
        batch = follow(field(follow(0), 2))
        if message.type == "dictionary":
            batch = follow(field(batch, 1))
        expect(not field(batch, 3), "its buffers are compressed, which no writer does")


class _Table(Kind):
    """Holds one Arrow table; its first argument is the name of the type."""

    library: ClassVar[str]

    def __init__(self, table: Any = None) -> None:
        self.table = table

    def outline(self, args: list[Any]) -> Outline:
        name, data, *_ = args
        return Outline(f"{self.library} {name}", data=[data])


class _ArrowKind(_Table):
    code, name, library = 48, "Arrow data", "Arrow"

    def write(self, value: Any, writer: Writer) -> list[Any]:
        import pyarrow as pa

        if isinstance(value, pa.Table):
            name, table = "Table", value
        elif isinstance(value, pa.RecordBatch):
            name, table = "RecordBatch", value
        elif isinstance(value, pa.ChunkedArray):
            name, table = "ChunkedArray", pa.table([value], ["0"])
        else:
            name, table = "Array", pa.record_batch([value], ["0"])
        return [self.mark, name, writer.data(_to_stream(table))]

    def read(self, args: list[Any], reader: Reader) -> Any:
        import pyarrow as pa

        name, data = args
        table = _from_stream(reader.data(data), trusted=reader.trusted)
        if name == "Table":
            return table
        if name == "ChunkedArray":
            (column,) = table.columns
            return column
        batches = table.to_batches()
        expect(len(batches) <= 1, "it is more than one batch")
        batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        if name == "RecordBatch":
            return batch
        expect(name == "Array", "it is neither table nor array")
        (array,) = batch.columns
        return array


class _PandasKind(_Table):
    """A DataFrame or Series that Arrow gives back exactly as it was."""

    code, name, library = 49, "pandas frame", "pandas"
    hollow = True

    def __init__(self, table: Any = None, objects: list[int] | None = None) -> None:
        super().__init__(table)
        self.objects = objects

    def holds(self, value: Any) -> Iterable[Any]:
        return [item for _, item in self.labelled(value)]

    def labelled(self, value: Any) -> Iterator[tuple[str, Any]]:
        for key, item in value.attrs.items():
            yield f".attrs's key {key!r}", key
            yield f".attrs[{key!r}]", item
        if value.ndim == 1:
            yield ".name", value.name

    def write(self, value: Any, writer: Writer) -> list[Any]:
        held = [writer.value(item) for item in self.holds(value)]
        frequency, columns = _labels(value)
        data = writer.data(_to_stream(self.table))
        name = "Series" if value.ndim == 1 else "DataFrame"
        return [self.mark, name, data, self.objects, frequency, columns, *held]

    def read(self, args: list[Any], reader: Reader) -> Any:
        name, data, objects, frequency, columns, *_ = args
        expect(name in ("DataFrame", "Series"), "it is neither frame nor series")
        table = _from_stream(reader.data(data), trusted=reader.trusted)
        frame = _to_pandas(table, objects, frequency, columns)
        if reader.mutable:
            frame = frame.copy()
        return frame if name == "DataFrame" else frame.iloc[:, 0]

    def fill(self, value: Any, args: list[Any], reader: Reader) -> None:
        held = args[5:]
        if value.ndim == 1:
            value.name = reader.key(held.pop(), ".name")
        keys = [reader.key(key, ".attrs's key") for key in held[::2]]
        items = zip(keys, held[1::2], strict=True)
        value.attrs = {key: reader.value(raw, f".attrs[{key!r}]") for key, raw in items}

    def outline(self, args: list[Any]) -> Outline:
        return super().outline(args)._replace(children=numbered(args[5:]))


def _labels(value: Any) -> tuple[str | None, list[int] | None]:
    """Return what Arrow loses: the frequency of the index, and columns that are a range."""
    import pandas as pd

    frequency = getattr(value.index, "freqstr", None)
    columns: Any = getattr(value, "columns", None)
    if not isinstance(columns, pd.RangeIndex):
        return frequency, None
    return frequency, [columns.start, columns.stop, columns.step]


def _to_pandas(
    table: Any, objects: list[int], frequency: str | None, columns: list[int] | None
) -> Any:
    import pandas as pd

    about = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    # With more levels pyarrow evaluates the labels as Python literals.
    expect(len(about.get("column_indexes", [])) <= 1, "its columns have more than one level")
    frame = table.to_pandas(split_blocks=True)
    if objects:
        frame = frame.astype({frame.columns[at]: object for at in objects})
    if frequency is not None:
        frame.index = type(frame.index)(frame.index, freq=frequency)
    if columns is not None:
        frame.columns = pd.RangeIndex(*columns, name=frame.columns.name)
    return frame


def _pandas_kind(value: Any) -> _PandasKind | None:
    """Return the kind of a pandas value, with its table; None if only a pickle holds it."""
    import pandas as pd
    import pyarrow as pa
    from pandas.api.types import infer_dtype

    if not value.flags.allows_duplicate_labels:
        return None
    frame = value.copy(deep=False) if value.ndim == 2 else value.to_frame(name="0")
    frame.attrs = {}
    objects = [at for at, dtype in enumerate(frame.dtypes) if dtype.name == "object"]
    held = [*(frame.iloc[:, at] for at in objects), *_levels(frame.index)]
    if any(
        item.dtype.name == "object" and infer_dtype(item, skipna=False) not in ("string", "empty")
        for item in held
    ):
        return None
    if frame.columns.nlevels > 1:
        return None
    try:
        table = pa.Table.from_pandas(frame)
        # Types and labels do not depend on the rows: one tells, by the way that all will go.
        first = frame.iloc[:1]
        sample = b"".join(_to_stream(pa.Table.from_pandas(first)))
        again = _to_pandas(_from_stream(memoryview(sample), trusted=True), objects, *_labels(first))
        pd.testing.assert_frame_equal(
            again, first, check_freq=True, check_index_type="exact", check_column_type="exact"
        )
    except Exception:  # whatever pyarrow and pandas cannot do together
        return None
    return _PandasKind(table, objects)


def _levels(index: Any) -> list[Any]:
    return list(index.levels) if index.nlevels > 1 else [index]


class _PolarsKind(_Table):
    code, name, library = 50, "polars frame", "polars"

    def write(self, value: Any, writer: Writer) -> list[Any]:
        return [self.mark, type(value).__name__, writer.data(_to_stream(self.table))]

    def read(self, args: list[Any], reader: Reader) -> Any:
        import polars as pl

        name, data = args
        expect(name in ("DataFrame", "Series"), "it is neither frame nor series")
        table = _from_stream(reader.data(data), trusted=reader.trusted)
        try:
            frame = pl.from_arrow(table, rechunk=False)
        except pl.exceptions.PanicException as error:  # no Exception, but a BaseException
            raise Damaged(f"polars cannot read it: {error}") from error
        return frame if name == "DataFrame" else frame.to_series()  # type: ignore[union-attr]


def _polars_kind(value: Any) -> _PolarsKind | None:
    """Return the kind of a polars value, with its table; None if only a pickle holds it."""
    import polars as pl

    try:
        frame = value if isinstance(value, pl.DataFrame) else value.to_frame()
        table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
        again = pl.from_arrow(table.slice(0, 0), schema=None)
    except (Exception, pl.exceptions.PanicException):  # for example a column of Python objects
        return None
    same = isinstance(again, pl.DataFrame) and again.schema == frame.schema
    return _PolarsKind(table) if same and table.num_rows == frame.height else None


def kind_of(value: Any) -> Kind | None:
    """Return the kind of an Arrow, pandas or polars value, None for all others."""
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    module = sys.modules.get(library)
    if module is None:
        return None
    if library == "pyarrow":
        arrow = (module.Table, module.RecordBatch, module.ChunkedArray, module.Array)
        return ARROW if isinstance(value, arrow) else None
    if library == "pandas" and cls in (module.DataFrame, module.Series):
        return _pandas_kind(value)
    if library == "polars" and cls in (module.DataFrame, module.Series):
        return _polars_kind(value)
    return None


ARROW, PANDAS, POLARS = _ArrowKind(), _PandasKind(), _PolarsKind()
