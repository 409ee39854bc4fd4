"""How tasks end on one side is what the other reads: results, states, errors, retries, links."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.interop.kit import Fleet, wait_for
from umbel.core.errors import RemoteError

SIDES = ("umbel", "celery")


def send(fleet: Fleet, by: str, name: str, *args: object, queue: str, **options: object) -> str:
    """Send a task from one side; gives its id."""
    if by == "umbel":
        return str(fleet.send(name, *args, queue=queue, **options).id)
    return str(fleet.celery.ask(f"{name}.apply_async({args!r}, queue={queue!r}, **{options!r}).id"))


@pytest.mark.parametrize("runs", SIDES)
def test_both_read_the_same_result(fleet: Fleet, runs: str) -> None:
    task_id = send(fleet, "celery" if runs == "umbel" else "umbel", "add", 2, 3, queue=f"to_{runs}")
    ours = fleet.umbel.AsyncResult(task_id)
    assert ours.get(timeout=15) == 5
    names = ("status", "result", "name", "args", "kwargs", "worker", "retries", "queue")
    shown = ", ".join(f"result({task_id!r}).{name}" for name in names)
    theirs = fleet.celery.ask(f"[{shown}]")
    assert theirs == ["SUCCESS", 5, "fleet.add", [2, 3], {}, f"{runs}-main@test", 0, f"to_{runs}"]
    assert [list(value) if name == "args" else value for name in names for value in [getattr(ours, name)]] == theirs
    done = fleet.celery.ask(f"result({task_id!r}).date_done.isoformat()")
    assert ours.date_done is not None
    assert ours.date_done.isoformat() == done
    fleet.celery.ask(f"result({task_id!r}).forget()")
    assert fleet.umbel.AsyncResult(task_id).state == "PENDING"


@pytest.mark.parametrize("runs", SIDES)
def test_states_on_the_way_are_seen_by_the_other_side(fleet: Fleet, runs: str) -> None:
    task_id = send(fleet, "celery" if runs == "umbel" else "umbel", "progress", queue=f"to_{runs}")
    ours = fleet.umbel.AsyncResult(task_id)
    wait_for(lambda: ours.state == "HALFWAY", "the state of the task's own")
    assert fleet.celery.ask(f"[result({task_id!r}).state, result({task_id!r}).info]") == [
        "HALFWAY",
        {"done": 1, "of": 2},
    ]
    assert ours.info == {"done": 1, "of": 2}
    Path(f"{fleet.journal}{task_id}").touch()
    assert fleet.outcome(task_id)["value"] == "done"


@pytest.mark.parametrize("runs", SIDES)
def test_errors_come_back_as_they_were_raised_with_their_traceback(fleet: Fleet, runs: str) -> None:
    by = "celery" if runs == "umbel" else "umbel"
    known = send(fleet, by, "fail", "ValueError", "bad", 3, queue=f"to_{runs}")
    own = send(fleet, by, "fail", "Refused", "no", queue=f"to_{runs}")
    theirs = fleet.outcome(known)
    assert (theirs["state"], theirs["value"]) == (
        "FAILURE",
        {"error": "ValueError", "module": "builtins", "args": ["bad", 3]},
    )
    assert theirs["traceback"].strip().endswith("ValueError: ('bad', 3)")
    assert "fleet_tasks.py" in theirs["traceback"]
    with pytest.raises(ValueError, match="bad") as caught:
        fleet.umbel.AsyncResult(known).get(timeout=15)
    assert caught.value.args == ("bad", 3)
    assert fleet.umbel.AsyncResult(known).traceback == theirs["traceback"]
    assert fleet.outcome(own)["value"] == {"error": "Refused", "module": "fleet_tasks", "args": ["no"]}
    # This process has not imported the module of that error, and no result makes it do so.
    with pytest.raises(RemoteError, match="no") as other:
        fleet.umbel.AsyncResult(own).get(timeout=15)
    assert "Refused" in str(other.value)


@pytest.mark.parametrize("runs", SIDES)
def test_retries_count_on_until_the_task_succeeds_or_gives_up(fleet: Fleet, runs: str) -> None:
    by = "celery" if runs == "umbel" else "umbel"
    again = send(fleet, by, "again", 3, queue=f"to_{runs}")
    automatic = send(fleet, by, "automatic", 2, queue=f"to_{runs}", serializer="pickle")
    give_up = send(fleet, by, "give_up", queue=f"to_{runs}")
    assert fleet.outcome(again)["value"] == 3
    assert fleet.outcome(automatic)["value"] == 2
    assert fleet.outcome(give_up)["value"] == {"error": "Refused", "module": "fleet_tasks", "args": ["still not"]}
    assert [len(fleet.runs("", task_id)) for task_id in (again, automatic, give_up)] == [4, 3, 3]
    assert {run.side for task_id in (again, automatic, give_up) for run in fleet.runs("", task_id)} == {runs}


def test_a_task_may_be_retried_by_the_other_side(fleet: Fleet) -> None:
    # Celery stores RETRY after it has sent the retry, over whatever is there by then: hence the pause.
    there_and_back = ["to_celery", "to_umbel"]
    tasks = [send(fleet, by, "again", 4, 0.3, there_and_back, queue="to_umbel") for by in SIDES]
    assert [fleet.outcome(task_id)["value"] for task_id in tasks] == [4, 4]
    for task_id in tasks:
        assert [run.side for run in fleet.runs("again", task_id)] == ["umbel", "celery", "umbel", "celery", "umbel"]


@pytest.mark.parametrize("runs", SIDES)
def test_links_are_called_with_the_result_wherever_they_lead(fleet: Fleet, runs: str) -> None:
    other = "celery" if runs == "umbel" else "umbel"
    linked, second = str(uuid.uuid4()), str(uuid.uuid4())
    if runs == "celery":
        link = fleet.umbel.tasks["fleet.add"].s(10).set(queue="to_umbel", task_id=linked)
        more = fleet.umbel.tasks["fleet.add"].si(1, 1).set(queue="to_celery", task_id=second)
        parent = fleet.send("add", 2, 3, queue="to_celery", link=[link, more])
    else:
        links = (
            f"[add.s(10).set(queue='to_celery', task_id={linked!r}), "
            f"add.si(1, 1).set(queue='to_umbel', task_id={second!r})]"
        )
        parent = fleet.umbel.AsyncResult(
            fleet.celery.ask(f"add.apply_async((2, 3), queue='to_umbel', link={links}).id")
        )
    assert parent.get(timeout=15) == 5
    assert fleet.umbel.AsyncResult(linked).get(timeout=15) == 15
    assert fleet.umbel.AsyncResult(second).get(timeout=15) == 2
    assert fleet.celery.ask(f"result({linked!r}).worker") == f"{other}-main@test"
    if runs == "umbel":  # Celery sends several links as a group, which is the one child of its results
        children = fleet.celery.ask(f"[child.id for child in result({parent.id!r}).children]")
        assert set(children) == {linked, second}


@pytest.mark.parametrize("runs", SIDES)
def test_error_links_of_the_other_side_are_called(fleet: Fleet, runs: str) -> None:
    """The one that takes the request is called where the task failed, the one that takes an id is sent as a task."""
    other = "celery" if runs == "umbel" else "umbel"
    if runs == "celery":
        tasks = fleet.umbel.tasks
        links = [tasks["fleet.on_error"].s(), tasks["fleet.old_on_error"].s().set(queue="to_umbel")]
        failed = fleet.send("fail", "ValueError", "x", queue="to_celery", link_error=links).id
    else:
        shown = "[on_error.s(), old_on_error.s().set(queue='to_celery')]"
        failed = fleet.celery.ask(f"fail.apply_async(('ValueError', 'x'), queue='to_umbel', link_error={shown}).id")
    wait_for(lambda: fleet.runs("on_error:ValueError", failed), "the error link to be called")
    wait_for(lambda: fleet.runs(f"old_on_error:{failed}"), "the error link of the old style to be run")
    assert fleet.outcome(failed)["state"] == "FAILURE"
    assert [run.side for run in fleet.runs("on_error:ValueError", failed)] == [runs]
    assert [run.side for run in fleet.runs(f"old_on_error:{failed}")] == [other]


@pytest.mark.parametrize("runs", SIDES)
def test_a_result_that_is_there_is_not_written_over(fleet: Fleet, runs: str) -> None:
    task_id = send(fleet, "umbel", "echo", 1, queue=f"to_{runs}", countdown=1)
    fleet.celery.ask(f"app.backend.store_result({task_id!r}, 'decided before', 'SUCCESS')")
    wait_for(lambda: fleet.runs("echo", task_id), "the task to run")
    assert fleet.outcome(task_id)["value"] == "decided before"
