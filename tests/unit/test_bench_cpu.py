"""What a measurement costs: CPU compared with CPU, each reading between two of another clock.

No bound depends on how long anything takes.
"""

import contextlib
import fcntl
import os
import platform
import re
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

import headrace
from headrace.bench import cpu
from headrace.bench.cpu import Machine, Meter, Usage

TICK = 1 / os.sysconf("SC_CLK_TCK")
# utime and stime of children waited for are cut to whole ticks, each by itself.
CUT = 2 * TICK
ROUNDING = 1e-6
BURN = 0.2  # CPU seconds, many ticks
SIOCGIFMTU = 0x8921

# A process that evaluates the lines it is given, and can have children that do the same.
OBEDIENT = """
import os, resource, subprocess, sys, threading, time

children = []

def used():
    return time.process_time()

def waited_for():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return time.process_time()

def name(new):
    with open("/proc/self/comm", "w") as comm:
        return comm.write(new)

def bear():
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", sys.orig_argv[2]]
    children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
    return children[-1].pid

def bear_in_thread():
    borne = threading.Event()
    def act():
        bear()
        borne.set()
        threading.Event().wait()
    threading.Thread(target=act, daemon=True).start()
    borne.wait()
    return children[-1].pid

def tell(line):
    print(line, file=children[-1].stdin, flush=True)
    return eval(children[-1].stdout.readline())

def wait():
    child = children.pop()
    child.communicate()
    return child.returncode

def churn(count):
    for _ in range(count):
        if pid := os.fork():
            os.waitpid(pid, 0)
        else:
            end = time.process_time() + 0.03
            while time.process_time() < end:
                pass
            os._exit(0)
    return count

for line in sys.stdin:
    print(repr(eval(line)), flush=True)
while children:
    wait()
"""


class Obedient:
    """The process above, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._input = process.stdin
        self._output = process.stdout

    def ask(self, line: str) -> None:
        print(line, file=self._input, flush=True)

    def has_answered(self) -> bool:
        return bool(select.select([self._output], [], [], 0)[0])

    def answer(self) -> float:
        return float(self._output.readline())

    def tell(self, line: str) -> float:
        self.ask(line)
        return self.answer()

    def end(self) -> None:
        self._input.close()


@contextlib.contextmanager
def obedient() -> Iterator[Obedient]:
    command = [sys.executable, "-c", OBEDIENT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        child = Obedient(process)
        try:
            yield child
        finally:
            child.end()


@pytest.fixture
def child() -> Iterator[Obedient]:
    with obedient() as process:
        yield process


def first_line() -> list[float]:
    """The first line of /proc/stat, read another way, in seconds."""
    found = re.search(r"^cpu +(.+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    assert found
    return [int(ticks) * TICK for ticks in found[1].split()]


def busy_of(line: list[float]) -> float:
    return sum(line[:8]) - line[3] - line[4]


def interrupts_of(line: list[float]) -> float:
    return line[5] + line[6]


def test_the_machine_is_the_first_line_of_proc_stat() -> None:
    before = first_line()
    read = cpu.read_machine()
    after = first_line()
    kinds = (read.user, read.nice, read.system, read.irq, read.softirq, read.steal)
    columns = (0, 1, 2, 5, 6, 7)  # idle and iowait may go backwards, says proc(5)
    for kind, column in zip(kinds, columns, strict=True):
        assert before[column] - ROUNDING <= kind <= after[column] + ROUNDING
    assert busy_of(before) - ROUNDING <= read.busy <= busy_of(after) + ROUNDING


def test_the_cores_are_those_listed() -> None:
    listed = re.findall(r"^cpu\d+ ", Path("/proc/stat").read_text(), re.MULTILINE)
    assert cpu.read_machine().cores == len(listed) > 0


def test_busy_is_all_but_idle_and_iowait() -> None:
    machine = Machine(1, 2, 4, 8, 16, 32, 64, 128, cores=2)
    assert machine.busy == 1 + 2 + 4 + 32 + 64 + 128


def test_a_process_has_used_what_it_says(child: Obedient) -> None:
    least = child.tell(f"burn({BURN})")
    used = cpu.processes([child.pid])
    most = child.tell("used()")
    assert BURN <= least <= used + ROUNDING
    assert used <= most + ROUNDING


def family_used(child: Obedient, *living: str) -> float:
    """What the child, the children it waited for and its living line say they have used."""
    return sum(child.tell(line) for line in ("used()", "waited_for()", *living))


@pytest.mark.parametrize("bear", ["bear()", "bear_in_thread()"])
def test_a_family_is_counted_once(child: Obedient, bear: str) -> None:
    child.tell(f"burn({BURN})")
    child.tell("bear()")
    child.tell(f"tell('burn({BURN})')")
    assert child.tell("wait()") == 0
    grandchild = int(child.tell(bear))
    child.tell(f"tell('burn({BURN})')")
    great_grandchild = int(child.tell(f"tell('{bear}')"))
    child.tell(f"""tell("tell('burn({BURN})')")""")
    living = ("tell('used()')", """tell("tell('used()')")""")

    least = family_used(child, *living)
    whole = cpu.processes([child.pid])
    named_too = cpu.processes(iter([great_grandchild, child.pid, grandchild, child.pid]))
    most = family_used(child, *living)

    assert least >= 4 * BURN
    assert least - CUT <= whole <= most + ROUNDING
    assert least - CUT <= named_too <= most + ROUNDING


# The second shifts the columns of whoever takes the first ")" for the end of the name.
@pytest.mark.parametrize("name", ["a) (b", ") 7 7 7 7 7 7 ("])
def test_a_name_may_hold_anything(child: Obedient, name: str) -> None:
    child.tell("bear()")
    child.tell(f"tell('burn({BURN})')")
    child.tell("wait()")
    child.tell(f"name({name!r})")
    assert Path(f"/proc/{child.pid}/comm").read_text() == f"{name}\n"

    least = family_used(child)
    used = cpu.processes([child.pid])
    most = family_used(child)
    assert least >= BURN
    assert least - CUT <= used <= most + ROUNDING


def test_a_child_counts_as_much_before_as_after_it_is_waited_for(child: Obedient) -> None:
    grandchild = int(child.tell("bear()"))
    child.tell(f"tell('burn({BURN})')")
    # A zombie in the end: nothing of it runs any more, and nobody has waited for it.
    child.tell("children[-1].stdin.close() or 0")
    child.tell(f"os.waitid(os.P_PID, {grandchild}, os.WEXITED | os.WNOWAIT).si_status")

    zombie = cpu.processes([child.pid])
    assert child.tell("(children[-1].wait(), children.clear())[0]") == 0
    waited_for = cpu.processes([child.pid])
    most = family_used(child)

    assert zombie >= BURN
    assert zombie - CUT <= waited_for <= most + ROUNDING
    assert zombie <= most + ROUNDING


def test_a_family_that_comes_and_goes_never_shrinks(child: Obedient) -> None:
    """A child counted twice, or not at all, in the moment it ends makes the next sum smaller."""
    highest = 0.0
    for _ in range(4):
        child.ask("churn(4)")
        while not child.has_answered():
            used = cpu.processes([child.pid])
            assert used >= highest - CUT
            highest = max(highest, used)
        child.answer()
    assert highest <= family_used(child) + ROUNDING


def test_whoever_has_vanished_counts_nothing(child: Obedient) -> None:
    child.tell(f"burn({BURN})")
    with obedient() as other:
        other.tell(f"burn({BURN})")
        assert cpu.processes([other.pid]) >= BURN
    assert cpu.processes([other.pid]) == 0.0

    least = child.tell("used()")
    used = cpu.processes([other.pid, child.pid])
    assert least - ROUNDING <= used <= child.tell("used()") + ROUNDING


def test_no_processes_use_nothing() -> None:
    assert cpu.processes([]) == 0.0


def test_a_meter_measures_from_start_to_stop(child: Obedient) -> None:
    meter = Meter([child.pid])
    child.tell(f"burn({BURN})")
    for seconds in (BURN, 0.0):  # the second measurement holds nothing of the first
        outer_time, outer_line, outer_used = monotonic(), first_line(), child.tell("used()")
        meter.start()
        inner_time, inner_line, inner_used = monotonic(), first_line(), child.tell("used()")
        least = child.tell(f"burn({seconds})") - inner_used
        least_line, least_time = first_line(), monotonic()
        usage = meter.stop()
        most = child.tell("used()") - outer_used
        most_line, most_time = first_line(), monotonic()

        assert seconds <= least
        assert least - ROUNDING <= usage.processes <= most + ROUNDING
        assert least_time - inner_time <= usage.seconds <= most_time - outer_time
        for of, value in ((busy_of, usage.busy), (interrupts_of, usage.softirq)):
            assert of(least_line) - of(inner_line) - ROUNDING <= value
            assert value <= of(most_line) - of(outer_line) + ROUNDING
        assert least_line[7] - inner_line[7] - ROUNDING <= usage.steal
        assert usage.steal <= most_line[7] - outer_line[7] + ROUNDING
        assert usage.cores == cpu.read_machine().cores


def test_a_meter_measures_its_own_process_by_default() -> None:
    program = """
import time
from headrace.bench.cpu import Meter

def burn():
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass

meter = Meter()
burn()
outer = time.process_time()
meter.start()
inner = time.process_time()
burn()
least = time.process_time() - inner
used = meter.stop().processes
print(least, used, time.process_time() - outer)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    least, used, most = map(float, done.stdout.split())
    assert least - ROUNDING <= used <= most + ROUNDING


def test_the_processes_never_use_less_than_nothing() -> None:
    with obedient() as process:
        process.tell(f"burn({BURN})")
        meter = Meter([process.pid])
        meter.start()
    assert meter.stop().processes == 0.0


def test_a_meter_of_no_process_knows_of_none() -> None:
    meter = Meter([])
    meter.start()
    usage = meter.stop()
    assert usage.processes is None
    assert usage.process_utilisation is None


def test_a_meter_may_be_started_anew_but_not_stopped_twice() -> None:
    meter = Meter([])
    with pytest.raises(RuntimeError):
        meter.stop()
    meter.start()
    meter.start()
    meter.stop()
    with pytest.raises(RuntimeError):
        meter.stop()


def test_usage_is_reported_as_netperf_does() -> None:
    usage = Usage(seconds=2.0, cores=4, busy=2.0, softirq=0.5, steal=0.25, processes=1.0)
    assert usage.utilisation == 25.0
    assert usage.softirq_percent == 6.25
    assert usage.process_utilisation == 12.5


def test_usage_keeps_within_its_bounds() -> None:
    over = Usage(seconds=1.0, cores=2, busy=2.01, softirq=0.5, steal=0.0, processes=2.0)
    assert over.utilisation == 100.0
    under = Usage(seconds=1.0, cores=2, busy=-0.01, softirq=0.0, steal=0.0, processes=0.0)
    assert under.utilisation == 0.0


def test_nothing_costs_nothing() -> None:
    usage = Usage(seconds=0.0, cores=2, busy=0.0, softirq=0.0, steal=0.0, processes=0.0)
    assert usage.utilisation == usage.softirq_percent == usage.process_utilisation == 0.0


def test_facts_are_what_the_system_says_elsewhere() -> None:
    facts = cpu.facts()
    assert all(value.strip() for value in facts.values())
    assert set(facts) == {
        "kernel",
        "processor",
        "cores",
        "memory",
        "congestion control",
        "MTU",
        "Python",
        "Headrace",
        "boot",
    }
    assert os.uname().release in facts["kernel"]
    assert facts["cores"] == str(cpu.read_machine().cores)
    total = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert total
    assert facts["memory"] == f"{int(total[1]) / 2**20:.1f} GiB"
    assert facts["Python"] == platform.python_version()
    assert facts["Headrace"] == headrace.__version__
    assert facts["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_facts_of_the_network_are_those_of_a_socket() -> None:
    before = interfaces()
    facts = cpu.facts()
    lasting = before & interfaces()
    with socket.socket() as sock:
        default = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        asked = struct.pack("16si12x", b"lo", 0)
        mtu = struct.unpack("16si12x", fcntl.ioctl(sock, SIOCGIFMTU, asked))[1]
    assert facts["congestion control"] == default.rstrip(b"\0").decode()
    mtus = facts["MTU"].split(", ")
    assert mtus[0] == f"lo {mtu}"
    assert lasting <= {one.rpartition(" ")[0] for one in mtus}
