"""Values as bytes: a document of plain data, and pieces, the large buffers.

The document is msgpack. Numbers, texts, lists and dicts are as msgpack has them; everything else
is a node that names its kind (see `kinds`). Arrays, Arrow data and data frames become their own
bytes, which are neither copied when written nor when read. What no kind fits is pickled, and
pickles are loaded only from a place that is trusted. Reading all other values runs no code that
a document could choose: classes are looked up by name among those that the program has imported,
and objects are made without their constructors.

Two fields or items that hold one and the same object do so after loading, and cycles are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import CheckpointError
from .decoder import Decoder, parse
from .description import Description, outline
from .encoder import Encoded, Encoder
from .kinds import PIECE_BYTES, Buffer, Damaged

__all__ = ["PIECE_BYTES", "Buffer", "Description", "Encoded", "decode", "describe", "encode"]


def encode(value: Any, *, what: str) -> Encoded:
    """Return a value as bytes.

    Large buffers are not copied: the pieces are views over the value, which must not change
    until they are written.

    Args:
        value: anything.
        what: what errors, and the places of pickled values, call it: ``"state"``.

    Raises:
        CheckpointError: something in it can be neither encoded nor pickled, or refers into Ray.

    Example:
        >>> encoded = encode([1, (2, 3)], what="value")
        >>> decode(encoded.document, encoded.pieces.__getitem__, trusted=False, what="value")
        [1, (2, 3)]
    """
    try:
        return Encoder(value, what).encode()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{what} cannot be put into a checkpoint: {type(error).__name__}: {error}"
        ) from error


def decode(
    document: Buffer,
    piece: Callable[[int], Buffer],
    *,
    trusted: bool,
    mutable: bool = False,
    what: str,
    classes: Mapping[str, type] | None = None,
) -> Any:
    """Return the value of a document.

    Args:
        document: what `encode` made.
        piece: returns a piece by its number. Each is asked for at most once.
        trusted: whether to load pickles and import modules.
        mutable: make arrays and data frames that can be written to, which copies them. Else they
            are read-only and lie over the pieces.
        what: what errors call the value.
        classes: classes by ``module:qualname``, looked in before those that are imported. For a
            worker, whose ``__main__`` does not have the classes of the driver's.

    Raises:
        CheckpointError: the document is damaged, something in it is not trusted, or a class has
            changed or is not there. The text names the place in the value.
    """
    try:
        parsed = parse(document)
    except Damaged as error:
        raise CheckpointError(f"{what} is damaged: {error}.") from error
    decoder = Decoder(parsed, piece, trusted=trusted, mutable=mutable, classes=classes)
    try:
        return decoder.decode()
    except Exception as error:
        decoder.fail(what, error)


def describe(document: Buffer) -> Description:
    """Tell what a document holds, without its pieces and without making any of its values.

    Raises:
        CheckpointError: the document is damaged.

    Example:
        >>> describe(encode({"a": (1, 2)}, what="value").document).children[0][1].type
        'tuple'
    """
    try:
        return outline(parse(document))
    except CheckpointError as error:
        raise CheckpointError(f"The document is damaged: {error}.") from error
    except Exception as error:
        raise CheckpointError(
            f"The document is damaged: {type(error).__name__}: {error}"
        ) from error
