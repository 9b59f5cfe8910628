"""headrace config: working configurations of the servers Headrace can live in or behind."""

import os
import re
import resource
import shlex
import shutil
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pwd import struct_passwd
from typing import TYPE_CHECKING

import click

from headrace.cli import output, quoting, settings, users
from headrace.cli.address import Address, ListenAddress
from headrace.cli.server import FRONTS
from headrace.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from oslo_config import cfg

RECIPES: dict[str, str] = {
    "nginx": "nginx.conf",
    "apache": "apache.conf",
    "haproxy": "haproxy.cfg",
    "gunicorn": "gunicorn.conf",
    "uwsgi": "uwsgi.ini",
    "mod_wsgi": "mod_wsgi.conf",
    "systemd": "headrace.service",
}

DEFAULT_ADDRESS = Address("127.0.0.1", 9292)

_PLACE = re.compile(r"@\{([^}]*)\}")
_NAME = re.compile(r"<(\w+)>")
_APACHE_LOGS = ("/var/log/apache2", "/var/log/httpd", "/var/log")
_APACHE_MODULES = ("/usr/lib/apache2/modules", "/etc/httpd/modules", "/usr/lib64/httpd/modules")
_MOST_FILES = 32768
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_STORE_FAILED = """\
        location @headrace-store-failed {
            internal;
            default_type text/plain;
            # A client that asks for it by itself: Headrace has said nothing.
            if ($headrace_request = "") {
                return 404;
            }
            add_header X-Openstack-Request-Id $headrace_request always;
            return 502 "the store of the image's data does not answer\\n";
        }
"""


@dataclass(frozen=True)
class Setup:
    """What a recipe is written for."""

    conf: "cfg.ConfigOpts"
    config_files: tuple[str, ...]
    listen: Address
    listen_given: bool
    behind: str | None
    no_auth: bool
    auth_strategy: str | None
    front_user: str | None
    certificate: str | None
    key: str | None

    @property
    def state_dir(self) -> str:
        from headrace import config

        return config.state_dir(self.conf)

    @property
    def front_locations(self) -> dict[str, str]:
        from headrace import config

        return config.front_locations(self.conf)

    @property
    def staging_dir(self) -> str:
        from headrace import config

        return config.staging_dir(self.conf)

    @property
    def cache_dir(self) -> str | None:
        from headrace import config

        return config.image_cache_dir(self.conf)

    @property
    def buffer_dirs(self) -> list[str]:
        from headrace import config

        return config.buffer_dirs(self.conf)

    @property
    def audit_dir(self) -> str | None:
        from headrace import config

        file = config.audit_log(self.conf)
        return None if file in (None, "-") else os.path.dirname(file)

    @property
    def image_dirs(self) -> list[str]:
        from headrace import config

        return config.image_dirs(self.conf)

    @property
    def socket(self) -> str:
        from headrace import config

        return config.unix_socket(self.conf)

    @property
    def owner(self) -> struct_passwd:
        """The user that Headrace runs as: whose the state directory is, else who is asking."""
        return users.owner_of(self.state_dir)

    def check_access(self, front: struct_passwd) -> None:
        """Raises ConfigurationError when the server in front could not do its part."""
        from headrace import config, store_settings

        modes = {
            config.image_dir(self.conf, store.id): config.file_perm(self.conf, store.id)
            for store in store_settings.described(self.conf)
            if store.kind == "file"
        }
        directories = {each: modes.get(each, 0) for each in self.front_locations}
        users.check_access(front, self.owner, self.socket, directories)

    def environment(self) -> dict[str, str]:
        """What a process must find in its environment to be configured like this."""
        found = {"OS_HEADRACE__STATE_DIR": self.state_dir.replace("$", "$$")}
        if self.config_files:
            files = list(map(os.path.abspath, self.config_files))
            for file in files:
                quoting.refuse(file, ":", "HEADRACE_CONFIG")
            found["HEADRACE_CONFIG"] = ":".join(files)
        if self.no_auth:
            found["OS_HEADRACE__UNAUTHENTICATED_OK"] = "true"
        if self.auth_strategy is not None:
            found["OS_HEADRACE__AUTH_STRATEGY"] = self.auth_strategy
        return found

    def serve(self, behind: str | None) -> list[str]:
        """The words that start the embedded server."""
        words = [_program("headrace"), "serve", "--state-dir", self.state_dir]
        for file in self.config_files:
            words += ["--config-file", os.path.abspath(file)]
        if behind is not None:
            words += ["--behind", behind]
        else:
            words += ["--host", self.listen.host, "--port", str(self.listen.port)]
        if self.no_auth:
            words.append("--unauthenticated-ok")
        if self.auth_strategy is not None:
            words += ["--auth", self.auth_strategy]
        for word in words:
            quoting.refuse(word, "", "a command line")
        return words


@click.command("config")
@click.argument("server", type=click.Choice(list(RECIPES)))
@settings.settings_options
@click.option(
    "--listen",
    type=ListenAddress(),
    metavar="HOST:PORT",
    help="Where clients connect [127.0.0.1:9292].",
)
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Speak TLS with this certificate (and its chain); PEM.",
)
@click.option(
    "--key", type=click.Path(dir_okay=False), metavar="FILE", help="The certificate's key; PEM."
)
@click.option(
    "--front-user",
    metavar="USER",
    help="Whom the server in front runs as, who must be able to read the images [nginx: the state "
    "directory's owner; Apache: www-data, or apache].",
)
@click.option(
    "--behind",
    type=click.Choice(list(FRONTS)),
    help="For systemd: the server in front of the service.",
)
@settings.auth_option
@click.option(
    "--no-auth",
    is_flag=True,
    help="Write a configuration that serves everybody who can connect, without authentication.",
)
def command(
    *,
    server: str,
    state_dir: str | None,
    config_files: tuple[str, ...],
    listen: Address | None,
    certificate: str | None,
    key: str | None,
    front_user: str | None,
    behind: str | None,
    auth_strategy: str | None,
    no_auth: bool,
) -> None:
    """Write the configuration of a server to run it in or behind.

    It is for the settings in force and to be used as it is.  nginx, apache and haproxy stand in
    front of `headrace serve --behind`, gunicorn, uwsgi and mod_wsgi run the service themselves,
    systemd starts it.  What cannot work, such as images that Apache could not read, is said
    instead.

    \b
        headrace config nginx > headrace-nginx.conf
        nginx -c "$PWD/headrace-nginx.conf"
    """
    if behind is not None and server != "systemd":
        raise UsageError(reason="--behind goes with systemd")
    if (certificate is None) != (key is None):
        raise UsageError(reason="--certificate and --key go together")
    if certificate is not None and server in ("systemd", "uwsgi"):
        raise UsageError(reason=f"TLS ends in front: {server} takes no --certificate")
    overrides: dict[tuple[str, str], object] = {}
    if auth_strategy is not None:
        overrides["headrace", "auth_strategy"] = auth_strategy
    if no_auth:
        overrides["headrace", "unauthenticated_ok"] = True
    conf = settings.load(state_dir, config_files, overrides)
    setup = Setup(
        conf, config_files, listen or DEFAULT_ADDRESS, listen is not None,
        behind, no_auth, auth_strategy, front_user,
        certificate and os.path.abspath(certificate), key and os.path.abspath(key),
    )  # fmt: skip
    click.echo(_write(server, setup), nl=False)
    _note_access(server, setup)
    if server in ("nginx", "haproxy", "systemd") and setup.owner.pw_uid == 0:
        output.note(
            f"Headrace would run as root, whose {setup.state_dir} is or would be: make it for a "
            "user of its own, who then is in what is written"
        )


def _note_access(server: str, setup: Setup) -> None:
    """Say who would be served otherwise than may be expected."""
    from headrace import config
    from headrace.server.exposure import SHOWN

    conf = setup.conf
    strategy = conf.headrace.auth_strategy
    in_front = server in FRONTS or setup.behind is not None
    if strategy == "none":
        elsewhere = in_front or not setup.listen.is_loopback
        if elsewhere and not conf.headrace.unauthenticated_ok:
            output.note(
                "nobody is authenticated, so Headrace serves nobody who comes through a proxy or "
                "from another machine; --auth http_basic asks for passwords, --no-auth serves "
                "everybody who can connect"
            )
        return
    if strategy == "http_basic" and not os.path.exists(file := config.user_file(conf)):
        output.note(
            f"the service will not start without {file}: `headrace user add NAME --project "
            "PROJECT --role ROLE` makes it"
        )
    if not setup.certificate and server != "systemd" and not setup.listen.is_loopback:
        output.note(
            f"{SHOWN[strategy]} would cross the network unencrypted: see --certificate, --key"
        )


def _write(server: str, setup: Setup) -> str:
    values = _common(setup, server) | _VALUES[server](setup)
    return re.sub(r"\n{3,}", "\n\n", _filled(RECIPES[server], values, _QUOTES[server]))


def _filled(recipe: str, values: Mapping[str, str], quote: Callable[[str], str]) -> str:
    """The text of a file of recipes/ with values in its places."""
    template = files("headrace").joinpath("recipes", recipe).read_text(encoding="utf-8")

    def fill(match: re.Match[str]) -> str:
        kind, colon, text = match[1].partition(":")
        if kind == "quoted" and colon:
            return quote(_NAME.sub(lambda name: values[name[1]], text))
        return values[match[1]]

    return _PLACE.sub(fill, template)


def _common(setup: Setup, server: str) -> dict[str, str]:
    from headrace import config

    conf = setup.conf
    owner = setup.owner
    behind = server if server in FRONTS else setup.behind
    anybody = conf.headrace.unauthenticated_ok
    notes = "#\n# Without authentication: whoever can connect is an administrator.\n"
    return {
        "serve": shlex.join(setup.serve(behind)),
        "notes": notes if anybody else "",
        "user": owner.pw_name,
        "group": users.group_name(owner.pw_gid),
        "state_dir": setup.state_dir,
        "offload_dir": config.offload_dir(conf),
        "socket": setup.socket,
        "size_cap": str(conf.image_size_cap),
        "stall": str(max(1, round(conf.headrace.stall_timeout))),
        "threads": str(conf.headrace.threads),
        "listen": str(setup.listen),
        "port": str(setup.listen.port),
    }


# --- the values of each recipe


def _nginx(setup: Setup) -> dict[str, str]:
    listen = str(setup.listen)
    tls = "        # TLS: `headrace config nginx --certificate FILE --key FILE` adds it.\n"
    if setup.certificate and setup.key:
        listen += " ssl"
        tls = (
            f"        ssl_certificate {quoting.nginx(setup.certificate)};\n"
            f"        ssl_certificate_key {quoting.nginx(setup.key)};\n"
            "        ssl_protocols TLSv1.2 TLSv1.3;\n"
        )
    user = setup.owner
    if setup.front_user:
        user = users.named(setup.front_user)
        setup.check_access(user)
    return {
        "user": user.pw_name,
        "group": users.group_name(user.pw_gid),
        "listen": listen,
        "tls": tls,
        "images": _nginx_images(setup),
        "stores": _nginx_stores(setup),
        "sendfile": "on" if _zero_copy(setup) else "off",
        "files": str(_open_files()),
    }


def _nginx_images(setup: Setup) -> str:
    """A location for each directory whose files nginx sends."""
    common = _common(setup, "nginx")
    return "".join(
        _filled("nginx-images.conf", common | {"image_dir": path, "location": where}, quoting.nginx)
        for path, where in setup.front_locations.items()
    )


def _nginx_stores(setup: Setup) -> str:
    """A location for each service whose data nginx fetches by itself; what they answer with."""
    from headrace.api import backends, delivery

    common = _common(setup, "nginx")
    found = []
    for origin, cafile in backends.redirects(setup.conf).items():
        scheme, _, host = origin.partition("://")
        values = {
            "store_origin": origin,
            "store_host": host,
            "store_location": f"{delivery.STORES}{scheme}/{host}/",
            "store_cacert": cafile or ssl.get_default_verify_paths().cafile or _AUTHORITIES,
        }
        found.append(_filled("nginx-store.conf", common | values, quoting.nginx))
    return "".join([*found, _STORE_FAILED] if found else [])


def _apache(setup: Setup) -> dict[str, str]:
    quoting.refuse(setup.socket, "|", "Apache")
    user = users.named(setup.front_user) if setup.front_user else users.apaches()
    setup.check_access(user)
    return {
        "user": user.pw_name,
        "group": users.group_name(user.pw_gid),
        **_apache_values(setup),
    }


def _mod_wsgi(setup: Setup) -> dict[str, str]:
    import headrace
    from headrace.server import __file__ as server_package

    script = Path(server_package).with_name("wsgi.py")
    package_dir = str(Path(headrace.__file__).parents[1])
    paths = [package_dir, *(path for path in sys.path if path.endswith("-packages"))]
    names = setup.environment()
    user = _mod_wsgi_user(setup)
    return {
        "user": user.pw_name,
        "group": users.group_name(user.pw_gid),
        "python_path": ":".join(dict.fromkeys(paths)),
        "script": str(script),
        "script_dir": str(script.parent),
        "set_env": "".join(
            f"    SetEnv {name} {quoting.apache(value)}\n" for name, value in names.items()
        ),
        **_apache_values(setup),
    }


def _apache_values(setup: Setup) -> dict[str, str]:
    modules = next((each for each in _APACHE_MODULES if os.path.isdir(each)), _APACHE_MODULES[0])
    tls_modules = ""
    tls = "    # TLS: --certificate FILE --key FILE of `headrace config` adds it.\n"
    if setup.certificate and setup.key:
        tls_modules = (
            "<IfModule !ssl_module>\n"
            f"    LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so\n"
            f"    LoadModule ssl_module {modules}/mod_ssl.so\n"
            "</IfModule>\n"
        )
        tls = (
            "    SSLEngine on\n"
            f"    SSLCertificateFile {quoting.apache(setup.certificate)}\n"
            f"    SSLCertificateKeyFile {quoting.apache(setup.key)}\n"
            "    SSLProtocol -all +TLSv1.2 +TLSv1.3\n"
        )
    # Root does not write where another user could have put a link in its way.
    run_dir = log_dir = setup.state_dir
    if os.geteuid() == 0:
        run_dir = "/run"
        log_dir = next(filter(os.path.isdir, _APACHE_LOGS))
    return {
        "run_dir": run_dir,
        "log_dir": log_dir,
        "writer": "root" if os.geteuid() == 0 else "who wrote this",
        "modules": modules,
        "tls_modules": tls_modules,
        "tls": tls,
        "sent_dirs": "".join(
            f"    XSendFilePath {quoting.apache(path)}\n" for path in setup.front_locations
        ),
        "Sendfile": "On" if _zero_copy(setup) else "Off",
    }


def _haproxy(setup: Setup) -> dict[str, str]:
    owner = setup.owner
    tls = ""
    if setup.certificate and setup.key:
        # HAProxy looks for the key beside the certificate.
        beside = (setup.certificate, f"{setup.certificate}.key")
        if setup.key not in beside:
            raise UsageError(
                reason=f"HAProxy wants the key in the certificate's file or as {beside[1]}"
            )
        tls = f" ssl crt {quoting.haproxy(setup.certificate)} ssl-min-ver TLSv1.2"
    return {
        "tls": tls,
        # Started by root, it becomes the user whose socket it uses, once it listens.
        "identity": f"    user {owner.pw_name}\n    group {users.group_name(owner.pw_gid)}\n",
        "splice": "    option splice-request\n    option splice-response\n"
        if _zero_copy(setup)
        else "",
        # A connection has two ends, and may be spliced through a pipe.
        "connections": str(max(_open_files() // 4 - 64, 1)),
        "haproxy_socket": quoting.haproxy(f"unix@{setup.socket}"),
    }


def _gunicorn(setup: Setup) -> dict[str, str]:
    raw_env = [f"{name}={value}" for name, value in setup.environment().items()]
    line = "" if _zero_copy(setup) else "sendfile = False\n"
    if setup.certificate and setup.key:
        line += f"# With TLS everything is copied.\ncertfile = {setup.certificate!r}\n"
        line += f"keyfile = {setup.key!r}\n"
    return {
        "gunicorn": _program("gunicorn"),
        "bind": repr(str(setup.listen)),
        "raw_env": repr(raw_env),
        "sendfile_line": line,
    }


def _uwsgi(setup: Setup) -> dict[str, str]:
    env = setup.environment()
    words = [_program("uwsgi", "pyuwsgi"), "--ini", "THIS_FILE"]
    socket = f"http-socket = {setup.listen}\n" if setup.listen_given else ""
    if not setup.listen_given:
        # In the file, it would be listened on beside what the command line names.
        words += ["--http-socket", str(setup.listen)]
    return {
        "start": " ".join(words),
        "http_socket": socket,
        "env": "\n".join(f"{name} = {quoting.uwsgi(value)}" for name, value in env.items()),
        "sendfile": "" if _zero_copy(setup) else "disable-sendfile = true\n",
    }


def _systemd(setup: Setup) -> dict[str, str]:
    words = setup.serve(setup.behind)
    state_directory = "StateDirectory=headrace\nStateDirectoryMode=0750\n"
    return {
        "exec_start": " ".join(map(quoting.systemd, words)),
        "state_directory": state_directory if setup.state_dir == "/var/lib/headrace" else "",
        "writable": " ".join(
            quoting.systemd_path(path) for path in _not_within(_written_to(setup))
        ),
        # serve's --drain-timeout, and time to clean up.
        "stop_seconds": "75",
    }


def _written_to(setup: Setup) -> list[str]:
    maybe = (setup.cache_dir, setup.audit_dir)
    others = [each for each in maybe if each is not None]
    stores = (*setup.image_dirs, setup.staging_dir, *setup.buffer_dirs)
    return [setup.state_dir, *stores, *others]


_VALUES: dict[str, Callable[[Setup], dict[str, str]]] = {
    "nginx": _nginx,
    "apache": _apache,
    "haproxy": _haproxy,
    "gunicorn": _gunicorn,
    "uwsgi": _uwsgi,
    "mod_wsgi": _mod_wsgi,
    "systemd": _systemd,
}


# --- users and programs


def _mod_wsgi_user(setup: Setup) -> struct_passwd:
    """Whom Apache runs as, and Headrace with it: never root; the state directory's owner."""
    owner = setup.owner
    user = owner if owner.pw_uid else users.apaches()
    if setup.front_user:
        user = users.named(setup.front_user)
    if os.path.exists(setup.state_dir) and user.pw_uid != owner.pw_uid:
        raise ConfigurationError(
            reason=f"within Apache Headrace runs as {user.pw_name}, but {setup.state_dir} belongs "
            f"to {owner.pw_name}: give it to {user.pw_name}, or let Apache run as its owner"
        )
    return user


def _zero_copy(setup: Setup) -> bool:
    from headrace.transfer import engine

    engine.enable(setup.conf.headrace.sendfile)
    return engine.enabled()


def _open_files() -> int:
    """How many files a process may have open at the most, here and within reason."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)


def _not_within(directories: Sequence[str]) -> list[str]:
    """The directories that do not lie in one before them."""
    kept: list[str] = []
    for each in directories:
        if not any(f"{each}/".startswith(f"{other}/") for other in kept):
            kept.append(each)
    return kept


def _program(*names: str) -> str:
    """The absolute path of a program of this environment, else of the PATH, else its name."""
    for name in names:
        beside = Path(sys.executable).with_name(name)
        if beside.exists():
            return str(beside)
    return next(filter(None, map(shutil.which, names)), names[0])


_QUOTES: dict[str, Callable[[str], str]] = {
    "nginx": quoting.nginx,
    "apache": quoting.apache,
    "mod_wsgi": quoting.apache,
    "haproxy": quoting.haproxy,
    "gunicorn": repr,
    "uwsgi": quoting.uwsgi,
    "systemd": quoting.systemd,
}
