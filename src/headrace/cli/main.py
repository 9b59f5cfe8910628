"""The command ``headrace``: its commands, loaded when they are used, and its one exit."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import cast

import click

from headrace.cli.session import session_options
from headrace.cli.text import printable
from headrace.errors import Error, UsageError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports a command that was interrupted
EXIT_PIPE = 141  # 128 + SIGPIPE

# name: (module, attribute, summary).  The summary stands here too, so that --help loads no command;
# a test holds it against the command's own.
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "add": ("content", "add", "Add an image; its data is path=FILE, or standard input."),
    "upload": ("content", "upload", "Send the data of an image that has none yet."),
    "download": ("content", "download", "Fetch an image's data."),
    "index": ("images", "index", "List images, one line each."),
    "details": ("images", "details", "List images with all that is known of them."),
    "show": ("images", "show", "Show all that is known of one image."),
    "update": ("images", "update", "Change what is said about an image."),
    "delete": ("images", "delete", "Delete images, after asking about each."),
    "clear": ("images", "clear", "Delete all images, hidden ones too, after asking."),
    "serve": ("server", "serve", "Run the image service."),
    "completion": ("completion", "command", "Write the completion script of a shell."),
    "version": ("version", "version", "Write the version."),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def invoke(self, context: click.Context) -> object:
        try:
            result = super().invoke(context)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # The reader of the output is gone, which is its right: `headrace index | head`.
            _forget_output()
            raise click.exceptions.Exit(EXIT_PIPE) from None

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, summary = COMMANDS[name]
        found = cast("click.Command", getattr(import_module(f"headrace.cli.{module}"), attribute))
        found.name = name
        found.short_help = summary
        return found

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


@click.command(
    cls=Commands,
    params=session_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="These options may also stand after the command.  `headrace COMMAND --help` says more. "
    "Exit status: 0 done, 1 failed, 2 wrongly called, 130 interrupted.",
)
def cli() -> None:
    """Store, list and serve disk images; their bytes move by sendfile and splice."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status.  Every error ends here, in one line on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="headrace", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UsageError as error:
        return _fail(error, EXIT_USAGE)
    except Error as error:
        return _fail(error, EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED


def main() -> None:
    sys.exit(run())


def _fail(error: Error, status: int) -> int:
    click.echo(f"headrace: {printable(' '.join(str(error).split()))}", err=True)
    return status


def _forget_output() -> None:
    """Keep the interpreter from flushing, at its end, what nobody reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
