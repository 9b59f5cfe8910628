"""What the commands write: tables, blocks, JSON, figures."""

import contextlib
import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from headrace.cli.text import printable
from headrace.errors import ClientError, Error

# Title, width and whether the text stands at the right; scripts may cut lines at these columns.
Columns = Sequence[tuple[str, int, bool]]
COLUMNS: Columns = (
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
PLACES = {"stores": "Stores", "direct_url": "Direct URL"}  # shown where the service tells them
LINKS = frozenset({"self", "file", "schema", "locations"})
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


def named(image: Mapping[str, object]) -> str:
    """An image by its id and its name."""
    return f"{shown(image['id'])} {shown(image.get('name'))}".rstrip()


def table_head(columns: Columns = COLUMNS) -> str:
    titles = [_cell(title, width, right, cut=False) for title, width, right in columns]
    rules = ["-" * width for _, width, _ in columns]
    return f"{' '.join(titles).rstrip()}\n{' '.join(rules)}"


def table_row(
    record: Mapping[str, object],
    *,
    cut: bool,
    columns: Columns = COLUMNS,
    keys: Sequence[str] = KEYS,
) -> str:
    """One record; with ``cut`` what is wider than its column ends in an ellipsis."""
    cells = [
        _cell(shown(record.get(key)), width, right, cut=cut)
        for key, (_, width, right) in zip(keys, columns, strict=True)
    ]
    return " ".join(cells).rstrip()


def block(image: Mapping[str, object], uri: str) -> str:
    """All that is known of one image, a line each."""
    lines = [f"URI: {printable(uri)}"]
    lines += [f"{label}: {shown(image.get(key))}" for key, label in LABELS.items()]
    lines += [f"{label}: {shown(image[key])}" for key, label in PLACES.items() if key in image]
    lines += [f"Location: {url}" for url in _urls(image.get("locations"))]
    lines += [
        f"Property '{printable(key)}': {shown(image[key])}"
        for key in sorted(image.keys() - LABELS.keys() - PLACES.keys() - LINKS)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _urls(locations: object) -> list[str]:
    found = locations if isinstance(locations, list) else []
    return [shown(each.get("url")) for each in found if isinstance(each, dict)]


def write(text: str) -> None:
    click.echo(text)


def write_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not (_speaks_utf8() and text.replace("\n", "").isprintable()):
        text = json.dumps(value, indent=2)
    click.echo(text)


def note(text: str) -> None:
    """Tell the user, in one line, something that is not the command's result."""
    with contextlib.suppress(OSError):  # what cannot be told must not undo what is done
        click.echo(f"headrace: {printable(' '.join(text.split()))}", err=True)


def told(error: Error) -> str:
    """An error's text, and its code unless it is this command's own."""
    return str(error) if isinstance(error, ClientError) else f"{error} [{error.code}]"


def figures(verb: str, size: int, seconds: float, calls: int, how: str) -> str:
    """How a transfer went, in one line."""
    rate = size / seconds / 1e6 if seconds else 0.0
    return f"{verb} {size} bytes in {seconds:.2f} s ({rate:.1f} MB/s) by {how}, {calls} calls"


def on_terminal() -> bool:
    """Whether somebody reads the output as it comes, and can be asked."""
    return sys.stdout.isatty() and sys.stdin is not None and sys.stdin.isatty()


def lines_per_screen() -> int:
    """How many lines fit on the terminal below a table's head and above a question."""
    return max(shutil.get_terminal_size().lines - 4, 5)


def pages(rows: Iterable[str], *, asking: bool) -> None:
    """Write ``rows`` as they come; with ``asking``, before each that the screen cannot hold."""
    screen = lines_per_screen()
    used = 0
    for row in rows:
        height = _height(row)
        if asking and used and used + height > screen:
            if not _goes_on():
                return
            used = 0
        used += height
        write(row)


def _goes_on() -> bool:
    click.echo("-- next page? [Y/n] ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D, which leaves the cursor where it is
        click.echo(err=True)
    return bool(answer) and answer.strip().lower() in {"", "y", "yes"}


def _height(row: str) -> int:
    """How many lines of the terminal ``row`` takes."""
    columns = shutil.get_terminal_size().columns
    return sum(max(math.ceil(len(line) / columns), 1) for line in row.splitlines())


def _cell(text: str, width: int, right: bool, *, cut: bool) -> str:
    if cut and len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
