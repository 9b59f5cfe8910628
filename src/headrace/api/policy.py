"""The operator's policy files: found, read, and read again when they have changed."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from headrace import errors
from headrace.service.context import Context
from headrace.service.policy import target
from headrace.service.protections import Protections, check_rules

if TYPE_CHECKING:
    from headrace.api.enforcer import Enforced

_log = logging.getLogger(__name__)

_LOOK_AGAIN = 1.0  # seconds
_Signature = tuple[tuple[str, int, int, int], ...]


class Policies:
    """The rules in force: ``rules`` is None while no file changes the usual ones.

    ``file`` need not be there unless it is ``required``; files of ``directories`` come after it, in
    the order of their names, and win.  Raises ConfigurationError for files that are not whole.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        directories: Sequence[str | os.PathLike[str]] = (),
        *,
        required: bool = False,
        new_defaults: bool = True,
        protections: Protections | None = None,
    ) -> None:
        self._file = Path(file)
        self._directories = [Path(each) for each in directories]
        self._required = required
        self._new_defaults = new_defaults
        self._protections = protections
        self._seen = self._resting = self._signature()
        self.sources: dict[str, Path] = {}
        self._was_there = False
        self.rules: Enforced | None = self._read()
        self._closed = threading.Event()

    def start(self) -> None:
        """Look after the files in the background, in the process that serves."""
        threading.Thread(target=self._run, name="policy", daemon=True).start()

    def close(self) -> None:
        """Stop; harmless when stopped already."""
        self._closed.set()

    def judged(self, context: Context) -> Context:
        """The caller under the rules in force, which also say who is an administrator."""
        rules = self.rules
        if rules is None:
            return context
        viewer = context.viewer
        if "context_is_admin" in rules:
            is_admin = rules.allow(context, "context_is_admin", target(context, None))
            viewer = replace(viewer, is_admin=is_admin)
        return replace(context, viewer=viewer, rules=rules)

    def look(self) -> None:
        """Read the files again if they have changed, and have been at rest since the last look: a
        file that is half written may well be whole to a parser.

        Of files that are not whole one error is logged, and the rules stay as they were.
        """
        now = self._signature()
        resting, self._resting = now == self._resting, now
        if not resting or now == self._seen:
            return
        self._seen = now
        try:
            self.rules = self._read()
        except errors.ConfigurationError as error:
            _log.error("the policy stays as it was: %s", error)
        else:
            _log.info("the policy was read again")

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_AGAIN):
            self.look()

    def _files(self) -> Iterator[Path]:
        yield self._file
        for directory in self._directories:
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue  # as in Glance, it need not be there
            paths = (directory / name for name in names if not name.startswith("."))
            yield from (path for path in paths if not path.is_dir())

    def _signature(self) -> _Signature:
        found = []
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def _read(self) -> "Enforced | None":
        sources: dict[str, Path] = {}
        said: dict[str, str] = {}
        is_there = self._file.exists()
        if not is_there and (self._required or self._was_there):
            raise errors.ConfigurationError(reason=f"policy file {self._file} is not there")
        for path in self._files():
            if path == self._file and not is_there:
                continue
            found = _rules_of(path)
            said |= found
            sources |= dict.fromkeys(found, path)
        named = self._protections is not None and self._protections.rules()
        enforced = None
        if said or named or not self._new_defaults:
            enforced = _enforced(said, self._new_defaults)
            self._check(enforced)
        self.sources, self._was_there = sources, is_there
        return enforced

    def _check(self, enforced: "Enforced") -> None:
        named: set[str] = set()
        if self._protections is not None:
            check_rules(self._protections, enforced.texts)
            named = self._protections.rules()
        for name in enforced.strange():
            if name not in named:
                _log.warning("policy: nothing asks for rule %s, and no rule refers to it", name)


def _enforced(said: Mapping[str, str], new_defaults: bool) -> "Enforced":
    from headrace.api.enforcer import Enforced  # what takes long to load is seldom needed

    return Enforced(said, new_defaults=new_defaults)


def _rules_of(path: Path) -> dict[str, str]:
    """The rules of one file; raises ConfigurationError."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise errors.ConfigurationError(reason=f"policy file {path}: {reason}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise errors.ConfigurationError(reason=f"policy file {path} holds no rules by their names")
    for name, text in found.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise errors.ConfigurationError(
                reason=f"policy file {path}: rule {name} is no text; "
                'what anybody may is "@", what nobody may "!"'
            )
    return found
