"""Walking the failpoints: which process passes each, what has to be done for that, and what the checker is told."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

from tests.process.checker import Rules
from tests.process.lab import Lab, Worker, wait

#: STARTED is stored by executors, so that they write into the store too.
LEASE = {"worker_lease": 1.0, "worker_heartbeat": 0.25, "task_track_started": True}


class Point(NamedTuple):
    """Where a failpoint is passed, and at which pass it has to fire there."""

    process: str
    nth: int = 2


#: The process whose work a point belongs to. What clients pass is walked in a producer of its own.
POINTS = {
    "publish": Point("producer", 3),
    "revoke": Point("producer", 1),
    "send": Point("producer", 1),
    "lease": Point("consumer", 2),
    "start": Point("consumer", 2),
    "dispatch": Point("consumer", 2),
    "extend": Point("consumer", 1),
    "recover": Point("consumer", 1),
    "settle": Point("consumer", 2),
    "run": Point("executor", 3),
    "put": Point("executor", 3),
    "report": Point("executor", 3),
}
#: Where broker and store are two, an executor that has nothing else to do stores results by itself.
APART_POINTS = {"put": "executor"}
#: Passed only where broker and store are two engines: tests/engines/test_shelf_faults.py walks these.
APART = {"adopt", "join", "expect", "confirm", "forget", "grow", "plan", "take"}
#: In the worker `raise` after the effect is the reply that got lost; `kill` after it is the sender that died with it.
FAULTS = ("kill", "raise", "sleep(2.5)")
#: What a worker took without ever hearing of it stays with it until it ends: its heartbeat keeps all it holds.
HELD_UNTIL_THE_END = {("lease.after", "raise"), ("recover.after", "raise")}

PRODUCER = """
import time
from umbel.app.ids import new_id
late = app.tasks["lab.work_late"]
path = os.environ["LAB_JOURNAL"]
if sys.argv[1] in ("revoke", "send"):
    id = new_id()
    journal.write(path, "intended", id)
    late.apply_async((0.0,), task_id=id, countdown=4)
    journal.write(path, "returned", id)
for number in range(8):
    id = new_id()
    journal.write(path, "intended", id)
    try:
        late.apply_async((0.01,), task_id=id, retry=False)
    except Exception as error:
        journal.write(path, "error", id, error=repr(error))
    else:
        journal.write(path, "returned", id)
    if sys.argv[1] in ("revoke", "send") and number == 4:
        first = next(e.id for e in journal.Journal(path).events())
        try:
            app.control.revoke(first)
        except Exception as error:
            journal.write(path, "error", "", error=repr(error))
            app.control.revoke(first)
        journal.write(path, "revoked", first)
"""


def kind_of(name: str) -> str:
    """Return what a failpoint is about."""
    return name.partition(".")[0]


def produce(lab: Lab, which: str, points: str) -> frozenset[str]:
    """Send from a process of its own; where that is killed, send again what is in doubt, as a careful client would.

    Return the ids that were sent twice; they run once where the broker stores an id once.
    """
    producer = lab.python(PRODUCER, which, UMBEL_FAILPOINTS=points, UMBEL_FAILPOINTS_ONCE=str(lab.folder / "fired"))
    out, _ = producer.communicate(timeout=30)
    assert producer.returncode in (0, -signal.SIGKILL), out
    if not producer.returncode:
        return frozenset()
    lab.journal.write("kill", pids=[producer.pid])
    in_doubt = frozenset(lab.journal.ids("intended")) - frozenset(lab.journal.ids("returned"))
    for id in in_doubt:
        lab.app.tasks["lab.work_late"].apply_async((0.01,), task_id=id)
        lab.journal.write("returned", id)
    return frozenset() if lab.app.engine.caps.once else in_doubt


def walk(lab: Lab, name: str, fault: str) -> None:
    """Let one worker or producer meet the fault at this point, and prove that nothing was lost."""
    kind = kind_of(name)
    point = POINTS[kind]
    rule = f"{name}={fault}@{point.nth}"
    if kind == "recover":
        leave_leases_behind(lab)
    if point.process == "producer":
        twice = produce(lab, kind, rule)
        assert (lab.folder / "fired").exists(), "the producer never came by"
    else:
        fired = lab.faulty_worker(rule, point.process, LEASE)
        twice = produce(lab, kind, "")
        lab.send("lab.work_late", 0.8)
        wait(fired.exists, 15, f"{name} to be passed")
        note_fault(lab, fired, point, fault)
        if (name, fault) in HELD_UNTIL_THE_END:
            end(lab.workers[-1])
    # What the faulty worker cannot finish any more is finished by a healthy one.
    healthy = lab.worker("-c", "1", settings=LEASE)
    lab.wait_states(lab.journal.ids("returned"), 25)
    lab.prove(Rules(late=True, unsettled=3.0, max_crashes=3, may_repeat=twice))
    for worker in lab.workers:
        if worker.process.poll() is None:
            end(worker)
    assert healthy.process.returncode == 0


def leave_leases_behind(lab: Lab) -> None:
    """Have a worker take messages and die."""
    victim = lab.worker("-c", "1", settings=LEASE)
    id = lab.send("lab.work_late", 0.6)
    lab.wait_started(id)
    victim.kill()


def note_fault(lab: Lab, fired: Path, point: Point, fault: str) -> None:
    """Tell the checker which runs the fault may have hit."""
    wait(lambda: fired.read_text().endswith("\n"), 5, "the note of the failpoint")
    _name, pid, when = fired.read_text().split()
    if point.process == "executor":
        if not fault.startswith("sleep"):
            # An executor does not survive an error of its own.
            lab.journal.write("kill", at=float(when), pids=[int(pid)])
    elif fault != "raise":
        pids = {event.pid for event in lab.journal.events() if event.what == "start"}
        pids |= set(lab.workers[-1].executors())
        lab.journal.write("kill" if fault == "kill" else "pause", at=float(when), pids=sorted(pids), session=True)


def end(worker: Worker) -> None:
    worker.stop()
    worker.wait_exit(15)
