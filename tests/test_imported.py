"""Modules that are used only where the program has them: whole, whoever is importing them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from graphorch_ray.imported import imported

SLOW = """
import threading

import {name}_gate as gate

gate.began.set()
gate.may_end.wait(30)
value = "whole"
"""


def test_a_module_that_another_thread_is_half_through_with_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "graphorch_ray_tests_slow"
    (tmp_path / f"{name}.py").write_text(SLOW.format(name=name))
    (tmp_path / f"{name}_gate.py").write_text(
        "import threading\nbegan, may_end = threading.Event(), threading.Event()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert imported(name) is None
    importing = threading.Thread(target=__import__, args=(name,), daemon=True)
    importing.start()
    gate = __import__(f"{name}_gate")
    assert gate.began.wait(30)
    assert not hasattr(sys.modules[name], "value")  # half through
    threading.Timer(0.05, gate.may_end.set).start()
    found = imported(name)
    assert found is not None
    assert found.value == "whole"
    importing.join(30)
