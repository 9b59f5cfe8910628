"""What the commands write: tables, blocks, JSON, figures."""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping

import click

from headrace.cli.text import printable

# Title, width and whether the text stands at the right, as the 2012 command had them.
COLUMNS = (
    ("ID", 36, False),
    ("Name", 30, False),
    ("Disk Format", 20, False),
    ("Container Format", 20, False),
    ("Size", 14, True),
)
KEYS = ("id", "name", "disk_format", "container_format", "size")

LABELS = {
    "id": "Id",
    "name": "Name",
    "status": "Status",
    "visibility": "Visibility",
    "protected": "Protected",
    "os_hidden": "Hidden",
    "size": "Size",
    "virtual_size": "Virtual size",
    "disk_format": "Disk format",
    "container_format": "Container format",
    "min_ram": "Minimum RAM required (MB)",
    "min_disk": "Minimum disk required (GB)",
    "owner": "Owner",
    "tags": "Tags",
    "checksum": "Checksum (MD5)",
    "os_hash_algo": "Hash algorithm",
    "os_hash_value": "Hash",
    "created_at": "Created at",
    "updated_at": "Updated at",
}
LINKS = frozenset({"self", "file", "schema"})
SEPARATOR = "=" * 80


def shown(value: object) -> str:
    """A value of a record in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, list):
        return ", ".join(sorted(map(shown, value)))
    return printable(str(value))


def table_head() -> str:
    titles = [_cell(title, width, right, cut=False) for title, width, right in COLUMNS]
    rules = ["-" * width for _, width, _ in COLUMNS]
    return f"{' '.join(titles).rstrip()}\n{' '.join(rules)}"


def table_row(image: Mapping[str, object], *, cut: bool) -> str:
    """One image; with ``cut`` what is wider than its column ends in an ellipsis."""
    cells = [
        _cell(shown(image.get(key)), width, right, cut=cut)
        for key, (_, width, right) in zip(KEYS, COLUMNS, strict=True)
    ]
    return " ".join(cells).rstrip()


def block(image: Mapping[str, object], uri: str) -> str:
    """All that is known of one image, a line each."""
    lines = [f"URI: {uri}"]
    lines += [f"{label}: {shown(image.get(key))}" for key, label in LABELS.items()]
    lines += [
        f"Property '{printable(key)}': {shown(image[key])}"
        for key in sorted(image.keys() - LABELS.keys() - LINKS)
    ]
    return "\n".join(line.rstrip() for line in lines)


def write(text: str) -> None:
    click.echo(text)


def write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=not _speaks_utf8()))


def note(text: str) -> None:
    """Tell the user something that is not the command's result."""
    click.echo(f"headrace: {text}", err=True)


def figures(verb: str, size: int, seconds: float, calls: int, how: str) -> str:
    """How a transfer went, in one line."""
    rate = size / seconds / 1e6 if seconds else 0.0
    return f"{verb} {size} bytes in {seconds:.2f} s ({rate:.1f} MB/s) by {how}, {calls} calls"


def on_terminal() -> bool:
    """Whether somebody reads the output as it comes, and can be asked."""
    return sys.stdout.isatty() and sys.stdin is not None and sys.stdin.isatty()


def rows_per_screen() -> int:
    """How many rows fit on the terminal below a table's head and above a question."""
    return max(shutil.get_terminal_size().lines - 4, 5)


def pages(rows: Iterable[str], rows_per_page: int | None) -> None:
    """Write ``rows`` as they come; after each full page ask whether to go on."""
    for number, row in enumerate(rows):
        if rows_per_page and number and number % rows_per_page == 0:
            click.echo("-- next page? [Y/n] ", err=True, nl=False)
            if sys.stdin.readline().strip().lower() not in {"", "y", "yes"}:
                return
        write(row)


def _cell(text: str, width: int, right: bool, *, cut: bool) -> str:
    if cut and len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
