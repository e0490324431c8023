"""One application on three databases: settings, passwords and URLs."""

from __future__ import annotations

import logging
import secrets
import subprocess
import sys
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from conftest import USER_MODELS, Site, only_sqlite, reach, servers
from processes import environment
from sqlalchemy import orm
from support import make_app

from noventa import Config, Database

pytestmark = pytest.mark.slow

PASSWORD = "p%40@/:?#$ü"
CREATE_ROLES = {
    "postgresql": ["CREATE ROLE {0} LOGIN PASSWORD '{1}'", "ALTER DATABASE {2} OWNER TO {0}"],
    "mysql": ["CREATE USER {0}@'%' IDENTIFIED BY '{1}'", "GRANT ALL ON {2}.* TO {0}@'%'"],
}
REMOVE_ROLES = {
    "postgresql": ["REASSIGN OWNED BY {0} TO postgres", "DROP ROLE {0}"],
    "mysql": ["DROP USER {0}@'%'"],
}


@contextmanager
def role(site):
    """A database login whose password has every awkward character."""
    name, database = f"noventa_{secrets.token_hex(4)}", sa.make_url(site.url).database
    engine = reach("postgresql" if site.backend == "postgresql" else "mariadb")
    values = name, PASSWORD, database

    def execute(statements):
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement.format(*values)))

    execute(CREATE_ROLES[site.backend])
    try:
        yield name
    finally:
        site.write("config.yaml", f'database: "{site.url}"\n')
        if site.backend == "postgresql":
            site.execute(f"REASSIGN OWNED BY {name} TO postgres")  # in this database
        execute(REMOVE_ROLES[site.backend])


def mapping(site, user, password=PASSWORD, port=None):
    url = sa.make_url(site.url)
    return (
        f"database:\n  driver: {site.backend}\n  host: 127.0.0.1\n  port: {port or url.port}\n"
        f"  user: {user}\n  password: '{password}'\n  name: {url.database}\n"
    )


def run_alembic(site, *words):
    command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", *words]
    return subprocess.run(
        command, cwd=site.root, env=environment(), capture_output=True, text=True, check=False
    )


@servers
def test_a_password_with_special_characters_works_and_is_never_printed(site, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    site.write("components/user/user_models.py", USER_MODELS)
    site.register("components.user.user_models")
    with role(site) as user:
        site.write("config.yaml", mapping(site, user))
        site.autogenerate("users")
        succeeded = (
            run_alembic(site, "upgrade", "head", "--sql"),
            run_alembic(site, "upgrade", "head"),
        )
        assert [process.returncode for process in succeeded] == [0, 0]
        assert site.migrate("current") == 0
        database = Database(site.config)
        with database.session() as db:
            assert db.scalar(sa.text("SELECT count(*) FROM users")) == 0
        reprs = [repr(site.config), repr(database), repr(database.engine.url)]
        database.engine.dispose()
        site.write("config.yaml", mapping(site, user, port=1))  # nothing listens there
        failed = run_alembic(site, "upgrade", "head")
        assert failed.returncode == 255
        assert site.migrate() == 1
        assert site.run("seed") == 1
    captured = capfd.readouterr()
    outputs = [
        text for process in (*succeeded, failed) for text in (process.stdout, process.stderr)
    ]
    output = "".join([*outputs, *reprs, captured.out, captured.err, caplog.text])
    assert f"{user}:***@127.0.0.1" in output
    for secret in (PASSWORD, PASSWORD.replace("%", "%25"), "p%2540", "p%40@", "#$ü"):
        assert secret not in output
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_a_wrong_password_is_reported_without_printing_it(site, capsys):
    with role(site) as user:
        site.write("config.yaml", mapping(site, user, "a wrong one"))
        assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "Access denied" in message
    assert "a wrong one" not in message
    assert "Traceback" not in message


@servers
def test_the_sql_option_opens_no_connection(site, capsys):
    site.write("components/user/user_models.py", USER_MODELS)
    site.register("components.user.user_models")
    site.autogenerate("users")
    site.write("config.yaml", mapping(site, "nobody", port=1))
    assert site.migrate("upgrade", "head", "--sql") == 0
    assert "CREATE TABLE users" in capsys.readouterr().out
    assert site.migrate("downgrade", f"{site.revisions()[0].name.split('_')[0]}:base", "--sql") == 0
    assert "DROP TABLE users" in capsys.readouterr().out


@only_sqlite
def test_a_relative_path_names_one_file_from_any_directory_and_check_does_not_create_it(
    site, monkeypatch
):
    site.write("components/user/user_models.py", USER_MODELS)
    site.register("components.user.user_models")
    site.autogenerate("users")
    for path in site.root.glob("noventa.db*"):
        path.unlink()
    site.run("check")
    assert not list(site.root.rglob("*.db"))
    for folder in (site.root, site.root / "components", site.root.parent):
        monkeypatch.chdir(folder)
        assert site.migrate() == 0
    assert list(site.root.rglob("*.db")) == [site.root / "noventa.db"]
    assert not (site.root.parent / "noventa.db").exists()


def test_the_models_of_the_document_work_on_every_database(site):
    site.write("components/user/user_models.py", USER_MODELS)
    setting = USER_MODELS.replace("User", "SystemSetting").replace('"users"', '"system_settings"')
    setting = setting.replace("email:", "key:").replace("name: Mapped", "value: Mapped")
    site.write("models/global_models.py", setting)
    site.register("components.user.user_models models.global_models")
    site.autogenerate("both")
    assert site.migrate() == 0
    database = Database(site.config)
    with database.session() as db:
        db.execute(sa.text("INSERT INTO users (email, name) VALUES ('a', 'ä😀')"))
        db.commit()
        assert db.scalar(sa.text("SELECT name FROM users")) == "ä😀"
    database.engine.dispose()
    assert site.migrate("downgrade", "base") == 0
    assert site.tables() == set()


class People(orm.DeclarativeBase):
    pass


class Essays(orm.DeclarativeBase):
    pass


class Labels(orm.DeclarativeBase):
    pass


class Author(People):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    essays = orm.relationship(lambda: Essay, back_populates="author", cascade="all, delete-orphan")


class Essay(Essays):
    __tablename__ = "essays"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
    author: orm.Mapped[Author] = orm.relationship(Author, back_populates="essays")
    labels = orm.relationship(
        lambda: Label, secondary=lambda: essay_labels, back_populates="essays"
    )


class Label(Labels):
    __tablename__ = "labels"
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    essays = orm.relationship(Essay, secondary=lambda: essay_labels, back_populates="labels")


essay_labels = sa.Table(
    "essay_labels", sa.MetaData(),
    sa.Column("essay", sa.ForeignKey(Essay.id), primary_key=True),
    sa.Column("label", sa.ForeignKey(Label.name), primary_key=True),
)  # fmt: skip


def test_relationships_work_across_different_bases(tmp_path, database):
    models = [People, Essays, Labels, essay_labels]
    for _ in range(2):  # the second time every mapper is configured already
        app = make_app(tmp_path, config={"database": database}, models=models)
    with app.database.session() as db:
        essay = Essay(author=Author(), labels=[Label(name="a"), Label(name="b")])
        db.add(essay)
        db.commit()
        assert db.scalars(sa.select(Author).join(Author.essays)).one().essays == [essay]
        assert db.scalars(sa.select(Essay).join(Essay.labels).filter_by(name="b")).one() is essay
        label = db.get(Label, "a")
        label.essays.clear()
        db.commit()
        assert [label.name for label in essay.labels] == ["b"]
        db.delete(essay.author)
        db.commit()
        assert db.scalar(sa.select(sa.func.count()).select_from(essay_labels)) == 0
    app.database.engine.dispose()


def test_an_unreachable_database_is_reported_in_one_message(tmp_path, capsys):
    for driver in ("postgresql", "mysql"):
        site = Site(tmp_path / driver, f"{driver}://somebody:secret@127.0.0.1:1/nothing")
        site.write("components/user/user_models.py", USER_MODELS)
        site.register("components.user.user_models")
        for words in (["migrate"], ["seed"], ["migrate", "--adopt"]):
            assert site.run(*words) == 1
        message = capsys.readouterr().err
        assert message.count("somebody:***@127.0.0.1:1/nothing") == 3
        assert "secret" not in message


def test_the_url_of_a_config_round_trips_with_any_password():
    parts = {"driver": "postgresql", "host": "h", "user": "u", "password": PASSWORD, "name": "n"}
    url = Config.from_mapping({"database": parts}, ".").database_url
    assert url.password == PASSWORD
    assert sa.make_url(url.render_as_string(hide_password=False)).password == PASSWORD
