"""The images that a cache is used for while it is killed."""

import random
import uuid

KIB = 1 << 10
MAX_SIZE = 1000 * KIB

CONTENTS = {
    image_id: random.Random(image_id).randbytes((50 + 50 * number) * KIB)
    for number in range(1, 9)
    if (image_id := str(uuid.UUID(int=number)))
}
"""100 to 450 KiB that no other image has: three or four of them fit."""
