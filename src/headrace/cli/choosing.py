"""Which image a command means: by its id, or by a name that only one image has."""

from itertools import islice

from headrace.client import Images
from headrace.errors import ImageNotFound, UsageError
from headrace.model import is_image_id


def chosen(images: Images, word: str) -> dict[str, object]:
    """The record of the image with the id or the name ``word``.

    ImageNotFound if there is none; UsageError if several have the name.
    """
    if is_image_id(word):
        return images.show(word)
    # "eq:" keeps a name such as "in:a" from being read as a comparison.
    found = list(islice(images.list({"name": f"eq:{word}"}, page_size=10), 10))
    if not found:
        raise ImageNotFound(image_id=word)
    if len(found) > 1:
        ids = ", ".join(str(image["id"]) for image in found)
        raise UsageError(reason=f"several images are named {word}: {ids}")
    return found[0]
