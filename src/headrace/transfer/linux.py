"""The ways that keep bytes out of user space: sendfile, splice, copy_file_range, reflink.

The one module that knows these calls.  Every function moves what it can and returns; it returns
early where the source ends early, which its caller judges.  A call that the descriptors, the file
system or a seccomp filter does not allow raises Refused as long as nothing has moved, so that the
caller can copy instead; later it is an OSError like any other.

Kernel facts relied upon: one call moves at most MAX_COUNT bytes whatever is asked for; CPython
repeats a call that a signal interrupts (PEP 475); short counts are normal.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
from collections import deque
from types import TracebackType
from typing import ClassVar

from headrace.transfer.port import Kind, Port, Run, appends, borrowed_socket

AVAILABLE = sys.platform == "linux" and hasattr(os, "splice")

MAX_COUNT = 0x7FFF_F000  # MAX_RW_COUNT of the kernel: 2 GiB less a page

# A pipe of 256 slots, the most an unprivileged user may have (fs.pipe-max-size).  Received into a
# file on loopback, 1 GiB costs 0.53 µs/KB with 64 KiB, 0.40 with 256 KiB, 0.33 with 1 MiB.
PIPE_SIZE = 1 << 20

# A smaller one holds less than a read does when each slot has one segment of 1448 bytes.
_LEAST_PIPE_SIZE = 256 << 10

# Wake up for so many bytes: a fast receiver would otherwise be woken for every segment.  Measured
# as above: a tenth of the context switches and a quarter of the calls.
_BATCH = 512 << 10

_REFUSALS = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EPERM,  # by a seccomp filter; a file that may not be written says it again when copied to
}

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CACHESTAT = 451  # asm-generic/unistd.h, the same everywhere; neither CPython nor glibc has it
_syscall = ctypes.CDLL(None).syscall
_syscall.argtypes = [
    ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint,
]  # fmt: skip
_syscall.restype = ctypes.c_long

# How far apart a file is looked at to see whether it is in memory, and touched to have it there:
# what a disk is asked for at a time (read_ahead_kb) is hardly less.
_SAMPLED, _MOST_SAMPLES = 1 << 20, 64
_FETCHED = 128 << 10

_FICLONERANGE = 0x4020_940D  # _IOW(0x94, 13, struct file_clone_range)


class Refused(Exception):
    """A way that cannot be used here; nothing has arrived in the sink.

    ``held`` are bytes already taken from the source, which must be the first to be copied;
    ``lasting`` says that the next transfer between such descriptors would fare no better: not so
    where it may be due to this one descriptor (O_APPEND) or this moment (no pipe to be had).
    """

    def __init__(self, reason: str, *, held: bytes = b"", lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.held = held
        self.lasting = lasting


def refuses(error: OSError) -> bool:
    """Whether an error means that these descriptors cannot be used in this way."""
    return error.errno in _REFUSALS


def reason(error: OSError) -> str:
    """The error's name."""
    return errno.errorcode.get(error.errno or 0, "unknown")


def _refused(error: OSError, run: Run) -> bool:
    return not run.started and refuses(error)


def send_file(run: Run, fd: int, offset: int, length: int, sink: Port) -> None:
    """Move ``length`` bytes from ``offset`` of a file into a socket by sendfile.

    The position of ``fd`` is neither used nor moved: descriptors may be shared.
    """
    end = offset + length
    # Looked up once: of a call that sends 64 KiB in 5 µs each look is a hundredth.
    send, add, out, step = os.sendfile, run.add, sink.fd, run.step
    while offset < end:
        try:
            count = send(out, fd, offset, step if offset + step < end else end - offset)
        except BlockingIOError:
            sink.wait(run)
            continue
        except OSError as error:
            if _refused(error, run):
                raise Refused(reason(error)) from error
            raise
        if count == 0:
            return
        offset += count
        add(count)


def send_some(out: int, fd: int, offset: int, count: int) -> int:
    """Send up to ``count`` bytes from ``offset`` of a file by one sendfile; how many, 0 at its end.

    Raises BlockingIOError when a non-blocking socket has no room.
    """
    return os.sendfile(out, fd, offset, count)


def resident(fd: int, offset: int, length: int) -> float | None:
    """The share of a part of a file that is in memory, 0 to 1; None if the system does not say.

    By cachestat(2), which counts and disturbs nothing.  Where there is none (Linux before 6.5), or
    not for this file (another's), by samples, of which those missing are fetched (preadv2(2),
    RWF_NOWAIT): asked once more, they are there.
    """
    found = ctypes.create_string_buffer(5 * 8)
    if not _syscall(_CACHESTAT, fd, struct.pack("QQ", offset, length), found, 0):
        pages = (offset + length - 1) // _PAGE - offset // _PAGE + 1
        return float(struct.unpack_from("Q", found)[0] / pages)
    samples = range(offset, offset + length, max(_SAMPLED, length // _MOST_SAMPLES))
    try:
        return sum(_is_there(fd, position) for position in samples) / len(samples)
    except OSError:  # EOPNOTSUPP
        return None


def _is_there(fd: int, position: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def read_in(fd: int, offset: int, length: int) -> None:
    """Have a part of a file in memory, and as much after it on its way; waits for the disk."""
    os.posix_fadvise(fd, offset, 2 * length, os.POSIX_FADV_WILLNEED)
    for position in range(offset, offset + length, _FETCHED):
        os.pread(fd, 1, position)


def is_open_elsewhere(fd: int, *, to_write: bool = False) -> bool:
    """Whether anybody else has a file open, or has it open for writing, in any process.

    By a lease, which is given to nobody then.  Raises OSError where there are none: of another's
    file, and on some file systems.
    """
    # Should somebody open it in this moment, that is told by a signal, and SIGIO would end us.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK if to_write else fcntl.F_WRLCK)
    except BlockingIOError:
        return True
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def umask() -> int:
    """The process's umask, which os.umask could only tell by changing it for a moment."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["Umask"], 8)


def drop(fd: int, offset: int, length: int) -> None:
    """Have a part of a file leave memory, as far as nobody uses it."""
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def copy_range(
    run: Run, source: int, offset: int, length: int, sink: int, sink_offset: int
) -> None:
    """Move bytes from file to file by copy_file_range."""
    end = offset + length
    while offset < end:
        try:
            count = os.copy_file_range(
                source, sink, min(end - offset, run.step), offset, sink_offset
            )
        except OSError as error:
            appending = appends(sink)  # EBADF, unlike splice's EINVAL
            if _refused(error, run) or (appending and error.errno == errno.EBADF):
                raise Refused(reason(error), lasting=not appending) from error
            raise
        if count == 0:
            if not run.started:  # some virtual files have content but no size, and so give none
                raise Refused("nothing", lasting=False)
            return
        offset += count
        sink_offset += count
        run.add(count)


def reflink(run: Run, source: int, offset: int, length: int, sink: int, sink_offset: int) -> None:
    """Have ``sink`` share the blocks of ``source``: nothing is moved at all."""
    request = struct.pack("qQQQ", source, offset, length, sink_offset)
    try:
        fcntl.ioctl(sink, _FICLONERANGE, request)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # EINVAL is about this range (not aligned to blocks), the others about the file system.
        raise Refused(reason(error), lasting=error.errno != errno.EINVAL) from error
    run.add(length)


def splice_direct(
    run: Run,
    source: Port,
    offset: int | None,
    length: int | None,
    sink: Port,
    sink_offset: int | None,
) -> None:
    """Splice between two ends of which at least one is a pipe; offsets belong to files only."""
    for port in (source, sink):
        if port.kind is Kind.PIPE:
            _enlarge(port.fd)
    left = MAX_COUNT if length is None else length
    flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
    while left:
        try:
            count = os.splice(source.fd, sink.fd, min(left, run.step), offset, sink_offset, flags)
        except BlockingIOError:
            # It does not say from which end.  Polling is level-triggered: what becomes ready
            # meanwhile is not missed.
            source.wait_ready(run)
            sink.wait_ready(run)
            continue
        except OSError as error:
            if _refused(error, run):
                raise Refused(reason(error), lasting=not appends(sink.fd)) from error
            raise
        if count == 0:
            return
        if length is not None:
            left -= count
        if offset is not None:
            offset += count
        if sink_offset is not None:
            sink_offset += count
        run.add(count)


def splice_through(
    run: Run, source: Port, length: int | None, sink: Port, sink_offset: int | None
) -> None:
    """Splice from a socket into a file or socket, through a pipe that is emptied at every turn.

    The pipe being empty, EAGAIN of a turn's first half can only mean the source.  Raises Refused
    when no pipe of a useful size is to be had.
    """
    pipe = _Pipe.take()
    try:
        with _Batching(source, length) as batching:
            left = PIPE_SIZE if length is None else length
            while left:
                batching.narrow(left)
                count = _fill(pipe, source, min(left, PIPE_SIZE), run, batching)
                if count == 0:
                    break
                _drain(pipe, count, sink, sink_offset, run)
                if sink_offset is not None:
                    sink_offset += count
                if length is not None:
                    left -= count
    except BaseException:
        pipe.close()  # what may be left in it belongs to this transfer alone
        raise
    pipe.give_back()


def splice_file(run: Run, fd: int, offset: int, length: int, sink: Port) -> None:
    """Splice ``length`` bytes from ``offset`` of a file into a socket, through a pipe.

    sendfile does the same in one call less; this is for those who compare the two.
    """
    pipe = _Pipe.take()
    end = offset + length
    try:
        while offset < end:
            most = min(end - offset, run.step, PIPE_SIZE)
            count = os.splice(fd, pipe.inlet, most, offset_src=offset, flags=os.SPLICE_F_MOVE)
            if count == 0:
                break
            _drain(pipe, count, sink, None, run)
            offset += count
    except BaseException:
        pipe.close()
        raise
    pipe.give_back()


def _fill(pipe: "_Pipe", source: Port, most: int, run: Run, batching: "_Batching") -> int:
    while True:
        try:
            return os.splice(source.fd, pipe.inlet, most, flags=os.SPLICE_F_MOVE)
        except BlockingIOError:
            batching.wait(run)
        except OSError as error:
            if _refused(error, run):
                raise Refused(reason(error)) from error
            raise


def _drain(pipe: "_Pipe", count: int, sink: Port, offset: int | None, run: Run) -> None:
    """Empty the pipe, which holds ``count`` bytes, into the sink."""
    calls = 2  # the one that filled the pipe, too
    while count:
        try:
            moved = os.splice(
                pipe.outlet, sink.fd, count, offset_dst=offset, flags=os.SPLICE_F_MOVE
            )
        except BlockingIOError:
            sink.wait(run)
            continue
        except OSError as error:
            if _refused(error, run):
                held = os.read(pipe.outlet, count)
                raise Refused(reason(error), held=held, lasting=not appends(sink.fd)) from error
            raise
        count -= moved
        if offset is not None:
            offset += moved
        run.add(moved, calls)
        calls = 1


def _enlarge(pipe: int) -> int:
    """Ask for a bigger pipe, return the size that is granted.

    An unprivileged user gets none that brings all of theirs beyond fs.pipe-user-pages-soft.
    """
    size = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    if size < PIPE_SIZE:
        with contextlib.suppress(OSError):
            size = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return size


class _Pipe:
    """A pipe between a socket and what it is spliced into; empty ones wait for the next transfer.

    Sixteen at most wait, a quarter of what fs.pipe-user-pages-soft gives an unprivileged user.
    """

    __slots__ = ("inlet", "outlet")

    _idle: ClassVar["deque[_Pipe]"] = deque()
    _MOST_IDLE: ClassVar = 16

    def __init__(self) -> None:
        try:
            self.outlet, self.inlet = os.pipe()
        except OSError as error:
            raise Refused(reason(error), lasting=False) from error
        if _enlarge(self.inlet) < _LEAST_PIPE_SIZE:
            self.close()
            raise Refused("small pipe", lasting=False)

    @classmethod
    def take(cls) -> "_Pipe":
        """An empty pipe, which is the caller's to give back empty or to close."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    def give_back(self) -> None:
        if len(self._idle) < self._MOST_IDLE:
            self._idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        os.close(self.inlet)
        os.close(self.outlet)

    @classmethod
    def forget_all(cls) -> None:
        """Close the idle pipes: after a fork parent and child would share them."""
        while cls._idle:
            cls._idle.pop().close()


os.register_at_fork(after_in_child=_Pipe.forget_all)


class _Batching:
    """Has TCP wake its reader for many bytes at once (SO_RCVLOWAT), while many are to come.

    Only where it is known how many: else the end of a pause would be waited for.  Not for Unix
    sockets: their sender is blocked by what lies in the pipe.
    """

    __slots__ = ("_on", "_source")

    def __init__(self, source: Port, length: int | None) -> None:
        self._source = source
        self._on = length is not None and length >= 2 * _BATCH and _is_tcp(source.fd)

    def __enter__(self) -> "_Batching":
        if self._on:
            self._set(_BATCH)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def narrow(self, left: int) -> None:
        """Stop when only ``left`` bytes are still to come."""
        if left < _BATCH:
            self._stop()

    def wait(self, run: Run) -> None:
        """Wait for bytes after EAGAIN; fewer than a batch do not wake a poll, so look again."""
        if self._on and not self._source.blocking:
            if not self._source.ready(self._source.stall):
                self._stop()
                if not self._source.ready(0):  # not even a little
                    raise self._source.stalled(run)
            return
        self._source.wait(run)

    def _stop(self) -> None:
        if self._on:
            self._on = False
            self._set(1)

    def _set(self, count: int) -> None:
        with borrowed_socket(self._source.fd) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _is_tcp(fd: int) -> bool:
    with borrowed_socket(fd) as sock:
        return sock.proto == socket.IPPROTO_TCP


# File systems on which reports of stale or wrong bytes by sendfile outweigh its gain.
_NETWORK = {"9p", "cifs", "nfs", "nfs4", "prl_fs", "smb3", "vboxsf", "virtiofs", "vmhgfs"}


def network_file_system(device: int) -> str | None:
    """The type of the file system that ``device`` (st_dev) is, if it is one of a network or host.

    None as well when it is not found: Btrfs gives files devices that no mount has.
    """
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for mount in mounts:
                fields, _, details = mount.partition(" - ")
                if fields.split(" ", 3)[2] == name:
                    kind = details.split(" ", 1)[0]
                    return kind if kind in _NETWORK or kind.startswith("fuse") else None
    except OSError:
        return None
    return None
