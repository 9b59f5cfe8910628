"""The far end: waits for measurements, and does its half of each.

A child process serves each control connection, so that what it uses is its own and what it does to
itself stays there.
"""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import NoReturn

import msgspec

from headrace.bench import cache, cpu, raw
from headrace.bench.spec import RAW_TESTS, Spec
from headrace.bench.wire import PATIENCE, Control, Message
from headrace.errors import ClientError, Error

_IDLE = 60.0  # seconds between two measurements
_LONGEST_WATCH = 86400.0
_NO_FILES = "this end touches no files; it was not started with --files"
_LARGEST = 64 << 20  # bytes of a buffer that the near end may ask for

_log = logging.getLogger(__name__)

_SPEC_FIELDS = {field.name for field in fields(Spec)}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens for control connections.  Raises ClientError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(16)
    except OSError as error:
        raise ClientError(
            reason=f"cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    return sock


def serve(
    listener: socket.socket,
    *,
    secret: bytes | None,
    max_tests: int,
    files: bool = False,
    ends_with_parent: bool = False,
) -> NoReturn:
    """Serve for ever; at most ``max_tests`` at once.  ``files`` lets the near end name files."""
    parent = os.getppid()
    running: set[int] = set()
    while True:
        listener.settimeout(1.0)
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            _reap(running)
            if ends_with_parent and os.getppid() != parent:
                os._exit(0)
            continue
        _reap(running)
        with sock:
            if len(running) >= max_tests:
                with contextlib.suppress(Error):
                    Control(sock, "the near end").say(
                        failed=f"busy with {len(running)} measurements, the most it does at once"
                    )
                continue
            child = os.fork()
            if child:
                running.add(child)
                continue
            listener.close()
            os._exit(_session(sock, secret, files))


def _reap(running: set[int]) -> None:
    for child in list(running):
        if os.waitpid(child, os.WNOHANG)[0]:
            running.discard(child)


def _session(sock: socket.socket, secret: bytes | None, files: bool) -> int:
    """The measurements of one control connection; the child's exit status."""
    control = Control(sock, "the near end")
    try:
        control.greet(secret)
        control.say(facts=cpu.facts())
        while True:
            message = control.hear(patience=_IDLE)
            if "over" in message:
                return 0
            if "watch" in message:
                _watch(control, message, files)
            else:
                _measure(control, sock, _spec(message), files)
    except Error as error:
        _log.info("%s", error)
        with contextlib.suppress(Error):
            control.say(failed=str(error))
        return 1
    except Exception as error:
        _log.exception("a measurement failed")
        with contextlib.suppress(Error):
            control.say(failed=f"{type(error).__name__}: {error}")
        return 1


def _spec(message: Message) -> Spec:
    given = message.get("test")
    if not isinstance(given, dict) or not set(given) <= _SPEC_FIELDS:
        raise ClientError(reason="it asks for a measurement that is not known here")
    try:
        spec = msgspec.convert(given, Spec)
    except msgspec.ValidationError as error:
        raise ClientError(reason=f"it asks for a measurement in wrong words: {error}") from error
    sizes = (spec.send_size, spec.receive_size, spec.request, spec.response)
    if spec.test not in RAW_TESTS or not all(0 <= (size or 0) <= _LARGEST for size in sizes):
        raise ClientError(reason="it asks for a measurement that is not known here")
    return spec


def _watch(control: Control, message: Message, files: bool) -> None:
    """Measure this machine while the near end has to do with a service that runs on it."""
    pids, dropped = message["watch"], message.get("drop")
    if not (isinstance(pids, list) and all(type(pid) is int and pid > 0 for pid in pids)):
        raise ClientError(reason="it asks to watch what is no process")
    if missing := [pid for pid in pids if not os.path.exists(f"/proc/{pid}")]:
        raise ClientError(reason=f"there is no process {missing[0]} on this machine")
    if dropped is not None:
        _drop(str(dropped), files)
    meter = cpu.Meter(pids)
    meter.start()
    control.say(watching=True)
    control.hear("stop", patience=_LONGEST_WATCH)
    control.say(**asdict(meter.stop()))


def _drop(path: str, files: bool) -> None:
    if not files:
        raise ClientError(reason=_NO_FILES)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ClientError(reason=f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ClientError(reason=f"{path} is not a regular file")
        cache.drop(fd, path)
    finally:
        os.close(fd)


def _measure(control: Control, sock: socket.socket, spec: Spec, files: bool) -> None:
    if spec.sink is not None and not files:
        raise ClientError(reason=_NO_FILES)
    with _data_listener(sock, spec) as listener:
        control.say(port=listener.getsockname()[1])
        listener.settimeout(PATIENCE)
        data, peer = listener.accept()
    if peer[0] != sock.getpeername()[0]:
        data.close()
        raise ClientError(reason="somebody else came to the data connection")
    with data, raw.met("the data connection"):
        raw.limit(data)
        began = raw.buffers(data)
        meter = cpu.Meter()
        meter.start()
        control.say(ready=True)
        moved = _do(data, spec)
        usage = meter.stop()
        ended, chosen = raw.buffers(data), raw.congestion(data)
    control.say(
        bytes=moved.bytes,
        calls=moved.calls,
        transactions=moved.transactions,
        buffers=[*began, *ended],
        congestion=chosen,
        **asdict(usage),
    )


def _do(data: socket.socket, spec: Spec) -> raw.Moved:
    send_buffer, receive_buffer = raw.buffers(data)
    if spec.test == "TCP_MAERTS":
        moved = raw.send_memory(data, spec.send_size or send_buffer, spec)
        data.shutdown(socket.SHUT_WR)
        return moved
    if spec.test == "TCP_RR":
        return raw.answer(data, spec)
    return raw.receive(data, spec.receive_size or receive_buffer, spec.sink)


@contextlib.contextmanager
def _data_listener(sock: socket.socket, spec: Spec) -> Iterator[socket.socket]:
    """A socket at the address that the control connection came to, for the data connection."""
    address = (sock.getsockname()[0], spec.data_port)
    with socket.socket(sock.family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.prepare(listener, spec.remote_buffer, spec)
        listener.bind(address)
        listener.listen(1)
        yield listener
