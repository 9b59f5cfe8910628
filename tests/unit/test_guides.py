"""What the guides have to be copied: their settings are read, and their commands are ours."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headrace import config, foreign
from headrace.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
_BEFORE = re.compile(r"\||.*;|as|\w+=.*")  # what a command line may stand behind


def _blocks(guide: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", guide.read_text(encoding="utf-8"), re.S | re.M)


def _settings(guide: Path) -> Iterator[list[str]]:
    """The guide's files of settings: blocks of more sections are added to that which has stores."""
    found: list[list[str]] = []
    for block in _blocks(guide, "ini"):
        # Files of others begin by saying so; units are systemd's.
        if re.match(r"#|\[(Unit|Service|Socket)\]", block):
            continue
        if block.startswith(("[DEFAULT]", "[glance_store]")) or not found:
            found.append([])
        found[-1].append(block)
    return iter(found)


def _commands(guide: Path) -> Iterator[list[str]]:
    """The words behind each ``headrace`` that the guide has at a prompt."""
    lines = "\n".join(_blocks(guide, "console")).replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith(("$ ", "# ")):
            words = shlex.split(line[2:], comments=True)
            names = [each for each, word in enumerate(words) if Path(word).name == "headrace"]
            if names and all(_BEFORE.fullmatch(each) for each in words[: names[0]][-1:]):
                yield words[names[0] + 1 :]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_settings_in_a_guide_are_read_as_they_stand(guide: Path, tmp_path: Path) -> None:
    for number, blocks in enumerate(_settings(guide)):
        files = [tmp_path / f"{number}-{part}.conf" for part, _ in enumerate(blocks)]
        for file, block in zip(files, blocks, strict=True):
            file.write_text(block, encoding="utf-8")
            # Read as a part of the value.
            assert not re.search(r"\S[ \t]+#", block), block
        conf = config.load(files)
        assert list(foreign.settings(conf)) == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_commands_in_a_guide_are_there_with_their_options(guide: Path) -> None:
    for words in _commands(guide):
        command: click.Command = cli
        context = click.Context(cli)
        options = {name for each in cli.params for name in each.opts}
        for word in words[: words.index("--") if "--" in words else None]:
            if word in ("|", ">", "&"):
                break
            if word.startswith("-"):
                assert word in options, f"{shlex.join(words)}: {word}"
            elif isinstance(command, click.Group):
                found = command.get_command(context, word)
                command = command if found is None else found
                options |= {name for each in command.params for name in each.opts}
        assert not isinstance(command, click.Group), shlex.join(words)
