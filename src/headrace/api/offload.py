"""Uploads that nginx receives in our place: their bodies arrive as files.

Before nginx reads a byte of a body it asks (``X-Headrace-Upload: ask``): 204 has it write the body
to a file of the one agreed directory, 403 has it pass the request on as it is, so that a refusal
comes from where all refusals come from, with its own status.  When the file is whole, nginx sends
the request without its body and names the file (``X-Headrace-Upload: file``).

These headers count only on a Unix socket whose peer runs as our own user: nobody else can have
written into the directory, and an address would prove nothing.
"""

import logging
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from headrace import errors
from headrace.stores.arrivals import Arrival, Arrivals
from headrace.transfer.engine import Source
from headrace.transfer.extent import Extent

Environ = dict[str, Any]

_log = logging.getLogger(__name__)

_UPLOAD = "HTTP_X_HEADRACE_UPLOAD"
_FILE = "HTTP_X_HEADRACE_UPLOAD_FILE"
_LENGTH = "HTTP_X_HEADRACE_UPLOAD_LENGTH"


class ArrivedBody:
    """A body that lies in a file: to be linked, or copied within the kernel."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self.file: int | None = arrival.fd
        self.length: int | None = arrival.length

    def pieces(self) -> Iterator[Source]:
        if self._arrival.length:
            yield Extent(self._arrival.fd, 0, self._arrival.length)


class Offload:
    """What nginx says of bodies that it receives; without ``arrivals`` there are none to be taken.

    Warns at once when the directory cannot be used.
    """

    def __init__(self, arrivals: Arrivals | None) -> None:
        self._arrivals = arrivals
        self._told: str | None = None
        if arrivals is not None:
            self._tell(arrivals.refusal())

    def permit(self, env: Environ) -> int | None:
        """The length of the body that is asked for, None if that is not known.

        Raises Forbidden when it is not to be written to a file.
        """
        reason = self._refusal(env)
        if reason is not None:
            raise errors.Forbidden(reason=f"uploads are not offloaded: {reason}")
        return _length(env)

    def arrival(self, env: Environ) -> Arrival | None:
        """The file with the request's body, if it was written to one.

        Raises BadRequest when it was, and cannot be taken: the request would look as if empty.
        """
        if env.get(_UPLOAD) is None or (_FILE not in env and _length(env) == 0):
            return None
        reason = self._refusal(env)
        if reason is not None or self._arrivals is None:
            raise errors.BadRequest(reason=f"an upload cannot come as a file: {reason}")
        # PEP 3333 has headers as latin-1, whatever they are.
        arrival = self._arrivals.take(os.fsdecode(env.get(_FILE, "").encode("latin-1")))
        if arrival.length != _length(env):
            with arrival:
                raise errors.UploadIncomplete(reason="its file is not as long as its body was")
        return arrival

    def _refusal(self, env: Environ) -> str | None:
        if self._arrivals is None:
            return "upload_offload is off"
        reason = _strangeness(env) or self._arrivals.refusal()
        self._tell(reason)
        return reason

    def _tell(self, reason: str | None) -> None:
        """Log why nothing is offloaded, once."""
        if reason is not None and reason != self._told:
            _log.warning("uploads are not offloaded: %s", reason)
        self._told = reason


def is_question(env: Environ) -> bool:
    """Whether the request only asks if an upload's body may be written to a file."""
    return env.get(_UPLOAD) == "ask"


def is_arrival(env: Environ) -> bool:
    """Whether the request's body has arrived in a file, so that nginx asked before it was sent."""
    return env.get(_UPLOAD) == "file" and _strangeness(env) is None


def _length(env: Environ) -> int | None:
    text = str(env.get(_LENGTH, ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _strangeness(env: Environ) -> str | None:
    """Why the peer is not believed, if so: it must be a process of our own user on this machine."""
    sock = env.get("gunicorn.socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return "this is said on a connection that is no Unix socket"
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    if uid != os.geteuid():
        return (
            f"this is said by a process of user {uid}, and this is {os.geteuid()}: the workers of "
            "nginx must run as the same user"
        )
    return None
