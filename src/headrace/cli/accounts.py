"""headrace user: the users of a service whose callers show a password."""

import os
import sys
from typing import TYPE_CHECKING

import click

from headrace.cli import output, settings
from headrace.cli.session import json_option
from headrace.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from headrace.service.accounts import Accounts

ROLES = ("admin", "member", "reader", "service")

_LONGEST_LINE = 4096
_COLUMNS: output.Columns = (("Name", 24, False), ("Project", 36, False), ("Roles", 24, False))


@click.group("user")
def command() -> None:
    """Look after the users who show a password (auth_strategy http_basic).

    They are in a file as `htpasswd -B` writes it, and one with `.roles` behind its name; by
    default `htpasswd` in the state directory.  A service at work sees every change at once.
    """


@command.command("add")
@click.argument("name")
@settings.settings_options
@click.option("--project", required=True, metavar="PROJECT", help="The project of the user.")
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    required=True,
    help="What the user may do; repeatable. An admin is a member, too, and a member a reader.",
)
def add(
    *,
    name: str,
    state_dir: str | None,
    config_files: tuple[str, ...],
    project: str,
    roles: tuple[str, ...],
) -> None:
    """Add a user.

    The password is asked for, or read, twice, from standard input.
    """
    accounts = _accounts(state_dir, config_files)
    accounts.add(name, _password(), project, roles)


@command.command("passwd")
@click.argument("name")
@settings.settings_options
def passwd(*, name: str, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Give a user another password.

    It is asked for, or read, twice, from standard input.
    """
    accounts = _accounts(state_dir, config_files)
    accounts.set_password(name, _password())


@command.command("list")
@settings.settings_options
@json_option
def list_(*, state_dir: str | None, config_files: tuple[str, ...], as_json: bool) -> None:
    """List the users, their projects and roles."""
    found: list[dict[str, object]] = [
        {"name": account.name, "project": account.project, "roles": list(account.roles)}
        for account in _accounts(state_dir, config_files).read().values()
    ]
    if as_json:
        output.write_json(found)
        return
    output.write(output.table_head(_COLUMNS))
    for each in found:
        output.write(
            output.table_row(each, cut=False, columns=_COLUMNS, keys=("name", "project", "roles"))
        )


@command.command("remove")
@click.argument("name")
@settings.settings_options
def remove(*, name: str, state_dir: str | None, config_files: tuple[str, ...]) -> None:
    """Remove a user; what the user's project has stays."""
    _accounts(state_dir, config_files).remove(name)


def _accounts(state_dir: str | None, config_files: tuple[str, ...]) -> "Accounts":
    """The files of the settings in force, in a directory that is there."""
    from headrace import config
    from headrace.service.accounts import Accounts

    path = config.user_file(settings.load(state_dir, config_files))
    try:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(reason=f"{error.filename}: {error.strerror}") from error
    return Accounts(path)


def _password() -> str:
    """A new password: asked for at a terminal, else the first two lines, which must agree."""
    if sys.stdin.isatty():
        return str(
            click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
        )
    first, second = (sys.stdin.buffer.readline(_LONGEST_LINE).rstrip(b"\r\n") for _ in range(2))
    if first != second:
        raise UsageError(reason="the password, given twice on standard input, is not the same")
    try:
        return first.decode()
    except UnicodeDecodeError:
        raise UsageError(reason="the password is not UTF-8") from None
