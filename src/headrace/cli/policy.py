"""headrace policy: the rules about who may do what, as files and settings have them."""

from dataclasses import fields
from typing import TYPE_CHECKING

import click

from headrace.cli import output, settings
from headrace.errors import ImageNotFound, UsageError

if TYPE_CHECKING:
    from oslo_config import cfg

    from headrace.api.policy import Policies
    from headrace.model import Image
    from headrace.service.context import Context

EXIT_REFUSED = 3
_CALLER = ("project", "roles", "user", "service_roles")


@click.group("policy")
def command() -> None:
    """Show and try the rules about who may do what."""


@command.command("show")
@settings.settings_options
@click.argument("rules", nargs=-1, metavar="[RULE]…")
def show(*, state_dir: str | None, config_files: tuple[str, ...], rules: tuple[str, ...]) -> None:
    """Show the rules in force, and where each is from; all of them, or those that are named.

    The output is a policy file, too.
    """
    from headrace.api.rules import RULES

    policies = _policies(settings.load(state_dir, config_files))
    texts = {name: rule.check for name, rule in RULES.items()}
    if policies.rules is not None:
        texts |= policies.rules.texts
    for name in rules or texts:
        if name not in texts:
            raise UsageError(reason=f"there is no rule {name}")
        about = f"{RULES[name].meaning} — " if name in RULES else ""
        output.write(f"# {about}{policies.sources.get(name, 'as usual')}")
        output.write(f"{_quoted(name)}: {_quoted(texts[name])}")


@command.command("sample")
def sample() -> None:
    """Write a policy file that changes nothing: the usual rules, each a comment."""
    from headrace.api.rules import RULES

    output.write("# Rules about who may do what, in place of the usual ones, which these are.")
    for name, rule in RULES.items():
        asked = "" if rule.asked else " (nothing asks for it)"
        output.write(f"\n# {rule.meaning}{asked}\n#{_quoted(name)}: {_quoted(rule.check)}")


@command.command("check")
@settings.settings_options
@click.argument("rule")
@click.option(
    "--as",
    "caller",
    required=True,
    metavar="KEY=VALUE,…",
    help=f"Who asks: {', '.join(_CALLER)}; roles go on behind commas, as in "
    "project=P,roles=member,reader.",
)
@click.option(
    "--image",
    metavar="ID|KEY=VALUE,…",
    help="Of which image: one on record, or one that is made up (owner=P,visibility=shared); one "
    "that is made up and shared, and another's, counts as shared with the caller [a private one "
    "of the caller's project].",
)
def check(
    *,
    state_dir: str | None,
    config_files: tuple[str, ...],
    rule: str,
    caller: str,
    image: str | None,
) -> int:
    """Say whether a caller may do what a rule is about.

    Exit status: 0 he may, 1 that cannot be said, 2 wrongly called, 3 he may not.
    """
    from headrace.api.rules import RULES
    from headrace.service import policy

    conf = settings.load(state_dir, config_files)
    policies = _policies(conf)
    known = RULES if policies.rules is None else policies.rules.texts
    if rule not in known:
        raise UsageError(reason=f"there is no rule {rule}")
    context = policies.judged(_context(_pairs(caller, _CALLER, "--as")))
    try:
        subject = _image(conf, context, image)
    except ImageNotFound as error:
        output.write(f"not even seen: {error}")
        return EXIT_REFUSED
    allowed = policy.allows(context, rule, subject)
    text = RULES[rule].check if policies.rules is None else policies.rules.texts[rule]
    word = "permitted" if allowed else "refused"
    output.write(f"{word} by {_quoted(rule)}: {_quoted(text)}")
    output.write(f"which is from {policies.sources.get(rule, 'the usual rules')}")
    return 0 if allowed else EXIT_REFUSED


def _policies(conf: "cfg.ConfigOpts") -> "Policies":
    from headrace.api import app

    return app.policies(conf, app.property_protections(conf))


def _context(given: dict[str, str]) -> "Context":
    from headrace.model import Viewer
    from headrace.service.context import Context

    roles = frozenset(given.get("roles", "").lower().split(",")) - {""}
    return Context(
        Viewer(given.get("project"), is_admin="admin" in roles),
        roles,
        frozenset(given.get("service_roles", "").lower().split(",")) - {""},
        given.get("user"),
    )


def _image(conf: "cfg.ConfigOpts", context: "Context", text: str | None) -> "Image":
    """The image on record as the caller sees it, or the one made up; raises ImageNotFound."""
    from headrace import config
    from headrace.db import engine, images
    from headrace.model import is_image_id

    if text is None:
        owner = {"owner": context.project_id} if context.project_id else {}
        return _made_up({"visibility": "private", **owner})
    if not is_image_id(text):
        return _made_up(_pairs(text, None, "--image"))
    database = engine.connect(config.database_url(conf))
    try:
        return images.show(database, text.lower(), context.viewer)
    finally:
        database.close()


def _made_up(given: dict[str, str]) -> "Image":
    from datetime import UTC, datetime

    from headrace.model import Image, Status, Visibility

    now = datetime.now(UTC).replace(tzinfo=None)
    known = {field.name for field in fields(Image)}
    texts = {"owner", "name", "disk_format", "container_format"}
    try:
        visibility = Visibility(given.pop("visibility", "shared"))
        status = Status(given.pop("status", "queued"))
    except ValueError as error:
        raise UsageError(reason=f"--image: {error}") from None
    plain = {key: given.pop(key) for key in list(given) if key in texts}
    for key in given:
        if key in known:
            raise UsageError(reason=f"--image: {key} cannot be made up")
    return Image(
        id="00000000-0000-0000-0000-000000000000",
        status=status,
        visibility=visibility,
        properties=given,
        created_at=now,
        updated_at=now,
        **plain,  # type: ignore[arg-type]
    )


def _pairs(text: str, keys: tuple[str, ...] | None, option: str) -> dict[str, str]:
    """KEY=VALUE,…; what has no "=" belongs to the value before it."""
    found: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals and key and (keys is None or key in keys) and key not in found:
            found[key], last = value, key
        elif not equals and last:
            found[last] += f",{part}"
        else:
            raise UsageError(reason=f"{option}: {part!r} is not understood")
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
