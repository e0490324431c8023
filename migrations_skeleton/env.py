# migrations/env.py, written by noventa
from pathlib import Path

from noventa import Config
from noventa_cli import run_migrations

from registry import registry

# Further keyword arguments are passed to context.configure().
run_migrations(registry, Config.load(Path(__file__).parents[1]))
