"""Figures from measurements made up by hand: means, names, columns, warnings."""

from dataclasses import replace

import pytest

from headrace.bench import omni, table
from headrace.bench.cpu import Usage
from headrace.bench.outcome import Buffers, End, Outcome, Storm
from headrace.bench.spec import Spec
from headrace.bench.stats import Goal
from headrace.bench.summary import Summary, ratios
from headrace.bench.units import Rate
from headrace.errors import UsageError

KB, MIB = 1024, 1 << 20
# 2 of 4 cores busy for 2 s, half a second of it in soft interrupts, 3 s by the process.
NEAR = Usage(seconds=2.0, cores=4, busy=4.0, softirq=0.5, steal=0.0, processes=3.0)
FAR = Usage(seconds=2.0, cores=2, busy=1.0, softirq=0.0, steal=0.0, processes=1.0)
STREAM = Outcome(
    spec=Spec(test="TCP_STREAM", seconds=2.0, send_size=65536, local_buffer=100_000),
    bytes=1_000_000 * KB,
    transactions=0,
    seconds=2.0,
    mss=1448,
    local=End(
        usage=NEAR,
        buffers=Buffers(100_000, (200_000, 210_000), (131_072, 131_073)),
        send_size=65536,
        send_calls=15625,
    ),
    remote=End(
        usage=FAR,
        buffers=Buffers(None, (16_384, 16_385), (87_380, 90_000)),
        receive_size=131072,
        receive_calls=20000,
    ),
)
RR = replace(
    STREAM,
    spec=Spec(test="TCP_RR", request=100, response=200),
    bytes=300_000,
    transactions=1000,
    local=replace(STREAM.local, receive_size=131072, receive_calls=1000),
)
MAERTS = replace(
    STREAM,
    spec=Spec(test="TCP_MAERTS"),
    local=replace(STREAM.remote, usage=NEAR),
    remote=replace(STREAM.local, usage=FAR),
)
PUT = replace(
    STREAM,
    spec=Spec(test="IMAGE_PUT", via="sendfile", streams=4),
    transactions=8,
    image_size=128_000_000,
    remote=End(),
)
GET = replace(
    STREAM,
    spec=Spec(test="IMAGE_GET", via="splice"),
    transactions=8,
    image_size=128_000_000,
    local=replace(STREAM.remote, usage=NEAR),
    remote=End(usage=replace(FAR, processes=None)),
)
RANGE = replace(GET, spec=Spec(test="IMAGE_RANGE", via="copy", request=MIB, cold=True))
STORM = replace(
    GET,
    spec=Spec(test="BOOT_STORM", via="drop", streams=8),
    storm=Storm(
        firsts=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        lasts=[1.0, 1.5, 2.0],
        failure="the answer is HTTP/1.1 503 Service Unavailable",
        warm=None,
        reads=1,
        read_bytes=128_000_000,
        rate=1_024_000_000.0,
        store=replace(FAR, processes=0.5),
    ),
)
ALL = (STREAM, RR, MAERTS, PUT, GET, RANGE, STORM)


def used(**other: float | None) -> End:
    return End(usage=replace(NEAR, **other))


def figure(name: str, *outcomes: Outcome, rate: str = "m") -> omni.Value:
    return omni.values(Summary(outcomes or (STREAM,)), [name], Rate(rate))[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THROUGHPUT", 4096.0),  # 1,024,000,000 bytes in 2 s are 4096 times 10^6 bits a second
        ("THROUGHPUT_UNITS", "10^6bits/s"),
        ("ELAPSED_TIME", 2.0),
        ("LOCAL_CPU_UTIL", 50.0),
        ("LOCAL_SD", 4.0),  # 4 s of CPU for a million KB
        ("LOCAL_PROC_SD", 3.0),
        ("LOCAL_PROC_UTIL", 37.5),
        ("LOCAL_SOFTIRQ_UTIL", 6.25),
        ("REMOTE_CPU_UTIL", 25.0),
        ("REMOTE_SD", 1.0),
        ("REMOTE_CPU_COUNT", 2),
        ("SD_UNITS", "usec/KB"),
        ("LOCAL_SEND_SIZE", 65536),
        ("LOCAL_RECV_SIZE", None),
        ("REMOTE_RECV_SIZE", 131072),
        ("LOCAL_SEND_CALLS", 15625),
        ("REMOTE_RECV_CALLS", 20000),
        ("LSS_SIZE_REQ", 100_000),
        ("LSS_SIZE", 200_000),
        ("LSS_SIZE_END", 210_000),
        ("LSR_SIZE_END", 131_073),
        ("RSR_SIZE_REQ", None),
        ("RSR_SIZE", 87_380),
        ("RSR_SIZE_END", 90_000),
        ("RSS_SIZE_END", 16_385),
        ("TRANSPORT_MSS", 1448),
        ("DIRECTION", "Send"),
        ("TRANSACTION_RATE", None),
        ("RT_LATENCY", None),
        ("CONFIDENCE_ITERATION", 1),
        ("CONFIDENCE_LEVEL", 99),
    ],
)
def test_the_figures_of_a_stream(name: str, value: omni.Value) -> None:
    assert figure(name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THROUGHPUT", 500.0),
        ("THROUGHPUT_UNITS", "Trans/s"),
        ("RT_LATENCY", 2000.0),
        ("LOCAL_SD", 4000.0),  # µs a transaction
        ("SD_UNITS", "usec/Tran"),
        ("REQUEST_SIZE", 100),
        ("RESPONSE_SIZE", 200),
    ],
)
def test_the_figures_of_requests(name: str, value: omni.Value) -> None:
    assert figure(name, RR) == value


@pytest.mark.parametrize(
    ("nbytes", "used", "demand"),
    [
        (1024, 2.0, 2_000_000),
        (1 << 20, 2.0, 1953.125),
        (512, 2.0, 4_000_000),
        (1 << 30, 0.5, 0.476837158203125),
        (0, 2.0, 0.0),
        (1024, None, None),
    ],
)
def test_service_demand_is_computed_as_netperf_does(
    nbytes: int, used: float | None, demand: float | None
) -> None:
    outcome = replace(STREAM, bytes=nbytes)
    assert outcome.demand(used) == demand
    if used and nbytes:
        # The same from what a table shows: utilisation of all cores, and throughput.
        usage = replace(NEAR, busy=used)
        share, kib_a_second = usage.utilisation / 100, nbytes / 1024 / usage.seconds
        assert outcome.demand(usage.busy) == pytest.approx(share * 4 / kib_a_second * 1e6)


def test_figures_are_means() -> None:
    twice = replace(STREAM, seconds=4.0, local=used(busy=8.0))
    assert figure("ELAPSED_TIME", STREAM, twice) == 3.0
    assert figure("LOCAL_SD", STREAM, twice) == 6.0
    assert figure("CONFIDENCE_ITERATION", STREAM, twice) == 2


def test_the_direction() -> None:
    found = [figure("DIRECTION", outcome) for outcome in ALL]
    assert found == ["Send", "Send|Recv", "Receive", "Send", *["Receive"] * 3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THROUGHPUT", 4096.0),
        ("LOCAL_SD", 4.0),
        ("REMOTE_SD", None),
        ("REMOTE_CPU_CONFID", None),
        ("LOCAL_SEND_SIZE", 65536),
        ("REMOTE_RECV_SIZE", None),
        ("VIA", "sendfile"),
        ("STREAMS", 4),
        ("IMAGE_SIZE", 128_000_000),
        ("PAGE_CACHE", "hot"),
        ("TRANSACTION_RATE", 4.0),
        ("RT_LATENCY", 1_000_000.0),  # 8 in 2 s by 4 streams: each took a second
        ("RANGE_SIZE", None),
    ],
)
def test_the_figures_of_an_image_test(name: str, value: omni.Value) -> None:
    assert figure(name, PUT) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND_READS", 1),
        ("BACKEND_BYTES", 128_000_000),
        ("FIRST_BYTE_P50", 0.4),
        ("FIRST_BYTE_P99", 0.8),
        ("FETCH_P50", 1.5),
        ("FETCH_P99", 2.0),
        ("CLIENTS_SERVED", 3),
        ("WARM_THROUGHPUT", 8192.0),
        ("OVER_WARM", 2.0),  # what took 2 s takes one
        ("STORE_PROC_UTIL", 12.5),
        ("STORE_PROC_SD", 0.5),
        ("CACHE", "cold"),
        ("STREAMS", 8),
    ],
)
def test_the_figures_of_a_storm(name: str, value: omni.Value) -> None:
    assert figure(name, STORM) == value
    assert figure(name, GET) is None or name == "STREAMS"


def test_the_figures_of_ranges() -> None:
    assert figure("RANGE_SIZE", RANGE) == MIB
    assert figure("PAGE_CACHE", RANGE) == "cold"
    assert figure("REMOTE_SD", RANGE) == 1.0
    assert figure("REMOTE_PROC_SD", RANGE) is None
    assert (
        figure("VIA", STREAM) is figure("STREAMS", STREAM) is figure("PAGE_CACHE", STREAM) is None
    )


def test_what_a_far_end_without_figures_does_to_a_summary() -> None:
    goal = Goal(0.99, 5.0, 3, 10)
    assert Summary([PUT] * 3).meets(goal, local_cpu=True, remote_cpu=False)
    assert not Summary([PUT] * 3).meets(goal, local_cpu=True, remote_cpu=True)
    assert Summary([PUT]).disturbance(same_machine=False) == {"local": pytest.approx(0.125)}
    assert Summary([GET]).disturbance(same_machine=True) == {}
    assert [ratio.name for ratio in ratios([PUT], [PUT], 0.99)] == ["throughput", "local demand"]


def test_every_figure_can_be_computed_of_every_test() -> None:
    for outcome in ALL:
        found = omni.values(Summary([outcome] * 3), list(omni.FIGURES), Rate("M"))
        assert list(found) == list(omni.FIGURES)
        assert all(isinstance(omni.shown(value), str) for value in found.values())


def test_selectors() -> None:
    assert omni.chosen("throughput, Local_sd") == ["THROUGHPUT", "LOCAL_SD"]
    assert omni.chosen("all") == list(omni.FIGURES)
    assert omni.chosen("") == list(omni.USUAL)
    with pytest.raises(UsageError, match="NONSENSE"):
        omni.chosen("THROUGHPUT,NONSENSE")


@pytest.mark.parametrize("outcome", ALL)
@pytest.mark.parametrize(("local", "remote"), [(False, False), (True, False), (True, True)])
def test_figures_stand_below_their_heads(outcome: Outcome, local: bool, remote: bool) -> None:
    which = {"local_cpu": local, "remote_cpu": remote}
    rate = Rate("m")
    head = table.header(outcome.spec.test, rate, **which).splitlines()
    assert len(head) == 4
    line = table.figures(Summary([outcome]), rate, **which)
    cells = line.split()
    assert len(cells) == len(head[3].replace("% ", "%").replace("per sec", "per_sec").split())
    for start in (head[3].index(unit) for unit in ("secs.", *(["us/"] if local else []))):
        assert line[start - 1] == " "
        assert line[start] != " "


def test_the_columns_of_the_thread() -> None:
    found = table.figures(Summary([STREAM]), Rate("m"), local_cpu=True, remote_cpu=True)
    assert found.split() == [
        "87380", "200000", "65536", "2.00", "4096.00", "50.00", "25.00", "4.000", "1.000",
    ]  # fmt: skip


def test_what_is_not_measured_is_minus_one() -> None:
    found = table.figures(Summary([STREAM]), Rate("m"), local_cpu=True, remote_cpu=False)
    assert found.split()[-4:] == ["50.00", "-1.00", "4.000", "-1.000"]


def test_somebody_else_on_the_machine_is_noticed() -> None:
    # 4 s busy: 3 s the process, 0.5 s soft interrupts; half a second is nobody's.
    assert Summary([STREAM]).disturbance(False) == {"local": pytest.approx(0.125)}
    quiet = replace(STREAM, local=used(busy=3.6))
    assert Summary([quiet]).disturbance(False) == {}
    # On one machine the other end is no stranger.
    both = replace(STREAM, remote=used(processes=0.5))
    assert Summary([both]).disturbance(True) == {}


def test_ratios_are_taken_pair_by_pair() -> None:
    slow = replace(STREAM, seconds=4.0, local=used(busy=8.0))
    found = ratios([STREAM, slow], [slow, slow], 0.95)
    assert [ratio.name for ratio in found] == ["throughput", "local demand", "remote demand"]
    assert [list(ratio.pairs) for ratio in found] == [[2.0, 1.0], [0.5, 1.0], [1.0, 1.0]]
    assert found[0].interval.mean == 1.5
    # Two values: half the difference times t(0.95, 1) = 12.706, over the root of 2 twice.
    assert found[0].interval.half_width == pytest.approx(0.5 * 12.706, rel=1e-3)


def test_how_sure() -> None:
    goal = Goal(0.99, 5.0, 3, 10)
    same = [STREAM] * 3
    assert Summary(same).meets(goal, local_cpu=True, remote_cpu=True)
    assert not Summary(same[:2]).meets(goal, local_cpu=True, remote_cpu=True)
    other = [*same, replace(STREAM, local=used(busy=2.0))]
    assert not Summary(other).meets(goal, local_cpu=True, remote_cpu=False)
    assert Summary(other).meets(goal, local_cpu=False, remote_cpu=True)
    assert Summary(other).confidence.throughput == 0.0
    assert Summary(other).confidence.local_cpu > 5.0
