"""The command ``headrace``: its commands, loaded when they are used, and its one exit."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import cast

import click

from headrace import __version__
from headrace.cli import output
from headrace.cli.session import Terminated, session_options
from headrace.errors import ClientError, Error, UsageError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128  # plus the signal's number, as a shell reports a command that it ended
EXIT_PIPE = EXIT_SIGNAL + signal.SIGPIPE

COMPLETING = "_HEADRACE_COMPLETE"  # set by the shell's completion; click's own rule

# name: (module, attribute, summary).  The summary stands here too, so that --help loads no command;
# a test holds it against the command's own.
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "add": ("content", "add", "Add an image; its data is path=FILE, or standard input."),
    "upload": ("content", "upload", "Send the data of an image that has none yet."),
    "download": ("content", "download", "Fetch an image's data."),
    "fetch": (
        "fetch",
        "fetch",
        "Fetch an image to this host's cache, and from there to a file.",
    ),
    "fetched": ("fetch", "fetched", "Look after the images that were fetched to this host."),
    "import": (
        "imports",
        "command",
        "Have the service fetch an image's data, or copy it.",
    ),
    "index": ("images", "index", "List images, one line each."),
    "details": ("images", "details", "List images with all that is known of them."),
    "show": ("images", "show", "Show all that is known of one image."),
    "update": ("images", "update", "Change what is said about an image."),
    "delete": ("images", "delete", "Delete images, after asking about each."),
    "clear": ("images", "clear", "Delete all images, hidden ones too, after asking."),
    "tag": ("tags", "tag", "Tag an image."),
    "untag": ("tags", "untag", "Take tags away from an image."),
    "deactivate": ("actions", "deactivate", "Take an image out of use."),
    "reactivate": ("actions", "reactivate", "Put a deactivated image to use again."),
    "member-add": ("members", "add", "Share an image with a project."),
    "member-delete": ("members", "delete", "Stop sharing an image with a project."),
    "member-accept": ("members", "accept", "Accept, for a project, an image shared with it."),
    "member-reject": ("members", "reject", "Reject, for a project, an image shared with it."),
    "image-members": ("members", "of_image", "List the projects an image is shared with."),
    "member-images": ("members", "of_project", "List the images shared with a project."),
    "stores": ("stores", "stores", "List the stores of a service that has several."),
    "cache": ("cache", "command", "Look after a service's image cache."),
    "usage": ("usage", "usage", "Show what your project uses, of what it may."),
    "serve": ("server", "serve", "Run the image service."),
    "config": ("recipes", "command", "Write the configuration of a server to run it in or behind."),
    "user": (
        "accounts",
        "command",
        "Look after the users who show a password (auth_strategy http_basic).",
    ),
    "top": ("top", "top", "Watch the transfers under way."),
    "md": ("metadefs", "command", "List and change metadata definitions."),
    "policy": ("policy", "command", "Show and try the rules about who may do what."),
    "db": ("database", "command", "Look after a service's database."),
    "store": ("store", "command", "Look after a service's stores."),
    "bench": (
        "bench",
        "bench",
        "Measure a link, or an image service, netperf's way.",
    ),
    "netserver": ("netserver", "netserver", "Wait at the far end of a link for `headrace bench`."),
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


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"headrace {__version__}")
        context.exit()


version_option = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Write the version.",
)


@click.command(
    cls=Commands,
    params=[*session_options(), version_option],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="These options may also stand after the command.  `headrace COMMAND --help` says more. "
    "Exit status: 0 done, 1 failed, 2 wrongly called, 128 and the signal's number if ended by one "
    "(130 for Ctrl-C).",
)
def cli() -> None:
    """Store, list and serve disk images; their bytes move by sendfile and splice."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status.  Every error ends here, in one line on stderr."""
    if COMPLETING in os.environ:
        import_module("headrace.cli.completion")  # which teaches click our way with bash
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
    except (click.Abort, KeyboardInterrupt) as error:
        # click raises Abort in place of what interrupted it.
        cause = error.__context__ if isinstance(error, click.Abort) else error
        number = cause.number if isinstance(cause, Terminated) else signal.SIGINT
        return EXIT_SIGNAL + number
    except OSError as error:
        # What a transfer meets has become an error of ours; this is the output, on a full disk.
        _forget_output()
        return _fail(ClientError(reason=_met(error)), EXIT_ERROR)


def main() -> None:
    _open_standard_streams()
    sys.exit(run())


def _fail(error: Error, status: int) -> int:
    output.note(output.told(error))
    return status


def _met(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _open_standard_streams() -> None:
    """Open /dev/null where a standard stream is closed, or the next file opened would take it."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        setattr(sys, name, os.fdopen(fd, "w" if fd else "r", encoding="utf-8"))


def _forget_output() -> None:
    """Keep the interpreter from flushing, at its end, what nobody reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
