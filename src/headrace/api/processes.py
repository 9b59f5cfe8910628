"""The processes of a service tell each other what they are doing, through Unix sockets.

Whoever is asked for the metrics asks all the others: what is true at the moment has to come from
processes that live.
"""

import contextlib
import glob
import logging
import os
import socket
import threading
from collections.abc import Iterator

import msgspec

from headrace import __version__
from headrace.api.traffic import Flight, Traffic
from headrace.metrics import Metrics

_log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds for a process that is busy; one that hangs is left out


class Report(msgspec.Struct, frozen=True):
    """What a process is doing: its transfers, and its gauges by name."""

    pid: int
    version: str
    flights: list[Flight]
    gauges: dict[str, float]


class Processes:
    """This process among those that share the metrics' directory; alone where there is none."""

    def __init__(self, metrics: Metrics, traffic: Traffic) -> None:
        self._metrics = metrics
        self._traffic = traffic
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._answer_all, name="processes", daemon=True)

    def start(self) -> None:
        """Answer the others from now on, in a thread; after the fork."""
        if self._metrics.directory is None:
            return
        try:
            self._socket = _listener(self._metrics.directory, self._metrics.slot)
        except OSError as error:  # no reason to serve nobody
            _log.warning("the other processes' metrics lack this one's: %s", error.strerror)
        else:
            self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which wakes accept()
        self._thread.join()
        self._socket.close()
        self._traffic.flights()  # counts what it has moved

    def report(self) -> Report:
        """What this process is doing."""
        gauges = {name: gauge() for name, (_, gauge) in self._metrics.gauges.items()}
        return Report(os.getpid(), __version__, self._traffic.flights(), gauges)

    def reports(self) -> list[Report]:
        """What all processes of the service are doing."""
        if self._metrics.directory is None:
            return [self.report()]
        found = []
        with _reachable(self._metrics.directory) as directory:
            for name in sorted(glob.glob(f"{directory}/*.sock")):
                if os.path.basename(name) == f"{self._metrics.slot}.sock":
                    found.append(self.report())
                elif (report := _ask(name)) is not None:
                    found.append(report)
        return found

    def _answer_all(self) -> None:
        assert self._socket is not None
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        try:
            peer.settimeout(_PATIENCE)
            peer.sendall(msgspec.json.encode(self.report()))
        except OSError:
            _log.debug("a process asked and did not wait")
        except Exception:  # or nobody would be answered any more
            _log.exception("no report of this process can be given")


def _listener(directory: str, slot: int) -> socket.socket:
    """Where the process with a slot is asked."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(directory) as reachable:
            name = f"{reachable}/{slot}.sock"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # of the slot's last owner
            sock.bind(name)
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


def _ask(name: str) -> Report | None:
    """What the process at a socket is doing; None if nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(name)
            data = bytearray()
            while block := sock.recv(1 << 20):
                data += block
        return msgspec.json.decode(data, type=Report)
    except (OSError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def _reachable(directory: str) -> Iterator[str]:
    """A short name of a directory: that of a socket has 107 bytes at most."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
