"""What an image's record tells of where its data lies."""

from dataclasses import dataclass

from headrace.model import Image
from headrace.service import policy
from headrace.service.context import Context
from headrace.stores.registry import Registry


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The fields stores, direct_url and locations.

    ``direct_url`` and ``locations`` are whether those are shown at all; stores is shown where there
    are several.
    """

    stores: Registry
    direct_url: bool
    locations: bool

    def of(self, image: Image, caller: Context) -> dict[str, object]:
        """The fields that the caller sees of the image."""
        told: dict[str, object] = {}
        if not policy.shows_locations(caller, image):
            return told
        places = self.stores.ordered(image.locations)
        ids = [str(each.metadata["store"]) for each in places if "store" in each.metadata]
        if self.stores.several and ids:
            told["stores"] = ",".join(ids)
        if self.direct_url and places:
            told["direct_url"] = places[0].shown
        if self.locations:
            told["locations"] = [{"url": each.shown, "metadata": each.metadata} for each in places]
        return told
