"""The benchmarks' arithmetic, tables and drawings; and that contenders can be used."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import agents, functions
from benchmarks.__main__ import arguments_of, put_together, save
from benchmarks.contenders import use
from benchmarks.measuring import (
    AnswersDifferError,
    Goal,
    Measured,
    Result,
    Spread,
    Work,
    measure,
    turns,
)
from benchmarks.page import as_page, write_page
from benchmarks.plots import as_svg, decades
from benchmarks.reporting import as_table, goal_rows, number, rows
from benchmarks.scaling import Line, Model, fit
from benchmarks.works import WORKS
from benchmarks.works.fan_out import lengths

FACTS: dict[str, Any] = {
    "began": "2026-01-02T03:04:05+00:00",
    "rounds": 3,
    "quick": False,
    "python": "3.11.7",
    "system": "Linux x86_64",
    "cores": 2,
    "memory_gb": 24,
    "load_at_begin": 0.1,
    "load_at_end": 2.0,
    "versions": {"ray": "2.60.0"},
}


def result_of(ours: list[float], theirs: list[float], *goals: Goal) -> Result:
    values = {"ours": {"seconds": ours}, "theirs & co": {"seconds": theirs}}
    return Result("W0", "a < b", values, list(goals), {"absent": "no | such module"}, "A note.")


# --- statistics ---------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is ten times slower in one round changes no ratio."""
    result = result_of([1.0, 10.0, 1.0], [2.0, 20.0, 2.0])
    assert result.ratio("ours", "theirs & co") == Spread(0.5, 0.5, 0.5)


def test_difference_is_taken_within_a_round() -> None:
    result = result_of([1.5, 10.5], [1.0, 10.0])
    assert result.difference("ours", "theirs & co") == Spread(0.5, 0.5, 0.5)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=9))
def test_spread_holds_its_median(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.low <= spread.median <= spread.high
    assert {spread.low, spread.high} <= set(values)


@given(st.integers(1, 6), st.integers(1, 12))
def test_each_round_has_everyone_and_beginnings_are_shared(names: int, rounds: int) -> None:
    everyone = [f"c{number}" for number in range(names)]
    orders = list(turns(everyone, rounds))
    assert all(sorted(order) == everyone for order in orders)
    firsts = [order[0] for order in orders]
    counts = [firsts.count(name) for name in everyone]
    assert max(counts) - min(counts) <= 1


def test_goals_of_every_kind() -> None:
    result = result_of(
        [1.0, 1.2],
        [2.0, 2.4],
        Goal("ours", 0.5, "theirs & co"),
        Goal("ours", 1.0),
        Goal("ours", 0.1, "theirs & co", difference=True),
        Goal("ours", 1.0, "absent"),
    )
    assert [line[2] for line in goal_rows(result)] == ["yes", "no", "yes", "-"]
    result.small = True
    assert [line[2] for line in goal_rows(result)] == [*["small sizes"] * 3, "-"]


# --- measuring ----------------------------------------------------------------------------------


def test_contenders_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def contender(name: str) -> Any:
        return lambda: calls.append(name)

    work = Work("W0", "", {"a": contender("a"), "b": contender("b")})
    result = measure(work, 3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert len(result.values["a"]["seconds"]) == len(result.values["b"]["seconds"]) == 3


def test_a_contender_that_measures_itself() -> None:
    work = Work("W0", "", {"a": lambda: Measured(1, {"seconds": 7.0, "MB": 3.0}), "b": lambda: 1})
    result = measure(work, 2)
    assert result.values["a"] == {"seconds": [7.0, 7.0], "MB": [3.0, 3.0]}
    assert result.measures() == ["seconds", "MB"]


def test_different_answers_are_an_error() -> None:
    with pytest.raises(AnswersDifferError, match="W0: a gave 1, b gave 2"):
        measure(Work("W0", "", {"a": lambda: 1, "b": lambda: 2}), 1)


def test_an_answer_that_changes_is_an_error() -> None:
    answers = iter([1, 1, 1, 2])
    with pytest.raises(AnswersDifferError):
        measure(Work("W0", "", {"a": lambda: 1, "b": lambda: next(answers)}), 5)


def test_a_contender_that_fails_is_left_out_with_the_reason() -> None:
    def fails() -> None:
        raise ImportError("no such module\nand more")

    result = measure(Work("W0", "", {"a": lambda: 1, "b": fails}), 1)
    assert list(result.values) == ["a"]
    assert result.left_out == {"b": "ImportError: no such module"}


def test_a_contender_that_takes_too_long_is_left_out_unless_it_has_a_goal() -> None:
    slow = Measured(1, {"seconds": 100.0})
    work = Work("W0", "", {"a": lambda: slow, "b": lambda: slow}, [Goal("a", 1.0)])
    result = measure(work, 1, limit=60)
    assert list(result.values) == ["a"]
    assert result.left_out == {"b": "its first run took 100 s, longer than the limit"}


# --- tables, drawings, the page -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0, "0"),
        (0.01234, "0.0123"),
        (-1.5, "-1.50"),
        (0.00001234, "0.0000123"),
    ],
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_rows_have_the_ratio_of_the_first_to_the_others() -> None:
    heading, first, second = rows(result_of([1.0], [4.0]))
    assert heading == ["", "seconds", "ours ÷ it"]
    assert first[2] == "-"
    assert second[2].startswith("0.250 ")


def test_a_table_tells_goals_what_is_left_out_and_the_note() -> None:
    text = as_table(result_of([1.0], [4.0], Goal("ours", 0.5, "theirs & co")))
    assert "ours ≤ 0.5 x theirs & co: 0.250" in text
    assert "left out: absent" in text
    assert "A note." in text


@given(st.floats(1e-6, 1e4), st.floats(1, 1e6))
def test_decades_enclose_all_values(low: float, factor: float) -> None:
    first, last = decades(low, low * factor)
    assert 10.0**first <= low * (1 + 1e-9)
    assert low * factor <= 10.0**last * (1 + 1e-9)
    assert first < last


def test_a_drawing_is_valid_and_fits_dark_pages() -> None:
    text = as_svg(result_of([0.9, 1.1], [0.00002, 3.0]))
    root = ElementTree.fromstring(text)
    assert len(root.findall("{*}rect")) == 2
    assert root.findtext("{*}title") == "W0: a < b, in seconds; shorter is faster"
    assert "prefers-color-scheme: dark" in text
    width = float(root.attrib["width"])
    for bar in root.findall("{*}rect"):
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width


def test_nothing_is_drawn_of_nothing() -> None:
    assert as_svg(Result("W0", "", {}, [], {})) == ""


def test_the_page_marks_quick_runs_and_escapes_cells(tmp_path: Path) -> None:
    result = result_of([1.0], [4.0], Goal("ours", 0.5, "theirs & co"))
    page = as_page([result], FACTS, "drawings")
    assert "![W0: a < b](drawings/W0.svg)" in page
    assert "no \\| such module" in page
    assert "small sizes" not in page
    small = replace(result, small=True)
    assert "small sizes" in as_page([small], FACTS, "drawings")
    write_page([result], FACTS, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == as_page([result], FACTS, "page")
    assert (tmp_path / "page" / "W0.svg").exists()


def test_results_survive_json() -> None:
    result = result_of([1.0], [4.0], Goal("ours", 0.5, "theirs & co"))
    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_several_runs_make_one_page_and_the_later_ones_win(tmp_path: Path) -> None:
    first, second = result_of([1.0], [4.0]), result_of([2.0], [4.0])
    earlier, later = tmp_path / "earlier.json", tmp_path / "later.json"
    save({**FACTS, "began": "2026-01-01"}, [replace(first, key=k) for k in ("W2", "W1")], earlier)
    save({**FACTS, "began": "2026-01-02"}, [replace(second, key="W1")], later)
    facts, together = put_together([earlier, later])
    assert [result.key for result in together] == ["W1", "W2"]
    assert together[0] == replace(second, key="W1")
    assert facts["began"] == "2026-01-01"


def test_what_bounds_it_and_what_scaling_said_is_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "bounds.md").write_text("The driver does.\n")
    (tmp_path / "page" / "scaling.txt").write_text("100 machines\n")
    write_page([result_of([1.0], [4.0])], FACTS, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert page.index("The driver does.") < page.index("## W0") < page.index("## Scaling")
    assert "```\n100 machines\n```" in page


def test_the_command_line_refuses_what_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    for given_arguments, said in (
        (["--rounds", "0"], "--rounds must be 1 or more"),
        (["--from-json", "x.json"], "--from-json needs --page"),
        (["--from-json", "x.json", "--page", "y.md"], "there is no file x.json"),
    ):
        with pytest.raises(SystemExit):
            arguments_of(given_arguments)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"facts": {}, "results": [{"key": "W1"}]}'])
def test_a_file_of_something_else_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SystemExit, match=r"x\.json was not written by --json"):
        put_together([tmp_path / "x.json"])


# --- works and contenders -----------------------------------------------------------------------


def test_every_work_has_goals_of_contenders_that_it_has() -> None:
    for key, make in WORKS.items():
        work = make(True)
        assert work.key == key
        for goal in work.goals:
            assert goal.contender in work.contenders
            assert goal.versus is None or goal.versus in work.contenders


def test_lengths_are_the_same_each_time_and_in_bounds() -> None:
    assert lengths(500) == lengths(500)
    assert all(0.001 <= seconds <= 2.0 for seconds in lengths(500))


IN_PROCESS = [
    ("plain", "plain", {}),
    ("langgraph", "langgraph", {}),
    ("burr", "burr", {}),
    ("graphorchestrator", "graphorchestrator", {}),
    ("graphorch", "graphorch_ray", {"backend": "inline"}),
]


@pytest.mark.parametrize(("module", "package", "options"), IN_PROCESS)
@pytest.mark.parametrize(
    ("primitive", "arguments", "answer"),
    [
        ("fan_out", (functions.same, [3, 4, 5]), 12),
        ("chain", (functions.one_more, 0, 5), 5),
        ("loop", (functions.one_more, 0, 5), 5),
    ],
)
def test_contenders_in_one_process_agree(
    module: str,
    package: str,
    options: dict[str, Any],
    primitive: str,
    arguments: tuple[Any, ...],
    answer: int,
) -> None:
    if package != "plain":
        pytest.importorskip(package, reason=f"{package} is not in this environment")
    if (module, primitive) == ("burr", "fan_out"):
        pytest.skip("a machine of Burr is in one state at a time")
    if (module, primitive) == ("graphorch", "loop"):
        options = {**options, "placement": "driver"}
    if module == "langgraph":
        pytest.importorskip("langgraph.checkpoint.sqlite", reason="its savers are not here")
    assert use(module, primitive, *arguments, **options)() == answer


@pytest.mark.parametrize("module", ["dask", "hamilton", "prefect", "raw_ray"])
def test_contenders_with_servers_can_be_imported(module: str) -> None:
    package = {"dask": "distributed", "raw_ray": "ray"}.get(module, module)
    pytest.importorskip(package, reason=f"{package} is not in this environment")
    with pytest.raises(AttributeError):
        use(module, "no such primitive")()


@pytest.mark.parametrize(
    ("shape", "sizes"), [("branches", (3,)), ("agent", (4,)), ("wide", (3, 20))]
)
def test_shapes_come_out_the_same_as_in_langgraph(shape: str, sizes: tuple[int, ...]) -> None:
    pytest.importorskip("langgraph.checkpoint.sqlite", reason="LangGraph is not here")
    ours = use("graphorch_shapes", shape, *sizes, backend="inline")()
    theirs = use("langgraph_shapes", shape, *sizes)()
    if shape == "wide":
        assert set(agents.REDUCERS) >= set(theirs)
    assert ours == theirs
    assert use("langgraph_shapes", shape, *sizes, awaited=True)() == theirs


# --- the scaling model --------------------------------------------------------------------------


@given(st.floats(0.001, 10), st.floats(1e-6, 1))
def test_a_line_is_found_again(fixed: float, each: float) -> None:
    line = fit([(count, fixed + each * count) for count in (10, 100, 1000)])
    assert line.at(50_000) == pytest.approx(fixed + each * 50_000, rel=1e-4)


def test_no_part_of_a_cost_is_below_zero() -> None:
    assert fit([(10, 0.1), (1000, 100.0)]).fixed == 0.0
    assert fit([(10, 1.0), (1000, 0.5)]).each == 0.0


def test_a_superstep_takes_its_work_or_its_driver() -> None:
    model = Model(Line(0.5, 0.001), Line(0, 0.01), Line(0, 0.01))
    assert model.superstep(nodes=100, seconds=1.0, slots=50) == pytest.approx(2.5)
    assert model.superstep(nodes=10_000, seconds=0.01, slots=1000) == pytest.approx(10.5)
    assert model.superstep(100, 1.0, 50, megabytes=100) == pytest.approx(4.5)
    assert model.shortest_node(slots=1600) == pytest.approx(1.6)
    assert model.most_slots(seconds=1.6) == pytest.approx(1600)
