"""The settings of stores of type swift, and the file of references that they may name."""

import configparser
import re
from typing import Any

from oslo_config import cfg

from headrace import errors

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_swift_reference",
        default="ref1",
        help="Which section of swift_store_config_file says who puts images. Without that file it "
        "is only a name, which stands in locations.",
    ),
    cfg.StrOpt(
        "swift_store_config_file",
        help="File with a section for each reference: auth_address, user and key (or "
        "application_credential_id and application_credential_secret), and auth_version, "
        "user_domain_id, user_domain_name, project_domain_id, project_domain_name.",
    ),
    cfg.StrOpt(
        "swift_store_auth_address",
        help="URL of Keystone, or of Swift's own /auth/v1.0. Where there is no "
        "swift_store_config_file it says with user and key who puts images.",
    ),
    cfg.StrOpt(
        "swift_store_auth_version",
        default="3",
        choices=["1", "2", "3"],
        help="Version of the API of Keystone; 1 is Swift's own way, which a Glance does not have.",
    ),
    cfg.StrOpt(
        "swift_store_user",
        help="PROJECT:USER, or ACCOUNT:USER with auth_version 1.",
    ),
    cfg.StrOpt("swift_store_key", secret=True, help="The user's password."),
    cfg.StrOpt(
        "swift_store_application_credential_id",
        help="Id of an application credential, in place of swift_store_user.",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_secret",
        secret=True,
        help="The application credential's secret, in place of swift_store_key.",
    ),
    cfg.StrOpt("swift_store_container", default="glance", help="Container of the images."),
    cfg.IntOpt(
        "swift_store_multiple_containers_seed",
        default=0,
        min=0,
        max=32,
        help="How many digits of an image's id are added to the name of its container, so that "
        "there are 16 to the power of it; 0: one container.",
    ),
    cfg.BoolOpt(
        "swift_store_create_container_on_put",
        default=False,
        help="Create a container that is missing.",
    ),
    cfg.IntOpt(
        "swift_store_large_object_chunk_size",
        default=200,
        min=1,
        max=5120,
        help="MiB of a segment. Up to 10,000 make an image; four of them may be on this machine's "
        "disk while an image is put, in swift_upload_buffer_dir.",
    ),
    cfg.IntOpt(
        "swift_store_large_object_size",
        default=5120,
        min=1,
        help="Told to administrators and otherwise unused: every image is put in segments.",
    ),
    cfg.StrOpt(
        "swift_upload_buffer_dir",
        help="Directory of what is on its way to Swift; the state directory when unset. Its files "
        "have no names, and are gone with the process.",
    ),
    cfg.IntOpt(
        "swift_store_retry_get_count",
        default=0,
        min=0,
        help="How often a download that broke off is gone on with.",
    ),
    cfg.StrOpt(
        "swift_store_cacert",
        help="Certificate authorities that Swift and Keystone are verified by; the system's when "
        "unset.",
    ),
    cfg.BoolOpt(
        "swift_store_auth_insecure",
        default=False,
        help="Do not verify the certificates of Swift and Keystone.",
    ),
    cfg.StrOpt(
        "swift_store_endpoint",
        help="URL of the account, in place of the one that comes with the token.",
    ),
    cfg.StrOpt(
        "swift_store_endpoint_type",
        default="publicURL",
        choices=["publicURL", "internalURL", "adminURL"],
        help="Which of Swift's endpoints in Keystone's catalog.",
    ),
    cfg.StrOpt("swift_store_region", help="Region of Swift in Keystone's catalog."),
    cfg.StrOpt(
        "swift_store_service_type",
        default="object-store",
        help="Type of Swift in Keystone's catalog.",
    ),
    cfg.StrOpt(
        "swift_temp_url_key",
        secret=True,
        help="The account's Temp-URL-Key. With it, swift_store_endpoint and store_redirect, nginx "
        "fetches the data from Swift itself.",
    ),
    cfg.BoolOpt(
        "swift_store_multi_tenant",
        default=False,
        help="True is refused: images are put in the service's own account.",
    ),
]

# Nobody's name or password: it stands in the configuration of nginx (store_redirect).
_ENDPOINT = re.compile(
    r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#]*)?", re.ASCII
)
_DOMAINS = ("user_domain", "project_domain")
_PASSWORD = ("user", "key")
_CREDENTIAL = ("application_credential_id", "application_credential_secret")


def references(conf: cfg.ConfigOpts, group: str) -> dict[str, dict[str, Any]]:
    """What is said of each reference, by its name: fields of ``stores.swift_account.Reference``.

    Raises ConfigurationError, which holds nothing of who logs in, nor where.
    """
    options = conf[group]
    if options.swift_store_multi_tenant:
        raise _wrong(group, "swift_store_multi_tenant is not supported")
    if options.swift_store_config_file is None:
        names = ("auth_address", "auth_version", *_PASSWORD, *_CREDENTIAL)
        said = {name: options[f"swift_store_{name}"] for name in names}
        found = {options.default_swift_reference: _reference(group, "", said, "3")}
    else:
        found = {
            name: _reference(group, f" in section {name}", said, options.swift_store_auth_version)
            for name, said in _sections(group, options.swift_store_config_file).items()
        }
    if (name := options.default_swift_reference) not in found:
        file = options.swift_store_config_file
        raise _wrong(group, f"default_swift_reference {name!r} is no section of {file}")
    return found


def endpoint(conf: cfg.ConfigOpts, group: str) -> str | None:
    """The URL of the account, if it is said; raises ConfigurationError, which does not hold it."""
    url: str | None = conf[group].swift_store_endpoint
    if url and not _ENDPOINT.fullmatch(url):
        raise _wrong(group, "swift_store_endpoint is no http or https URL of an account")
    return url or None


def _reference(group: str, where: str, said: dict[str, Any], version: str) -> dict[str, Any]:
    address = said.get("auth_address") or ""
    if not address.startswith(("http://", "https://")):
        raise _wrong(group, f"auth_address{where} is no http or https URL")
    if not any(all(said.get(name) for name in pair) for pair in (_CREDENTIAL, _PASSWORD)):
        raise _wrong(group, f"user and key{where} are not set")
    version = (said.get("auth_version") or version).removeprefix("v").partition(".")[0]
    if version != "1" and not said.get(_CREDENTIAL[0]) and ":" not in said["user"]:
        raise _wrong(group, f"user{where} is no PROJECT:USER")
    fields = {name: said.get(name) for name in _CREDENTIAL}
    for domain in _DOMAINS:
        by_id, by_name = said.get(f"{domain}_id"), said.get(f"{domain}_name")
        fields[f"{domain}_id"] = by_id or (None if by_name else "default")
        fields[f"{domain}_name"] = by_name
    return {
        "address": address,
        "user": said.get("user") or "",
        "key": said.get("key") or "",
        "version": version,
        **fields,
    }


def _sections(group: str, path: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        return {
            name: {option: _unquoted(value) for option, value in parser.items(name)}
            for name in parser.sections()
        }
    except OSError as error:
        raise _wrong(group, f"swift_store_config_file {path}: {error.strerror}") from None
    except (configparser.Error, ValueError) as error:
        # The error's text quotes the file.
        reason = f"swift_store_config_file {path}: {type(error).__name__}"
        raise _wrong(group, reason) from None


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
        return value[1:-1]
    return value


def _wrong(group: str, reason: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(reason=f"store {group!r}: {reason}")
