"""What a checkpoint says of itself: manifests, the header of a line, and their byte form.

A manifest is one file that names everything one checkpoint needs. Its byte form is sealed: a
checksum tells a torn or damaged file, and with a key a signature tells a forged one.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import msgpack

from ..errors import CheckpointError

__all__ = [
    "Active",
    "Blob",
    "DamagedError",
    "Done",
    "Header",
    "Manifest",
    "NewerVersionError",
    "SignatureError",
    "Stored",
    "seal",
    "unseal",
]

VERSION = 1
"""Version of the byte form that is written here, and the highest that is read."""

_PREFIX = struct.Struct(">4sBBQ")  # magic with the kind, version, flags, length of the body
_SIGNED = 1
_DIGEST = 32

T = TypeVar("T")


class Blob(NamedTuple):
    """A value in a file of its own, named by its content.

    Attributes:
        line: the line in whose directory it lies; "" in a single-file checkpoint.
        digest: SHA-256 of the value, as 64 hexadecimal digits.
        nbytes: the length of the value.
        stored: the length of the file; differs where it is compressed.
        codec: how it is compressed: "" (not at all) or "zstd".
    """

    line: str
    digest: str
    nbytes: int
    stored: int
    codec: str = ""


class Stored(NamedTuple):
    """An encoded value in the store; see `graphorch_ray.checkpoint.encoding`.

    Attributes:
        document: its document, here or in a blob.
        pieces: its large pieces, by number.
        nbytes: bytes of document and pieces together.
        size: how many messages the state has.
    """

    document: bytes | Blob
    pieces: tuple[Blob, ...] = ()
    nbytes: int = 0
    size: int = 0

    def blobs(self) -> tuple[Blob, ...]:
        """Every blob that it needs."""
        return (self.document, *self.pieces) if isinstance(self.document, Blob) else self.pieces


class Active(NamedTuple):
    """An active node.

    Attributes:
        node_id: the node.
        sources: the nodes whose states have arrived there, in order of arrival.
        states: those states, as positions in the manifest's `states`.
    """

    node_id: str
    sources: tuple[str, ...]
    states: tuple[int, ...]


class Done(NamedTuple):
    """An execution of an unfinished superstep that need not run again.

    Attributes:
        execution: its index in the superstep.
        role: ``"node"`` or ``"fallback"``.
        state: its result, as a position in the manifest's `states`.
        routes: what routers answered.
    """

    execution: int
    role: str
    state: int
    routes: dict[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One checkpoint of a line.

    Attributes:
        line: the line's name; set by the store, like the next three and `created`.
        seq: its number in the line, from 1.
        epoch: counts the owners of the line, from 1.
        writer: who wrote it: user, host, process and a random part.
        created: Unix time, in seconds, by the writer's clock.
        kind: ``"start"``, ``"superstep"``, ``"partial"``, ``"claim"``, ``"end"``, ``"failure"`` or
            ``"savepoint"``.
        status: ``"running"``, ``"finished"`` or ``"failed"``.
        superstep: the superstep that comes next.
        states: every state that the others name by position.
        active: the active nodes, in launch order.
        final: what `end` produced last, as a position in `states`, or None.
        done: what an unfinished superstep has finished.
        fences: the numbers at which owners changed; these manifests are never pruned.
        options, trace, extra: plain data of the run.
        trusted: whether its place or its signature vouches for it; not part of the byte form.
    """

    line: str = ""
    seq: int = 0
    epoch: int = 0
    writer: str = ""
    created: float = 0.0
    kind: str
    status: str
    superstep: int
    states: tuple[Stored, ...] = ()
    active: tuple[Active, ...] = ()
    final: int | None = None
    done: tuple[Done, ...] = ()
    fences: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    trusted: bool = field(default=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether it stands between two supersteps and is no copy made by a new owner."""
        return self.kind not in ("partial", "claim")

    def blobs(self) -> Iterator[Blob]:
        """Every blob that it needs, some perhaps twice."""
        for stored in self.states:
            yield from stored.blobs()

    def to_bytes(self, key: bytes | None = None, context: str = "") -> bytes:
        """Return the sealed byte form; see `seal`."""
        return seal(b"M", _pack(self), key, context)

    @classmethod
    def from_bytes(
        cls, data: bytes, key: bytes | None = None, context: str = "", *, own: bool = False
    ) -> Manifest:
        """Read the byte form.

        Args:
            data: the whole file.
            key, context: as they were given to `to_bytes`.
            own: the place vouches for it.

        Raises:
            CheckpointError: it is damaged, signed with another key, or of a newer version.
        """
        body, signed = unseal(b"M", data, key, context)
        return _unpack(cls, body, _MANIFEST_READERS, trusted=own or signed)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first file of a line: who began it, when, and from what.

    Attributes:
        run_id: the run.
        branch: the branch of the run; a fork from an older checkpoint has its own.
        parent: for a fork: the line and seq of the checkpoint it began from.
        graph_name, fingerprint: the graph's.
        writer: who began it; set by the store, like the next two.
        created: Unix time, in seconds.
        nonce: a random name for this line that no other line has.
        graph: the pickled graph.
        initial: the state the run began with.
        options, versions, extra: plain data.
        trusted: as in `Manifest`.
    """

    run_id: str = ""
    branch: str = ""
    parent: tuple[str, int] | None = None
    graph_name: str = ""
    fingerprint: str = ""
    writer: str = ""
    created: float = 0.0
    nonce: str = ""
    graph: Stored | None = None
    initial: Stored | None = None
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    trusted: bool = field(default=False, compare=False)

    def blobs(self) -> Iterator[Blob]:
        """Every blob that it needs."""
        for stored in (self.graph, self.initial):
            if stored is not None:
                yield from stored.blobs()

    def to_bytes(self, key: bytes | None = None) -> bytes:
        """Return the sealed byte form; see `seal`."""
        return seal(b"H", _pack(self), key, "")

    @classmethod
    def from_bytes(cls, data: bytes, key: bytes | None = None, *, own: bool = False) -> Header:
        """Read the byte form; arguments and errors are those of `Manifest.from_bytes`."""
        body, signed = unseal(b"H", data, key, "")
        return _unpack(cls, body, _HEADER_READERS, trusted=own or signed)


# --- the seal ---------------------------------------------------------------------------------


def seal(kind: bytes, body: bytes, key: bytes | None, context: str) -> bytes:
    """Return a body between a prefix and a checksum, signed where a key is given.

    Args:
        kind: one byte; what is sealed as one kind does not open as another.
        body: the content.
        key: the secret; None leaves the signature out.
        context: what else the signature covers, such as the nonce of the line, so that a signed
            file is worth nothing in another place.
    """
    flags = 0 if key is None else _SIGNED
    content = _PREFIX.pack(b"GOR" + kind, VERSION, flags, len(body)) + body
    content += hashlib.sha256(content).digest()
    return content if key is None else content + _signature(content, key, context)


def unseal(kind: bytes, data: bytes, key: bytes | None, context: str) -> tuple[bytes, bool]:
    """Return the body, and whether it carries a signature made with this key.

    Raises:
        DamagedError: it is damaged.
        SignatureError: it carries a signature that is not of this key.
        NewerVersionError: it is of a version that is not known here.
    """
    if len(data) < _PREFIX.size:
        raise DamagedError(f"it is torn: {len(data)} bytes are less than any whole one has")
    magic, version, flags, length = _PREFIX.unpack_from(data)
    if magic != b"GOR" + kind:
        raise DamagedError(f"it begins with {magic!r}, as no file of its kind does")
    end = _PREFIX.size + length
    expected = end + _DIGEST + (_DIGEST if flags & _SIGNED else 0)
    if len(data) != expected:
        what = "torn" if len(data) < expected else "damaged"
        raise DamagedError(f"it is {what}: {len(data)} bytes instead of {expected}")
    if hashlib.sha256(data[:end]).digest() != data[end : end + _DIGEST]:
        raise DamagedError("it is damaged: its checksum is that of another content")
    if version > VERSION:
        raise NewerVersionError(
            f"it was written by a newer graphorch_ray (format {version}; this one reads up to "
            f"{VERSION}): install that version to read it"
        )
    signed = bool(flags & _SIGNED) and key is not None
    if signed:
        content = data[: end + _DIGEST]
        expected_signature = _signature(content, key or b"", context)
        if not hmac.compare_digest(expected_signature, data[end + _DIGEST :]):
            raise SignatureError("its signature was not made with this key for this place")
    return data[_PREFIX.size : end], signed


class DamagedError(CheckpointError):
    """A file was read, and is not what it should be; whoever finds it may use an older one."""


class SignatureError(DamagedError):
    """A file is whole, but signed with another key, or for another place."""


class NewerVersionError(CheckpointError):
    """A file is whole, but written by a newer version of this library."""


def _signature(content: bytes, key: bytes, context: str) -> bytes:
    return hmac.new(key, context.encode() + b"\0" + content, hashlib.sha256).digest()


# --- the body ---------------------------------------------------------------------------------


def _pack(value: Manifest | Header) -> bytes:
    """Pack what differs from its default: most of a small manifest is not there."""
    items = {}
    for item in fields(value):
        content = getattr(value, item.name)
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if item.name != "trusted" and content != default:
            items[item.name] = content
    try:
        packed: bytes = msgpack.packb(items, default=_plain, strict_types=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"a {type(value).__name__} must hold plain data: {error}") from error
    return packed


def _plain(value: Any) -> Any:
    """Tell msgpack how to write our tuples; with `strict_types` it asks for each."""
    if isinstance(value, Blob):
        return [value.line, bytes.fromhex(value.digest), *value[2:]]
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _unpack(cls: Callable[..., T], body: bytes, readers: dict[str, Reader], *, trusted: bool) -> T:
    try:
        items = msgpack.unpackb(body, strict_map_key=False)
        if not isinstance(items, dict):
            raise TypeError("it is no mapping")
        known = {name: readers[name](content) for name, content in items.items() if name in readers}
        return cls(**known, trusted=trusted)
    except CheckpointError:
        raise
    # A checksum proves nothing about who made it: anything may be in there.
    except Exception as error:
        raise DamagedError(f"it does not hold what it should: {error}") from error


Reader = Callable[[Any], Any]


def _a(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
        return value

    return read


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} where a number of 0 or more belongs")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{type(value).__name__} where a number belongs")
    return float(value)


def _many(read: Reader) -> Reader:
    return lambda value: tuple(read(item) for item in _a(list)(value))


_text = _a(str)
_mapping = _a(dict)


def _name(value: Any) -> str:
    """Read the name of a line: it becomes part of a path, so it must be one."""
    name: str = _text(value)
    if name and not (name.isdecimal() and name.isascii()):
        raise ValueError(f"{name!r} is no name of a line")
    return name


def _blob(value: Any) -> Blob:
    line, digest, nbytes, stored, *codec = _a(list)(value)
    if type(digest) is not bytes or len(digest) != _DIGEST:
        raise TypeError("a blob's digest has 32 bytes")
    (codec_name,) = codec or ("",)
    if codec_name not in ("", "zstd"):
        raise ValueError(f"unknown compression {codec_name!r}")
    return Blob(_name(line), digest.hex(), _number(nbytes), _number(stored), codec_name)


def _stored(value: Any) -> Stored:
    document, pieces, nbytes, size = _a(list)(value)
    if not isinstance(document, bytes):
        document = _blob(document)
    return Stored(document, _many(_blob)(pieces), _number(nbytes), _number(size))


def _active(value: Any) -> Active:
    node_id, sources, states = _a(list)(value)
    return Active(_text(node_id), _many(_text)(sources), _many(_number)(states))


def _done(value: Any) -> Done:
    execution, role, state, routes = _a(list)(value)
    return Done(_number(execution), _text(role), _number(state), _mapping(routes))


def _parent(value: Any) -> tuple[str, int]:
    line, seq = _a(list)(value)
    return _name(line), _number(seq)


_MANIFEST_READERS: dict[str, Reader] = {
    **dict.fromkeys(("writer", "kind", "status"), _text),
    **dict.fromkeys(("seq", "epoch", "superstep", "final"), _number),
    **dict.fromkeys(("options", "trace", "extra"), _mapping),
    "line": _name,
    "created": _real,
    "states": _many(_stored),
    "active": _many(_active),
    "done": _many(_done),
    "fences": _many(_number),
}
_HEADER_READERS: dict[str, Reader] = {
    **dict.fromkeys(("run_id", "branch", "graph_name", "fingerprint", "writer", "nonce"), _text),
    **dict.fromkeys(("options", "versions", "extra"), _mapping),
    **dict.fromkeys(("graph", "initial"), _stored),
    "created": _real,
    "parent": _parent,
}
