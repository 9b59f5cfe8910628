"""Which image a command means: by its id, or by a name that only one image has."""

from itertools import islice

from headrace.client import Images
from headrace.errors import ImageNotFound, UsageError
from headrace.model import is_image_id

LISTED = 10  # of the images of one name, so many are told


def chosen(images: Images, word: str) -> dict[str, object]:
    """The record of the image with the id or the name ``word``; a hidden one if no other has it.

    ImageNotFound if there is none; UsageError if several have the name.
    """
    if is_image_id(word):
        return images.show(word)
    # "eq:" keeps a name such as "in:a" from being read as a comparison.
    named = {"name": f"eq:{word}"}
    found = _first(images, named) or _first(images, named | {"os_hidden": "true"})
    if not found:
        raise ImageNotFound(image_id=word)
    if len(found) > 1:
        ids = [str(image["id"]) for image in found[:LISTED]]
        more = ["and more"] if len(found) > LISTED else []
        raise UsageError(reason=f"several images are named {word}: {', '.join(ids + more)}")
    return found[0]


def _first(images: Images, filters: dict[str, str]) -> list[dict[str, object]]:
    """The images that pass, but of many only one more than are told."""
    return list(islice(images.list(filters, page_size=LISTED + 1), LISTED + 1))
