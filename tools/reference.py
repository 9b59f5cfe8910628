"""Write docs/reference from the program itself: errors, settings, commands, the API.

``python -m tools.reference`` writes the pages; with ``--check`` it only says which are stale, and
fails when one is.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from falcon import testing
from oslo_config import cfg

from headrace import config, errors, keystone_settings, settings, store_settings
from headrace.api import app
from headrace.cli.main import cli

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
GENERATED = "<!-- Written by `make docs`; do not edit. -->\n"
WIDTH = 100


def error_page() -> str:
    """Every error: its code, status and text."""
    rows = [
        f"| `{error.code}` | {error.status} | {error.__name__} | {_cell(error.text)} |"
        for error in errors.tree()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            GENERATED,
            "Every error answer carries its code in the header `X-Headrace-Error`; the client "
            "library raises the class of that code again. Codes never change. Words in braces "
            "are filled in.",
            "",
            "| code | status | class in `headrace.errors` | text |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def settings_page() -> str:
    """Every setting: its type, default and meaning."""
    lines = [
        "# Settings",
        "",
        GENERATED,
        "Names, groups and defaults are those of `glance-api.conf` wherever Glance has the same "
        "setting; what only Headrace has lies in the group `[headrace]`. Settings of a file that "
        "are not listed here are ignored, and told at the start. Each can also be set in the "
        "environment, under the name given in the last column, which wins over a file; the options "
        "of `headrace serve` win over both.",
    ]
    for group, options in settings.OPTIONS.items():
        lines += ["", f"## [{group}]", "", "| setting | type | default | meaning | environment |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_setting(group, option) for option in options]
    lines += _authtoken()
    lines += _limits()
    for kind, options in store_settings.OF_TYPE.items():
        lines += ["", f"## The group of a store of type {kind}", ""]
        lines += [
            f"`<ID>` is the store's id, or `{store_settings.ONE}` without enabled_backends.",
            "",
        ]
        lines += ["| setting | type | default | meaning | environment |", "|---|---|---|---|---|"]
        lines += [_setting("<ID>", option) for option in [*store_settings.COMMON, *options]]
    return "\n".join([*lines, ""])


def _setting(group: str, option: cfg.Opt) -> str:
    variable = f"OS_{group.upper()}__{option.dest.upper()}"
    words = [f"`{option.name}`", _cell(_kind(option)), _default(option), _cell(option.help or "")]
    return f"| {' | '.join(words)} | `{variable}` |"


def _default(option: cfg.Opt) -> str:
    shown = option.default if option.sample_default is None else option.sample_default
    return _cell("unset" if shown is None else f"`{_text(shown)}`" if shown != "" else "empty")


def _authtoken() -> list[str]:
    """Names, types and defaults: what they mean is keystonemiddleware's to say."""
    group = keystone_settings.GROUP
    timeout = keystone_settings.REQUEST_TIMEOUT
    return [
        "",
        f"## [{group}]",
        "",
        "With auth_strategy keystone; [the guide](../guides/keystone.md) says which matter. They "
        "are keystonemiddleware's own, and keystoneauth's for the `auth_type` (`password`: "
        "`auth_url`, `username`, …). http_connect_timeout is "
        f"{timeout} unless it is set; delay_auth_decision has no effect.",
        *_names(keystone_settings.options()),
    ]


def _limits() -> list[str]:
    return [
        "",
        f"## [{keystone_settings.LIMITS}]",
        "",
        "With use_keystone_limits; [the guide](../guides/quotas.md) says which matter. They are "
        "oslo.limit's own, and keystoneauth's for the `auth_type`. timeout is "
        f"{keystone_settings.REQUEST_TIMEOUT} unless it is set.",
        *_names(keystone_settings.limit_options()),
    ]


def _names(options: list[cfg.Opt]) -> list[str]:
    options = sorted(options, key=lambda option: str(option.name))
    return [
        "",
        "| setting | type | default |",
        "|---|---|---|",
        *(f"| `{each.name}` | {_cell(_kind(each))} | {_default(each)} |" for each in options),
    ]


def _kind(option: cfg.Opt) -> str:
    kind = type(option).__name__.removesuffix("Opt")
    names = {"Str": "string", "Int": "integer", "Float": "number", "Bool": "boolean", "URI": "URL"}
    text = names.get(kind, kind.lower())
    choices = getattr(option.type, "choices", None)
    if choices:
        text += ": " + ", ".join(f"`{choice}`" for choice in choices)
    lower = getattr(option.type, "min", None)
    return text if lower is None else f"{text}, ≥ {_text(lower)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or " "
    return str(value).lower() if isinstance(value, bool) else str(value)


def command_page() -> str:
    """The help of every command."""
    blocks = [f"# Commands\n\n{GENERATED}"]
    context = cli.make_context("headrace", [], resilient_parsing=True, terminal_width=WIDTH)
    for name, text in _helps(cli, context):
        blocks.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(blocks)


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                inner = found.make_context(name, [], context, resilient_parsing=True)
                yield from _helps(found, inner)


def openapi_page() -> str:
    """The API, as a service with the usual settings describes it."""
    with tempfile.TemporaryDirectory() as directory:
        application = app.build(config.load([], {("headrace", "state_dir"): directory}))
        try:
            answer = testing.simulate_get(
                application, "/v2/openapi.json", host="localhost", remote_addr="127.0.0.1"
            )
        finally:
            application.close()
    text = yaml.safe_dump(answer.json, sort_keys=False, allow_unicode=True, width=WIDTH)
    return f"# Written by `make docs`; do not edit.\n{text}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def pages() -> dict[Path, str]:
    """Every generated page, by where it lies."""
    return {
        DIRECTORY / "commands.md": command_page(),
        DIRECTORY / "errors.md": error_page(),
        DIRECTORY / "openapi.yaml": openapi_page(),
        DIRECTORY / "settings.md": settings_page(),
    }


def stale() -> list[Path]:
    """The pages that differ from what the program would write now."""
    return [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        old = stale()
        for path in old:
            print(f"{path.relative_to(Path.cwd())} is stale: run make docs", file=sys.stderr)
        return 1 if old else 0
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
