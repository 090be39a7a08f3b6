"""Kinds of value from numpy: arrays over their own bytes, and scalars. Never a pickle."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from .kinds import Damaged, Kind, Outline, Reader, Writer, expect

if TYPE_CHECKING:
    import numpy as np

_PLAIN_DTYPE = re.compile(r"[<>|=]([?bBiufcmMSUV])(\d{1,9})(\[\d{0,9}[A-Za-zμ]{1,7}\])?")


def _dtype_node(dtype: np.dtype[Any]) -> Any:
    """Say what a dtype is: its text, or what a structured or sub-array one is made of."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_dtype_node(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [
        [name, _dtype_node(dtype.fields[name][0]), dtype.fields[name][1], *dtype.fields[name][2:]]
        for name in dtype.names
        if dtype.fields is not None
    ]
    return {"fields": fields, "itemsize": dtype.itemsize, "aligned": dtype.isalignedstruct}


def _dtype(node: Any, depth: int = 0) -> np.dtype[Any]:
    import numpy as np

    expect(depth < 20, "its dtype is nested too deep")
    if isinstance(node, str):
        expect(_PLAIN_DTYPE.fullmatch(node), f"{node!r} is not a dtype of plain data")
        return np.dtype(node)
    if isinstance(node, list):
        base, shape = node
        _check_shape(shape)
        return np.dtype((_dtype(base, depth + 1), tuple(shape)))
    expect(isinstance(node, dict), "it has no dtype")
    names, formats, offsets, titles = [], [], [], []
    for name, inner, offset, *title in node["fields"]:
        expect(isinstance(name, str) and type(offset) is int and offset >= 0, "a bad field")
        expect(all(isinstance(text, str) for text in title), "a bad title")
        names.append(name)
        formats.append(_dtype(inner, depth + 1))
        offsets.append(offset)
        titles.append(title[0] if title else None)
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": node["itemsize"]}
    if any(titles):
        spec["titles"] = titles
    return np.dtype(spec, align=bool(node["aligned"]))  # type: ignore[call-overload,no-any-return]


def _check_shape(shape: Any) -> None:
    good = isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**62 for n in shape)
    expect(good and len(shape) <= 64, "its shape is not a list of lengths")


def is_plain_dtype(dtype: np.dtype[Any]) -> bool:
    """Say whether bytes of this dtype mean the same to any reader, and the dtype comes back."""
    if dtype.hasobject or dtype.kind not in "?bBiufcmMSUV" or dtype.metadata:
        return False
    try:
        again = _dtype(_dtype_node(dtype))
    except Exception:
        return False
    return again == dtype and again.isalignedstruct == dtype.isalignedstruct


def is_array(value: Any) -> bool:
    """Say whether a value is a numpy array of plain data; a memmap counts, a matrix does not."""
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and type(value) in (numpy.ndarray, numpy.memmap)
        and is_plain_dtype(value.dtype)
    )


def is_scalar(value: Any) -> bool:
    """Say whether a value is a numpy scalar of plain data."""
    numpy = sys.modules.get("numpy")
    return (
        numpy is not None
        and isinstance(value, numpy.generic)
        and value.dtype.type is type(value)
        and is_plain_dtype(value.dtype)
    )


def _raw(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    """Return the bytes of a contiguous array, in the order they lie in memory, uncopied."""
    import numpy as np

    if not array.nbytes:
        return b""
    flat = array.reshape(-1, order="C" if array.flags.c_contiguous else "F")
    if flat.dtype.hasobject or flat.dtype.subdtype is not None:
        raise TypeError(f"dtype {array.dtype} is not plain")
    return flat.view(np.uint8).data


class _Array(Kind):
    code, name, changeable = 41, "numpy array", True

    def write(self, value: np.ndarray[Any, Any], writer: Writer) -> list[Any]:
        import numpy as np

        flags = value.flags
        if not (flags.c_contiguous or flags.f_contiguous):
            value = np.ascontiguousarray(value)
        order = "C" if value.flags.c_contiguous else "F"
        data = writer.data([_raw(value)])
        return [self.mark, _dtype_node(value.dtype), list(value.shape), order, data]

    def read(self, args: list[Any], reader: Reader) -> np.ndarray[Any, Any]:
        import numpy as np

        layout, shape, order, raw = args
        dtype = _dtype(layout)
        expect(not dtype.hasobject, "it holds Python objects")
        _check_shape(shape)
        data = reader.data(raw)
        expected = math.prod(shape) * dtype.itemsize
        if data.nbytes != expected:
            raise Damaged(f"{tuple(shape)} of {dtype} are {expected} bytes, not {data.nbytes}")
        expect(order in ("C", "F"), "its order is not known")
        if reader.mutable:
            return np.ndarray(tuple(shape), dtype, bytearray(data), order=order)
        array: np.ndarray[Any, Any] = np.ndarray(tuple(shape), dtype, data, order=order)
        array.flags.writeable = False
        return array

    def outline(self, args: list[Any]) -> Outline:
        layout, shape, _, data = args
        kind = layout if isinstance(layout, str) else "structured"
        shown = ", ".join(map(str, shape))
        length = shape[0] if shape else None
        return Outline(f"numpy array of {kind} ({shown})", length, data=[data])


class _Scalar(Kind):
    code, name, tracked = 40, "numpy scalar", False

    def write(self, value: np.generic[Any], writer: Writer) -> list[Any]:
        import numpy as np

        if isinstance(value, np.str_):  # `str(value)` and its bytes would lose zeros at the end
            return [self.mark, "str", str.__getitem__(value, slice(None))]
        if isinstance(value, np.bytes_):
            return [self.mark, "bytes", bytes.__getitem__(value, slice(None))]
        return [self.mark, _dtype_node(value.dtype), value.tobytes()]

    def read(self, args: list[Any], reader: Reader) -> np.generic[Any]:
        import numpy as np

        layout, data = args
        if layout == "str":
            expect(isinstance(data, str), "it has no text")
            return np.str_(data)
        expect(isinstance(data, bytes), "it has no bytes")
        if layout == "bytes":
            return np.bytes_(data)
        dtype = _dtype(layout)
        expect(not dtype.hasobject and dtype.itemsize == len(data), "its bytes are too few")
        made: Any = np.ndarray((), dtype, bytearray(data))
        return made[()]  # type: ignore[no-any-return]

    def outline(self, args: list[Any]) -> Outline:
        return Outline(f"numpy {args[0] if isinstance(args[0], str) else 'structured'} scalar")


ARRAY = _Array()
SCALAR = _Scalar()
