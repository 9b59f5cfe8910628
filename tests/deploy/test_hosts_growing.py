"""Images that are still being filled, under hosts that are not ours."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.transfer.ends import meanwhile
from tests.deploy import growing_app
from tests.deploy.conftest import MIB, Deployed, path, require_host
from tests.deploy.test_hosts_zero_copy import on_file
from tests.fills import Fill
from tests.needs import require_strace
from tools import hosts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OURS = "headrace.server.wsgi:application"


def change(recipe: str) -> str:
    assert OURS in recipe
    return recipe.replace(OURS, "tests.deploy.growing_app:application")


def prepare(place: hosts.Place) -> None:
    place.packages = Path(f"{place.packages}:{ROOT}")


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uwsgi-offload"])
def traced(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    require_host(request.param)
    tracer = require_strace()
    with hosts.running(request.param, tracer=tracer, change=change, prepare=prepare) as host:
        deployed = Deployed(host)
        assert deployed.whole
        (host.image_dir / growing_app.DIRECTORY).mkdir()
        yield deployed


def fill(deployed: Deployed) -> Fill:
    """The file of the image that is to be filled anew."""
    file = deployed.host.image_dir / growing_app.DIRECTORY / deployed.whole
    file.unlink(missing_ok=True)
    return Fill(file)


def slowly(fill: Fill, data: bytes, end: Callable[[], None]) -> Callable[[], None]:
    def go_on() -> None:
        fill.land_slowly(data, 200_003, 0.02)
        time.sleep(0.1)
        end()

    return go_on


@pytest.mark.parametrize("first", [0, 1001], ids=["whole", "range"])
def test_it_is_sent_as_it_lands(traced: Deployed, first: int) -> None:
    """By sendfile where our engine has the connection, else copied; each byte is read once."""
    with fill(traced) as filling:
        program = traced.host.ours
        before = on_file(traced, program, traced.whole)
        fields = [f"Range: bytes={first}-"] if first else []
        with traced.connect() as wire:
            wire.send(wire.head("GET", path(traced.whole), *fields))
            with meanwhile(slowly(filling, traced.data, filling.verify)):
                answer = wire.answer()
        assert answer.status == (206 if first else 200)
        assert answer.body == traced.data[first:], traced.host.logs()
        used = on_file(traced, program, traced.whole) - before
        way = "sendfile" if program == "uwsgi" else "pread64"
        assert used == {way: len(answer.body)}


def test_a_bad_fill_is_never_a_whole_answer(traced: Deployed) -> None:
    with fill(traced) as filling, traced.connect() as wire:
        wire.send(wire.head("GET", path(traced.whole)))
        filling.land(traced.data[:MIB])
        wire.wait_for_head()
        with meanwhile(slowly(filling, traced.data[MIB:], filling.fail)):
            answer = wire.answer()
        assert not answer.whole
        assert traced.data.startswith(answer.body)
        assert wire.at_end()
    assert "it was given up" in traced.host.logs()


def test_what_is_whole_by_now_is_the_hosts_to_send(traced: Deployed) -> None:
    with fill(traced) as filling:
        filling.land(traced.data)
        filling.verify()
    before = on_file(traced, traced.host.ours, traced.whole)
    assert traced.ask("GET", path(traced.whole)).body == traced.data
    used = on_file(traced, traced.host.ours, traced.whole) - before
    assert used == {"sendfile": len(traced.data)}
