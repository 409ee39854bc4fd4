"""How workflows are sent: in chunks, in bulk, with signals, from tasks, and as others find them."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from tests.app.canvas.canvas_kit import Kit
from umbel import chain, chord, group
from umbel.app.canvas.publishing import load, messages
from umbel.app.result import result_from_tuple
from umbel.app.signals import after_task_publish, before_task_publish
from umbel.core.errors import EncodeError, NotSupportedError
from umbel.core.flow.stubs import is_stub


def _headers(message: Any) -> dict[str, Any]:
    headers: dict[str, Any] = json.loads(message.head)["headers"]
    return headers


def _same(first: Any, second: Any) -> None:
    """Compare two messages but for their ids."""
    assert (first.task, first.queue, first.exchange, first.priority) == (
        second.task, second.queue, second.exchange, second.priority,
    )  # fmt: skip
    assert json.loads(first.body) == json.loads(second.body)
    ids = ("id", "root_id", "group")
    heads = [{**_headers(one), **dict.fromkeys(ids)} for one in (first, second)]
    assert heads[0] == heads[1]
    assert list(heads[0]) == list(heads[1])


@pytest.mark.parametrize("chorded", [False, True])
def test_messages_made_in_bulk_are_those_made_one_by_one(kit: Kit, chorded: bool) -> None:
    def send(sigs: Any) -> list[Any]:
        (chord(sigs, kit.total.s().set(task_id="body")) if chorded else group(sigs)).apply_async(queue="celery")
        return kit.waiting()

    kit.add.apply_async((1, 1), queue="celery")
    kit.waiting()
    calls: list[Any] = [((1, 2), {}), (("ü", "x"), {}), ((1,), {"y": 2}), (([1, {"a": None}], [2]), {})]
    bulk = send([kit.add.s(*args, **kwargs) for args, kwargs in calls])
    single = send([kit.add.s(*args, **kwargs).set(retry=True) for args, kwargs in calls])
    assert len(bulk) == len(single) == len(calls)
    for one, other in zip(bulk, single, strict=True):
        _same(_bare(one), _bare(other))
    assert [_headers(one)["group_index"] for one in bulk] == [0, 1, 2, 3]
    assert len({_headers(one)["id"] for one in bulk}) == 4


def _bare(message: Any) -> Any:
    """A message whose chord does not say which header it follows."""
    body = json.loads(message.body)
    if body[2]["chord"]:
        del body[2]["chord"]["options"]["group_id"]
    message.body = json.dumps(body).encode()
    return message


def test_a_group_of_many_is_sent_while_it_is_made_and_needs_little_memory(kit: Kit) -> None:
    made = 0
    most = 0

    def sigs() -> Any:
        nonlocal made, most
        for number in range(8000):
            made += 1
            if number % 2000 == 1999:
                waiting = kit.app.broker.depth(["celery"], 0.0)["celery"].ready
                most = max(most, made - waiting)
            yield kit.add.s(number, 1)

    kit.add.delay(1, 1)
    tracemalloc.start()
    result = group(sigs()).apply_async()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result) == 8000
    assert most <= 1001
    # 8,000 ids are 0.8 MB of it.
    assert peak < 6_000_000


def test_progress_is_shown_where_it_is_asked_for(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    group([kit.add.s(n, n) for n in range(1500)]).apply_async(progress=True)
    assert "1,500 of 1,500 sent" in capsys.readouterr().err
    group(kit.add.s(n, n) for n in range(1500)).apply_async(progress=True)
    assert "1,500 sent" in capsys.readouterr().err
    group(kit.add.s(n, n) for n in range(1500)).apply_async()
    assert capsys.readouterr().err == ""


def test_coroutines_send_workflows_too(kit: Kit) -> None:
    async def send() -> list[Any]:
        grouped = await group(kit.add.s(1, 1), kit.add.s(2, 2)).aapply_async()
        single = await kit.add.s(1, 1).adelay()
        return [grouped, single]

    grouped, single = asyncio.run(send())
    kit.worker.drain()
    assert grouped.get(timeout=5) == [2, 4]
    assert single.get(timeout=5) == 2


def test_a_chord_whose_members_are_known_is_stored_in_one_transaction_or_not_at_all(kit: Kit) -> None:
    for bad in (kit.add.s(1, object()), kit.add.s(1, object()).set(retry=True)):
        with pytest.raises(EncodeError):
            chord([*(kit.add.s(n, n) for n in range(2500)), bad], kit.total.s()).apply_async()
        assert kit.waiting() == []
    chord([kit.add.s(n, n) for n in range(2500)], kit.total.s()).apply_async()
    assert kit.app.broker.depth(["celery"], 0.0)["celery"].ready == 2500


def test_signals_hear_of_every_message(kit: Kit) -> None:
    before, after = [], []

    def hear_before(sender: Any, headers: Any, **_: Any) -> None:
        headers["heard"] = True
        before.append(headers["id"])

    def hear_after(sender: Any, headers: Any, **_: Any) -> None:
        after.append(headers["id"])

    before_task_publish.connect(hear_before)
    after_task_publish.connect(hear_after)
    try:
        chord([kit.add.s(1, 1), kit.add.s(2, 2)], kit.total.s()).apply_async()
        group(kit.add.s(1, 1)).apply_async()
    finally:
        before_task_publish.disconnect(hear_before)
        after_task_publish.disconnect(hear_after)
    sent = kit.waiting()
    assert len(sent) == 3
    assert before == after == [one.id for one in sent]
    assert all(_headers(one)["heard"] for one in sent)


def test_what_a_task_sends_has_its_root_and_is_its_child(kit: Kit) -> None:
    @kit.app.task(name="kit.outer")
    def outer() -> None:
        kit.add.delay(0, 0)
        group(kit.add.s(n, n) for n in range(3)).apply_async()
        chain(kit.add.s(1, 1), kit.add.s(1)).apply_async()

    result = outer.delay()
    kit.worker.step()
    sent = kit.waiting()
    assert [_headers(one)["parent_id"] for one in sent] == [result.id] * 5
    assert [_headers(one)["root_id"] for one in sent] == [result.id] * 5
    _, grouped, chained = result.children
    assert [one.id for one in grouped.results] == [one.id for one in sent[1:4]]
    assert chained.parent is not None


@pytest.mark.parametrize("count", [60, 2000])
def test_a_task_may_send_and_link_long_chains(kit: Kit, count: int) -> None:
    @kit.app.task(name="kit.outer")
    def outer() -> str:
        sent = chain(kit.add.s(1) for _ in range(count)).apply_async((0,))
        return str(sent.id)

    result = outer.apply_async(link=[chain(kit.add.si(1, 1) for _ in range(count))])
    kit.worker.step()
    sent = result.get(timeout=5)
    assert sent in {child.id for child in result.children}
    assert len(result.children) == 2
    assert len(result.children[0].as_list()) == 16


def test_a_result_of_a_long_chain_is_a_tuple_with_all_before_it(kit: Kit) -> None:
    result = chain(kit.add.s(1) for _ in range(3000)).apply_async((0,))
    assert len(result.as_list()) == 3000
    again = result_from_tuple(result.as_tuple(), kit.app)
    assert again.as_list() == result.as_list()


def test_a_long_chain_travels_with_a_stub_that_the_store_knows(kit: Kit) -> None:
    chain(kit.add.s(n) for n in range(100)).apply_async((0,))
    (first,) = kit.waiting()
    rest = json.loads(first.body)[2]["chain"]
    assert is_stub(rest[0])
    assert rest[0]["options"]["queue"] == "celery.umbel"
    piece, following = load(kit.app, rest[0])
    assert piece["task"] in ("kit.add", "celery.chain")
    assert following is not None
    assert is_stub(following)
    with pytest.raises(NotSupportedError, match="result_backend"):
        load(kit.app, {**rest[0], "args": ["unknown:1"]})


def test_a_workflow_that_is_nested_without_end_is_refused(kit: Kit) -> None:
    nested: Any = kit.add.s(1, 1)
    for _ in range(2000):
        nested = chord([nested, kit.add.s(1, 1)], kit.total.s())
    with pytest.raises(EncodeError, match="nested"):
        nested.apply_async()
    assert kit.waiting() == []


def test_nothing_is_stored_where_celery_workers_are_alone(kit: Kit) -> None:
    kit.app.conf.workflow_inline_limit = None
    chain(kit.add.s(n) for n in range(100)).apply_async((0,))
    (first,) = kit.waiting()
    assert [step["task"] for step in json.loads(first.body)[2]["chain"]] == ["kit.add"] * 99


def test_messages_are_the_same_when_they_are_made_again(kit: Kit) -> None:
    def ids() -> Any:
        count = 0

        def give() -> str:
            nonlocal count
            count += 1
            return f"id-{count}"

        return give

    sig = dict(chord([kit.add.s(1, 1) | kit.add.s(2), kit.add.s(2, 2)], kit.total.s()))
    first, sizes = messages(kit.app, sig, (), {}, {"root_id": "root", "parent_id": "parent"}, ids=ids())
    again, again_sizes = messages(kit.app, sig, (), {}, {"root_id": "root", "parent_id": "parent"}, ids=ids())
    assert [(one.id, one.body) for one in first] == [(one.id, one.body) for one in again]
    assert sizes == again_sizes
    assert list(sizes.values()) == [2]
    assert {_headers(one)["root_id"] for one in first} == {"root"}
