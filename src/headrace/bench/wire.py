"""The control connection between the two ends of a measurement.

Messages are JSON objects, each after its length in four bytes.  Both ends first say what they speak
and a number used once; if there is a secret, each proves by an HMAC of both numbers that it has it.
"""

import hashlib
import hmac
import json
import secrets
import socket
import struct
from typing import Any

from headrace.errors import ClientError, ConnectionFailed

VERSION = 2
PATIENCE = 5.0
"""Seconds for which an end may be silent when it has something to say."""

_SPEAKS = "headrace bench"
_LONGEST = 64 << 10  # bytes of a message
_LENGTH = struct.Struct("!I")

Message = dict[str, Any]


class Control:
    """One end of a control connection; ``peer`` is how errors name the other.

    Raises ConnectionFailed when the other end is silent or gone, ClientError when it does not make
    sense or says that it failed.
    """

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._sock = sock
        self._peer = peer

    def say(self, **words: object) -> None:
        data = json.dumps(words).encode()
        try:
            self._sock.settimeout(PATIENCE)
            self._sock.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    def hear(self, *wanted: str, patience: float = PATIENCE) -> Message:
        """The next message, which has all of ``wanted`` in it."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size, patience))
        if length > _LONGEST:
            raise self._senseless()
        try:
            message = json.loads(self._take(length, PATIENCE))
        except ValueError as error:
            raise self._senseless() from error
        if not isinstance(message, dict):
            raise self._senseless()
        if "failed" in message:
            raise ClientError(reason=f"{self._peer} failed: {message['failed']}")
        if not all(name in message for name in wanted):
            raise self._senseless()
        return message

    def greet(self, secret: bytes | None) -> None:
        """Agree on the language, and on the secret if there is one."""
        mine = secrets.token_hex(16)
        self.say(speaks=_SPEAKS, version=VERSION, once=mine, guarded=secret is not None)
        theirs = self.hear("speaks", "version", "once", "guarded")
        if theirs["speaks"] != _SPEAKS:
            raise self._senseless()
        if theirs["version"] != VERSION:
            raise ClientError(
                reason=f"{self._peer} speaks version {theirs['version']} of the measurement "
                f"protocol, this end {VERSION}"
            )
        if theirs["guarded"] != (secret is not None):
            who = "that end" if theirs["guarded"] else "this end"
            raise ClientError(reason=f"{self._peer}: only {who} has a secret")
        if secret is not None:
            self._prove(secret, mine, str(theirs["once"]))

    def _prove(self, secret: bytes, mine: str, theirs: str) -> None:
        self.say(proof=_proof(secret, mine, theirs))
        proof = self.hear("proof")["proof"]
        if not hmac.compare_digest(str(proof), _proof(secret, theirs, mine)):
            raise ClientError(reason=f"{self._peer} has another secret")

    def _take(self, size: int, patience: float) -> bytes:
        data = b""
        try:
            self._sock.settimeout(patience)
            while len(data) < size:
                block = self._sock.recv(size - len(data))
                if not block:
                    raise self._gone("it closed the connection")
                data += block
        except TimeoutError as error:
            raise self._gone(f"it says nothing for {patience:g} s") from error
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error
        return data

    def _gone(self, reason: str) -> ConnectionFailed:
        return ConnectionFailed(url=self._peer, reason=reason)

    def _senseless(self) -> ClientError:
        return ClientError(reason=f"{self._peer} does not speak the measurement protocol")


def _proof(secret: bytes, first: str, second: str) -> str:
    return hmac.new(secret, f"{first} {second}".encode(), hashlib.sha256).hexdigest()
