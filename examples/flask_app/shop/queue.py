"""How the Flask application and the task queue meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel import Task, Umbel

if TYPE_CHECKING:
    from flask import Flask


def init_app(app: Flask) -> Umbel:
    """Give `app` a task queue: its tasks run within the application context."""

    class ContextTask(Task[..., Any]):
        """A task in which `flask.current_app` and extensions work as in a request."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run the body within the application context."""
            with app.app_context():
                return self.run(*args, **kwargs)

    umbel = Umbel(app.name, task_cls=ContextTask)
    umbel.config_from_object(app.config["UMBEL"])
    umbel.set_default()
    app.extensions["umbel"] = umbel
    return umbel
