"""Which cloud, and as whom: clouds.yaml and the OS_* of the environment, as OpenStack's clients do.

    with connect(chosen(os.environ, "mine")) as connection:
        Images(connection).list()

The files are sought as theirs are, but for one thing: secrets come
only from the secure.yaml beside the clouds.yaml that is read, or from OS_CLIENT_SECURE_FILE.  A
clouds.yaml lying where one works is thus not given the secrets of another place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.client.connection import TIMEOUT_S, Connection, Trace
from headrace.errors import ClientError, UsageError

if TYPE_CHECKING:
    from headrace.client.keystone import Keystone

KNOWN_HERE = ("none", "http_basic", "admin_token")
"""The kinds of authentication that ask no Keystone."""

_SHORT = {"password": "v3password", "token": "v3token"}
_SUFFIXES = (".yaml", ".yml", ".json")
_TRUE = ("1", "on", "true", "yes")
_FALSE = ("0", "off", "false", "no")


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where the service is and who calls it.

    ``auth_type`` is one of ``KNOWN_HERE`` or keystoneauth1's name of a plugin, ``auth`` what that
    takes, by its own names.  ``endpoint`` is the image service's URL, None if that is the
    catalog's.  ``cafile``, ``certificate`` and ``key`` are names of files.
    """

    auth_type: str = "none"
    auth: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str | None = None
    interface: str = "public"
    endpoint: str | None = None
    verify: bool = True
    cafile: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def asks_keystone(self) -> bool:
        return self.auth_type not in KNOWN_HERE

    def with_password(self, password: str) -> "Cloud":
        return replace(self, auth={**self.auth, "password": password})


def chosen(
    environ: Mapping[str, str], name: str | None = None, auth_type: str | None = None
) -> Cloud:
    """The cloud called ``name``, or else OS_CLOUD; without either, what OS_* say by themselves.

    Of a named cloud the environment says only what its entry leaves open: region and interface.
    Passwords of one are never shown to another.  ``auth_type`` replaces what the source says.
    Raises UsageError.
    """
    name = name or environ.get("OS_CLOUD")
    return from_file(name, environ, auth_type) if name else from_environment(environ, auth_type)


def connect(
    cloud: Cloud,
    endpoint: str | None = None,
    *,
    keystone: "Keystone | None" = None,
    timeout: float = TIMEOUT_S,
    trace: Trace | None = None,
) -> Connection:
    """A connection to the cloud's image service, or to the one at ``endpoint``.

    ``keystone`` is where its tokens come from, if another connection has that already.
    """
    if keystone is None and cloud.asks_keystone:
        keystone = keystone_of(cloud, timeout=timeout, trace=trace)
    endpoint = endpoint or cloud.endpoint
    if endpoint is None:
        if keystone is None:
            raise UsageError(reason="where the image service is must be said: OS_ENDPOINT")
        endpoint = keystone.endpoint()
    basic = cloud.auth_type == "http_basic"
    direct = cloud.auth.get("token") if cloud.auth_type == "admin_token" else None
    return Connection(
        endpoint,
        token=keystone or direct,
        user=cloud.auth.get("username") if basic else None,
        password=cloud.auth.get("password", "") if basic else "",
        timeout=timeout,
        verify=cloud.verify,
        cafile=cloud.cafile,
        certificate=cloud.certificate,
        key=cloud.key,
        trace=trace,
    )


def keystone_of(
    cloud: Cloud, *, timeout: float = TIMEOUT_S, trace: Trace | None = None
) -> "Keystone":
    """The cloud's Keystone, as a source of tokens that connections may share."""
    try:
        from headrace.client.keystone import Keystone
    except ImportError as error:
        raise ClientError(
            reason=f"asking Keystone needs {error.name}: pip install 'headrace[keystone]'"
        ) from error
    return Keystone(cloud, timeout=timeout, trace=trace)


def from_environment(environ: Mapping[str, str], auth_type: str | None = None) -> Cloud:
    """What OS_* say.  Without OS_AUTH_URL and OS_AUTH_TYPE nobody is asked: OS_TOKEN is shown."""
    words = {
        name.removeprefix("OS_").lower(): value
        for name, value in environ.items()
        if name.startswith("OS_") and value
    }
    kind = auth_type or words.get("auth_type") or _guessed(words)
    endpoint = words.get("image_endpoint_override") or words.get("endpoint")
    return Cloud(
        _SHORT.get(kind, kind),
        _completed(words),
        words.get("region_name"),
        _interface(words),
        endpoint,
        not _is_true(words.get("insecure")),
        words.get("cacert"),
        words.get("cert"),
        words.get("key"),
    )


def from_file(name: str, environ: Mapping[str, str], auth_type: str | None = None) -> Cloud:
    """The cloud of that name in the first clouds.yaml there is."""
    path, found = _entries(environ)
    if path is None:
        raise UsageError(
            reason=f"no clouds.yaml says what cloud '{name}' is; it is sought in "
            f"{', '.join(map(str, _directories(environ)))}"
        )
    entry = found.get(name)
    if not isinstance(entry, dict):
        raise UsageError(reason=f"{path} has no cloud '{name}'")
    auth = entry.get("auth") or {}
    if not isinstance(auth, dict):
        raise UsageError(reason=f"{path}: 'auth' of cloud '{name}' must hold names and values")
    words = _texts(auth)
    if "profile" in entry and "auth_url" not in words:
        raise UsageError(
            reason=f"{path}: cloud '{name}' leaves its auth_url to a profile; say it there"
        )
    settings = {
        "region_name": environ.get("OS_REGION_NAME") or None,
        "interface": environ.get("OS_INTERFACE") or None,
    } | _texts(entry)
    kind = auth_type or settings.get("auth_type") or _guessed(words)
    regions = entry.get("regions")
    if not settings["region_name"] and isinstance(regions, list) and len(regions) == 1:
        only = regions[0]
        settings["region_name"] = str(only["name"] if isinstance(only, dict) else only)
    # Whatever else it says, it is not a no.
    verify = (settings.get("verify") or "").lower() not in _FALSE
    return Cloud(
        _SHORT.get(kind, kind),
        _completed(words),
        settings["region_name"],
        _interface(settings),
        settings.get("image_endpoint_override") or words.get("endpoint"),
        verify and not _is_true(settings.get("insecure")),
        _expanded(settings.get("cacert")),
        _expanded(settings.get("cert")),
        _expanded(settings.get("key")),
    )


def names(environ: Mapping[str, str]) -> list[str]:
    """The names of the clouds in the clouds.yaml that there is."""
    return sorted(map(str, _entries(environ)[1]))


def _guessed(words: Mapping[str, str]) -> str:
    """What is meant where nothing says how to authenticate."""
    if "auth_url" not in words:
        return "admin_token" if "token" in words else "none"
    if "application_credential_secret" in words:
        return "v3applicationcredential"
    return "v3token" if "token" in words else "v3password"


def _completed(words: Mapping[str, str]) -> dict[str, str]:
    """What a plugin of Keystone's takes, with names of old, and the domains nobody bothers to say.

    That the domain is then ``default`` is openstackclient's rule.
    """
    found = dict(words)
    for old, new in (("tenant_name", "project_name"), ("tenant_id", "project_id")):
        if old in found:
            found.setdefault(new, found[old])
    if not {"default_domain_id", "default_domain_name"} & set(found):
        found["default_domain_id"] = "default"
    for what, needs in (("user", "username"), ("project", "project_name")):
        if needs in found and not {f"{what}_domain_id", f"{what}_domain_name"} & set(found):
            for part in ("id", "name"):
                if f"default_domain_{part}" in found:
                    found[f"{what}_domain_{part}"] = found[f"default_domain_{part}"]
    return found


def _interface(words: Mapping[str, str | None]) -> str:
    """public, internal or admin, which were once publicURL and so on, by endpoint_type."""
    given = words.get("interface") or words.get("endpoint_type") or "public"
    return given.removesuffix("URL")


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in _TRUE


def _expanded(path: str | None) -> str | None:
    return str(Path(path).expanduser()) if path else None


def _texts(entry: Mapping[Any, Any]) -> dict[str, str]:
    """The plain values of an entry, as text: a password may look like a number to YAML."""
    return {
        str(name).replace("-", "_"): str(value)
        for name, value in entry.items()
        if isinstance(value, str | int | float) and str(value)
    }


def _entries(environ: Mapping[str, str]) -> tuple[Path | None, dict[Any, Any]]:
    """The file that says which clouds there are, and they, secrets included."""
    path = _sought("clouds", environ.get("OS_CLIENT_CONFIG_FILE"), _directories(environ))
    if path is None:
        return None, {}
    found = _clouds_in(path)
    secure = _sought("secure", environ.get("OS_CLIENT_SECURE_FILE"), [path.parent])
    return path, found if secure is None else _merged(found, _clouds_in(secure))


def _directories(environ: Mapping[str, str]) -> list[Path]:
    home = environ.get("XDG_CONFIG_HOME")
    mine = Path(home) if home else Path("~/.config").expanduser()
    return [Path.cwd(), mine / "openstack", Path("/etc/openstack")]


def _sought(name: str, given: str | None, directories: list[Path]) -> Path | None:
    candidates = [Path(given)] if given else []
    candidates += [
        directory / f"{name}{suffix}" for directory in directories for suffix in _SUFFIXES
    ]
    return next((path for path in candidates if path.is_file()), None)


def _clouds_in(path: Path) -> dict[Any, Any]:
    import yaml  # here, since most commands know their service without a file

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UsageError(reason=f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        # Not what it says more: that may repeat a password.
        raise UsageError(reason=f"{path} is not YAML{where}") from None
    found = (document or {}).get("clouds") if isinstance(document or {}, dict) else None
    if not isinstance(found, dict):
        raise UsageError(reason=f"{path} has no 'clouds'")
    return found


def _merged(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        merged[name] = value
    return merged
