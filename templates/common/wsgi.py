# wsgi.py: the entry point for gunicorn, waitress, uWSGI, mod_wsgi and `noventa serve`
from pathlib import Path

from noventa import App, Config

from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app  # this is served; wrap WSGI middleware around it
