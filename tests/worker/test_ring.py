"""The ring that reports go through: whole or not at all, in order, round and round, and past a writer's death."""

from __future__ import annotations

import os
import signal

import pytest

from umbel.app.execution import Report
from umbel.core.message import Record
from umbel.worker.ring import RING_BYTES, Rings


def report(number: int, size: int = 0) -> Report:
    return Report(number, 0, Record(str(number), "SUCCESS", b"x" * size) if size else None)


def test_what_is_appended_is_taken_once_and_in_order() -> None:
    rings = Rings(2)
    writer, reader = rings.writer(1), rings.reader(1, Report)
    assert reader.take() == []
    assert all(writer.append(report(number)) for number in range(5))
    assert [item.number for item in reader.take()] == [0, 1, 2, 3, 4]
    assert reader.take() == []
    assert rings.reader(0, Report).take() == []


@pytest.mark.parametrize("size", [1, 100, 4093, RING_BYTES // 2])
def test_reports_survive_the_way_round(size: int) -> None:
    rings = Rings(1)
    writer, reader = rings.writer(0), rings.reader(0, Report)
    for number in range(4 * RING_BYTES // size if size > 100 else 3000):
        assert writer.append(report(number, size))
        (taken,) = reader.take()
        assert taken == report(number, size)


def test_what_does_not_fit_is_refused_whole_and_fits_again_once_there_is_room() -> None:
    rings = Rings(1)
    writer, reader = rings.writer(0), rings.reader(0, Report)
    assert not writer.append(report(1, RING_BYTES))
    appended = 0
    while writer.append(report(appended, 1000)):
        appended += 1
    assert 50 < appended <= RING_BYTES // 1000
    assert [item.number for item in reader.take()] == list(range(appended))
    assert writer.append(report(appended, 1000))
    assert [item.number for item in reader.take()] == [appended]


def test_a_report_that_was_not_finished_does_not_exist() -> None:
    rings = Rings(1)
    writer, reader = rings.writer(0), rings.reader(0, Report)
    writer.append(report(1))
    # As a process leaves it that is killed after copying and before moving the tail.
    writer._data[writer._position : writer._position + 50] = b"\xff" * 50
    assert [item.number for item in reader.take()] == [1]
    heir = rings.writer(0)
    successor = rings.reader(0, Report)
    assert successor.take() == []
    heir.append(report(2))
    assert successor.take() == [report(2)]


def test_reports_of_a_killed_process_are_all_there() -> None:
    rings = Rings(1)
    reader = rings.reader(0, Report)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        writer = rings.writer(0)
        for number in range(300):
            writer.append(report(number, 50))
        os.write(write, b"x")
        signal.pause()
    assert os.read(read, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert [item.number for item in reader.take()] == list(range(300))


def test_a_reader_beside_a_busy_writer_sees_whole_reports_only() -> None:
    rings = Rings(1)
    reader = rings.reader(0, Report)
    count = 30_000
    child = os.fork()
    if not child:
        writer = rings.writer(0)
        for number in range(count):
            while not writer.append(report(number, number % 97)):
                os.sched_yield()
        os._exit(0)
    expected = 0
    while expected < count:
        for item in reader.take():
            assert item == report(expected, expected % 97)
            expected += 1
    os.waitpid(child, 0)


def test_only_the_first_to_report_to_a_sleeping_consumer_wakes_it() -> None:
    rings = Rings(2)
    one, other = rings.writer(0), rings.writer(1)
    assert not one.must_ring()
    rings.doze()
    assert one.must_ring()
    assert not other.must_ring()
    rings.doze()
    rings.rouse()
    assert not other.must_ring()
