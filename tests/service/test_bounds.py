"""Bounds on what one request may cost."""

import sys

import pytest

from headrace import config, errors
from headrace.service.images import Change, ChangeOp
from tests.service.conftest import ADMIN, Service


def calls(act: object) -> int:
    """How many Python functions ``act()`` calls before it raises an Error."""
    count = 0

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(count_calls)
    try:
        with pytest.raises(errors.Error):
            act()  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return count


def test_too_many_properties_are_refused_before_they_are_looked_at(service: Service) -> None:
    few = {f"p{number}": "x" for number in range(1000)}
    many = {f"p{number}": "x" for number in range(20000)}
    assert calls(lambda: service.images.create(ADMIN, many)) < 2 * len(many)
    with pytest.raises(errors.QuotaExceeded):
        service.images.create(ADMIN, few)


def test_a_patch_is_of_limited_length(service: Service) -> None:
    image_id = service.record()
    changes = [Change(ChangeOp.ADD, f"p{number}", "x") for number in range(1001)]
    with pytest.raises(errors.InvalidPatch):
        service.images.update(ADMIN, image_id, changes)


def test_a_property_is_of_limited_length(service: Service) -> None:
    service.record(note="x" * 65535)
    with pytest.raises(errors.InvalidProperty):
        service.record(note="x" * 65536)
    with pytest.raises(errors.InvalidProperty):
        service.record(note="ä" * 40000)


@pytest.mark.parametrize("name", ["nonsense", "shake_128", ""])
def test_an_algorithm_without_a_digest_is_refused_at_start(name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="hashing_algorithm"):
        config.load([], {("DEFAULT", "hashing_algorithm"): name})
