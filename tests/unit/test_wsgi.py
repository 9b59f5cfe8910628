"""The application as a foreign host gets it: how it is configured, and what if it cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.serving import environment

# Each in a process of its own, as in a host: the application is built once, from the environment.
PROGRAM = """
import json, sys
from falcon.testing import create_environ
from headrace.server.wsgi import application
environ = create_environ(path="/v2/images", host="localhost") | json.loads(sys.argv[1])
said = []
body = b"".join(application(environ, lambda status, headers: said.append((status, headers))))
print(json.dumps([said[0][0], body.decode()]))
"""


def ask(environ: dict[str, Any] | None = None, **env: str) -> tuple[str, str, str]:
    """Status, body and log of a list of images under a host that sets these variables."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps({"REMOTE_ADDR": "127.0.0.1"} | (environ or {}))],
        env=environment(env),
        capture_output=True,
        text=True,
        check=True,
    )
    status, body = json.loads(done.stdout)
    return status, body, done.stderr


def test_it_is_configured_by_the_process_environment(tmp_path: Path) -> None:
    status, body, _ = ask(OS_HEADRACE__STATE_DIR=str(tmp_path / "state"))
    assert (status, json.loads(body)["images"]) == ("200 OK", [])
    assert (tmp_path / "state" / "headrace.db").exists()


def test_it_is_configured_by_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text(f"[headrace]\nstate_dir = {tmp_path}/wrong\n")
    second.write_text(f"[headrace]\nstate_dir = {tmp_path}/right\n")
    assert ask(HEADRACE_CONFIG=f"{first}:{second}")[0] == "200 OK"
    assert (tmp_path / "right" / "headrace.db").exists()
    assert not (tmp_path / "wrong").exists()


def test_it_is_configured_by_variables_of_the_request(tmp_path: Path) -> None:
    """As Apache's SetEnv has it; those of the process win."""
    variables = {"OS_HEADRACE__STATE_DIR": str(tmp_path / "asked")}
    assert ask(variables)[0] == "200 OK"
    assert (tmp_path / "asked" / "headrace.db").exists()
    other = ask(variables, OS_HEADRACE__STATE_DIR=str(tmp_path / "process"))
    assert other[0] == "200 OK"
    assert (tmp_path / "process" / "headrace.db").exists()


def test_a_header_configures_nothing(tmp_path: Path) -> None:
    headers = {"HTTP_OS_HEADRACE__STATE_DIR": str(tmp_path / "evil")}
    assert ask(headers, OS_HEADRACE__STATE_DIR=str(tmp_path / "state"))[0] == "200 OK"
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OS_HEADRACE__DELIVERY", "carrier pigeon"),
        ("OS_HEADRACE__X_ACCEL_LOCATION", "/no end"),
        ("HEADRACE_CONFIG", "/no/such/file"),
        ("OS_HEADRACE__STATE_DIR", "/proc/none"),
    ],
)
def test_what_cannot_be_is_said_in_the_log_only(variable: str, value: str) -> None:
    status, body, log = ask(**{variable: value})
    assert status.startswith("503")
    assert value not in body
    (line,) = [line for line in log.splitlines() if "cannot serve" in line]
    assert "invalid configuration" in line
    assert "Traceback" not in log
