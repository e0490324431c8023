# wsgi.py: what gunicorn, waitress, uWSGI, mod_wsgi and `noventa serve` all run
from pathlib import Path

from noventa import App, Config

from registry import registry

application = App(registry, Config.load(Path(__file__).parent))
