"""Below a prefix in another Noventa application, with a database and keys of its own."""

from pathlib import Path

from noventa import App, Config, Mount, Registry
from wsgi import application as inner

registry = Registry(routes=[Mount("/m", inner)])
settings = {"database": "sqlite:///./outer.db", "secret_keys": ["the outer application's own secret"]}
application = App(registry, Config.from_mapping(settings, Path(__file__).parent))
