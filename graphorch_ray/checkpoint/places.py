"""Which form a place for checkpoints has: a directory of lines, or one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .single import SingleStore, is_single
from .store import Store


def open_store(
    path: str | os.PathLike[str],
    *,
    keep_last: int | None = 3,
    compression: str | None = None,
    **options: Any,
) -> Store | SingleStore:
    """The store at a path or URL: one file for a path that says so or is one, else a directory.

    Args:
        path: where.
        keep_last, compression: as for `Store`; one file has no history, and is not compressed.
        options: those of `Store`.

    Raises:
        CheckpointError: an option does not fit the form, or has no such value.
    """
    url = os.fspath(path)
    if not (is_single(url) or ("://" not in url and Path(url).is_file())):
        return Store(url, keep_last=keep_last, compression=compression, **options)
    if compression is not None:
        raise CheckpointError(
            f"'{url}' is a single-file checkpoint, which is not compressed. Leave compression "
            "out, or give a directory."
        )
    return SingleStore(url, **options)
