"""What a cache's directory promises, to threads and processes that share it."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import errors
from headrace.cache import entry as entries
from headrace.cache.directory import Directory
from headrace.cache.filling import Outcome
from headrace.cache.handed import Handed
from headrace.cache.index import Index
from tests.contract.cache.caching import KIB, begin, content, fill, image, lies_in, read
from tests.needs import require_root

ONE, TWO, THREE, FOUR = map(image, range(1, 5))
SIZE = 30 * KIB
GUARD = 60.0  # seconds; a hang guard


def age(directory: Directory, image_id: str, seconds: int) -> None:
    """Have the last access be so long ago."""
    path = os.path.join(directory.path, image_id)
    os.utime(path, (time.time() - seconds, os.stat(path).st_mtime))


def reservations(directory: Directory) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(os.path.join(directory.path, "cache.db"))) as index:
        return dict(index.execute("SELECT image_id, size FROM headrace_reservations"))


def test_what_is_filled_is_found(directory: Directory) -> None:
    assert read(directory, ONE, SIZE) is None
    assert fill(directory, ONE, SIZE) is Outcome.WHOLE
    assert read(directory, ONE, SIZE) == content(ONE, SIZE)
    (cached,) = directory.cached()
    assert (cached.image_id, cached.size, cached.hits) == (ONE, SIZE, 0)
    assert lies_in(directory) == {ONE}
    assert reservations(directory) == {}


def test_a_whole_entry_may_not_be_written(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    mode = os.stat(os.path.join(directory.path, ONE)).st_mode
    assert not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def test_an_entry_of_another_size_is_not_the_images(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    assert directory.open(ONE, SIZE + 1) is None
    assert fill(directory, ONE, SIZE + 1) is Outcome.WHOLE
    assert read(directory, ONE, SIZE + 1) == content(ONE, SIZE + 1)
    assert lies_in(directory) == {ONE}


@pytest.mark.parametrize("name", ["../passwd", "", "cache.db", f"{ONE}/.", "incomplete"])
def test_only_ids_become_names(directory: Directory, name: str) -> None:
    with pytest.raises(errors.BadRequest):
        directory.open(name, SIZE)
    with pytest.raises(errors.BadRequest):
        directory.begin(name, SIZE)


def test_one_fills_and_others_follow(directory: Directory) -> None:
    entry = begin(directory, ONE, SIZE)
    assert directory.begin(ONE, SIZE) is None
    os.write(entry.fd, b"landed")
    fd = directory.follow(ONE)
    assert fd is not None
    assert os.fstat(fd).st_size == len(b"landed")
    os.close(fd)
    entry.discard()
    assert directory.follow(ONE) is None
    assert lies_in(directory) == set()


def test_what_is_open_in_any_way_is_not_evicted(directory: Directory) -> None:
    """A server in front opens it by its name, and knows of no lock."""
    fill(directory, ONE, SIZE)
    smaller = Directory(directory.path, 0)
    with open(os.path.join(directory.path, ONE), "rb"):
        assert smaller.prune() == (0, 0)
        assert directory.delete(ONE)
        assert ONE not in lies_in(directory)
        assert directory.clean() == 0
        assert directory.used() == SIZE
    assert directory.clean() == 1
    assert directory.used() == 0


def test_a_link_that_is_open_keeps_no_entry(directory: Directory, tmp_path: Path) -> None:
    """Its room is taken whatever becomes of the entry."""
    fill(directory, ONE, SIZE)
    os.link(os.path.join(directory.path, ONE), tmp_path / "disk")
    with (tmp_path / "disk").open("rb"):
        assert Directory(directory.path, 0).prune() == (1, SIZE)


def hand_over(directory: Directory, handing: Handed) -> None:
    found = directory.open(ONE, SIZE)
    assert found is not None
    handing.add(ONE, found.fd)
    found.close()


def test_what_was_handed_to_a_front_stays_for_a_while(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    smaller, handing = Directory(directory.path, 0), Handed(seconds=GUARD)
    for _ in range(2):
        hand_over(directory, handing)
    handing.let_go()
    assert smaller.prune() == (0, 0)
    handing.let_go(everything=True)  # or its descriptor would outlast the test


def test_what_was_handed_over_goes_when_it_must_have_been_opened(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    handing = Handed(seconds=0)
    hand_over(directory, handing)
    handing.let_go()
    assert Directory(directory.path, 0).prune() == (1, SIZE)


def test_what_was_handed_over_is_let_go_of_at_the_end(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    handing = Handed(seconds=GUARD)
    hand_over(directory, handing)
    handing.let_go(everything=True)
    assert Directory(directory.path, 0).prune() == (1, SIZE)


def test_a_dead_fillers_entry_is_taken_over(directory: Directory) -> None:
    entry = begin(directory, ONE, SIZE)
    os.write(entry.fd, b"landed")
    entry.leave()
    heir = begin(directory, ONE, SIZE)
    assert heir.landed == len(b"landed")
    heir.discard()


def test_an_entry_that_is_longer_than_its_image_is_begun_anew(directory: Directory) -> None:
    entry = begin(directory, ONE, SIZE)
    os.write(entry.fd, b"x" * SIZE)
    entry.leave()
    heir = begin(directory, ONE, SIZE - 1)
    assert heir.landed == 0
    heir.discard()
    assert lies_in(directory) == set()


def test_what_has_no_name_yet_is_verified_again(directory: Directory) -> None:
    """The filler died between the mode and the name."""
    entry = begin(directory, ONE, SIZE)
    os.write(entry.fd, b"x" * SIZE)
    os.fchmod(entry.fd, entries.WHOLE)
    assert directory.begin(ONE, SIZE) is None
    entry.leave()
    heir = begin(directory, ONE, SIZE)
    assert (heir.landed, heir.wanted) == (SIZE, True)
    heir.discard()


def test_room_is_reserved_before_a_byte_lands(directory: Directory) -> None:
    first = begin(directory, ONE, 60 * KIB)
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 60 * KIB)
    second = begin(directory, TWO, 40 * KIB)
    with pytest.raises(errors.StoreFull):
        directory.begin(THREE, 1)
    first.discard()
    begin(directory, THREE, 60 * KIB).discard()
    second.discard()
    assert lies_in(directory) == set()


def test_what_is_bigger_than_the_cache_never_gets_in(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 100 * KIB + 1)
    assert lies_in(directory) == {ONE}


def test_the_least_recently_used_is_evicted(directory: Directory) -> None:
    for image_id, seconds in ((ONE, 30), (TWO, 50), (THREE, 40)):
        fill(directory, image_id, SIZE)
        age(directory, image_id, seconds)
    assert read(directory, TWO, SIZE) is not None  # used just now
    fill(directory, FOUR, SIZE)
    assert lies_in(directory) == {ONE, TWO, FOUR}
    assert {each.image_id for each in directory.cached()} == {ONE, TWO, FOUR}
    assert directory.used() == 3 * SIZE


def test_what_is_sent_from_is_not_evicted(directory: Directory) -> None:
    for image_id, seconds in ((ONE, 50), (TWO, 40), (THREE, 30)):
        fill(directory, image_id, SIZE)
        age(directory, image_id, seconds)
    pinned = directory.open(ONE, SIZE)
    assert pinned is not None
    age(directory, ONE, 50)
    fill(directory, FOUR, SIZE)
    assert lies_in(directory) == {ONE, THREE, FOUR}
    pinned.close()


def test_nothing_is_evicted_for_what_does_not_fit_anyway(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    fill(directory, TWO, SIZE)
    pinned = directory.open(ONE, SIZE)
    assert pinned is not None
    with pytest.raises(errors.StoreFull):
        directory.begin(THREE, 80 * KIB)
    pinned.close()
    assert lies_in(directory) == {ONE, TWO}


def test_who_followed_an_entry_pins_it_when_it_is_whole(directory: Directory) -> None:
    entry = begin(directory, ONE, 60 * KIB)
    fd = directory.follow(ONE)
    assert fd is not None
    os.write(entry.fd, content(ONE, 60 * KIB))
    assert entry.publish()
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 60 * KIB)
    os.close(fd)
    begin(directory, TWO, 60 * KIB).discard()


def test_a_dead_fillers_room_is_given_to_others(directory: Directory) -> None:
    entry = begin(directory, ONE, 60 * KIB)
    fd = directory.follow(ONE)
    assert fd is not None
    entry.leave()
    with pytest.raises(errors.StoreFull):  # somebody waits for it to be taken over
        directory.begin(TWO, 60 * KIB)
    os.close(fd)
    begin(directory, TWO, 60 * KIB).discard()
    assert lies_in(directory) == set()


def test_a_removed_entry_holds_its_room_until_nobody_sends_from_it(directory: Directory) -> None:
    fill(directory, ONE, 60 * KIB)
    pinned = directory.open(ONE, 60 * KIB)
    assert pinned is not None
    assert directory.delete(ONE)
    assert directory.open(ONE, 60 * KIB) is None
    assert directory.used() == 60 * KIB
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 60 * KIB)
    assert pinned.read() == content(ONE, 60 * KIB)
    pinned.close()
    begin(directory, TWO, 60 * KIB).discard()
    assert lies_in(directory) == set()


def test_an_entry_that_is_removed_while_it_is_filled_is_not_published(
    directory: Directory,
) -> None:
    entry = begin(directory, ONE, SIZE)
    fd = directory.follow(ONE)
    assert fd is not None
    assert directory.delete(ONE)
    assert not entry.wanted
    assert entries.state(os.fstat(fd)) is entries.State.FAILED
    assert not entry.publish()
    assert directory.open(ONE, SIZE) is None
    os.close(fd)
    directory.clean()
    assert lies_in(directory) == set()


@pytest.mark.parametrize("again", [False, True])
def test_an_entry_that_is_removed_while_it_is_filled_keeps_what_it_was_promised(
    directory: Directory, again: bool
) -> None:
    """Its filler lands more before it looks; so, too, when somebody died who removed it.

    Others than root cannot open what failed, and take it for free.
    """
    require_root()
    entry = begin(directory, ONE, 60 * KIB)
    os.pwrite(entry.fd, b"x" * KIB, 0)
    if again:
        os.fchmod(entry.fd, entries.FAILED)
        begin(directory, ONE, 10 * KIB).discard()
    else:
        assert directory.delete(ONE)
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 60 * KIB)
    directory.clean()
    with pytest.raises(errors.StoreFull):
        directory.begin(TWO, 60 * KIB)
    entry.leave()
    begin(directory, TWO, 60 * KIB).discard()
    directory.clean()
    assert lies_in(directory) == set()
    with Index(os.path.join(directory.path, "cache.db")).alone() as ledger:
        assert ledger.reservations() == {}


def test_followers_of_a_bad_fill_see_that_it_failed(directory: Directory) -> None:
    entry = begin(directory, ONE, SIZE)
    fd = directory.follow(ONE)
    assert fd is not None
    entry.discard()
    assert entries.state(os.fstat(fd)) is entries.State.FAILED
    os.close(fd)
    assert directory.clean() == 1
    assert lies_in(directory) == set()


def test_cleaning_spares_what_somebody_fills_or_follows(directory: Directory) -> None:
    filling = begin(directory, ONE, SIZE)
    begin(directory, TWO, SIZE).leave()
    begin(directory, THREE, SIZE).leave()
    fd = directory.follow(TWO)
    assert fd is not None
    assert directory.clean(dead_for=60) == 0
    assert directory.clean() == 1
    assert lies_in(directory) == {f"incomplete/{ONE}", f"incomplete/{TWO}"}
    assert set(reservations(directory)) == {ONE, TWO}
    os.close(fd)
    filling.discard()
    assert directory.clean() == 1
    assert lies_in(directory) == set()
    assert reservations(directory) == {}


def test_cleaning_removes_what_nobody_verified(directory: Directory) -> None:
    """As Glance leaves it, or a copy of the directory."""
    path = Path(directory.path, ONE)
    path.write_bytes(b"x" * SIZE)
    assert directory.open(ONE, SIZE) is None
    assert directory.cached() == []
    assert directory.clean() == 1
    assert not path.exists()


def test_links_are_not_followed(directory: Directory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * SIZE)
    secret.chmod(0o400)
    for part in ("", "incomplete"):
        Path(directory.path, part, ONE).symlink_to(secret)
    assert directory.open(ONE, SIZE) is None
    assert directory.follow(ONE) is None
    directory.clean()
    directory.delete(ONE)
    assert secret.read_bytes() == b"s" * SIZE
    assert stat.S_IMODE(secret.stat().st_mode) == 0o400


def test_the_index_is_made_from_the_files(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    directory.add_hits({ONE: 3})
    os.unlink(os.path.join(directory.path, "cache.db"))
    again = Directory(directory.path, directory.max_size)
    again.clean()
    assert [(each.image_id, each.size, each.hits) for each in again.cached()] == [(ONE, SIZE, 0)]
    fill(again, TWO, SIZE)
    os.unlink(os.path.join(directory.path, ONE))
    again.clean()
    assert [each.image_id for each in again.cached()] == [TWO]


def test_an_index_that_is_none_is_made_anew(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    Path(directory.path, "cache.db").write_bytes(b"no database" * 1000)
    again = Directory(directory.path, directory.max_size)
    assert read(again, ONE, SIZE) == content(ONE, SIZE)
    assert fill(again, TWO, SIZE) is Outcome.WHOLE


def test_an_index_that_a_power_cut_damaged_is_made_anew(directory: Directory) -> None:
    """Of which the schema is what it was."""
    fill(directory, ONE, SIZE)
    path = Path(directory.path, "cache.db")
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    path.write_bytes(data[:page] + b"?" * (len(data) - page))
    Path(f"{path}-journal").write_bytes(b"of the index that was")
    again = Directory(directory.path, directory.max_size)
    assert read(again, ONE, SIZE) == content(ONE, SIZE)
    assert fill(again, TWO, SIZE) is Outcome.WHOLE
    again.clean()
    assert {each.image_id for each in again.cached()} == {ONE, TWO}
    assert not os.path.exists(f"{path}-journal")


def test_a_cache_that_glance_made(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "cache.db")) as index:
        index.execute(
            "CREATE TABLE cached_images (image_id TEXT PRIMARY KEY, last_accessed REAL, "
            "last_modified REAL, size INTEGER, hits INTEGER, checksum TEXT)"
        )
    directory = Directory(tmp_path / "cache", 100 * KIB)
    assert fill(directory, ONE, SIZE) is Outcome.WHOLE
    directory.add_hits({ONE: 2, TWO: 1})
    assert [each.hits for each in directory.cached()] == [2]


def test_pruning_makes_it_fit(directory: Directory) -> None:
    for image_id, seconds in ((ONE, 50), (TWO, 40), (THREE, 30)):
        fill(directory, image_id, SIZE)
        age(directory, image_id, seconds)
    assert directory.prune() == (0, 0)
    assert Directory(directory.path, 40 * KIB).prune() == (2, 2 * SIZE)
    assert lies_in(directory) == {THREE}


def test_a_whole_file_is_adopted(directory: Directory, tmp_path: Path) -> None:
    """What was made beside the entries becomes one, within the bound, and only once."""
    for number in (1, 2):
        assert fill(directory, image(number), 40 * KIB) is Outcome.WHOLE
    os.utime(os.path.join(directory.path, image(2)), ns=(0, 0))
    made = os.path.join(directory.path, "made")
    fd = os.open(made, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.write(fd, content(image(3), 50 * KIB))
        adopted = directory.adopt(image(3), made, fd)
        assert adopted is not None
        assert adopted.publish()
        assert directory.adopt(image(3), made, fd) is None
    finally:
        os.close(fd)
    assert lies_in(directory) == {image(1), image(3)}
    assert read(directory, image(3), 50 * KIB) == content(image(3), 50 * KIB)


def test_what_does_not_fit_is_not_adopted(directory: Directory) -> None:
    made = os.path.join(directory.path, "made")
    fd = os.open(made, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, 101 * KIB)
        with pytest.raises(errors.StoreFull):
            directory.adopt(image(1), made, fd)
    finally:
        os.close(fd)
    assert lies_in(directory) == {"made"}


def test_clearing_removes_all(directory: Directory) -> None:
    fill(directory, ONE, SIZE)
    begin(directory, TWO, SIZE).leave()
    directory.queue(THREE)
    assert directory.clear() == 2
    assert lies_in(directory) == {f"queue/{THREE}"}


def test_the_queue_has_an_order(directory: Directory) -> None:
    for number, image_id in enumerate((TWO, ONE, THREE)):
        directory.queue(image_id)
        os.utime(os.path.join(directory.path, "queue", image_id), (number, number))
    directory.queue(TWO)
    assert directory.queued() == [TWO, ONE, THREE]
    assert directory.unqueue(ONE)
    assert not directory.unqueue(ONE)
    assert directory.queued() == [TWO, THREE]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.ConfigurationError, match="cache directory"):
        Directory(tmp_path / "file" / "cache", 1)


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Directory]:
    """May have more than there is on its disk, of 1 MiB."""
    require_root()
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path / "disk"]
    subprocess.run(mount, check=True)
    try:
        yield Directory(tmp_path / "disk" / "cache", 1 << 30)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "disk"], check=True)


def test_a_disk_that_is_full_is_found_before_a_byte_lands(cramped: Directory) -> None:
    with pytest.raises(errors.StoreFull):
        cramped.begin(ONE, 8 << 20)
    assert lies_in(cramped) == set()
    assert fill(cramped, ONE, 100 * KIB) is Outcome.WHOLE


def test_what_was_used_least_recently_makes_room_on_the_disk(cramped: Directory) -> None:
    for seconds, image_id in enumerate((THREE, TWO, ONE)):
        fill(cramped, image_id, 250 * KIB)
        age(cramped, image_id, seconds)
    assert fill(cramped, FOUR, 400 * KIB) is Outcome.WHOLE
    assert lies_in(cramped) == {THREE, TWO, FOUR}
    age(cramped, THREE, 9)
    with open(os.path.join(cramped.path, THREE), "rb"), pytest.raises(errors.StoreFull):
        cramped.begin(ONE, 900 * KIB)  # would not fit without all three
    assert lies_in(cramped) == {THREE, TWO, FOUR}
    assert {each.image_id for each in cramped.cached()} == {THREE, TWO, FOUR}
