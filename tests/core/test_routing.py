from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.annotations import Annotations
from umbel.core.errors import ImproperlyConfigured
from umbel.core.queues import Exchange, Queue, Queues
from umbel.core.routing import Router, bound_queues, matches


def by_path(path: str) -> Any:
    return {"proj.router": lambda name, args, kwargs, options, task=None: {"queue": "path"}, "proj.Old": Old}[path]


class Old:
    def route_for_task(self, task: str, args: Any, kwargs: Any) -> str | None:
        return "old" if task == "old" else None


def router(routes: Any, queues: Queues | None = None) -> Router:
    return Router(routes, queues if queues is not None else Queues(), "celery", by_path)


@pytest.mark.parametrize(
    ("routes", "queue"),
    [
        (None, "celery"),
        ({"feed.*": "glob", "feed.a": "exact"}, "exact"),
        ({"feed.*": "glob"}, "glob"),
        ({"other": "x"}, "celery"),
        ([(re.compile(r"feed\.\w"), {"queue": "regex"})], "regex"),
        (([("feed.*", {"queue": "pairs"})],), "pairs"),
        ("proj.router", "path"),
        (lambda name, args, kwargs, options, task=None, **kw: "call", "call"),
        ([lambda *a, **k: None, {"feed.a": "second"}], "second"),
        (["proj.Old", {"*": "after"}], "after"),
    ],
)
def test_the_first_router_that_knows_a_task_wins(routes: Any, queue: str) -> None:
    assert router(routes).resolve("feed.a").queues == (queue,)


def test_the_call_wins_over_the_router_and_the_router_fills_the_rest() -> None:
    found = router({"a": {"queue": "r", "priority": 3}}).resolve("a", {"queue": "mine", "priority": None})
    assert found.queues == ("mine",) and found.fills == {"priority": 3}
    merged = router({"a": {"queue": "r", "priority": 3}}).route({"priority": 9}, "a")
    assert merged["priority"] == 9 and merged["queue"].name == "r"


def test_static_routes_are_looked_up_once() -> None:
    routes = router({"a*": "r"})
    assert routes.resolve("abc") is routes.resolve("abc", {"queue": None, "priority": 1})


def test_a_mistaken_option_of_a_route_is_told() -> None:
    with pytest.raises(ImproperlyConfigured, match="did you mean 'queue'"):
        router({"a": {"queu": "x"}})


def test_a_direct_queue_is_named_to_the_broker_through_the_default_exchange() -> None:
    found = router(None).resolve("a")
    assert (found.exchange, found.routing_key) == ("", "celery")


def test_topic_and_fanout_exchanges_reach_every_bound_queue() -> None:
    feed, all_ = Exchange("feed", "topic"), Exchange("all", "fanout")
    queues = Queues([Queue("a", feed, "feed.#"), Queue("b", feed, "feed.*.new"), Queue("c", all_), Queue("d", all_)])
    routes = router({"t": {"exchange": "feed", "routing_key": "feed.x.new", "queue": "a"}, "f": "c"}, queues)
    assert routes.resolve("t").queues == ("a", "b")
    assert routes.resolve("f").queues == ("c", "d")
    assert bound_queues(queues.values(), "", "direct") == ("direct",)


def test_an_exchange_that_only_others_know_is_left_to_the_broker() -> None:
    route = router(None).resolve("a", {"exchange": "x", "routing_key": "k"})
    assert (route.queues, route.exchange, route.routing_key) == ((), "x", "k")


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("a.*", "a.b", True), ("a.*", "a", False), ("a.*", "a.b.c", False), ("a.#", "a", True), ("#", "", True),
        ("#.c", "a.b.c", True), ("a.#.c", "a.c", True), ("a.#.c", "a.b", False), ("*", "", False),
    ],
)  # fmt: skip
def test_topics_match_as_amqp_says(pattern: str, key: str, fits: bool) -> None:
    assert matches(pattern, key) is fits


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5)


@given(st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=5), WORDS)
def test_topics_match_as_the_same_pattern_written_as_an_expression(pattern: list[str], key: list[str]) -> None:
    expression = "".join({"*": r"\w+\.", "#": r"(\w+\.)*"}.get(word, rf"{word}\.") for word in pattern)
    text = "".join(f"{word}." for word in key)
    assert matches(".".join(pattern), ".".join(key)) is bool(re.fullmatch(expression, text))


def test_annotations_of_the_task_go_before_those_of_all() -> None:
    task = type("Task", (), {"name": "a"})()
    found = Annotations([{"*": {"rate_limit": 1, "x": 1}}, {"a": {"rate_limit": 2}}], by_path)
    assert found.changes(task) == {"rate_limit": 2, "x": 1}
    assert not Annotations(None, by_path)
    with pytest.raises(ImproperlyConfigured, match="dict of attributes"):
        Annotations({"a": 3}, by_path)
