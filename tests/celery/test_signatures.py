"""The functions that programs call take what Celery 5.7's take, in the same order."""

from __future__ import annotations

import inspect

import pytest

from umbel.celery import Celery, Signature, Task, maybe_signature, shared_task, signature
from umbel.celery.app.control import Control
from umbel.celery.exceptions import Reject, Retry
from umbel.celery.result import AsyncResult, EagerResult, result_from_tuple
from umbel.celery.signals import task_success
from umbel.celery.utils.log import get_task_logger

#: Function → names of parameters that Celery takes by position, in order.
POSITIONAL = {
    Celery.config_from_object: "obj silent force namespace",
    Celery.config_from_envvar: "variable_name silent force",
    Celery.config_from_cmdline: "argv namespace",
    Celery.autodiscover_tasks: "packages related_name force",
    Celery.gen_task_name: "name module",
    Celery.finalize: "auto",
    Celery.send_task: "name args kwargs",
    Celery.start: "argv",
    Celery.worker_main: "argv",
    Task.apply_async: "args kwargs task_id producer link link_error shadow",
    Task.apply: "args kwargs link link_error task_id retries throw logfile loglevel headers",
    Task.retry: "args kwargs exc throw eta countdown max_retries",
    Task.signature: "args",
    Task.update_state: "task_id state meta",
    Task.before_start: "task_id args kwargs",
    Task.on_success: "retval task_id args kwargs",
    Task.on_failure: "exc task_id args kwargs einfo",
    Task.on_retry: "exc task_id args kwargs einfo",
    Task.after_return: "status retval task_id args kwargs einfo",
    AsyncResult.__init__: "id backend task_name app parent",
    AsyncResult.get: (
        "timeout propagate interval no_ack follow_parents callback on_message on_interval disable_sync_subtasks"
    ),
    AsyncResult.revoke: "connection terminate signal wait timeout",
    AsyncResult.then: "callback on_error weak",
    AsyncResult.maybe_throw: "propagate callback",
    EagerResult.__init__: "id ret_value state traceback name",
    result_from_tuple: "r app",
    Signature.__init__: "task args kwargs options type subtask_type immutable app",
    Signature.clone: "args kwargs",
    Signature.apply_async: "args kwargs route_name",
    Signature.freeze: "_id group_id chord root_id parent_id group_index",
    Signature.replace: "args kwargs options",
    Signature.set: "immutable",
    signature: "varies",
    maybe_signature: "d app clone",
    shared_task: "",
    Control.inspect: "destination timeout",
    Control.revoke: "task_id destination terminate signal",
    Control.ping: "destination timeout",
    Retry.__init__: "message exc when is_eager sig",
    Reject.__init__: "reason requeue",
    task_success.connect: "",
    get_task_logger: "name",
}
#: Named differently on purpose: nobody passes them by name.
RENAMED = {"value": "r"}


@pytest.mark.parametrize("function", POSITIONAL, ids=lambda function: function.__qualname__)
def test_parameters_stand_in_celerys_order(function) -> None:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [
        RENAMED.get(name, name)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in kinds and name != "self"
    ]
    wanted = POSITIONAL[function].split()
    assert found[: len(wanted)] == wanted


def test_the_app_takes_celerys_arguments_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Celery(
        "proj",
        broker="sqlite:///a.db",
        backend="sqlite:///a.db",
        include=["proj.tasks"],
        changes={"task_acks_late": True},
        set_as_current=False,
        autofinalize=False,
        namespace="CELERY",
        strict_typing=False,
        timezone="Europe/Berlin",
    )
    assert app.main == "proj"
    assert app.conf.broker_url == "sqlite:///a.db"
    assert app.conf.task_acks_late is True
    assert app.conf.timezone == "Europe/Berlin"


def test_a_ported_program_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Celery("proj", set_as_current=False)

    @app.task(bind=True, name="proj.add")
    def add(self, x, y):
        return self.name, x + y

    assert add.apply((1, 2)).get() == ("proj.add", 3)
    assert add.s(1).clone((2,)).args == (2, 1)
    assert signature("proj.add", args=(1, 2), app=app).type is add
