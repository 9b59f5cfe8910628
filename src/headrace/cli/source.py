"""Where an image's data comes from on the command line: ``path=``, or standard input."""

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.client import formats
from headrace.client.upload import Body, Kind, in_pipe
from headrace.errors import ClientError, UsageError

STDIN = 0
PEEK = 64 << 10  # the format furthest into its data is iso, at 32 KiB


@dataclass(frozen=True, slots=True)
class Data:
    """An image's data, open; ``name`` is what its file is called, if it has a name."""

    body: Body
    name: str | None


@contextmanager
def opened(path: str | None) -> Iterator[Data | None]:
    """The data of the file ``path``, or, when that is None, of standard input, if there is any.

    Raises before a byte is taken: UsageError for a path together with redirected input,
    ClientError for a file that cannot be read.
    """
    if path is None:
        body = _standard_input()
        yield None if body is None else Data(body, _name_of(body.fd))
        return
    refuse_standard_input("path=")
    fd = _open(path)
    try:
        yield Data(Body.of(fd), Path(path).name)
    finally:
        os.close(fd)


def refuse_standard_input(word: str) -> None:
    """Raise UsageError if standard input holds data too, which ``word`` would leave unread.

    A regular file does, unless it is at its end.  A pipe does if something lies in it now: an idle
    one, which is what many programs start their children with, is no input, and waiting for its
    end could mean to wait for ever.
    """
    mode = os.fstat(STDIN).st_mode
    if stat.S_ISREG(mode):
        given = os.fstat(STDIN).st_size > os.lseek(STDIN, 0, os.SEEK_CUR)
    else:
        given = stat.S_ISFIFO(mode) and in_pipe(STDIN) > 0
    if given:
        raise UsageError(reason=f"{word} and redirected standard input are given: which is it?")


def peeked(data: Data) -> Data:
    """``data`` with its first bytes taken, if it is a stream, for ``disk_format`` to look into."""
    body = data.body
    if body.kind is Kind.FILE:
        return data
    head = body.head  # of a socket or terminal, as much as its first read brought
    while len(head) < PEEK and (block := os.read(body.fd, PEEK - len(head))):
        head += block
    return Data(Body.of(body.fd, size=body.size, head=head), data.name)


def disk_format(data: Data) -> str:
    """The disk format the data has, by its magic numbers; "raw" if it has none known."""
    body = data.body
    if body.kind is Kind.FILE and not body.offset:
        return formats.detect(body.fd, body.size or 0)
    # The inspection reads files from their start; of anything else it is given the first part.
    head = body.head or os.pread(body.fd, PEEK, body.offset)
    fd = os.memfd_create("headrace-peek", os.MFD_CLOEXEC)
    try:
        os.write(fd, head)
        return formats.detect(fd, len(head))
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        # O_NONBLOCK: a FIFO without a writer must be an error now, not a wait; it has no effect on
        # reading regular files.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ClientError(reason=f"cannot read {path}: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return fd
    os.close(fd)
    what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
    raise ClientError(reason=f"cannot send {path}: it is {what}")


def _standard_input() -> Body | None:
    """Standard input if it holds data: it is no terminal, nor /dev/null, nor empty otherwise."""
    if os.isatty(STDIN):
        return None
    body = Body.of(STDIN)
    if body.kind is Kind.FILE:
        return body if body.size else None
    if body.kind is Kind.PIPE:
        return body if _arrives(STDIN) else None
    block = os.read(STDIN, PEEK)
    return Body.of(STDIN, head=block) if block else None


def _arrives(pipe: int) -> bool:
    """Wait for the pipe's first byte; False if its end comes instead."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll()
    return in_pipe(pipe) > 0


def _name_of(fd: int) -> str | None:
    """The name of the regular file open as ``fd``, as the kernel knows it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_nlink:
        return None
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        # A name that is gone, or was given to another file, is not this file's name.
        return Path(path).name if os.path.samestat(os.stat(path), status) else None
    except OSError:
        return None
