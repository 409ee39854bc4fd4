"""The measurements. Each takes a bench and a size and gives named numbers.

enqueue: one process calls `delay()` in a loop. drain: queued no-ops, 2 executors, the rate from the moment 5 % were
executed to the last. threads: `delay()` in a loop in each of 8 threads of a process. gather: an event loop that
awaits 100 `adelay()` at a time. results: as drain with results stored, until a sample of 300 that includes the last
was read.
latency: one call at a time on an idle worker. bulk: publishing many in one call. footprint: start of the worker to
its first task, memory, idle processor time. delayed: the worker's memory with a million delayed tasks waiting.
countdown: tasks due in 1 to 10 s while a worker runs, how late they start and how much the worker grows. large: as
drain, with a tenth as many tasks of 100 KiB each. chord, chain: a workflow of 1,000 or 100 tasks on an idle worker,
from the call to the result. group: publishing 100,000 tasks in one call. volume: bytes to and from Redis for each
task of a chain of 20 chords of 50. bare: `delay()` beside redis-py, or py-amqp with confirms, storing the same bytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import micro
from footprint import memory, processor_seconds
from stage import Bench, answer, number

Numbers = dict[str, float]
IDLE_SECONDS = 5.0


def enqueue(bench: Bench, size: int) -> Numbers:
    """Tasks a second that one process can enqueue with `delay()`."""
    return {"enqueue_per_s": number(bench.ask("enqueue", size)["rate"])}


def drain(bench: Bench, size: int) -> Numbers:
    """Tasks a second that a worker takes out of a full queue."""
    bench.ask("enqueue", size)
    return {"drain_per_s": pace(bench, size)}


def large(bench: Bench, size: int) -> Numbers:
    """The same with tasks of 100 KiB, a tenth as many."""
    bench.ask("large", size // 10)
    return {"large_per_s": pace(bench, size // 10)}


def pace(bench: Bench, size: int) -> float:
    """Tasks a second from the moment a twentieth were executed."""
    with bench.worker():
        began = bench.wait_done(max(size // 20, 1))
        already = bench.done
        ended = bench.wait_done(size)
    return (size - already) / (ended - began)


def drain_results(bench: Bench, size: int) -> Numbers:
    """The same with results, stored and read."""
    bench.results = True
    client = bench.producer("results", size)
    assert client.stdout is not None
    if client.stdout.readline() != "ready\n":
        raise SystemExit(f"{bench.system.name}: the client did not get ready\n{bench.log('client.log')}")
    with bench.worker():
        began = bench.wait_done(max(size // 20, 1))
        already = bench.done
        read_at = number(answer(bench, client, "go\n")["read_at"])
        ended = bench.wait_done(size)
    return {"results_per_s": (size - already) / (max(read_at, ended) - began)}


def latency(bench: Bench, size: int) -> Numbers:
    """Milliseconds from submitting to the result at the caller, one at a time."""
    bench.results = True
    with bench.worker():
        times = bench.ask("latency", max(size // 50, 100))["times"]
    assert isinstance(times, list)
    cuts = statistics.quantiles([float(item) for item in times], n=100)
    return {"latency_p50_ms": cuts[49], "latency_p99_ms": cuts[98]}


def footprint(bench: Bench, size: int) -> Numbers:
    """Seconds from the worker's command to its first task; megabytes after some work; idle processor share."""
    bench.ask("enqueue", 1)
    began = time.time()
    with bench.worker() as process:
        first = bench.wait_done(1) - began
        bench.ask("enqueue", min(size, 1000))
        bench.wait_done(min(size, 1000) + 1)
        time.sleep(1.0)
        used = processor_seconds(process)
        time.sleep(IDLE_SECONDS)
        idle = (processor_seconds(process) - used) / IDLE_SECONDS * 100
        pss = memory(process)
    return {"first_task_s": first, "memory_mb": pss, "idle_cpu_percent": idle}


def bulk(bench: Bench, size: int) -> Numbers:
    """Tasks a second that one process can enqueue when it hands them over together."""
    return {"bulk_per_s": number(bench.ask("bulk", size * 5)["rate"])}


def threads(bench: Bench, size: int) -> Numbers:
    """Tasks a second that eight threads of one process can enqueue with `delay()`."""
    return {"threads_per_s": number(bench.ask("threads", size)["rate"])}


def gather(bench: Bench, size: int) -> Numbers:
    """Tasks a second that one event loop can enqueue, awaiting many at a time."""
    return {"gather_per_s": number(bench.ask("gather", size)["rate"])}


def delayed(bench: Bench, size: int) -> Numbers:
    """Megabytes that a worker grows by when fifty times `size` tasks wait for next month; its pace beside them."""
    without = settled_memory(bench)
    bench.ask("delayed", size * 50)
    return {"delayed_growth_mb": settled_memory(bench) - without}


def settled_memory(bench: Bench) -> float:
    """Megabytes of a worker that has run a few tasks and is idle."""
    already = bench.done
    with bench.worker() as process:
        bench.ask("enqueue", 1000)
        bench.wait_done(already + 1000)
        time.sleep(2.0)
        return memory(process)


def countdown(bench: Bench, size: int) -> Numbers:
    """Milliseconds that tasks start after their time; megabytes that the worker grows by while they wait."""
    bench.ask("enqueue", 1000)
    with bench.worker() as process:
        bench.wait_done(1000)
        time.sleep(1.0)
        before = most = memory(process)
        client = bench.producer("countdown", size)
        deadline = time.monotonic() + 120
        while bench.done < size + 1000:
            if time.monotonic() > deadline:
                raise SystemExit(f"{bench.system.name}: {bench.done} of {size + 1000}\n{bench.log('worker.log')}")
            most = max(most, memory(process))
            time.sleep(0.5)
        answer(bench, client)
    cuts = statistics.quantiles(bench.lateness, n=100)
    return {"late_p50_ms": cuts[49] * 1000, "late_p99_ms": cuts[98] * 1000, "countdown_growth_mb": most - before}


def chord(bench: Bench, _size: int) -> Numbers:
    """Milliseconds of a chord: 1,000 additions and their sum."""
    return {"chord_1000_ms": workflow(bench, "chords", 1000)}


def chain(bench: Bench, _size: int) -> Numbers:
    """Milliseconds of a chain of 100 additions."""
    return {"chain_100_ms": workflow(bench, "chains", 100)}


def workflow(bench: Bench, action: str, count: int) -> float:
    """The median time of a workflow on an idle worker, in milliseconds."""
    bench.results = True
    with bench.worker():
        times = bench.ask(action, count)["times"]
    assert isinstance(times, list)
    return statistics.median(float(item) for item in times) * 1000


def group(bench: Bench, size: int) -> Numbers:
    """Tasks a second that a group is published with; megabytes that this costs the publisher."""
    bench.results = True
    said = bench.ask("group", size * 5)
    return {"group_per_s": number(said["rate"]), "group_growth_mb": number(said["grown"])}


def volume(bench: Bench, _size: int) -> Numbers:
    """Bytes for each task of a chain of 20 chords of 50, and how many times those of a plain task that is."""
    bench.results = True
    with bench.worker():
        said = bench.ask("volume", 1000)
    plain, each = number(said["plain"]), number(said["workflow"])
    return {"workflow_bytes": each, "workflow_of_plain": each / plain}


def bare(bench: Bench, size: int) -> Numbers:
    """How near `delay()` comes to the bare driver storing the same bytes, and the pace of that."""
    said = bench.ask("bare", size)
    return {"enqueue_of_bare": number(said["ratio"]), "bare_per_s": number(said["rate"])}


def calls(_bench: Bench, _size: int) -> Numbers:
    """Python calls of our own for each task."""
    return micro.count()


SCENARIOS: dict[str, Callable[[Bench, int], Numbers]] = {
    "enqueue": enqueue,
    "threads": threads,
    "gather": gather,
    "bulk": bulk,
    "drain": drain,
    "results": drain_results,
    "latency": latency,
    "footprint": footprint,
    "delayed": delayed,
    "countdown": countdown,
    "large": large,
    "chord": chord,
    "chain": chain,
    "group": group,
    "volume": volume,
    "bare": bare,
    "calls": calls,
}
