"""Tasks that belong to every app."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel import Umbel, shared_task


@shared_task(name="everywhere.double")
def double(x: int) -> int:
    return 2 * x


def test_a_shared_task_is_in_every_app_and_resolves_to_the_current_one(app: Umbel, tmp_path: Path) -> None:
    with Umbel("second", broker=f"sqlite:///{tmp_path}/b.db", set_as_current=False) as second:
        assert "everywhere.double" in second.tasks
        assert double.app is app
        assert double(4) == 8
        assert double.delay(1).app is app
        assert second.tasks["everywhere.double"].delay(1).app is second


def test_a_task_of_one_app_is_lent_to_those_finalized_later_unless_it_says_no(app: Umbel, tmp_path: Path) -> None:
    @app.task(name="lent")
    def lent() -> str:
        return "x"

    @app.task(name="kept", shared=False)
    def kept() -> None: ...

    with Umbel("borrower", broker=f"sqlite:///{tmp_path}/c.db", set_as_current=False) as other:
        assert other.tasks["lent"].app is other
        assert other.tasks["lent"]() == "x"
        assert "kept" not in other.tasks


def test_a_task_is_not_decorated_twice(app: Umbel) -> None:
    with pytest.raises(TypeError, match="once"):
        shared_task(double)
    with pytest.raises(TypeError, match="once"):
        app.task(app.task(test_a_task_is_not_decorated_twice))
