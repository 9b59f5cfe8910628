"""The stores of one service, by id and by location."""

from collections.abc import Iterable

from headrace import errors
from headrace.model import Location
from headrace.stores.base import Store


class Registry:
    """Stores in the order of preference; ``default`` is the id of the one that takes new data."""

    def __init__(self, stores: Iterable[Store], default: str) -> None:
        self._stores = {store.id: store for store in stores}
        self.default = self.get(default)

    def all(self) -> list[Store]:
        return list(self._stores.values())

    def get(self, store_id: str) -> Store:
        """The store of that id (case-sensitive); raises StoreNotFound."""
        try:
            return self._stores[store_id]
        except KeyError:
            raise errors.StoreNotFound(store=store_id) from None

    def for_location(self, location: Location) -> Store:
        """The store a location lies in: the one its metadata names, else the first of its scheme.

        A name that is unknown counts as none.  Raises StoreNotFound.
        """
        named = self._stores.get(str(location.metadata.get("store")))
        if named is not None:
            return named
        scheme = location.url.partition(":")[0]
        for store in self._stores.values():
            if scheme in store.schemes:
                return store
        raise errors.StoreNotFound(store=scheme)
