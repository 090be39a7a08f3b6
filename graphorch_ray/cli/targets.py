"""From the text ``module:graph`` or ``file.py:graph`` to the graph itself."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import cloudpickle

from ..model import Graph, GraphBuilder
from .session import CommandError


class NoModuleError(CommandError):
    """There is no module or file of that name."""


def load_graph(reference: str) -> Graph:
    """Import a graph by its reference.

    Args:
        reference: ``module:name`` or ``path/to/file.py:name``. The name may have dots, and may be
            a graph, a builder, or a function that takes nothing and gives one of these. It may be
            left out where the module has one graph only.

    Raises:
        CommandError: there is no such module, file or graph; says what graphs there are.
    """
    module_name, _, name = reference.partition(":")
    if not module_name:
        raise CommandError(f"'{reference}' names no graph: write module:graph or file.py:graph")
    module = _import(module_name)
    if not name:
        return _only_graph(module_name, module)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise CommandError(
                f"'{module_name}' has no '{name}'. {_graphs_in(module_name, module)}"
            )
        value = getattr(value, part)
    return _as_graph(reference, value, module_name, module)


def load_class(reference: str, base: type) -> type:
    """Import a class by ``module:name`` or ``file.py:name``.

    Raises:
        CommandError: there is none, or it is no `base`.
    """
    module_name, _, name = reference.partition(":")
    found = getattr(_import(module_name), name, None) if name else None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise CommandError(f"'{reference}' is no subclass of {base.__name__}: write module:Class")
    return found


def _as_graph(reference: str, value: Any, module_name: str, module: ModuleType) -> Graph:
    if isinstance(value, Graph):
        return value
    if isinstance(value, GraphBuilder):
        return cast(Graph, _called(reference, value.build_graph))
    if callable(value) and not isinstance(value, type) and _needs_nothing(value):
        made = _called(reference, value)
        if isinstance(made, Graph | GraphBuilder):
            return _as_graph(reference, made, module_name, module)
        raise CommandError(
            f"'{reference}()' gave a {type(made).__name__}, not a graph. "
            f"{_graphs_in(module_name, module)}"
        )
    what = "a function that needs arguments" if callable(value) else f"a {type(value).__name__}"
    if isinstance(value, type):
        what = "a class"
    raise CommandError(f"'{reference}' is {what}, not a graph. {_graphs_in(module_name, module)}")


def _called(reference: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise CommandError(f"Making '{reference}' failed: {_told(error)}") from error


def _told(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


def _only_graph(module_name: str, module: ModuleType) -> Graph:
    found = [value for value in vars(module).values() if isinstance(value, Graph)]
    if len(found) == 1:
        return found[0]
    raise CommandError(
        f"'{module_name}' alone does not say which graph. {_graphs_in(module_name, module)}"
    )


def _graphs_in(module_name: str, module: ModuleType) -> str:
    """Say what could have been meant."""
    names = []
    for name, value in vars(module).items():
        if isinstance(value, Graph | GraphBuilder) or (
            inspect.isfunction(value)
            and value.__module__ == module.__name__
            and _needs_nothing(value)
            and _may_give_graph(value)
        ):
            names.append(f"{module_name}:{name}")
    return f"Graphs there: {', '.join(names)}" if names else "There is no graph in it"


def _needs_nothing(function: Any) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _may_give_graph(function: Any) -> bool:
    given = inspect.signature(function).return_annotation
    if given is inspect.Signature.empty:
        return "graph" in function.__name__.lower()
    return (given if isinstance(given, str) else getattr(given, "__name__", "")).endswith(
        ("Graph", "GraphBuilder")
    )


def _import(name: str) -> ModuleType:
    # As `python -m` does, and `python file.py`: what lies here can be imported.
    _put_on_path(Path.cwd())
    is_file = name.endswith(".py") or "/" in name
    try:
        return _import_file(name) if is_file else importlib.import_module(name)
    except CommandError:
        raise
    except ModuleNotFoundError as error:
        if not is_file and error.name and (name + ".").startswith(error.name + "."):
            raise NoModuleError(_no_module(name)) from error
        raise CommandError(
            f"'{name}' imports '{error.name}', which is not installed here"
        ) from error
    except (Exception, SystemExit) as error:
        raise CommandError(f"Importing '{name}' failed: {_told(error)}") from error


def _no_module(name: str) -> str:
    file = Path(name.replace(".", "/") + ".py")
    here = f"No module '{name}' in {Path.cwd()} or on Python's path"
    return f"{here}, though {file} is there" if file.exists() else here


def _import_file(name: str) -> ModuleType:
    path = Path(name).resolve()
    if not path.is_file():
        raise NoModuleError(f"There is no file '{name}' in {Path.cwd()}")
    _put_on_path(path.parent)
    module_name = _free_name(path)
    known = sys.modules.get(module_name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"'{name}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    # Like the program that `python file.py` runs: its functions travel whole, so that no other
    # machine needs the file.
    cloudpickle.register_pickle_by_value(module)
    return module


def _free_name(path: Path) -> str:
    """The name a file is imported under: its own, unless that is another module's."""
    name = re.sub(r"\W|^(?=\d)", "_", path.stem)
    while True:
        known = sys.modules.get(name)
        if known is not None:
            if _is(getattr(known, "__file__", None), path):
                return name
        else:
            spec = importlib.util.find_spec(name)
            if spec is None or _is(spec.origin, path):
                return name
        name += "_"


def _is(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
