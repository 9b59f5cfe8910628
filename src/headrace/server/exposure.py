"""What is said at the start of a service that others could misuse as it is set up."""

from collections.abc import Iterator

SHOWN = {"http_basic": "passwords", "keystone": "tokens"}
"""What callers send, by auth_strategy."""


def statements(auth_strategy: str, unauthenticated_ok: bool, in_clear: bool) -> Iterator[str]:
    """Warnings; ``in_clear`` is whether requests come from other machines without TLS."""
    if unauthenticated_ok:
        yield (
            "NOBODY IS AUTHENTICATED (unauthenticated_ok): whoever reaches this service is an "
            "administrator"
        )
    if auth_strategy in SHOWN and in_clear:
        yield (
            f"{SHOWN[auth_strategy].upper()} CROSS THE NETWORK UNENCRYPTED: whoever sees the "
            "traffic has them; let TLS end on this machine, in front (`headrace config nginx "
            "--certificate FILE --key FILE`)"
        )
