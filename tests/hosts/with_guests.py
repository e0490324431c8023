"""Other applications mounted in Noventa, which itself is mounted below a prefix."""

from pathlib import Path

import django_guest
import flask_guest
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from noventa import App, Config, Mount, Registry

registry = Registry(
    routes=[
        Mount("/flask", flask_guest.application),
        Mount("/django", django_guest.application),
    ]
)
noventa = App(registry, Config.load(Path(__file__).parent))
application = DispatcherMiddleware(NotFound(), {"/m": noventa})
