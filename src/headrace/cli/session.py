"""The options every command takes that talks to a service, and what they say."""

import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from headrace.cli import output
from headrace.cli.text import printable
from headrace.errors import Error, UsageError

if TYPE_CHECKING:
    from headrace.client import Cache, Connection, Images, Metadefs, Stores, Usage
    from headrace.client.clouds import Cloud
    from headrace.client.keystone import Keystone

DEFAULT_URL = "http://127.0.0.1:9292"
DEFAULT_PORT = 9292

_LONGEST_PASSWORD = 4096  # bytes


@dataclass
class Session:
    """Which service to talk to, and how to report."""

    url: str | None = None
    host: str | None = None
    port: int | None = None
    token: str | None = None
    user: str | None = None
    password_file: str | None = None
    cafile: str | None = None
    insecure: bool = False
    os_cloud: str | None = None
    os_auth_type: str | None = None
    timeout: float = 60.0
    verbose: bool = False
    debug: bool = False
    as_json: bool = False
    silent: bool = False
    """Nothing is asked, and nothing told that is not an answer."""
    _warned: bool = False

    def endpoint(self) -> str:
        """The service's URL.

        Options come before the environment, --host and --port before HEADRACE_URL, and that before
        what the cloud says, unless the cloud is an option.  --url together with --host or --port is
        a UsageError: one of them would be ignored.
        """
        if self.host is not None or self.port is not None:
            if self.url is not None:
                raise UsageError(reason="--url already says which host and port")
            host = self.host or "127.0.0.1"
            if re.fullmatch(r"[\w.:%-]+", host) is None:
                raise UsageError(reason=f"'{host}' is not the name or address of a host")
            return f"http://{f'[{host}]' if ':' in host else host}:{self.port or DEFAULT_PORT}"
        ours = None if self.os_cloud else os.environ.get("HEADRACE_URL")
        given = self.url or ours or self.cloud.endpoint
        if given is None and self.keystone is not None:
            return self.keystone.endpoint()
        return given or DEFAULT_URL

    @cached_property
    def cloud(self) -> "Cloud":
        """Who calls, and what else of a service clouds.yaml and OS_* say; options come first.

        --token and --user leave no question to Keystone.
        """
        from headrace.client import clouds

        if self.os_cloud is not None and (self.token or self.user) is not None:
            raise UsageError(reason="--os-cloud already says who calls")
        if self.token is not None and self.user is not None:
            raise UsageError(reason="--token already says who calls")
        cloud = clouds.chosen(os.environ, self.os_cloud, self.os_auth_type)
        if (self.token or self.user) is not None and cloud.auth_type != "http_basic":
            cloud = replace(cloud, auth_type="none", auth={})
        if self.token is not None:
            cloud = replace(cloud, auth_type="admin_token", auth={"token": self.token})
        return replace(
            cloud,
            verify=cloud.verify and not self.insecure,
            cafile=self.cafile or cloud.cafile,
        )

    @cached_property
    def keystone(self) -> "Keystone | None":
        """Where tokens come from, which all connections share; None where none is asked."""
        from headrace.client import clouds

        cloud = self.cloud
        if not cloud.asks_keystone:
            return None
        if cloud.auth_type == "v3password" and "password" not in cloud.auth:
            user = cloud.auth.get("username") or cloud.auth.get("user_id")
            if user is not None:
                cloud = cloud.with_password(self._ask_password(user, "OS_PASSWORD or clouds.yaml"))
        if not cloud.verify:
            # urllib3's words for each request; the command has its own, once.
            warnings.filterwarnings("ignore", "Unverified HTTPS request")
        return clouds.keystone_of(cloud, timeout=self.timeout, trace=self._trace)

    @cached_property
    def login(self) -> tuple[str | None, str]:
        """The user and the password to show; None where nobody is named but in the URL.

        Who is named by --user, or else by a cloud whose auth_type is http_basic, has the password
        of --password-file, else of that cloud, else is asked at the terminal: any other password
        is meant for Keystone.
        """
        auth = self.cloud.auth if self.cloud.auth_type == "http_basic" else {}
        user = self.user
        if user is None and auth and "@" not in self.endpoint():
            user = auth.get("username")
        if self.password_file is not None:
            if user is None:
                raise UsageError(reason="--password-file goes with --user")
            return user, _read_password(self.password_file)
        password = auth.get("password")
        if user is not None and password is None:
            password = self._ask_password(user, "--password-file")
        return user, password or ""

    def _ask_password(self, user: str, instead: str) -> str:
        if self.silent or sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(reason=f"no password for {user}: see {instead}")
        return str(click.prompt(f"Password of {user}", hide_input=True, err=True))

    @cached_property
    def _trace(self) -> Callable[[str], None] | None:
        return trace if self.debug else None

    def images(self) -> "Images":
        """The service's images, over a connection that is opened by the first request."""
        from headrace.client import Images

        return Images(self.connection(self.timeout))

    def metadefs(self) -> "Metadefs":
        """The service's metadata definitions, likewise."""
        from headrace.client import Metadefs

        return Metadefs(self.connection(self.timeout))

    def stores(self) -> "Stores":
        """The service's stores, in the same way."""
        from headrace.client import Stores

        return Stores(self.connection(self.timeout))

    def cache(self) -> "Cache":
        """The service's image cache, in the same way."""
        from headrace.client import Cache

        return Cache(self.connection(self.timeout))

    def usage(self) -> "Usage":
        """What the caller's project uses at the service, in the same way."""
        from headrace.client import Usage

        return Usage(self.connection(self.timeout))

    def connection(self, timeout: float) -> "Connection":
        """A connection to the service, which may do nothing for ``timeout`` seconds."""
        # Only here, so that what needs no service (--help, completion) does not load HTTP.
        from headrace.client import clouds

        endpoint = self.endpoint()
        user, password = self.login
        cloud = self.cloud
        if user is not None or cloud.auth_type == "http_basic":
            auth = {"password": password} | ({"username": user} if user is not None else {})
            cloud = replace(cloud, auth_type="http_basic", auth=auth)
        if not cloud.verify:
            self._warn([endpoint, cloud.auth.get("auth_url", "")])
        return clouds.connect(
            cloud, endpoint, keystone=self.keystone, timeout=timeout, trace=self._trace
        )

    def _warn(self, urls: list[str]) -> None:
        """Say once that nobody verifies with whom these are agreed on, if TLS is spoken at all."""
        if any(url.startswith("https:") for url in urls) and not (self._warned or self.silent):
            output.note("certificates are not verified: whoever is on the way may read all of it")
            self._warned = True


class Terminated(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does: what is half made is undone first."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class Seconds(click.FloatRange):
    """A time of at most a day: what the system calls that wait can count, and no NaN."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0, 86400, min_open=min_open)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail("nan is no number of seconds.", param, ctx)
        return seconds


class ServiceCommand(click.Command):
    """A command that takes the session's options too, after its name as before it.

    All but those ``left_out``, which mean something else to it.
    """

    left_out: frozenset[str] = frozenset()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        shared = session_options(hidden=True)
        self.params += [option for option in shared if option.name not in self.left_out]

    def invoke(self, ctx: click.Context) -> Any:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
                signal.signal(number, _terminate)
        return super().invoke(ctx)


def session_options(*, hidden: bool = False) -> list[click.Parameter]:
    """The shared options; ``hidden`` where a help text would only repeat them."""
    options: list[tuple[list[str], dict[str, Any], str]] = [
        (
            ["-U", "--url"],
            {"metavar": "URL"},
            f"The service [HEADRACE_URL, OS_ENDPOINT, Keystone's catalog, else {DEFAULT_URL}].",
        ),
        (["-H", "--host"], {"metavar": "HOST"}, "The service's host, when it is not given as URL."),
        (["-p", "--port"], {"type": click.IntRange(1, 65535)}, "The service's port [9292]."),
        (["-A", "--token"], {"metavar": "TOKEN"}, "The token to show to the service [OS_TOKEN]."),
        (
            ["--user"],
            {"metavar": "NAME"},
            "The user to show [OS_USERNAME, where OS_AUTH_TYPE is http_basic].",
        ),
        (
            ["--password-file"],
            {"type": click.Path(dir_okay=False), "metavar": "FILE"},
            "A file with the user's password [OS_PASSWORD, there; else asked for].",
        ),
        (
            ["--os-cloud"],
            {"metavar": "NAME", "shell_complete": _names_of_clouds},
            "The cloud of clouds.yaml to use [OS_CLOUD; else what OS_* say].",
        ),
        (
            ["--os-auth-type"],
            {"metavar": "TYPE"},
            "How to show who calls: none, http_basic, v3password, … [OS_AUTH_TYPE].",
        ),
        (
            ["--cafile"],
            {"type": click.Path(exists=True)},
            "Certificate authorities to trust [OS_CACERT].",
        ),
        (["-k", "--insecure"], {"is_flag": True}, "Do not verify certificates."),
        (
            ["--timeout"],
            {"type": Seconds(min_open=True), "metavar": "SECONDS"},
            "For how long the service may do nothing [60].",
        ),
        (["-v", "--verbose"], {"is_flag": True}, "Say more: time, rate, how the bytes went."),
        (
            ["-d", "--debug"],
            {"is_flag": True},
            "Show requests and answers, secrets masked.",
        ),
        (["--json", "as_json"], {"is_flag": True}, "Write JSON."),
    ]
    return [
        click.Option(
            names, help=text, hidden=hidden, expose_value=False, callback=_remember, **details
        )
        for names, details, text in options
    ]


def _or_said_before(context: click.Context, _option: click.Parameter, value: bool) -> bool:
    return value or context.ensure_object(Session).as_json


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_or_said_before, help="Write JSON."
)
"""``--json`` of a command that asks no service; it may stand before the command, too."""


def _names_of_clouds(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    from headrace.client import clouds

    try:
        found = clouds.names(os.environ)
    except Error:
        return []  # a shell's line is no place for an error
    return [name for name in found if name.startswith(incomplete)]


def _read_password(path: str) -> str:
    try:
        with open(path, "rb") as file:
            line = file.readline(_LONGEST_PASSWORD + 2)
        return line.rstrip(b"\r\n").decode()
    except OSError as error:
        raise UsageError(reason=f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(reason=f"the password in {path} is not UTF-8") from None


def _remember(context: click.Context, option: click.Parameter, value: object) -> None:
    session = context.ensure_object(Session)
    assert option.name is not None
    if context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
        setattr(session, option.name, value)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)


def trace(line: str) -> None:
    click.echo(printable(line), err=True)
