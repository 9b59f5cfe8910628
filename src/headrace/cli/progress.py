"""The progress bar: drawn on a terminal only, told of bytes that other system calls have moved."""

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = Callable[[int], None]


@contextlib.contextmanager
def progress_bar(title: str, total: int | None, *, wanted: bool) -> Iterator[Progress | None]:
    """A callback for the bytes there so far; None, so that nothing is called, without a bar."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    # Only here: rich takes longer to load than most commands take to run.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
