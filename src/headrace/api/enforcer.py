"""An operator's rules, in force: oslo.policy on the usual rules and what files say otherwise.

It is loaded only where a file says something (it takes a quarter of a second).
"""

import ast
import logging
import re
from collections import defaultdict
from collections.abc import Mapping

from oslo_config import cfg
from oslo_policy import policy as oslo

from headrace import errors
from headrace.api.rules import RULES
from headrace.service.context import Context
from headrace.service.policy import implied

_REFERENCE = re.compile(r"\brule:([^\s()]+)")
_REMOTE = re.compile(r"(?<![^\s(])https?:")

# What it does not understand it logs, and forbids; here that is an error of its own.  At level
# DEBUG it would log all that is known of callers and images.
for _name in ("oslo_policy._parser", "oslo_policy.policy"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Enforced:
    """The rules of ``said`` and, for all others, the usual ones; never changed once made.

    Without ``new_defaults`` the usual ones let pass what they did before they looked at projects,
    too, of which ``guarded`` keeps from callers what is not theirs.  Raises ConfigurationError
    for rules that cannot be understood.
    """

    def __init__(self, said: Mapping[str, str], *, new_defaults: bool = True) -> None:
        self.guarded = not new_defaults
        usual = {name: rule.check for name, rule in RULES.items()}
        if not new_defaults:
            old = {rule.name: rule.old for rule in RULES.values() if rule.old is not None}
            usual |= {name: _either(usual[name], check) for name, check in old.items()}
            self._changed = set(old)
        else:
            self._changed = set()
        self.texts = usual | dict(said)
        self._changed |= set(said)
        self._changed = self._with_referring()
        self._enforcer = _enforcer(self.texts)

    def __contains__(self, rule: str, /) -> bool:
        return rule in self._changed

    def allow(self, context: Context, rule: str, target: Mapping[str, object]) -> bool:
        """Whether the caller may do this to what ``target`` describes; of an unknown rule, no."""
        if rule not in self.texts:
            return False  # where oslo.policy would ask the rule "default"
        return bool(self._enforcer.enforce(rule, dict(target), _credentials(context)))

    def strange(self) -> list[str]:
        """The names of rules that nothing asks for and none refers to."""
        referred = {name for text in self.texts.values() for name in _REFERENCE.findall(text)}
        return sorted(self.texts.keys() - RULES.keys() - referred)

    def _with_referring(self) -> set[str]:
        """What was changed, and the rules that refer to it; who is an administrator is all rules'
        business."""
        if "context_is_admin" in self._changed:
            return set(self.texts)
        changed = set(self._changed)
        while True:
            more = {
                name
                for name, text in self.texts.items()
                if not changed.isdisjoint(_REFERENCE.findall(text))
            }
            if more <= changed:
                return changed
            changed |= more


def _either(check: str, old: str) -> str:
    return f"({check}) or ({old})" if check else ""


def _enforcer(texts: Mapping[str, str]) -> oslo.Enforcer:
    rules = oslo.Rules.from_dict(dict(texts))
    for name, text in texts.items():
        _check(name, text, str(rules[name]))
    enforcer = oslo.Enforcer(cfg.ConfigOpts(), rules=rules, use_conf=False)
    try:
        enforcer.check_rules(raise_on_violation=True)
    except oslo.InvalidDefinitionError:
        raise errors.ConfigurationError(reason=f"policy: {_undefined(texts)}") from None
    return enforcer


def _undefined(texts: Mapping[str, str]) -> str:
    for name, text in texts.items():
        for other in _REFERENCE.findall(text):
            if other not in texts:
                return f"rule {name} refers to {other}, which is no rule"
    return "rules refer to each other in a circle"


def _check(name: str, text: str, understood: str) -> None:
    if _REMOTE.search(text):
        raise errors.ConfigurationError(
            reason=f"policy: rule {name} asks another service, which Headrace does not do"
        )
    # What is not understood becomes a "!" that was not written.
    if understood.count("!") > text.count("!") or not all(map(_works, text.split())):
        raise errors.ConfigurationError(reason=f"policy: rule {name} is not understood: {text!r}")


def _works(word: str) -> bool:
    """Whether a check can be made at all; what oslo.policy finds out only when it is asked."""
    kind, colon, match = word.lstrip("(").partition(":")
    if not colon:
        return True  # and, or, not, @, !
    try:
        _ = match % defaultdict(str)
        ast.literal_eval(kind)
    except ValueError as error:
        # Of a kind that is no literal, but an attribute of the caller.
        return "malformed node" in str(error)
    except (SyntaxError, TypeError):
        return False
    return True


def _credentials(context: Context) -> dict[str, object]:
    """What rules may know of the caller.  None is left out: it would compare as a name."""
    found = {
        "user_id": context.user_id,
        "user": context.user_id,
        "project_id": context.project_id,
        "tenant": context.project_id,
        "is_admin": context.is_admin,
        "roles": sorted(implied(context.roles)),
        "service_roles": sorted(context.service_roles),
    }
    return {name: value for name, value in found.items() if value is not None}
