"""headrace top: the transfers under way, as they go."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.session import Seconds, ServiceCommand, Session
from headrace.cli.text import printable
from headrace.errors import ClientError, Error, NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.client import Connection

PATH = "/metrics/transfers"
_KEY = "process", "number"  # what tells a transfer from all others
_SIGNS = {"download": "↓", "upload": "↑", "import": "⇣"}


@dataclass(frozen=True)
class Going:
    """A transfer under way: sizes in bytes, rate in bytes a second, times in seconds.

    ``size`` and ``eta`` are None where the size is not known, ``eta`` also where nothing moves.
    """

    image: str
    name: str | None
    client: str
    direction: str
    way: str
    size: int | None
    moved: int
    seconds: float
    rate: float
    eta: float | None


class Observer:
    """Asks again and again; a rate is that since the last time, at first that since the start."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._before: dict[tuple[Any, ...], tuple[float, int]] = {}

    def look(self) -> list[Going]:
        """What is under way, the fastest first.  Raises the service's errors and ClientError."""
        try:
            answer = self._connection.request("GET", PATH).json()
        except NotFound as error:
            raise ClientError(
                reason="the service shows no transfers here: its setting 'metrics' is off, or has "
                "an address of its own, to be given as --url"
            ) from error
        now = time.monotonic()
        found = answer.get("transfers")
        if not isinstance(found, list):
            raise ClientError(reason="the answer holds no transfers")
        before, self._before = self._before, {}
        going = []
        for each in found:
            key = tuple(each[name] for name in _KEY)
            self._before[key] = now, each["moved"]
            going.append(_going(each, now, *before.get(key, (now - each["seconds"], 0))))
        return sorted(going, key=lambda each: each.rate, reverse=True)


def _going(flight: dict[str, Any], now: float, since: float, moved: int) -> Going:
    rate = max(flight["moved"] - moved, 0) / max(now - since, 1e-3)
    size = flight["size"]
    left = None if size is None or not rate else (size - flight["moved"]) / rate
    kept = {name: value for name, value in flight.items() if name not in _KEY}
    return Going(**kept, rate=round(rate, 1), eta=None if left is None else round(left, 1))


@click.command(cls=ServiceCommand)
@click.option(
    "-i",
    "--interval",
    type=Seconds(min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait before looking again.",
)
@click.option("-1", "--once", is_flag=True, help="Look once: the rates are those since the start.")
@click.pass_obj
def top(session: Session, *, interval: float, once: bool) -> None:
    """Watch the transfers under way.

    Image, client, way, rate and time left of each, the fastest first.  Ways are sendfile, splice
    and copy; of a transfer in the hands of another server, host or offloaded; of an import, its
    method.  q or Ctrl-C ends it.
    Without a terminal, and with --json, it looks once.

    The service shows them to programs of its own machine; its setting 'metrics' is who else may
    see them, and where.
    """
    observer = Observer(session.connection(session.timeout))
    if session.as_json:
        output.write_json([asdict(each) for each in observer.look()])
    elif once or not sys.stdout.isatty():
        from rich.console import Console

        width = None if sys.stdout.isatty() else 160
        Console(width=width).print(_view(observer.look(), None))
    else:
        _watch(observer, interval)


def _watch(observer: Observer, interval: float) -> None:
    """Show them on the whole terminal until somebody has seen enough."""
    from rich.console import Console
    from rich.live import Live

    going = observer.look()
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys() as enough:
        trouble = ""
        while True:
            live.update(_view(going, max(console.height - 4, 1), trouble), refresh=True)
            if enough(interval):
                return
            try:
                going, trouble = observer.look(), ""
            except Error as error:  # the service may be starting again
                trouble = output.told(error)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """``enough(seconds)``: whether q was pressed within them."""
    if not (sys.stdin and sys.stdin.isatty()):

        def wait(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield wait
        return
    fd = sys.stdin.fileno()

    def enough(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([fd], [], [], left)[0]:
                pressed = os.read(fd, 64)
                if not pressed or b"q" in pressed.lower():
                    return True
        return False

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd, termios.TCSADRAIN)  # what was typed before counts
    try:
        yield enough
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _view(going: list[Going], most: int | None, trouble: str = "") -> "RenderableType":
    """The table of ``most`` rows, below a line of totals."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    for title in ("IMAGE", "NAME", "CLIENT", "", "WAY"):
        table.add_column(title, no_wrap=True)
    for title in ("SIZE", "DONE", "RATE", "TIME LEFT"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in going[:most]:
        table.add_row(*map(Text, _row(each)))
    lines: list[RenderableType] = [Text(_totals(going), style="bold"), table]
    if most is not None and len(going) > most:
        lines.append(Text(f"… and {len(going) - most} more", style="dim"))
    if trouble:
        lines.append(Text(printable(trouble), style="red"))
    return Group(*lines)


def _row(each: Going) -> tuple[str, ...]:
    from rich.filesize import decimal

    done = f"{each.moved / each.size:.0%}" if each.size else decimal(each.moved)
    return (
        each.image,
        printable(each.name or ""),
        printable(each.client),
        _SIGNS.get(each.direction, ""),
        printable(each.way),
        "" if each.size is None else decimal(each.size),
        done,
        f"{decimal(int(each.rate))}/s",
        "" if each.eta is None else _clock(each.eta),
    )


def _totals(going: list[Going]) -> str:
    from rich.filesize import decimal

    parts = []
    for direction, word in (("download", "down"), ("upload", "up")):
        rates = [each.rate for each in going if each.direction == direction]
        parts.append(f"{len(rates)} {word} {decimal(int(sum(rates)))}/s")
    if imports := sum(each.direction == "import" for each in going):
        parts.append(f"{imports} importing")
    ways = Counter(each.way for each in going)
    parts += [f"{number} by {printable(way)}" for way, number in sorted(ways.items())]
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
