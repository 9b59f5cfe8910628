"""What `headrace config` writes: each server takes it as it is, and what cannot work is said."""

import http.client
import os
import pwd
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import certificates
from tests.deploy.conftest import MIB, Deployed, path, require_host
from tests.needs import require_command, require_root
from tools import hosts
from tools.serving import COMMAND, READY, environment

pytestmark = pytest.mark.slow

GUARD = 60.0  # seconds; a hang guard
RECIPES = ("nginx", "apache", "haproxy", "gunicorn", "uwsgi", "mod_wsgi", "systemd")
FRONTS = ("nginx", "apache", "haproxy")
WWW = "www-data"


def config(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "config", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GUARD,
        env=environment({"PATH": f"{os.environ['PATH']}:/usr/sbin"}),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def world() -> Iterator[Path]:
    """A directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def owned(world: Path) -> Path:
    """A state directory of www-data's, if this is root and may give it away."""
    state = world / "state"
    state.mkdir(mode=0o750)
    if os.geteuid() == 0:
        user = pwd.getpwnam(WWW)
        os.chown(state, user.pw_uid, user.pw_gid)
    return state


CHECKS = {
    "nginx": ["nginx", "-t", "-e", "stderr", "-c"],
    "apache": ["apache2", "-t", "-f"],
    "mod_wsgi": ["apache2", "-t", "-f"],
    "haproxy": ["haproxy", "-c", "-f"],
    "gunicorn": [sys.executable, "-m", "gunicorn", "--check-config", "-c"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_server_itself_takes_it(world: Path, owned: Path, name: str) -> None:
    require_command(CHECKS[name][0])
    (owned / "images").mkdir()  # as Headrace, which is started first, would
    file = world / "recipe.py"  # gunicorn's is a program
    file.write_text(config(name, "--state-dir", owned).stdout)
    done = subprocess.run(
        [*CHECKS[name], file], capture_output=True, text=True, cwd=world, timeout=GUARD,
        env=environment({"PATH": f"{os.environ['PATH']}:/usr/sbin", "PYTHONPATH": "src"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "warn" in line.lower()], done.stderr


def test_what_root_starts_writes_where_only_root_can(owned: Path) -> None:
    """Another user could have put a link there."""
    require_root()
    for name in ("apache", "mod_wsgi"):
        text = config(name, "--state-dir", owned).stdout
        for word in ("PidFile", "ErrorLog", "CustomLog", "WSGISocketPrefix"):
            assert f'{word} "{owned}' not in text


def test_systemd_lets_the_service_write_where_it_has_to(tmp_path: Path) -> None:
    def writable(*words: str | Path) -> str:
        text = config("systemd", "--state-dir", tmp_path / "state", *words).stdout
        (line,) = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
        return line.partition("=")[2]

    assert writable() == f"{tmp_path}/state"  # where what is missing would keep it from starting
    conf = tmp_path / "conf"
    conf.write_text("[glance_store]\nfilesystem_store_datadir = /srv/images\n")
    assert writable("--config-file", conf) == f"{tmp_path}/state /srv/images"
    conf.write_text("[DEFAULT]\nnode_staging_uri = file:///srv/staging\n")
    assert writable("--config-file", conf) == f"{tmp_path}/state /srv/staging"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = cheap:file, fast:file, web:http\n"
        "[glance_store]\ndefault_backend = fast\n"
        "[fast]\nfilesystem_store_datadir = /srv/fast\n"
        "[cheap]\nfilesystem_store_datadir = /srv/cheap\n"
    )
    assert writable("--config-file", conf) == f"{tmp_path}/state /srv/fast /srv/cheap"
    conf.write_text("[DEFAULT]\nimage_cache_dir = /srv/cache\n")
    assert writable("--config-file", conf) == f"{tmp_path}/state /srv/cache"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = cold:swift\n[glance_store]\ndefault_backend = cold\n"
        "[cold]\nswift_upload_buffer_dir = /srv/windows\n"
    )
    assert writable("--config-file", conf) == f"{tmp_path}/state /srv/windows"
    conf.write_text("[headrace]\naudit_log = /var/log/headrace/audit.log\n")
    assert writable("--config-file", conf) == f"{tmp_path}/state /var/log/headrace"
    conf.write_text("[glance_store]\nfilesystem_store_datadir = /srv/a 100%% $$im\n")
    assert writable("--config-file", conf) == f'{tmp_path}/state "/srv/a 100%%%% $im"'


def test_systemd_takes_it(world: Path, owned: Path) -> None:
    analyze = require_command("systemd-analyze")
    unit = world / "headrace.service"
    for options in ([], ["--behind", "nginx", "--no-auth"]):
        unit.write_text(config("systemd", "--state-dir", owned, *options).stdout)
        done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
        ours = [line for line in done.stderr.splitlines() if "headrace.service" in line]
        assert done.returncode == 0, done.stderr
        assert ours == []


def test_the_command_for_systemd_serves(tmp_path: Path) -> None:
    awkward = tmp_path / 'it\'s "100%" $odd'
    text = config("systemd", "--state-dir", awkward, "--listen", f"127.0.0.1:{free()}").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.removeprefix("ExecStart="))
    words = [word.replace("%%", "%").replace("$$", "$") for word in words]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().startswith(READY)
        process.terminate()
        assert process.wait(GUARD) == 0
    assert (awkward / "headrace.db").exists()


def free() -> int:
    return hosts.free_port()


def test_uwsgi_is_told_where_to_listen(tmp_path: Path) -> None:
    """With no address of its own in the file, it listens at the given one alone."""
    require_host("uwsgi-threads")
    port = free()
    file = tmp_path / "headrace.ini"
    file.write_text(config("uwsgi", "--state-dir", tmp_path / "state").stdout)
    uwsgi = Path(sys.executable).with_name("pyuwsgi")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [uwsgi, "--ini", file, "--http-socket", f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(),
            start_new_session=True,
        )  # fmt: skip
    try:
        answer = None
        while answer is None:
            assert process.poll() is None, log.read_text()
            try:
                answer = get(http.client.HTTPConnection("127.0.0.1", port), "/v2/images")
            except ConnectionRefusedError:
                continue
        assert answer[0] == 200
        assert log.read_text().count("bound to TCP address") == 1
        assert (tmp_path / "state" / "headrace.db").exists()
    finally:
        os.killpg(process.pid, 9)
        process.wait(GUARD)


def get(connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    connection.request("GET", target)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


# TLS


@pytest.mark.parametrize("name", [*FRONTS, "gunicorn-gthread", "mod_wsgi-embedded"])
def test_tls(world: Path, name: str) -> None:
    """The same data, whoever encrypts it."""
    require_host(name)
    pem = certificates.make(world / "both.pem")
    context = ssl.create_default_context(cafile=str(pem))
    with hosts.running(name, options=["--certificate", str(pem), "--key", str(pem)]) as host:
        deployed = Deployed(host)

        def ask(method: str, target: str, body: bytes, **headers: str) -> tuple[int, bytes]:
            connection = http.client.HTTPSConnection("127.0.0.1", host.port, context=context)
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = response.status, response.read()
            connection.close()
            return answer

        record = b'{"disk_format": "raw", "container_format": "bare"}'
        status, body = ask("POST", "/v2/images", record)
        assert status == 201, host.logs()
        image = body.decode().partition('"id":"')[2].partition('"')[0]
        octets = {"Content-Type": "application/octet-stream"}
        assert ask("PUT", path(image), deployed.data, **octets)[0] == 204
        assert ask("GET", path(image), b"") == (200, deployed.data)
        assert ask("GET", path(image), b"", Range=f"bytes={MIB}-") == (206, deployed.data[MIB:])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nginx", "--certificate", "x"], "go together"),
        (["uwsgi", "--certificate", "x", "--key", "x"], "TLS ends in front"),
        (["systemd", "--certificate", "x", "--key", "x"], "TLS ends in front"),
        (["haproxy", "--certificate", "x", "--key", "y"], "wants the key"),
        (["nginx", "--behind", "nginx"], "goes with systemd"),
        (["nginx", "--listen", "9292"], "not HOST:PORT"),
        (["nginx", "--listen", "::1:9292"], "not HOST:PORT"),
        (["apache", "--front-user", "no such user"], "no user no such user here"),
        (["caddy"], "is not one of"),
    ],
)
def test_wrong_words(tmp_path: Path, words: list[str], text: str) -> None:
    assert text in config(*words, "--state-dir", tmp_path, status=2).stderr


# Nobody is let in by accident


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_opened_unless_asked(owned: Path, name: str) -> None:
    words = [name, "--state-dir", owned, "--listen", "192.0.2.1:9292"]
    closed = config(*words)
    assert "unauthenticated" not in closed.stdout.lower()
    assert "--no-auth serves everybody" in closed.stderr
    opened = config(*words, "--no-auth")
    assert "unauthenticated" in opened.stdout.lower()
    assert "whoever can connect is an administrator" in opened.stdout
    assert "--no-auth" not in opened.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_passwords_are_asked_for_where_they_are_wished(owned: Path, name: str) -> None:
    words = [name, "--state-dir", owned, "--listen", "192.0.2.1:9292", "--auth", "http_basic"]
    written = config(*words)
    assert "http_basic" in written.stdout
    assert "unauthenticated" not in written.stdout.lower()
    assert "--no-auth" not in written.stderr
    assert "headrace user add" in written.stderr
    assert ("unencrypted" in written.stderr) == (name != "systemd")
    done = config(*words, "--no-auth", status=1)
    assert "unauthenticated_ok goes with auth_strategy none" in done.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_tokens_are_asked_for_where_they_are_wished(owned: Path, name: str) -> None:
    words = [name, "--state-dir", owned, "--listen", "192.0.2.1:9292", "--auth", "keystone"]
    assert "auth_type" in config(*words, status=1).stderr
    file = owned.parent / "headrace.conf"
    file.write_text("[keystone_authtoken]\nauth_type = password\npassword = not-for-others\n")
    written = config(*words, "--config-file", file)
    assert "keystone" in written.stdout
    assert "unauthenticated" not in written.stdout.lower()
    assert ("tokens would cross" in written.stderr) == (name != "systemd")
    assert "not-for-others" not in written.stdout + written.stderr


@pytest.mark.parametrize("front", FRONTS)
def test_serving_behind_a_front_wants_authentication(tmp_path: Path, front: str) -> None:
    done = subprocess.run(
        [COMMAND, "serve", "--state-dir", tmp_path, "--behind", front],
        capture_output=True, text=True, env=environment(), timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no authentication is configured" in done.stderr
    assert not (tmp_path / "headrace.sock").exists()


# Who can read what


def test_images_that_the_front_could_not_read(world: Path) -> None:
    """Each obstacle is named, with what to do about it, until there is none."""
    require_root()
    owner = pwd.getpwnam("nobody")
    state, images, conf = world / "state", world / "state" / "images", world / "conf"
    conf.touch()

    def refused(user: str) -> str:
        words = ("apache", "--state-dir", state, "--config-file", conf, "--front-user", user)
        return config(*words, status=1).stderr

    state.mkdir(mode=0o750)
    os.chown(state, owner.pw_uid, owner.pw_gid)
    assert f"{WWW} may not enter {state}; put it into the group nogroup" in refused(WWW)
    state.chmod(0o751)
    images.mkdir(mode=0o710)
    os.chown(images, owner.pw_uid, owner.pw_gid)
    assert f"{WWW} may not enter {images}" in refused(WWW)
    images.chmod(0o711)
    conf.write_text("[glance_store]\nfilesystem_store_file_perm = 0600\n")
    assert "filesystem_store_file_perm to 0644" in refused(WWW)
    # One of the owner's own group.
    assert "filesystem_store_file_perm to 0640" in refused("_apt")
    conf.write_text("[glance_store]\nfilesystem_store_file_perm = 0644\n")
    old = images / "0b6f1c3e-3f0e-4d6a-9d5c-7a1f2e3d4c5b"
    old.touch(mode=0o600)
    assert f"{WWW} may not read {old}" in refused(WWW)
    old.chmod(0o644)
    assert f"{WWW} could not connect to the socket: put it into the group nogroup" in refused(WWW)
    for name, line in (("apache", "User _apt"), ("nginx", "user _apt nogroup;")):
        words = (name, "--state-dir", state, "--config-file", conf, "--front-user", "_apt")
        assert line in config(*words).stdout


def test_apache_is_not_to_run_headrace_as_somebody_else(world: Path) -> None:
    require_root()
    state = world / "state"
    state.mkdir()
    said = config("mod_wsgi", "--state-dir", state, status=1).stderr
    assert f"{state} belongs to root: give it to {WWW}, or" in said


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("nginx", "a$b"),
        ("apache", "a$b"),
        ("mod_wsgi", "a$b"),
        ("haproxy", "a'b"),
        ("uwsgi", "a%b"),
        ("nginx", "a\nb"),
        ("systemd", "a\nb"),
    ],
)
def test_a_path_that_its_file_cannot_express(owned: Path, name: str, directory: str) -> None:
    state = owned / directory
    state.mkdir()
    os.chown(state, owned.stat().st_uid, owned.stat().st_gid)
    said = config(name, "--state-dir", state, status=1).stderr
    assert "cannot express" in said
    assert said.count("\n") <= 1


# The socket


def test_the_socket_is_its_users_and_groups(tmp_path: Path) -> None:
    with hosts.running("haproxy") as host:
        mode = (host.state_dir / "headrace.sock").stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)


def test_root_is_told_that_it_would_be_root(world: Path) -> None:
    require_root()
    for name in ("nginx", "haproxy", "systemd"):
        said = config(name, "--state-dir", world / "none", "--no-auth").stderr
        assert "would run as root" in said


@pytest.mark.parametrize("location", ["/v2/", "/.headrace/", "/../", "/a/../", "/a", "a/", "/a b/"])
def test_a_location_that_is_taken_or_none(tmp_path: Path, location: str) -> None:
    conf = tmp_path / "conf"
    conf.write_text(f"[headrace]\nx_accel_location = {location}\n")
    said = config("nginx", "--config-file", conf, "--state-dir", tmp_path, status=1).stderr
    assert "x_accel_location" in said


# The kill-switch


@pytest.mark.parametrize(
    ("name", "on", "off"),
    [
        ("nginx", "sendfile on;", "sendfile off;"),
        ("apache", "EnableSendfile On", "EnableSendfile Off"),
        ("mod_wsgi", "WSGIEnableSendfile On", "WSGIEnableSendfile Off"),
        ("haproxy", "option splice-response", None),
        ("uwsgi", "", "disable-sendfile = true"),
        ("gunicorn", "", "\nsendfile = False"),
    ],
)
def test_the_kill_switch_is_everybodys(owned: Path, name: str, on: str, off: str | None) -> None:
    conf = owned.parent / "conf"
    conf.write_text("[headrace]\nsendfile = false\n")
    usual = config(name, "--state-dir", owned).stdout
    switched = config(name, "--state-dir", owned, "--config-file", conf).stdout
    assert on in usual
    assert off is None or (off in switched and off not in usual)
    assert not on or on not in switched


def test_a_socket_has_no_port(tmp_path: Path) -> None:
    for words in (["--behind", "nginx"], ["--unix-socket", str(tmp_path / "socket")]):
        done = subprocess.run(
            [COMMAND, "serve", "--state-dir", tmp_path, *words, "--port", "9292"],
            capture_output=True, text=True, env=environment(), timeout=GUARD,
        )  # fmt: skip
        assert done.returncode == 2
        assert "no --host and no --port" in done.stderr
