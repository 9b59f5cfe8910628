"""The near end: asks a far end for measurements and does the other half of each."""

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Self

from headrace.bench import agent, cache, cpu, raw
from headrace.bench.cpu import Usage
from headrace.bench.outcome import Buffers, End, Outcome
from headrace.bench.spec import FROM_FILE, TO_HERE, Spec
from headrace.bench.wire import PATIENCE, Control, Message
from headrace.errors import ClientError, ConnectionFailed

_UNPACED = "reno"  # in every kernel, and nobody needs a privilege to choose it
_SETTLING = 60.0  # seconds for a file to be on the far end's disk
_SHUTDOWN = 5.0  # seconds for the far end to take what is on its way, and to say what it saw


class FarEnd:
    """A connection to a far end, for any number of measurements, one after the other."""

    def __init__(self, host: str, port: int, secret: bytes | None = None) -> None:
        self.host = host
        self._where = f"{host} port {port}"
        try:
            self._sock = socket.create_connection((host, port), PATIENCE)
        except OSError as error:
            raise ConnectionFailed(url=self._where, reason=error.strerror or str(error)) from error
        self._control = Control(self._sock, f"the far end at {self._where}")
        try:
            self._control.greet(secret)
            self.facts: dict[str, str] = self._control.hear("facts")["facts"]
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ClientError):
            self._control.say(over=True)
        self._sock.close()

    def measure(self, spec: Spec, file: int | None = None) -> Outcome:
        """One measurement; ``file`` is what TCP_SENDFILE and TCP_SPLICE send."""
        if spec.cold and file is not None:
            cache.drop(file, "the file to send")
            size = os.fstat(file).st_size
            spec = replace(spec, nbytes=min(spec.nbytes or size, size))
        spec = self._unpaced(spec)
        # What is received at this end is stored at this end.
        theirs = replace(spec, sink=None) if spec.test in TO_HERE else spec
        self._control.say(test=asdict(theirs))
        with self._data_connection(spec) as data, raw.met("the far end"):
            began = raw.buffers(data)
            mss = data.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            self._control.hear("ready")
            raw.limit(data)
            meter = cpu.Meter(())
            meter.start()
            own = time.process_time()  # without children: a far end of our own is one
            with self._its_own_reason():
                moved = _do(data, spec, file)
                if spec.test != "TCP_MAERTS":
                    data.shutdown(socket.SHUT_WR)
                    if spec.test != "TCP_RR":
                        _await_end(data)
            usage = replace(meter.stop(), processes=time.process_time() - own)
            ended, chosen = raw.buffers(data), raw.congestion(data)
        said = self._control.hear(
            "bytes", "calls", "seconds", "cores", "busy", "softirq", "steal", "processes",
            "buffers", "congestion", patience=_SHUTDOWN,
        )  # fmt: skip
        return _outcome(spec, moved, usage, (*began, *ended), mss, chosen, said)

    def _unpaced(self, spec: Spec) -> Spec:
        """Have a connection within this machine not be paced, unless that was asked for.

        BBR paces by timers, which cost more than sending where there is no network; Headrace's own
        connections over loopback are not paced either.
        """
        ours = cpu.facts()
        paced = any("bbr" in facts.get(cpu.CONGESTION, "") for facts in (ours, self.facts))
        if spec.congestion is None and paced and cpu.one_machine(ours, self.facts):
            return replace(spec, congestion=_UNPACED)
        return spec

    def watch(self, pids: Sequence[int], drop: str | None = None) -> None:
        """Have the far machine measured, and processes there; ``drop`` is a file there whose pages
        are not to be in memory."""
        self._control.say(watch=list(pids), drop=drop)
        self._control.hear("watching", patience=_SETTLING)

    def watched(self) -> Usage:
        """What was used since watch()."""
        self._control.say(stop=True)
        return _usage(self._control.hear("busy"))

    @contextlib.contextmanager
    def _its_own_reason(self) -> Iterator[None]:
        """A far end that drops the data connection says why on the other one, if it still can."""
        try:
            yield
        except ConnectionError:
            with contextlib.suppress(ConnectionFailed):
                self._control.hear("failed", patience=raw.STALL)
            raise

    @contextlib.contextmanager
    def _data_connection(self, spec: Spec) -> Iterator[socket.socket]:
        port = self._control.hear("port")["port"]
        if not (isinstance(port, int) and 0 < port < 65536):
            raise ClientError(reason="the far end says what makes no sense")
        with socket.socket(self._sock.family, socket.SOCK_STREAM) as data:
            raw.prepare(data, spec.local_buffer, spec)
            data.settimeout(PATIENCE)
            try:
                data.connect((self._sock.getpeername()[0], port))
            except OSError as error:
                raise ConnectionFailed(
                    url=f"{self.host} port {port}", reason=error.strerror or str(error)
                ) from error
            yield data


def _do(data: socket.socket, spec: Spec, file: int | None) -> raw.Moved:
    send_buffer, receive_buffer = raw.buffers(data)
    size = spec.send_size or send_buffer
    if spec.test == "TCP_MAERTS":
        return raw.receive(data, spec.receive_size or receive_buffer, spec.sink)
    if spec.test == "TCP_RR":
        return raw.ask(data, spec)
    if spec.test in FROM_FILE:
        if file is None:
            raise ClientError(reason=f"{spec.test} needs a file")
        send = raw.send_file if spec.test == "TCP_SENDFILE" else raw.splice_file
        return send(data, size, spec, file)
    if spec.test == "TCP_ZEROCOPY":
        return raw.send_zerocopy(data, size, spec)
    return raw.send_memory(data, size, spec)


def _await_end(data: socket.socket) -> None:
    """Wait until the far end has taken everything: it closes then."""
    data.settimeout(_SHUTDOWN)
    while data.recv(4096):
        pass


def _outcome(
    spec: Spec,
    moved: raw.Moved,
    usage: Usage,
    buffers: tuple[int, ...],
    mss: int,
    congestion: str,
    said: Message,
) -> Outcome:
    try:
        theirs = [int(size) for size in said["buffers"]]
        far = raw.Moved(int(said["bytes"]), int(said["calls"]), int(said["transactions"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ClientError(reason="the far end says what makes no sense") from error
    if far.bytes != moved.bytes or len(theirs) != 4:
        raise ClientError(
            reason=f"the ends disagree: {moved.bytes} bytes here, {far.bytes} at the far end"
        )
    return Outcome(
        spec=spec,
        bytes=moved.bytes,
        transactions=moved.transactions,
        seconds=usage.seconds,
        mss=mss,
        local=_end(spec, moved, usage, buffers, congestion, near=True),
        remote=_end(spec, far, _usage(said), theirs, str(said["congestion"]), near=False),
    )


def _usage(said: Message) -> Usage:
    """The far end's CPU, by its own word."""
    try:
        processes = said["processes"]
        usage = Usage(
            seconds=float(said["seconds"]),
            cores=int(said["cores"]),
            busy=float(said["busy"]),
            softirq=float(said["softirq"]),
            steal=float(said["steal"]),
            processes=None if processes is None else float(processes),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ClientError(reason="the far end says what makes no sense") from error
    if not (usage.seconds > 0 and usage.cores > 0):
        raise ClientError(reason="the far end says what makes no sense")
    return usage


def _end(
    spec: Spec,
    moved: raw.Moved,
    usage: Usage,
    found: Sequence[int],
    congestion: str,
    *,
    near: bool,
) -> End:
    """One end in the role, or the roles, that the test gives it."""
    both = spec.test == "TCP_RR"
    sends = both or near != (spec.test in TO_HERE)
    receives = both or not sends
    asked = spec.local_buffer if near else spec.remote_buffer
    return End(
        usage=usage,
        buffers=Buffers(asked, (found[0], found[2]), (found[1], found[3])),
        congestion=congestion,
        send_size=(spec.send_size or found[0]) if sends else None,
        send_calls=moved.calls if sends else None,
        receive_size=(spec.receive_size or found[1]) if receives else None,
        receive_calls=moved.calls if receives else None,
    )


@contextlib.contextmanager
def own_far_end() -> Iterator[int]:
    """A far end on loopback, in a process of its own; its port."""
    with agent.listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        child = os.fork()
        if not child:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent's business
            try:
                agent.serve(listener, secret=None, max_tests=16, files=True, ends_with_parent=True)
            finally:
                os._exit(1)
    try:
        yield port
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


@contextlib.contextmanager
def file_to_send(path: str | None, size: int) -> Iterator[int]:
    """The descriptor of the file, or of one of ``size`` random bytes that has no name."""
    if path is not None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ClientError(reason=f"{path}: {error.strerror}") from error
        try:
            yield fd
        finally:
            os.close(fd)
        return
    with tempfile.TemporaryFile() as file:
        block = os.urandom(1 << 20)
        for _ in range(-(-size // len(block))):
            file.write(block)
        file.seek(0)
        yield file.fileno()
