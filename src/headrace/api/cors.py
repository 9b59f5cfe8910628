"""Web pages of other origins that may use the service: CORS, as the Fetch standard has it.

Only headers are set: a filter in front, such as oslo.middleware's, would wrap the body.
"""

from dataclasses import dataclass

import falcon

ANY = "*"

# Those that oslo.middleware lets through, whatever the setting: browsers ask for Content-Type when
# it is another than a form's, as it is here.
_SIMPLE_HEADERS = (
    "Accept", "Accept-Language", "Cache-Control", "Content-Language", "Content-Type", "Expires",
    "Last-Modified", "Pragma",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsRules:
    """``origins`` as browsers send them, or ``ANY``; ``max_age`` in seconds."""

    origins: frozenset[str]
    credentials: bool
    exposed: tuple[str, ...]
    max_age: int
    methods: tuple[str, ...]
    headers: tuple[str, ...]

    @property
    def named(self) -> frozenset[str]:
        """The origins that are trusted by name; a page of any other is a stranger's."""
        return self.origins - {ANY}


class Cors:
    """What browsers are told of the pages of other origins."""

    def __init__(self, rules: CorsRules) -> None:
        self._rules = rules
        self._named = rules.named
        self._exposed = ", ".join(rules.exposed)
        self._methods = ", ".join(rules.methods)
        self._headers = ", ".join((*_SIMPLE_HEADERS, *rules.headers))

    def answer(self, req: falcon.Request, resp: falcon.Response) -> bool:
        """Set the headers for the page that asks; whether that is the whole answer (preflight).

        A preflight comes without credentials, so it is answered before anybody is asked for them.
        """
        resp.append_header("Vary", "Origin")  # a cache must not give one page another's answer
        origin = req.get_header("Origin")
        if origin is None or (allowed := self._allowed(origin)) is None:
            return False
        resp.set_header("Access-Control-Allow-Origin", allowed)
        if self._rules.credentials and allowed != ANY:
            resp.set_header("Access-Control-Allow-Credentials", "true")
        if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method"):
            resp.set_header("Access-Control-Allow-Methods", self._methods)
            resp.set_header("Access-Control-Allow-Headers", self._headers)
            resp.set_header("Access-Control-Max-Age", str(self._rules.max_age))
            resp.complete = True
            return True
        if self._exposed:
            resp.set_header("Access-Control-Expose-Headers", self._exposed)
        return False

    def _allowed(self, origin: str) -> str | None:
        if origin in self._named:
            return origin
        return ANY if ANY in self._rules.origins else None
