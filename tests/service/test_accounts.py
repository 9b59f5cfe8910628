"""The files of users: what they may say, who may have written them, how they change."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import bcrypt
import pytest

from headrace import errors
from headrace.service.accounts import ROLES, Account, Accounts, decoy, matches
from tests.accounts import hashed, write_accounts
from tests.needs import require_root

HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + b"." * 22).decode()  # the same in all processes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def written(file: Path, users: str, roles: str | None = None) -> Accounts:
    for path, text in ((file, users), (Path(f"{file}.roles"), roles)):
        if text is not None:
            path.touch(0o600)
            path.write_text(text)
    return Accounts(str(file))


def test_what_the_files_say(file: Path) -> None:
    text = f"# who may come in\n\nalice:{HASH}\nbob:{HASH}\néve:{HASH}\n"
    accounts = written(
        file, text, "# what they are\n\nbob:mine:member,service\nalice:yours:admin\n"
    )
    assert accounts.read() == {
        "alice": Account("alice", HASH, "yours", ("admin",)),
        "bob": Account("bob", HASH, "mine", ("member", "service")),
        "éve": Account("éve", HASH),
    }


def test_roles_for_nobody_let_nobody_in(file: Path) -> None:
    assert written(file, "", "ghost:mine:admin\n").read() == {}


@pytest.mark.parametrize("made_by", ["$2a$", "$2b$", "$2y$"])
def test_every_programs_bcrypt_is_understood(file: Path, made_by: str) -> None:
    account = written(file, f"alice:{HASH.replace('$2b$', made_by)}\n").read()["alice"]
    assert matches(account, b"secret", "")
    assert not matches(account, b"Secret", "")


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "line 1: this is no hash of bcrypt's"),
        ("alice:$apr1$abc$LjhYC0JnsPKwYlGl3Xpsl1", "line 1: this is no hash of bcrypt's"),
        ("alice:$6$abc$def", "line 1: this is no hash of bcrypt's"),
        (f"alice:{HASH.replace('$2b$', '$2x$')}", "line 1: this is no hash of bcrypt's"),
        (f"alice:{HASH} ", "line 1: this is no hash of bcrypt's"),
        ("alice:secret", "line 1: this is no hash of bcrypt's"),
        ("alice", "line 1: this is no hash of bcrypt's"),
        (f"alice:{HASH.replace('$04$', '$31$')}", "line 1: the cost of the hash"),
        (f"alice:{HASH.replace('$04$', '$03$')}", "line 1: the cost of the hash"),
        (f"# nobody\nalice:{HASH}\nalice:{HASH}", "line 3: the user is there twice"),
        (f"al ice:{HASH}", "line 1: the name of a user"),
        (f":{HASH}", "line 1: the name of a user"),
        (f"{'a' * 65}:{HASH}", "line 1: the name of a user"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_line(file: Path, users: str, said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        written(file, f"{users}\n").read()
    assert f"{file}, {said}" in str(refused.value)
    secrets = users.partition(":")[2].strip()
    assert not secrets or secrets not in str(refused.value)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("alice:mine:owner", "line 1: 'owner' is not among the roles"),
        ("alice:mine:member, reader", "line 1: ' reader' is not among the roles"),
        ("alice:mine:Admin", "line 1: 'Admin' is not among the roles"),
        ("alice:mine", "line 1: '' is not among the roles"),
        ("alice::admin", "line 1: a project is a word"),
        ("alice:my own:admin", "line 1: a project is a word"),
        (f"alice:{'p' * 256}:admin", "line 1: a project is a word"),
        ("alice:mine:admin\nalice:yours:admin", "line 2: the user is there twice"),
    ],
)
def test_roles_that_there_are_not_are_refused(file: Path, roles: str, said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        written(file, f"alice:{HASH}\n", f"{roles}\n").read()
    assert f"{file}.roles, {said}" in str(refused.value)


@pytest.mark.parametrize("which", ["", ".roles"])
@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o660, 0o644, 0o666])
def test_what_others_can_read_or_change_is_refused(file: Path, which: str, mode: int) -> None:
    accounts = written(file, f"alice:{HASH}\n", "alice:mine:member\n")
    os.chmod(f"{file}{which}", mode)
    with pytest.raises(errors.ConfigurationError, match=f"{mode:04o}.*0600"):
        accounts.read()


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_its_owner_alone_and_its_readers_group_are_fine(file: Path, mode: int) -> None:
    accounts = written(file, f"alice:{HASH}\n")
    file.chmod(mode)
    assert accounts.read()


def test_what_is_no_file_is_refused(file: Path) -> None:
    accounts = Accounts(str(file))
    with pytest.raises(errors.ConfigurationError, match="headrace user add"):
        accounts.read()
    other = file.with_name("other")
    written(other, f"alice:{HASH}\n")
    file.symlink_to(other)
    with pytest.raises(errors.ConfigurationError):
        accounts.read()
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(errors.ConfigurationError, match="no regular file"):
        accounts.read()


def test_another_users_file_is_refused() -> None:
    """Even one that may be read, as a group's member: its owner can change it."""
    require_root()
    code = (
        "import os, sys; from headrace.service.accounts import Accounts; os.setgroups([]);"
        "os.setgid(4321); os.setuid(4321); Accounts(sys.argv[1]).read()"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o711)
        file = Path(directory) / "htpasswd"
        accounts = written(file, f"alice:{HASH}\n")
        file.chmod(0o640)
        for owner, refused in ((1234, True), (0, False), (4321, False)):
            os.chown(file, owner, 4321)
            done = subprocess.run(
                [sys.executable, "-c", code, file], capture_output=True, text=True, cwd="/"
            )
            assert ("belongs to user 1234" in done.stderr) == refused
            assert bool(done.returncode) == refused
            assert accounts.read()  # root may read what is the service's


def test_a_user_comes_changes_and_goes(file: Path) -> None:
    accounts = Accounts(str(file))
    accounts.add("alice", "first", "mine", ["member", "member", "service"])
    accounts.add("bob", "bobs", "yours", ["admin"])
    found = accounts.read()
    assert (found["alice"].project, found["alice"].roles) == ("mine", ("member", "service"))
    assert matches(found["alice"], b"first", "")
    for path in (file, Path(accounts.roles_path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    accounts.set_password("alice", "second")
    changed = accounts.read()
    assert matches(changed["alice"], b"second", "")
    assert not matches(changed["alice"], b"first", "")
    assert changed["bob"] == found["bob"]

    accounts.remove("alice")
    assert list(accounts.read()) == ["bob"]
    assert "alice" not in Path(accounts.roles_path).read_text()
    assert sorted(os.listdir(file.parent)) == ["htpasswd", "htpasswd.roles"]


def test_who_is_there_is_not_added_and_who_is_not_not_changed(file: Path) -> None:
    accounts = Accounts(str(file))
    with pytest.raises(errors.UserNotFound):
        accounts.set_password("alice", "secret")
    accounts.add("alice", "secret", "mine", ["member"])
    with pytest.raises(errors.UserExists):
        accounts.add("alice", "other", "yours", ["admin"])
    with pytest.raises(errors.UserNotFound):
        accounts.remove("bob")
    assert matches(accounts.read()["alice"], b"secret", "")


def test_what_people_wrote_stays(file: Path) -> None:
    accounts = written(
        file, f"# ours\nalice:{HASH}\n\nbob:{HASH}\n", "# why\nbob:mine:reader\nalice:mine:admin\n"
    )
    accounts.set_password("alice", "new")
    lines = file.read_text().splitlines()
    assert (lines[0], lines[2], lines[3]) == ("# ours", "", f"bob:{HASH}")
    accounts.remove("alice")
    assert file.read_text() == f"# ours\n\nbob:{HASH}\n"
    assert Path(accounts.roles_path).read_text() == "# why\nbob:mine:reader\n"


def test_an_operators_choice_of_owner_and_group_stays(file: Path) -> None:
    require_root()
    accounts = written(file, f"alice:{HASH}\n", "alice:mine:admin\n")
    os.chown(file, 0, 1234)
    file.chmod(0o640)
    accounts.set_password("alice", "new")
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 1234, 0o640)


def test_what_root_makes_is_for_whose_directory_it_is(file: Path) -> None:
    require_root()
    os.chown(file.parent, 1234, 1235)
    accounts = Accounts(str(file))
    accounts.add("alice", "secret", "mine", ["member"])
    for path in (file, Path(accounts.roles_path)):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_two_who_add_at_once_lose_nobody(file: Path) -> None:
    code = (
        "import sys; from headrace.service.accounts import Accounts;"
        "[Accounts(sys.argv[1]).add(f'{sys.argv[2]}{n}', 'x', 'p', ['reader']) for n in range(5)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, file, name]) for name in "abc"]
    assert [each.wait(60) for each in running] == [0, 0, 0]
    assert len(Accounts(str(file)).read()) == 15


@pytest.mark.parametrize(
    ("name", "password", "project", "roles"),
    [
        ("a:b", "secret", "mine", ["member"]),
        ("a\nb", "secret", "mine", ["member"]),
        ("#a", "secret", "mine", ["member"]),
        ("", "secret", "mine", ["member"]),
        ("a", "", "mine", ["member"]),
        ("a", "x" * 73, "mine", ["member"]),
        ("a", "é" * 37, "mine", ["member"]),
        ("a", "a\0b", "mine", ["member"]),
        ("a", "secret", "mi:ne", ["member"]),
        ("a", "secret", "mine\nroot:mine:admin", ["member"]),
        ("a", "secret", "", ["member"]),
        ("a", "secret", "mine", ["god"]),
        ("a", "secret", "mine", []),
    ],
)
def test_what_the_files_could_not_say_is_not_written(
    file: Path, name: str, password: str, project: str, roles: list[str]
) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        Accounts(str(file)).add(name, password, project, roles)
    assert not password or password not in str(refused.value)
    assert not os.listdir(file.parent)


def test_a_password_is_not_cut_to_fit(file: Path) -> None:
    """bcrypt looks at 72 bytes: whoever knows those does not know the whole of a longer one."""
    account = Account("alice", hashed("x" * 72))
    assert matches(account, b"x" * 72, "")
    assert not matches(account, b"x" * 73, "")


def test_a_decoy_costs_what_the_dearest_account_does(file: Path) -> None:
    accounts = [Account("a", hashed("a", 4)), Account("b", hashed("b", 6))]
    made = decoy(accounts)
    assert made.startswith("$2b$06$")
    assert not matches(None, b"anything", made)
    assert bcrypt.checkpw(b"", made.encode()) is False


def test_an_account_does_not_show_its_hash() -> None:
    assert HASH not in repr(Account("alice", HASH))


def test_the_command_offers_the_roles_that_there_are() -> None:
    from headrace.cli import accounts  # which must not import the service's half to say so

    assert accounts.ROLES == ROLES


def test_a_change_is_noticed(file: Path) -> None:
    accounts = write_accounts(file, ("alice", "mine", "member"))
    before = accounts.signature()
    assert accounts.signature() == before
    Path(accounts.roles_path).write_text("alice:mine:readers\n")
    after = accounts.signature()
    assert after != before
    file.unlink()
    assert accounts.signature() is None
