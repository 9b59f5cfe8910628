"""What the shell offers after TAB: images of the service, keys and values of words."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from headrace.cli.session import Session
from headrace.cli.words import VISIBILITIES
from headrace.errors import Error

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_HEADRACE_COMPLETE"
OFFERED = 100  # images; more than that nobody reads

BOOLEANS = ("true", "false")
DISK_FORMATS = (
    "raw", "qcow2", "iso", "vmdk", "vhd", "vhdx", "vdi", "ploop", "ami", "ari", "aki"
)  # fmt: skip
CONTAINER_FORMATS = ("bare", "ovf", "ova", "docker", "compressed", "ami", "ari", "aki")
VALUES: dict[str, tuple[str, ...]] = {
    "disk_format": DISK_FORMATS,
    "container_format": CONTAINER_FORMATS,
    "visibility": VISIBILITIES,
    "protected": BOOLEANS,
    "os_hidden": BOOLEANS,
}
ATTRIBUTES = ("name", "min_disk", "min_ram", "owner", "tags", "tag", *VALUES)
STATUSES = ("queued", "saving", "uploading", "importing", "active", "deactivated")
FILTER_VALUES = VALUES | {"status": STATUSES, "visibility": (*VISIBILITIES, "all")}
FILTERS = ("name", "status", "tag", "size_min", "size_max", "min_ram", "min_disk", *VALUES)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Write the completion script of a shell.

    SHELL is that of $SHELL if it is not given.

    \b
      eval "$(headrace completion bash)"
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "headrace", VARIABLE).source())


def images(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids and names that begin with ``incomplete``, for a word that means an image."""
    session = context.ensure_object(Session)
    try:
        found = list(islice(session.images().list(page_size=OFFERED), OFFERED))
    except Error:
        return []  # a shell's line is no place for an error
    offered = [
        CompletionItem(str(image["id"]), help=str(image.get("name") or "")) for image in found
    ]
    offered += [CompletionItem(str(image["name"])) for image in found if image.get("name")]
    return [item for item in offered if incomplete and item.value.startswith(incomplete)] or (
        [] if incomplete else offered[: len(found)]
    )


def description(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys and values of what describes an image."""
    return _words(context, parameter, incomplete, ("path", *ATTRIBUTES), VALUES)


def filters(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys and values of what selects images."""
    return _words(context, parameter, incomplete, FILTERS, FILTER_VALUES)


def _words(
    context: click.Context,
    parameter: click.Parameter,
    incomplete: str,
    keys: Iterable[str],
    values: dict[str, tuple[str, ...]],
) -> list[CompletionItem]:
    before = list(context.params.get(parameter.name or "") or ())
    # bash breaks words at "=": "disk_format=q" arrives as three, and only the last is replaced.
    if incomplete == "=" and before:
        return [CompletionItem(value) for value in _values(before[-1], "", values)]
    if len(before) >= 2 and before[-1] == "=":
        return [CompletionItem(value) for value in _values(before[-2], incomplete, values)]
    key, equals, start = incomplete.partition("=")
    if equals:
        return [CompletionItem(f"{key}={value}") for value in _values(key, start, values)]
    return [CompletionItem(f"{known}=") for known in keys if known.startswith(key)]


def _values(key: str, start: str, values: dict[str, tuple[str, ...]]) -> list[str]:
    if key == "path":
        return _paths(start)
    return [value for value in values.get(key, ()) if value.startswith(start)]


def _paths(start: str) -> list[str]:
    """The files and directories whose path begins with ``start``."""
    directory, _, name = start.rpartition("/")
    shown = f"{directory}/" if "/" in start else ""
    try:
        with os.scandir(shown or ".") as entries:
            return sorted(
                f"{shown}{entry.name}{'/' if entry.is_dir() else ''}"
                for entry in entries
                if entry.name.startswith(name) and (name or not entry.name.startswith("."))
            )
    except OSError:
        return []
