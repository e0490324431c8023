"""Models and histories like those of public projects: what they make is what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import DATABASES

from noventa import App
from noventa_cli import load_project, project_imports

pytestmark = pytest.mark.slow

SCHEMAS = Path(__file__).parent / "data" / "schemas"
PLACES = {
    "microblog": DATABASES,
    "contest": DATABASES,
    "recipes": DATABASES,
    "packages": ("postgresql",),
}
EVERYWHERE = [(name, place) for name, places in PLACES.items() for place in places]


def settle(site, name):
    """Makes a file of tests/data/schemas the models of the project."""
    site.write(f"models/{name}.py", (SCHEMAS / f"{name}.py").read_text("utf-8"))
    site.register(f"models.{name}")
    if name == "packages":
        only(site, "postgresql")
        extension = 'op.execute("CREATE EXTENSION citext")', 'op.execute("DROP EXTENSION citext")'
        site.revision("c0", *extension)
        assert site.migrate() == 0


def only(site, *databases):
    """Has `check` look at the models as these databases take them."""
    text = f'database: "{site.url}"\nmigrations: {{portable_to: [{", ".join(databases)}]}}\n'
    site.write("config.yaml", text)


def left(site):
    """What a downgrade should have taken away: tables of every schema, and PostgreSQL's enums."""
    found = sa.inspect(site.engine)
    if site.backend != "postgresql":
        return site.tables()
    schemas = {*found.get_schema_names()} - {"information_schema"}
    tables = {name for schema in schemas for name in found.get_table_names(schema)}
    return tables - {"alembic_version"} | {enum["name"] for enum in found.get_enums("*")}


def use(site, name):
    """Rows are written and read through the application, each in a transaction of its own."""
    with project_imports(site.root):
        project = load_project(site.root)
        app, models = App(project.registry, project.config), sys.modules[f"models.{name}"]
        with app.database.session() as db:
            models.fill(db)
            db.commit()
        with app.database.session() as db:
            assert models.read(db) == models.READ
        app.database.engine.dispose()


@pytest.mark.parametrize(("name", "database"), EVERYWHERE, indirect=["database"])
def test_real_models_are_made_as_they_say_and_taken_away_whole(site, capsys, name):
    settle(site, name)
    site.autogenerate("tables")
    assert site.migrate() == 0, capsys.readouterr().err
    assert site.run("check") == 0, capsys.readouterr().err
    assert site.migrate("revision", "--autogenerate", "-m", "again") == 0
    assert "Nothing has changed" in capsys.readouterr().out
    use(site, name)
    assert site.migrate("downgrade", "base") == 0, capsys.readouterr().err
    assert left(site) == set()
    assert site.migrate() == 0, capsys.readouterr().err
