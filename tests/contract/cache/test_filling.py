"""How an entry is filled: from where it is, until it is what its image's record says."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from headrace import errors
from headrace.cache import filling
from headrace.cache.directory import Directory
from headrace.cache.filling import Fill, Outcome
from headrace.transfer.engine import How, Source, Stream, counters
from tests.contract.cache.caching import (
    KIB,
    begin,
    bringing,
    broken,
    content,
    expected,
    gone,
    image,
    lies_in,
    read,
)

ONE = image(1)
SIZE = 90 * KIB
DATA = content(ONE, SIZE)
EXPECTED = expected(ONE, SIZE)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(filling, "BACKOFF_S", (0.0,) * len(filling.BACKOFF_S))


def test_the_end_is_told(directory: Directory) -> None:
    told: list[tuple[int, Outcome]] = []
    entry = begin(directory, ONE, SIZE)
    fill = Fill(
        entry, EXPECTED, bringing(DATA), checksum="d41d8", ended=lambda *end: told.append(end)
    )
    fill.start()
    assert fill.join(60)
    assert told == [(SIZE, Outcome.WHOLE)]
    assert read(directory, ONE, SIZE) == DATA
    assert [each.checksum for each in directory.cached()] == ["d41d8"]


def test_what_breaks_off_is_asked_for_from_there(directory: Directory) -> None:
    asked: list[int] = []

    def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
        asked.append(offset)
        return broken([DATA[offset : offset + 30 * KIB], gone()])

    assert Fill(begin(directory, ONE, SIZE), EXPECTED, fetch).run() is Outcome.WHOLE
    assert asked == [0, 30 * KIB, 60 * KIB]
    assert read(directory, ONE, SIZE) == DATA


def test_what_ends_too_soon_is_asked_for_from_there(directory: Directory) -> None:
    def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
        return broken([DATA[offset : offset + 50 * KIB]])

    assert Fill(begin(directory, ONE, SIZE), EXPECTED, fetch).run() is Outcome.WHOLE
    assert read(directory, ONE, SIZE) == DATA


def test_an_origin_that_brings_nothing_is_given_up(directory: Directory) -> None:
    asked: list[int] = []

    def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
        asked.append(offset)
        raise errors.ServiceUnavailable(reason="an origin does not answer")

    entry = begin(directory, ONE, SIZE)
    fd = directory.follow(ONE)
    assert fd is not None
    assert Fill(entry, EXPECTED, fetch).run() is Outcome.BROKEN
    assert len(asked) == len(filling.BACKOFF_S) + 1
    assert os.fstat(fd).st_mode & 0o777 == 0
    os.close(fd)
    directory.clean()
    assert lies_in(directory) == set()


@pytest.mark.parametrize("flaw", ["another byte", "a byte more"])
def test_wrong_bytes_never_become_an_entry(directory: Directory, flaw: str) -> None:
    wrong = DATA + b"x" if flaw == "a byte more" else DATA[:-1] + bytes([DATA[-1] ^ 1])
    fill = Fill(begin(directory, ONE, SIZE), EXPECTED, bringing(wrong))
    assert fill.run() is Outcome.WRONG
    assert isinstance(fill.failure, errors.DataCorrupt)
    assert read(directory, ONE, SIZE) is None
    assert lies_in(directory) == set()


def test_the_size_is_what_an_image_without_a_hash_is_known_by(directory: Directory) -> None:
    unhashed = replace(EXPECTED, algorithm=None, digest="")
    assert Fill(begin(directory, ONE, SIZE), unhashed, bringing(DATA)).run() is Outcome.WHOLE
    assert read(directory, ONE, SIZE) == DATA


def test_a_dead_fillers_bytes_are_hashed_as_well(directory: Directory) -> None:
    asked: list[int] = []
    for start, outcome in ((DATA[: 40 * KIB], Outcome.WHOLE), (b"x" * 40 * KIB, Outcome.WRONG)):
        entry = begin(directory, ONE, SIZE)
        os.write(entry.fd, start)
        entry.leave()
        heir = begin(directory, ONE, SIZE)
        assert Fill(heir, EXPECTED, bringing(DATA, asked.append)).run() is outcome
        directory.delete(ONE)
    assert asked == [40 * KIB] * 2


def test_nothing_is_fetched_when_all_has_landed(directory: Directory) -> None:
    asked: list[int] = []
    entry = begin(directory, ONE, SIZE)
    os.write(entry.fd, DATA)
    assert Fill(entry, EXPECTED, bringing(DATA, asked.append)).run() is Outcome.WHOLE
    assert asked == []


def test_an_image_that_is_removed_is_not_fetched_any_more(directory: Directory) -> None:
    def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
        directory.delete(ONE)
        return broken([DATA[: 10 * KIB], gone()])

    assert Fill(begin(directory, ONE, SIZE), EXPECTED, fetch).run() is Outcome.REMOVED
    directory.clean()
    assert lies_in(directory) == set()


@pytest.mark.parametrize("origin", ["socket", "silent"])
def test_a_stop_leaves_what_has_landed_to_another(directory: Directory, origin: str) -> None:
    """Also while it waits for an origin that says nothing."""
    here, there = socket.socketpair()
    with here, there:
        waiting = threading.Event()

        def pieces() -> Iterator[Source]:
            yield DATA[: 20 * KIB]
            waiting.set()
            yield Stream(here.fileno(), SIZE - 20 * KIB)

        def fetch(_: int) -> AbstractContextManager[Iterable[Source]]:
            return contextlib.nullcontext(pieces())

        fill = Fill(begin(directory, ONE, SIZE), EXPECTED, fetch)
        fill.start()
        assert waiting.wait(60)
        if origin == "socket":
            there.sendall(DATA[20 * KIB : 30 * KIB])
        fill.stop()
        assert fill.join(60)
    heir = begin(directory, ONE, SIZE)
    landed = heir.landed
    assert 20 * KIB <= landed <= 30 * KIB
    assert Fill(heir, EXPECTED, bringing(DATA)).run() is Outcome.WHOLE
    assert read(directory, ONE, SIZE) == DATA


def test_a_plain_socket_is_spliced(directory: Directory) -> None:
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=there.sendall, args=(DATA,))
        sender.start()

        def fetch(offset: int) -> AbstractContextManager[Iterable[Source]]:
            return contextlib.nullcontext([Stream(here.fileno(), SIZE - offset)])

        before = counters().bytes[How.SPLICE]
        assert Fill(begin(directory, ONE, SIZE), EXPECTED, fetch).run() is Outcome.WHOLE
        assert counters().bytes[How.SPLICE] - before == SIZE
        sender.join()


def test_it_ends_on_a_disk_that_takes_nothing_any_more(directory: Directory) -> None:
    """Not even a mode."""
    told: list[tuple[int, Outcome]] = []
    entry = begin(directory, ONE, SIZE)
    refusing = os.open(os.path.join(directory.path, "incomplete", ONE), os.O_PATH)
    os.dup2(refusing, entry.fd)  # fchmod and write say EBADF of such a descriptor
    os.close(refusing)
    fill = Fill(entry, EXPECTED, bringing(DATA), ended=lambda *end: told.append(end))
    assert fill.run() is Outcome.BROKEN
    assert told == [(0, Outcome.BROKEN)]


def test_a_stop_cuts_no_connection_of_others(directory: Directory) -> None:
    """The descriptor of a socket that was brought from is soon another's."""
    mine, yours = socket.socketpair()
    fd = os.dup(mine.fileno())

    @contextlib.contextmanager
    def fetch(_: int) -> Iterator[Iterable[Source]]:
        here, there = socket.socketpair()
        os.dup2(here.fileno(), fd)
        here.close()
        with there:
            there.sendall(DATA[: 10 * KIB])
        try:
            yield [Stream(fd, SIZE)]
        finally:
            os.dup2(mine.fileno(), fd)
            fill.stop()

    with mine, yours:
        fill = Fill(begin(directory, ONE, SIZE), EXPECTED, fetch)
        assert fill.run() is Outcome.LEFT
        yours.sendall(b"still here")
        assert mine.recv(100) == b"still here"
    os.close(fd)
