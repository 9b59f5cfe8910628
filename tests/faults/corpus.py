"""Raw requests kept as files: what is sent, byte for byte, and what is expected of the server.

requests/README.md describes the format.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

REQUESTS = Path(__file__).with_name("requests")

_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[rnt0\\]|$)|\\")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\", b"": b""}
_STORED = re.compile(r"(.+?)(?: \* (\d+))?")


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes; with a ``pace``, one by one with so many seconds in between."""

    data: bytes
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for so many seconds; what comes next is a segment of its own."""

    seconds: float


@dataclass(frozen=True, slots=True)
class End:
    """The client has nothing more to say (FIN)."""


Step = Send | Pause | End


@dataclass(frozen=True)
class Case:
    """One file.  ``answers`` are the statuses that each answer may have, in order; ``open`` is
    whether the connection takes another request afterwards; ``stored`` is what the queued image
    holds then, None for nothing."""

    name: str
    text: str
    answers: tuple[frozenset[int], ...]
    open: bool
    stored: bytes | None

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return tuple(steps(self.text))

    @cached_property
    def seed(self) -> bytes:
        """What is sent, without its timing and with few repetitions, to be mutated."""
        return b"".join(s.data for s in steps(self.text, most=100) if isinstance(s, Send))


def cases() -> list[Case]:
    return [parse(path.stem, path.read_text()) for path in sorted(REQUESTS.glob("*.http"))]


def parse(name: str, text: str) -> Case:
    """Raises ValueError for what is no case."""
    head, body = _split(text)
    fields = dict(line.split(": ", 1) for line in head if re.match(r"(expect|stored): ", line))
    if "expect" not in fields or len(fields) == len(head):
        raise ValueError(f"{name}: says not what it is, or not what is expected")
    statuses, end = fields["expect"].rsplit(", ", 1)
    if end not in ("open", "closed"):
        raise ValueError(f"{name}: the connection is open or closed afterwards, not {end!r}")
    answers = [] if statuses == "nothing" else statuses.split()
    stored = None
    if found := _STORED.fullmatch(fields.get("stored", "")):
        stored = b"" if found[0] == "nothing" else found[1].encode() * int(found[2] or 1)
    return Case(
        name,
        body,
        tuple(frozenset(map(int, each.split("|"))) for each in answers),
        end == "open",
        stored,
    )


def steps(text: str, most: int | None = None) -> Iterator[Step]:
    """What the text says to send; nothing is repeated more than ``most`` times."""
    data, pace = b"", 0.0
    for line in text.splitlines():
        command, _, rest = line.partition(" ")
        if command == "@repeat":
            count, _, piece = rest.partition(" ")
            data += _unescape(piece) * min(int(count), most or int(count))
            continue
        if not line.startswith("@"):
            data += _unescape(line) + (b"" if _continues(line) else b"\r\n")
            continue
        if data:
            yield Send(data, pace)
            data = b""
        if command == "@slowly":
            pace = float(rest)
        elif command == "@pause":
            yield Pause(float(rest))
        elif line == "@end":
            yield End()
        else:
            raise ValueError(f"no such command: {line}")
    if data:
        yield Send(data, pace)


def text_of(parts: Sequence[Step]) -> str:
    """The text that ``steps`` reads as ``parts``, none of which has a pace."""
    found = []
    for number, part in enumerate(parts):
        if isinstance(part, Pause):
            found.append(f"@pause {part.seconds}\n")
        elif isinstance(part, End):
            found.append("@end\n")
        else:
            if number and isinstance(parts[number - 1], Send):
                found.append("@pause 0\n")
            found.append(_escape(part.data))
    return "".join(found)


def filled(parts: Sequence[Step], names: Mapping[str, str]) -> list[Step]:
    """With the values of ``names`` in the place of {name}."""
    return [
        replace(part, data=fill(part.data, names)) if isinstance(part, Send) else part
        for part in parts
    ]


def fill(data: bytes, names: Mapping[str, str]) -> bytes:
    for name, value in names.items():
        data = data.replace(b"{%s}" % name.encode(), value.encode())
    return data


def _split(text: str) -> tuple[list[str], str]:
    """The lines at the top that begin with "# ", without it, and the rest."""
    lines = text.splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    return [line[2:].rstrip("\n") for line in lines[:count]], "".join(lines[count:])


def _continues(line: str) -> bool:
    """Whether the line's last backslash is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescape(line: str) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise ValueError(f"no such escape: {line[found.start() :]}")
        return bytes.fromhex(found[1][1:].decode()) if found[1][:1] == b"x" else _PLAIN[found[1]]

    return _ESCAPE.sub(plain, line.encode())


def _escape(data: bytes) -> str:
    lines = []
    for line in data.split(b"\r\n"):
        shown = re.sub(rb"[^!-\[\]-~ ]|^[@#]| $", lambda found: b"\\x%02x" % found[0][0], line)
        lines.append(shown.decode())
    last = lines.pop()
    return "".join(f"{line}\n" for line in lines) + (f"{last}\\\n" if last else "")
