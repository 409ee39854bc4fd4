"""The same expressions beside Celery and umbel give the same dicts, and each runs what the other wrote."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.environment import PYTHON
from tests.interop.expressions import ERRORS, SIGNATURES, TEXTS
from umbel import Umbel, chain, chord, group, signature
from umbel.app import current

HERE = Path(__file__).resolve().parent
#: Expressions that can run, each with all that it needs.
RUN = tuple(
    text
    for text in SIGNATURES
    if not any(
        part in text
        for part in ("queue=", "chord([add.s(1, 1)])", "chain(group())", "total.map", "countdown", "chunks")
    )
    and text not in ("group() | total.s()", "chord([], total.s())")
)


def _names(app: Umbel) -> dict[str, Any]:
    @app.task(name="t.add")
    def add(x: Any, y: Any = 0) -> Any:
        return x + y

    @app.task(name="t.total")
    def total(x: Any) -> Any:
        return sum(x) if isinstance(x, list) else x

    def linked(sig: Any, *callbacks: Any) -> Any:
        for one in callbacks:
            sig.link(one)
        return sig

    def stamped(sig: Any, **stamps: Any) -> Any:
        sig.stamp(**stamps)
        return sig

    return {
        "add": add, "total": total, "linked": linked, "stamped": stamped,
        "chain": chain, "chord": chord, "group": group, "signature": signature,
    }  # fmt: skip


def _value(sig: Any) -> Any:
    try:
        return sig.apply().get()
    except Exception as error:
        return type(error).__name__


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    before = current.apps.default
    with Umbel("t", broker=f"sqlite:///{tmp_path_factory.mktemp('both')}/tasks.db", task_always_eager=True) as app:
        yield {**_names(app), "app": app}
    current.set_default(before)
    current.apps.local.app = None


@pytest.fixture(scope="module")
def theirs(celery_installed: None, names: dict[str, Any]) -> dict[str, Any]:
    """What Celery makes of the expressions, and of our signatures."""
    request = {text: _plain(eval(text, dict(names))) for text in RUN}
    done = subprocess.run(
        [str(PYTHON), str(HERE / "celery_signatures.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _plain(sig: Any) -> Any:
    return _listed(json.loads(json.dumps(sig, default=list)))


def _listed(value: Any) -> Any:
    """Write headers as lists, since Celery makes some of them groups, and names of stamps in order."""
    if isinstance(value, list):
        return [_listed(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _listed(each) for key, each in value.items()}
    if "stamped_headers" in found:
        found["stamped_headers"] = sorted(found["stamped_headers"])
    header = found.get("header")
    return {**found, "header": header["kwargs"]["tasks"]} if isinstance(header, dict) else found


@pytest.mark.parametrize("text", SIGNATURES, ids=SIGNATURES)
def test_the_dicts_are_the_same(text: str, names: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert _plain(eval(text, dict(names))) == _listed(theirs["signatures"][text])


@pytest.mark.parametrize("text", TEXTS, ids=TEXTS)
def test_the_texts_are_the_same(text: str, names: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert eval(text, dict(names)) == theirs["texts"][text]


@pytest.mark.parametrize("text", ERRORS, ids=ERRORS)
def test_the_errors_are_the_same(text: str, names: dict[str, Any], theirs: dict[str, Any]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Celery says which
        eval(text, dict(names))
    assert type(caught.value).__name__ == theirs["errors"][text]


@pytest.mark.parametrize("text", RUN, ids=RUN)
def test_each_runs_what_the_other_wrote(text: str, names: dict[str, Any], theirs: dict[str, Any]) -> None:
    expected = _value(eval(text, dict(names)))
    assert theirs["values"][text] == expected
    again = signature(theirs["signatures"][text], app=names["app"])
    assert _value(again) == expected


#: Freezing, Celery moves the members of a nested group to the end.
_FROZEN = tuple(text for text in RUN if text != "group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3))")


@pytest.mark.parametrize("text", _FROZEN, ids=_FROZEN)
def test_what_celery_froze_runs_here(text: str, names: dict[str, Any], theirs: dict[str, Any]) -> None:
    expected = _value(eval(text, dict(names)))
    assert _value(signature(theirs["frozen"][text], app=names["app"])) == expected
