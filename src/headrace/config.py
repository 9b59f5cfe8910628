"""Every setting of Headrace, one row each, as oslo.config options.

Names, groups and defaults are those of ``glance-api.conf`` wherever Glance has the same thing, so
that an operator's file is read as it is; what only Headrace has lies in the group ``[headrace]``.
What else such a file sets is told at the start (``foreign``).  Each may also be set in the
environment as ``OS_<GROUP>__<OPTION>`` (oslo.config's own convention).
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from oslo_config import cfg, types

from headrace import errors, keystone_settings, store_settings
from headrace.store_settings import backends as backends

_MIB = 1 << 20
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

CONTAINER_FORMATS = ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]
DISK_FORMATS = [
    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop",
]  # fmt: skip

# Those that answers and requests of the API have.  Glance's defaults name headers besides that only
# its own filters may set, as X-Roles.
CORS_EXPOSED = [
    "Accept-Patch", "Content-MD5", "Content-Range", "Location", "OpenStack-Image-Import-Methods",
    "OpenStack-Image-Store-Ids", "Retry-After", "X-Headrace-Error", "X-OpenStack-Request-ID",
]  # fmt: skip
CORS_HEADERS = [
    "Authorization", "Content-MD5", "Range", "X-Auth-Token", "X-Image-Meta-Store",
    "X-OpenStack-Append", "X-OpenStack-Image-Size", "X-OpenStack-Request-ID",
]  # fmt: skip


IMPORT_METHODS = ("glance-direct", "web-download", "copy-image")
MORE_IMPORT_METHODS = ("glance-download",)
"""Those that somebody has to want: it takes other regions."""

IMPORT_PLUGINS = (
    "no_op",
    "inject_image_metadata",
    "image_decompression",
    "image_conversion",
)

STAGING = "os_glance_staging_store"
"""What is not a store, but looks like one: where data waits for its import."""

AUTH_STRATEGIES = ("none", "http_basic", "keystone")

POLICY_FILE = "policy.yaml"
"""Which policy file is read if it is there; one of another name has to be."""

METRICS = ("this-machine", "everybody", "off")
"""Who may see the metrics at the service's own address."""


_PROJECT_LIMITS = [
    cfg.ListOpt(
        name,
        default=[],
        help=f"{what}: a number for every project, PROJECT:NUMBER for one that may have more or "
        "less; none, or a negative one: any number. The project of images without an owner is "
        "nameless.",
    )
    for name, what in (
        ("image_size_total", "MiB of data that a project may have, each copy of an image counted"),
        ("image_stage_total", "MiB of data of a project that may wait to be imported"),
        ("image_count_total", "Images that a project may have"),
        ("image_count_uploading", "Images of a project whose data may be coming at a time"),
    )
]


def default_state_dir() -> str:
    """Where state lives unless told otherwise: /var/lib as root, the XDG state home otherwise."""
    if os.geteuid() == 0:
        return "/var/lib/headrace"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "headrace")


class ListOpt(cfg.ListOpt):
    """A list, which may stand in brackets: Glance wants them of some."""

    def __init__(
        self, name: str, item: types.ConfigType, *, default: list[object], help: str
    ) -> None:
        super().__init__(name, default=default, help=help)
        self.type = _Bracketed(item)


class _Bracketed(types.List):
    def __call__(self, value: Any) -> list[Any]:
        if isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value):
            value = value.strip()[1:-1]
        return super().__call__(value)


OPTIONS: dict[str, list[cfg.Opt]] = {
    "DEFAULT": [
        cfg.DictOpt(
            "enabled_backends",
            help="Several stores: the id and the type of each, such as 'fast:file, cheap:file, "
            "web:http'. Each has a group of its own, named by its id. Unset: one filesystem store.",
        ),
        cfg.BoolOpt(
            "show_image_direct_url",
            default=False,
            help="Show where the data of an image lies, as direct_url.",
        ),
        cfg.BoolOpt(
            "show_multiple_locations",
            default=False,
            help="Show all places where the data of an image lies, as locations.",
        ),
        ListOpt(
            "enabled_import_methods",
            types.String(choices=[*IMPORT_METHODS, *MORE_IMPORT_METHODS], quotes=True),
            default=list(IMPORT_METHODS),
            help="Ways in which callers may have data imported, of glance-direct, web-download, "
            "copy-image and glance-download.",
        ),
        cfg.StrOpt(
            "node_staging_uri",
            help="Where data is kept that was sent to be imported, as file:///DIRECTORY; best on "
            "the file system of the images, which then take it without a copy, and where all "
            "workers see it. Unset: 'staging' in the state directory, or '.headrace-staging' in "
            "filesystem_store_datadir where that is set.",
        ),
        cfg.IntOpt(
            "image_size_cap", default=1 << 40, min=1, help="Largest image accepted, in bytes."
        ),
        cfg.StrOpt(
            "hashing_algorithm",
            default="sha512",
            help="Algorithm of os_hash_value, by its hashlib name. sha256 is the cheapest on "
            "processors with SHA extensions.",
        ),
        cfg.IntOpt(
            "limit_param_default", default=25, min=1, help="Images in a page unless asked for."
        ),
        cfg.IntOpt("api_limit_max", default=1000, min=1, help="Most images in a page."),
        cfg.IntOpt(
            "image_property_quota",
            default=128,
            help="Most custom properties of an image; negative: no limit.",
        ),
        cfg.IntOpt(
            "image_tag_quota", default=128, help="Most tags of an image; negative: no limit."
        ),
        cfg.IntOpt(
            "image_member_quota",
            default=128,
            help="Most projects that an image is shared with; negative: no limit.",
        ),
        cfg.IntOpt(
            "image_location_quota",
            default=10,
            help="Most locations of an image; negative: no limit.",
        ),
        cfg.StrOpt(
            "user_storage_quota",
            default="0",
            help="Most data that a project may have, each copy of an image counted, in bytes or "
            "with one of the units B, KB, MB, GB and TB, of 1024 each; 0: any amount. "
            "[headrace] image_size_total is the same and takes exceptions.",
        ),
        cfg.BoolOpt(
            "use_keystone_limits",
            default=False,
            help="Ask the Keystone of [oslo_limit] what projects may have: its limits "
            "image_size_total and image_stage_total (MiB), image_count_total and "
            "image_count_uploading. user_storage_quota is not read then.",
        ),
        cfg.BoolOpt(
            "do_secure_hash",
            default=True,
            help="Hash the data of locations that callers name, in the background.",
        ),
        cfg.IntOpt(
            "http_retries", default=3, min=0, help="How often that is tried again when it fails."
        ),
        cfg.BoolOpt(
            "delayed_delete",
            default=False,
            help="Keep the data of deleted images for scrub_time; the service then removes it, as "
            "glance-scrubber does.",
        ),
        cfg.IntOpt(
            "scrub_time",
            default=0,
            min=0,
            help="Seconds for which delayed_delete keeps the data of a deleted image.",
        ),
        cfg.URIOpt(
            "public_endpoint",
            schemes=["http", "https"],
            help="Base of the links in the versions document; the request's own when unset.",
        ),
        cfg.IntOpt(
            "max_request_id_length",
            default=64,
            min=1,
            help="Longest X-Openstack-Request-Id accepted from a caller.",
        ),
        cfg.BoolOpt(
            "allow_anonymous_access",
            default=False,
            help="With auth_strategy 'keystone': take who shows no good token for nobody, who has "
            "no role and no project, instead of refusing him.",
        ),
        cfg.StrOpt(
            "metadata_source_path",
            help="Directory of the definition files that `headrace db load-metadefs` reads; its "
            "own when unset.",
        ),
        cfg.StrOpt(
            "property_protection_file",
            help="File that says who may create, read, update and delete which custom property of "
            "images; read once, at the start. Unset: whoever may change the image.",
        ),
        cfg.StrOpt(
            "property_protection_rule_format",
            default="roles",
            choices=["roles", "policies"],
            help="What that file names: roles, or rules of the policy.",
        ),
        cfg.BoolOpt("debug", default=False, help="Log at level DEBUG."),
    ],
    "cors": [
        cfg.ListOpt(
            "allowed_origin",
            help="Origins whose web pages may use the service from a browser, such as "
            "https://dashboard.example.org, as the browser sends them: no path, no closing slash; "
            "'*': all, without credentials. Unset: none. Without authentication a page of an "
            "origin named here may do all that the user of its browser may.",
        ),
        cfg.BoolOpt(
            "allow_credentials",
            default=True,
            help="Whether pages of the origins that are named may have the browser send its "
            "cookies and passwords.",
        ),
        cfg.ListOpt(
            "expose_headers",
            default=CORS_EXPOSED,
            help="Headers of answers that pages may read.",
        ),
        cfg.IntOpt(
            "max_age",
            default=3600,
            min=0,
            help="Seconds for which a browser need not ask again what pages may do.",
        ),
        cfg.ListOpt(
            "allow_methods",
            default=["GET", "PUT", "POST", "DELETE", "PATCH"],
            help="Methods that pages may use.",
        ),
        cfg.ListOpt(
            "allow_headers",
            default=CORS_HEADERS,
            help="Headers that pages may send, besides those that oslo.middleware always allows.",
        ),
    ],
    "database": [
        cfg.StrOpt(
            "connection",
            secret=True,
            help="SQLAlchemy URL of the database; SQLite in the state directory when unset.",
        ),
    ],
    "glance_store": [
        cfg.StrOpt(
            "default_backend",
            help="With enabled_backends: the id of the store that takes what names no other.",
        ),
        *store_settings.FILE,
    ],
    "image_format": [
        cfg.ListOpt(
            "container_formats", default=CONTAINER_FORMATS, help="Container formats accepted."
        ),
        cfg.ListOpt("disk_formats", default=DISK_FORMATS, help="Disk formats accepted."),
        cfg.ListOpt(
            "vmdk_allowed_types",
            default=["streamOptimized", "monolithicSparse"],
            help="VMDK sub-types accepted.",
        ),
        cfg.BoolOpt(
            "require_image_format_match",
            default=True,
            help="Refuse data whose detected format is not the disk_format declared.",
        ),
        cfg.ListOpt(
            "gpt_safety_checks_nonfatal",
            default=[],
            help="Names of GPT safety checks whose failure is tolerated.",
        ),
    ],
    "import_filtering_opts": [
        ListOpt(
            "allowed_schemes",
            types.String(),
            default=["http", "https"],
            help="Schemes of the addresses that the service may fetch from.",
        ),
        ListOpt(
            "disallowed_schemes",
            types.String(),
            default=[],
            help="Those it may not, when allowed_schemes is empty.",
        ),
        ListOpt(
            "allowed_hosts",
            types.String(),
            default=[],
            help="Hosts that the service may fetch from, all others being refused; only these may "
            "be of this machine or link-local. Empty: all hosts elsewhere.",
        ),
        ListOpt(
            "disallowed_hosts",
            types.String(),
            default=[],
            help="Names and addresses it may not, when allowed_hosts is empty.",
        ),
        ListOpt(
            "allowed_ports",
            types.Integer(min=1, max=65535),
            default=[80, 443],
            help="Ports that the service may fetch from.",
        ),
        ListOpt(
            "disallowed_ports",
            types.Integer(min=1, max=65535),
            default=[],
            help="Those it may not, when allowed_ports is empty.",
        ),
    ],
    "glance_download_properties": [
        ListOpt(
            "extra_properties",
            types.String(),
            default=["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"],
            help="How the names of the properties begin that glance-download takes with an image.",
        ),
    ],
    "image_import_opts": [
        ListOpt(
            "image_import_plugins",
            types.String(choices=list(IMPORT_PLUGINS), quotes=True),
            default=[],
            help="What is done to imported data before it is stored, in this order, of no_op, "
            "inject_image_metadata, image_decompression and image_conversion; not for copy-image.",
        ),
        cfg.IntOpt(
            "max_parallel_stores",
            default=1,
            min=1,
            help="Stores that an import into several writes to at a time, once its data is there.",
        ),
    ],
    "inject_metadata_properties": [
        cfg.DictOpt(
            "inject",
            default={},
            help="Properties that inject_image_metadata gives to imported images, as "
            "'name:value,name:value'.",
        ),
        cfg.ListOpt(
            "ignore_user_roles",
            default=["admin"],
            help="Roles of callers whose imports it leaves alone.",
        ),
    ],
    "image_conversion": [
        cfg.StrOpt(
            "output_format",
            default="raw",
            choices=["raw", "qcow2", "vmdk"],
            help="What image_conversion makes of disk images.",
        ),
    ],
    "task": [
        cfg.IntOpt(
            "task_time_to_live",
            default=48,
            min=0,
            help="Hours for which a task is kept after its end.",
        ),
    ],
    "os_glance_staging_store": [
        cfg.StrOpt(
            "filesystem_store_datadir",
            help="With enabled_backends: the directory that node_staging_uri means without.",
        ),
    ],
    "oslo_policy": [
        cfg.StrOpt(
            "policy_file",
            default=POLICY_FILE,
            help="File of rules (YAML) about who may do what, in place of the usual ones; read "
            "again when it changes. A relative path counts from the configuration file, or from "
            "the state directory where there is none. It need not be there under the usual name.",
        ),
        cfg.MultiStrOpt(
            "policy_dirs",
            default=["policy.d"],
            help="Directories of more such files, which win over policy_file, the last one most.",
        ),
        cfg.BoolOpt(
            "enforce_new_defaults",
            default=True,
            help="Whether roles and projects matter where no rule says so. Off: the usual rules "
            "are those of old Glances, by which any role will do, and only what is another "
            "project's is safe from changes.",
        ),
    ],
    "wsgi": [
        cfg.IntOpt(
            "task_pool_threads",
            default=16,
            min=1,
            help="Imports that one worker does at a time; more wait.",
        ),
    ],
    "healthcheck": [
        cfg.StrOpt(
            "disable_by_file_path",
            default="/etc/glance/healthcheck_disable",
            help="While this file exists, /healthcheck answers 503.",
        ),
    ],
    "paste_deploy": [
        cfg.StrOpt(
            "flavor",
            help="In a glance-api.conf: Glance's pipeline. Where it names keystone, auth_strategy "
            "is keystone unless it is set.",
        ),
    ],
    "headrace": [
        cfg.StrOpt(
            "state_dir",
            default="",
            sample_default="/var/lib/headrace",
            help="Directory of the database and the images of a server that runs alone; when "
            "unset, /var/lib/headrace as root and $XDG_STATE_HOME/headrace otherwise.",
        ),
        cfg.StrOpt(
            "auth_strategy",
            default="none",
            choices=AUTH_STRATEGIES,
            help="How callers show who they are. 'none': they do not; everybody is an "
            "administrator, so only this machine is served. 'http_basic': by name and password, of "
            "the users that `headrace user` knows. 'keystone': by a token of the Keystone of "
            "[keystone_authtoken]; this is the default where [paste_deploy] flavor names it.",
        ),
        cfg.StrOpt(
            "http_basic_auth_user_file",
            help="For http_basic: the users and the hashes of their passwords, by bcrypt, as "
            "`htpasswd -B` writes them; what they are is said in the file with '.roles' behind its "
            "name. Unset: 'htpasswd' in the state directory.",
        ),
        cfg.BoolOpt(
            "unauthenticated_ok",
            default=False,
            help="With auth_strategy 'none': serve other machines, too. Anybody who reaches the "
            "port may then read, add and delete images.",
        ),
        cfg.BoolOpt(
            "sendfile",
            default=True,
            help="Move bytes by sendfile, splice and copy_file_range; off: by copying. The "
            "environment variable HEADRACE_SENDFILE=off does the same.",
        ),
        cfg.StrOpt(
            "delivery",
            default="auto",
            choices=["auto", "file_wrapper", "x-accel-redirect", "x-sendfile", "copy"],
            help="How image data leaves. 'auto' does what the host is known to do well; "
            "'file_wrapper' trusts a host that is not known; 'x-accel-redirect' and 'x-sendfile' "
            "have nginx or Apache, through which all requests must then come, send the file; "
            "'copy' reads and writes.",
        ),
        cfg.StrOpt(
            "x_accel_location",
            default="/headrace-images/",
            help="The internal location of nginx that is the image directory.",
        ),
        cfg.BoolOpt(
            "upload_offload",
            default=False,
            help="Take uploads that nginx has written to files in '.headrace-uploads' of the image "
            "directory, and told of through a Unix socket. Its worker processes must run as the "
            "same user.",
        ),
        cfg.ListOpt(
            "location_directories",
            default=[],
            help="Directories below which administrators may register files in place "
            "(location=file:///…), as they are and where they are. They may hold nothing that "
            "others put there, and no store.",
        ),
        *_PROJECT_LIMITS,
        cfg.StrOpt(
            "legacy_checksum",
            default="inline",
            choices=["inline", "off"],
            help="Whether the MD5 checksum is computed with every upload. 'off' makes uploads "
            "cheaper; images then have no checksum, only os_hash_value.",
        ),
        cfg.IntOpt(
            "expansion_ratio",
            default=200,
            min=1,
            help="How many bytes image_decompression and image_conversion may make at most of each "
            "that came in; of a disk in the format raw, those that are no hole.",
        ),
        cfg.FloatOpt(
            "stall_timeout",
            default=60.0,
            min=1.0,
            help="Seconds for which a peer may move no byte before its transfer is given up.",
        ),
        cfg.IntOpt(
            "minimum_rate",
            default=1024,
            min=0,
            help="Bytes a second that the client of a download must take, over stall_timeout, from "
            "the embedded server; 0: any.",
        ),
        cfg.DictOpt(
            "glance_regions",
            secret=True,
            help="Image services that glance-download may take images from, by their regions' "
            "names, such as 'east:https://image.east.example.com'; the catalog of the caller's "
            "token has others.",
        ),
        cfg.FloatOpt(
            "limit_cache_time",
            default=30.0,
            min=0.0,
            help="Seconds for which each process keeps what Keystone says of a project's limits, "
            "with use_keystone_limits.",
        ),
        cfg.FloatOpt(
            "upload_lease",
            default=60.0,
            min=3.0,
            help="Seconds after the last heartbeat of a worker on another machine when its "
            "unfinished uploads go back to queued.",
        ),
        cfg.IntOpt(
            "threads",
            default=64,
            min=1,
            help="Requests one worker of the embedded server handles at a time. A download that "
            "waits for its client takes none of them.",
        ),
        cfg.IntOpt(
            "max_uploads",
            default=32,
            min=1,
            help="Uploads one worker takes at a time, each of which holds a thread; more are "
            "answered 503 with Retry-After. Fewer than threads, or uploads can stop all else.",
        ),
        cfg.IntOpt(
            "max_remote_downloads",
            default=16,
            min=1,
            help="Transfers from the origins of an http store that one worker has at a time, each "
            "of which holds a thread; more are answered 503 with Retry-After.",
        ),
        cfg.IntOpt(
            "max_connections",
            default=16384,
            min=64,
            help="Connections one worker of the embedded server has at a time, if as many files "
            "may be open; more wait to be accepted.",
        ),
        cfg.IntOpt(
            "max_requests",
            default=0,
            min=0,
            help="Requests after which a worker of the embedded server is replaced by a new one "
            "and only finishes its transfers, however long they take; up to a tenth more, by "
            "chance; 0: never.",
        ),
        cfg.IntOpt(
            "transfer_threads",
            default=2,
            min=1,
            help="Threads of a worker of the embedded server that send to all clients that are not "
            "done at once.",
        ),
        cfg.IntOpt(
            "transfer_turn",
            default=2 * _MIB,
            min=64 * 1024,
            help="Most bytes one download sends before the next has its turn.",
        ),
        cfg.IntOpt(
            "transfer_unsent",
            default=128 * 1024,
            min=0,
            help="Most bytes of a download that wait in the kernel without being on the wire "
            "(TCP_NOTSENT_LOWAT); 0: as many as fit. Without it thousands of slow clients fill the "
            "memory that TCP may have.",
        ),
        cfg.IntOpt(
            "read_ahead",
            default=8 * _MIB,
            min=_MIB,
            help="Bytes of an image that are read in at a time where it is not in memory, while "
            "other downloads go on.",
        ),
        cfg.IntOpt(
            "drop_behind",
            default=0,
            min=0,
            help="Size in bytes from which on the data of an image that had to be read in leaves "
            "memory again behind its download, unless others of the worker have it under way; 0: "
            "it stays, as long as the system likes. For a store of images that are fetched once.",
        ),
        cfg.StrOpt(
            "metrics",
            default="this-machine",
            help="Who may see /metrics and /metrics/transfers: 'this-machine', that is, programs "
            "on it that come to the service directly; 'everybody'; nobody ('off'). Or an address "
            "HOST:PORT at which the embedded server listens for nothing else: then they are there, "
            "for whoever reaches it, and not at the service's own.",
        ),
        cfg.StrOpt(
            "audit_log",
            help="File that one line of JSON is appended to for everything that is done to images: "
            "who, what, when, from where, with what result (CADF); '-': the stream of the log. "
            "Unset: none is written.",
        ),
        cfg.BoolOpt(
            "audit_reads",
            default=False,
            help="Write lists and shows there, too; not only changes, downloads and refusals.",
        ),
        cfg.IntOpt(
            "downloads_per_client",
            default=0,
            min=0,
            help="Downloads that one address may have under way at a time at one worker of the "
            "embedded server, more being answered 429 with Retry-After; 0: any number. All that "
            "comes through a proxy has its address.",
        ),
        cfg.IntOpt(
            "download_rate",
            default=0,
            min=0,
            help="Most bytes a second of each download from the embedded server; 0: no limit.",
        ),
        cfg.IntOpt(
            "total_download_rate",
            default=0,
            min=0,
            help="Most bytes a second of all downloads of one worker; 0: no limit.",
        ),
    ],
}


def load(
    files: Sequence[str | os.PathLike[str]] = (),
    overrides: Mapping[tuple[str, str], object] | None = None,
) -> cfg.ConfigOpts:
    """The settings from ``files`` (later ones win), the environment and ``overrides``.

    ``overrides`` maps (group, option) to a value, as a command line sets them.  Raises
    ConfigurationError when a file is missing or a value invalid.
    """
    conf = cfg.ConfigOpts()
    for group, options in OPTIONS.items():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    names = [str(Path(file)) for file in files]
    wanted = dict(overrides or {})
    try:
        conf(args=[], project="headrace", default_config_files=names, default_config_dirs=[])
        if (several := wanted.pop(("DEFAULT", "enabled_backends"), None)) is not None:
            conf.set_override("enabled_backends", several)
        store_settings.register(conf, [*OPTIONS, keystone_settings.GROUP, keystone_settings.LIMITS])
        _choose_authentication(conf, wanted)
        for (group, name), value in wanted.items():
            conf.set_override(name, value, group=None if group == "DEFAULT" else group)
        for group in backends(conf):
            for option in conf[group]:
                _value(conf, group, option)
        for group, options in OPTIONS.items():
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
        raise errors.ConfigurationError(reason=str(error)) from error
    store_settings.check(conf)
    _check_algorithm(conf.hashing_algorithm)
    _check_location(conf.headrace.x_accel_location)
    _check_origins(conf.cors.allowed_origin or ())
    metrics_address(conf)
    staging_dir(conf)
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
        for option in _PROJECT_LIMITS:
            if conf.headrace[option.name]:
                raise errors.ConfigurationError(
                    reason=f"with use_keystone_limits [headrace] {option.name} would limit nothing"
                )
        return {}
    storage = _storage_quota(str(conf.user_storage_quota))
    found: dict[str, dict[str | None, int]] = {}
    for option in _PROJECT_LIMITS:
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


def _value(conf: cfg.ConfigOpts, group: str, name: str) -> object:
    return conf[name] if group == "DEFAULT" else conf[group][name]


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
    group = store_id or (conf.glance_store.default_backend if backends(conf) else "glance_store")
    directory = conf[group].filesystem_store_datadir
    return os.path.abspath(directory or os.path.join(state_dir(conf), "images"))


def staging_dir(conf: cfg.ConfigOpts) -> str:
    """Where data waits for its import, absolute.  Raises ConfigurationError."""
    if backends(conf) and (directory := conf[STAGING].filesystem_store_datadir):
        return os.path.abspath(str(directory))
    if uri := str(conf.node_staging_uri or ""):
        scheme, separator, path = uri.partition("://")
        if scheme != "file" or not separator or not os.path.isabs(path):
            raise errors.ConfigurationError(
                reason=f"node_staging_uri {uri!r} is not of the form file:///DIRECTORY"
            )
        return os.path.abspath(path)
    group = conf.glance_store.default_backend if backends(conf) else "glance_store"
    if conf[group].filesystem_store_datadir:
        return os.path.join(image_dir(conf), ".headrace-staging")
    return os.path.join(state_dir(conf), "staging")


def image_dirs(conf: cfg.ConfigOpts) -> list[str]:
    """The directories of all stores that are directories, the default one's first."""
    others = [image_dir(conf, each) for each, kind in backends(conf).items() if kind == "file"]
    return list(dict.fromkeys([image_dir(conf), *others]))


def file_perm(conf: cfg.ConfigOpts, store_id: str | None = None) -> int:
    """The mode of a store's files; 0 leaves it to the umask.  Raises ConfigurationError."""
    group = store_id or (conf.glance_store.default_backend if backends(conf) else "glance_store")
    mode = conf[group].filesystem_store_file_perm
    try:
        return int(mode, 8)
    except ValueError:
        raise errors.ConfigurationError(
            reason=f"filesystem_store_file_perm {mode!r} is not an octal mode"
        ) from None


def offload_dir(conf: cfg.ConfigOpts) -> str:
    """Where nginx puts the bodies of uploads: on the file system of the images, which link them."""
    return os.path.join(image_dir(conf), ".headrace-uploads")


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
