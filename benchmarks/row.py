"""A row of the table: one figure of Headrace beside its reference, and what was to be reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

KIB = 1024
MIB = 1 << 20
GIB = 1 << 30
MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """What ``of`` must be: at most, or at least, ``bound``.

    ``of`` is "ours", the figure itself, or "ratio", the figure over its reference.
    """

    of: Literal["ours", "ratio"]
    relation: Literal["≤", "≥"]
    bound: float

    def met(self, value: float) -> bool:
        return value <= self.bound if self.relation == "≤" else value >= self.bound

    def __str__(self) -> str:
        times = " times" if self.of == "ratio" else ""
        return f"{self.relation} {self.bound:g}{times}"


def at_most(bound: float) -> Target:
    """The figure itself is bounded."""
    return Target("ours", "≤", bound)


def ratio_at_most(bound: float) -> Target:
    return Target("ratio", "≤", bound)


def ratio_at_least(bound: float) -> Target:
    return Target("ratio", "≥", bound)


@dataclass(frozen=True)
class Row:
    """One figure, as measured in every round.

    ``name`` and ``unit`` say what was measured; ``ours`` and ``reference`` hold one value a round,
    in the same order, so that the ratio is taken round by round.  ``reference`` may be empty.  What
    is not ``listed`` is for a table of its own.
    """

    name: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float] = ()
    reference_name: str = ""
    target: Target | None = None
    listed: bool = True

    def __post_init__(self) -> None:
        if not self.ours or (self.reference and len(self.reference) != len(self.ours)):
            raise ValueError(f"{self.name}: {len(self.ours)} rounds, {len(self.reference)} beside")

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios."""
        if not self.reference:
            return None
        return median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        if self.target is None:
            return None
        judged = median(self.ours) if self.target.of == "ours" else self.ratio
        if judged is None:
            raise ValueError(f"{self.name}: a ratio is bounded, but there is no reference")
        return self.target.met(judged)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": median(self.ours),
            "reference": median(self.reference) if self.reference else None,
            "reference_name": self.reference_name or None,
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "rounds": {"ours": list(self.ours), "reference": list(self.reference)},
        }
