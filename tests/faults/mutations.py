"""Requests that are nearly right: what is known to be hard, changed a little."""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from tests.faults.corpus import End, Pause, Send, Step

MOST = 64 * 1024
"""Bytes of one mutation."""

_BYTES = [bytes([value]) for value in b"\r\n\t\0 :;,=/%\"'-+.0123456789afAF\x0b\x7f\x80\xb2\xff"]
_WORDS = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"100000000\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 70000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Range: bytes=-5\r\n",
    b"Accept: application/vnd.openstack.images-v2.3\r\n",
    b"X-Openstack-Image-Size: 5\r\n",
    b"Host: localhost\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HEAD ",
    b"GET /v2/images?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"{active}",
    b"{queued}",
    b"%00",
    b"%ff",
    b"//",
    b"?sort=",
    b"http://",
    b"[::1",
    b'{"name": "\xff',
    b'[{"op": "replace", "path": "/name", "value": "x"}]',
]
_NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"+1",
    b"65536",
    b"4294967296",
    b"9" * 19,
    b"9" * 400,
    b"1e3",
    b"0x1",
]

Way = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutate(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to eight ways."""
    data = dice.choice(seeds)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        data = dice.choice(_WAYS)(dice, data, seeds)[:MOST]
    return data


def torn(dice: random.Random, data: bytes) -> Iterator[Step]:
    """The data in up to six segments, most of them followed by the client's end."""
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.choice((0, 0, 1, 2, 5))))
    for first, last in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if first:
            yield Pause(dice.choice((0.0, 0.001, 0.01)))
        if first < last:
            yield Send(data[first:last])
    if dice.random() < 0.98:  # the others wait for as long as the server lets them
        yield End()


def _flip(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _replace(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice(_BYTES) + data[at + 1 :]


def _insert(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice((dice.choice(_BYTES), dice.choice(_WORDS))) + data[at:]


def _insert_line(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(dice.randint(0, len(lines)), dice.choice(_WORDS).removesuffix(b"\r\n"))
    return b"\r\n".join(lines)


def _delete(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    first, last = _span(dice, data)
    return data[:first] + data[last:]


def _delete_line(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    del lines[dice.randrange(len(lines))]
    return b"\r\n".join(lines)


def _duplicate(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    first, last = _span(dice, data)
    return data[:last] + data[first:last] * dice.choice((1, 1, 2, 50)) + data[last:]


def _exchange_lines(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"\r\n".join(lines)


def _renumber(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    first, last = dice.choice(found).span()
    return data[:first] + dice.choice(_NUMBERS) + data[last:]


def _splice(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = dice.choice(seeds)
    return data[: dice.randint(0, len(data))] + other[dice.randint(0, len(other)) :]


def _append(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return data + dice.choice(seeds)


def _truncate(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return data[: dice.randint(0, len(data))]


def _span(dice: random.Random, data: bytes) -> tuple[int, int]:
    first = dice.randint(0, len(data))
    return first, min(len(data), first + dice.choice((1, 2, 4, 16, 64, 1000)))


_WAYS: Sequence[Way] = (
    _flip, _replace, _insert, _insert_line, _delete, _delete_line, _duplicate, _exchange_lines,
    _renumber, _splice, _append, _truncate,
)  # fmt: skip
