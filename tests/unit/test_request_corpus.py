"""Raw requests as text: what is written is what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.corpus import Case, End, Pause, Send, cases, parse, steps, text_of

pieces = st.lists(st.one_of(st.binary(min_size=1).map(Send), st.just(End())))


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    assert b"".join(s.data for s in steps(text_of([Send(data)])) if isinstance(s, Send)) == data


@given(pieces)
def test_any_pieces(parts: list[Send | End]) -> None:
    read = [step for step in steps(text_of(parts)) if not isinstance(step, Pause)]
    assert read == parts


def test_what_a_file_says() -> None:
    case = parse(
        "name",
        "# Why.\n# expect: 200 400|404, open\n# stored: ab * 2\n"
        "one\n\\x40two\\\n@repeat 3 \\r\\n \n@pause 0.5\n@slowly 1\nthree\n@end\n",
    )
    assert case.answers == ({200}, {400, 404})
    assert (case.open, case.stored) == (True, b"abab")
    assert case.steps == (
        Send(b"one\r\n@two\r\n \r\n \r\n "), Pause(0.5), Send(b"three\r\n", pace=1.0), End(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "GET / HTTP/1.1\n\n",
        "# expect: 200, open\nGET / HTTP/1.1\n\n",
        "# Why.\nGET / HTTP/1.1\n\n",
        "# Why.\n# expect: 200, ajar\nGET / HTTP/1.1\n\n",
        "# Why.\n# expect: fine, open\nGET / HTTP/1.1\n\n",
    ],
)
def test_what_is_no_case(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse("name", text)


@pytest.mark.parametrize("line", ["@wait 1", "\\q", "\\x4"])
def test_what_cannot_be_sent(line: str) -> None:
    with pytest.raises(ValueError, match="no such"):
        list(steps(line))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_file_can_be_read(case: Case) -> None:
    assert case.steps
