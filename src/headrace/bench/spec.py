"""What is to be measured."""

from dataclasses import dataclass

RAW_TESTS = (
    "TCP_STREAM", "TCP_MAERTS", "TCP_SENDFILE", "TCP_SPLICE", "TCP_ZEROCOPY", "TCP_RR",
)  # fmt: skip
BOOT_STORM = "BOOT_STORM"
IMAGE_TESTS = ("IMAGE_GET", "IMAGE_PUT", "IMAGE_RANGE", BOOT_STORM)
TESTS = (*RAW_TESTS, *IMAGE_TESTS)

FROM_FILE = ("TCP_SENDFILE", "TCP_SPLICE", "IMAGE_PUT")
TO_HERE = ("TCP_MAERTS", "IMAGE_GET", "IMAGE_RANGE", BOOT_STORM)
"""The tests whose data goes to the near end."""

COPY = "copy"
WAYS = {
    "IMAGE_GET": ("splice", COPY),
    "IMAGE_PUT": ("sendfile", "splice", COPY),
    "IMAGE_RANGE": ("splice", COPY),
    BOOT_STORM: ("drop",),
}
"""How the near end of an image test may move the bytes; the first is what it does unless told."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One measurement: sizes in bytes, ``seconds`` or ``nbytes`` (transactions of TCP_RR) long.

    ``local_buffer`` and ``remote_buffer`` are for send and receive each; None leaves the system's.
    Of image tests, ``via`` is the near end's way, ``streams`` how many clients there are at once,
    ``slow`` the bytes a second that each of them takes or gives at most, and ``request`` the size
    of IMAGE_RANGE's ranges.  ``cold``: what is read is not in the page cache, and is read once.
    BOOT_STORM ends with its ``streams``; ``seconds`` are for what it is compared with afterwards.
    """

    test: str
    seconds: float | None = 10.0
    nbytes: int | None = None
    send_size: int | None = None
    receive_size: int | None = None
    local_buffer: int | None = None
    remote_buffer: int | None = None
    nodelay: bool = False
    congestion: str | None = None
    request: int = 1
    response: int = 1
    data_port: int = 0
    sink: str | None = None
    via: str | None = None
    streams: int = 1
    slow: int | None = None
    cold: bool = False

    @property
    def counts_transactions(self) -> bool:
        """Whether its throughput is of transactions, and its service demand by the transaction."""
        return self.test == "TCP_RR"
