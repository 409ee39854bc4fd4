"""Signatures: partial arguments, options, links, and their form on the wire."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from umbel import Signature, Umbel, maybe_signature, signature


@pytest.fixture
def add(app: Umbel) -> Any:
    @app.task(name="proj.add")
    def add(x: int, y: int = 0, z: int = 0) -> int:
        return x + y + z

    return add


def test_partial_arguments_go_in_front_and_keywords_win(add: Any) -> None:
    assert repr(add.s(1).clone((9,), {"y": 2})) == "proj.add(9, 1, y=2)"
    assert add.si(1).clone((9,)).args == (1,)
    assert add.s(1)(2) == 3


def test_options_merge_and_none_takes_nothing_away(add: Any) -> None:
    sig = add.s(1).set(queue="slow", group_id="g")
    merged = sig.clone(queue="fast", group_id="other", priority=None).options
    assert merged == {"queue": "fast", "group_id": "g"}
    assert sig.options["queue"] == "slow"


def test_it_travels_as_json_and_comes_back(add: Any) -> None:
    sig = add.s(1, y=2).set(countdown=3)
    wire = json.loads(json.dumps(sig))
    assert wire == {
        "task": "proj.add",
        "args": [1],
        "kwargs": {"y": 2},
        "options": {"countdown": 3},
        "subtask_type": None,
        "immutable": False,
    }
    assert repr(Signature.from_dict(wire)) == repr(sig)
    assert pickle.loads(pickle.dumps(sig)) == sig
    assert copy.deepcopy(sig) == sig


def test_linking_the_same_callback_twice_counts_once(add: Any) -> None:
    sig = add.s(1)
    assert sig.link(add.s(2)) == sig.link(add.s(2))
    assert len(sig.options["link"]) == 1
    assert sig.on_error(add.si(3)) is sig
    assert len(sig.flatten_links()) == 2


def test_a_frozen_signature_knows_its_id(add: Any) -> None:
    sig = add.s(1)
    result = sig.freeze()
    assert sig.id == result.id
    assert sig.freeze().id == result.id
    assert sig.delay().id == result.id


def test_it_is_sent_by_name_where_the_task_is_not_known(app: Umbel) -> None:
    result = app.signature("other.task", (1,), {"a": 2}, queue="q").delay()
    assert result.task_name == "other.task"


def test_maybe_signature_takes_dicts_and_leaves_the_rest(add: Any) -> None:
    sig = add.s(1)
    assert maybe_signature(sig) is sig
    assert maybe_signature(sig, clone=True) is not sig
    assert isinstance(maybe_signature(dict(sig)), Signature)
    assert maybe_signature(None) is None
    assert signature(add, (1,)) == sig
