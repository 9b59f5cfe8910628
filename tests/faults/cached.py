"""The images that a cache is used for while it is killed."""

import random
import uuid

KIB = 1 << 10
IMAGES = [str(uuid.UUID(int=number)) for number in range(1, 9)]
MAX_SIZE = 1000 * KIB


def content(image_id: str) -> bytes:
    """100 to 450 KiB that no other image has: three or four of them fit."""
    return random.Random(image_id).randbytes((50 + 50 * uuid.UUID(image_id).int) * KIB)
