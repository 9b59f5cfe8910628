"""What a run found, as a table for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.row import Row

BEGIN = "<!-- Written by `make bench`; do not edit from here"
END = "to here. -->"

_HEAD = "| what | Headrace | beside | | ratio (lowest to highest) | target | met |"
_RULE = "|---|---:|---:|---|---:|---:|---|"


@dataclass(frozen=True)
class Part:
    """The rows of one part, how long it took in seconds, and how busy the machine was before."""

    name: str
    rows: Sequence[Row]
    seconds: float
    other_load: float

    @property
    def listed(self) -> list[Row]:
        return [row for row in self.rows if row.listed]


def as_json(machine: Mapping[str, str], rounds: int, parts: Sequence[Part]) -> str:
    return json.dumps(
        {
            "machine": dict(machine),
            "rounds": rounds,
            "parts": {
                part.name: {
                    "seconds": part.seconds,
                    "other_load": part.other_load,
                    "rows": [row.as_json() for row in part.rows],
                }
                for part in parts
            },
        },
        indent=1,
        ensure_ascii=False,
    )


def as_markdown(machine: Mapping[str, str], rounds: int, parts: Sequence[Part]) -> str:
    """The machine, then one table of all rows."""
    busiest = max(part.other_load for part in parts)
    facts = {
        **machine,
        "rounds": str(rounds),
        "other load before a part, at most": f"{busiest:.0%}",
    }
    lines = [f"- {name}: {fact}" for name, fact in facts.items()]
    lines += ["", _HEAD, _RULE]
    lines += [_line(row) for part in parts for row in part.listed]
    return "\n".join(lines)


def write_into(page: Path, text: str) -> None:
    """Replace what lies between the page's two marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for the figures")
    page.write_text(f"{before}{begin} -->\n{text}\n<!-- {end}{after}", encoding="utf-8")


def write_rows_into(page: Path, parts: Sequence[Part]) -> None:
    """Replace the page's rows of these parts only; those of a new part come last."""
    lines = page.read_text(encoding="utf-8").split("\n")
    for part in parts:
        names = {row.name for row in part.listed}
        old = [number for number, line in enumerate(lines) if _name(line) in names]
        last = max(number for number, line in enumerate(lines) if line.startswith("| "))
        at = old[0] if old else last + 1
        kept = [line for line in lines[at:] if _name(line) not in names]
        lines[at:] = [_line(row) for row in part.listed] + kept
    page.write_text("\n".join(lines), encoding="utf-8")


def _name(line: str) -> str:
    return line.removeprefix("| ").partition(" | ")[0]


def _line(row: Row) -> str:
    cells = [row.name, f"{_number(median(row.ours))} {row.unit}"]
    cells += [f"{_number(median(row.reference))} {row.unit}" if row.reference else ""]
    cells += [row.reference_name, _ratio(row), str(row.target or "")]
    cells += ["" if row.met is None else "yes" if row.met else "**no**"]
    return f"| {' | '.join(cells)} |"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return _spread(row.ours)
    ratios = [a / b for a, b in zip(row.ours, row.reference, strict=True)]
    return f"{_number(row.ratio)} {_spread(ratios)}".strip()


def _spread(values: Sequence[float]) -> str:
    return f"({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"
