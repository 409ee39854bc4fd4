from __future__ import annotations

from dataclasses import replace

import pytest

from umbel.core.errors import ImproperlyConfigured, NotSupportedError, OperationalError
from umbel.core.message import Message, Part, Record, Settlement
from umbel.engine import registry, settle
from umbel.engine.registry import open_engine
from umbel.engine.seam import Lease

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("postgresql://u:secret@host/x", NotSupportedError, "PostgreSQL yet.*amqp://.*redis://.*sqlite://"),
        ("db+mysql://u:secret@host/x", NotSupportedError, "the engines that exist are"),
        ("sqllite:///x.db", ImproperlyConfigured, "did you mean sqlite://"),
        ("django-db", NotSupportedError, "leave result_backend out"),
        ("rpc", ImproperlyConfigured, "write <scheme>://"),
        ("tasks.db", ImproperlyConfigured, "for example sqlite:///tasks.db"),
    ],
)
def test_a_url_without_an_engine_says_which_there_are(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENGINES", dict(registry._ENGINES))
    registry.register("exotic", "a_driver_nobody_has", extra="exotic")
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'umbel\[exotic\]'"):
        open_engine("exotic://host")


def test_memory_engines_meet_by_name_only() -> None:
    one, two, other = open_engine("memory://meet"), open_engine("memory://meet"), open_engine("memory://")
    assert one.broker and two.broker and other.broker
    one.broker.publish([Message("a", "t", "q", b"", b"")], NOW)
    assert other.broker.depth(["q"], NOW)["q"].ready == 0
    assert two.broker.depth(["q"], NOW)["q"].ready == 1


@pytest.mark.parametrize("together", [True, False])
def test_an_outcome_is_applied_with_one_engine_or_with_two(together: bool) -> None:
    engine = open_engine("memory://")
    results = engine if together else open_engine("memory://")
    if not together:
        engine = replace(engine, atomic=None)
    assert engine.broker and results.store and engine.dead
    engine.broker.publish([Message("a", "t", "q", b"", b"")], NOW)
    (got,) = engine.broker.lease(Lease(("q",), "me", 1, 30.0), NOW)
    follow_ups = (Message("b", "t", "q", b"", b""), Message("c", "t", "q", b"", b"", exchange="nowhere"))
    outcome = Settlement(got.tag, got.token, record=Record("a", "SUCCESS", b""), publish=follow_ups)
    assert settle.commit(engine, results, "me", [outcome], NOW) == []
    assert results.store.get(["a"], NOW)["a"].state == "SUCCESS"
    assert [item.id for item in engine.broker.lease(Lease(("q",), "me", 9, 30.0), NOW)] == ["b"]
    assert [letter.message.id for letter in engine.dead.browse()] == ["c"]
    assert settle.commit(engine, results, "me", [outcome], NOW) == [got.tag]


def test_with_two_engines_a_crash_after_the_join_repeats_the_body_and_a_second_run_does_not() -> None:
    engine, results = replace(open_engine("memory://"), atomic=None), open_engine("memory://")
    assert engine.broker and results.store
    body = Message("body", "t", "q", b"", b"")
    parts = [Part("g", index, b"%d" % index, 2, body) for index in range(2)]
    engine.broker.publish([Message("a", "t", "q", b"", b""), Message("b", "t", "q", b"", b"")], NOW)
    first, second = engine.broker.lease(Lease(("q",), "me", 2, 30.0), NOW)
    assert settle.commit(engine, results, "me", [Settlement(first.tag, first.token, parts=(parts[0],))], NOW) == []
    # What a process did that died between joining and publishing.
    assert len(results.store.join([parts[1]], NOW)) == 1
    outcome = Settlement(second.tag, second.token, parts=(parts[1],))
    assert settle.commit(engine, results, "me", [outcome], NOW) == []
    assert [item.id for item in engine.broker.lease(Lease(("q",), "me", 9, 30.0), NOW)] == ["body"]
    assert results.store.joined(["g"]) == {"g": (b"0", b"1")}
    assert settle.commit(engine, results, "me", [outcome], NOW) == [second.tag]
    assert engine.broker.lease(Lease(("q",), "me", 9, 30.0), NOW) == []


def test_a_part_without_a_place_for_results_is_an_error_that_says_what_to_set() -> None:
    engine = replace(open_engine("memory://"), atomic=None)
    outcome = Settlement(1, 1, parts=(Part("g", 0, b""),))
    with pytest.raises(OperationalError, match="set result_backend"):
        settle.commit(engine, None, "me", [outcome], NOW)
