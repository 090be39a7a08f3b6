"""Which of the program's modules a worker can import, and what to do about the others."""

from __future__ import annotations

import importlib.machinery
import os
import site
import sys
import sysconfig
from types import ModuleType

import cloudpickle

_seen: set[str] = set()


def import_path() -> tuple[str, ...]:
    """The driver's import path, less what every Python of this kind has anyway."""
    own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    return tuple(
        os.getcwd() if path == "" else path
        for path in sys.path
        if path not in own and not path.endswith((".zip", "lib-dynload"))
    )


def ship_unreachable_modules() -> None:
    """Have the functions and classes of modules that no worker could import travel whole.

    Such a module was loaded from a file outside the import path, or made by hand: test runners
    and notebooks do that. Pickled by reference, its code would arrive as a name that means
    nothing there.
    """
    path = None
    for name, module in list(sys.modules.items()):
        if name in _seen or not isinstance(module, ModuleType):
            continue
        _seen.add(name)
        if name == "__main__" or _is_installed(module):
            continue
        path = path if path is not None else [os.path.abspath(p) for p in import_path()]
        if module.__name__ == name and not (_importable(name, module, path) or _found(name)):
            cloudpickle.register_pickle_by_value(module)


_INSTALLED = tuple(
    {
        os.path.realpath(directory) + os.sep
        for directory in (
            *(sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")),
            *(site.getsitepackages() if hasattr(site, "getsitepackages") else ()),
            os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep + "graphorch_ray",
        )
    }
)


def _is_installed(module: ModuleType) -> bool:
    """Whether it comes with Python, or is installed, or is built in: a worker has it too."""
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    if file is None:
        # Built in, frozen, or a namespace package; what was made by hand has no spec.
        return spec is not None
    return str(os.path.realpath(file)).startswith(_INSTALLED)


def _found(name: str) -> bool:
    """Whether a finder other than the import path's knows it: an editable install, a zip file."""
    for finder in sys.meta_path:
        kind = finder if isinstance(finder, type) else type(finder)
        if kind.__module__.startswith(("_frozen_importlib", "importlib", "_pytest", "_distutils")):
            continue
        try:
            if finder.find_spec(name, None) is not None:
                return True
        except Exception:
            continue
    return False


def _importable(name: str, module: ModuleType, path: list[str]) -> bool:
    """Whether looking for the module along the path finds the same file."""
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    where: list[str] | None = path
    parts = name.split(".")
    for depth in range(len(parts)):
        full = ".".join(parts[: depth + 1])
        try:
            spec = importlib.machinery.PathFinder.find_spec(full, where)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        if depth == len(parts) - 1:
            origin = spec.origin
            return bool(origin) and os.path.realpath(str(origin)) == os.path.realpath(file)
        where = list(spec.submodule_search_locations or ())
    return False
