"""The app: settings, tasks, naming, engines."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel import Celery, Umbel, current_app, shared_task
from umbel.app.task import Task
from umbel.core.errors import (
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    NotRegistered,
    NotSupportedError,
    UmbelWarning,
)


def plain(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


def test_a_decorated_function_is_a_task_with_its_name_and_text(app: Umbel) -> None:
    task = app.task(plain)
    assert task.name == f"{__name__}.plain"
    assert task.__doc__ == "Add."
    assert task(1, 2) == 3
    assert app.tasks[task.name] is task


def test_every_option_of_the_decorator_becomes_an_attribute(app: Umbel) -> None:
    @app.task(name="own", max_retries=7, queue="slow", acks_late=True, custom="yes")
    def own() -> None: ...

    assert (own.name, own.max_retries, own.queue, own.acks_late) == ("own", 7, "slow", True)
    assert own.custom == "yes"  # type: ignore[attr-defined]


def test_options_without_a_value_follow_the_settings(app: Umbel) -> None:
    task = app.task(plain)
    assert task.acks_late is False
    app.conf.task_acks_late = True
    assert task.acks_late is True


def test_a_task_of_the_main_script_takes_the_name_of_the_app(app: Umbel) -> None:
    assert app.gen_task_name("add", "__main__") == "proj.add"
    assert app.gen_task_name("add", "pack.mod") == "pack.mod.add"


def test_bind_gives_the_task_as_first_argument(app: Umbel) -> None:
    @app.task(bind=True)
    def whoami(self: Task[..., Any], x: int) -> tuple[str, int]:
        return self.name, x

    assert whoami(3) == (whoami.name, 3)


def test_a_second_function_of_one_name_is_refused_with_a_warning_that_names_both(app: Umbel) -> None:
    first = app.task(name="same")(plain)
    with pytest.warns(DuplicateTaskNameWarning, match=r"test_app\.py.*test_app\.py"):
        second = app.task(name="same")(lambda: None)
    assert second is first


def test_an_option_that_is_nearly_one_of_a_task_is_warned_about_and_any_other_is_an_attribute(app: Umbel) -> None:
    told = r"'ack_late' of the task 'plain'.*did you mean 'acks_late'"
    with pytest.warns(UmbelWarning, match=told) as said:
        late = app.task(name="late", ack_late=True)(plain)
    assert [warning.filename for warning in said] == [__file__]
    other = Umbel("other")
    other.finalize()  # it gets the task too, and says nothing again
    assert other.tasks["late"].ack_late is late.ack_late is True
    with pytest.raises(UmbelWarning, match=told):
        shared_task(ack_late=True)(plain)
    task = app.task(name="other", queue="q", queue_size=3, tenant="acme", timeout=5, retries=2)(plain)
    assert (task.queue_size, task.tenant) == (3, "acme")


def test_a_class_based_task_is_registered_under_the_name_of_its_class(app: Umbel) -> None:
    class Count(app.Task):  # type: ignore[misc, name-defined]
        total = 0

        def run(self, step: int) -> int:
            self.total += step
            return self.total

    task = app.register_task(Count())
    assert task.name.endswith("Count")
    assert (task(2), task(3)) == (2, 5)
    with pytest.raises(TypeError, match="step"):
        task.delay()


def test_base_and_task_cls_choose_the_class_of_tasks(tmp_path: Path) -> None:
    class Loud(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ("loud", super().__call__(*args, **kwargs))

    with Umbel("loud", broker=f"sqlite:///{tmp_path}/l.db", task_cls=Loud, set_as_current=False) as app:
        assert app.task(plain)(1) == ("loud", 2)
        assert app.task(name="quiet", base=Task)(plain)(1) == 2


def test_a_missing_task_names_the_nearest_one(app: Umbel) -> None:
    app.task(name="proj.add")(plain)
    with pytest.raises(NotRegistered, match=r"did you mean 'proj\.add'"):
        app.tasks["proj.ad"]


def test_without_autofinalize_tasks_are_not_used_before_finalize(tmp_path: Path) -> None:
    with Umbel("strict", broker=f"sqlite:///{tmp_path}/s.db", autofinalize=False, set_as_current=False) as app:
        task = app.task(plain)
        with pytest.raises(RuntimeError, match="Contract breach"):
            task.delay(1)
        app.finalize()
        assert task.delay(1).id


def test_annotations_change_attributes_and_wrap_methods(app: Umbel) -> None:
    app.conf.task_annotations = {"*": {"rate_limit": "10/s"}, "proj.add": {"max_retries": 9}}
    task = app.task(name="proj.add")(plain)
    assert app.tasks["proj.add"] is task
    assert (task.rate_limit, task.max_retries) == ("10/s", 9)


def test_the_hooks_of_the_app_are_signals(app: Umbel) -> None:
    seen: list[str] = []
    app.on_after_configure.connect(lambda **_: seen.append("configured"), weak=False)
    app.on_after_finalize.connect(lambda **_: seen.append("finalized"), weak=False)
    app.finalize()
    assert app.conf.task_serializer == "json"
    assert sorted(seen) == ["configured", "finalized"]


def test_broker_and_store_of_one_url_are_one_engine(app: Umbel, tmp_path: Path) -> None:
    assert app.engine.atomic is not None
    assert app.engine is app.engine
    app.conf.result_backend = f"sqlite:///{tmp_path}/results.db"
    assert app.engine.atomic is None
    app.conf.result_backend = "disabled"
    assert app.store is None


def test_an_argument_that_replaces_a_part_of_celery_says_what_to_do_instead() -> None:
    with pytest.raises(NotSupportedError, match="task_routes"):
        Umbel("x", amqp="own.amqp:AMQP", set_as_current=False)


@pytest.mark.parametrize("name", ["add_periodic_task", "connection_for_write", "events", "steps"])
def test_what_is_not_there_says_so(app: Umbel, name: str) -> None:
    with pytest.raises(NotSupportedError, match=name):
        getattr(app, name)


def test_an_unknown_setting_of_the_constructor_is_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="task_serializer"):
        Umbel("x", task_serialiser="json", set_as_current=False)


def test_the_current_app_is_the_last_one_made(app: Umbel) -> None:
    assert current_app.main == "proj"
    other = Umbel("other")
    assert current_app.main == "other"
    app.set_current()
    assert current_app.main == "proj"
    other.close()


def test_a_task_and_its_app_survive_pickling_in_their_process(app: Umbel) -> None:
    task = app.task(name="proj.add")(plain)
    assert pickle.loads(pickle.dumps(task)) is task
    assert app.oid and pickle.loads(pickle.dumps(app)) is app


def test_a_bug_report_shows_the_changed_settings_and_no_secret(app: Umbel) -> None:
    app.conf.broker_url = "sqlite://user:hush@/x.db"
    assert "broker_url" in app.bugreport()
    assert "hush" not in app.bugreport()


def test_the_public_names_are_all_there() -> None:
    assert Celery is Umbel
    for name in umbel.__all__:
        assert getattr(umbel, name) is not None


def test_importing_umbel_loads_no_part_of_it() -> None:
    code = "import sys, umbel; print([n for n in sys.modules if n.startswith('umbel.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_program_that_sends_from_threads_loads_neither_an_event_loop_nor_a_command_line() -> None:
    code = (
        "import sys, umbel; app = umbel.Umbel(broker='memory://'); app.task(name='one')(lambda: 1).delay();"
        "print([name for name in ('asyncio', 'click', 'subprocess') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
