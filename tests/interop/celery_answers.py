"""A Celery producer that does what it is asked: a Python expression a line in, its value as a JSON line out."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import sys
import time
import traceback
import uuid

import celery_chords
import celery_workflows
from celery import chain, chord, group, signature
from celery.result import AsyncResult
from celery_side import app, make
from kombu import Exchange, Queue


class Names(dict):
    """What an expression may name: the tasks of the fleet, and what is made when it is first named."""

    def __missing__(self, name):
        if name == "old":
            self[name] = make(task_protocol=1)
            return self[name]
        raise KeyError(name)


def result(task_id):
    """Return the result of a task."""
    return AsyncResult(task_id, app=app)


def outcome(task_id, seconds=15):
    """Wait for a task and tell how it ended, as Celery sees it."""
    waiting = result(task_id)
    try:
        value = waiting.get(timeout=seconds)
    except Exception as error:
        value = {"error": type(error).__name__, "module": type(error).__module__, "args": list(error.args)}
    return {"state": waiting.state, "value": value, "traceback": waiting.traceback}


def drain(queue, count, seconds=5.0, priorities=False):
    """Take messages from a queue as kombu does, and acknowledge them; give the ids in order."""
    taken, deadline = [], time.time() + seconds
    with app.connection_for_read() as connection:
        arguments = {"max_priority": 10} if priorities else {}
        bound = Queue(queue, Exchange(queue), queue, **arguments)(connection.default_channel)
        bound.declare()
        while len(taken) < count and time.time() < deadline:
            message = bound.get(no_ack=False)
            if message is None:
                time.sleep(0.02)
                continue
            message.ack()
            taken.append(message.headers.get("id"))
    return taken


names = Names(
    app=app,
    make=make,
    result=result,
    outcome=outcome,
    drain=drain,
    signature=signature,
    chain=chain,
    group=group,
    chord=chord,
    Queue=Queue,
    Exchange=Exchange,
    datetime=dt,
    decimal=decimal,
    uuid=uuid,
    time=time,
    os=os,
    **celery_chords.names,
    **celery_workflows.names,
    **{name.partition(".")[2]: task for name, task in app.tasks.items() if name.startswith("fleet.")},
)

print(json.dumps({"value": "ready"}), flush=True)
for line in sys.stdin:
    try:
        answer = {"value": eval(json.loads(line), names)}
        text = json.dumps(answer, default=repr)
    except BaseException:
        text = json.dumps({"error": traceback.format_exc()})
    print(text, flush=True)
