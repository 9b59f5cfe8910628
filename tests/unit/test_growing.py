"""Growing: how much of a file may be sent while it is filled."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from headrace import errors
from headrace.transfer.growing import WHOLE, Growing, Standing
from tests import fills

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)
STALL = 30.0  # a hang guard, unless a test is about it

Opener = Callable[..., Growing]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "entry"


@pytest.fixture
def fill(path: Path) -> Iterator[fills.Fill]:
    with fills.Fill(path) as fill:
        yield fill


@pytest.fixture
def opened(path: Path, fill: fills.Fill) -> Iterator[Opener]:
    """Opens the file that is being filled."""
    with contextlib.ExitStack() as stack:

        def open_growing(stall: float = STALL, revive: Callable[[], None] | None = None) -> Growing:
            fd = os.open(path, os.O_RDONLY)
            growing = Growing(fd, SIZE, str(path), stall=stall, revive=revive)
            stack.callback(growing.close)
            return growing

        yield open_growing


@pytest.mark.parametrize(
    ("mode", "standing"),
    [
        (0o100600, Standing.UNDER_WAY),
        (0o100640, Standing.UNDER_WAY),
        (0o100200, Standing.UNDER_WAY),
        (0o100400, Standing.VERIFIED),
        (0o100440, Standing.VERIFIED),
        (0o100000, Standing.FAILED),
        (0o100044, Standing.FAILED),
    ],
)
def test_the_mode_says_how_a_fill_stands(mode: int, standing: Standing) -> None:
    assert Standing.of(mode) is standing


def test_what_has_landed_may_be_sent(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    assert growing.available() == 0
    fill.land(CONTENT[:300])
    assert growing.available() == 300
    assert growing.look() == 300


def test_the_last_byte_waits_for_the_verification(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    fill.land(CONTENT)
    assert growing.available() == SIZE - 1
    assert growing.grows
    fill.verify()
    assert growing.available() == SIZE
    assert not growing.grows
    assert growing.look() == WHOLE


def test_of_a_range_nothing_is_withheld(opened: Opener, fill: fills.Fill) -> None:
    last, first, whole = opened(), opened(), opened()
    last.narrow(SIZE - 100, 100)
    first.narrow(0, SIZE - 1)
    whole.narrow(0, SIZE)
    assert last.available() == 0
    fill.land(CONTENT[:-30])
    assert last.available() == 70
    fill.land(CONTENT[-30:])
    assert (last.available(), first.available()) == (100, SIZE - 1)
    assert whole.available() == SIZE - 1, "a range that is all of it is no range"


def test_once_whole_it_is_looked_at_no_more(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    fill.land(CONTENT)
    os.fchmod(fill.fd, 0o400)
    assert growing.available() == SIZE
    fill.fail()
    assert growing.available() == SIZE


def test_it_reads_what_lands_as_it_lands(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    fill.land(CONTENT[:300])
    assert growing.read(200) == CONTENT[:200]
    assert growing.read(200) == CONTENT[200:300], "what is there is not held back for more"
    Timer(0.1, fill.land, [CONTENT[300:]]).start()
    assert growing.read(10) == CONTENT[300:310]
    Timer(0.1, fill.verify).start()
    assert growing.read() == CONTENT[310:]
    assert growing.read(1) == growing.read() == b""
    assert growing.sent == SIZE


def test_waiting_has_an_end(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    fill.land(CONTENT[:10])
    assert growing.wait(10, 0.02) == 10
    assert growing.wait(9) == 10
    fill.land(CONTENT[10:])
    assert growing.wait(10) == SIZE - 1


def test_a_fill_given_up(opened: Opener, fill: fills.Fill) -> None:
    growing = opened()
    fill.land(CONTENT[:300])
    growing.read(200)
    fill.fail()
    with pytest.raises(errors.FillFailed) as caught:
        growing.read(200)
    assert caught.value.fields["moved"] == 200


@pytest.mark.parametrize("mode", [0o600, 0o400], ids=["under way", "whole"])
def test_a_file_that_has_become_shorter(opened: Opener, fill: fills.Fill, mode: int) -> None:
    growing = opened()
    fill.land(CONTENT[:300])
    growing.available()
    os.ftruncate(fill.fd, 299)
    os.fchmod(fill.fd, mode)
    with pytest.raises(errors.FillFailed, match="only 299 bytes"):
        growing.available()


def test_nothing_lands_for_too_long(opened: Opener, fill: fills.Fill) -> None:
    growing = opened(stall=0.2)
    fill.land(CONTENT[:300])
    time.sleep(0.3)
    assert growing.wait(0) == 300, "it has landed since the last look"
    started = time.monotonic()
    with pytest.raises(errors.FillFailed, match=r"nothing landed for 0\.2 s"):
        growing.wait(300)
    assert time.monotonic() - started >= 0.2


def test_who_fills_is_not_revived_while_alive(opened: Opener) -> None:
    revived: list[float] = []
    growing = opened(stall=0.4, revive=lambda: revived.append(time.monotonic()))
    with pytest.raises(errors.FillFailed):
        growing.wait(0)
    assert not revived


def test_who_is_gone_is_replaced(opened: Opener, fill: fills.Fill, path: Path) -> None:
    """However long ago that was: nobody looked meanwhile."""
    successors: list[fills.Fill] = []

    def revive() -> None:
        successor = fills.Fill(path)
        successors.append(successor)
        successor.land(CONTENT[successor.landed :])
        successor.verify()

    growing = opened(stall=0.2, revive=revive)
    fill.land(CONTENT[:300])
    assert growing.read(300) == CONTENT[:300]
    fill.abandon()
    time.sleep(0.3)
    assert growing.read() == CONTENT[300:]
    assert len(successors) == 1


def test_reviving_in_vain_has_an_end(opened: Opener, fill: fills.Fill) -> None:
    revived: list[float] = []
    growing = opened(stall=0.5, revive=lambda: revived.append(time.monotonic()))
    fill.abandon()
    with pytest.raises(errors.FillFailed, match="nothing landed"):
        growing.wait(0)
    assert 2 <= len(revived) <= 7, "not with every look"


def test_looking_for_the_lock_leaves_it_free(opened: Opener, fill: fills.Fill, path: Path) -> None:
    growing = opened(revive=lambda: None)
    fill.abandon()
    growing.wait(0, 0.15)
    fills.Fill(path).abandon()  # would hang
