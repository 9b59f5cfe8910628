"""Who is woken when a file has grown."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace import errors
from headrace.server.growths import Growths
from headrace.transfer.growing import Growing
from headrace.transfer.outgoing import Outgoing
from tests.fills import Fill

KIB = 1 << 10
SIZE = 4096 * KIB
LONG = 1.0  # seconds in which whoever waits has waited enough


@dataclass(eq=False)
class Download:
    outgoing: Outgoing

    def send(self) -> None:
        while self.outgoing.turn(SIZE):
            pass

    def close(self) -> None:
        self.outgoing.extent.close()


Begin = Callable[..., Download]


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Fill]:
    with Fill(tmp_path / "entry") as fill:
        yield fill


@pytest.fixture
def begin(tmp_path: Path, fill: Fill) -> Iterator[Begin]:
    """Begins a download from the one descriptor, into a socket that takes all of it."""
    with contextlib.ExitStack() as stack:
        fd = os.open(tmp_path / "entry", os.O_RDONLY)
        sink = stack.enter_context((tmp_path / "sink").open("wb"))
        stack.callback(os.close, fd)

        def begin(offset: int = 0, length: int = 0) -> Download:
            growing = Growing(fd, SIZE, stall=30)
            growing.borrow(fd, lambda fd: None)
            growing.narrow(offset, length or SIZE - offset)
            download = Download(Outgoing(growing, sink.fileno()))
            download.send()
            return download

        yield begin


def woken(growths: Growths[Download], now: float) -> list[Download]:
    return [download for download, error in growths.look(now) if error is None]


def test_a_little_is_waited_with_and_much_is_not(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    fill.land(bytes(KIB))
    first, second = begin(), begin()
    growths.add(first, 0)
    growths.add(second, 0)
    assert woken(growths, 0.005) == []
    fill.land(bytes(KIB))
    assert woken(growths, 0.010) == []
    fill.land(bytes(1022 * KIB))
    assert woken(growths, 0.015) == []
    fill.land(bytes(KIB))
    assert woken(growths, 0.020) == [first, second]
    assert woken(growths, LONG) == [], "they wait no more"
    for each in (first, second):
        each.send()
        assert each.outgoing.offset == 1025 * KIB
        growths.add(each, LONG)
    fill.land(b"x")
    assert woken(growths, LONG + 0.005) == []
    assert woken(growths, LONG + 0.3) == [first, second]


def test_the_first_bytes_are_not_waited_with(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    fill.land(b"x")
    first = begin()
    growths.add(first, 0)
    newcomer = begin(1)
    growths.add(newcomer, 0)
    assert woken(growths, 0.005) == []
    fill.land(b"x")
    assert woken(growths, 0.010) == [first, newcomer]


def test_who_wants_what_comes_later_goes_on_waiting(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    later, first = begin(2048 * KIB, KIB), begin()
    growths.add(later, 0)
    growths.add(first, 0)
    fill.land(bytes(1024 * KIB))
    assert woken(growths, 0.01) == [first]
    fill.land(bytes(1024 * KIB))
    assert woken(growths, 0.02) == []
    fill.land(bytes(KIB))
    assert woken(growths, LONG) == [later]
    later.send()
    assert later.outgoing.left == 0


def test_who_knows_less_than_others_is_woken_though_nothing_lands(begin: Begin, fill: Fill) -> None:
    """It began when less had landed, and took its time."""
    growths: Growths[Download] = Growths()
    late = begin()
    fill.land(bytes(KIB))
    up_to_date = begin()
    growths.add(up_to_date, 0)
    assert woken(growths, 0.01) == []
    growths.add(late, 0.02)
    assert woken(growths, LONG) == [late]


def test_all_learn_of_the_end(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    downloads = [begin() for _ in range(3)]
    fill.land(bytes(SIZE))
    for each in downloads:
        growths.add(each, 0)
    for each in woken(growths, 0.01):
        each.send()
        assert each.outgoing.left == 1
        growths.add(each, 0.01)
    assert woken(growths, LONG) == []
    fill.verify()
    assert woken(growths, LONG + 0.01) == downloads
    for each in downloads:
        each.send()
        assert each.outgoing.left == 0
        assert each.outgoing.growing is None


def test_all_learn_of_the_failure_but_who_has_left(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    downloads = [begin() for _ in range(3)]
    for each in downloads:
        growths.add(each, 0)
    downloads[0].close()
    fill.fail()
    found = growths.look(0.01)
    assert [download for download, _ in found] == downloads[1:]
    assert all(isinstance(error, errors.FillFailed) for _, error in found)
    assert growths.look(0.02) == []


def test_nobody_is_looked_after_when_all_have_left(begin: Begin, fill: Fill) -> None:
    growths: Growths[Download] = Growths()
    download = begin()
    growths.add(download, 0)
    assert growths.due == pytest.approx(0.005)
    download.close()
    assert growths.look(0.01) == []
    assert growths.due == float("inf")
