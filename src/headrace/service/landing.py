"""Data on its way in, by whichever door: its bound, its digests, what it is found to be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from headrace import errors
from headrace.client.partial import Expected
from headrace.model import Image
from headrace.service import formats
from headrace.service.quota import UNLIMITED, Room
from headrace.stores.base import Store, Writer
from headrace.transfer.digest import Follower
from headrace.transfer.engine import FileSink, How, Progress, Source, pump_all


class Body(Protocol):
    """A request's body on its way in.

    ``file`` is the descriptor of a file that holds all of it, where a server in front has received
    it for us; the store may make that file the image's.
    """

    @property
    def file(self) -> int | None: ...

    @property
    def length(self) -> int | None:
        """Bytes announced; None when the end is found only by reading."""
        ...

    def pieces(self) -> Iterator[Source]:
        """The body's bytes, as sources to be pumped one after another, each to its end."""
        ...


@dataclass(frozen=True, slots=True)
class UploadRules:
    """What an upload must keep to: cap in bytes, algorithms by hashlib name."""

    size_cap: int
    hashing_algorithm: str
    legacy_checksum: bool
    require_format_match: bool
    vmdk_allowed_types: tuple[str, ...]
    gpt_safety_nonfatal: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Landed:
    """What a body was found to be; ``how`` it was moved, None if it was there already."""

    size: int
    virtual_size: int | None
    checksum: str | None
    os_hash_algo: str
    os_hash_value: str
    how: How | None


class Target(Protocol):
    """What data lands in: a Writer, as far as that matters here."""

    @property
    def sink(self) -> FileSink: ...

    @property
    def lost(self) -> range: ...

    def follow(self, read: Callable[[], int]) -> None: ...

    def advance(self, total: int) -> None: ...


class Landing:
    """How all data comes in that is taken for an image's: bounded, hashed and inspected."""

    def __init__(self, rules: UploadRules) -> None:
        self.rules = rules

    def land(
        self,
        image: Image,
        writer: Writer,
        body: Body,
        announced: int | None,
        progress: Progress,
        room: Room = UNLIMITED,
    ) -> Landed:
        """Bring the body into the writer's sink; ``progress(total)`` is told of the bytes there.

        Raises ImageTooLarge, SizeMismatch, FormatMismatch, UnsafeImage, StoreFull, StoreUnwritable,
        the TransferErrors, and what ``room.grow`` does.
        """
        return self.bring(
            image,
            writer,
            lambda landed: self.receive(body, writer, announced, landed),
            progress,
            room=room,
        )

    def bring(
        self,
        image: Image,
        writer: Target,
        fetch: Callable[[Progress], tuple[int, How | None]],
        progress: Progress,
        expected: Expected | None = None,
        room: Room = UNLIMITED,
    ) -> Landed:
        """As ``land``, of what ``fetch`` brings into the sink, telling how many bytes are there.

        It returns how many there were, and how they came.  Raises ``DataCorrupt`` when they are
        not what is ``expected``, besides what ``fetch`` raises.
        """
        rules = self.rules
        algorithms = self._algorithms()
        told = expected and expected.algorithm
        if told and told not in algorithms:
            algorithms.append(told)
        follower = Follower(writer.sink.fd, algorithms)
        writer.follow(follower.hashed)

        def landed(total: int) -> None:
            if total > room.bound:
                room.grow(total)
            follower.advance(total)
            writer.advance(total)
            progress(total)

        try:
            size, how = fetch(landed)
            virtual_size = formats.inspect(
                writer.sink.fd,
                size,
                image.container_format,
                image.disk_format,
                require_match=rules.require_format_match,
                vmdk_allowed_types=rules.vmdk_allowed_types,
                gpt_safety_nonfatal=rules.gpt_safety_nonfatal,
                lost=writer.lost,
            )
            digests = follower.finish(size)
        finally:
            follower.stop()
        if expected and told:
            expected.verify(digests[told])
        algorithm = rules.hashing_algorithm
        return Landed(
            size,
            virtual_size,
            digests["md5"] if rules.legacy_checksum else None,
            algorithm,
            digests[algorithm],
            how,
        )

    def check_length(self, length: int | None, announced: int | None) -> None:
        """Refuse a body by what is said of its length; raises SizeMismatch, ImageTooLarge."""
        if length is not None and announced is not None and length != announced:
            raise errors.SizeMismatch(announced=announced, received=length)
        if max(length or 0, announced or 0) > self.rules.size_cap:
            raise errors.ImageTooLarge(cap=self.rules.size_cap)

    def receive(
        self, body: Body, writer: Writer, announced: int | None, progress: Progress
    ) -> tuple[int, How | None]:
        """Pump the body in; how many bytes it had, which is what was announced, and how."""
        if writer.landed:
            progress(writer.landed)
            return writer.landed, None
        limit = self.rules.size_cap if announced is None else announced
        try:
            moved = pump_all(body.pieces(), writer.sink, limit=limit, progress=progress)
        except errors.ImageTooLarge:
            if announced is None:
                raise
            raise errors.SizeMismatch(announced=announced, received="more") from None
        if announced is not None and moved.bytes != announced:
            raise errors.SizeMismatch(announced=announced, received=moved.bytes)
        return moved.bytes, moved.how

    def _algorithms(self) -> list[str]:
        names = [self.rules.hashing_algorithm]
        if self.rules.legacy_checksum and "md5" not in names:
            names.append("md5")
        return names


def begin(store: Store, image_id: str, body: Body, announced: int | None) -> Writer:
    """A writer for a body: its file itself where the store can make that the image's."""
    if body.file is not None and (adopted := store.adopt(image_id, body.file)) is not None:
        return adopted
    return store.create(image_id, announced if body.length is None else body.length)
