"""A Flask application whose tasks run within its application context."""

from __future__ import annotations

from typing import Any

from flask import Flask

from shop import queue, views


def create_app(settings: dict[str, Any] | None = None) -> Flask:
    """Make the application; `settings` come before its defaults."""
    app = Flask(__name__)
    app.config.from_mapping(GREETING="Hello", UMBEL={"broker_url": "sqlite:///shop.db"})
    app.config.from_mapping(settings or {})
    queue.init_app(app)
    app.register_blueprint(views.blueprint)
    return app
