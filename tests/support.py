"""What the tests of the core share: an application written in the test itself."""

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

SECRET = "a secret of the tests, long enough for anybody"


def make_module(name: str, source: str) -> ModuleType:
    """A module made of source text, as if imported: its functions know its name."""
    module = ModuleType(name)
    module.__file__ = f"{name.replace('.', '/')}.py"
    sys.modules[name] = module  # SQLAlchemy resolves Mapped[...] through it
    exec(compile(dedent(source), module.__file__, "exec"), module.__dict__)
    return module


def users_module(name: str = "user.user_models", base: str = "Base", table: str = "users") -> Any:
    """A module with a model `User`, of a Base of its own."""
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
"""  # for a module of handlers to begin with


def make_app(
    root: Path,
    files: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    **registry: Any,
) -> App:
    """An application in `root`: `files` are its templates, `registry` the arguments of Registry.

    The database is a file in `root`, unless `config` names another; its tables are made at once.
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


# ---- for a project that is driven through its command line: the Site of conftest.py

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
    """Runs `migrate` with each of these; all must succeed. What they say is in the report."""
    for verb in verbs:
        assert site.migrate(*verb.split()) == 0, verb


def apply(site: Any, models: str, *words: str) -> str:
    """Has the models reach the database by a generated revision; returns its text."""
    site.models(models)
    text: str = site.autogenerate("change", *words)
    go(site, "upgrade head")
    return text


def refuse(site: Any, capsys: Any, verb: str = "", command: str = "migrate") -> str:
    """Runs the command, which must exit with 1 and without a traceback; returns its message."""
    capsys.readouterr()
    assert site.run(command, *verb.split()) == 1
    message: str = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def alembic(site: Any, *words: str) -> int:
    """The command `alembic` in this process. Returns its exit code."""
    with project_imports(site.root):
        try:
            alembic_main(["-c", str(site.root / "migrations/alembic.ini"), *words])
        except SystemExit as end:
            return int(end.code or 0) & 0xFF
    return 0


def faults(site: Any) -> str:
    """What `check` finds in models and revisions, without the database."""
    with project_imports(site.root):
        project = load_project(site.root)
        return "\n".join(map(str, [*portability_faults(project), *revision_faults(project)]))


def lacks(text: str, *parts: str) -> list[str]:
    """Those parts that the text does not have."""
    return [part for part in parts if part not in text]
