"""Where the service may be sent to fetch something."""

import pytest

from headrace import errors
from headrace.stores.destinations import Destination, Destinations, Rules

PUBLIC = "93.184.216.34"


class Names:
    """A resolver with answers of the test's choice; it says what it was asked."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers) or [[PUBLIC]]
        self.asked: list[str] = []

    def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def check(url: str, rules: Rules | None = None, *answers: list[str]) -> Destination:
    return Destinations(rules or Rules(), Names(*answers)).check(url)


def refused(url: str, rules: Rules | None = None, *answers: list[str]) -> bool:
    try:
        check(url, rules, *answers)
    except errors.InvalidLocation as error:
        return str(error) == "invalid location"  # and not a word about why
    return False


def test_what_is_allowed_is_taken_apart() -> None:
    assert check("http://Example.com/a/b?c=d") == Destination(
        "http", "example.com", 80, "/a/b?c=d", (PUBLIC,)
    )
    assert check("https://me:p%40ss@example.com.:443") == Destination(
        "https", "example.com", 443, "/", (PUBLIC,), "me", "p@ss"
    )
    assert check("http://[2606:2800:220:1::1]/x").addresses == ("2606:2800:220:1::1",)


def test_a_name_is_looked_up_once_and_as_it_stands() -> None:
    """No search domain is appended to it: the dot at its end says so."""
    names = Names()
    Destinations(Rules(), names).check("http://repo/x")
    assert names.asked == ["repo."]


@pytest.mark.parametrize(
    "url",
    [
        "", "http", "http:///x", "http://", "//example.com/", "http://exa mple.com/",
        "http://example.com\\@evil/", "http://example.com/\n", "http://\texample.com/",
        "http://ex\u00e4mple.com/", "http://example.com:99999/", "http://example.com:0/",
        "http://[::1/", "http://-x.com/", "http://a..b/", "http://%31%32%37.0.0.1/",
        f"http://{'a' * 64}.com/", f"http://example.com/{'x' * 3000}",
    ],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    assert refused(url)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://example.com/", "gopher://x/"]
)
def test_schemes(url: str) -> None:
    assert refused(url)
    # Even where the operator's list has it: nothing here can fetch it.
    assert refused(url, Rules(allowed_schemes=("file", "ftp", "gopher")))
    assert refused("http://example.com/", Rules(allowed_schemes=("https",)))
    assert refused("http://example.com/", Rules(allowed_schemes=(), disallowed_schemes=("http",)))


@pytest.mark.parametrize(
    ("url", "rules", "wanted"),
    [
        ("http://example.com:8080/", Rules(), False),
        ("http://example.com:22/", Rules(), False),
        ("http://example.com:443/", Rules(), True),
        ("http://example.com:8080/", Rules(allowed_ports=(8080,)), True),
        ("http://example.com/", Rules(allowed_ports=(8080,)), False),
        ("http://example.com:22/", Rules(allowed_ports=(), disallowed_ports=(22,)), False),
        ("http://example.com:23/", Rules(allowed_ports=(), disallowed_ports=(22,)), True),
        ("http://example.com:80/", Rules(disallowed_ports=(80,)), True),
    ],
)
def test_ports(url: str, rules: Rules, wanted: bool) -> None:
    assert refused(url, rules) is not wanted


@pytest.mark.parametrize(
    ("url", "rules", "wanted"),
    [
        ("http://example.com/", Rules(allowed_hosts=("example.com",)), True),
        ("http://EXAMPLE.com./", Rules(allowed_hosts=("Example.com",)), True),
        ("http://example.org/", Rules(allowed_hosts=("example.com",)), False),
        ("http://example.com/", Rules(disallowed_hosts=("EXAMPLE.com",)), False),
        ("http://example.com/", Rules(disallowed_hosts=(PUBLIC,)), False),
        (
            "http://example.com/",
            Rules(allowed_hosts=("example.com",), disallowed_hosts=("example.com", PUBLIC)),
            True,
        ),
    ],
)
def test_hosts(url: str, rules: Rules, wanted: bool) -> None:
    assert refused(url, rules) is not wanted


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1",
        "017700000001", "127.0.0.01", "1.2.3.4.5", "1.2.3", "0", "0x", "example.0x7f",
        "example.1", "127.0.0.1%00", "1.2.3.256",
    ],
)  # fmt: skip
def test_ossa_2026_004_encoded_addresses_are_refused(host: str) -> None:
    """What some resolvers take for an address is not even looked up."""
    names = Names(["127.0.0.1"])
    with pytest.raises(errors.InvalidLocation):
        Destinations(Rules(), names).check(f"http://{host}/")
    assert names.asked == []


INSIDE = [
    "127.0.0.1", "127.8.9.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "::", "fe80::1",
    "fe80::a9fe:a9fe", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_bug_2158998_loopback_and_link_local_are_refused(address: str) -> None:
    """As a literal and as what a name resolves to, in every form that carries it."""
    host = f"[{address}]" if ":" in address else address
    assert refused(f"http://{host}/latest/meta-data/")
    assert refused("http://rebound.example.com/", None, [address])


def test_bug_2158998_unless_that_very_host_is_allowed() -> None:
    rules = Rules(allowed_hosts=("127.0.0.1", "inside.example.com"))
    assert check("http://127.0.0.1/", rules).addresses == ("127.0.0.1",)
    assert check("http://inside.example.com/", rules, ["::1"]).addresses == ("::1",)
    assert refused("http://other.example.com/", rules, ["127.0.0.1"])


def test_bug_2152110_every_address_is_checked_and_the_good_ones_are_kept() -> None:
    """Nothing is looked up again: a second answer could be another one."""
    names = Names([PUBLIC, "127.0.0.1", "10.0.0.1"], ["127.0.0.1"])
    found = Destinations(Rules(), names).check("http://example.com/")
    assert found.addresses == (PUBLIC, "10.0.0.1")
    assert names.asked == ["example.com."]


def test_private_networks_are_an_operators_own_business() -> None:
    assert check("http://10.0.0.1/").addresses == ("10.0.0.1",)
    assert refused("http://10.0.0.1/", Rules(disallowed_hosts=("10.0.0.1",)))
    assert refused("http://[::ffff:10.0.0.1]/", Rules(disallowed_hosts=("10.0.0.1",)))


def test_a_name_that_does_not_resolve() -> None:
    def unknown(_name: str, _port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(errors.InvalidLocation):
        Destinations(Rules(), unknown).check("http://example.com/")
