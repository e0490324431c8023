"""Helpers of the core's tests: applications that are written in the tests themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from alembic.config import main as alembic_main

from noventa import App, Config, Registry
from noventa_cli import load_project, portability_faults, project_imports, revision_faults

SECRET = "a secret key for tests, 32 characters or more"


def make_module(name: str, source: str) -> ModuleType:
    """Create a module from source text as if it were imported: its functions have its name."""
    module = ModuleType(name)
    module.__file__ = f"{name.replace('.', '/')}.py"
    sys.modules[name] = module  # SQLAlchemy resolves Mapped[...] through it
    exec(compile(dedent(source), module.__file__, "exec"), module.__dict__)
    return module


def users_module(name: str = "user.user_models", base: str = "Base", table: str = "users") -> Any:
    """Create a module with a model `User` that has its own Base."""
    return make_module(
        name,
        f"""
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

        class {base}(DeclarativeBase):
            pass

        class User({base}):
            __tablename__ = {table!r}
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]
        """,
    )


NOTES = """
    import sqlalchemy as sa
    from sqlalchemy import orm

    class Base(orm.DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        text: orm.Mapped[str] = orm.mapped_column(sa.Text)
"""  # the start of a module of handlers


def make_app(
    root: Path,
    files: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    **registry: Any,
) -> App:
    """Create an application in `root` with templates (`files`) and arguments of Registry.

    The database is a file in `root` unless `config` names another. Its tables are created, too.
    """
    for name, text in (files or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), "utf-8")
    settings = {"database": "sqlite:///./test.db", "secret_keys": [SECRET], **(config or {})}
    app = App(Registry(**registry), Config.from_mapping(settings, root))
    if app.registry.metadata.tables:
        app.registry.metadata.create_all(app.database.engine)
    return app


# ---- Helpers for projects that are run through their command line: the Site of conftest.py

ITEM = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
"""
CHILD = """
class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"))
"""
AGAIN = ("upgrade head", "downgrade base", "upgrade head", "check")


def go(site: Any, *verbs: str) -> None:
    """Run `migrate` with each of `verbs`; all must succeed."""
    for verb in verbs:
        assert site.migrate(*verb.split()) == 0, verb


def apply(site: Any, models: str, *words: str) -> str:
    """Migrate the database to the models with a generated revision, and return its text."""
    site.models(models)
    text: str = site.autogenerate("change", *words)
    go(site, "upgrade head")
    return text


def refuse(site: Any, capsys: Any, verb: str = "", command: str = "migrate") -> str:
    """Run a command that must exit with 1 and without a traceback, and return its message."""
    capsys.readouterr()
    assert site.run(command, *verb.split()) == 1
    message: str = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def alembic(site: Any, *words: str) -> int:
    """Run the command `alembic` in this process, and return its exit code."""
    with project_imports(site.root):
        try:
            alembic_main(["-c", str(site.root / "migrations/alembic.ini"), *words])
        except SystemExit as end:
            return int(end.code or 0) & 0xFF
    return 0


def faults(site: Any) -> str:
    """Return what `check` reports about models and revisions without the database."""
    with project_imports(site.root):
        project = load_project(site.root)
        return "\n".join(map(str, [*portability_faults(project), *revision_faults(project)]))


def lacks(text: str, *parts: str) -> list[str]:
    """Return the parts that are missing from the text."""
    return [part for part in parts if part not in text]
