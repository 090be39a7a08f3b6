"""Documents written by earlier versions load for ever.

Each file in ``golden/`` is a document and its pieces, named after the format and the value. Run
``python -m tests.checkpoint.test_encoding_golden`` to add those that are not there yet, for a new
kind or a new format; what is there is never written again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from graphorch_ray.checkpoint.encoding import decode, describe, encode

from .codec import arrays, assert_same, joined, plain_values, tables

GOLDEN = Path(__file__).parent / "golden"
FORMAT = 1


def _shared() -> Any:
    one: list[Any] = [1]
    return {"one": one, "two": (one, one)}


def values() -> dict[str, Any]:
    named = {**plain_values(), **{f"array {k}": v for k, v in arrays().items()}, **tables()}
    # Large ones would only make the repository large.
    kept = {name: value for name, value in named.items() if "large" not in name}
    return {**kept, "large bytes": bytes(70_000), "sharing": _shared()}


def path_of(name: str, version: int = FORMAT) -> Path:
    return GOLDEN / f"{version}-{name.replace(',', '').replace(' ', '-')}.bin"


VALUES = values()
BY_FILE = {path_of(name).name.partition("-")[2]: value for name, value in VALUES.items()}
FILES = sorted(GOLDEN.glob("*.bin"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_document_of_an_earlier_version_loads(path: Path) -> None:
    document, pieces = msgpack.unpackb(path.read_bytes())
    value = BY_FILE[path.name.partition("-")[2]]
    got = decode(document, pieces.__getitem__, trusted=False, what="golden")
    assert_same(got, value)
    assert describe(document).pickled == ()


def test_every_value_has_a_golden_document() -> None:
    assert {path_of(name) for name in VALUES} <= set(FILES), "run the module to add what is missing"
    shared = decode(
        msgpack.unpackb(path_of("sharing").read_bytes())[0], [].__getitem__, trusted=False, what="g"
    )
    assert shared["one"] is shared["two"][0] is shared["two"][1]


def add_missing() -> None:
    """Write a document for each value that has none in the present format."""
    GOLDEN.mkdir(exist_ok=True)
    for name, value in VALUES.items():
        encoded = encode(value, what=name)
        assert not encoded.pickled, name
        try:
            with path_of(name).open("xb") as file:
                file.write(msgpack.packb([encoded.document, joined(encoded)]))
        except FileExistsError:
            continue


if __name__ == "__main__":
    add_missing()
