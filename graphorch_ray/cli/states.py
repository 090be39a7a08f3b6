"""States as files: what `--input` reads and `--output` writes."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

from ..state import State
from .session import CommandError

Rows = Literal["messages", "table"]

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")


# --- reading --------------------------------------------------------------------------------------


def read_state(source: str | None, rows: Rows, state_class: type[State] = State) -> State:
    """The initial state that `--input` names.

    A JSON object with ``messages`` is the state, field by field; a JSON list its messages; any
    other JSON value its only message. Of JSON lines each line is a message. Of Parquet and Arrow
    each row is a message, a dict; or the whole table is one, where `rows` is ``"table"``.

    Args:
        source: a file, a URL that fsspec knows, ``-`` for standard input, or None for no messages.
        rows: what becomes of a table.
        state_class: the class of the state.

    Raises:
        CommandError: it cannot be read; says where it is wrong.
    """
    if source is None:
        return _made(state_class, {})
    data = _read(source)
    shown = "standard input" if source == "-" else f"'{source}'"
    if data[:4] == b"PAR1" or data[:6] == b"ARROW1":
        table = _table(data, shown)
        return _made(state_class, {"messages": [table] if rows == "table" else table.to_pylist()})
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{shown} is neither JSON, JSON lines, Parquet nor Arrow (its text is no UTF-8)"
        ) from error
    value = _json(text, shown, by_lines=PurePath(source).suffix in (".jsonl", ".ndjson"))
    if isinstance(value, dict) and "messages" in value:
        return _made(state_class, value)
    return _made(state_class, {"messages": value if isinstance(value, list) else [value]})


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        if "://" not in source:
            return Path(source).read_bytes()
        import fsspec

        with fsspec.open(source, "rb") as file:
            content: bytes = file.read()
            return content
    except (OSError, ImportError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CommandError(f"Cannot read --input '{source}': {reason}") from error


def _json(text: str, shown: str, *, by_lines: bool) -> Any:
    """A JSON document, or the list of the documents that its lines are."""
    try:
        if not by_lines:
            return json.loads(text)
    except json.JSONDecodeError as error:
        first = text.strip().splitlines()[:1]
        if not first or not _is_json(first[0]):
            raise CommandError(
                f"{shown} is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
            ) from error
    values = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise CommandError(
                    f"{shown}, line {number}, is no JSON: {error.msg} (column {error.colno})"
                ) from error
    return values


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _table(data: bytes, shown: str) -> Any:
    import pyarrow as pa

    try:
        if data[:4] == b"PAR1":
            import pyarrow.parquet as pq

            return pq.read_table(io.BytesIO(data))
        return pa.ipc.open_file(data).read_all()
    except (pa.ArrowException, OSError) as error:
        raise CommandError(f"{shown} is damaged: {error}") from error


def _made(state_class: type[State], fields: Mapping[str, Any]) -> State:
    known = {field.name for field in dataclasses.fields(state_class) if field.init}
    if unknown := sorted(set(fields) - known):
        raise CommandError(
            f"--input has {unknown}, which {state_class.__name__} does not have "
            f"({', '.join(sorted(known))}); name the state's class with --state"
        )
    if "messages" in fields and not isinstance(fields["messages"], list):
        raise CommandError("'messages' of --input must be a list")
    try:
        return state_class(**fields)
    except Exception as error:
        raise CommandError(
            f"{state_class.__name__} cannot be made of --input: {type(error).__name__}: {error}"
        ) from error


# --- writing --------------------------------------------------------------------------------------


def check_output(path: str | None) -> None:
    """Refuse, before any work, a file that could not be written after it.

    Raises:
        CommandError: its suffix is unknown, or its folder is not there.
    """
    if path is None:
        return
    if PurePath(path).suffix not in SUFFIXES:
        raise CommandError(f"--output '{path}' must end in one of {', '.join(SUFFIXES)}")
    check_folder("--output", path)


def check_folder(option: str, path: str | None) -> None:
    """Refuse, before any work, a file in a folder that is not there.

    Raises:
        CommandError: names the option and the folder.
    """
    if path is not None and "://" not in path and not Path(path).absolute().parent.is_dir():
        raise CommandError(f"{option} '{path}': there is no folder '{Path(path).parent}'")


def write_state(state: State, path: str) -> None:
    """Write a state to a file, in the form that its suffix says; the reverse of `read_state`.

    Raises:
        CommandError: its messages are no rows of a table, or the file cannot be written.
    """
    suffix = PurePath(path).suffix
    if suffix == ".json":
        data = json.dumps(state_as_data(state)).encode()
    elif suffix in (".jsonl", ".ndjson"):
        data = b"".join(json.dumps(as_data(item)).encode() + b"\n" for item in state.messages)
    else:
        data = _table_file(state, suffix)
    try:
        if "://" not in path:
            Path(path).write_bytes(data)
            return
        import fsspec

        with fsspec.open(path, "wb") as file:
            file.write(data)
    except (OSError, ImportError, ValueError) as error:
        raise CommandError(f"Cannot write --output '{path}': {error}") from error


def _table_file(state: State, suffix: str) -> bytes:
    import pyarrow as pa

    messages = state.messages
    if len(messages) == 1 and not isinstance(messages[0], Mapping):
        messages = as_data(messages[0]) if _is_frame(messages[0]) else messages
    try:
        table = (
            state.messages[0]
            if len(state.messages) == 1 and isinstance(state.messages[0], pa.Table)
            else pa.Table.from_pylist([as_data(item) for item in messages])
        )
    except (pa.ArrowException, TypeError, AttributeError, ValueError) as error:
        raise CommandError(
            "--output to a table needs one table as the only message, or messages that are dicts "
            f"of one shape ({error})"
        ) from error
    out = io.BytesIO()
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, out)
    else:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


def state_as_data(state: State) -> dict[str, Any]:
    """A state's fields as what JSON can hold."""
    return {field.name: as_data(getattr(state, field.name)) for field in dataclasses.fields(state)}


def as_data(value: Any) -> Any:
    """A value as what JSON can hold: arrays as lists, tables as rows, anything odd as its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)  # NaN compares as False
    if isinstance(value, State):
        return state_as_data(value)
    if isinstance(value, Mapping):
        return {str(as_data(key)): as_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_data(item) for item in value), key=str)
    if isinstance(value, enum.Enum):
        return as_data(value.value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_data(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return _foreign(value)


def _is_frame(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("to_pylist", "to_dicts", "to_dict"))


def _foreign(value: Any) -> Any:
    """What other libraries' values say of themselves."""
    for name, arguments in (
        ("model_dump", {"mode": "json"}),  # pydantic
        ("to_pylist", {}),  # Arrow
        ("to_dicts", {}),  # Polars
        ("to_dict", {"orient": "records"}),  # Pandas
        ("tolist", {}),  # NumPy, and Pandas' series
    ):
        method = getattr(value, name, None)
        if callable(method):
            try:
                return as_data(method(**arguments))
            except TypeError:
                continue
    return str(value)
