"""Signatures of requests to S3, as AWS Signature Version 4 has them: in headers, or in a URL.

A request that carries data signs its SHA-256, which the engine holds against what arrives: other
digests in headers are not checked by every engine (RGW 16 ignores ``x-amz-checksum-sha256``).
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

_UNSIGNED = "UNSIGNED-PAYLOAD"
_NOTHING = hashlib.sha256().hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one pair of keys in one region; neither is in its representation."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str

    def headers(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        digest: str = _NOTHING,
        now: datetime | None = None,
    ) -> dict[str, str]:
        """``headers``, which name the Host, and those that sign the request.

        ``path`` is quoted as it will be sent, ``query`` is not; ``digest`` is the body's SHA-256 in
        hex.
        """
        time = _time(now)
        signed = {**headers, "X-Amz-Content-Sha256": digest, "X-Amz-Date": time}
        canonical = {name.lower(): value.strip() for name, value in signed.items()}
        names = ";".join(sorted(canonical))
        signature = self._signature(method, path, query, canonical, digest, time)
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={self.access_key}/{self._scope(time)}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def query(
        self,
        method: str,
        host: str,
        path: str,
        query: Mapping[str, str],
        life: int,
        now: datetime | None = None,
    ) -> str:
        """The query, quoted, with which anybody may make the request for ``life`` seconds."""
        time = _time(now)
        whole = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{self._scope(time)}",
            "X-Amz-Date": time,
            "X-Amz-Expires": str(life),
            "X-Amz-SignedHeaders": "host",
        }
        signature = self._signature(method, path, whole, {"host": host}, _UNSIGNED, time)
        return f"{quoted(whole)}&X-Amz-Signature={signature}"

    def _scope(self, time: str) -> str:
        return f"{time[:8]}/{self.region}/s3/aws4_request"

    def _signature(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        digest: str,
        time: str,
    ) -> str:
        """In hex, of the canonical form; names of ``headers`` are in lower case."""
        lines = [f"{name}:{headers[name]}\n" for name in sorted(headers)]
        request = "\n".join(
            (method, path, quoted(query), "".join(lines), ";".join(sorted(headers)), digest)
        )
        hashed = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join((_ALGORITHM, time, self._scope(time), hashed))
        key = f"AWS4{self.secret_key}".encode()
        for word in self._scope(time).split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()


def quoted(query: Mapping[str, str]) -> str:
    """A query as it is signed and sent: sorted, everything but RFC 3986's unreserved escaped."""
    pairs = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def _time(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
