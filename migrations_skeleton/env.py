# migrations/env.py, written by noventa
from pathlib import Path
from noventa import Config
from noventa_cli import run_migrations
from registry import registry

run_migrations(registry, Config.load(Path(__file__).parents[1]))   # more keywords go to context.configure()
