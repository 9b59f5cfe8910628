"""The settings of stores: of several (``enabled_backends``), or of the one that takes data.

Each of several stores has a group that is named by its id, with the options of its type.  Without
them there is the one store ``default_store``, a directory by default, and perhaps others that are
only read (``stores``): each is named by its type, and all have their options in one group.
"""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from oslo_config import cfg

from headrace import errors, s3_settings, swift_settings

FILE: list[cfg.Opt] = [
    cfg.StrOpt(
        "filesystem_store_datadir",
        help="Directory of the image files. Of the one store there is without enabled_backends it "
        "is 'images' in the state directory when unset.",
    ),
    cfg.StrOpt(
        "filesystem_store_file_perm",
        default="0",
        help="Octal mode of image files, such as 0640 for a front end that reads them; "
        "0 leaves it to the umask.",
    ),
    cfg.StrOpt(
        "filesystem_store_metadata_file",
        help="JSON file with an object, or a list of objects, that have an 'id' and a "
        "'mountpoint': the first whose mountpoint an image file lies below is noted beside the "
        "file's location.",
    ),
]

RBD: list[cfg.Opt] = [
    cfg.StrOpt("rbd_store_pool", default="images", help="The pool that holds the images."),
    cfg.StrOpt(
        "rbd_store_user",
        help="Who connects to Ceph, without 'client.'; 'admin' when unset, as with Ceph's own "
        "commands.",
    ),
    cfg.StrOpt(
        "rbd_store_ceph_conf",
        default="",
        help="The ceph.conf that says where the cluster and the user's keyring are; when unset, "
        "where Ceph looks for it, as in /etc/ceph.",
    ),
    cfg.IntOpt(
        "rbd_store_chunk_size",
        default=8,
        min=1,
        max=32,
        help="MiB of an object, of which an image has as many as it takes: a power of two, or the "
        "next smaller one is taken.",
    ),
    cfg.IntOpt(
        "rados_connect_timeout",
        default=-1,
        help="Seconds that the cluster may not answer, connected or not. Negative: stall_timeout, "
        "where Glance waits for ever.",
    ),
    cfg.BoolOpt(
        "rbd_thin_provisioning",
        default=False,
        help="Do not write what is all zeros, 1 MiB at a time; it is read as zeros all the same.",
    ),
]

OF_TYPE: dict[str, list[cfg.Opt]] = {
    "file": FILE,
    "http": [
        cfg.StrOpt(
            "https_ca_certificates_file",
            help="Certificate authorities that origins are verified by; the system's when unset.",
        ),
        cfg.BoolOpt(
            "https_insecure",
            default=False,
            help="Do not verify the certificates of origins. Glance's default is true.",
        ),
    ],
    "imageapi": [
        cfg.StrOpt(
            "imageapi_endpoint",
            help="URL of the image service that this one reads from, such as "
            "http://glance.example.org:9292; that of imageapi_cloud when unset.",
        ),
        cfg.StrOpt(
            "imageapi_cloud",
            help="The cloud of clouds.yaml as whom that service is asked; without one, nobody.",
        ),
        cfg.ListOpt(
            "imageapi_stands_for",
            default=[],
            help="Directories of that service's own stores, as URLs: file:///var/lib/glance/images "
            "when the database is shared with it, so that its images are read through it.",
        ),
    ],
    "swift": swift_settings.OPTIONS,
    "rbd": RBD,
    "s3": s3_settings.OPTIONS,
}
"""The settings of a store of each type, in the group that has its id."""

READ_ONLY = ("http", "imageapi")
"""The types of stores that take no data."""

_REQUIRED = {
    "s3": s3_settings.REQUIRED,
    "swift": ("swift_store_container",),
    "rbd": ("rbd_store_pool",),
}

COMMON: list[cfg.Opt] = [
    cfg.StrOpt("store_description", default="", help="What users are told of the store."),
    cfg.IntOpt(
        "weight", default=0, help="Of several copies the one in the store that weighs most is read."
    ),
]
"""The settings that stores of all types have."""

RESERVED_PREFIX = "os_glance_"

ONE = "glance_store"
"""The group of the one store, and of all there are beside it."""

_SAME = {"filesystem": "file", "https": "http"}
"""The names that a Glance has besides for types of stores; also TYPE+SCHEME of some."""


class Described(NamedTuple):
    """A store of the settings: its id, its type, and the group of its own settings."""

    id: str
    kind: str
    group: str


def described(conf: cfg.ConfigOpts) -> list[Described]:
    """The stores there are, in their order."""
    if kinds := backends(conf):
        return [Described(each, kind, each) for each, kind in kinds.items()]
    options = conf[ONE]
    named = map(_kind, [options.default_store, *options.stores])
    return [Described(kind, kind, ONE) for kind in dict.fromkeys(named)]


def default(conf: cfg.ConfigOpts) -> Described:
    """The store that takes what names no other."""
    wanted = conf[ONE].default_backend if backends(conf) else _kind(conf[ONE].default_store)
    return next(each for each in described(conf) if each.id == wanted)


def _kind(name: str) -> str:
    name = name.partition("+")[0]
    return _SAME.get(name, name)


def backends(conf: cfg.ConfigOpts) -> dict[str, str]:
    """Id → type of several stores, in their order; empty when there is just one."""
    return dict(conf.enabled_backends or {})


def register(conf: cfg.ConfigOpts, taken: Iterable[str]) -> None:
    """Make the settings of all stores known; raises ConfigurationError.

    ``taken`` are the names of groups that no store can have for its id.
    """
    others = {name.lower() for name in taken}
    for store_id in backends(conf):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", store_id) or store_id.lower() in others:
            raise _wrong_store(store_id, "in enabled_backends this cannot be the id of a store")
        if store_id.startswith(RESERVED_PREFIX):
            raise _wrong_store(store_id, f"ids that begin with {RESERVED_PREFIX} are taken")
        conf.register_opts(COMMON, group=store_id)
    for store in described(conf):
        if store.kind not in OF_TYPE:
            known = ", ".join(OF_TYPE)
            raise _wrong_store(store.id, f"type {store.kind!r} is none of {known}")
        conf.register_opts(OF_TYPE[store.kind], group=store.group)


def check(conf: cfg.ConfigOpts) -> None:
    """Raises ConfigurationError for stores that do not go together, or lack what they need."""
    if backends(conf):
        _check_several(conf)
    elif (kind := default(conf).kind) in READ_ONLY:
        raise errors.ConfigurationError(reason=f"default_store {kind!r} takes no data")
    for store in described(conf):
        options = conf[store.group]
        for name in _REQUIRED.get(store.kind, ()):
            if not options[name]:
                raise _wrong_store(store.id, f"{name} is not set")
        if store.kind == "imageapi" and not _is_url(options.imageapi_endpoint):
            raise _wrong_store(store.id, "imageapi_endpoint is no http or https URL")


def _check_several(conf: cfg.ConfigOpts) -> None:
    kinds, wanted = backends(conf), conf[ONE].default_backend
    if wanted is None:
        raise errors.ConfigurationError(reason="enabled_backends needs a default_backend")
    if kinds.get(wanted, "http") in READ_ONLY:
        raise errors.ConfigurationError(
            reason=f"default_backend {wanted!r} is no store in enabled_backends that takes data"
        )
    seen: dict[str, str] = {}
    for store_id in (each for each, kind in kinds.items() if kind == "file"):
        if not conf[store_id].filesystem_store_datadir:
            raise _wrong_store(store_id, "filesystem_store_datadir is not set")
        directory = os.path.realpath(conf[store_id].filesystem_store_datadir)
        if (other := seen.setdefault(directory, store_id)) != store_id:
            raise _wrong_store(store_id, f"its directory is that of store {other}")


def _is_url(text: str | None) -> bool:
    return not text or text.startswith(("http://", "https://"))


def _wrong_store(store_id: str, reason: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(reason=f"store {store_id!r}: {reason}")
