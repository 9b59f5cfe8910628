"""The stores that the settings describe, a maker for each type of them."""

import os
from collections.abc import Callable
from urllib.parse import urlsplit

from oslo_config import cfg

from headrace import config, errors, store_settings, swift_settings
from headrace.client import clouds
from headrace.client.clouds import Cloud
from headrace.model import MIB
from headrace.stores.base import Store
from headrace.stores.ceph import Cluster
from headrace.stores.destinations import Destinations, Rules
from headrace.stores.filesystem import FilesystemStore
from headrace.stores.http import HttpStore
from headrace.stores.imageapi import ImageApiStore
from headrace.stores.listed import ListedFiles
from headrace.stores.mountpoints import MountPoints
from headrace.stores.origin import Origins
from headrace.stores.rbd import RbdStore
from headrace.stores.registry import Label, Registry
from headrace.stores.s3 import S3Store


def registry(conf: cfg.ConfigOpts) -> Registry:
    """The stores that ``conf`` describes, and the files that administrators may register in place.

    Raises ConfigurationError.
    """
    default = store_settings.default(conf)
    stores = [
        _MAKERS[each.kind](conf, each.id, each.group) for each in store_settings.described(conf)
    ]
    labels: dict[str, Label] | None = None
    if kinds := config.backends(conf):
        labels = {each: Label(conf[each].store_description, conf[each].weight) for each in kinds}
    directories = config.image_dirs(conf)
    listed = ListedFiles("", conf.headrace.location_directories, directories)
    return Registry(stores, default.id, labels, [listed])


def destinations(conf: cfg.ConfigOpts) -> Destinations:
    """The filter of all addresses that the service fetches from."""
    options = conf.import_filtering_opts
    return Destinations(Rules(**{name: tuple(options[name]) for name in options}))


def _filesystem(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    file = conf[group].filesystem_store_metadata_file
    return FilesystemStore(
        store_id,
        config.image_dir(conf, store_id),
        file_perm=config.file_perm(conf, store_id),
        mountpoints=MountPoints.read(file) if file else None,
    )


def _http(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    options = conf[group]
    origins = Origins(
        destinations(conf),
        cafile=options.https_ca_certificates_file,
        insecure=options.https_insecure,
        stall=conf.headrace.stall_timeout,
    )
    return HttpStore(store_id, origins, conf.headrace.max_remote_downloads)


def _imageapi(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    options = conf[group]
    try:
        cloud = Cloud()
        if options.imageapi_cloud:
            cloud = clouds.from_file(options.imageapi_cloud, os.environ)
        where = options.imageapi_endpoint or cloud.endpoint
        keystone = clouds.keystone_of(cloud) if cloud.asks_keystone else None
        if where is None and keystone is None:
            raise errors.UsageError(reason="neither imageapi_endpoint nor imageapi_cloud is set")
    except errors.ClientError as error:
        raise errors.ConfigurationError(reason=f"store {store_id!r}: {error}") from error
    stall = conf.headrace.stall_timeout
    return ImageApiStore(
        store_id,
        lambda: clouds.connect(cloud, where, keystone=keystone, timeout=stall),
        options.imageapi_stands_for,
        conf.headrace.max_remote_downloads,
    )


def _swift(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    from headrace.stores.swift import SwiftStore
    from headrace.stores.swift_account import Access, Reference
    from headrace.stores.swift_place import Containers

    options = conf[group]
    references = swift_settings.references(conf, group)
    return SwiftStore(
        store_id,
        {name: Reference(**fields) for name, fields in references.items()},
        options.default_swift_reference,
        Access(
            swift_settings.endpoint(conf, group),
            options.swift_store_endpoint_type.removesuffix("URL"),
            options.swift_store_region,
            options.swift_store_service_type,
            options.swift_store_cacert,
            options.swift_store_auth_insecure,
            conf.headrace.stall_timeout,
        ),
        Containers(
            options.swift_store_container,
            options.swift_store_multiple_containers_seed,
            options.swift_store_create_container_on_put,
        ),
        options.swift_upload_buffer_dir or config.state_dir(conf),
        segment=options.swift_store_large_object_chunk_size * MIB,
        large=options.swift_store_large_object_size * MIB,
        retries=options.swift_store_retry_get_count,
        most=conf.headrace.max_remote_downloads,
        passing_key=options.swift_temp_url_key if _redirected(conf) else None,
    )


def _rbd(conf: cfg.ConfigOpts, store_id: str, group: str) -> Store:
    options, headrace = conf[group], conf.headrace
    timeout = options.rados_connect_timeout
    cluster = Cluster(
        options.rbd_store_ceph_conf,
        options.rbd_store_user,
        headrace.stall_timeout if timeout < 0 else timeout,
    )
    return RbdStore(
        store_id,
        cluster,
        options.rbd_store_pool,
        config.staging_dir(conf),
        chunk_size=options.rbd_store_chunk_size,
        thin=options.rbd_thin_provisioning,
        most=headrace.max_remote_downloads,
    )


def redirects(conf: cfg.ConfigOpts) -> dict[str, str]:
    """Where a server in front is sent for data, each with the file of its authorities or "".

    Raises ConfigurationError where that cannot be known before the store is asked.
    """
    found: dict[str, str] = {}
    for store in store_settings.described(conf) if conf.headrace.store_redirect else ():
        options = conf[store.group]
        if store.kind == "s3":
            found[_s3(conf, store.id, store.group).origin] = options.s3_store_cacert
        elif store.kind == "swift" and options.swift_temp_url_key:
            endpoint = swift_settings.endpoint(conf, store.group)
            if endpoint is None:
                reason = f"store {store.id!r}: swift_temp_url_key needs swift_store_endpoint"
                raise errors.ConfigurationError(reason=reason)
            where = urlsplit(endpoint)
            found[f"{where.scheme}://{where.netloc}"] = options.swift_store_cacert or ""
    return found


def _redirected(conf: cfg.ConfigOpts) -> bool:
    return bool(conf.headrace.store_redirect and conf.headrace.delivery == "x-accel-redirect")


def _s3(conf: cfg.ConfigOpts, store_id: str, group: str) -> S3Store:
    options = conf[group]
    return S3Store(
        store_id,
        options.s3_store_host,
        options.s3_store_bucket,
        options.s3_store_access_key,
        options.s3_store_secret_key,
        windows=config.staging_dir(conf),
        region=options.s3_store_region_name,
        style=options.s3_store_bucket_url_format,
        creates=options.s3_store_create_bucket_on_put,
        large=options.s3_store_large_object_size * MIB,
        chunk=options.s3_store_large_object_chunk_size * MIB,
        streams=options.s3_store_thread_pools,
        cafile=options.s3_store_cacert or None,
        stall=conf.headrace.stall_timeout,
        most=conf.headrace.max_remote_downloads,
        passes_by=_redirected(conf),
    )


# By type: from the settings, the store's id and the group of its own settings.  A library that only
# one type needs is loaded by its maker.
_MAKERS: dict[str, Callable[[cfg.ConfigOpts, str, str], Store]] = {
    "file": _filesystem,
    "http": _http,
    "imageapi": _imageapi,
    "swift": _swift,
    "rbd": _rbd,
    "s3": _s3,
}
