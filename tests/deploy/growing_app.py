"""``application`` for foreign hosts, as headrace.server.wsgi, with images that are being filled.

Its filesystem store opens, of an image that has a file of its name in ``growing`` of the store's
directory, that one, which is to become as long as the image's own.
"""

import os

from oslo_config import cfg

from headrace import config
from headrace.api import backends
from headrace.server.wsgi import application as application
from headrace.stores.base import Store
from headrace.stores.filesystem import FilesystemStore
from headrace.transfer.extent import Extent
from headrace.transfer.growing import Growing
from tests.deploy.wire import GUARD

DIRECTORY = "growing"


class GrowingStore(FilesystemStore):
    """The filesystem store, of which some files are on their way."""

    def open(self, url: str) -> Extent:
        whole = super().open(url)
        directory, name = os.path.split(whole.path)
        try:
            fd = os.open(os.path.join(directory, DIRECTORY, name), os.O_RDONLY)
        except FileNotFoundError:
            return whole
        whole.close()
        return Growing(fd, whole.length, whole.path, stall=GUARD)


def _growing(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    return GrowingStore(store_id, config.image_dir(conf, store_id))


backends._MAKERS["file"] = _growing
