"""What a request's head means beyond what gunicorn's parser makes of it."""

import re
from typing import Any
from urllib.parse import urlsplit

from headrace.errors import BadRequest, NotYetSupported

_OURS = (1, 1)
_LIST = re.compile(r"[ \t]*,[ \t]*")


def complete_head(request: Any) -> None:
    """Take a parsed head for what RFC 9110 and RFC 9112 say that it is.

    Raises BadRequest for one without a Host, NotYetSupported for a body that is compressed.
    """
    named = False
    for name, value in request.headers:
        if name == "HOST":
            named = True
        elif name == "TRANSFER-ENCODING" and value.strip(" \t").lower() != "chunked":
            # gunicorn takes "gzip, chunked", and gives the application what is not the body.
            raise NotYetSupported(feature="a transfer coding beside chunked")
        elif name == "CONNECTION" and "close" in _LIST.split(value.lower()):
            # RFC 9110 section 7.6.1; gunicorn sees the option only where it is alone.
            request.force_close()
    if request.version >= _OURS:
        if not named:  # RFC 9112 section 3.2; gunicorn counts none as one
            raise BadRequest(reason="no Host")
        # RFC 9110 section 2.5: a higher minor version is served as ours.  gunicorn would give its
        # number to the answer, and so claim to be conformant with it.
        request.version = _OURS
    if not request.uri.startswith("/") and "://" in request.uri:
        # RFC 9112 section 3.2.2: the target's host counts and the field's does not.  Who may ask is
        # decided by the host, so there must not be two of them.
        fields = [field for field in request.headers if field[0] != "HOST"]
        request.headers = [*fields, ("HOST", urlsplit(request.uri).netloc)]
