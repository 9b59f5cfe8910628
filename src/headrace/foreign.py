"""What the files of a Glance set and Headrace does not read: told at the start, not silently lost.

A statement never holds a value, which may be a password.
"""

import os
from collections.abc import Container, Iterator

from oslo_config import cfg

# Sections of libraries and parts of a Glance that Headrace has no use for, by how they begin.
_SECTIONS = {
    "oslo_messaging": "of oslo.messaging: Headrace sends no notifications",
    "oslo_concurrency": "of oslo.concurrency: Headrace's locks need no directory",
    "oslo_middleware": "of oslo.middleware: Headrace has no such filters",
    "oslo_reports": "of oslo.reports: Headrace has /metrics instead",
    "profiler": "of osprofiler: Headrace has /metrics instead",
    "keystone_authtoken": "for auth_strategy keystone, which is not chosen",
    "oslo_limit": "for use_keystone_limits, which is not set",
    "wsgi": "of Glance's own processes: Headrace has threads and max_uploads instead",
    "task": "of Glance's tasks: [wsgi] task_pool_threads is what Headrace has",
    "key_manager": "of castellan: Headrace fetches no keys",
    "barbican": "of castellan: Headrace fetches no keys",
    "vault": "of castellan: Headrace fetches no keys",
    "os_brick": "of os-brick: Headrace attaches no volumes",
}
_OPTIONS = {
    "of oslo.log: Headrace logs to standard error": (
        "log_", "log-", "logging_", "use_", "syslog", "watch_log", "default_log", "rate_limit_",
        "publish_errors", "instance_", "max_logfile", "fatal_deprecations",
    ),
    "of oslo.messaging: Headrace sends no notifications": (
        "transport_url", "rpc_", "control_exchange", "executor_thread", "disabled_notifications",
        "default_publisher_id",
    ),
}  # fmt: skip
# What these keep from users of a Glance is not kept from them here.
_RESTRICTING = {"keystone_authtoken"}
_NOT_RESTRICTED = "; what it forbids in Glance is not forbidden here"


def settings(conf: cfg.ConfigOpts) -> Iterator[str]:
    """A statement for each option, or whole section, of ``conf``'s files that it does not know."""
    for path in conf.config_file:
        for section, names in _read(path).items():
            where = f"{os.path.basename(path)}: [{section}]"
            known = conf if section == "DEFAULT" else _group(conf, section)
            if known is not None:
                for name in names:
                    if name.replace("-", "_") not in known:
                        yield f"{where} {name} {_about_option(section, name)}"
            elif names:
                yield f"{where} {_about_section(section, names)}"


def _group(conf: cfg.ConfigOpts, name: str) -> Container[str] | None:
    """The options known of a group, or None when there is no such group."""
    found = conf[name] if name in conf else None  # noqa: SIM401 (get raises)
    return found if isinstance(found, cfg.ConfigOpts.GroupAttr) else None


def _read(path: str) -> dict[str, list[str]]:
    """The names that a file sets, by section; it was read before, so it can be read."""
    sections: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(path, sections).parse()
    return {section: list(options) for section, options in sections.items()}


def _about_section(section: str, names: list[str]) -> str:
    why = next((why for start, why in _SECTIONS.items() if section.startswith(start)), None)
    text = f"is {why}" if why else "is a section that Headrace does not have"
    if section in _RESTRICTING:
        text += _NOT_RESTRICTED
    return f"{text} (ignored: {', '.join(names)})"


def _about_option(section: str, name: str) -> str:
    if section == "DEFAULT":
        for why, starts in _OPTIONS.items():
            if name.startswith(starts):
                return f"is {why} (ignored)"
    return "is an option that Headrace does not have (ignored)"
