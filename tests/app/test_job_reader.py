"""Heads that are like one that was read before: the same values as reading each of them, and the same refusals."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.app.execution import Job
from umbel.app.job_reader import JobReader
from umbel.core import protocol
from umbel.core.flow.late import LateSteps
from umbel.core.head import HeadFields, HeadTemplate, Quarantined
from umbel.core.limits import DEFAULT_LIMITS

FIELDS = ("id", "root_id", "parent_id", "group", "retries", "ignore_result", "argsrepr", "kwargsrepr", "correlation_id",
          "expires", "timelimit", "origin", "stamps", "content_type")  # fmt: skip
IDS = [f"{number:08d}-1111-2222-3333-444444444444" for number in range(4)]


def job(task_id: str, body: bytes = b"[[],{},{}]", **fields: Any) -> Job:
    given = {"argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@host", **fields}
    head = HeadTemplate("some.task").write(HeadFields(task_id, **given))
    return Job(1, task_id, "some.task", "celery", "", head, body, 0, 0, 1, 0)


def reader() -> JobReader:
    return JobReader(frozenset({"json", "application/json"}), DEFAULT_LIMITS)


def same_as_read_alone(one: JobReader, item: Job) -> None:
    read = one.read(item)
    alone = protocol.read_head(item.head)
    assert not isinstance(alone, Quarantined)
    assert not isinstance(read, Quarantined)
    known, head, payload = read
    assert {name: getattr(head, name) for name in FIELDS} == {name: getattr(alone, name) for name in FIELDS}
    assert [getattr(known, name) for name in ("ignore_result", "parent_id", "group", "content_type")] == [
        getattr(alone, name) for name in ("ignore_result", "parent_id", "group", "content_type")
    ]
    assert payload == protocol.read_body(alone, item.body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"argsrepr": '("a\\"b", "origin")', "kwargsrepr": "{'\"origin\":': 1}"},
        {"ignore_result": True},
        {"parent_id": IDS[0], "root_id": IDS[0]},
        {"group": IDS[1], "group_index": 3},
        {"retries": 2, "timelimit": (5.0, 3.0)},
        {"expires": "2030-01-01T00:00:00+00:00"},
        {"origin": IDS[0]},
        {"shadow": f"of {IDS[0]}"},
        {"stamps": {"x": [IDS[0]]}, "stamped_headers": ["x"]},
    ],
    ids=lambda value: ",".join(value) or "plain",
)
def test_every_head_says_what_it_says_alone_whatever_came_before(fields: dict[str, Any]) -> None:
    one = reader()
    for item in (job(IDS[0]), job(IDS[1], **fields), job(IDS[0], **fields), job(IDS[2], **fields), job(IDS[3])):
        same_as_read_alone(one, item)
        same_as_read_alone(one, item)


@pytest.mark.parametrize("parent", [IDS[1], IDS[2], None, "x" * 1000, 'quo"ted', "\x00"])
def test_steps_of_a_chain_differ_in_their_parents(parent: str | None) -> None:
    one = reader()
    same_as_read_alone(one, job(IDS[0], parent_id=IDS[3], root_id=IDS[3]))
    item = job(IDS[2], parent_id=parent, root_id=IDS[3])
    if isinstance(protocol.read_head(item.head), Quarantined):
        assert isinstance(one.read(item), Quarantined)
    else:
        same_as_read_alone(one, item)


STEPS = b'[{"task":"b","args":[2.50]},{"task":"a","options":{"x":"\\u00e9"}}]'


def test_the_steps_of_a_chain_are_left_as_they_came() -> None:
    read = reader().read(job(IDS[0], body(STEPS)))
    assert not isinstance(read, Quarantined)
    payload = read[2]
    assert payload.chain is None
    assert b",".join(payload.steps) == STEPS[1:-1]
    assert LateSteps(payload.steps).read() == [{"task": "b", "args": [2.5]}, {"task": "a", "options": {"x": "é"}}]


@pytest.mark.parametrize("steps", [b"[1]", b'[{"args":[]}]', b'[{"task":1}]', b'"a"', b'[{"task":"a"},null]'])
def test_steps_that_are_none_are_found_before_the_task_runs(steps: bytes) -> None:
    assert isinstance(reader().read(job(IDS[0], body(steps))), Quarantined)


def body(steps: bytes) -> bytes:
    return b'[[1],{},{"callbacks":null,"errbacks":null,"chain":%b,"chord":null}]' % steps


@pytest.mark.parametrize(
    "body",
    [
        b'[[1,"a"],{"b":[2.5,null]},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]',
        b'[[1], {"b": 2}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
        b'[[],{},{"callbacks":[{"task":"t"}],"errbacks":null,"chain":null,"chord":null}]',
        b'[[{"__type__":"datetime","__value__":"2030-01-01T00:00:00"}],{},{"callbacks":null}]',
        b"[[NaN],{},null]".replace(b"NaN", b"1e400"),
    ],
)
def test_bodies_give_the_same_arguments_either_way(body: bytes) -> None:
    one = reader()
    for number in (0, 1):
        same_as_read_alone(one, job(IDS[number], body))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"argsrepr":"()"', b'"argsrepr":"()'),
        (b'"argsrepr":"()"', b'"argsrepr":7'),
        (b'"kwargsrepr":"{}"', b'"kwargsrepr":"\xff"'),
        (b'"kwargsrepr":"{}"', b'"kwargsrepr":"{}","retries":"many"'),
        (b'"lang"', b"lang"),
    ],
)
def test_a_broken_head_is_refused_after_good_ones_too(old: bytes, new: bytes) -> None:
    one = reader()
    good = job(IDS[0])
    one.read(good)
    broken = job(IDS[1])
    broken.head = broken.head.replace(old, new)
    assert isinstance(protocol.read_head(broken.head), Quarantined)
    assert isinstance(one.read(broken), Quarantined)
    same_as_read_alone(one, job(IDS[2]))


def test_an_id_that_is_not_inert_inside_json_is_read_the_thorough_way() -> None:
    one = reader()
    for name in ('a","retries":7,"x":"', "1", "é" * 12, "x" * 200, "a b"):
        one.read(job(IDS[0]))
        item = job(name)
        same_as_read_alone(one, item)
