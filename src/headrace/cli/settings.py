"""The options of commands that work on a service's own files, not through its API."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from oslo_config import cfg

_F = TypeVar("_F", bound=Callable[..., Any])

_STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(file_okay=False),
    help="Where the database and the images lie [/var/lib/headrace as root, else under "
    "$XDG_STATE_HOME/headrace].",
)
_CONFIG_FILES = click.option(
    "--config-file",
    "config_files",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    help="Settings, such as a glance-api.conf; repeatable, later ones win.",
)
auth_option = click.option(
    "--auth",
    "auth_strategy",
    type=click.Choice(("none", "http_basic", "keystone")),
    help="How callers show who they are: not at all, by the passwords of `headrace user`, or by "
    "tokens of the Keystone that the settings name [auth_strategy].",
)
"""``--auth``, for what runs a service."""


def settings_options(command: _F) -> _F:
    """Give a command ``--state-dir`` and ``--config-file``."""
    return _STATE_DIR(_CONFIG_FILES(command))


def load(
    state_dir: str | None,
    config_files: tuple[str, ...],
    overrides: dict[tuple[str, str], object] | None = None,
) -> "cfg.ConfigOpts":
    """The settings in force; ``overrides`` are of other options of the command line."""
    # Only here: a command that talks to a service starts without the server's libraries.
    from headrace import config

    given = dict(overrides or {})
    if state_dir is not None:
        # A "$" begins the name of another setting in a value; doubled it is itself.
        given["headrace", "state_dir"] = state_dir.replace("$", "$$")
    return config.load(config_files, given)
