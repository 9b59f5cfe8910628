"""Every setting of Headrace, one row each, as oslo.config options.

Names, groups and defaults are those of ``glance-api.conf`` wherever Glance has the same thing, so
that an operator's file is read as it is; what only Headrace has lies in the group ``[headrace]``
(``headrace_settings``).  Those of several stores are in ``store_settings``, those that talk with
Keystone in ``keystone_settings``.
"""

import re
from typing import Any

from oslo_config import cfg, types

from headrace import cache_settings, headrace_settings, store_settings

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

POLICY_FILE = "policy.yaml"
"""Which policy file is read if it is there; one of another name has to be."""


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
        *cache_settings.OPTIONS,
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
        cfg.StrOpt(
            "default_store",
            default="file",
            help="Without enabled_backends: the type of the store that takes all data.",
        ),
        ListOpt(
            "stores",
            types.String(quotes=True),
            default=["file"],
            help="Without enabled_backends: the types of the stores that are read besides "
            "default_store. All have their settings in this group.",
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
    "headrace": headrace_settings.OPTIONS,
}
