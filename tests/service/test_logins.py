"""Checking passwords: what is known again, what is counted, and who waits."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from headrace import errors
from headrace.service import logins
from headrace.service.logins import WRONG_BY_ADDRESS, WRONG_BY_USER, Logins
from tests.accounts import CHEAP, login, write_accounts
from tests.faults.service import wait_until

HERE, THERE = "192.0.2.1", "192.0.2.2"
GUARD = 30.0  # seconds; a hang guard
USERS = (
    ("alice", "mine", "member"), ("bob", "yours", "admin,service"), ("rita", "mine", "reader")
)  # fmt: skip


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Checks:
    """bcrypt's checks, counted; with ``hold`` they wait until ``go``."""

    def __init__(self, check: Callable[[bytes, bytes], bool]) -> None:
        self._check = check
        self.hashes: list[bytes] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def hold(self) -> None:
        self.begun.clear()
        self.go.clear()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.hashes.append(hashed)
        self.begun.set()
        assert self.go.wait(GUARD)
        return self._check(password, hashed)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_accounts(tmp_path / "htpasswd", *USERS)
    return tmp_path / "htpasswd"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    counted = Checks(bcrypt.checkpw)
    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return counted


@pytest.fixture
def known(file: Path, clock: Clock) -> Logins:
    return Logins(logins.Accounts(str(file)), waiting=4, now=clock)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_a_caller_is_what_the_files_say(known: Logins) -> None:
    alice = known.caller(login("alice"), HERE)
    assert alice is not None
    assert (alice.user_id, alice.project_id, alice.is_admin) == ("alice", "mine", False)
    assert alice.roles == {"member", "reader"}
    bob = known.caller(login("bob"), HERE)
    assert bob is not None
    assert (bob.project_id, bob.is_admin) == ("yours", True)
    assert bob.roles == {"admin", "member", "reader", "service"}
    rita = known.caller(login("rita"), HERE)
    assert rita is not None
    assert rita.roles == {"reader"}
    assert bob.service_roles == frozenset()


def test_who_has_no_role_may_do_nothing(file: Path, known: Logins) -> None:
    Path(f"{file}.roles").unlink()
    alice = known.caller(login("alice"), HERE)
    assert alice is not None
    assert (alice.roles, alice.project_id, alice.is_admin) == (frozenset(), None, False)


@pytest.mark.parametrize(
    "wrong",
    [
        login("alice", "bob-secret"), login("alice", ""), login("alice", "alice-secret "),
        login("Alice", "alice-secret"), login("nobody"), b":", b"alice:\0", b"\xff\xfe:\xff",
        login("alice", "x" * 100),
    ],
)  # fmt: skip
def test_what_is_wrong_is_nobody(known: Logins, wrong: bytes) -> None:
    assert known.caller(wrong, HERE) is None


def test_what_was_confirmed_is_known_for_a_minute(
    known: Logins, clock: Clock, checks: Checks
) -> None:
    first = known.caller(login("alice"), HERE)
    clock.now += 44
    assert known.caller(login("alice"), THERE) is first
    assert len(checks.hashes) == 1
    clock.now += 17
    assert known.caller(login("alice"), HERE) == first
    assert len(checks.hashes) == 2


def test_another_password_of_the_same_user_is_not(known: Logins, checks: Checks) -> None:
    assert known.caller(login("alice"), HERE)
    assert known.caller(login("alice", "wrong"), HERE) is None
    assert len(checks.hashes) == 2


def test_what_was_wrong_is_never_remembered(known: Logins, checks: Checks) -> None:
    for _ in range(3):
        assert known.caller(login("alice", "wrong"), HERE) is None
    assert len(checks.hashes) == 3


def test_a_check_costs_the_same_for_whom_there_is_not(known: Logins, checks: Checks) -> None:
    known.caller(login("nobody"), HERE)
    known.caller(login("alice", "wrong"), HERE)
    costs = [hashed[4:6] for hashed in checks.hashes]
    assert costs == [f"{CHEAP:02}".encode()] * 2


@pytest.mark.parametrize("which", ["", ".roles"])
def test_a_change_of_the_files_is_in_force_at_once(
    file: Path, known: Logins, checks: Checks, which: str
) -> None:
    assert known.caller(login("alice"), HERE)
    changed = Path(f"{file}{which}")
    lines = [line for line in changed.read_text().splitlines() if not line.startswith("alice:")]
    changed.write_text("\n".join(lines) + "\n")
    found = known.caller(login("alice"), HERE)
    assert found is None or not found.roles
    assert len(checks.hashes) == 2


def test_files_that_cannot_be_read_let_nobody_in(file: Path, known: Logins) -> None:
    assert known.caller(login("alice"), HERE)
    text = file.read_text()
    for spoil in (lambda: file.write_text("alice:plain\n"), lambda: file.chmod(0o644), file.unlink):
        spoil()
        for _ in range(2):
            with pytest.raises(errors.ServiceUnavailable):
                known.caller(login("alice"), HERE)
        if file.exists():
            file.chmod(0o600)
            file.write_text(text)
            assert known.caller(login("alice"), HERE)
    file.touch(0o600)
    file.write_text(text)
    assert known.caller(login("alice"), HERE)


def test_a_service_without_its_files_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="headrace user add"):
        Logins(logins.Accounts(str(tmp_path / "none")), waiting=1)


def wrong(known: Logins, name: str, address: str, times: int) -> None:
    for number in range(times):
        assert known.caller(login(name, f"wrong {number}"), address) is None


def refused(known: Logins, name: str, address: str, password: str | None = None) -> bool:
    try:
        known.caller(login(name, password), address)
    except errors.TooManyLogins:
        return True
    return False


def test_wrong_passwords_of_a_user_are_limited(known: Logins, clock: Clock, checks: Checks) -> None:
    wrong(known, "alice", HERE, WRONG_BY_USER)
    assert refused(known, "alice", HERE)  # the right one, too, or trying would go on
    assert refused(known, "alice", HERE, "wrong")
    assert len(checks.hashes) == WRONG_BY_USER
    assert not refused(known, "alice", THERE)
    assert not refused(known, "rita", HERE)
    clock.now += 60
    assert not refused(known, "alice", HERE)


def test_who_is_known_is_not_kept_out_by_others_attempts(known: Logins) -> None:
    assert known.caller(login("alice"), HERE)
    wrong(known, "alice", HERE, WRONG_BY_USER)
    assert known.caller(login("alice"), HERE)


def test_nor_when_the_minute_ends(known: Logins, clock: Clock) -> None:
    """As long as requests come: one of them renews what was confirmed, uncounted."""
    for _ in range(5):
        assert known.caller(login("alice"), HERE)
        if not refused(known, "alice", HERE, "wrong"):
            wrong(known, "alice", HERE, WRONG_BY_USER - 1)
        clock.now += 50


def test_wrong_passwords_of_an_address_are_limited(known: Logins) -> None:
    for number in range(WRONG_BY_ADDRESS):
        wrong(known, f"user{number}", HERE, 1)
    assert refused(known, "alice", HERE)
    assert not refused(known, "alice", THERE)


def test_an_address_of_ipv6_is_its_network(known: Logins) -> None:
    for number in range(WRONG_BY_USER):
        wrong(known, "alice", f"2001:db8::{number:x}", 1)
    assert refused(known, "alice", "2001:db8::ffff:1")
    assert not refused(known, "alice", "2001:db8:0:1::1")
    wrong(known, "bob", HERE, WRONG_BY_USER)
    assert refused(known, "bob", f"::ffff:{HERE}")


def test_right_passwords_are_not_counted(known: Logins, clock: Clock) -> None:
    for _ in range(3 * WRONG_BY_USER):
        assert known.caller(login("alice"), HERE)
        clock.now += 1.9 * 60
        wrong(known, "rita", HERE, 1)


def test_a_right_password_forgives_no_wrong_one(known: Logins) -> None:
    wrong(known, "alice", HERE, WRONG_BY_USER - 1)
    assert known.caller(login("alice"), HERE)
    wrong(known, "alice", HERE, 1)
    assert refused(known, "alice", HERE, "wrong")


def test_attempts_side_by_side_are_counted_before_they_are_done(
    known: Logins, checks: Checks, pool: ThreadPoolExecutor
) -> None:
    """More of them than may wait are refused; those that wait have been counted."""
    wrong(known, "alice", HERE, WRONG_BY_USER - 2)
    checks.hold()
    running = [pool.submit(known.caller, login("alice", f"{n}"), HERE) for n in range(2)]
    assert checks.begun.wait(GUARD)
    wait_until(lambda: known._waiting == 2, "those who wait")
    assert refused(known, "alice", HERE, "one more")
    checks.go.set()
    assert [each.result(GUARD) for each in running] == [None, None]


def test_one_check_is_enough_for_all_who_show_the_same(
    known: Logins, checks: Checks, pool: ThreadPoolExecutor
) -> None:
    checks.hold()
    running = [pool.submit(known.caller, login("alice"), HERE) for _ in range(4)]
    assert checks.begun.wait(GUARD)
    wait_until(lambda: known._waiting == 4, "those who wait")
    checks.go.set()
    assert all(each.result(GUARD) for each in running)
    assert len(checks.hashes) == 1


def test_few_wait_and_who_is_known_does_not(
    known: Logins, clock: Clock, checks: Checks, pool: ThreadPoolExecutor
) -> None:
    assert known.caller(login("rita"), HERE)
    checks.hold()
    running = [pool.submit(known.caller, login(f"user{n}"), f"192.0.2.{n}") for n in range(4)]
    wait_until(lambda: known._waiting == 4, "those who wait")
    with pytest.raises(errors.LoginsBusy) as busy:
        known.caller(login("alice"), THERE)
    assert busy.value.retry_after == 1
    assert known.caller(login("rita"), HERE)
    clock.now += 50  # its renewal has to wait, too: it is known all the same
    assert known.caller(login("rita"), HERE)
    checks.go.set()
    assert [each.result(GUARD) for each in running] == [None] * 4
    assert len(checks.hashes) == 5
    assert known.caller(login("alice"), THERE)


def test_no_more_run_at_a_time_than_half_the_processors(
    known: Logins, checks: Checks, pool: ThreadPoolExecutor
) -> None:
    checks.hold()
    running = [pool.submit(known.caller, login(f"user{n}"), f"192.0.2.{n}") for n in range(4)]
    wait_until(lambda: known._waiting == 4, "those who wait")
    assert checks.begun.wait(GUARD)
    assert len(checks.hashes) <= max(1, (os.cpu_count() or 1) // 2)
    checks.go.set()
    for each in running:
        each.result(GUARD)


def test_others_are_served_while_one_renews(
    known: Logins, clock: Clock, checks: Checks, pool: ThreadPoolExecutor
) -> None:
    assert known.caller(login("alice"), HERE)
    clock.now += 50
    checks.hold()
    renewing = pool.submit(known.caller, login("alice"), HERE)
    assert checks.begun.wait(GUARD)
    for _ in range(10):
        assert known.caller(login("alice"), HERE)
    checks.go.set()
    assert renewing.result(GUARD)
    clock.now += 20
    assert known.caller(login("alice"), HERE)
    assert len(checks.hashes) == 2


def test_what_is_kept_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_MOST_COUNTED", 8)
    monkeypatch.setattr(logins, "_MOST_PROVEN", 2)
    known = Logins(logins.Accounts(str(file)), waiting=4)
    for number in range(20):
        wrong(known, "x" * 10_000, f"198.51.100.{number}", 1)
    for name, _, _ in USERS:
        assert known.caller(login(name), HERE)
    assert len(known._wrong._found) <= 8
    assert len(known._known.proven) == 2


def test_what_is_kept_are_no_passwords(known: Logins) -> None:
    known.caller(login("alice"), HERE)
    known.caller(login("alice", "almost-secret"), HERE)
    kept: Any = (known._known, known._wrong._found)
    assert "secret" not in repr(kept)
