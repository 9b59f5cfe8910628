"""What every store promises (headrace.stores.base), on every store there is."""

import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from headrace import errors
from headrace.stores.base import Store
from headrace.transfer.extent import Extent
from tests.contract.stores.conftest import StartWriting
from tests.contract.stores.storing import (
    IMAGE_ID,
    OTHER_ID,
    descriptors,
    finish,
    get,
    published,
    put,
)
from tests.faults.service import wait_until

Names = Callable[[], list[str]]

CONTENT = bytes(range(256)) * 5000


def test_what_is_committed_is_served_whole(store: Store) -> None:
    url = put(store, CONTENT)
    assert url == store.url(IMAGE_ID)
    assert store.holds(url)
    assert store.writable
    with contextlib.closing(store.open(url)) as extent:
        assert (extent.offset, extent.length) == (0, len(CONTENT))
        assert extent.read() == CONTENT


def test_an_empty_image_is_an_image(store: Store) -> None:
    assert get(store, put(store, b"")) == b""


def test_data_is_invisible_before_commit(store: Store) -> None:
    writer = store.create(IMAGE_ID, len(CONTENT))
    os.write(writer.sink.fd, CONTENT)
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))
    with pytest.raises(errors.NotFound):
        store.delete(store.url(IMAGE_ID))
    assert get(store, published(writer)) == CONTENT


def test_the_sink_can_be_read_back(store: Store) -> None:
    writer = store.create(IMAGE_ID, None)
    assert writer.sink.offset == 0
    os.write(writer.sink.fd, CONTENT)
    assert os.pread(writer.sink.fd, 1000, 256) == CONTENT[256:1256]
    writer.abort()


@pytest.mark.parametrize("totals", [(), (1,), (10, 20 << 20), (64 << 20, 65 << 20)])
def test_any_account_of_progress_does(store: Store, totals: tuple[int, ...]) -> None:
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, CONTENT)
    for total in totals:
        writer.advance(total)
    assert get(store, published(writer)) == CONTENT


def test_abort_leaves_nothing(store: Store, names: Names) -> None:
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, CONTENT)
    writer.abort()
    assert names() == []
    writer.abort()
    with pytest.raises(ValueError, match="closed"):
        writer.commit()
    with pytest.raises(ValueError, match="closed"):
        _ = writer.sink
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))
    assert store.sweep() == 0


def test_abort_after_commit_is_harmless(store: Store) -> None:
    writer = store.create(IMAGE_ID, len(CONTENT))
    os.write(writer.sink.fd, CONTENT)
    url = writer.commit()
    writer.abort()
    assert get(store, url) == CONTENT


def test_retract_takes_a_commit_back(store: Store, names: Names) -> None:
    writer = store.create(IMAGE_ID, len(CONTENT))
    os.write(writer.sink.fd, CONTENT)
    writer.retract()  # nothing yet
    writer.commit()
    writer.retract()
    assert names() == []
    writer.retract()  # no more
    writer.abort()


def test_retract_spares_what_another_has_published_since(store: Store) -> None:
    writer = store.create(IMAGE_ID, None)
    os.write(writer.sink.fd, b"first")
    store.delete(writer.commit())
    url = put(store, b"second")
    writer.retract()
    writer.abort()
    writer.retract()
    assert get(store, url) == b"second"


def test_create_refuses_a_name_that_is_taken(store: Store) -> None:
    url = put(store, CONTENT)
    with pytest.raises(errors.DataExists):
        store.create(IMAGE_ID, 10)
    assert get(store, url) == CONTENT


def test_commit_never_replaces(store: Store, names: Names) -> None:
    late = store.create(IMAGE_ID, None)
    os.write(late.sink.fd, b"late")
    url = put(store, b"early")
    with pytest.raises(errors.DataExists):
        late.commit()
    late.abort()
    assert get(store, url) == b"early"
    assert names() == [IMAGE_ID]


def test_of_many_threads_exactly_one_wins(store: Store, names: Names, exclusive: bool) -> None:
    won: list[bytes] = []
    begun = threading.Barrier(8, timeout=60)

    def write(content: bytes) -> None:
        writer = store.create(IMAGE_ID, None)
        os.write(writer.sink.fd, content)
        begun.wait()
        with contextlib.suppress(errors.DataExists):
            published(writer)
            won.append(content)

    threads = [threading.Thread(target=write, args=(b"%d" % i * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get(store, store.url(IMAGE_ID)) in won
    assert IMAGE_ID in names()
    assert len(names()) <= len(won)
    assert len(won) == 1 or not exclusive


def test_of_many_processes_exactly_one_wins(
    store: Store, names: Names, start_writing: StartWriting, exclusive: bool
) -> None:
    contents = ["a" * 100, "b" * 200, "c" * 300]
    processes = [start_writing(content) for content in contents]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [finish(process) for process in processes]
    won = [content for content, each in zip(contents, said, strict=True) if each == "won"]
    assert get(store, store.url(IMAGE_ID)).decode() in won
    assert 1 <= len(names()) <= len(won)
    assert len(won) == 1 or not exclusive


def test_what_is_open_outlives_its_deletion(store: Store) -> None:
    url = put(store, CONTENT)
    with contextlib.closing(store.open(url)) as extent:
        store.delete(url)
        with pytest.raises(errors.NotFound):
            store.open(url)
        put(store, b"another image")
        assert extent.read() == CONTENT


def test_what_is_deleted_is_gone_and_its_name_is_free(store: Store, names: Names) -> None:
    url = put(store, CONTENT)
    kept = put(store, b"other", OTHER_ID)
    store.delete(url)
    assert names() == [OTHER_ID]
    with pytest.raises(errors.NotFound):
        store.delete(url)
    assert get(store, put(store, b"again")) == b"again"
    assert get(store, kept) == b"other"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "image", "a/b", IMAGE_ID + "/", IMAGE_ID + "\n", "\0", "%2e"]
)
def test_nothing_but_an_image_id_names_data(store: Store, names: Names, name: str) -> None:
    with pytest.raises(errors.BadRequest):
        store.create(name, None)
    with pytest.raises(errors.BadRequest):
        store.url(name)
    assert names() == []


def test_urls_of_elsewhere_are_not_found(store: Store) -> None:
    put(store, CONTENT)
    url = store.url(IMAGE_ID)
    for other in ("", IMAGE_ID, f"http://localhost/{IMAGE_ID}", f"x{url}", url[:-1], f"{url}/"):
        with pytest.raises(errors.NotFound):
            store.open(other)
        with pytest.raises(errors.NotFound):
            store.delete(other)


def test_more_than_can_fit_is_refused_at_once(store: Store, names: Names) -> None:
    with pytest.raises(errors.StoreFull):
        store.create(IMAGE_ID, 1 << 60)
    assert names() == []


def test_descriptors_are_closed_on_exec(store: Store) -> None:
    url = put(store, CONTENT)
    writer = store.create(OTHER_ID, None)
    with contextlib.closing(store.open(url)) as extent:
        assert not os.get_inheritable(writer.sink.fd)
        if isinstance(extent, Extent):
            assert not os.get_inheritable(extent.fd)
            assert os.get_blocking(extent.fd)
    writer.abort()


def test_errors_leave_no_descriptor_open(store: Store) -> None:
    url = put(store, CONTENT)
    missing = store.url(OTHER_ID)
    attempts: list[Callable[[], object]] = [
        lambda: store.create(IMAGE_ID, None),
        lambda: store.create(OTHER_ID, 1 << 60),
        lambda: store.open(missing),
        lambda: store.delete(missing),
        lambda: store.open(f"{url}/.."),
    ]
    before = descriptors()
    for attempt in attempts:
        with pytest.raises(errors.Error):
            attempt()
    assert descriptors() == before


def test_sweep_removes_nothing_that_is_committed_or_being_written(store: Store) -> None:
    kept = put(store, b"kept")
    writer = store.create(OTHER_ID, None)
    os.write(writer.sink.fd, CONTENT)
    assert store.sweep() == 0
    assert get(store, published(writer)) == CONTENT
    assert get(store, kept) == b"kept"


def test_sweep_does_not_harm_a_writer_in_another_process(
    store: Store, start_writing: StartWriting
) -> None:
    process = start_writing("alive")
    assert store.sweep() == 0
    assert finish(process) == "won"
    assert get(store, store.url(IMAGE_ID)) == b"alive"


def test_a_killed_writer_leaves_nothing_behind_a_sweep(
    store: Store, names: Names, start_writing: StartWriting, leftovers: int
) -> None:
    dead, alive = start_writing("dead"), start_writing("alive")
    dead.kill()
    dead.wait()
    with pytest.raises(errors.NotFound):
        store.open(store.url(IMAGE_ID))
    if leftovers:  # a server takes its time to find that a client is gone
        wait_until(lambda: store.sweep() == leftovers)
    assert store.sweep() == 0
    assert finish(alive) == "won"
    assert names() == [IMAGE_ID]
    assert get(store, store.url(IMAGE_ID)) == b"alive"
