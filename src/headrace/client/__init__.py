"""The client library: ``Images(Connection("http://host:9292")).upload(image_id, "disk.qcow2")``.

Where and as whom, clouds.yaml and OS_* may say: ``clouds.connect(clouds.chosen(os.environ))``.
Standard library only, but for reading that file and asking Keystone; errors are those of
headrace.errors.
"""

from headrace.client.cache import Cache
from headrace.client.connection import Answer, Connection
from headrace.client.download import Downloaded
from headrace.client.images import Images
from headrace.client.imports import Imports
from headrace.client.members import Members
from headrace.client.metadefs import Metadefs
from headrace.client.stores import Stores
from headrace.client.upload import Body
from headrace.client.usage import Usage

__all__ = [
    "Answer",
    "Body",
    "Cache",
    "Connection",
    "Downloaded",
    "Images",
    "Imports",
    "Members",
    "Metadefs",
    "Stores",
    "Usage",
]
