"""Every page's code runs, prints what the page shows, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, SERVERS, Block, Player, blocks_of, is_runnable, matches
from umbel.app import signals
from umbel.core.settings.table import BY_NAME

#: Words that look like settings: names of tasks and signals, and what umbel adds to none.
NO_SETTINGS = frozenset(signals.__all__) | {
    "task_id",
    "task_name",
    "task_args",
    "task_kwargs",
    "task_cls",
    "result_from_tuple",
    "result_chord_ordered",
}
_SETTING = re.compile(r"`((?:task|worker|result|broker|beat)_[a-z_]+)(?:=[^`]*)?`")
RUNNABLE = [page for page in PAGES if any(is_runnable(block) for block in blocks_of(page))]
_LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def player_for(tmp_path, wait_until, request):
    """Make a player for blocks, with a private server for each address that they name."""
    players = []

    def make(blocks: list[Block]) -> Player:
        named = {shown: fixture for shown, fixture in SERVERS.items() if any(shown in block.text for block in blocks)}
        addresses = {shown: request.getfixturevalue(fixture) for shown, fixture in named.items()}
        players.append(Player(tmp_path, wait_until, addresses))
        return players[-1]

    yield make
    for player in players:
        player.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_code_of_a_page_runs(page, player_for) -> None:
    blocks = list(blocks_of(page))
    player = player_for(blocks)
    for block in blocks:
        player.play(block)


@pytest.mark.slow
@pytest.mark.parametrize("address", SERVERS, ids=lambda address: address.partition(":")[0])
def test_the_first_example_runs_on_every_engine_by_changing_the_url(address, player_for) -> None:
    blocks = [block for block in blocks_of(ROOT / "README.md") if block.language in ("python", "text")]
    program = blocks[0]._replace(text=blocks[0].text.replace('Umbel("tasks")', f'Umbel("tasks", broker="{address}")'))
    assert address in program.text
    player = player_for([program])
    for block in (program, *blocks[1:]):
        player.play(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_and_headings(page) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            anchors = {_anchor(heading) for heading in _HEADING.findall(target.read_text())}
            assert anchor in anchors, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
    missing = [name_of(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page != index]
    assert [name for name in missing if (ROOT / name) not in linked] == []


def test_an_expectation_can_fail() -> None:
    assert matches("a ... c", "a b c\n")
    assert not matches("a ... c", "a b d\n")


def test_every_setting_that_a_page_names_exists() -> None:
    known = set(BY_NAME)
    unknown = {
        f"{name_of(page)}: {name}"
        for page in PAGES
        for name in _SETTING.findall(page.read_text())
        if name not in known and name not in NO_SETTINGS
    }
    assert unknown == set()


def test_every_test_that_a_page_names_exists() -> None:
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src" / "umbel" / "testing").rglob("*.py")]
    known = {name for source in sources for name in re.findall(r"def (test_\w+)", source.read_text())}
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
    named = {name for page in pages for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    assert named - known == set()
