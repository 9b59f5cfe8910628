"""The settings of ``[keystone_authtoken]``: those of keystonemiddleware, and of the way in which
the service itself shows Keystone who it is (``auth_type``).

They are known only where ``auth_strategy`` is keystone, and so need its libraries only there.
"""

from typing import Any

from oslo_config import cfg

from headrace import errors

GROUP = "keystone_authtoken"

REQUEST_TIMEOUT = 30
"""Seconds, where http_connect_timeout is unset: keystonemiddleware would wait for ever."""


def options() -> list[cfg.Opt]:
    """What keystonemiddleware can be told, whatever ``auth_type`` is.

    Raises ConfigurationError where it is not installed.
    """
    try:
        from keystonemiddleware import auth_token
    except ImportError as error:
        raise errors.ConfigurationError(
            reason=f"auth_strategy keystone needs headrace[keystone]: {error}"
        ) from error
    return [option for group, found in auth_token.list_opts() if group == GROUP for option in found]


def register(conf: cfg.ConfigOpts) -> None:
    """Make the settings known, and those of the ``auth_type``; raises ConfigurationError."""
    conf.register_opts(options(), group=GROUP)
    conf.set_default("http_connect_timeout", REQUEST_TIMEOUT, group=GROUP)
    # Behind options(), which says what is missing.
    from keystoneauth1 import exceptions, loading

    section: str = conf[GROUP].auth_section or GROUP
    conf.register_opts(loading.get_auth_common_conf_options(), group=section)
    kind: str | None = conf[section].auth_type
    if not kind:
        raise errors.ConfigurationError(
            reason=f"auth_strategy keystone needs [{section}] auth_type, such as password"
        )
    try:
        plugin: loading.BaseLoader[Any] = loading.get_plugin_loader(kind)
    except exceptions.NoMatchingPlugin:
        raise errors.ConfigurationError(
            reason=f"[{section}] auth_type {kind!r} is not known to keystoneauth"
        ) from None
    conf.register_opts(loading.get_auth_plugin_conf_options(plugin), group=section)
