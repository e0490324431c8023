"""Noventa mounted in another Noventa application with its own database and keys."""

from pathlib import Path

from wsgi import application as guest

from noventa import App, Config, Mount, Registry

registry = Registry(routes=[Mount("/m", guest)])
settings = {"database": "sqlite:///./outer.db", "secret_keys": ["the outer app's key " * 2]}
application = App(registry, Config.from_mapping(settings, Path(__file__).parent))
