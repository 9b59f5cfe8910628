"""tools/python: which interpreter the environment is built with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHOOSER = Path(__file__).parents[2] / "tools" / "python"
BROKEN = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"
# Debian's python3 without python3-venv: it runs, but ensurepip is not to be found.
WITHOUT_VENV = f"""#!/bin/sh
shift
exec {sys.executable} -c "import importlib.util as u
find = u.find_spec
u.find_spec = lambda name: None if name == 'ensurepip' else find(name)
$1"
"""


def choose(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHOOSER, *arguments], env={"PATH": path}, capture_output=True, text=True, timeout=60
    )


def put(directory: Path, name: str, script: str | None = None) -> Path:
    """A program in ``directory``: a script, or a link to this Python."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    if script is None:
        path.symlink_to(sys.executable)
    else:
        path.write_text(script)
        path.chmod(0o755)
    return path


def test_names_that_only_fail_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "shims", "python3.14", BROKEN)
    put(tmp_path / "shims", "python3.11", BROKEN)
    good = put(tmp_path / "bin", "python3.11")
    done = choose(f"{tmp_path}/shims:{tmp_path}/bin")
    assert (done.returncode, done.stdout.strip()) == (0, str(good))


def test_the_newest_name_wins_whatever_the_order_of_directories(tmp_path: Path) -> None:
    put(tmp_path / "first", "python3")
    newest = put(tmp_path / "second", "python3.13")
    assert choose(f"{tmp_path}/first:{tmp_path}/second").stdout.strip() == str(newest)


def test_a_python_without_venv_gives_way_to_a_whole_one(tmp_path: Path) -> None:
    put(tmp_path, "python3.13", WITHOUT_VENV)
    whole = put(tmp_path, "python3")
    assert choose(str(tmp_path)).stdout.strip() == str(whole)


@pytest.mark.parametrize("arguments", [[], ["python3.13"]], ids=["found", "named"])
def test_a_missing_venv_is_named_with_its_package(tmp_path: Path, arguments: list[str]) -> None:
    put(tmp_path, "python3.13", WITHOUT_VENV)
    done = choose(str(tmp_path), *arguments)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.returncode == 1
    assert not done.stdout
    assert f"apt-get install python{version}-venv" in done.stderr


def test_the_named_python_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "python3.14")
    named = put(tmp_path, "mine")
    assert choose(str(tmp_path), "mine").stdout.strip() == str(named)
    assert choose(os.defpath, str(named)).stdout.strip() == str(named)


@pytest.mark.parametrize("arguments", [[], ["python3.11"]], ids=["found", "named"])
def test_none_at_all_is_an_error_that_says_so(tmp_path: Path, arguments: list[str]) -> None:
    put(tmp_path, "python3.11", BROKEN)
    done = choose(str(tmp_path), *arguments)
    assert done.returncode == 1
    assert not done.stdout
    assert "Python 3.11 or later that runs" in done.stderr
