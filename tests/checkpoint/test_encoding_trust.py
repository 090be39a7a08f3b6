"""What may be loaded: plain data anywhere, pickles where they are trusted, classes as they are."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import subprocess
import sys
import textwrap
import types
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from pydantic import BaseModel

from graphorch_ray import CheckpointError, State
from graphorch_ray.checkpoint.encoding import decode, encode

from .codec import Opaque, load, there_and_back


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """Return a module that is imported and that a test may fill."""
    made = types.ModuleType("a_module_of_the_user")
    sys.modules[made.__name__] = made
    yield made
    sys.modules.pop(made.__name__, None)


def define(module: types.ModuleType, code: str) -> types.ModuleType:
    exec(textwrap.dedent(code), module.__dict__)
    return module


COMMON = (
    "import enum\nfrom collections import namedtuple\nfrom dataclasses import dataclass, field\n"
)


def test_pickle_is_refused_with_its_place_and_the_ways_out() -> None:
    encoded = encode(State(messages=[1, {"model": Opaque()}]), what="state")
    with pytest.raises(CheckpointError) as caught:
        load(encoded)
    text = str(caught.value)
    assert text.startswith("state.messages[1]['model'] cannot be loaded: it is pickled")
    for way in ("local file of your own", "GRAPHORCH_CHECKPOINT_KEY", "allow_pickle=True"):
        assert way in text
    assert load(encoded, trusted=True).messages[1]["model"] == Opaque()


def test_pickle_that_is_not_trusted_does_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "it ran",)

    encoded = encode([Bomb()], what="state")
    with pytest.raises(CheckpointError, match=r"it is pickled"):
        load(encoded)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda: 1,
        lambda: ValueError("x"),
        lambda: int,
        lambda: type("Local", (), {})(),
        lambda: dataclasses.make_dataclass("Local", ["x"])(1),
        lambda: enum.Enum("Local", "A").A,
        lambda: namedtuple("Local", "x")(1),
        lambda: type("SubDict", (dict,), {})(a=1),
    ],
)
def test_what_no_kind_fits_is_pickled_and_marked(make: Callable[[], Any]) -> None:
    value = {"x": make()}
    encoded = encode(value, what="state")
    assert [place.partition(" ")[0] for place in encoded.pickled] == ["state['x']"]
    load(encoded, trusted=True)


def test_own_way_of_pickling_is_respected(module: types.ModuleType) -> None:
    define(
        module,
        COMMON
        + """
@dataclass
class Handle:
    name: str
    opened: bool = True
    def __getstate__(self): return {"name": self.name}
    def __setstate__(self, state): self.__init__(state["name"] + " again")
""",
    )
    encoded = encode([module.Handle("a")], what="state")
    assert encoded.pickled == ("state[0] (a a_module_of_the_user.Handle)",)
    assert load(encoded, trusted=True)[0].name == "a again"


def test_constructor_does_not_run(module: types.ModuleType) -> None:
    define(
        module,
        COMMON
        + """
made = []
@dataclass
class Noted:
    x: int
    def __post_init__(self): made.append(self)
    def __setattr__(self, name, value): made.append(name); super().__setattr__(name, value)
""",
    )
    encoded = encode(module.Noted(1), what="state")
    module.made.clear()
    assert load(encoded).x == 1
    assert module.made == []


def test_module_is_imported_only_if_trusted(tmp_path: Path, monkeypatch: Any) -> None:
    name = "a_module_to_import"
    (tmp_path / f"{name}.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    encoded = encode([__import__(name).Point(1)], what="state")
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(CheckpointError, match=rf"state\[0\] .* in the module '{name}'.* Import it"):
        load(encoded)
    assert name not in sys.modules
    assert load(encoded, trusted=True)[0].x == 1
    sys.modules.pop(name)


CHANGES = {
    "dataclass": ("@dataclass\nclass It:\n    x: int\n    y: int = 0", "It(1, 2)"),
    "namedtuple": ("It = namedtuple('It', 'x y')\nIt.__module__ = __name__", "It(1, 2)"),
    "pydantic": ("from pydantic import BaseModel\nclass It(BaseModel):\n    x: int", "It(x=1)"),
    "enum": ("class It(enum.Enum):\n    OLD = 1", "It.OLD"),
}


@pytest.mark.parametrize(
    ("kind", "now", "problem"),
    [
        ("dataclass", "@dataclass\nclass It:\n    x: int", "has no field 'y' here"),
        (
            "dataclass",
            "@dataclass\nclass It:\n    x: int\n    y: int\n    new: int",
            "has a field 'new' without a default",
        ),
        ("dataclass", "class It: pass", "is not a dataclass here"),
        ("dataclass", "def It(): pass", "has no class 'It' here"),
        ("dataclass", "", "has no class 'It' here"),
        ("namedtuple", "It = namedtuple('It', 'x')", "has no field 'y' here"),
        ("namedtuple", "It = namedtuple('It', 'x y z')", "has a field 'z' without a default"),
        ("namedtuple", "It = tuple", "has no class|is not a namedtuple here"),
        (
            "pydantic",
            "from pydantic import BaseModel\nclass It(BaseModel):\n    y: int = 0",
            "has no field 'x' here",
        ),
        (
            "pydantic",
            "from pydantic import BaseModel\nclass It(BaseModel):\n    x: int\n    y: int",
            "has a field 'y' without a default",
        ),
        ("pydantic", "class It: pass", "is not a pydantic model here"),
        (
            "enum",
            "class It(enum.Enum):\n    NEW = 1\n    B = 2",
            "no member 'OLD' here; it has NEW, B",
        ),
        ("enum", "class It: pass", "is not an Enum here"),
    ],
)
def test_class_that_changed_is_a_clear_error(
    module: types.ModuleType, kind: str, now: str, problem: str
) -> None:
    before, make = CHANGES[kind]
    define(module, COMMON + before)
    encoded = encode({"it": eval(make, module.__dict__)}, what="state")
    assert not encoded.pickled
    del module.It
    define(module, COMMON + now)
    with pytest.raises(CheckpointError, match=problem) as caught:
        load(encoded)
    assert str(caught.value).startswith("state['it'] cannot be loaded: the ")
    assert "a_module_of_the_user" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "now", "expected"),
    [
        ("dataclass", "@dataclass\nclass It:\n    x: int\n    y: int\n    z: list = None", None),
        (
            "dataclass",
            "@dataclass\nclass It:\n    x: int\n    y: int\n"
            "    z: list = field(default_factory=list)",
            [],
        ),
        ("namedtuple", "It = namedtuple('It', 'z y x', defaults=[5, 0, 0])", 5),
        (
            "pydantic",
            "from pydantic import BaseModel\nclass It(BaseModel):\n    x: int\n    z: list = [1]",
            [1],
        ),
    ],
)
def test_new_field_takes_its_default(
    module: types.ModuleType, kind: str, now: str, expected: Any
) -> None:
    before, make = CHANGES[kind]
    define(module, COMMON + before)
    encoded = encode(eval(make, module.__dict__), what="state")
    define(module, COMMON + now)
    got = load(encoded)
    assert (got.x, got.z) == (1, expected)


def test_default_made_by_a_function_needs_trust(module: types.ModuleType) -> None:
    before, make = CHANGES["dataclass"]
    define(module, COMMON + before)
    encoded = encode(eval(make, module.__dict__), what="state")
    code = "@dataclass\nclass It:\n    x: int\n    y: int\n    z: int = field(default_factory=make)"
    define(module, COMMON + "def make(): return 7\n" + code)
    with pytest.raises(CheckpointError, match=r"field 'z' of .*comes from a function"):
        load(encoded)
    assert load(encoded, trusted=True).z == 7


def test_state_class_of_a_script_is_found_in_the_next_run_of_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from dataclasses import dataclass
            from pathlib import Path
            from graphorch_ray import State
            from graphorch_ray.checkpoint.encoding import decode, encode

            @dataclass
            class Mine(State):
                round: int = 0

            file = Path(sys.argv[1])
            if file.exists():
                got = decode(file.read_bytes(), None, trusted=False, what="state")
                assert type(got) is Mine and got.round == 3
            else:
                encoded = encode(Mine(messages=[1], round=3), what="state")
                assert not encoded.pickled
                file.write_bytes(encoded.document)
            """
        )
    )
    for _ in range(2):
        subprocess.run([sys.executable, script, tmp_path / "document"], check=True, timeout=60)
    with pytest.raises(CheckpointError, match=r"'__main__' has no class 'Mine' here. Define it"):
        decode((tmp_path / "document").read_bytes(), [].__getitem__, trusted=True, what="state")


def test_class_of_the_driver_s_main_is_named_in_a_worker_too() -> None:
    made = dataclasses.make_dataclass("OfTheDriver", ["x"], namespace={"__module__": "__main__"})
    made.__module__ = "__main__"
    encoded = encode(made(1), what="state")
    assert not encoded.pickled
    assert type(load(encoded, classes={"__main__:OfTheDriver": made})) is made
    with pytest.raises(CheckpointError, match=r"has no class 'OfTheDriver' here"):
        load(encoded)


class _Metered(type):
    def __getattr__(cls, name: str) -> Any:
        raise AssertionError("looking for a class ran code")


class Metered(metaclass=_Metered):
    pass


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:dict",
        "builtins:eval",
        "subprocess:Popen",
        "tests.checkpoint.test_encoding_trust:Metered.inner",
        "tests.checkpoint.test_encoding_trust:State",
        "nothing",
        "a:b:c",
        ":",
        7,
    ],
)
@pytest.mark.parametrize("code", [32, 34, 36])
def test_only_classes_of_the_right_sort_are_ever_made(name: Any, code: int) -> None:
    mark = msgpack.ExtType(code, b"")
    args = {32: ["A"], 34: [{}], 36: [{}, None, {}, []]}[code]
    document = b"\x01" + msgpack.packb([mark, name, *args])
    with pytest.raises(CheckpointError, match=r"^state cannot be loaded: "):
        decode(document, [].__getitem__, trusted=False, what="state")


class Model(BaseModel):
    x: int


def test_pydantic_model_keeps_which_fields_were_set() -> None:
    class_default = Model.model_construct(x=1, _fields_set=set())
    got = there_and_back([Model(x=1), class_default])
    assert [item.model_fields_set for item in got] == [{"x"}, set()]


def test_ray_reference_is_a_named_error(ray_session: str) -> None:
    import ray

    ref = ray.put(1)
    for value, place in (
        (State(messages=[1, ref]), r"state\.messages\[1\] is a ObjectRef"),
        ({"x": Opaque(inner=[ref])}, r"state\['x'\] holds a ObjectRef"),
    ):
        with pytest.raises(CheckpointError, match=place + r".* Put the value itself"):
            encode(value, what="state")


def test_what_cannot_be_pickled_is_a_named_error() -> None:
    generator = (n for n in range(3))
    with pytest.raises(CheckpointError, match=r"state\['a'\]\[1\] \(a builtins.generator\) cannot"):
        encode({"a": [Opaque(), generator]}, what="state")
    with pytest.raises(CheckpointError, match=r"state\[0\] .*cannot be pickled"):
        encode([memoryview(b"").__iter__()], what="state")


def test_hidden_pickle_in_bytes_is_only_bytes() -> None:
    assert there_and_back(pickle.dumps(State())) == pickle.dumps(State())
