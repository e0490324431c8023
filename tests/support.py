"""What the tests of the core share: an application written in the test itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from noventa import App, Config, Registry

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
