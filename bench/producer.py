"""The client side of a measurement, run by the system's own interpreter: `producer.py APP ACTION COUNT`.

Prints one JSON object. Actions: `enqueue` (no-ops in a loop), `results` (enqueue, then wait for the word "go" on
standard input and read a sample of the results in order), `latency` (one call at a time on an idle worker), `bulk`
(many no-ops in one call), `threads` (no-ops in loops of 8 threads), `gather` (no-ops of an event loop, 100 at a
time), `delayed` (many tasks due in a month), `countdown` (tasks due in 1 to 10 seconds, in no
order), `large` (tasks with 100 KiB each), `chords`, `chains` (workflows of that many tasks, a few times), `group`
(publishing a large group), `volume` (bytes of a chain of chords), `bare` (no-ops in turn with the bare driver storing
the same bytes).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent / "apps"))
SAMPLE = 300
WARM_UP = 20
MONTH = 30 * 86_400.0
LARGE = 100 * 1024
#: How many threads share one process, as in a web server; how many calls an event loop has under way.
THREADS, TOGETHER = 8, 100
#: How often a comparison changes sides.
TURNS = 10
#: Coprime to any count that is not a multiple of it: a walk with this step visits every number once.
STRIDE = 7_919
#: How often a workflow is run; how many chords follow each other, and how many tasks each has.
REPEATS = 5
LENGTH, WIDTH = 20, 50


def enqueue(app: ModuleType, count: int) -> dict[str, object]:
    """Call `delay()` in a loop; the first call is not counted, it connects."""
    app.send_noop()
    send = app.send_noop
    began = time.perf_counter()
    for _ in range(count - 1):
        send()
    return {"rate": (count - 1) / (time.perf_counter() - began)}


def results(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue tasks with results; once told to go on, read a sample of them, the last one included."""
    handles = [app.send_add(number) for number in range(count)]
    print("ready", flush=True)
    sys.stdin.readline()
    step = max(count // SAMPLE, 1)
    for number in [*range(0, count - 1, step), count - 1]:
        value = app.read(handles[number])
        if value != number + 1:
            raise SystemExit(f"wrong result for {number}: {value!r}")
    return {"read_at": time.time()}


def latency(app: ModuleType, count: int) -> dict[str, object]:
    """Submit one task, wait for its result, and again; milliseconds each."""
    times = []
    for number in range(count + WARM_UP):
        began = time.perf_counter()
        app.read(app.send_add(number))
        times.append((time.perf_counter() - began) * 1000)
    return {"times": times[WARM_UP:]}


def bulk(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue many no-ops in one call."""
    app.send_noop()
    began = time.perf_counter()
    app.send_bulk(count)
    return {"rate": count / (time.perf_counter() - began)}


def threads(app: ModuleType, count: int) -> dict[str, object]:
    """Call `delay()` in a loop in each of several threads; their first calls, which connect, are not counted."""
    part, send = count // THREADS, app.send_noop
    ready = threading.Barrier(THREADS + 1)

    def loop() -> None:
        send()
        ready.wait()
        for _ in range(part):
            send()

    loops = [threading.Thread(target=loop) for _ in range(THREADS)]
    for thread in loops:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in loops:
        thread.join()
    return {"rate": part * THREADS / (time.perf_counter() - began)}


def gather(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue no-ops from an event loop, many at a time."""

    async def send() -> None:
        await asyncio.gather(*(app.noop.adelay() for _ in range(TOGETHER)))

    async def loop() -> float:
        await send()
        began = time.perf_counter()
        for _ in range(count // TOGETHER):
            await send()
        return time.perf_counter() - began

    return {"rate": count // TOGETHER * TOGETHER / asyncio.run(loop())}


def delayed(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue many tasks that are due in a month, a part at a time."""
    part = 50_000
    for first in range(0, count, part):
        app.send_delayed(min(part, count - first), MONTH)
    return {}


def countdown(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue tasks that are due in 1 to 10 seconds, evenly spread."""
    for number in range(count):
        seconds = 1 + 9 * (number * STRIDE % count) / count
        app.send_late(seconds, time.time() + seconds)
    return {}


def large(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue tasks with large arguments."""
    data = "x" * LARGE
    for _ in range(count):
        app.send_large(data)
    return {}


def chords(app: ModuleType, count: int) -> dict[str, object]:
    """Run a chord a few times, the first one not counted; seconds each."""
    return {"times": repeated(lambda: app.run_chord(count), count * (count + 1) // 2)}


def chains(app: ModuleType, count: int) -> dict[str, object]:
    """Run a chain a few times, the first one not counted; seconds each."""
    return {"times": repeated(lambda: app.run_chain(count), count)}


def repeated(run: Callable[[], object], expected: int) -> list[float]:
    """How many seconds each run of several takes; what it gives has to be right."""
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - began)
        if value != expected:
            raise SystemExit(f"wrong result: {value!r} instead of {expected!r}")
    return times[1:]


def group(app: ModuleType, count: int) -> dict[str, object]:
    """Publish groups of two sizes; the pace of the large one, and megabytes that the process grows by meanwhile."""
    app.send_group(1000)
    before = resident()
    began = time.perf_counter()
    sent = app.send_group(count)
    spent = time.perf_counter() - began
    grown = resident() - before
    assert len(sent) == count
    return {"rate": count / spent, "grown": grown}


def resident() -> float:
    """Megabytes of memory that this process has needed at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def volume(app: ModuleType, count: int) -> dict[str, object]:
    """Bytes to and from Redis for each task of a chain of chords, and for each plain task, results included."""
    import redis

    client = redis.Redis.from_url(os.environ["BENCH_URL"])

    def moved() -> int:
        said = client.info("stats")
        return int(said["total_net_input_bytes"]) + int(said["total_net_output_bytes"])

    app.read(app.send_add(0))
    first = moved()
    handles = [app.send_add(number) for number in range(count)]
    for handle in handles:
        app.read(handle)
    middle = moved()
    app.run_chords(LENGTH, WIDTH)
    return {"plain": (middle - first) / count, "workflow": (moved() - middle) / (LENGTH * (WIDTH + 1))}


def bare(app: ModuleType, count: int) -> dict[str, object]:
    """Enqueue no-ops with `delay()` and, in turn with that, as many messages with the bare driver."""
    app.send_noop()
    url = os.environ["BENCH_URL"]
    store = bare_rabbitmq(url) if url.startswith("amqp") else bare_redis(url)
    store()
    spent, part = {"delay": 0.0, "bare": 0.0}, count // TURNS
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(part):
            app.send_noop()
        middle = time.perf_counter()
        for _ in range(part):
            store()
        spent["delay"] += middle - began
        spent["bare"] += time.perf_counter() - middle
    return {"ratio": spent["bare"] / spent["delay"], "rate": part * TURNS / spent["bare"]}


def bare_redis(url: str) -> Callable[[], object]:
    """What stores the bytes of the one message that is there, with redis-py."""
    import redis

    client = redis.Redis.from_url(url)
    (message,) = client.lrange("celery", 0, -1)
    return lambda: client.lpush("bare", message)


def bare_rabbitmq(url: str) -> Callable[[], object]:
    """What stores a copy of the one message that is there, with py-amqp, and waits until that is confirmed."""
    import amqp

    parts = urlsplit(url)
    connection = amqp.Connection(f"{parts.hostname}:{parts.port}", virtual_host=parts.path[1:], confirm_publish=True)
    connection.connect()
    channel = connection.channel()
    message = channel.basic_get("celery", no_ack=True)
    copy = amqp.Message(message.body, **message.properties)
    channel.queue_declare("bare", durable=True, auto_delete=False)
    return lambda: channel.basic_publish(copy, routing_key="bare", mandatory=True)


ACTIONS = {
    action.__name__: action
    for action in (
        enqueue,
        results,
        latency,
        bulk,
        threads,
        gather,
        delayed,
        countdown,
        large,
        chords,
        chains,
        group,
        volume,
        bare,
    )
}


def main() -> None:
    """Do what the command line says."""
    name, action, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(ACTIONS[action](importlib.import_module(name), count)), flush=True)


if __name__ == "__main__":
    main()
