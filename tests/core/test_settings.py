from __future__ import annotations

import importlib.util
import re
from datetime import UTC, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.settings import BY_NAME, BY_OLD_NAME, SECTIONS, Kind, Support, convert, unknown
from umbel.core.urls import mask_text, mask_url

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_stands_in_the_table_once() -> None:
    names = [row.name for _, rows in SECTIONS for row in rows]
    old = [name for _, rows in SECTIONS for row in rows for name in row.old]
    assert len(names) == len(set(names)) and len(old) == len(set(old))
    assert not set(names) & set(old)


def test_every_row_has_a_text_and_says_why_it_has_no_effect() -> None:
    for row in BY_NAME.values():
        assert row.text.endswith("."), row.name
        assert bool(row.note) == (row.support is not Support.WORKS), row.name
        assert not row.note.endswith("."), row.name


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_default_is_a_value_of_its_setting(name: str) -> None:
    convert(BY_NAME[name], BY_NAME[name].default)


def test_old_names_lead_to_new_ones() -> None:
    assert BY_OLD_NAME["CELERYD_CONCURRENCY"].name == "worker_concurrency"
    assert BY_OLD_NAME["CELERY_TASK_RESULT_EXPIRES"].name == "result_expires"


@pytest.mark.parametrize(
    ("name", "value"),
    [("task_protocol", 1), ("beat_schedule", {"a": {}}), ("redis_host", "h")],
)
def test_what_is_not_supported_yet_says_what_to_do(name: str, value: object) -> None:
    with pytest.raises(NotSupportedError, match=f"{name} is not supported yet: .{{10,}}"):
        convert(BY_NAME[name], value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("worker_concurrency", "four", "worker_concurrency must be a whole number"),
        ("worker_concurrency", 0, "at least 1"),
        ("worker_concurrency", True, "worker_concurrency must be"),
        ("task_always_eager", "false", "must be true or false, not 'false'"),
        ("accept_content", ["json", 3], "3 in it is not text"),
        ("task_default_rate_limit", "10/d", "units are s, m and h"),
        ("task_default_queue_type", "stream", "one of 'classic', 'quorum'"),
        ("task_queues", ["a"], r"write Queue\('a'\)"),
        ("task_queues", [object()], "import Queue and Exchange from umbel"),
        ("broker_url", ["redis://a", 3], "broker_url must be a URL"),
        ("task_default_priority", 256, "at most 255"),
        ("worker_lease", None, "not None"),
        ("worker_lease", float("nan"), "not a number"),
    ],
)
def test_a_wrong_value_is_told_with_the_name_of_its_setting(name: str, value: object, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        convert(BY_NAME[name], value)


def test_an_error_never_shows_a_secret() -> None:
    for name in ("broker_url", "redis_password"):
        with pytest.raises(ImproperlyConfigured) as caught:
            convert(BY_NAME[name], {"hunter2": "hunter2"})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["true", "YES", "1", "on"])
def test_booleans_are_read_from_words(text: str) -> None:
    assert convert(BY_NAME["task_always_eager"], text, from_text=True) is True
    with pytest.raises(ImproperlyConfigured, match="none of true"):
        convert(BY_NAME["task_always_eager"], "perhaps", from_text=True)


def test_values_are_kept_in_one_form() -> None:
    assert convert(BY_NAME["result_expires"], timedelta(minutes=1)) == 60.0
    assert convert(BY_NAME["result_expires"], None) is None
    assert convert(BY_NAME["accept_content"], "json") == ("json",)
    assert convert(BY_NAME["imports"], "a, b", from_text=True) == ("a", "b")
    assert convert(BY_NAME["task_default_delivery_mode"], "transient") == 1
    assert convert(BY_NAME["worker_concurrency"], "4", from_text=True) == 4
    assert convert(BY_NAME["timezone"], UTC) is UTC


def test_the_nearest_name_is_suggested_in_the_style_that_was_used() -> None:
    assert "did you mean worker_concurrency?" in unknown("worker_concurency")
    assert "did you mean CELERYD_CONCURRENCY?" in unknown("CELERYD_CONCURENCY")
    assert "did you mean CELERY_TASK_SERIALIZER?" in unknown("CELERY_TASK_SERIALISER", "CELERY")
    assert "did you mean task_serializer?" in unknown("TASK_SERIALIZER")
    assert "write CELERY_RESULT_EXPIRES" in unknown("CELERY_TASK_RESULT_EXPIRES", "CELERY")


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(BY_NAME)),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
)
def test_any_value_is_taken_or_told(name: str, value: object) -> None:
    try:
        convert(BY_NAME[name], value)
    except ImproperlyConfigured as error:
        assert name in str(error)


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generator", ROOT / "scripts" / "gen_settings_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date_and_names_every_setting() -> None:
    generator = _generator()
    assert generator.main(["--check"]) == 0
    assert set(re.findall(r"^### (\w+)$", generator.render(), re.MULTILINE)) == set(BY_NAME)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:6379/0", "redis://:**@h:6379/0"),
        ("amqp://u:p@w/x?y@h//", "amqp://u:**@h//"),
        ("amqp://u:p/w@h//", "amqp://u:**@h//"),
        ("sqlite:////home/a@b.db", "sqlite:////home/a@b.db"),
        ("redis://h:6379/0?password=pw&db=1", "redis://h:6379/0?password=**&db=1"),
        ("redis://u:a@h;redis://u:b@g", "redis://u:**@h;redis://u:**@g"),
        ("disabled", "disabled"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@given(st.text(alphabet="abc/:?@#=& xyz", min_size=1, max_size=12))
def test_no_password_is_ever_shown(noise: str) -> None:
    assert "s3cret" not in mask_url(f"redis://user:s3cret{noise}s3cret@host:6379/0")


@given(st.text(alphabet="abc/:?@#=&xyz", min_size=1, max_size=12))
def test_no_password_is_shown_in_a_text(noise: str) -> None:
    assert "s3cret" not in mask_text(f"cannot reach redis://user:s3cret{noise}s3cret@host:6379/0: no")
    assert "s3cret" not in mask_text(f"cannot reach redis://user:s3cret {noise}s3cret@host:6379/0: no")


def test_what_is_said_about_a_url_stays_readable() -> None:
    said = "not to redis://127.0.0.1:6379/0: write redis://user:**@host, or (amqp://u:%s@h//), never a@b"
    assert mask_text(said % "secret") == said % "**"


def test_kinds_have_words() -> None:
    assert all(kind.value for kind in Kind)
