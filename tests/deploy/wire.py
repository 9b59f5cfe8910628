"""A client that writes and reads HTTP/1.1 byte by byte as a test wants it."""

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

GUARD = 30.0  # seconds; a hang guard


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Wire:
    """One connection, to a port or to the Unix socket at a path."""

    def __init__(self, port: int | Path, host: str = "127.0.0.1", receive_buffer: int = 0) -> None:
        if isinstance(port, Path):
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(GUARD)
        try:
            self.sock.connect(str(port) if isinstance(port, Path) else (host, port))
        except OSError:
            self.sock.close()
            raise
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *parts: bytes | str) -> None:
        self.sock.sendall(b"".join(p.encode() if isinstance(p, str) else p for p in parts))

    def head(self, method: str, target: str, *fields: str) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def request(self, method: str, target: str, *fields: str, body: bytes = b"") -> Answer:
        if body:
            fields = (*fields, f"Content-Length: {len(body)}")
        self.send(self.head(method, target, *fields), body)
        return self.answer(method)

    def buffered(self) -> bytes:
        """What has been read of the body together with its head."""
        read, self._read = self._read, b""
        return read

    def wait_for_head(self) -> None:
        """Wait until the next answer has begun, without using it up."""
        while b"\r\n\r\n" not in self._read:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self._read)
            self._read += data

    def read_head(self) -> Answer:
        """Status line and headers of the next answer, interim ones (1xx) included."""
        self.wait_for_head()
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (i.partition(":") for i in lines)
        }
        return Answer(int(first.split()[1]), headers)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer; ``whole`` is False when the connection ends before its body does."""
        answer = self.read_head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        length = int(answer.headers["content-length"])
        blocks, have = [self._read], len(self._read)
        while have < length:
            try:
                data = self.sock.recv(min(1 << 20, length - have))
            except ConnectionResetError:
                data = b""
            if not data:
                break
            blocks.append(data)
            have += len(data)
        read = b"".join(blocks)
        answer.body, self._read = read[:length], read[length:]
        answer.whole = len(answer.body) == length
        return answer

    def at_end(self) -> bool:
        """Wait for the server to say something; whether that is the end of the connection."""
        if self._read:
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return True
