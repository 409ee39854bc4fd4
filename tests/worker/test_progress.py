"""Progress files: written by one process, read by another, and still there when the writer is killed."""

from __future__ import annotations

import os
import signal
import stat
import time
import uuid
from pathlib import Path

import pytest

from umbel.worker import progress
from umbel.worker.progress import Progress, lease_clock


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_slot_says_what_runs_and_how_far_it_got() -> None:
    slot = Progress.create("session", 2).slot(1)
    assert slot.started() == 0
    assert slot.running() is None
    before = time.monotonic()
    slot.start(5)
    running = slot.running()
    assert running is not None
    assert running[0] == 5
    assert before <= running[1] <= time.monotonic()
    slot.finish(5)
    assert slot.running() is None
    assert slot.started() == 5


def test_what_was_said_to_begin_can_be_taken_back() -> None:
    mine = Progress.create("back", 2)
    slot = mine.slot(0)
    slot.start(5)
    slot.finish(5)
    slot.start(9)
    slot.take_back()
    assert slot.running() is None
    assert not mine.was_started(0, 9)
    assert mine.was_started(0, 5)
    slot.start(9)
    assert mine.was_started(0, 9)
    assert slot.running() is not None


def test_a_lease_is_seen_by_every_slot_until_it_lapses() -> None:
    mine = Progress.create("lease", 2)
    slots = [mine.slot(0), mine.slot(1), Progress.attach("lease").slot(1)]
    assert all(slot.is_leased() for slot in slots), "a session that has leased nothing yet"
    mine.hold(30.0, lease_clock())
    assert all(slot.is_leased() for slot in slots)
    mine.hold(30.0, lease_clock() - 31.0)
    assert not any(slot.is_leased() for slot in slots)


def test_a_killed_process_has_told_what_it_began() -> None:
    session = uuid.uuid4().hex
    mine = Progress.create(session, 3)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        Progress.attach(session).slot(2).start(41)
        os.write(write, b"x")
        signal.pause()
    assert os.read(read, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    later = Progress.open(session)
    assert later is not None
    assert later.slots == mine.slots == 3
    assert later.was_started(2, 41)
    assert not later.was_started(2, 42)
    assert not later.was_started(0, 1)
    assert mine.slot(2).running() is not None


def test_a_slot_that_is_not_there_counts_as_begun() -> None:
    assert Progress.create("small", 1).was_started(1, 1)


def test_a_session_that_left_no_file_is_unknown_and_a_removed_one_too() -> None:
    assert Progress.open("never") is None
    made = Progress.create("gone", 1)
    made.remove()
    made.remove()
    assert Progress.open("gone") is None


def test_files_are_private_and_old_ones_are_swept() -> None:
    Progress.create("old", 1)
    Progress.create("new", 1)
    folder = progress.directory()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.glob("*.progress"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    eight_days_ago = time.time() - 8 * 86400
    os.utime(progress._path("old"), (eight_days_ago, eight_days_ago))
    progress.sweep(time.time())
    assert Progress.open("old") is None
    assert Progress.open("new") is not None


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    progress._path("trap").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Progress.create("trap", 1)
    assert Progress.open("trap") is None
    assert victim.read_text() == "precious"
