"""Modules with tasks are found and imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel import Umbel
from umbel.app.loading import load_symbol
from umbel.core.errors import ImproperlyConfigured, NotSupportedError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"shop_{abs(hash(request.node.name)) % 10**8}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tasks.py").write_text(
        "from umbel import shared_task\n\n@shared_task\ndef ship():\n    return 'shipped'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_packages_are_searched_when_modules_are_imported(app: Umbel, package: str) -> None:
    app.autodiscover_tasks([package, "json"])
    assert f"{package}.tasks.ship" not in app.tasks
    app.import_default_modules()
    assert app.tasks[f"{package}.tasks.ship"]() == "shipped"


def test_force_searches_now_and_takes_a_function(app: Umbel, package: str) -> None:
    app.autodiscover_tasks(lambda: [package], force=True)
    assert f"{package}.tasks.ship" in app.tasks


def test_include_names_modules(app: Umbel, package: str) -> None:
    app.conf.include = [f"{package}.tasks"]
    app.import_default_modules()
    assert f"{package}.tasks.ship" in app.tasks


def test_an_error_inside_a_module_is_raised(app: Umbel, package: str, tmp_path: Path) -> None:
    (tmp_path / package / "tasks.py").write_text("import no_such_module_here\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        app.autodiscover_tasks([package], force=True)


def test_without_packages_it_says_what_is_missing(app: Umbel) -> None:
    with pytest.raises(NotSupportedError, match="packages="):
        app.autodiscover_tasks()


def test_a_path_that_leads_nowhere_is_named() -> None:
    assert load_symbol("json:dumps") is load_symbol("json.dumps")
    with pytest.raises(ImproperlyConfigured, match="json"):
        load_symbol("json:nothing")
