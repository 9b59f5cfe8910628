"""JSON patches in both drafts."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import errors
from headrace.api.patches import V20, V21, changes
from headrace.service.images import Change, ChangeOp


def test_v21() -> None:
    document = [
        {"op": "add", "path": "/a~1b~0", "value": "x"},
        {"op": "replace", "path": "/name", "value": None},
        {"op": "remove", "path": "/c"},
    ]
    assert changes(V21, document) == [
        Change(ChangeOp.ADD, "a/b~", "x"),
        Change(ChangeOp.REPLACE, "name", None),
        Change(ChangeOp.REMOVE, "c"),
    ]


def test_v20_add_may_not_replace() -> None:
    document = [{"add": "/a", "value": "x"}, {"replace": "/name", "value": "y"}, {"remove": "/c"}]
    assert changes(V20, document) == [
        Change(ChangeOp.CREATE, "a", "x"),
        Change(ChangeOp.REPLACE, "name", "y"),
        Change(ChangeOp.REMOVE, "c"),
    ]


@pytest.mark.parametrize(
    "step",
    [
        {},
        5,
        {"op": "test", "path": "/a", "value": 1},
        {"op": "move", "path": "/a", "from": "/b"},
        {"op": "add", "path": "/a"},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": "/", "value": 1},
        {"op": "add", "path": "/a/", "value": 1},
        {"op": "add", "path": "//a", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/a~2", "value": 1},
        {"op": "add", "path": "/a~", "value": 1},
        {"op": ["add"], "path": "/a", "value": 1},
        {"op": "add", "path": 3, "value": 1},
    ],
)
def test_v21_refused(step: object) -> None:
    with pytest.raises(errors.InvalidPatch):
        changes(V21, [step])


@pytest.mark.parametrize("step", [{}, 5, {"add": "/a"}, {"add": "/a", "remove": "/a", "value": 1}])
def test_v20_refused(step: object) -> None:
    with pytest.raises(errors.InvalidPatch):
        changes(V20, [step])


def test_the_document_is_an_array() -> None:
    with pytest.raises(errors.InvalidPatch):
        changes(V21, {"op": "add"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@given(json_values)
def test_only_our_errors_are_raised(document: object) -> None:
    for media_type in (V20, V21):
        with contextlib.suppress(errors.InvalidPatch, errors.PropertyReserved):
            changes(media_type, document)
