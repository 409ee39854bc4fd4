"""The examples run: a real worker beside each, and requests through the application itself."""

from __future__ import annotations

import shutil

import pytest

from tests.docs.pages import ROOT, Block, Player

pytestmark = pytest.mark.slow

FLASK = """
from shop import create_app

app = create_app({"GREETING": "Hail"})
client = app.test_client()
sent = client.post("/greetings", data={"name": "Ada"})
print(sent.status_code)
task_id = sent.get_json()["id"]
app.extensions["umbel"].AsyncResult(task_id).get(timeout=10)
print(client.get(f"/greetings/{task_id}").get_json())
"""

ASYNCIO = """
import asyncio
import httpx
from web import api

async def main():
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        print((await client.get("/sum?x=2&y=3")).json())
        sent = await client.post("/sums", json={"x": 20, "y": 22})
        print(sent.status_code)
        print((await client.get(f"/sums/{sent.json()['id']}")).json())
        many = await asyncio.gather(*(client.get(f"/sum?x={n}&y={n}") for n in range(50)))
        print(sum(one.json()["value"] for one in many))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("example", "worker", "script", "printed"),
    [
        pytest.param("flask_app", "make_umbel", FLASK, "202\n{'state': 'SUCCESS', 'value': 'Hello Ada'}", id="flask"),
        pytest.param("asyncio_web", "tasks", ASYNCIO, "{'value': 5}\n202\n{'value': 42}\n2450", id="asyncio"),
    ],
)
def test_an_example_works(example, worker, script, printed, tmp_path, wait_until) -> None:
    folder = tmp_path / example
    shutil.copytree(ROOT / "examples" / example, folder)
    player = Player(folder, wait_until)
    try:
        player.play(Block("python", {"worker": worker}, script, 1))
        player.play(Block("text", {"output": ""}, printed, 1))
    finally:
        player.close()
