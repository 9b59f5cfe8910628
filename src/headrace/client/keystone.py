"""Tokens from Keystone, and what its catalog says, by keystoneauth1 (``headrace[keystone]``).

Loaded only by client/clouds.py, when Keystone is to be asked: what it needs takes longer to load
than all else that a command does.  Passwords and tokens go to the host that is named for them and
nowhere else: no redirect is followed, no version document asked for another place.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from keystoneauth1 import exceptions, loading
from keystoneauth1.access import AccessInfo
from keystoneauth1.identity import BaseIdentityPlugin
from keystoneauth1.session import Session

from headrace import __version__
from headrace.client.clouds import Cloud
from headrace.client.connection import TIMEOUT_S, Trace
from headrace.errors import (
    ClientError,
    ConnectionFailed,
    LoginRefused,
    NotInCatalog,
    UsageError,
)

SERVICE = "image"


class Keystone:
    """What Keystone knows of the caller: a token, renewed when it ends, and the image service.

    Several connections, and threads, may share one.  ``timeout`` is in seconds.  Raises
    LoginRefused, NotInCatalog, ConnectionFailed (it is away), UsageError (something is not said).
    """

    def __init__(
        self, cloud: Cloud, *, timeout: float = TIMEOUT_S, trace: Trace | None = None
    ) -> None:
        self._cloud = cloud
        self._trace = trace or (lambda line: None)
        self.url = _identity(cloud.auth.get("auth_url", ""))
        self._plugin = _plugin(cloud, self.url)
        self._session = Session(
            auth=self._plugin,
            verify=_authorities(cloud),
            cert=_certificate(cloud),
            timeout=timeout,
            redirect=False,
            user_agent=f"headrace/{__version__}",
        )
        self._last: str | None = None

    def token(self) -> str:
        """A token that is still good, as far as one can know without asking."""
        return str(self._access().auth_token)

    def renew(self, refused: str) -> bool:
        """Whether there is another token now, in place of ``refused`` by the service."""
        if self._last == refused:
            self._plugin.invalidate()
        return self.token() != refused

    def endpoint(self) -> str:
        """Where the image service is, by the catalog that came with the token."""
        access = self._access()
        if not (access.project_scoped or access.domain_scoped or access.system_scoped):
            raise UsageError(
                reason="Keystone's token is of no project: say which, by OS_PROJECT_NAME or by "
                "project_name in clouds.yaml"
            )
        cloud = self._cloud
        found = (
            access.service_catalog.get_endpoints_data(
                service_type=SERVICE, interface=cloud.interface, region_name=cloud.region
            ).get(SERVICE, [])
            if access.has_service_catalog()
            else []
        )
        if not found:
            where = f" in region {cloud.region}" if cloud.region else ""
            raise NotInCatalog(url=self.url, interface=cloud.interface, where=where)
        regions = sorted({str(each.region_name) for each in found})
        if len(regions) > 1:
            raise UsageError(
                reason=f"the image service is in several regions ({', '.join(regions)}): say "
                "which, by OS_REGION_NAME or by region_name in clouds.yaml"
            )
        urls = sorted({str(each.url) for each in found})
        if len(urls) > 1:
            raise UsageError(
                reason=f"the catalog has several image services ({', '.join(urls)}): say which, "
                "by its URL"
            )
        if self.url.startswith("https:") and not urls[0].startswith("https:"):
            raise UsageError(
                reason=f"the catalog has the image service at {urls[0]}, where everybody on the "
                "way could read the token; give that URL yourself if it may be so"
            )
        return urls[0]

    def _access(self) -> AccessInfo:
        with _translated(self.url):
            access = self._plugin.get_access(self._session)
        if access.auth_token != self._last:
            self._last = access.auth_token
            self._trace(f"* a token of Keystone's at {self.url}, good until {access.expires}")
        return access


def _identity(auth_url: str) -> str:
    """Where Keystone's API v3 is; v2.0 is gone since 2018."""
    url = auth_url.rstrip("/")
    if not url:
        raise UsageError(reason="where Keystone is must be said: OS_AUTH_URL, auth_url")
    if not url.startswith(("http://", "https://")) or "@" in url:
        raise UsageError(reason="Keystone's URL must look like https://host:5000/v3")
    return url if url.endswith("/v3") else f"{url.removesuffix('/v2.0')}/v3"


def _plugin(cloud: Cloud, url: str) -> BaseIdentityPlugin:
    try:
        loader: loading.BaseLoader[Any] = loading.get_plugin_loader(cloud.auth_type)
        known = {option.dest for option in loader.get_options()}
        given = {name: value for name, value in cloud.auth.items() if name in known}
        if cloud.auth_type == "v3applicationcredential":
            # It is of one project already; Keystone refuses it with a scope.
            given = {name: value for name, value in given.items() if not name.startswith("project")}
        plugin = loader.load_from_options(**(given | {"auth_url": url}))
    except exceptions.ClientException as error:
        raise UsageError(reason=f"{cloud.auth_type}: {error.message}") from None
    if not isinstance(plugin, BaseIdentityPlugin):
        raise UsageError(reason=f"'{cloud.auth_type}' is no way to get a token of Keystone's")
    return plugin


def _authorities(cloud: Cloud) -> bool | str:
    """Whose certificates are trusted: the system's authorities, as for the image service."""
    if not cloud.verify:
        return False
    system = ssl.get_default_verify_paths()
    return cloud.cafile or system.cafile or system.capath or True


def _certificate(cloud: Cloud) -> str | tuple[str, str] | None:
    if cloud.certificate and cloud.key:
        return cloud.certificate, cloud.key
    return cloud.certificate


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Raise an error of ours for one of keystoneauth1's, which hold the password, too."""
    try:
        yield
    except exceptions.HTTPClientError as error:
        # 401, and 404 for an application credential that is gone.
        raise LoginRefused(url=url, reason=error.message) from None
    except exceptions.SSLError as error:
        untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
        reason = "its certificate is not trusted" if untrusted else "no TLS can be agreed on"
        raise ConnectionFailed(url=url, reason=reason) from None
    except exceptions.ConnectTimeout:
        raise ConnectionFailed(url=url, reason="Keystone does not answer in time") from None
    except exceptions.ConnectionError as error:
        raise ConnectionFailed(url=url, reason=_first_reason(error)) from None
    except exceptions.HttpError as error:
        reason = f"Keystone answers {error.http_status}: {error.message}"
        raise ConnectionFailed(url=url, reason=reason) from None
    except exceptions.ClientException as error:
        raise ClientError(reason=f"Keystone at {url}: {error.message}") from None
    except OSError as error:  # requests' own, of files that are not there
        raise ClientError(reason=str(error)) from None


def _first_reason(error: BaseException) -> str:
    """What the system said, below what three libraries have made of it."""
    reason = "Keystone cannot be reached"
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            reason = below.strerror
        below = below.__cause__ or below.__context__
    return reason
