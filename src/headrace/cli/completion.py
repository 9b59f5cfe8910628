"""What the shell offers after TAB: images of the service, keys and values of words."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from headrace.cli.session import Session
from headrace.cli.text import printable
from headrace.cli.words import VISIBILITIES
from headrace.errors import Error
from headrace.model import MemberStatus, is_image_id

if TYPE_CHECKING:
    from headrace.client import Images

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_HEADRACE_COMPLETE"
OFFERED = 100  # images; more than that nobody reads
PATIENCE_S = 2.0  # for a service that does not answer: the shell waits meanwhile

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
FILTER_VALUES = VALUES | {
    "status": STATUSES,
    "visibility": (*VISIBILITIES, "all"),
    "member_status": (*MemberStatus, "all"),
}
FILTERS = (
    "name",
    "status",
    "member_status",
    "tag",
    "size_min",
    "size_max",
    "min_ram",
    "min_disk",
    *VALUES,
)


class Bash(BashComplete):
    """bash, which breaks words at "=" and ":" and inserts what it is given as it stands.

    It is given the line up to the cursor, so that words are those of the shell, and is answered
    with the part of the word that it replaces, quoted.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' answer type value
    answer=$(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    while IFS=',' read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$answer"
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    _replaced = 0  # where in the word begins what bash replaces

    def get_completion_args(self) -> tuple[list[str], str]:
        # The letter keeps the last word in being when nothing of it is typed yet.
        *words, last = split_arg_string(os.environ["COMP_LINE"] + "x")
        word = last[:-1]
        breaks = os.environ.get("COMP_BREAKS", "")
        self._replaced = max((word.rfind(mark) + 1 for mark in "=:" if mark in breaks), default=0)
        return words[1:], word

    def format_completion(self, item: CompletionItem) -> str:
        value = str(item.value)[self._replaced :]
        return f"{item.type},{_escaped(value)}"


add_completion_class(Bash)


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
    """Ids and names that begin with ``incomplete``, for a word that means an image.

    Whoever may make an image chooses its name, so those that could mean something to a shell are
    not offered; every image has its id.
    """
    session = context.ensure_object(Session)
    session.silent = True
    session.timeout = min(session.timeout, PATIENCE_S)
    try:
        found = list(islice(session.images().list(page_size=OFFERED), OFFERED))
    except Error:
        return []  # a shell's line is no place for an error
    ids = [
        CompletionItem(image_id, help=printable(str(image.get("name") or "")))
        for image in found
        if is_image_id(image_id := str(image["id"]))
    ]
    if not incomplete:
        return ids
    names = (str(image.get("name") or "") for image in found)
    return [item for item in ids if item.value.startswith(incomplete)] + [
        CompletionItem(name)
        for name in names
        if name.startswith(incomplete) and shlex.quote(name) == name
    ]


def members(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The projects that the image before this word is shared with."""
    from headrace.client import Members

    def projects(images: "Images", image: Mapping[str, object]) -> Iterable[object]:
        members = Members(images.connection).list(str(image["id"]))
        return [member["member_id"] for member in members]

    return _of_the_image(context, incomplete, projects)


def tags(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The tags of the image before this word."""

    def tags_of(_images: "Images", image: Mapping[str, object]) -> Iterable[object]:
        found = image.get("tags")
        return found if isinstance(found, list) else []

    return _of_the_image(context, incomplete, tags_of)


def _of_the_image(
    context: click.Context,
    incomplete: str,
    found: Callable[["Images", Mapping[str, object]], Iterable[object]],
) -> list[CompletionItem]:
    """What is found at the image that a word before means, if a shell takes it for nothing else."""
    from headrace.cli.choosing import chosen

    session = context.ensure_object(Session)
    session.silent = True
    session.timeout = min(session.timeout, PATIENCE_S)
    try:
        images = session.images()
        image = chosen(images, str(context.params.get("image_id")))
        names = sorted(map(str, found(images, image)))
    except Error:
        return []
    return _plain(names, incomplete)


def namespaces(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of namespaces of metadata definitions, those that mean nothing to a shell."""
    session = context.ensure_object(Session)
    session.silent = True
    session.timeout = min(session.timeout, PATIENCE_S)
    try:
        found = list(islice(session.metadefs().list(sort="namespace:asc"), OFFERED))
    except Error:
        return []
    return _plain([str(namespace.get("namespace") or "") for namespace in found], incomplete)


def _plain(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those names that go on so, and that a shell takes for nothing else."""
    return [
        CompletionItem(name)
        for name in names
        if name.startswith(incomplete) and shlex.quote(name) == name
    ]


def keys(
    names: Iterable[str], values: dict[str, tuple[str, ...]]
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Offers words ``key=value`` of these keys, and of the values that are known."""

    def offered(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _words(incomplete, names, values)

    return offered


def description(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys and values of what describes an image."""
    return _words(incomplete, ("path", "location", *ATTRIBUTES), VALUES)


def filters(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys and values of what selects images."""
    return _words(incomplete, FILTERS, FILTER_VALUES)


def listed(
    names: Iterable[str],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Offers ``names`` for the last word of a list that commas part."""

    def offered(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, start = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in names
            if name.lower().startswith(start.lower())
        ]

    return offered


def _words(
    incomplete: str, keys: Iterable[str], values: dict[str, tuple[str, ...]]
) -> list[CompletionItem]:
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
                if entry.name.startswith(name)
                and (name or not entry.name.startswith("."))
                and entry.name.isprintable()
            )
    except OSError:
        return []


def _escaped(text: str) -> str:
    """``text`` as a word, or the end of one, on bash's command line."""
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", text, flags=re.ASCII)
