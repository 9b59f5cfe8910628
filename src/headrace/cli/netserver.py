"""headrace netserver: the far end of measurements."""

import os
import sys
from pathlib import Path

import click

from headrace.cli import output
from headrace.errors import UsageError

LEAST_SECRET = 16  # bytes


@click.command()
@click.option(
    "-H", "--host", default="127.0.0.1", show_default=True, help="The address to listen on."
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=12865,
    show_default=True,
    help="The port of control connections; data connections have ports of their own.",
)
@click.option("-D", "--daemon", is_flag=True, help="Go on in the background.")
@click.option(
    "--max-tests",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Measurements at once; more are refused.",
)
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False),
    help=f"Serve only who has the same secret: at least {LEAST_SECRET} bytes in this file.",
)
@click.option(
    "--files",
    is_flag=True,
    help="Let the near end name files here: to store data in, to drop from the page cache.",
)
def netserver(
    *,
    host: str,
    port: int,
    daemon: bool,
    max_tests: int,
    secret_file: str | None,
    files: bool,
) -> None:
    """Wait at the far end of a link for `headrace bench`.

    It sends and receives as fast as it can, for whoever may connect: this machine alone unless told
    otherwise.  Ctrl-C or SIGTERM ends it.
    """
    from headrace.api.auth import is_loopback
    from headrace.bench import agent

    secret = read_secret(secret_file)
    if files and secret is None and not is_loopback(host):
        raise UsageError(reason="--files lets whoever connects name files; it wants --secret-file")
    listener = agent.listen(host, port)
    output.note(f"waiting for measurements on {host} port {listener.getsockname()[1]}")
    if daemon:
        _detach()
    agent.serve(listener, secret=secret, max_tests=max_tests, files=files)


def read_secret(file: str | None) -> bytes | None:
    """The secret in a file, without the white space around it; raises UsageError for a weak one."""
    if file is None:
        return None
    secret = Path(file).read_bytes().strip()
    if len(secret) < LEAST_SECRET:
        raise UsageError(reason=f"{file}: a secret has at least {LEAST_SECRET} bytes")
    return secret


def _detach() -> None:
    """Go on as a daemon: without a terminal, a parent or standard streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
