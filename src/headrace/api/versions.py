"""API versions: the document that lists them, and paths that name one."""

import re
from typing import Any

CURRENT = "2.17"
OF_CACHE = ("2.18", CURRENT, "2.16", "2.15", "2.14")
OF_SEVERAL_STORES = tuple(f"2.{minor}" for minor in range(13, 7, -1))
SUPPORTED = ("2.15", *OF_SEVERAL_STORES, *(f"2.{minor}" for minor in range(7, -1, -1)))

_VERSION_SEGMENT = re.compile(r"v[0-9]+(\.[0-9]+)?")
MEDIA_TYPE = "application/vnd.openstack.images-"
"""How a media type begins that names a version."""

_VERSION_TYPE = re.compile(re.escape(MEDIA_TYPE) + r"(v[0-9]+(?:\.[0-9]+)?)")


def numbers(several: bool, cached: bool) -> list[str]:
    """The versions that there are, in the order of the document.

    Of those that stand for several stores only 2.9 is there where there is one; 2.14, 2.16 and 2.18
    stand for an image cache.
    """
    first, *stores = SUPPORTED[: 1 + len(OF_SEVERAL_STORES)]
    older = SUPPORTED[1 + len(OF_SEVERAL_STORES) :]
    stores = stores if several else ["2.9"]
    return [*OF_CACHE, *stores, *older] if cached else [first, *stores, CURRENT, *older]


def segments(several: bool, cached: bool) -> frozenset[str]:
    """What a path may begin with."""
    return frozenset({"v2", *(f"v{number}" for number in numbers(several, cached))})


def document(base: str, several: bool, cached: bool) -> dict[str, object]:
    """The versions document; ``base`` is scheme, host and prefix of the service's address."""
    links = [{"rel": "self", "href": f"{base.rstrip('/')}/v2/"}]
    current = OF_CACHE[0] if cached else CURRENT

    def entry(number: str) -> dict[str, object]:
        status = "CURRENT" if number == current else "SUPPORTED"
        return {"id": f"v{number}", "status": status, "links": links}

    return {"versions": list(map(entry, numbers(several, cached)))}


def resolve(environ: dict[str, Any], known: frozenset[str]) -> None:
    """Rewrite PATH_INFO to the one form that is routed: ``/v2/…``.

    Any version that is ``known`` means the same controllers; another is answered by the versions
    document.  A path without a version may name it in ``Accept`` instead; one with both leads
    nowhere.
    """
    accepted = _VERSION_TYPE.fullmatch(environ.get("HTTP_ACCEPT", ""))
    path = re.sub("/{2,}", "/", environ["PATH_INFO"])
    first, slash, rest = path[1:].partition("/")
    if accepted and path != "/":
        path = f"/v2{path}" if accepted[1] in known else "/"
    elif first in known:
        path = f"/v2{slash}{rest}"
    elif _VERSION_SEGMENT.fullmatch(first):
        path = "/"
    environ["PATH_INFO"] = path
