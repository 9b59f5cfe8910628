"""All that the clients have for images, as JSON: by client, the names of its commands or calls."""

import inspect
import json
from importlib.metadata import entry_points

from glanceclient.v2 import (
    image_members,
    image_tags,
    images,
    info,
    metadefs,
    schemas,
    shell,
    tasks,
    versions,
)
from openstack.image.v2 import _proxy

CONTROLLERS = (image_members, image_tags, images, info, metadefs, schemas, tasks, versions)


def methods(cls: type) -> list[str]:
    """The public methods that the class itself defines."""
    return [name for name, each in vars(cls).items() if inspect.isfunction(each) and name[0] != "_"]


def calls() -> list[str]:
    """The methods of python-glanceclient's controllers."""
    return [
        f"{module.__name__.rpartition('.')[2]}.{cls.__qualname__}.{name}"
        for module in CONTROLLERS
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
        and cls.__name__.endswith("Controller")
        for name in methods(cls)
    ]  # fmt: skip


print(
    json.dumps(
        {
            "glance": [
                name.removeprefix("do_").replace("_", "-")
                for name in vars(shell)
                if name.startswith("do_")
            ],
            "openstack": [
                each.name.replace("_", " ") for each in entry_points(group="openstack.image.v2")
            ],
            "python-glanceclient": calls(),
            "openstacksdk": methods(_proxy.Proxy),
        }
    )
)
