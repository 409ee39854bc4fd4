"""A Starlette application that sends tasks and waits for them without blocking its event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tasks import add, app

from umbel.celery.exceptions import TimeoutError as ResultTimeout

if TYPE_CHECKING:
    from starlette.requests import Request

#: How long a request may wait for its task (seconds).
PATIENCE = 5.0


async def send(request: Request) -> JSONResponse:
    """Send a sum; answer with its id."""
    numbers = await request.json()
    result = await add.adelay(numbers["x"], numbers["y"])
    return JSONResponse({"id": result.id}, status_code=202)


async def show(request: Request) -> JSONResponse:
    """Wait a little for a sum; tell its value, or that it is not there yet."""
    result = app.AsyncResult(request.path_params["task_id"])
    try:
        return JSONResponse({"value": await result.aget(timeout=PATIENCE)})
    except ResultTimeout:
        return JSONResponse({"value": None}, status_code=202)


async def at_once(request: Request) -> JSONResponse:
    """Send a sum and wait for it within the request: only for tasks that are short."""
    query = request.query_params
    result = await add.adelay(int(query["x"]), int(query["y"]))
    return JSONResponse({"value": await result.aget(timeout=PATIENCE)})


api = Starlette(
    routes=[
        Route("/sums", send, methods=["POST"]),
        Route("/sums/{task_id}", show),
        Route("/sum", at_once),
    ]
)
