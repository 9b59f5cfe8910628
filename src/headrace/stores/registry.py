"""The stores of one service, by id and by location."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace import errors
from headrace.model import Location
from headrace.stores.base import Cloning, Store


@dataclass(frozen=True, slots=True)
class Label:
    """What is said of one of several stores; the one that weighs most is read first."""

    description: str = ""
    weight: int = 0


class Registry:
    """Stores in their order; ``default`` is the id of the one that takes what names no other.

    ``labels`` are those of several stores, by id; None where there is only one, of which nothing is
    said and nothing noted.  ``unlisted`` are stores without a name: a location is found to lie in
    one, and nobody is told.
    """

    def __init__(
        self,
        stores: Iterable[Store],
        default: str,
        labels: Mapping[str, Label] | None = None,
        unlisted: Iterable[Store] = (),
    ) -> None:
        self._stores = {store.id: store for store in stores}
        self._unlisted = list(unlisted)
        self.several = labels is not None
        self._labels = labels or {}
        self.default = self.get(default)

    def all(self) -> list[Store]:
        """The stores that have a name."""
        return list(self._stores.values())

    def label(self, store_id: str) -> Label:
        return self._labels.get(store_id) or Label()

    def get(self, store_id: str) -> Store:
        """The store of that id (case-sensitive); raises StoreNotFound."""
        try:
            return self._stores[store_id]
        except KeyError:
            raise errors.StoreNotFound(store=store_id) from None

    def chosen(self, store_id: str | None) -> Store:
        """The store that a caller chose; the default one for None, and where there is but one.

        Raises UnknownStore.
        """
        if store_id is None or not self.several:
            return self.default
        if store_id not in self._stores:
            raise errors.UnknownStore(store=store_id)
        return self._stores[store_id]

    def for_location(self, location: Location) -> Store:
        """The store a location lies in: the one its metadata names, else the one its URL tells.

        Raises StoreNotFound.
        """
        named = self._stores.get(str(location.metadata.get("store")))
        if named is not None and named.holds(location.url):
            return named
        for store in (*self._stores.values(), *self._unlisted):
            if store.holds(location.url):
                return store
        raise errors.StoreNotFound(store=location.url.partition(":")[0])

    def find(self, location: Location) -> Store | None:
        """The same, None where there is no such store."""
        try:
            return self.for_location(location)
        except errors.StoreNotFound:
            return None

    def require_unused(self, locations: Iterable[Location]) -> None:
        """Raises DataInUse when data at one of the locations cannot be removed now."""
        for location in locations:
            store: object = self.find(location)
            if isinstance(store, Cloning) and store.in_use(location.url):
                raise errors.DataInUse()

    def listed(self, store: Store) -> bool:
        """Whether a store has a name."""
        return store.id in self._stores

    def public(self, store: Store) -> bool:
        """Whether everybody may name locations of the store, and not only administrators.

        Those are addresses, which a filter judges.
        """
        return self.listed(store) and store.kind == "http"

    def place(self, store: Store, url: str) -> Location:
        """The location ``url`` of a store, with what is to be noted beside it."""
        return self.mended(Location(url, store.metadata(url)), store)

    def mended(self, location: Location, store: Store | None = None) -> Location:
        """The location with the right store noted beside it, where there are several."""
        store = store or self.find(location)
        if not self.several or store is None or not self.listed(store):
            return location
        if location.metadata.get("store") == store.id:
            return location
        return replace(location, metadata={**location.metadata, "store": store.id})

    def ordered(
        self, locations: Sequence[Location], preferred: Sequence[str] = ()
    ) -> Sequence[Location]:
        """The locations in the order in which they are to be tried, mended.

        Those in ``preferred`` stores first, then by weight, then as they were recorded.
        """
        if not self.several:
            return locations
        mended = [self.mended(each) for each in locations]
        return sorted(mended, key=lambda each: self._rank(each, preferred))

    def _rank(self, location: Location, preferred: Sequence[str]) -> tuple[int, int]:
        store_id = str(location.metadata.get("store"))
        first = preferred.index(store_id) if store_id in preferred else len(preferred)
        return first, -self.label(store_id).weight
