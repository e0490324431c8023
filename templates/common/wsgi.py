# wsgi.py: what gunicorn, waitress, uWSGI, mod_wsgi and `noventa serve` all run
from pathlib import Path

from noventa import App, Config

from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app  # what is served; WSGI middleware goes around this name
