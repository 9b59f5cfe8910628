"""The digests of data that lies somewhere already."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable

from headrace import errors
from headrace.model import MIB
from headrace.stores.base import Data

_LOOK_AGAIN = 5.0  # seconds


class Stopped(Exception):
    """Nobody wants the digests any more."""


def hash_data(data: Data, algorithms: Iterable[str], wanted: Callable[[], bool]) -> dict[str, str]:
    """The digests of all of ``data``, by algorithm; closes it.

    ``wanted`` is asked every few seconds whether to go on.  Raises Stopped; TransferError,
    also when the data ends early.
    """
    # For integrity only, which a FIPS build wants to be told before it gives an md5.
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    look = time.monotonic() + _LOOK_AGAIN
    with contextlib.closing(data):
        while block := data.read(MIB):
            for each in hashes.values():
                each.update(block)
            if time.monotonic() >= look:
                if not wanted():
                    raise Stopped
                look = time.monotonic() + _LOOK_AGAIN
        if data.sent != data.length:
            raise errors.TransferError(reason="the data ended early", moved=data.sent)
    return {name: each.hexdigest() for name, each in hashes.items()}
