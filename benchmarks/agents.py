"""What the nodes of LangGraph's benchmark shapes do, the same on both sides.

The shapes are those of the `bench` folder of LangGraph's repository: many branches that loop, an
agent with tools, and a wide state. All of it is plain data and comes out the
same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Fields = dict[str, Any]

# --- branches that loop -------------------------------------------------------------------------

TURNS = 10


def edit(subject: str) -> str:
    """The first step of a branch."""
    return f"{subject}, edited"


def generate(subject: str) -> str:
    """The second step."""
    return f"A text about {subject}"


def bump(text: str) -> str:
    """The step that is repeated."""
    return text + " +"


def bumped_enough(text: str) -> bool:
    """Whether a branch has looped as often as it is to."""
    return text.endswith(" +" * TURNS)


# --- an agent with tools ------------------------------------------------------------------------


def fake_model(messages: list[Fields], calls: int) -> Fields:
    """Ask for a tool until there were enough calls; then answer."""
    made = sum(message["role"] == "tool" for message in messages)
    if made == calls:
        return {"role": "assistant", "content": "answer" * 100, "call": None}
    return {"role": "assistant", "content": "", "call": f"question {made} " * 100}


def fake_tool(messages: list[Fields]) -> Fields:
    """What the tool answers to the last message."""
    return {"role": "tool", "content": f"result of {messages[-1]['call']}" * 10, "call": None}


# --- a wide state -------------------------------------------------------------------------------


def extend(old: Any, new: Any) -> Any:
    """Lists grow."""
    return [*(old or []), *(new or [])]


def replace(old: Any, new: Any) -> Any:
    """The newest value counts."""
    return new


def keep(old: Any, new: Any) -> Any:
    """The newest value counts, if there is one."""
    return old if new is None else new


def combine(old: Any, new: Any) -> Any:
    """Dictionaries are united."""
    return {**(old or {}), **(new or {})}


REDUCERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "messages": extend,
    "trigger_events": extend,
    "categorizations": extend,
    "responses": extend,
    "medium": keep,
    "autoresponse": replace,
    "issue": keep,
    "relevant_rules": replace,
    "memory_docs": replace,
    "user_info": keep,
    "crm_info": keep,
    "thread": keep,
    "participants": combine,
    "bot": keep,
    "assignees": combine,
}
LISTS = {"messages", "trigger_events", "categorizations", "responses"}
LISTS |= {"memory_docs", "relevant_rules"}
TEXTS = {"medium", "thread", "bot"}

STEPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "one": ("messages", ("trigger_events", "medium")),
    "two": ("trigger_events", ("autoresponse", "issue")),
    "three": ("autoresponse", ("relevant_rules",)),
    "four": ("trigger_events", ("categorizations", "responses", "memory_docs")),
    "five": (
        "categorizations",
        ("user_info", "crm_info", "thread", "participants", "bot", "assignees"),
    ),
    "six": ("responses", ("messages",)),
}
"""For each step, the field that it reads and those that it writes."""


def first_fields(width: int) -> Fields:
    """A state whose one message is a dictionary of dictionaries of lists."""
    inner = {f"{j}" * 10: ["some text" * 5, True, 1, 6327816386138, None] * 5 for j in range(width)}
    return {"messages": [{f"{i}" * 10: dict(inner) for i in range(width)}]}


def update_of(step: str, fields: Fields) -> Fields:
    """What a step writes, from what it reads."""
    read, written = STEPS[step]
    value = fields.get(read)
    as_list = value if isinstance(value, list) else [value]
    return {
        name: as_list if name in LISTS else "x" * 300 if name in TEXTS else as_list[-1]
        for name in written
    }


def reduced(fields: Fields, update: Fields) -> Fields:
    """The fields after an update."""
    return {**fields, **{name: REDUCERS[name](fields.get(name), update[name]) for name in update}}
