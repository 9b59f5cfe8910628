"""What converts images on a compute host: the program qemu-img, as the service itself runs it.

Inspected before and told what the data is, under limits, by descriptors alone; see
service/conversion.py.
"""

from datetime import datetime

from headrace import errors
from headrace.cache.conversions import Convert
from headrace.model import Image
from headrace.service.conversion import Conversion
from headrace.service.plugins import Staged, Work
from headrace.transfer.engine import Progress

_RATIO = 200  # how many bytes may be made of each that came, as the service has it by default
_VMDK_TYPES = ("streamOptimized", "monolithicSparse")


def converter(format: str, size_cap: int, progress: Progress) -> Convert:
    """Converts to ``format`` disks of at most ``size_cap`` bytes; ClientError without qemu-img."""
    try:
        conversion = Conversion(format, size_cap, _RATIO, _VMDK_TYPES, ())
    except errors.ConfigurationError as error:
        raise errors.ClientError(
            reason="--convert needs the programs qemu-img, setpriv and prlimit"
        ) from error

    def convert(fd: int, size: int, declared: str, into: int) -> bool:
        now = datetime.min
        image = Image(
            id="", disk_format=declared, container_format="bare", created_at=now, updated_at=now
        )
        work = Work(frozenset(), lambda: into, progress)
        try:
            return conversion(Staged(fd, size, image), work).fd == into
        except errors.ImageTooLarge as error:
            raise errors.ClientError(
                reason=f"the disk in the image has more bytes than all of the cache: {size_cap}"
            ) from error
        except errors.ExpandsTooMuch as error:
            raise errors.ClientError(
                reason=f"the disk in the image is more than {_RATIO} times its size"
            ) from error

    return convert
