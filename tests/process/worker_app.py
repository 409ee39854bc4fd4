"""The app that the workers of the process tests load: everything comes from the environment."""

from __future__ import annotations

import json
import os

from tests.process import nested
from tests.process.jobs import hog, make_app

app = make_app(os.environ["LAB_URL"], json.loads(os.environ.get("LAB_SETTINGS", "{}")))
nested.define(app)
for name in filter(None, os.environ.get("LAB_WITHOUT", "").split(",")):
    del app.tasks[name]
if os.environ.get("LAB_HOG"):
    hog()
