"""Whether a worker process is certainly dead, asked of real processes."""

import os
import signal
import subprocess
import sys

import pytest

from headrace.service import workers
from tests.needs import require, require_command, require_root

PRINT_IDENTITY = (
    "import sys, time; from headrace.service import workers; "
    "print(workers.identity(), flush=True); time.sleep(600)"
)


def test_this_process_is_alive() -> None:
    assert not workers.is_dead(workers.identity())


def test_a_killed_process_is_dead_even_before_it_is_reaped() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRINT_IDENTITY], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert not workers.is_dead(name)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie, not yet reaped
        assert workers.is_dead(name)
    assert workers.is_dead(name)


def test_a_reused_process_number_is_another_worker() -> None:
    machine, pid, started = workers.identity().rsplit("/", 2)
    assert workers.is_dead(f"{machine}/{pid}/{int(started) - 1}")


def test_workers_elsewhere_cannot_be_told() -> None:
    _, pid, started = workers.identity().rsplit("/", 2)
    assert not workers.is_dead(f"elsewhere/boot/pid:[1]/{pid}/1{started}")
    assert not workers.is_dead("not a worker")


HIDE = "mount -t proc -o hidepid={} proc /proc"
ASK_AS_NOBODY = (
    "import os, sys; from headrace.service import workers; "
    "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); "
    "print(workers.is_dead(sys.argv[1]))"
)


@pytest.mark.parametrize("hidepid", [1, 2])
def test_a_hidden_worker_is_dead_only_when_it_is(hidepid: int) -> None:
    """Another user's process, where /proc does not show it."""
    require_root()
    unshare = [require_command("unshare"), "--mount", "sh", "-c"]
    hide = HIDE.format(hidepid)
    may_mount = subprocess.run([*unshare, hide], capture_output=True).returncode == 0
    require(may_mount, "needs to mount a /proc of its own")

    def asked(name: str) -> str:
        ask = [*unshare, f'{hide} && exec "$0" "$@"', sys.executable, "-c", ASK_AS_NOBODY, name]
        return subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    with subprocess.Popen(
        [sys.executable, "-c", PRINT_IDENTITY], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        try:
            assert asked(name) == "False"
        finally:
            child.kill()
    assert asked(name) == "True"
