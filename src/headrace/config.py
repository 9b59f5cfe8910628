"""Reading the settings (``settings`` has the table), checking them, and what follows from them.

They come from files as ``glance-api.conf`` and from the environment, where each is named
``OS_<GROUP>__<OPTION>`` (oslo.config's own convention).  What else such a file sets is told at the
start (``foreign``).
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from oslo_config import cfg

from headrace import errors, keystone_settings, settings, store_settings
from headrace.headrace_settings import METRICS, PROJECT_LIMITS
from headrace.store_settings import backends as backends

_MIB = 1 << 20
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def load(
    files: Sequence[str | os.PathLike[str]] = (),
    overrides: Mapping[tuple[str, str], object] | None = None,
) -> cfg.ConfigOpts:
    """The settings from ``files`` (later ones win), the environment and ``overrides``.

    ``overrides`` maps (group, option) to a value, as a command line sets them.  Raises
    ConfigurationError when a file is missing or a value invalid.
    """
    conf = cfg.ConfigOpts()
    for group, options in settings.OPTIONS.items():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    names = [str(Path(file)) for file in files]
    wanted = dict(overrides or {})
    try:
        conf(args=[], project="headrace", default_config_files=names, default_config_dirs=[])
        if (several := wanted.pop(("DEFAULT", "enabled_backends"), None)) is not None:
            conf.set_override("enabled_backends", several)
        store_settings.register(
            conf, [*settings.OPTIONS, keystone_settings.GROUP, keystone_settings.LIMITS]
        )
        _choose_authentication(conf, wanted)
        for (group, name), value in wanted.items():
            conf.set_override(name, value, group=None if group == "DEFAULT" else group)
        for store in store_settings.described(conf):
            for option in conf[store.group]:
                _value(conf, store.group, option)
        for group, options in settings.OPTIONS.items():
            for option in options:
                _value(conf, group, option.dest)
        if conf.headrace.auth_strategy == "keystone":
            for option in conf[keystone_settings.GROUP]:
                _value(conf, keystone_settings.GROUP, option)
        if conf.use_keystone_limits:
            keystone_settings.register_limits(conf)
            for option in conf[keystone_settings.LIMITS]:
                _value(conf, keystone_settings.LIMITS, option)
    except (cfg.Error, ValueError) as error:
        raise errors.ConfigurationError(reason=_told(error)) from error
    store_settings.check(conf)
    _check_algorithm(conf.hashing_algorithm)
    _check_location(conf.headrace.x_accel_location)
    _check_origins(conf.cors.allowed_origin or ())
    metrics_address(conf)
    staging_dir(conf)
    image_cache_dir(conf)
    _check_authentication(conf)
    project_limits(conf)
    return conf


def _choose_authentication(conf: cfg.ConfigOpts, wanted: dict[tuple[str, str], object]) -> None:
    """Find out which it is, since that makes other settings known; raises ConfigurationError."""
    if "keystone" in (conf.paste_deploy.flavor or ""):
        conf.set_default("auth_strategy", "keystone", group="headrace")
    if (strategy := wanted.pop(("headrace", "auth_strategy"), None)) is not None:
        conf.set_override("auth_strategy", strategy, group="headrace")
    if conf.headrace.auth_strategy == "keystone":
        keystone_settings.register(conf)


def _check_authentication(conf: cfg.ConfigOpts) -> None:
    """Refuse what says two things: whoever reads one of them would be wrong about the other."""
    strategy = conf.headrace.auth_strategy
    if conf.headrace.unauthenticated_ok and strategy != "none":
        raise errors.ConfigurationError(
            reason=f"unauthenticated_ok goes with auth_strategy none, and it is {strategy}"
        )


def project_limits(conf: cfg.ConfigOpts) -> dict[str, dict[str | None, int]]:
    """Most that projects may have, by name and project (None: all others); negative: any number.

    Bytes and images; nothing where it is Keystone that says it.  Raises ConfigurationError.
    """
    if conf.use_keystone_limits:
        for option in PROJECT_LIMITS:
            if conf.headrace[option.name]:
                raise errors.ConfigurationError(
                    reason=f"with use_keystone_limits [headrace] {option.name} would limit nothing"
                )
        return {}
    storage = _storage_quota(str(conf.user_storage_quota))
    found: dict[str, dict[str | None, int]] = {}
    for option in PROJECT_LIMITS:
        unit = _MIB if option.name in ("image_size_total", "image_stage_total") else 1
        limits = {project: number * unit for project, number in _limits(option.name, conf.headrace)}
        if option.name == "image_size_total" and storage:
            general = limits.get(None, -1)
            limits[None] = min(storage, general) if general >= 0 else storage
        if limits:
            found[option.name] = limits
    return found


def _limits(name: str, options: Mapping[str, Any]) -> Iterator[tuple[str | None, int]]:
    for each in options[name]:
        project, colon, number = each.rpartition(":")
        if not re.fullmatch(r"-?[0-9]{1,12}", number.strip()):
            raise errors.ConfigurationError(
                reason=f"{name}: {each!r} is neither a number nor PROJECT:NUMBER"
            )
        yield project.strip() if colon else None, int(number)


def _storage_quota(text: str) -> int:
    """user_storage_quota in bytes, 0 for none."""
    units = ("", "B", "KB", "MB", "GB", "TB")
    found = re.fullmatch(r"([0-9]{1,18}) *([A-Z]*)", text.strip())
    if found is None or found[2] not in units:
        raise errors.ConfigurationError(
            reason=f"user_storage_quota {text!r} is not a number of B, KB, MB, GB or TB"
        )
    return int(found[1]) << 10 * max(units.index(found[2]) - 1, 0)


def metrics_address(conf: cfg.ConfigOpts) -> tuple[str, int] | None:
    """Host and port of a listener for the metrics alone, if there is to be one.

    Raises ConfigurationError.
    """
    where = conf.headrace.metrics
    if where in METRICS:
        return None
    host, colon, port = where.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise errors.ConfigurationError(
            reason=f"metrics {where!r} is none of {', '.join(METRICS)} and no HOST:PORT"
        )
    return host, int(port)


def _check_location(location: str) -> None:
    """Refuse what cannot stand, as it is, in a header and in a configuration of nginx."""
    taken = ("/v2/", "/.headrace/")
    if not re.fullmatch(r"/([A-Za-z0-9_-][A-Za-z0-9._-]*/)+", location) or location in taken:
        raise errors.ConfigurationError(
            reason=f"x_accel_location {location!r} is not a path such as /headrace-images/"
        )


def _check_origins(origins: Sequence[str]) -> None:
    """Refuse what no browser sends, and "null", which every page can be that wants to."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise errors.ConfigurationError(
                reason=f"allowed_origin {origin!r} is not an origin such as https://example.org"
            )


def _check_algorithm(name: str) -> None:
    """Refuse what hashlib has not, or whose length is the caller's choice (shake_128)."""
    try:
        hashlib.new(name, usedforsecurity=False).hexdigest()
    except (ValueError, TypeError):
        raise errors.ConfigurationError(
            reason=f"hashing_algorithm {name!r} is not a hash function of this Python"
        ) from None


_WRONG_VALUE = re.compile(r"Value for option (\S+) from .*detail='(.*)'\) is not valid: (.*)", re.S)
_NO_NUMBER = "invalid literal for int() with base 10: "


def _told(error: Exception) -> str:
    """What oslo.config says, without what it shows of its own inside."""
    found = _WRONG_VALUE.fullmatch(str(error))
    if found is None:
        return str(error)
    name, where, why = found.groups()
    if why.startswith(_NO_NUMBER):
        why = f"{why.removeprefix(_NO_NUMBER)} is no whole number"
    return f"{name} of {where}: {why}"


def _value(conf: cfg.ConfigOpts, group: str, name: str) -> object:
    return conf[name] if group == "DEFAULT" else conf[group][name]


def default_state_dir() -> str:
    """Where state lives unless told otherwise: /var/lib as root, the XDG state home otherwise."""
    if os.geteuid() == 0:
        return "/var/lib/headrace"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "headrace")


def state_dir(conf: cfg.ConfigOpts) -> str:
    """The state directory in force, absolute."""
    return os.path.abspath(conf.headrace.state_dir or default_state_dir())


def beside(conf: cfg.ConfigOpts, name: str) -> str:
    """The absolute path of a file that the settings name: relative to the configuration file where
    it is, of the last one if it is nowhere, or to the state directory where there is none."""
    directories = [os.path.dirname(os.path.abspath(each)) for each in conf.config_file or ()]
    places = [os.path.join(each, name) for each in reversed(directories)]
    places.append(os.path.join(state_dir(conf), name))
    return next((each for each in places if os.path.exists(each)), places[0])


def database_url(conf: cfg.ConfigOpts) -> str:
    """The database's URL in force."""
    # Quoted, since SQLAlchemy takes the path out of a URL by the rules of URLs.
    return conf.database.connection or f"sqlite:///{quote(state_dir(conf))}/headrace.db"


def image_dir(conf: cfg.ConfigOpts, store_id: str | None = None) -> str:
    """The directory of the image files of a store, by default of the default one; absolute."""
    directory = _datadir(conf, _store(conf, store_id))
    return os.path.abspath(directory or os.path.join(state_dir(conf), "images"))


def _store(conf: cfg.ConfigOpts, store_id: str | None) -> store_settings.Described:
    """A store by its id, by default the default one."""
    if store_id is None:
        return store_settings.default(conf)
    return next(each for each in store_settings.described(conf) if each.id == store_id)


def _datadir(conf: cfg.ConfigOpts, store: store_settings.Described) -> str | None:
    """The directory of a store as it is configured; none of one that has no directory."""
    return conf[store.group].filesystem_store_datadir if store.kind == "file" else None


def staging_dir(conf: cfg.ConfigOpts) -> str:
    """Where data waits for its import, absolute.  Raises ConfigurationError."""
    if backends(conf) and (directory := conf[settings.STAGING].filesystem_store_datadir):
        return os.path.abspath(str(directory))
    if uri := str(conf.node_staging_uri or ""):
        scheme, separator, path = uri.partition("://")
        if scheme != "file" or not separator or not os.path.isabs(path):
            raise errors.ConfigurationError(
                reason=f"node_staging_uri {uri!r} is not of the form file:///DIRECTORY"
            )
        return os.path.abspath(path)
    if _datadir(conf, store_settings.default(conf)):
        return os.path.join(image_dir(conf), ".headrace-staging")
    return os.path.join(state_dir(conf), "staging")


def image_dirs(conf: cfg.ConfigOpts) -> list[str]:
    """The directories of all stores that are directories, the default one's first."""
    default = store_settings.default(conf)
    files = [each for each in store_settings.described(conf) if each.kind == "file"]
    files.sort(key=lambda each: each != default)
    return list(dict.fromkeys(image_dir(conf, each.id) for each in files))


def file_perm(conf: cfg.ConfigOpts, store_id: str | None = None) -> int:
    """The mode of a store's files; 0 leaves it to the umask.  Raises ConfigurationError."""
    store = _store(conf, store_id)
    mode = conf[store.group].filesystem_store_file_perm if store.kind == "file" else "0"
    try:
        return int(mode, 8)
    except ValueError:
        raise errors.ConfigurationError(
            reason=f"filesystem_store_file_perm {mode!r} is not an octal mode"
        ) from None


def front_locations(conf: cfg.ConfigOpts) -> dict[str, str]:
    """The directories whose files a server in front sends itself, the default store's first.

    Each with the internal location that nginx has for it, below the one that is configured.
    """
    location = conf.headrace.x_accel_location
    found = {image_dir(conf): location}
    for store in store_settings.described(conf):
        if store.kind == "file":
            found.setdefault(image_dir(conf, store.id), f"{location}{store.id}/")
    if cache := image_cache_dir(conf):
        found[cache] = f"{location}.cache/"  # no store's id has a dot
    return found


def offload_dir(conf: cfg.ConfigOpts) -> str:
    """Where nginx puts the bodies of uploads: on the file system of the images, which link them."""
    return os.path.join(image_dir(conf), ".headrace-uploads")


def image_cache_dir(conf: cfg.ConfigOpts) -> str | None:
    """The directory of the image cache, absolute, if there is to be one.

    Raises ConfigurationError when it is not apart from the images: what lies there is removed.
    """
    if not conf.image_cache_dir:
        return None
    directory = os.path.realpath(str(conf.image_cache_dir))
    others = [*image_dirs(conf), staging_dir(conf), *conf.headrace.location_directories]
    for other in map(os.path.realpath, others):
        if os.path.commonpath([directory, other]) in (directory, other):
            raise errors.ConfigurationError(
                reason=f"image_cache_dir {directory} and {other} are not apart"
            )
    return directory


def buffer_dirs(conf: cfg.ConfigOpts) -> list[str]:
    """Where what is on its way to stores lies, besides staging and state; absolute."""
    swifts = [conf[each.group] for each in store_settings.described(conf) if each.kind == "swift"]
    directories = [each.swift_upload_buffer_dir for each in swifts if each.swift_upload_buffer_dir]
    return list(map(os.path.abspath, directories))


def metrics_dir(conf: cfg.ConfigOpts) -> str:
    """Where the processes of a service on one machine keep their counters."""
    return os.path.join(state_dir(conf), "metrics")


def user_file(conf: cfg.ConfigOpts) -> str:
    """The file of the users who show a password, absolute."""
    file = conf.headrace.http_basic_auth_user_file
    return os.path.abspath(file or os.path.join(state_dir(conf), "htpasswd"))


def audit_log(conf: cfg.ConfigOpts) -> str | None:
    """The file of the audit log, absolute, "-" for the stream of the log, or None."""
    file = conf.headrace.audit_log or None
    return file if file in (None, "-") else os.path.abspath(file)


def unix_socket(conf: cfg.ConfigOpts) -> str:
    """Where the embedded server listens for a front end on the same machine."""
    return os.path.join(state_dir(conf), "headrace.sock")
