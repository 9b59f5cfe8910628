"""The near end's clients: processes that are made ready, and begin at one word."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess

from headrace.bench.transfers import GRACE, UNHURRIED
from headrace.errors import ClientError

Live = Callable[[Pipe, int], None]
"""What such a process does, by its number: it says None when it is ready, awaits the word, and says
what it found, or as a text why it could not."""


class Child:
    """A client's process, as its parent sees it."""

    def __init__(self, process: BaseProcess, pipe: Pipe) -> None:
        self._process = process
        self._pipe = pipe
        assert process.pid is not None
        self.pid = process.pid

    def go(self, word: object = None) -> None:
        with contextlib.suppress(OSError):  # it is gone: hear() says so
            self._pipe.send(word)

    def hear(self, patience: float | None) -> object:
        """What it says within so many seconds; raises ClientError with what went wrong."""
        try:
            if not self._pipe.poll(patience):
                raise ClientError(reason="a client of the measurement does not come to an end")
            said = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ClientError(reason="a client of the measurement died") from error
        if isinstance(said, str):
            raise ClientError(reason=said)
        return said

    def end(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join(GRACE + 2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextlib.contextmanager
def children(count: int, live: Live) -> Iterator[list[Child]]:
    """Processes that are ready and wait for the word to go."""
    fork = multiprocessing.get_context("fork")
    found: list[Child] = []
    try:
        for number in range(count):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_run, args=(live, theirs, number), daemon=True)
            process.start()
            theirs.close()
            found.append(Child(process, ours))
        for child in found:
            child.hear(UNHURRIED)
        yield found
    finally:
        for child in found:
            child.end()


def _run(live: Live, pipe: Pipe, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    live(pipe, number)


def await_word(pipe: Pipe) -> object:
    """The word to go; EOFError once nobody is there to say it, whatever ended the parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not pipe.poll(1.0):
        if not parent.is_alive():
            raise EOFError
    return pipe.recv()
