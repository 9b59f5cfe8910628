"""The settings of ``[keystone_authtoken]`` and ``[oslo_limit]``: those of keystonemiddleware and of
oslo.limit, and of the way in which the service itself shows Keystone who it is (``auth_type``).

They are known only where ``auth_strategy`` is keystone, or ``use_keystone_limits`` is set, and so
need these libraries only there.
"""

from typing import Any

from oslo_config import cfg

from headrace import errors

GROUP = "keystone_authtoken"
LIMITS = "oslo_limit"

REQUEST_TIMEOUT = 30
"""Seconds, where http_connect_timeout, or timeout, is unset: the libraries would wait for ever."""


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


def limit_options() -> list[cfg.Opt]:
    """What oslo.limit can be told, whatever ``auth_type`` is.

    Raises ConfigurationError where it is not installed.
    """
    try:
        from oslo_limit import opts
    except ImportError as error:
        raise errors.ConfigurationError(
            reason=f"use_keystone_limits needs headrace[keystone]: {error}"
        ) from error
    from keystoneauth1 import loading

    own = [option for _, found in opts.list_opts() for option in found]
    adapter = loading.get_adapter_conf_options(include_deprecated=False)
    adapted = {option.dest for option in adapter}
    return [
        *(each for each in own if each.dest.startswith("endpoint_") and each.dest not in adapted),
        *adapter,
        *loading.get_session_conf_options(),
        *loading.get_auth_common_conf_options(),
    ]


def register(conf: cfg.ConfigOpts) -> None:
    """Make the settings known, and those of the ``auth_type``; raises ConfigurationError."""
    conf.register_opts(options(), group=GROUP)
    conf.set_default("http_connect_timeout", REQUEST_TIMEOUT, group=GROUP)
    _register_plugin(conf, GROUP, "auth_strategy keystone")


def register_limits(conf: cfg.ConfigOpts) -> None:
    """The same of [oslo_limit]."""
    conf.register_opts(limit_options(), group=LIMITS)
    conf.set_default("timeout", REQUEST_TIMEOUT, group=LIMITS)
    _register_plugin(conf, LIMITS, "use_keystone_limits")
    which = conf[LIMITS]
    if not (which.endpoint_id or which.endpoint_service_type or which.endpoint_service_name):
        raise errors.ConfigurationError(
            reason=f"use_keystone_limits needs [{LIMITS}] endpoint_id, or endpoint_service_type "
            "and endpoint_region_name: limits are registered for an endpoint's service"
        )


def limits(conf: cfg.ConfigOpts) -> dict[str, object]:
    """What [oslo_limit] says, with what another section that it names says of ``auth_type``."""
    section = conf[LIMITS].auth_section or LIMITS
    found = {name: value for name, value in conf[LIMITS].items() if value is not None}
    names = [option.dest for option in _plugin_options(conf[section].auth_type)]
    found |= {name: conf[section][name] for name in ("auth_type", *names)}
    return found | {"auth_section": None}


def _register_plugin(conf: cfg.ConfigOpts, group: str, why: str) -> None:
    """Make known what the ``auth_type`` of a group needs, which may be in another section."""
    # Behind what says that it is missing.
    from keystoneauth1 import exceptions, loading

    section: str = conf[group].auth_section or group
    conf.register_opts(loading.get_auth_common_conf_options(), group=section)
    kind: str | None = conf[section].auth_type
    if not kind:
        raise errors.ConfigurationError(
            reason=f"{why} needs [{section}] auth_type, such as password"
        )
    try:
        conf.register_opts(_plugin_options(kind), group=section)
    except exceptions.NoMatchingPlugin:
        raise errors.ConfigurationError(
            reason=f"[{section}] auth_type {kind!r} is not known to keystoneauth"
        ) from None


def _plugin_options(kind: str) -> list[cfg.Opt]:
    from keystoneauth1 import loading

    plugin: loading.BaseLoader[Any] = loading.get_plugin_loader(kind)
    found: list[cfg.Opt] = loading.get_auth_plugin_conf_options(plugin)
    return found
