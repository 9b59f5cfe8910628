"""Whether a worker process is certainly dead, asked of real processes."""

import os
import signal
import subprocess
import sys

from headrace.service import workers

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
