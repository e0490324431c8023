# migrations/env.py, written by noventa
from pathlib import Path

from noventa import Config
from noventa_cli import run_migrations

from registry import registry

# More keywords go to context.configure().
run_migrations(registry, Config.load(Path(__file__).parents[1]))
