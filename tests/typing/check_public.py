"""What type checkers must accept and refuse; a refused line names the error that it must get."""

from __future__ import annotations

from typing import Any, assert_type

from umbel import AsyncResult, Signature, Umbel
from umbel.app.task import Task

app = Umbel("typed", set_as_current=False)


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task(max_retries=5)
def named(x: str) -> str:
    return x


@app.task(bind=True)
def bound(self: Task[..., Any], x: int) -> float:
    return x / 2


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


assert_type(add(1, 2), int)
assert_type(add.delay(1), AsyncResult[int])
assert_type(add.apply_async((1,)).get(), int)
assert_type(add.si(1), Signature[int])
assert_type(named.delay("x"), AsyncResult[str])
assert_type(bound.delay(1), AsyncResult[float])
assert_type(fetch.delay("x"), AsyncResult[bytes])

add.delay("x")  # expect-error: arg-type
add.delay()  # expect-error: call-arg
add.delay(1, z=2)  # expect-error: call-arg
named.delay(1)  # expect-error: arg-type
bound.delay("x")  # expect-error: arg-type
bound.delay(1, 2)  # expect-error: call-arg
fetch.delay(1)  # expect-error: arg-type
add.si("x")  # expect-error: arg-type


async def main() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await fetch("x"), bytes)
    await add.adelay("x")  # expect-error: arg-type
