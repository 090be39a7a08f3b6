"""Frozen option values: how a node is retried, and what it asks of the machine it runs on.

Both classes check every field when they are made; an error names the field, the
value given and the legal range, so that a typing slip surfaces where it was made
and not in the middle of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, Literal, TypedDict

OnMultipleStates = Literal["first", "each", "error"]
"""What to do where several states arrive at a node that takes one."""

LONGEST_DELAY = 1e9
"""Longest wait in seconds (about 31 years) that :meth:`RetryPolicy.delay_before` returns."""


def _real(owner: str, name: str, value: object, legal: str) -> float:
    """Return ``value`` where it is a real number (no bool, no NaN); raise otherwise."""
    if isinstance(value, bool) or not _is_real(value):
        raise TypeError(
            f"{owner}.{name} must be a number {legal}, not {value!r} ({type(value).__name__})"
        )
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        raise ValueError(f"{owner}.{name} must be a number {legal}, not {value!r}")
    return number


def _is_real(value: object) -> bool:
    # numpy's scalars, Fraction and the like have both attributes; strings have neither.
    return isinstance(value, int | float) or (
        hasattr(value, "__float__") and hasattr(value, "real")
    )


def _whole(owner: str, name: str, value: object, legal: str) -> int:
    """Return ``value`` as an int where it is a whole number; raise otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{owner}.{name} must be a whole number {legal}, not {value!r} ({type(value).__name__})"
        )
    return int(value.__index__())


@dataclass(frozen=True, repr=False)
class RetryPolicy:
    """How often, and after which waits, a failed node is tried again.

    A node runs at most ``max_retries + 1`` times. The wait before retry ``n``
    (counted from 0) is ``delay * backoff ** n`` seconds, never above ``max_delay``.

    Attributes:
        max_retries: Retries after the first attempt, 0 or more. 3 rides out a short
            hiccup without hiding a real fault for long.
        delay: Seconds before the first retry, 0 or more.
        backoff: Factor by which each further wait grows, 0 or more. 1 keeps it constant.
        max_delay: Longest wait in seconds; ``None`` (the default) sets no limit.
        jitter: Fraction from 0 to 1 of each wait that may be taken away at random, so
            that many nodes that failed together do not retry together. 0 by default:
            waits are then exactly as computed.
        retry_on: Exception class, or tuple of classes, worth another attempt; any other
            failure is final at once. ``None`` (the default) retries every failure.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A field is outside its legal range.

    Example:
        >>> policy = RetryPolicy(max_retries=4, delay=0.5, backoff=2, max_delay=3)
        >>> [policy.delay_before(retry) for retry in range(4)]
        [0.5, 1.0, 2.0, 3.0]
    """

    max_retries: int = 3
    delay: float = 1.0
    backoff: float = 2.0
    _: KW_ONLY
    max_delay: float | None = None
    jitter: float = 0.0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        _at_least_zero_whole("RetryPolicy", "max_retries", self.max_retries)
        _finite_at_least_zero("RetryPolicy", "delay", self.delay)
        _finite_at_least_zero("RetryPolicy", "backoff", self.backoff)
        if self.max_delay is not None:
            _finite_at_least_zero("RetryPolicy", "max_delay", self.max_delay)
        jitter = _real("RetryPolicy", "jitter", self.jitter, "from 0 to 1")
        if not 0 <= jitter <= 1:
            raise ValueError(f"RetryPolicy.jitter must be from 0 to 1, not {self.jitter!r}")
        self._check_retry_on()

    def _check_retry_on(self) -> None:
        given: Any = self.retry_on
        if given is None:
            return
        if isinstance(given, list | set | frozenset):
            given = tuple(given)
            object.__setattr__(self, "retry_on", given)
        classes = given if isinstance(given, tuple) else (given,)
        if not classes:
            raise ValueError(
                "RetryPolicy.retry_on is empty, so nothing would be retried; "
                "name exception classes, or use max_retries=0"
            )
        for item in classes:
            if not (isinstance(item, type) and issubclass(item, BaseException)):
                raise TypeError(
                    "RetryPolicy.retry_on must be an exception class, a tuple of them, or None, "
                    f"not {item!r}"
                )

    def __repr__(self) -> str:
        """Show the three usual fields, and the others where they are set."""
        more = "".join(
            f", {item.name}={getattr(self, item.name)!r}"
            for item in fields(self)[3:]
            if getattr(self, item.name) != item.default
        )
        return (
            f"RetryPolicy(max_retries={self.max_retries}, delay={self.delay:.2f}s, "
            f"backoff={self.backoff:.2f}x{more})"
        )

    def delay_before(self, retry: int) -> float:
        """Return the seconds to wait before a retry, counted from 0, without jitter.

        The value is always finite: growth stops at ``max_delay``, or at
        :data:`LONGEST_DELAY` where no limit is set.

        Raises:
            ValueError: ``retry`` is negative.
        """
        if retry < 0:
            raise ValueError(f"retry counts from 0, not {retry!r}")
        limit = LONGEST_DELAY if self.max_delay is None else min(self.max_delay, LONGEST_DELAY)
        if self.delay == 0:
            return 0.0
        try:
            wait = float(self.delay) * float(self.backoff) ** retry
        except OverflowError:
            return float(limit)
        return float(min(wait, limit))

    def retries(self, exc: BaseException | None, type_names: tuple[str, ...] = ()) -> bool:
        """Say whether a failure of this kind is worth another attempt.

        Args:
            exc: The exception itself, where it could travel to the caller.
            type_names: Used where ``exc`` is ``None``: ``"module.qualname"`` of each class
                in the exception's method resolution order.
        """
        if self.retry_on is None:
            return True
        if exc is not None:
            return isinstance(exc, self.retry_on)
        wanted = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        return any(f"{cls.__module__}.{cls.__qualname__}" in type_names for cls in wanted)


def _at_least_zero_whole(owner: str, name: str, value: object) -> int:
    number = _whole(owner, name, value, ">= 0")
    if number < 0:
        raise ValueError(f"{owner}.{name} must be a whole number >= 0, not {value!r}")
    return number


def _finite_at_least_zero(owner: str, name: str, value: object) -> float:
    number = _real(owner, name, value, ">= 0")
    if not 0 <= number < math.inf:
        raise ValueError(f"{owner}.{name} must be a finite number >= 0, not {value!r}")
    return number


class OptionKeywords(TypedDict, total=False):
    """The keywords that decorators and nodes take, for type checkers; see :class:`NodeOptions`."""

    num_cpus: float | None
    num_gpus: float | None
    memory: float | None
    resources: Mapping[str, float] | None
    label_selector: Mapping[str, str] | None
    runtime_env: Mapping[str, Any] | None
    scheduling_strategy: Any
    timeout: float | None
    mutable: bool
    batch: bool
    replicas: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What a node asks for when it runs: resources, a time limit, and how its input comes.

    You rarely make one by hand: ``@node_action(num_cpus=2)`` and
    ``ProcessingNode("a", f, num_cpus=2)`` make it for you, the node's keywords
    taking precedence over the decorator's.

    Attributes:
        num_cpus: CPU cores, a number >= 0. ``None``: the executor's default.
        num_gpus: GPUs, a number >= 0; above 1 it must be whole. ``None``: no GPU.
        memory: Bytes of heap memory to reserve, > 0. ``None``: no reservation.
        resources: Custom resources by name, each a number >= 0.
        label_selector: Labels that the machine must carry, as Ray's own option.
        runtime_env: Ray runtime environment for the worker.
        scheduling_strategy: Ray's option of that name: ``"DEFAULT"``, ``"SPREAD"`` or
            one of Ray's strategy objects.
        timeout: Seconds > 0 for one attempt, from when it starts to run. ``None``: no limit
            but the superstep's.
        mutable: The node writes into large buffers (arrays, tables) of its input, so it
            needs private copies of them. ``False``, the default, hands them over
            read-only and without copying.
        batch: Short executions of this node may travel to a worker together. ``False``
            gives each its own task.
        replicas: Model workers to keep for an ``AINode``, >= 1; other nodes have none.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A field is outside its legal range.

    Example:
        >>> NodeOptions(num_cpus=2).merged(timeout=30).timeout
        30
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: float | None = None
    resources: Mapping[str, float] | None = None
    label_selector: Mapping[str, str] | None = None
    runtime_env: Mapping[str, Any] | None = None
    scheduling_strategy: Any = None
    timeout: float | None = None
    mutable: bool = False
    batch: bool = True
    replicas: int | None = None

    def __post_init__(self) -> None:
        """Check every field, and copy the mappings so that nobody else can change them."""
        owner = "NodeOptions"
        if self.num_cpus is not None:
            _quantity("num_cpus", self.num_cpus)
        if self.num_gpus is not None:
            gpus = _quantity("num_gpus", self.num_gpus)
            if gpus > 1 and gpus != int(gpus):
                raise ValueError(
                    f"{owner}.num_gpus must be whole above 1, not {self.num_gpus!r}; "
                    "a fraction shares one GPU"
                )
        if self.memory is not None:
            memory = _real(owner, "memory", self.memory, "of bytes > 0")
            if not 0 < memory < math.inf:
                raise ValueError(
                    f"{owner}.memory must be a number of bytes > 0, not {self.memory!r}"
                )
        self._check_mappings()
        if self.timeout is not None:
            timeout = _real(owner, "timeout", self.timeout, "of seconds > 0")
            if not 0 < timeout < math.inf:
                raise ValueError(
                    f"{owner}.timeout must be a number of seconds > 0, or None for no limit, "
                    f"not {self.timeout!r}"
                )
        for name in ("mutable", "batch"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{owner}.{name} must be True or False, not {value!r}")
        if self.replicas is not None and _whole(owner, "replicas", self.replicas, ">= 1") < 1:
            raise ValueError(f"{owner}.replicas must be a whole number >= 1, not {self.replicas!r}")

    def _check_mappings(self) -> None:
        for name in ("resources", "label_selector", "runtime_env"):
            given = getattr(self, name)
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"NodeOptions.{name} must be a dict or None, not {given!r} "
                    f"({type(given).__name__})"
                )
            object.__setattr__(self, name, dict(given))
        for name, amount in (self.resources or {}).items():
            if name in _OWN_KEYWORD:
                raise ValueError(
                    f"NodeOptions.resources holds {name!r}; use {_OWN_KEYWORD[name]}= for that"
                )
            _quantity(f"resources[{name!r}]", amount)

    @property
    def explicit_resources(self) -> bool:
        """Whether any field from ``num_cpus`` to ``scheduling_strategy`` is given."""
        return any(getattr(self, name) is not None for name in _PLACEMENT_FIELDS)

    def merged(self, **overrides: Any) -> NodeOptions:
        """Return these options with some fields replaced.

        Raises:
            TypeError: A keyword is no option, or of the wrong type.
            ValueError: A value is outside its legal range.
        """
        check_option_names("NodeOptions", overrides)
        return replace(self, **overrides) if overrides else self


_OWN_KEYWORD = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
_PLACEMENT_FIELDS = (
    "num_cpus",
    "num_gpus",
    "memory",
    "resources",
    "label_selector",
    "runtime_env",
    "scheduling_strategy",
)
OPTION_NAMES = tuple(field.name for field in fields(NodeOptions))


def _quantity(name: str, value: object) -> float:
    number = _finite_at_least_zero("NodeOptions", name, value)
    if 0 < number < 0.0001:
        raise ValueError(
            f"NodeOptions.{name} must be 0 or at least 0.0001 (Ray's precision), not {value!r}"
        )
    return number


def check_option_names(owner: str, given: Mapping[str, Any]) -> None:
    """Raise a ``TypeError`` that names the first keyword in ``given`` that is no option."""
    for name in given:
        if name not in OPTION_NAMES:
            raise TypeError(
                f"{owner} got an unknown option {name!r}; options are {', '.join(OPTION_NAMES)}"
            )
