from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from umbel.app.conf import Settings
from umbel.core.errors import CDeprecationWarning, ImproperlyConfigured, NotSupportedError
from umbel.core.queues import Queue, Queues


def make(changes: dict[str, object] | None = None, **environ: str) -> Settings:
    return Settings(changes, environ=environ)


def test_layers_go_in_their_order() -> None:
    conf = make({"task_serializer": "yaml"})
    conf.from_object({"task_serializer": "pickle", "result_serializer": "yaml"})
    conf.add_defaults({"result_serializer": "msgpack", "worker_pool": "solo"})
    conf.add_defaults(lambda: {"worker_pool": "threads", "worker_concurrency": 3})
    assert (conf.task_serializer, conf.result_serializer) == ("yaml", "yaml")
    assert (conf.worker_pool, conf.worker_concurrency, conf.task_acks_late) == ("solo", 3, False)


def test_the_environment_goes_first_and_umbel_before_celery() -> None:
    conf = make({"broker_url": "a://"}, CELERY_BROKER_URL="b://", CELERY_RESULT_BACKEND="r://")
    assert (conf.broker_url, conf.broker_read_url, conf["result_backend"]) == ("b://", "b://", "r://")
    assert make(CELERY_BROKER_URL="b://", UMBEL_BROKER_URL="u://").broker_url == "u://"


def test_nothing_given_is_an_embedded_file_with_results() -> None:
    conf = make()
    assert conf.broker_url == conf.result_backend == "sqlite:///umbel.db"
    assert make({"result_backend": "disabled"}).result_backend == "disabled"


def test_what_belongs_to_the_default_queue_follows_its_name() -> None:
    conf = make({"task_default_queue": "mine"})
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("mine", "mine")
    assert list(Queues.from_settings(conf)) == ["mine"]
    conf.task_default_queue = Queue("q", "x", "k")
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("x", "k")


def test_old_names_and_the_namespace_work_everywhere() -> None:
    conf = make()
    conf.from_object({"CELERY_TASK_ALWAYS_EAGER": True, "OTHER": 1}, namespace="CELERY")
    assert conf.task_always_eager and conf.CELERY_TASK_ALWAYS_EAGER and conf["CELERY_ALWAYS_EAGER"]
    conf.CELERYD_CONCURRENCY = 2
    assert conf.worker_concurrency == 2


def test_every_change_is_seen_and_counted() -> None:
    conf = make()
    before, first = conf.worker_lease, conf.version
    conf.worker_lease = 60
    assert (before, conf.worker_lease) == (30.0, 60.0) and conf.version > first
    assert conf.pop("worker_lease") == 60.0 and conf.worker_lease == 30.0
    with pytest.raises(KeyError):
        conf.pop("worker_lease")
    assert conf.pop("worker_lease", 1) == 1


def test_unknown_names_are_told_by_what_reads_or_sets_them() -> None:
    conf = make()
    with pytest.raises(AttributeError, match="did you mean worker_pool"):
        conf.worker_poool
    with pytest.raises(KeyError, match="did you mean worker_pool"):
        conf["worker_poool"]
    with pytest.raises(ImproperlyConfigured, match="did you mean worker_pool"):
        conf.worker_poool = 1
    assert conf.get("worker_poool", 5) == 5 and "worker_poool" not in conf


def test_one_wrong_setting_leaves_all_as_they_were() -> None:
    conf = make()
    with pytest.raises(ImproperlyConfigured):
        conf.update(worker_concurrency=3, task_acks_late="x")
    assert conf.worker_concurrency is None


def test_a_schedule_put_into_the_empty_dict_is_told_too() -> None:
    with pytest.raises(NotSupportedError, match="beat_schedule"):
        make().beat_schedule["a"] = {}


def test_mixed_names_are_told_with_a_table() -> None:
    conf = make()
    conf.from_object({"task_serializer": "json", "worker_pool": "solo", "CELERYD_CONCURRENCY": 2})
    with pytest.raises(ImproperlyConfigured, match="CELERYD_CONCURRENCY  ->  worker_concurrency"):
        conf.finalize()
    conf.from_object({"worker_concurrency": 3, "worker_pool": "solo", "CELERYD_CONCURRENCY": 2})
    assert conf.worker_concurrency == 3


def test_settings_that_contradict_each_other_are_told() -> None:
    with pytest.raises(ImproperlyConfigured, match="worker_heartbeat"):
        make({"worker_lease": 10}).finalize()
    with pytest.raises(ImproperlyConfigured, match="task_soft_time_limit"):
        make({"task_soft_time_limit": 10, "task_time_limit": 5}).finalize()


def test_secrets_are_hidden_when_shown() -> None:
    conf = make({"broker_url": "redis://u:hunter2@h", "task_publish_retry_policy": {"password": "hunter2"}})
    assert "hunter2" not in conf.humanize() and "hunter2" not in repr(conf)
    assert "hunter2" in conf.humanize(censored=False)
    assert set(conf.table()) == {"broker_url", "task_publish_retry_policy"}
    assert conf.table(with_defaults=True)["task_default_routing_key"] == "celery"
    assert "shop:" in make({"broker_transport_options": {"global_keyprefix": "shop:"}}).humanize()


def test_a_copy_is_on_its_own() -> None:
    conf = make({"worker_pool": "solo"})
    twin = conf.copy()
    twin.worker_pool = "threads"
    assert conf.worker_pool == "solo" and twin.value_set_for("worker_pool") and not twin.value_set_for("imports")


def test_settings_are_found_by_parts() -> None:
    conf = make({"worker_concurrency": 2})
    assert conf.find_value_for_key("concurrency", namespace="worker") == conf.get_by_parts("worker", "concurrency") == 2
    assert conf.find_option("concurrency").namespace == "worker"
    assert conf.first("worker_state_db", "worker_concurrency") == 2


def test_old_names_in_use_are_warned_about() -> None:
    conf = make()
    conf.from_object(SimpleNamespace(CELERY_ACKS_LATE=True))
    with pytest.warns(CDeprecationWarning, match="task_acks_late"):
        assert conf.maybe_warn_deprecated_settings()


def test_a_module_is_read_when_first_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf_under_test.py").write_text(
        "from datetime import timezone\nimport os\nworker_pool = 'solo'\nmine = 3\n_task_x = 1\ndef task_help(): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    conf = make(WHERE="conf_under_test")
    assert conf.from_envvar("WHERE") and "conf_under_test" not in sys.modules
    assert conf.worker_pool == "solo" and conf.timezone is None
    monkeypatch.delitem(sys.modules, "conf_under_test")


def test_a_source_that_is_not_there_is_told_unless_silent() -> None:
    conf = make()
    with pytest.raises(ImproperlyConfigured, match="cannot be imported"):
        conf.from_object("no_such_module_here", force=True)
    conf.from_object("no_such_module_here", force=True, silent=True)
    with pytest.raises(ImproperlyConfigured, match="NOWHERE is not set"):
        conf.from_envvar("NOWHERE")
    assert not conf.from_envvar("NOWHERE", silent=True)


def test_an_object_with_a_misspelt_setting_is_told() -> None:
    with pytest.raises(ImproperlyConfigured, match="did you mean task_serializer"):
        make().from_object(SimpleNamespace(task_serialiser="json", unrelated=1), force=True)


def test_the_command_line_sets_settings() -> None:
    conf = make()
    conf.from_cmdline([".prefetch_multiplier=1", "worker.concurrency=2", 'imports=(list)["a"]'], "worker")
    assert (conf.worker_prefetch_multiplier, conf.worker_concurrency, conf.imports) == (1, 2, ("a",))
    conf.from_cmdline(["_timezone=UTC", "task_acks_late=yes"])
    assert conf.timezone == "UTC" and conf.task_acks_late is True
    for wrong in (
        "worker.concurrency",
        "worker.concurency=1",
        "imports=(lst)[]",
        "worker.concurrency=(int)x",
    ):
        with pytest.raises(ImproperlyConfigured):
            conf.from_cmdline([wrong])
