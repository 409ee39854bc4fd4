"""What the worker is started with: `umbel -A make_umbel worker -l INFO`."""

from __future__ import annotations

from shop import create_app

flask_app = create_app()
app = flask_app.extensions["umbel"]
