"""The page of a report: what is on it, and that it needs nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headrace.bench import report
from headrace.bench.outcome import Outcome
from headrace.bench.summary import Summary, ratios
from headrace.bench.units import Rate
from headrace.errors import ClientError
from tests.unit.test_bench_omni import GET, PUT, RR, STREAM, used

FACTS = {"near end": {"kernel": "Linux <6>", "MTU": "eth0 1500"}, "far end": {"kernel": "Linux 5"}}
RATE = Rate("M")


def of(outcome: Outcome, **spec: object) -> Summary:
    """Three measurements of a case, not all alike."""
    case = replace(outcome.spec, **spec)
    return Summary([replace(outcome, spec=case, seconds=seconds) for seconds in (2.0, 2.1, 2.2)])


class Page(HTMLParser):
    """Tables as rows of cells, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.fetched: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta",):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#"):
                self.fetched.append(str(value))
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def drawings(text: str) -> list[str]:
    found = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for each in found:
        ElementTree.fromstring(each)  # well-formed
    return found


def words(svg: str) -> set[str]:
    """The texts in a drawing."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(each.itertext()) for each in found}


def test_a_sweep_is_drawn_by_size() -> None:
    sizes = (4096, 8192, 1 << 20)
    summaries = [of(STREAM, test=test, send_size=size)
                 for test in ("TCP_STREAM", "TCP_SENDFILE") for size in sizes]  # fmt: skip
    text = report.page(summaries, [], FACTS, RATE)
    page = Page(text)
    assert page.fetched == []
    (drawing,) = drawings(text)
    assert {"Throughput", "Service demand, near end", "Service demand, far end"} <= words(drawing)
    assert {"bytes a call", "4K", "8K", "1M", "TCP_STREAM", "TCP_SENDFILE"} <= words(drawing)
    stream, sendfile, facts = page.tables
    assert [row[stream[0].index("LOCAL_SEND_SIZE")] for row in stream[1:]] == ["65536"] * 3
    assert len(sendfile) == 4
    assert facts == [["", "near end", "far end"], ["kernel", "Linux <6>", "Linux 5"],
                     ["MTU", "eth0 1500", ""]]  # fmt: skip


def test_streams_and_ways_of_images() -> None:
    summaries = [of(GET, via=via, streams=streams) for via in ("splice", "copy")
                 for streams in (1, 2, 8)]  # fmt: skip
    (drawing,) = drawings(report.page(summaries, [], FACTS, RATE))
    assert {"streams", "8", "IMAGE_GET splice", "IMAGE_GET copy"} <= words(drawing)


def test_what_is_not_known_is_not_drawn() -> None:
    text = report.page([of(PUT)], [], FACTS, RATE)
    (drawing,) = drawings(text)
    assert "Service demand, near end" in words(drawing)
    assert "Service demand, far end" not in words(drawing)
    assert "REMOTE_SD" not in Page(text).tables[0][0]


def test_transactions() -> None:
    text = report.page([of(RR), of(STREAM)], [], FACTS, RATE)
    assert "THROUGHPUT, per second" in Page(text).tables[0][0]
    transactions, bytes_ = map(words, drawings(text))
    assert {"per second", "µs/transaction", "TCP_RR"} <= transactions
    assert "MBytes/s" not in transactions
    assert {"MBytes/s", "µs/KB"} <= bytes_


def test_figures_are_those_measured() -> None:
    summary = of(STREAM)
    head, row = Page(report.page([summary], [], FACTS, RATE)).tables[0]
    mean = sum(1_000_000 / 1024 / seconds for seconds in (2.0, 2.1, 2.2)) / 3
    assert float(row[head.index("THROUGHPUT, MBytes/s")]) == pytest.approx(mean, abs=0.001)
    assert float(row[head.index("LOCAL_SD")]) == 4.0


def test_a_comparison_has_its_ratios() -> None:
    slow = replace(STREAM, seconds=4.0, local=used(busy=8.0))
    both = [Summary([STREAM] * 3), Summary([slow] * 3)]
    found = ratios(both[0].outcomes, both[1].outcomes, 0.99)
    table = Page(report.page(both, found, FACTS, RATE)).tables[1]
    assert table[1] == ["throughput", "2.000 ± 0.000", "2.000 2.000 2.000"]
    assert table[2][1] == "0.500 ± 0.000"


def test_the_same_results_make_the_same_drawing() -> None:
    first, second = (drawings(report.page([of(STREAM)], [], FACTS, RATE)) for _ in range(2))
    assert first == second


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="No such file"):
        report.write(str(tmp_path / "none" / "out.html"), [of(STREAM)], [], FACTS, RATE)
