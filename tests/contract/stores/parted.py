"""A filesystem store that is written as a remote one: in parts, through a window."""

import os
import threading
from pathlib import Path

from headrace.stores.filesystem import FilesystemStore, FilesystemWriter
from headrace.stores.window import AdoptedWindow, WindowWriter, new_window

PART = 64 << 10


class FileParts:
    """The parts of a file; see ``stores.window.Parts``.

    ``sizes`` are the lengths of the first ones, the last of them that of all others.  ``held`` is
    set while parts may be put.
    """

    def __init__(self, writer: FilesystemWriter, sizes: tuple[int, ...] = (PART,)) -> None:
        self._writer = writer
        self._sizes = sizes
        self.put_parts: list[tuple[int, int, int, bool]] = []
        self.held = threading.Event()
        self.held.set()
        self.failure: BaseException | None = None
        self.aborted = False

    def size_of(self, number: int) -> int:
        return self._sizes[min(number, len(self._sizes) - 1)]

    def put(self, number: int, fd: int, offset: int, length: int, last: bool) -> None:
        self.held.wait()
        if self.failure is not None:
            raise self.failure
        self.put_parts.append((number, offset, length, last))
        os.pwrite(self._writer.sink.fd, os.pread(fd, length, offset), offset)

    def complete(self, size: int) -> str:
        assert os.fstat(self._writer.sink.fd).st_size == size
        return self._writer.commit()

    def retract(self) -> None:
        self._writer.retract()

    def stop(self) -> None:
        self.held.set()

    def abort(self) -> None:
        self.aborted = True
        self._writer.abort()


class Windowed(WindowWriter):
    """A window onto a FilesystemWriter, which it closes at its end."""

    def __init__(self, writer: FilesystemWriter, fd: int) -> None:
        super().__init__(FileParts(writer), fd)
        self._writer = writer

    def abort(self) -> None:
        super().abort()
        self._writer.abort()


class WindowedAdopted(AdoptedWindow):
    def __init__(self, writer: FilesystemWriter, fd: int) -> None:
        super().__init__(FileParts(writer), fd)
        self._writer = writer

    def abort(self) -> None:
        super().abort()
        self._writer.abort()


class PartedStore(FilesystemStore):
    """See above."""

    local = False

    def __init__(self, id: str, datadir: Path) -> None:
        super().__init__(id, datadir)
        self._windows = str(datadir.parent)

    def create(self, image_id: str, size: int | None) -> WindowWriter:  # type: ignore[override]
        writer = super().create(image_id, size)
        return Windowed(writer, new_window(self._windows))

    def adopt(self, image_id: str, fd: int) -> WindowWriter:  # type: ignore[override]
        return WindowedAdopted(super().create(image_id, None), os.dup(fd))
