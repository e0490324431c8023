# wsgi.py: the entry point for gunicorn, waitress, uWSGI, mod_wsgi and `noventa serve`
from pathlib import Path

from noventa import App, Config

from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app  # the served application; wrap this name in WSGI middleware
