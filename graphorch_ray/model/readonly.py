"""A list and a dictionary that are equal to the ordinary ones but refuse to change."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

__all__ = ["ReadOnlyDict", "ReadOnlyList"]

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("a built graph cannot be changed; change the builder and build again")


class ReadOnlyList(list[_T]):
    """A list that refuses to change."""

    __slots__ = ()

    append = extend = insert = remove = clear = sort = reverse = _refuse
    pop = _refuse
    __setitem__ = __delitem__ = _refuse
    __iadd__ = __imul__ = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle as an ordinary list."""
        return list, (list(self),)


class ReadOnlyDict(dict[_K, _V]):
    """A dictionary that refuses to change."""

    __slots__ = ()

    clear = update = _refuse
    pop = popitem = setdefault = _refuse
    __setitem__ = __delitem__ = _refuse
    __ior__ = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy and pickle as an ordinary dictionary."""
        return dict, (dict(self),)
