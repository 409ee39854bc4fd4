"""`adelay` and `aapply_async` from event loops."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from umbel import Umbel
from umbel.app.publisher import publisher_of


@pytest.fixture
def add(app: Umbel) -> Any:
    @app.task(name="proj.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def ready(app: Umbel) -> int:
    return sum(depth.ready for depth in app.broker.depth([], time.time()).values())


def test_many_waiting_callers_are_all_stored(app: Umbel, add: Any) -> None:
    async def send() -> list[Any]:
        return await asyncio.gather(*(add.adelay(number) for number in range(300)))

    results = asyncio.run(send())
    assert len({result.id for result in results}) == 300
    assert ready(app) == 300


def test_several_loops_in_several_threads_share_the_publisher(app: Umbel, add: Any) -> None:
    def work() -> None:
        async def send() -> None:
            await asyncio.gather(*(add.aapply_async((number,), queue="q") for number in range(50)))

        asyncio.run(send())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ready(app) == 200


def test_errors_come_back_to_the_caller(add: Any) -> None:
    async def send() -> None:
        with pytest.raises(TypeError, match="'x'"):
            await add.adelay()

    asyncio.run(send())


def test_a_cancelled_caller_hurts_nobody(app: Umbel, add: Any) -> None:
    async def send() -> None:
        tasks = [asyncio.create_task(add.adelay(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(item, asyncio.CancelledError) for item in done[::2])
        assert not any(isinstance(item, BaseException) for item in done[1::2])

    asyncio.run(send())
    assert 10 <= ready(app) <= 20


def test_a_forked_child_has_a_publisher_of_its_own(app: Umbel, add: Any) -> None:
    asyncio.run(add.adelay(1))
    parents = publisher_of(app)
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(add.adelay(2))
            os._exit(0 if publisher_of(app) is not parents else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert ready(app) == 2


def test_eager_mode_runs_it_here(app: Umbel, add: Any) -> None:
    app.conf.task_always_eager = True
    assert asyncio.run(add.adelay(1, 2)).get() == 3
