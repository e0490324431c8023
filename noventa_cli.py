"""Noventa's command line. Each command is a function; its docstring is its help.

Entry                 `main(argv) -> int`: the parser only translates
Output                what is printed, and how a fault is shown
Projects              finding and importing a project, making a new one
Server                waitress, reloading, stopping
Migrations and seeds  what env.py runs, and the commands around Alembic
Inspection            check, routes, shell, run
Guide                 help
Workbench             what debug shows of an application, at /_noventa/
"""

from __future__ import annotations

import argparse
import ast
import builtins
import code
import configparser
import copy
import datetime
import difflib
import errno
import functools
import hashlib
import http
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import keyword
import linecache
import logging
import math
import os
import platform
import pydoc
import re
import reprlib
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import traceback
import uuid
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple, TextIO, cast
from urllib.parse import quote, unquote

import jinja2
import jinja2.nodes
import sqlalchemy as sa
import webob
import yaml
from alembic import context
from alembic.autogenerate import comparators, produce_migrations, renderers
from alembic.config import CommandLine
from alembic.config import Config as AlembicConfig
from alembic.ddl.base import ColumnName
from alembic.ddl.sqlite import SQLiteImpl
from alembic.migration import MigrationContext
from alembic.operations import Operations, ops, toimpl
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, DispatchPriority
from mako.exceptions import MakoException  # type: ignore[import-untyped]
from markupsafe import Markup
from sqlalchemy import event, exc, orm
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.schema import CreateIndex, CreateTable, sort_tables_and_constraints
from sqlalchemy.sql.util import find_tables
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import generic_repr
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server

from noventa import (
    CONVERTERS,
    EXTRAS,
    SETTINGS,
    STARTER_KEY,
    TEMPLATE_SUFFIXES,
    Answer,
    App,
    Call,
    Component,
    Components,
    Config,
    ConfigError,
    Database,
    Fault,
    NoventaError,
    Page,
    Registry,
    Rejection,
    Request,
    RequestContext,
    Router,
    Static,
    __version__,
    actions_of,
    compile_registry,
    current_revisions,
    data_folder,
    described,
    did_you_mean,
    host_name,
    insert_notice,
    is_loopback,
    is_query,
    is_unbounded,
    lacks_file,
    make_engine,
    members_of,
    name_of,
    one_line,
    parameter_of,
    place_of,
    pooler_fault,
    reading,
    registry_faults,
    reply,
    revision_mismatch,
    revision_script,
    route_faults,
    seed_name,
    shown_traceback,
    shown_url,
    strict_policy,
    template_faults,
    version_table,
    with_length,
    wrong_types,
)

# ---- Entry ----------------------------------------------------------------------------------

# Every command with its arguments; the function of that name gets them by name.
COMMANDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "new": {
        "name": {"metavar": "NAME", "help": "the folder to make; its last part is the name"},
        "--serve": {"action": "store_true", "dest": "and_serve", "help": "serve it at once"},
        "--empty": {"action": "store_true", "help": "one page and its test, no demo"},
        "--database": {"metavar": "URL", "help": "instead of a file of SQLite in the folder"},
    },
    "new component": {"name": {"metavar": "NAME", "help": "in lower case, like user_list"}},
    "serve": {
        "--host": {"help": "instead of server.host"},
        "--port": {"type": int, "help": "instead of server.port; 0 takes a free one"},
        "--threads": {"type": int, "help": "instead of server.threads"},
        "--reload": {"action": "store_true", "help": "restart when Python or config.yaml changes"},
        "--debug": {"action": "store_true", "help": "as debug: true; on this machine only"},
        "--verbose": {"action": "store_true", "help": "whole tracebacks in the log"},
    },
    "migrate": {
        "arguments": {
            "nargs": argparse.REMAINDER, "metavar": "VERB …",
            "help": "any verb of Alembic with its arguments; `upgrade head` unless given",
        },
    },
    "seed": {
        "--list": {"action": "store_true", "dest": "show_list", "help": "say which have run"},
        "--again": {"metavar": "NAME", "help": "run this one again"},
    },
    "check": {
        "--deploy": {"action": "store_true", "help": "also what matters in production only"},
        "--json": {"action": "store_true", "dest": "as_json", "help": "for programs"},
    },
    "routes": {
        "--wide": {"action": "store_true", "help": "as a table, however narrow the terminal is"},
        "--json": {"action": "store_true", "dest": "as_json", "help": "for programs"},
    },
    "shell": {},
    "run": {
        "file": {"metavar": "FILE", "help": "the Python file to run"},
        "arguments": {"nargs": argparse.REMAINDER, "metavar": "ARGS", "help": "for its sys.argv"},
    },
    "help": {"topic": {"nargs": "?", "metavar": "TOPIC", "help": "a chapter, like first_steps"}},
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 when done, 1 for a fault the user can mend, 2 for wrong usage."""
    try:
        options = _parse(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as end:  # argparse's way to leave, also after --help
        return int(end.code or 0)

    try:
        code = _run(options)
        sys.stdout.flush()
        return code
    except NoventaError as error:
        return complain(str(error))
    except BrokenPipeError:  # who reads has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        return 1
    except KeyboardInterrupt:
        return 130  # as shells report SIGINT


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, own = _parser(), argparse.ArgumentParser("noventa", add_help=False, allow_abbrev=False)
    own.add_argument("--project", metavar="DIR", default=".")  # it may stand anywhere
    argv, of_script = _split_at_script(argv)
    known, rest = own.parse_known_args(argv)
    if rest[:2] == ["new", "component"]:
        rest[:2] = ["new component"]
    name = next(iter(rest), "--help")
    if not name.startswith("-") and name not in COMMANDS:
        parser.error(f"{name!r} is no command; {did_you_mean(name, COMMANDS)}")
    if name == "migrate" and rest[1:2] not in (["-h"], ["--help"]):
        known.command, known.arguments = name, rest[1:]  # Alembic parses its own
        return known
    options = parser.parse_args(rest or ["--help"], known)
    if name == "run":
        options.arguments = of_script
    return options


def _split_at_script(argv: list[str]) -> tuple[list[str], list[str]]:
    """What follows `run FILE` is the script's own, a `--project` too."""
    plain = [
        n for n, word in enumerate(argv)
        if not word.startswith("--project") and argv[n - 1 : n] != ["--project"]
    ]  # fmt: skip
    if len(plain) < 2 or argv[plain[0]] != "run":
        return argv, []
    return argv[: plain[1] + 1], argv[plain[1] + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="noventa",
        description="Noventa: server-rendered pages made of components, on a real database.",
        epilog="`noventa COMMAND --help` says more. Exit: 0 done, 1 a fault, 2 wrong usage.",
    )
    parser.add_argument("--project", metavar="DIR", help="the project's folder (default: here)")
    version = f"noventa {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print it and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, arguments in COMMANDS.items():
        text = inspect.getdoc(_function(name)) or ""
        sub = commands.add_parser(
            name, help=text.partition("\n")[0], description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        for flag, settings in arguments.items():
            sub.add_argument(flag, **settings)
    return parser


def _run(options: argparse.Namespace) -> int:
    values = vars(options)  # named as the function's parameters are
    name, place = values.pop("command"), Path(values.pop("project"))
    if name == "new":
        return new(str(place / values.pop("name")), **values)
    if name == "help":
        return guide(**values)
    root = place.resolve()
    with project_imports(root):
        subject = root if name in ("serve", "check", "new component") else load_project(root)
        return _function(name)(subject, **values)


def _function(command: str) -> Callable[..., int]:
    functions: dict[str, Callable[..., int]] = {
        "new": new, "new component": new_component, "serve": serve, "migrate": migrate,
        "seed": seed, "check": check, "routes": routes, "shell": shell, "run": run,
        "help": guide,
    }  # fmt: skip
    return functions[command]


# ---- Output ---------------------------------------------------------------------------------


_PATIENCE = 1  # seconds before what is going on is said
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36}  # of the terminal's own palette


def say(text: str) -> None:
    """Progress, for people: to standard output, at once."""
    print(wrapped(text, sys.stdout), flush=True)


def complain(text: str) -> int:
    """A fault, to standard error. Returns the exit code that belongs to it."""
    sys.stdout.flush()
    print(wrapped(text, sys.stderr), file=sys.stderr, flush=True)
    return 1


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal that `stream` is; None for a pipe or a file."""
    return max(20, shutil.get_terminal_size().columns) if stream.isatty() else None


def wrapped(text: str, stream: TextIO, indent: int = 2) -> str:
    """Lines that are longer than a terminal is wide, broken between words; the rest of each
    stands `indent` further in. A pipe or file gets the text as it is."""
    width = width_of(stream)
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        deeper = " " * (len(line) - len(line.lstrip()) + indent)
        fold = len(line) > width and not line.isspace()
        lines += textwrap.wrap(
            line, width, subsequent_indent=deeper, break_long_words=False, break_on_hyphens=False
        ) if fold else [line]  # fmt: skip
    return "\n".join(lines)


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour on a terminal; as it is elsewhere, and with NO_COLOR (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if stream.isatty() and not plain else text


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Says what is going on once that takes more than a second."""

    def tell() -> None:
        _end_live()
        say(f"{text} …")

    timer = threading.Timer(_PATIENCE, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows, of equal length, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _end_live() -> None:
    if sys.stdout.isatty():
        print("\r\x1b[2K", end="", flush=True)


# -- errors


def _reason(error: Exception) -> str:
    """The first line of an error, of the driver's if it is one, for the rest may show values."""

    if isinstance(error, NoventaError):
        return str(error)
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"


@contextmanager
def _reached(config: Config) -> Iterator[None]:
    """A database that cannot be reached is one message; its password is in none."""

    try:
        yield
    except sa.exc.DBAPIError as error:
        where = shown_url(config.database_url)
        raise NoventaError(f"Database {where}: {_reason(error)}.") from None


_CORE = {"noventa.py", "noventa_cli.py"}
_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = sysconfig.get_path("stdlib")


def _line_of(frame: FrameType, line: int, root: Path) -> str:
    """`pages/index.html:7`: where in the project a frame stands; empty for one of a library."""
    template = frame.f_globals.get("__jinja_template__")
    if template is not None:
        return f"{template.name}:{template.get_corresponding_lineno(line)}"
    file = _file_of_project(frame.f_code.co_filename, root)
    return f"{file}:{line}" if file else ""


@functools.lru_cache(maxsize=1_000)
def _file_of_project(name: str, root: Path) -> str:
    """A file of Python as the project names it; empty for one of a library."""
    path = Path(name)
    if not path.is_absolute() or path.name in _CORE or _INSTALLED.intersection(path.parts):
        return ""
    if path.is_relative_to(_STDLIB):
        return ""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it; not the driver's, which says the same."""
    seen: list[BaseException | None] = [None]
    found: BaseException | None = error
    while found is not None and found not in seen:
        yield found
        seen += [found, getattr(found, "orig", None)]
        before = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
        found = None if before in seen else before


def _exception_line(error: BaseException) -> str:
    """`KeyError: 'Admin'`; of SQLAlchemy's errors only what the driver said."""
    message = getattr(error, "orig", None) or error
    return traceback.format_exception_only(message)[-1].strip()


@dataclass(eq=False)
class Step:
    """A frame of a traceback; one of a template has the template's own line."""

    where: str
    own: bool  # of the project, not of a library
    in_template: bool
    frame: FrameType
    summary: traceback.FrameSummary

    @property
    def spot(self) -> tuple[int, int] | None:
        """The columns of the expression that failed (PEP 657), where it stands in one line."""
        lines, begin, end = self.summary, self.summary.colno, self.summary.end_colno
        if begin is None or end is None or lines.lineno is None or lines.lineno != lines.end_lineno:
            return None
        text = linecache.getline(lines.filename, lines.lineno).encode()
        whole = len(text.strip()) <= end - begin
        return None if whole else (len(text[:begin].decode()), len(text[:end].decode()))


def _frames(error: BaseException, root: Path) -> list[Step]:
    """The frames of a traceback, the innermost last."""
    steps, frames = list[Step](), traceback.walk_tb(error.__traceback__)
    for (frame, line), found in zip(frames, traceback.extract_tb(error.__traceback__), strict=True):
        where, summary = _line_of(frame, line, root), found
        template = frame.f_globals.get("__jinja_template__")
        rewritten = "__jinja_exception__" in frame.f_globals
        if template:
            at = template.get_corresponding_lineno(line)
            summary = traceback.FrameSummary(template.filename, at, found.name)
        elif rewritten:  # its columns are not the template's
            summary = traceback.FrameSummary(found.filename, line, found.name)
        place = where or f"{'/'.join(Path(found.filename).parts[-2:])}:{line}"
        steps.append(Step(place, bool(where), bool(template or rewritten), frame, summary))
    return steps


# ---- Projects -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """A project as the commands see it: its folder, its settings, its registry."""

    root: Path
    config: Config
    registry: Registry


@contextmanager
def project_imports(root: Path) -> Iterator[None]:
    """Lets `registry`, `components.…` and the like mean those of `root`, and forgets them after:
    every project has a module `registry`, and one process may use several."""
    path, before = sys.path[:], {*sys.modules}
    own = [entry for entry in path if not _is_project(Path(entry or "."))]
    sys.path[:] = [str(root), *own]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in [name for name in {*sys.modules} - before if _lies_in(root, name)]:
            del sys.modules[name]
        sys.path[:] = path


def _is_project(folder: Path) -> bool:
    return (folder / "registry.py").is_file() and (folder / "config.yaml").is_file()


def _lies_in(root: Path, name: str) -> bool:
    """Whether a module, or the package around it, is right in that folder; a library of a .venv
    there is not."""
    top = sys.modules.get(name.partition(".")[0])
    place = next(iter(getattr(top, "__path__", ())), None) or getattr(top, "__file__", None)
    return place is not None and Path(os.path.normpath(place)).parent == root  # migrations/../x.py


def load_project(root: Path) -> Project:
    """The project in `root`; to be called inside `project_imports(root)`. Raises NoventaError."""
    return Project(root, Config.load(root), load_registry(root))


def load_registry(root: Path) -> Registry:
    """What `registry.py` calls `registry`. Raises NoventaError."""
    module = import_from_project("registry", root)
    if not hasattr(module, "registry"):
        raise NoventaError("registry.py defines no `registry`; write registry = Registry(…).")
    if not isinstance(module.registry, Registry):
        kind = type(module.registry).__name__
        raise NoventaError(f"registry.py: `registry` is a {kind}; expected Registry(…).")
    return module.registry


def import_from_project(name: str, root: Path) -> ModuleType:
    """The project's module `name`. Raises NoventaError saying which line of which file fails."""
    if not (root / f"{name}.py").is_file():
        raise NoventaError(
            f"{root / name}.py does not exist; give the project's folder with --project,"
            " or make a project with `python -m noventa new NAME`."
        )
    try:
        return importlib.import_module(name)
    except NoventaError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        place, text = _origin(error, root) or f"{name}.py", getattr(error, "msg", error)
        raise NoventaError(
            f"{name}.py cannot be imported: {place}: {type(error).__name__}: {text}"
        ) from error


def load_app(root: Path) -> App:
    """What `wsgi.py` calls `app`; what it serves may be wrapped. Raises NoventaError."""
    app = getattr(import_from_project("wsgi", root), "app", None)
    if not isinstance(app, App):
        raise NoventaError(
            "wsgi.py defines no `app`; write app = App(registry, Config.load(…)) and then"
            " application = app."
        )
    return app


def new(
    name: str, *, and_serve: bool = False, empty: bool = False, database: str | None = None
) -> int:
    """Makes a project that works: migrated, tested and seeded, step by step.

    The demo has users who sign in; --empty leaves it out. --database takes a URL of SQLite,
    PostgreSQL, MySQL or MariaDB, whose database must be there, and empty for the demo. Inside a
    project, `new component NAME` makes a component.
    """
    folder = Path(name).resolve()
    _refuse_folder(folder)
    config = _config_of_new(folder, database)
    _refuse_database(config, empty=empty)
    say(f"Making {folder}")
    _write_starter(config, empty=empty)
    password = None if empty else os.environ.get(_PASSWORD) or secrets.token_urlsafe(12)
    with project_imports(folder):
        steps = _steps(load_project(folder), password)
        for number, (title, step, _) in enumerate(steps):
            say(f"\n{title}:")
            try:
                failed = step()
            except NoventaError as error:
                failed = complain(str(error))
            if failed:
                rest = "".join(f"\n  {mend}" for _, _, mend in steps[number:])
                raise NoventaError(
                    f"\n{folder} was made, but this step failed: {title.lower()}. Mend what is"
                    f" said above, then go on in that folder with:{rest}"
                )
        say(_next_commands(config, password))
        return serve(folder) if and_serve else 0


_PASSWORD = "NOVENTA_ADMIN_PASSWORD"  # noqa: S105 - the variable that the demo's seed reads


def _steps(project: Project, password: str | None) -> Sequence[tuple[str, Callable[[], int], str]]:
    """What `new` does after writing the files: title, step, and the command that does the same."""
    apply = partial(migrate, project, [])
    tests = "Its own tests", partial(_run_tests, project), "python -m pytest"
    if password is None:
        return ("Its migrations, none so far", apply, "python -m noventa migrate"), tests
    message, first = "First tables", "The first migration, written from the models"
    write = partial(migrate, project, ["revision", "--autogenerate", "-m", message])
    return (
        (first, write, f'python -m noventa migrate revision --autogenerate -m "{message}"'),
        ("Applying it", apply, "python -m noventa migrate"),
        tests,
        # Last, so that the password is shown whatever failed before.
        ("The first rows", partial(_seed_with, project, password), "python -m noventa seed"),
    )


def _seed_with(project: Project, password: str) -> int:
    with_ours = not os.environ.get(_PASSWORD)
    os.environ[_PASSWORD] = password
    try:
        return seed(project)
    finally:
        if with_ours:
            del os.environ[_PASSWORD]


def _refuse_folder(folder: Path) -> None:
    name = folder.name
    if name.lower() in ("noventa", "noventa_cli", "noventa_data"):
        raise NoventaError(f"{name!r} is the name of Noventa's own module; choose another.")
    if not re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", name):
        raise NoventaError(
            f"{name!r} is no name for a project; expected letters, digits, - and _, a letter"
            " first and no - or _ last."
        )
    try:
        taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise NoventaError(f"{folder} cannot be made: {error.strerror}.") from None
    if taken:
        raise NoventaError(f"{folder} exists and is not an empty folder; choose another name.")


def _config_of_new(folder: Path, database: str | None) -> Config:
    try:
        return Config.from_mapping({"database": database} if database else {}, folder)
    except ConfigError as error:
        raise NoventaError(str(error).replace("config.yaml: database", "--database")) from None


def _refuse_database(config: Config, *, empty: bool) -> None:
    """Raises NoventaError where a new project could not use it, before anything is written."""
    url = config.database_url
    if config.in_memory:
        raise NoventaError("--database: SQLite in memory is gone with each process; name a file.")
    if not url.database:
        raise NoventaError(f"--database: {shown_url(url)} names no database; write it at the end.")
    if url.get_backend_name() == "sqlite" and Path(str(url.database)).is_relative_to(config.root):
        return  # it is made with the folder
    with _reached(config), reading(make_engine(config, poolclass=sa.NullPool)) as connection:
        tables = sorted(sa.inspect(connection).get_table_names())
    if tables and not empty:
        raise NoventaError(
            f"Database {shown_url(url)} has tables already ({', '.join(tables)}); the demo"
            " needs an empty one. For an application on these tables give --empty, and see"
            " `migrate --help` for --adopt."
        )


def _write_starter(config: Config, *, empty: bool) -> None:
    folder, url = config.root, config.database_url
    backend, text = url.get_backend_name(), config["database.url"]
    extra = EXTRAS.get(backend)
    values = {
        "name": folder.name, "demo": not empty, "backend": backend, "version": __version__,
        "server": backend != "sqlite", "extra": f"[{extra}]" if extra else "",
        "database": Markup(json.dumps(text, ensure_ascii=False)),  # noqa: S704 - a string of YAML
    }  # fmt: skip
    templates = data_folder("templates")
    _write_templates(templates / "common", folder, values)
    _write_templates(templates / ("empty" if empty else "project"), folder, values)
    if not empty:
        seeds = data_folder("migrations_skeleton") / "seed"
        _write_templates(seeds, folder / "migrations" / "seed", values)
    _write_secret(folder / "secret.key", f"{STARTER_KEY}{secrets.token_hex(32)}")
    if backend != "sqlite":
        _write_secret(folder / "database.url", text)
    elif (place := Path(str(url.database)).parent).is_relative_to(folder) and place != folder:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".gitkeep").touch()  # a clone has no empty folders, and SQLite makes none


def _write_templates(origin: Path, target: Path, values: Mapping[str, Any]) -> list[Path]:
    """Copies a folder; renders each `*.jinja`, and NAME in the names of files. What it wrote."""
    environment = _templates_in(origin)
    written: list[Path] = []
    for source in sorted(origin.rglob("*")):
        if "__pycache__" in source.parts or not source.is_file():
            continue
        text = source.read_text("utf-8")
        name = source.name.replace("NAME", values["name"])
        if source.suffix == ".jinja":
            text = environment.from_string(text).render(values)
            name = _STARTER_NAMES.get(name, name.removesuffix(".jinja"))
        path = target / source.relative_to(origin).with_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            raise NoventaError(f"{path} cannot be written: {error.strerror}.") from None
        written.append(path)
    return written


def _templates_in(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


_STARTER_NAMES = {"gitignore.jinja": ".gitignore"}  # ours would hide what it names from the wheel


def _write_secret(path: Path, text: str) -> None:
    path.touch(0o600, exist_ok=False)  # before the text: nobody else ever reads it
    path.write_text(f"{text}\n", "utf-8")


def _run_tests(project: Project) -> int:
    missing = [name for name in ("pytest", "webtest") if not importlib.util.find_spec(name)]
    if missing:
        say(f"  not run: pip install {' '.join(missing)}, then `python -m pytest` there")
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short"]
    return subprocess.run(command, cwd=project.root, check=False).returncode  # noqa: S603


def _next_commands(config: Config, password: str | None) -> str:
    shown = os.path.relpath(config.root)
    folder = config.root if shown.startswith("..") else shown
    address = f"http://{config['server.host']}:{config['server.port']}"
    rows = [("  python -m noventa serve --reload", f"   {address}")]
    if password is not None:
        of_ours = f"{password}   (shown only now)"
        secret = f"that of {_PASSWORD}" if os.environ.get(_PASSWORD) else of_ours
        rows += [("  sign in as", "   admin@example.com"), ("  with the password", f"   {secret}")]
    return f"\n{config.root.name} is ready.\n\n  cd {folder}\n{columns(rows)}"


def new_component(root: Path, *, name: str) -> int:
    """Makes the three files of a component, and says what to write into registry.py."""
    if not _is_project(root):
        raise NoventaError(
            f"{root} is no project: it has no registry.py and config.yaml; give the project's"
            " folder with --project."
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]{,99}", name) or keyword.iskeyword(name):
        raise NoventaError(
            f"{name!r} is no name for a component; expected at most 100 lower-case letters, digits"
            " and _, a letter first and no word of Python's own, like user_list."
        )
    folder, words = root / "components" / name, name.split("_")
    if folder.exists():
        raise NoventaError(f"{folder} exists; choose another name.")
    title, class_name = " ".join(words).strip().capitalize(), "".join(map(str.capitalize, words))
    values = {"name": name, "title": title, "class_name": class_name}
    for path in _write_templates(data_folder("templates") / "component", folder, values):
        say(f"  made {path.relative_to(root)}")
    say(
        f"""
Write into registry.py:
  from components.{name} import {name}_logic, {name}_models

and into its components=[…]:
  Component(
      "{name}",
      "components/{name}/{name}_template.html",
      logic={name}_logic,
      models=[{name}_models],
  ),

Show it with {{{{ component("{name}") }}}} in a template, and make its table:
  python -m noventa migrate revision --autogenerate -m "Add {name}"
  python -m noventa migrate"""
    )
    return 0


def _origin(error: BaseException, root: Path) -> str | None:
    """`components/user/user_logic.py:3`: the project's line that raised, or cannot be parsed."""
    if isinstance(error, SyntaxError) and (file := _file_of_project(error.filename or "", root)):
        return f"{file}:{error.lineno}"
    return next((step.where for step in _frames(error, root)[::-1] if step.own), None)


# ---- Server ---------------------------------------------------------------------------------

_PARENT = "NOVENTA_RELOADER"  # in the environment of a server that --reload started: who did
_LAST = "NOVENTA_SERVER"  # there too: host and port of the settings that were sound last
_MENDED = 119  # exit code of a server that showed a fault until a file was changed
_RELOADING = (".py", "config.yaml")  # ends of the names of files whose change is one of the code
_MENDING = (*_RELOADING, *TEMPLATE_SUFFIXES, ".key")  # and of those that may have a fault
_DRAIN_SECONDS = 30  # for requests under way when the server is told to stop
_WATCH_SECONDS = 0.5
# As Apache's mod_reqtimeout, but in both directions: so long may a client take, or stand still,
# and for every so many bytes that it has sent or read, a second more.
_GRACE_SECONDS, _LEAST_RATE = 30, 1000
_CONNECTIONS = 500  # beyond, those that have the least time left must go
_OUTPUT_BYTES = 2**20  # that wait for a client to read them before the handler waits too


def serve(  # noqa: PLR0913 - one for each option
    root: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    threads: int | None = None,
    reload: bool = False,
    debug: bool = False,
    verbose: bool = False,
) -> int:
    """Serves `wsgi:application` with waitress until SIGINT or SIGTERM.

    Requests under way are answered before it stops. --reload restarts it after a change of a
    Python file or config.yaml; a fault that keeps it from starting is shown in the browser. The
    log shows the project's own lines of an error; --verbose and `log_level: debug` all.
    """
    if reload and _PARENT not in os.environ and (root / "config.yaml").is_file():
        return _supervise(root)
    if debug:
        os.environ["NOVENTA_DEBUG"] = "1"
    config, application, limit, seen = _loaded(root, host)
    host = config["server.host"] if host is None else host
    port = config["server.port"] if port is None else port
    _configure_logging(config, verbose=verbose)
    sockets: dict[int, Any] = {}  # what waitress opens, by file descriptor
    with ExitStack() as at_end, _stop_signals() as stopping:
        at_end.callback(wasyncore.close_all, sockets, ignore_all=True)
        server = _listen(
            _with_access_log(application), host, port, map=sockets,
            threads=threads or config["server.threads"],
            max_request_body_size=limit + 1,  # waitress means: less than
            clear_untrusted_proxy_headers=seen is None and not config["debug"],  # else refused
        )  # fmt: skip
        doing = f"Serving {config.root.name}" if seen is None else "Showing this fault"
        say(f"{doing} at {_url(host, server)} (Ctrl+C stops)")
        if seen is not None:
            _stop_at_change(root, seen, stopping)
        _Loop(sockets, server).run(stopping)
        server.task_dispatcher.shutdown(timeout=1)
    return 0 if seen is None else _MENDED


def _loaded(root: Path, host: str | None) -> tuple[Config, Any, int, dict[str, int] | None]:
    """Settings, application, and the bytes that a body may have. Raises NoventaError.

    Under --reload, where a fault is in the way, the application is a page that shows it, and the
    last are the times of the files that may mend it.
    """
    seen = _source_times(root, _MENDING) if _PARENT in os.environ else None
    config = Config.from_mapping({"server": json.loads(os.environ.get(_LAST, "{}"))}, root)
    try:
        config = Config.load(root)
        at = config["server.host"] if host is None else host
        if config["debug"] and not is_loopback(at):
            raise NoventaError(
                "debug shows source code to whoever can connect, so it is served on this machine"
                f" only, not on {at!r}; use --host 127.0.0.1, or set debug: false."
            )
        module = import_from_project("wsgi", root)
        if not callable(application := getattr(module, "application", None)):
            raise NoventaError("wsgi.py defines no `application`; write application = app.")
        routes = load_registry(root).routes
        limit = max([config["limits.body"], *(route.limits.get("body", 0) for route in routes)])
    except NoventaError as fault:
        if seen is None:
            raise
        complain(str(fault))
        return config, _fault_application(root, str(fault)), config["limits.body"], seen
    if isinstance(app := getattr(module, "app", None), App):
        _say_if_away(app.database.engine)
    return config, application, limit, None


_FORWARDED = re.compile(
    r"HTTP_(?:X_FORWARDED.*|FORWARDED|VIA|(?:X_REAL|(?:X|X_CLUSTER|TRUE)_CLIENT|CF_CONNECTING)_IP)"
)
_LEAVE_DEBUG = "Open http://localhost with the port of the server, or set debug: false."


def refuse_strangers(environ: Mapping[str, Any]) -> None:
    """Raises Rejection unless the visitor may see source code.

    Debug pages are for a browser on this machine that asks for localhost: not for another name
    that leads here (DNS rebinding), nor for a proxy.
    """
    if (address := environ.get("REMOTE_ADDR")) and not is_loopback(address):
        detail = f"{address[:80]!a} is not this machine, and no other gets an answer in debug."
        raise Rejection(403, "debug-from-afar", detail=f"{detail} {_LEAVE_DEBUG}")
    if forwarded := [name for name in environ if _FORWARDED.fullmatch(name)]:
        header = forwarded[0].removeprefix("HTTP_").replace("_", "-").title()
        detail = f"{header} was sent: no proxy gets an answer in debug. {_LEAVE_DEBUG}"
        raise Rejection(403, "debug-by-proxy", detail=detail)
    host = str(environ.get("HTTP_HOST", "localhost"))  # every browser sends one
    if not is_loopback(host_name(host)):
        detail = f"Host is {host[:80]!a}, but only localhost and 127.0.0.1 answer in debug."
        raise Rejection(403, "debug-host", detail=f"{detail} {_LEAVE_DEBUG}")


def _fault_application(root: Path, fault: str) -> Any:
    """Shows what keeps the application from starting, to nobody but this machine."""
    html = _workbench_templates().get_template("fault.html").render(app=root.name, fault=fault)
    headers = [
        ("Content-Type", "text/html; charset=UTF-8"), ("Cache-Control", "no-store"),
        ("Content-Security-Policy", strict_policy(html)), ("X-Content-Type-Options", "nosniff"),
    ]  # fmt: skip

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            refuse_strangers(environ)
            answer = webob.Response(html.encode("utf-8", "replace"), 503, headers)
        except Rejection as rejection:
            answer = webob.Response(rejection.detail, rejection.status, content_type="text/plain")
        return answer(environ, start_response)

    return application


def _say_if_away(engine: sa.Engine) -> None:
    try:
        if not lacks_file(engine):
            with reading(engine):
                pass
    except sa.exc.DBAPIError as error:
        complain(
            f"The database {shown_url(engine.url)} does not answer: {_reason(error)}. It is tried"
            " again with each request, which gets a 503 until it does."
        )


def _configure_logging(config: Config, *, verbose: bool) -> None:
    """Log lines to standard error, unless wsgi.py has already said where they go."""
    handler = logging.StreamHandler()
    whole = verbose or config["log_level"] == "debug"
    handler.setFormatter(_LogFormatter(handler.stream, None if whole else config.root))
    logging.basicConfig(level=config["log_level"].upper(), handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it compares revisions at the start


_ANSWERED = re.compile(r"(\d{3}) (\S+) (\S+) (?:in )?(.*)")  # status, method, path, what else
_TONES = {"2": "green", "3": "cyan", "4": "yellow", "5": "red", "W": "yellow", "E": "red"}
_LOG_INDENT = 10  # the time, and two blanks


class _LogFormatter(logging.Formatter):
    """A line for each entry, which a request's path or header cannot break, nor steer a terminal.

    An error is followed by those lines of its traceback that are the project's in `root`; by all
    of them where that is None.
    """

    def __init__(self, stream: TextIO, root: Path | None) -> None:
        super().__init__("%(message)s", "%H:%M:%S")
        self._stream, self._root = stream, root

    def format(self, record: logging.LogRecord) -> str:
        """The entry with its time, its traceback below."""
        if record.exc_info:
            record = copy.copy(record)
            record.exc_text = None  # that of the core, which is whole
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        label, text = record.levelname, one_line(record.message)
        if found := _ANSWERED.fullmatch(text):
            label, method, path, rest = found.groups()
            text = f"{method:<4} {path:<16} {rest}"
        line = f"{self.formatTime(record, self.datefmt)}  {label}  {text}"
        lines = wrapped(line, self._stream, _LOG_INDENT)
        if not (colour := _TONES.get(label[0])):
            return lines
        return lines.replace(label, coloured(label, colour, self._stream), 1)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = _own_lines(ei[1], self._root) if self._root else []
        if not lines:
            return shown_traceback(ei)
        shown = []
        for line in lines:
            text = " " * _LOG_INDENT + one_line(line)
            is_source = line.startswith("    ")  # whose columns are marked
            shown.append(text if is_source else wrapped(text, self._stream))
        return "\n".join(shown)


def _own_lines(error: BaseException, root: Path) -> list[str]:
    """An exception, the project's line that raised it, the same of those it came from, and who
    called the first; empty where no line is the project's and it is no error of ours, which says
    itself where it comes from."""
    lines, callers, others = list[str](), list[str](), 0
    tells = isinstance(error, NoventaError)
    for number, link in enumerate(_chain(error)):
        steps = _frames(link, root)
        own = [step for step in steps if step.own]
        others += len(steps) - len(own)
        text = "".join(traceback.format_exception_only(link)).rstrip()
        lines += ("from " * (number > 0) + text).split("\n")
        if own:
            last, tells = own.pop(), True
            shown = traceback.StackSummary.from_list([last.summary]).format()[0]
            lines += [last.where, *shown.rstrip().split("\n")[1:]]
            if number == 0:
                places = [step.where for step in own[::-1] if step.where != last.where]
                callers = [*dict.fromkeys(places)]
    called = f"called by {', '.join(callers[:3])}; " if callers else ""
    return [*lines, f"{called}{others + len(callers[3:])} more, --verbose"] if tells else []


_SENT: ContextVar[list[str] | None] = ContextVar("noventa_sent", default=None)


def _with_access_log(application: Any) -> Any:
    """`200 GET /users/7 3 ms  2 queries`: no query of the URL, which may hold what nobody should
    read. A body that is made while it is sent is not in it."""
    access = logging.getLogger("noventa.access")
    _count_queries()

    def logged(environ: dict[str, Any], start_response: Any) -> Any:
        began, status, sent = time.perf_counter(), "-", list[str]()

        def start(line: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, headers, *more)

        token = _SENT.set(sent)
        try:
            return application(environ, start)
        finally:
            _SENT.reset(token)
            spent = (time.perf_counter() - began) * 1000
            what = described(environ)
            access.info("%s %s %4.0f ms%s", status, what, spent, _told_queries(sent))

    return logged


def _told_queries(sent: Sequence[str]) -> str:
    if not sent:
        return ""
    (_, same), *_ = Counter(sent).most_common(1)
    again = f"  {same} the same" if same >= _REPEATED else ""
    return f"  {len(sent):2} {'query' if len(sent) == 1 else 'queries'}{again}"


@functools.cache
def _count_queries() -> None:
    """Has those that a request sends, to whatever database, noted for its line of the log.

    By events of the dialect: one of the engine costs each statement 15 µs.
    """

    def note(_: Any, statement: str, *arguments: Any) -> None:
        sent = _SENT.get()
        if sent is not None and is_query(statement, arguments[-1]):
            sent.append(statement)

    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(sa.Engine, name, note)  # of all: they come before an engine's own


def _listen(application: Any, host: str, port: int, **more: Any) -> Any:
    """Waitress' server, listening. Raises NoventaError."""
    try:
        if port not in range(2**16):  # the resolver would take it modulo that
            raise OverflowError
        server = create_server(
            application, host=host, port=port, ident=None, asyncore_use_poll=True,
            connection_limit=_CONNECTIONS + 100, outbuf_high_watermark=_OUTPUT_BYTES, **more,
        )  # fmt: skip
    except OSError as error:
        reason, remedy = error.strerror or str(error), "choose another with --host or --port"
        if error.errno == errno.EADDRINUSE:
            reason, remedy = "it is taken", f"stop what listens there, or try --port {port + 1}"
        raise NoventaError(f"Cannot listen on {host}, port {port}: {reason}; {remedy}.") from error
    except (ValueError, OverflowError) as error:
        raise NoventaError(f"Cannot listen on {host}, port {port}: no such address.") from error
    for listener in [entry for entry in more["map"].values() if entry.accepting]:
        listener.channel_class = _Channel
    return server


class _Channel(HTTPChannel):
    """Waitress' connection, which knows when its client's time is over."""

    sent = 0  # bytes
    turn: Any = None  # what the client is to do since `began`: read, or finish this request
    began, before = 0.0, 0

    def send(self, data: bytes, do_close: bool = True) -> int:
        number: int = super().send(data, do_close)
        self.sent += number
        return number

    def deadline(self, now: float) -> float:
        """By when the client must move on; infinity while the application works."""
        request: Any = self.request
        turn, moved = "read", self.sent
        if not self.total_outbufs_len:
            if self.requests or request is None:
                self.turn = None
                return math.inf if self.requests else self.last_activity + _GRACE_SECONDS
            turn, moved = request, request.header_bytes_received + request.body_bytes_received
        if turn != self.turn:
            self.turn, self.began, self.before = turn, now, moved
        rate_kept = self.began + (moved - self.before) / _LEAST_RATE
        return min(rate_kept, max(self.began, self.last_activity)) + _GRACE_SECONDS


class _Loop:
    """Waitress' loop, with what it leaves to others: slow clients end, and keep nobody out until
    then."""

    def __init__(self, sockets: dict[int, Any], server: Any) -> None:
        self._sockets, self._server = sockets, server
        self._next = 0.0  # when to look for slow clients

    def run(self, stopping: list[int]) -> None:
        """Answers requests; once `stopping`, those that are under way."""
        parent = int(os.environ.get(_PARENT, "0"))
        while not stopping and parent in (0, os.getppid()):  # no orphan where the parent was killed
            self._turn(0.25)
        deadline = time.monotonic() + (3 if parent else _DRAIN_SECONDS)
        self._turn(0)  # takes in who has connected already
        for listener in [entry for entry in self._sockets.values() if entry.accepting]:
            wasyncore.dispatcher.close(listener)
        while time.monotonic() < deadline and self._is_busy():
            self._turn(0.05)

    def _channels(self) -> list[Any]:
        return [entry for entry in self._sockets.values() if isinstance(entry, _Channel)]

    def _is_busy(self) -> bool:
        """Whether a connection waits for an answer; the others are told to close."""
        channels = self._channels()
        idle = [c for c in channels if not (c.requests or c.request or c.total_outbufs_len)]
        for channel in idle:
            channel.will_close = True
        return len(idle) < len(channels)

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, map=self._sockets, use_poll=True, count=1)
        channels = self._channels()
        blocked = sum(c.total_outbufs_len > _OUTPUT_BYTES for c in channels if c.requests)
        # A handler whose client does not read waits in a thread that the others shall not miss.
        self._server.task_dispatcher.set_thread_count(self._server.adj.threads + blocked)
        now = time.time()  # waitress' clock too
        if now >= self._next or len(channels) > _CONNECTIONS:
            self._next = now + 1
            self._end_slow(channels, now)

    def _end_slow(self, channels: Sequence[Any], now: float) -> None:
        for channel in channels:
            if channel.total_outbufs_len:  # poll() is silent until a third of a buffer is free
                channel.handle_write()
        crowd = len(channels) - _CONNECTIONS
        for number, channel in enumerate(sorted(channels, key=lambda c: c.deadline(now))):
            deadline = channel.deadline(now)
            if deadline < now or (number < crowd and deadline < math.inf):
                channel.handle_close()  # also frees a handler that waits for it


def _url(host: str, server: Any) -> str:
    port = getattr(server, "effective_port", None) or server.effective_listen[0][1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM comes; a second SIGINT interrupts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, _: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(root: Path) -> int:
    """Runs this same command as a child, anew after each change, until it is told to stop."""
    environment = {**os.environ, _PARENT: str(os.getpid())}
    with _stop_signals() as stopping:
        while not stopping:
            with suppress(ConfigError):
                config = Config.load(root)
                address = {name: config[f"server.{name}"] for name in ("host", "port")}
                environment[_LAST] = json.dumps(address)
            seen = _source_times(root)
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, *sys.orig_argv[1:]], env=environment
            )
            try:
                _wait_for_change(root, seen, child, stopping)
            finally:
                child.terminate()
                try:
                    child.wait(_DRAIN_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
    return 0


def _wait_for_change(
    root: Path, seen: object, child: subprocess.Popen[bytes], stopping: list[int]
) -> None:
    ended = False
    while not stopping and _source_times(root) == seen:
        if not ended and child.poll() is not None:
            if child.returncode == _MENDED:
                break
            ended = True
            say("The server has ended; waiting for a change.")
        time.sleep(_WATCH_SECONDS)
    if not stopping:
        say("Changed: starting again.")


def _stop_at_change(root: Path, seen: object, stopping: list[int]) -> None:
    def watch() -> None:
        while _source_times(root, _MENDING) == seen:
            time.sleep(_WATCH_SECONDS)
        stopping.append(_MENDED)

    threading.Thread(target=watch, daemon=True).start()


def _source_times(root: Path, suffixes: tuple[str, ...] = _RELOADING) -> dict[str, int]:
    """When each file of the project whose name ends so was last changed."""
    times: dict[str, int] = {}
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not (name.startswith((".", "__")) or name == "venv")]
        for file in files:
            if file.endswith(suffixes):
                with suppress(FileNotFoundError):
                    times[f"{folder}/{file}"] = Path(folder, file).stat().st_mtime_ns
    return times


# ---- Migrations and seeds -------------------------------------------------------------------

_FOLDER = "migrations"  # the folder of a project with alembic.ini, env.py, versions/ and seed/
_OUR_TABLES = sa.MetaData()
_LEDGER = sa.Table(
    "noventa_seed",
    _OUR_TABLES,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.Column("applied_at", sa.DateTime),  # NULL if it stopped half-way
    sa.Column("wrote", sa.JSON),  # the tables
    sa.Column("lost", sa.JSON),  # those of them that a downgrade dropped
)
_UNFINISHED = sa.Table(  # is there while a revision runs, and if it stopped half-way
    "noventa_unfinished",
    _OUR_TABLES,
    sa.Column("revision", sa.String(255), primary_key=True),
    sa.Column("verb", sa.String(20), nullable=False),  # upgrade or downgrade
    sa.Column("applied", sa.Text, nullable=False),  # its statements that stay, a line each
)
_CREATES = re.compile(
    r"""create_table\(\s*["'](\w+)|rename_table\(\s*["']\w+["'],\s*["'](\w+)"""
    r"""|create\s+table\s+(?:if\s+not\s+exists\s+)?["'`]?(\w+)""",
    re.IGNORECASE,
)
_CHANGES = re.compile(r"(?!select|show|describe|explain|set\b|pragma|begin|savepoint)", re.I)
_ROWS_ONLY = re.compile(r"insert|update|delete|replace", re.I)  # MySQL can roll these back
_DROPS = re.compile(r"\bdrop\s+(table|column)\b", re.I)
_BY_HAND = re.compile(r"\b(execute|bulk_insert)\(|= op\.get_bind\(")
_OBJECTS = {  # all that a database holds, and revisions can make
    "sqlite": "SELECT type || ' ' || name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
    # part of nothing else; oids from 16384 on are not the system's own
    "postgresql": """
        SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
        WHERE objid >= 16384 AND pg_describe_object(classid, objid, 0) !~ 'pg_toast'
        GROUP BY classid, objid HAVING bool_and(deptype NOT IN ('i', 'e'))
        UNION SELECT 'schema ' || nspname FROM pg_namespace WHERE oid >= 16384
    """,
    "mysql": """
        SELECT CONCAT(LOWER(table_type), ' ', table_name) FROM information_schema.tables
        WHERE table_schema = DATABASE()
        UNION SELECT CONCAT('trigger ', trigger_name) FROM information_schema.triggers
        WHERE trigger_schema = DATABASE()
        UNION SELECT CONCAT(LOWER(routine_type), ' ', routine_name)
        FROM information_schema.routines WHERE routine_schema = DATABASE()
        UNION SELECT CONCAT('event ', event_name) FROM information_schema.events
        WHERE event_schema = DATABASE()
    """,
}
_CARRIES = re.compile(r"\b(rename|change)\b|\binsert\s+into\b.*\bselect\b", re.I)


def migrate(project: Project, arguments: Sequence[str]) -> int:
    """Applies the pending migrations, or hands any verb over to Alembic.

    `migrate revision --autogenerate -m "…"`, `migrate downgrade -1`, `migrate current`,
    `migrate history`, `migrate upgrade head --sql` and every other verb; `migrate squash` makes
    one revision of all. `--allow-drop` lets a generated revision drop tables and columns;
    `--adopt` takes over a database that has the tables of the models already.
    """
    _complete_folder(project.root)
    words = [word for word in arguments if word not in ("--allow-drop", "--adopt")]
    drops = ["-x", "allow_drop=1"] if "--allow-drop" in arguments else []
    if "--adopt" in arguments:
        return _adopt(project)
    return _alembic(project.root, [*drops, *(words or ["upgrade", "head"])], project=project)


def run_migrations(registry: Registry, config: Config, **options: Any) -> None:
    """What migrations/env.py runs for every verb of Alembic. `options` go to `configure()`.

    The lock, the guards, the transactions and the progress are here, so that `alembic -c
    migrations/alembic.ini …` and `python -m noventa migrate …` are the same thing.
    """

    if (asked := context.config.attributes.get("asked_for_options")) is not None:
        asked.update(options)
        return
    with _told_as_alembic_does(context):
        made = _tables_made(context.script)
        configured = _configuration(config, _plain_metadata(registry), options, made)
        if context.is_offline_mode():
            configured |= {"literal_binds": True, "dialect_opts": {"paramstyle": "named"}}
            context.configure(url=config.database_url, **configured)
            with context.begin_transaction():
                context.run_migrations()
        elif connection := context.config.attributes.get("connection"):
            journal = _Journal(connection, quiet=True)
            _configure(context, configured, journal)
            _run_revisions(context, journal)
        else:
            _run_locked(context, config, configured)


def migrate_to_head(registry: Registry, config: Config) -> None:
    """Applies what is pending in the database of `config`, for tests: as `migrate` does.

    Reads no config.yaml, and so not env.py: its options for `configure()` do not count here.
    """

    _complete_folder(config.root)
    alembic = AlembicConfig(config.root / _FOLDER / "alembic.ini")
    script: Any = ScriptDirectory.from_config(alembic)

    def steps(revision: Any, _: Any) -> Any:
        return script._upgrade_revs("heads", revision)

    with EnvironmentContext(alembic, script, fn=steps, destination_rev="heads"):
        run_migrations(registry, config)


def _options_of(project: Project) -> dict[str, Any]:
    """The keywords that migrations/env.py gives to run_migrations()."""
    _complete_folder(project.root)
    options: dict[str, Any] = {}
    alembic = AlembicConfig(
        project.root / _FOLDER / "alembic.ini", attributes={"asked_for_options": options}
    )
    script: Any = ScriptDirectory.from_config(alembic)
    with EnvironmentContext(alembic, script):
        script.run_env()
    return options


def _complete_folder(root: Path) -> None:
    """Makes what migrations/ lacks; what is there stays as it is."""

    (root / _FOLDER / "versions").mkdir(parents=True, exist_ok=True)
    for name in ("alembic.ini", "env.py", "script.py.mako"):
        target = root / _FOLDER / name
        if not target.exists():
            target.write_bytes((data_folder("migrations_skeleton") / name).read_bytes())
            say(f"  made {_FOLDER}/{name}")


def _alembic(
    root: Path, words: Sequence[str], versions: Path | None = None, **attributes: Any
) -> int:
    """Alembic's own command line, with the project's alembic.ini; `versions` is another folder of
    revisions than that says. Raises NoventaError."""

    if "%" in str(root):
        raise NoventaError(f"{root}: Alembic cannot read a path with a % in it; rename the folder.")
    line: Any = CommandLine(prog="noventa migrate")
    line.register_command(squash)
    try:
        line.parser.error = partial(_refuse_verb, line.parser.error, line.subparsers.choices)
        options = line.parser.parse_args(words)
        if not hasattr(options, "cmd"):
            line.parser.error("expected a verb, like `upgrade head`")
    except SystemExit as end:  # argparse's way to leave, also after --help
        return int(end.code or 0)
    options.raiseerr = True  # else it would print and leave the process
    file = options.config[0] if options.config else root / _FOLDER / "alembic.ini"
    config = AlembicConfig(file, stdout=sys.stdout, cmd_opts=options, attributes=attributes)
    try:
        if versions is not None:
            config.set_main_option("version_locations", str(versions))
        line.run_cmd(config, options)
    except CommandError as error:
        raise NoventaError(_alembic_message(error, config)) from error
    except (configparser.Error, MakoException) as error:
        raise NoventaError(f"{' '.join(str(error).split())}; mend the file.") from error
    except Exception as error:
        innermost = _frames(error, root)[-1]
        if not innermost.own and not isinstance(error, SyntaxError):
            raise
        place = _origin(error, root)
        raise NoventaError(f"{place}: {_exception_line(error)}; mend the file.") from error
    return 0


def _refuse_verb(error: Callable[[str], Any], verbs: Iterable[str], message: str) -> None:
    """Ends the process as argparse does; a verb that is none is one line, with the nearest."""
    if found := re.search(r"invalid choice: '(.*?)'", message):
        complain(f"migrate: {found[1]!r} is no verb; {did_you_mean(found[1], verbs)}")
        raise SystemExit(2)
    error(message)


@contextmanager
def _told_as_alembic_does(context: Any) -> Iterator[None]:
    """Under the command `alembic` a fault is one message too, in the way of that command."""

    try:
        yield
    except (CommandError, NoventaError) as error:
        if getattr(context.config.cmd_opts, "raiseerr", True):  # our command, or a program
            raise
        text = _alembic_message(error, context.config)
        first, _, rest = text.partition("\n")
        if rest:  # Alembic would wrap the lines into one paragraph
            complain(rest)
        raise CommandError(first) from None


def _alembic_message(error: Exception, config: AlembicConfig) -> str:
    text = str(error)
    if "Multiple head" in text:
        return _heads_message(ScriptDirectory.from_config(config))
    if "Target database is not up to date" in text:
        return f"{text} Run `python -m noventa migrate` first."
    if "Can't locate revision" in text:
        return (
            f"{text}: no file in {_FOLDER}/versions has it. If the database is"
            " there, bring the file back from version control; or, if revisions were squashed"
            " since, migrate to the head with the code of before; or, where the tables are those"
            " of the head already: python -m noventa migrate stamp --purge head"
        )
    return text


def _heads_message(script: ScriptDirectory) -> str:
    paths = sorted(one.path for one in script.get_revisions("heads"))
    root = Path(script.dir).parent
    listed = [f"\n  {os.path.relpath(path, root)}" for path in paths]
    return (
        f"There are {len(listed)} heads, made without knowing of each other:{''.join(listed)}\n"
        'Join them: python -m noventa migrate merge heads -m "merge"'
    )


# -- what Alembic is told


def _configuration(
    config: Config, metadata: Any, own: Mapping[str, Any], made: Collection[str] = ()
) -> dict[str, Any]:
    """The keywords of `context.configure()`; the caller's filter and hook run beside ours.

    Only the tables of the models, and those `made` by revisions, are looked at.
    """
    schemas = {table.schema for table in metadata.tables.values()} | {None}
    known = {*metadata.tables, *made}
    included = own.get("include_name", lambda *_: True)
    hook = own.get("process_revision_directives", lambda *_: None)

    def include_name(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind == "schema" and name not in schemas:
            return False
        if kind == "table":
            shown = parents.get("schema_qualified_table_name") or name
            if shown not in known or name in _OUR_TABLES.tables:  # another's: left alone
                return False
        return bool(included(name, kind, parents))

    def process(context: Any, revision: Any, directives: list[Any]) -> None:
        hook(context, revision, directives)
        _review(context, directives, metadata)

    ours = {"include_name": include_name, "process_revision_directives": process}
    _refuse_own_version_table(config, own)
    defaults = {
        "target_metadata": metadata,
        "include_schemas": len(schemas) > 1,
        "render_as_batch": True,  # on every database, for the files must run on SQLite too
        "render_item": _render_item,
        "compare_type": _compare_type,
        "transaction_per_migration": True,
    }
    return defaults | version_table(config) | dict(own) | ours


def _refuse_own_version_table(config: Config, own: Mapping[str, Any]) -> None:
    """Raises NoventaError if env.py gives what is a setting, which the application reads too."""
    for name in version_table(config).keys() & own.keys():
        raise NoventaError(
            f"{_FOLDER}/env.py gives {name} to run_migrations(), which the application would not"
            f" see; write it to config.yaml instead: migrations: {{{name}: {own[name]}}}"
        )


def _tables_made(script: Any) -> set[str]:
    """The tables that the revisions make, as their text says. Raises NoventaError."""
    found = [_CREATES.findall(path.read_text("utf-8")) for path in _revision_paths(script)]
    return {name for matches in found for names in matches for name in names if name}


def _revision_paths(script: Any) -> list[Path]:
    return [Path(one.path) for one in script.walk_revisions()]


def _configure(context: Any, configured: Mapping[str, Any], journal: _Journal) -> None:
    theirs = configured.get("on_version_apply", ())
    each = (*((theirs,) if callable(theirs) else theirs), journal.applied)
    settings = {**configured, "on_version_apply": each}
    context.configure(connection=journal.connection, **settings)
    running = context.get_context()
    running._migrations_fn = partial(journal.steps, running.opts["fn"])


def _plain_metadata(registry: Registry) -> Any:
    """The tables with types that SQLAlchemy itself has, so that revisions need no application."""

    source = registry.metadata
    plain = sa.MetaData(naming_convention=source.naming_convention)
    for table in source.tables.values():
        for column in table.to_metadata(plain).columns:
            column.type = _plain_type(table.columns[column.key].type)  # a copy has another schema
            checks: list[Any] = [*column.constraints]
            for check in checks:  # Alembic writes those of a table only
                column.constraints.discard(check)
                column.table.append_constraint(sa.CheckConstraint(check.sqltext, name=check.name))
    sort: Any = sort_tables_and_constraints
    *_, (_, circular) = sort(plain.tables.values())
    for key in circular:
        key.use_alter = True
    plain.naming_convention = sa.MetaData().naming_convention  # all have names: none when run
    return plain


def _plain_type(kind: Any) -> Any:
    """A custom type as what it is in each database: its implementation, with variants."""

    variants = {name: _plain_type(special) for name, special in kind._variant_mapping.items()}
    if isinstance(kind, sa.TypeDecorator) and type(kind) is not sa.Interval:
        plain = with_length(_plain_type(kind.load_dialect_impl(DefaultDialect())))
        for name, dialect in _DIALECTS.items():
            special = _plain_type(kind.load_dialect_impl(dialect))
            if name not in variants and repr(special) != repr(plain):
                variants[name] = with_length(special)._variant_mapping.get(name, special)
    else:
        plain = _public_type(kind)
    is_decorator = isinstance(plain, sa.TypeDecorator)  # copy.copy() asks it what it has not yet
    plain = plain.copy() if is_decorator else copy.copy(plain)
    for attribute, nested in _nested_types(plain):
        setattr(plain, attribute, _plain_type(nested))
    plain._variant_mapping = plain._variant_mapping.union(variants)
    return plain


def _public_type(kind: Any) -> Any:
    """The type as the nearest one that SQLAlchemy documents; itself where there is none."""

    abstract = (sa.types.TypeEngine, sa.types.UserDefinedType, sa.types.ExternalType)
    known = (base for base in type(kind).__mro__ if _public_name(base) and base not in abstract)
    base = next(known, type(kind))
    if base is type(kind):
        return kind
    if issubclass(base, sa.Enum):  # its adapt() keeps the class of the values
        names = ("name", "schema", "native_enum", "create_constraint", "length")
        return base(*kind.enums, **{name: getattr(kind, name) for name in names})
    return with_length(kind.adapt(base))


def _public_name(base: type[Any]) -> str | None:
    """`sa.String`, `postgresql.INET`: what the class is called in a revision."""

    first, second, third, *_ = f"{base.__module__}...".split(".")
    if first != "sqlalchemy" or not issubclass(base, sa.types.TypeEngine):
        return None
    home = third if second == "dialects" else "sa"
    module: Any = getattr(sa.dialects, third) if second == "dialects" else sa
    return f"{home}.{base.__name__}" if getattr(module, base.__name__, None) is base else None


def _nested_types(kind: Any) -> list[tuple[str, Any]]:
    """The types that a type holds as arguments: ARRAY's items, JSON's text."""

    if isinstance(kind, sa.TypeDecorator):
        return []
    held = [(name, getattr(kind, name, None)) for name in inspect.signature(type(kind)).parameters]
    return [(name, value) for name, value in held if isinstance(value, sa.types.TypeEngine)]


def _compare_type(context: Any, _: Any, __: Any, found: Any, kind: Any) -> bool | None:
    """Whether the lengths differ; Alembic takes a text without one to equal any other.

    VARCHAR(255) stays where a `String` has none, as revisions had it on every database.
    """

    kind = kind._variant_mapping.get(context.dialect.name, kind)
    if isinstance(found, mysql.TINYBLOB | mysql.MEDIUMBLOB) and isinstance(kind, sa.LargeBinary):
        return False  # BLOB(32) is made as the smallest that holds so much
    if isinstance(found, sa.Float) and isinstance(kind, sa.Float):
        name = context.dialect.name
        return name != "sqlite" and _is_double(found, name) != _is_double(kind, name)
    if not isinstance(found, sa.VARCHAR) or type(kind) not in (sa.String, sa.Unicode, sa.VARCHAR):
        return None
    same = found.length == kind.length or (kind.length is None and found.length == 255)
    return None if same else True


def _is_double(kind: Any, dialect: str) -> bool:
    """Whether it has 8 bytes: FLOAT alone has them on PostgreSQL only, REAL on MySQL only."""
    on_postgresql = dialect == "postgresql"
    if isinstance(kind, sa.REAL | sa.Double):
        return not isinstance(kind, sa.REAL) or not on_postgresql
    return kind.precision > 24 if kind.precision is not None else on_postgresql


# on which revision files must run; none of them needs a driver for this
_DIALECTS: dict[str, Any] = {
    kind.name: kind()
    for kind in (sqlite.dialect, postgresql.dialect, mysql.dialect, MariaDBDialect)
}


def _render_item(kind: str, item: Any, context: Any) -> str | bool:
    """Writes what Alembic would write for one database only, or so that the file does not run."""
    if kind == "type":
        return _type_text(item, context.imports)
    value = getattr(item, "arg", None) if kind == "server_default" else None
    if isinstance(value, sa.True_ | sa.False_):  # it would be compiled for the database at hand
        return f"sa.{'true' if isinstance(value, sa.True_) else 'false'}()"
    counts = isinstance(value, sa.sql.functions.next_value)
    if isinstance(value, sa.sql.functions.FunctionElement) and not (counts or list(value.clauses)):
        return f"sa.func.{value.name}()"
    return False


def _type_text(kind: Any, imports: set[str]) -> str:
    """The call that makes the type, with its nested types and variants, for a revision."""

    name, home = _public_name(type(kind)), type(kind).__module__
    if name is None:  # neither a TypeDecorator nor derived: it has no plain form
        imports.add(f"import {home}")
    elif not name.startswith("sa."):
        imports.add(f"from sqlalchemy.dialects import {name.partition('.')[0]}")
    bare = copy.copy(kind)
    if _is_native_enum(kind):  # _make_enum_types() adds the lines that make and drop it
        bare.create_type = False
    for attribute, nested in _nested_types(kind):
        setattr(bare, attribute, _Text(_type_text(nested, imports)))
    write: Any = generic_repr if isinstance(kind, sa.Interval) else repr
    shown = write(bare)
    text = f"{name or f'{home}.{type(kind).__qualname__}'}({shown.partition('(')[2]}"
    variants: dict[str, list[str]] = {}
    for dialect, special in kind._variant_mapping.items():
        variants.setdefault(_type_text(special, imports), []).append(repr(dialect))
    for special_text, dialects in variants.items():
        text += f".with_variant({special_text}, {', '.join(dialects)})"
    return text


class _Text:
    """Stands for what is written already where a `repr()` is made."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _is_native_enum(kind: Any) -> bool:
    return isinstance(kind, sa.Enum) and kind.native_enum and bool(kind.name)


def _native_enums(kind: Any) -> Iterator[Any]:
    """The enums of a column's type that have a name of their own on PostgreSQL."""
    kind = kind._variant_mapping.get("postgresql", kind)
    if _is_native_enum(kind):
        yield kind
    for _, nested in _nested_types(kind):
        yield from _native_enums(nested)


def _enum_key(kind: Any) -> tuple[str | None, str]:
    return kind.schema, kind.name


# -- what Alembic does not compare


@comparators.dispatch_for("schema", priority=DispatchPriority.FIRST)
def _take_found_names(context: Any, *_: Any) -> None:
    [*_take_names(context.inspector, context.sorted_tables, sa.schema.conv)]


@comparators.dispatch_for("schema")
def _compare_types_and_sequences(context: Any, upgrade: Any, _: Any) -> None:
    if context.dialect.name == "postgresql":
        upgrade.ops[:0] = _enum_differences(context)
    upgrade.ops[:0] = _missing_sequences(context)


@comparators.dispatch_for("table", priority=DispatchPriority.LAST)
def _ignore_directions(context: Any, changes: Any, *_: Any) -> None:
    """Takes out indexes that differ in DESC only, which SQLite and MySQL do not tell of."""
    if context.dialect.name == "postgresql":
        return
    pairs: dict[Any, list[Any]] = {}
    for step in changes.ops:
        if isinstance(step, ops.DropIndexOp | ops.CreateIndexOp):
            index = step.to_index()
            columns = tuple(map(_column_of, index.expressions))
            pairs.setdefault((str(index.name), columns, bool(index.unique)), []).append(step)
    same = [step for pair in pairs.values() if len(pair) == 2 for step in pair]
    changes.ops = [step for step in changes.ops if step not in same]


def _column_of(expression: Any) -> str:
    """The column of `desc(column)` by its name, else the text of the expression."""
    while isinstance(expression, sa.UnaryExpression):
        expression = expression.element
    inner = getattr(expression, "element", expression)  # desc("name") holds a label
    return str(getattr(expression, "name", inner))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without what Alembic warns of for what _NOT_COMPARED names, and for what _Copy keeps."""
    with warnings.catch_warnings():
        for message in (
            "autogenerate skipping .*expression-based index",
            "Unnamed CHECK constraint on reflected",
            "Skipped unsupported refl",
        ):
            warnings.filterwarnings("ignore", message)
        yield


def _enum_differences(context: Any) -> Iterator[Any]:
    inspector = context.inspector
    columns = (
        column
        for table in context.sorted_tables
        if context.run_object_filters(table, table.name, "table", False, None)
        for column in table.columns
    )
    kinds = {_enum_key(kind): kind for column in columns for kind in _native_enums(column.type)}
    for (schema, name), kind in kinds.items():
        there = {enum["name"]: enum["labels"] for enum in inspector.get_enums(schema)}
        if name not in there:
            continue
        for value in [value for value in kind.enums if value not in there[name]]:
            yield _added_value(inspector.dialect.identifier_preparer, kind, value)
        if gone := [value for value in there[name] if value not in kind.enums]:
            text = f"enum {name}: the database has {_listed(gone)}, which the model has not"
            yield _Lines(text=text)


def _added_value(preparer: Any, kind: Any, value: str) -> Any:
    literal = value.replace("'", "''").replace(":", "\\:")
    statement = f"ALTER TYPE {preparer.format_type(kind)} ADD VALUE IF NOT EXISTS '{literal}'"
    lines = ['if op.get_context().dialect.name == "postgresql":', f"op.execute({statement!r})", ""]
    return _Lines(lines, "add_value", f"{kind.name}: {value!r}")


def _missing_sequences(context: Any) -> Iterator[Any]:
    """Those that the database lacks; SQLite, which has none, lacks those of new tables."""
    inspector, found = context.inspector, dict[str, Any]()
    for column in (column for table in context.sorted_tables for column in table.columns):
        counted = getattr(column.server_default, "arg", None)  # or next_value()
        sequence = getattr(counted, "sequence", column.default)
        if not isinstance(sequence, sa.Sequence) or sequence.optional:
            continue
        if not context.dialect.supports_sequences:
            there = inspector.has_table(column.table.name, column.table.schema)
        else:
            there = inspector.has_sequence(sequence.name, sequence.schema)
        if not there:
            found[str(sequence.name)] = copy.copy(sequence)
    for name, sequence in found.items():
        sequence.metadata = None  # it would be written too
        up, down = (
            [
                "if op.get_context().dialect.supports_sequences:",
                f"op.execute(sa.schema.{verb}(sa.{sequence!r}, {check}=True))",
                "",
            ]
            for verb, check in (("CreateSequence", "if_not_exists"), ("DropSequence", "if_exists"))
        )
        yield _Lines(up, "add_sequence", name, undo=down)


@comparators.dispatch_for("table")
def _compare_table(context: Any, changes: Any, *compared: Any) -> None:
    """Also the primary key, a UNIQUE without a name, defaults and CHECKs."""

    schema, name, found, table = compared  # as reflected, and of the models; one may be None
    if found is None or table is None:
        return
    keys, wanted = found.primary_key.columns.keys(), table.primary_key.columns.keys()
    if set(keys) != set(wanted):
        text = f"primary key of {name}: ({', '.join(keys)}) -> ({', '.join(wanted)})"
        changes.ops.append(_Lines(text=text))
    models = {*map(_signature, table.constraints)}
    for key in [each for each in found.constraints if isinstance(each, sa.UniqueConstraint)]:
        if key.name is None and _signature(key) not in models:  # Alembic skips it
            text = _nameless(name, "unique", key.columns.keys())
            changes.ops.append(_Lines(text=text))
    try:
        made = _as_the_database_writes(context.connection, table)
    except sa.exc.DBAPIError as error:
        say(f"  Not compared: defaults and CHECKs of {name}: {error.orig}")
        return
    there = _texts(context.inspector, name, schema)
    changes.ops += [
        *_default_steps(table, there[0], made[0]),
        *_check_steps(table, there[1], made[1]),
    ]


def _nameless(table: str, kind: str, columns: Collection[str]) -> str:
    """How to drop what has no name; on SQLite only, for the others give one."""
    short = {"unique": "uq", "foreignkey": "fk"}[kind]
    names = {short: f"{short}_%(column_0_N_name)s"}
    name = f"{short}_{'_'.join(columns)}"
    return (
        f"the {kind} of {table} ({', '.join(columns)}) has no name; what drops it:\n"
        f"    with op.batch_alter_table({table!r}, naming_convention={names}) as batch_op:\n"
        f"        batch_op.drop_constraint({name!r}, type_={kind!r})"
    )


def _as_the_database_writes(connection: Any, table: Any) -> Any:
    """The defaults and CHECKs of the model as a temporary table has them."""

    shadow = table.to_metadata(sa.MetaData(), name="_noventa_compared", schema=None)
    shadow._prefixes = ["TEMPORARY"]
    shadow.indexes.clear()
    for key in [*shadow.constraints]:
        if isinstance(key, sa.ForeignKeyConstraint | sa.UniqueConstraint):
            shadow.constraints.discard(key)
    with connection.begin_nested() as savepoint:
        shadow.create(connection, checkfirst=True)
        try:
            return _texts(sa.inspect(connection), shadow.name, None)
        finally:
            if connection.dialect.name in ("mysql", "mariadb"):  # a rollback would keep it
                connection.exec_driver_sql("DROP TEMPORARY TABLE _noventa_compared")
            savepoint.rollback()


def _texts(inspector: Any, name: str, schema: str | None) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Defaults by column, except where the database computes or counts; CHECKs by name."""
    columns = inspector.get_columns(name, schema)
    defaults = {
        column["name"]: column.get("default")  # which Alembic takes away from a serial
        for column in columns
        if not column.get("computed") and not column.get("identity")
    }
    checks = inspector.get_check_constraints(name, schema)
    return defaults, {check["name"] or check["sqltext"]: check["sqltext"] for check in checks}


def _default_steps(table: Any, found: Any, made: Any) -> Iterator[Any]:
    for column in table.columns:
        default = column.server_default
        counts = column is table.autoincrement_column
        skipped = counts or not (default is None or isinstance(default, sa.DefaultClause))
        if skipped or column.name not in found or column.name not in made:
            continue
        before = found[column.name]
        if _normal(before) != _normal(made[column.name]):
            yield ops.AlterColumnOp(
                table.name,
                column.name,
                schema=table.schema,
                existing_type=column.type,
                existing_nullable=column.nullable,
                existing_server_default=before and sa.DefaultClause(sa.text(before)),
                modify_server_default=default,
            )


def _check_steps(table: Any, found: Any, made: Any) -> Iterator[Any]:
    models = {str(key.name): key for key in table.constraints}
    texts = {_normal(text) for name, text in found.items() if name == text}  # unnamed
    for name, text in found.items():
        if name != text and _normal(text) != _normal(made.get(name)):
            old = sa.CheckConstraint(text, name=sa.schema.conv(name))
            sa.Table(table.name, sa.MetaData(), old, schema=table.schema)
            yield ops.DropConstraintOp.from_constraint(old)
    for name, text in made.items():
        same = _normal(found.get(name)) == _normal(text) or _normal(text) in texts
        if name in models and not same:
            yield ops.CreateCheckConstraintOp.from_constraint(models[name])


def _normal(text: str | None) -> str | None:
    """Without what makes no difference: case, spaces, quotes of names, parentheses around it."""
    if text is None:
        return None
    parts = re.split(r"('(?:[^']|'')*')", text)
    parts[::2] = [re.sub(r"[\s\"`\[\]]", "", part).lower() for part in parts[::2]]
    text = "".join(parts)
    while text.startswith("(") and len(_atoms(text)) == 1:
        text = text[1:-1]
    return re.sub(r"^'(-?[\d.]+)'$", r"\1", text)


# -- what a generated revision may contain


def _review(context: Any, directives: list[Any], metadata: Any) -> None:
    """Refuses a generated revision that loses data, or writes nothing where nothing changed."""

    arguments = context.opts["revision_context"].command_args
    command = getattr(context.config.cmd_opts, "cmd", [None])[0]
    checks = command.__name__ == "check" if command else arguments["message"] is None
    if checks or not arguments["autogenerate"]:
        return
    upgrade, downgrade = directives[0].upgrade_ops, directives[0].downgrade_ops
    if not metadata.tables:
        raise NoventaError(
            "The registry has no tables, so a generated revision would drop all there are;"
            " list the models in registry.py: models=[…], or Component(…, models=[…])."
        )
    if upgrade.is_empty():
        say("Nothing has changed: the database equals the models, no file was written.")
        say(f"  Not compared: {_NOT_COMPARED}.")
        directives.clear()
        return
    if unwritten := [*_unwritten(upgrade)]:
        raise NoventaError(
            "The revision was not written, for autogenerate cannot write this:\n"
            + "".join(f"  {text}\n" for text in unwritten)
            + "Write it by hand: python -m noventa migrate revision -m …"
        )
    allowed = context.environment_context.get_x_argument(as_dictionary=True).get("allow_drop")
    _write_texts_as_they_are(context)
    drops = ops.DropTableOp | ops.DropColumnOp
    lost = [step for step in _each(upgrade) if isinstance(step, drops)]
    if lost and allowed not in ("1", "true", "yes"):
        raise NoventaError("\n".join(_loss_message(lost, upgrade)))
    _give_lengths(upgrade, downgrade)
    _add_circular_keys(upgrade, downgrade)
    _make_enum_types(upgrade, downgrade, metadata)
    _make_schemas(upgrade)
    for operations in (upgrade, downgrade):
        _order_for_mysql(operations)
    _say_what_rows_lack(upgrade)


def _unwritten(upgrade: Any) -> Iterator[str]:
    for step in _each(upgrade):
        if text := getattr(step, "text", ""):
            yield text
        elif isinstance(step, ops.DropConstraintOp) and step.constraint_name is None:
            key: Any = step.to_constraint()
            yield _nameless(step.table_name, str(step.constraint_type), key.columns.keys())


_NOT_COMPARED = (
    "computed columns, identities, how a sequence counts, unnamed CHECKs, EXCLUDE; on SQLite"
    " collations, and indexes on expressions or with DESC"
)


def _write_texts_as_they_are(context: Any) -> None:
    """A `%` of a CHECK, an index or a default reaches the file once, and a `:` as no parameter.

    Alembic compiles them for a driver that wants `%%`, and the file is compiled once more.
    """

    dialect = copy.copy(context.impl.dialect)
    dialect.paramstyle, dialect.positional = "named", False
    dialect.identifier_preparer = dialect.preparer(dialect)
    context.impl.dialect = dialect
    compiled = context.impl.render_ddl_sql_expr

    def render(expression: Any, *, is_index: bool = False, **options: Any) -> str:
        text = str(compiled(expression, is_index=is_index, **options))
        if is_index:  # a literal_column(), which has no parameters
            return text
        return sa.TextClause._bind_params_regex.sub(lambda match: f"\\{match[0]}", text)

    context.impl.render_ddl_sql_expr = render


def _order_for_mysql(operations: Any) -> None:
    """MySQL keeps an index that a foreign key needs: keys go first, tables with their indexes."""

    drops = [step for step in operations.ops if isinstance(step, ops.DropTableOp)]
    dropped = {(step.schema, step.table_name) for step in drops}
    for step in [step for step in operations.ops if isinstance(step, ops.ModifyTableOps)]:
        if (step.schema, step.table_name) in dropped:
            step.ops = [part for part in step.ops if not isinstance(part, ops.DropIndexOp)]
        step.ops.sort(key=_drops_no_key)
    operations.ops = [step for step in operations.ops if getattr(step, "ops", True)]


def _drops_no_key(step: Any) -> bool:
    return not (isinstance(step, ops.DropConstraintOp) and step.constraint_type == "foreignkey")


def _say_what_rows_lack(upgrade: Any) -> None:
    for step in _each(upgrade):
        column = getattr(step, "column", None)
        if column is not None and not column.nullable and column.server_default is None:
            say(
                f"  {step.table_name}.{column.name} must have a value, but rows that are there have"
                " none: give it a server_default in the model, or see to it in the revision."
            )


def _give_lengths(*operations: Any) -> None:
    """Types as SQLite and PostgreSQL tell them may lack the length that MySQL needs."""

    for step in (step for several in operations for step in _each(several)):
        types = ((column, "type") for column in _columns_made(step))
        places = [(step, "existing_type"), (step, "modify_type"), *types]
        for place, name in places:
            if isinstance(kind := getattr(place, name, None), TypeEngine):
                setattr(place, name, with_length(kind))


def _columns_made(step: Any) -> list[Any]:
    """The columns of a table that an operation makes, or adds."""
    named = [*getattr(step, "columns", ()), getattr(step, "column", None)]
    return [each for each in named if isinstance(each, sa.Column)]  # an index has texts


def _each(operations: Any) -> Iterator[Any]:
    """Every operation, also those inside of a table's batch."""
    for operation in operations.ops:
        if hasattr(operation, "ops"):
            yield from _each(operation)
        else:
            yield operation


def _loss_message(lost: Sequence[Any], upgrade: Any) -> Iterator[str]:
    yield "The revision would lose data, so it was not written. It would drop:"
    for step in lost:
        column = getattr(step, "column_name", None)
        yield f"  column {step.table_name}.{column}" if column else f"  table {step.table_name}"
    if renames := list(_renames(lost, upgrade)):
        yield "Renamed? Then run `python -m noventa migrate revision -m rename` and write there:"
        yield from (f"  {line}" for line in renames)
    yield "To drop it all the same: --allow-drop (with alembic -x allow_drop=1, before the verb)."


def _renames(lost: Sequence[Any], upgrade: Any) -> Iterator[str]:
    """For each drop that goes with a like addition the line that renames instead."""

    steps = list(_each(upgrade))
    added = [step for step in steps if isinstance(step, ops.AddColumnOp)]
    created = [step for step in steps if isinstance(step, ops.CreateTableOp)]
    for step in lost:
        if isinstance(step, ops.DropTableOp):
            columns = set(step.to_table().columns.keys())
            for new in created:
                if columns == set(new.to_table().columns.keys()):
                    yield f"op.rename_table({step.table_name!r}, {new.table_name!r})"
            continue
        old: Any = step.to_column()
        for candidate in added:
            kind: Any = candidate.column.type
            alike = old.type._type_affinity is kind._type_affinity
            if candidate.table_name == step.table_name and alike:
                added.remove(candidate)
                text = _type_text(kind, set())
                yield (
                    f"op.alter_column({step.table_name!r}, {old.name!r},"
                    f" new_column_name={candidate.column.name!r}, existing_type={text},"
                    f" existing_nullable={old.nullable})"
                )
                break


def _add_circular_keys(upgrade: Any, downgrade: Any) -> None:
    """Tables that refer to each other are made first; Alembic would leave `use_alter` keys out."""

    for step in [step for step in upgrade.ops if isinstance(step, ops.CreateTableOp)]:
        items: list[Any] = list(step.columns)
        step.columns = [item for item in items if not getattr(item, "use_alter", False)]
        for key in (item for item in items if getattr(item, "use_alter", False)):
            made = ops.CreateForeignKeyOp.from_constraint(key)
            dropped = ops.DropConstraintOp.from_constraint(key)
            upgrade.ops.append(ops.ModifyTableOps(step.table_name, [made]))
            downgrade.ops.insert(0, ops.ModifyTableOps(step.table_name, [dropped]))


def _make_enum_types(upgrade: Any, downgrade: Any, metadata: Any) -> None:
    """For PostgreSQL: a type is made before its first column, and dropped after its last."""
    arriving, leaving = _enums_of(upgrade), _enums_of(downgrade)
    staying = {
        _enum_key(kind)
        for table in metadata.tables.values()
        for column in table.columns
        for kind in _native_enums(column.type)
        if (table.schema, table.name, column.name) not in arriving
    }
    new = {_enum_key(kind): kind for kind in arriving.values() if _enum_key(kind) not in staying}
    wanted = {*staying, *new}
    old = {_enum_key(kind): kind for kind in leaving.values() if _enum_key(kind) not in wanted}
    upgrade.ops[:0] = [_made(kind, "create") for kind in new.values()]
    upgrade.ops += [_made(kind, "drop") for kind in old.values()]
    downgrade.ops[:0] = [_made(kind, "create") for kind in old.values()]
    downgrade.ops += [_made(kind, "drop") for kind in new.values()]


def _enums_of(operations: Any) -> dict[tuple[str | None, str, str], Any]:
    """The enums of the columns that `operations` add, by schema, table and column."""

    found: dict[tuple[str | None, str, str], Any] = {}
    for step in _each(operations):
        kinds = {column.name: column.type for column in _columns_made(step)}
        if isinstance(step, ops.AlterColumnOp) and step.modify_type is not None:
            kinds[step.column_name] = step.modify_type
        for name, kind in kinds.items():
            for enum in _native_enums(kind):
                found[step.schema, step.table_name, name] = enum
    return found


def _made(kind: Any, verb: str) -> Any:
    def write(context: Any) -> str:
        text = _type_text(kind, context.imports).replace(", create_type=False", "")
        return f"{text}.{verb}(op.get_bind(), checkfirst=True)"

    return _Lines(write)


def _make_schemas(upgrade: Any) -> None:
    """A schema is made before its first table; a downgrade keeps it, for it may hold others'."""

    created = [step for step in upgrade.ops if isinstance(step, ops.CreateTableOp)]
    for schema in sorted({step.schema for step in created if step.schema}):
        line = f"op.execute(sa.schema.CreateSchema({schema!r}, if_not_exists=True))"
        lines = ['if op.get_context().dialect.name != "sqlite":', line, ""]
        upgrade.ops.insert(0, _Lines(lines))


class _Lines(ops.MigrateOperation):
    """An operation that is written as lines of plain SQLAlchemy; a function may write them."""

    def __init__(self, lines: Any = "", *diff: str, text: str = "", undo: Any = None) -> None:
        self.lines, self.diff = lines, diff or ("differs", text)
        self.text = text  # what cannot be written, and stops the revision
        self.undo = undo or "pass  # PostgreSQL keeps the values of an enum"

    def reverse(self) -> _Lines:
        return _Lines(self.undo)

    def to_diff_tuple(self) -> tuple[str, ...]:
        return self.diff


@renderers.dispatch_for(_Lines)
def _write_lines(context: Any, step: _Lines) -> Any:
    return step.lines(context) if callable(step.lines) else step.lines


# -- applying


def _run_locked(context: Any, config: Config, configured: Mapping[str, Any]) -> None:
    """Runs a verb on the project's database. Raises NoventaError; nothing is left half done."""
    engine = _migration_engine(config)
    with _reached(config), engine.connect() as connection:
        journal = _Journal(connection, quiet=context.config.messaging_opts["quiet"])
        _configure(context, configured, journal)
        running = context.get_context()
        generates = "revision_context" in running.opts
        if generates or running.opts.get("dont_mutate"):
            running.opts["dont_mutate"] = True  # else it would make the table of the version
            connection.execution_options(noventa_reads=True)
            comparing = "  comparing the database with the models"
            telling = nullcontext() if journal.quiet else progress(comparing)
            with (
                migration_lock(config) if generates else nullcontext(),
                telling,
                _without_warnings(),
            ):
                context.run_migrations()
            return
        with migration_lock(config) as check_lock:
            _run_verb(context, journal, engine, check_lock)


def _run_verb(context: Any, journal: _Journal, engine: Any, check_lock: Callable[[], None]) -> None:
    running = context.get_context()
    heads, stamps = _current_heads(engine, running), "purge" in running.opts
    with _explained(context, journal):
        steps = [*running.opts["fn"](() if running.purge else tuple(heads), running)]
    if not stamps:
        _refuse_unfinished(engine, steps)
    if not steps and not running.purge:
        say(f"Nothing to do: the database is at {_listed(heads)}.")
    else:
        journal.prepare(engine, check_lock)
        try:
            _run_revisions(context, journal)
            journal.connection.commit()
        finally:
            _clear_unfinished(engine)
        if (found := _current_heads(engine, running)) != journal.heads:
            raise NoventaError(
                f"The database says it is at {_listed(found)}, not at {_listed(journal.heads)}: the"
                " migration was not kept. Does a revision end the transaction itself?"
            )
    if stamps:  # who stamps says how the tables are
        _clear_unfinished(engine, finished=True)


def _migration_config(config: Config) -> Config:
    """The settings with the database that migrations and seeds connect to."""
    if not config["migrations.url"]:
        return config
    own = {one.name: one.default for one in SETTINGS if one.name.startswith("database.")}
    own["database.url"] = config["migrations.url"]
    return Config({**config.values, **own}, config.root)


def _migration_engine(config: Config, *, cascades: bool = False) -> Any:
    """An engine whose connections do not wait without end, nor cascade while SQLite copies."""

    config = _migration_config(config)
    begin = partial(_begin_writing, config)
    engine = make_engine(config, begin=begin, poolclass=sa.NullPool, isolation_level=None)
    seconds = max(1, config["migrations.lock_timeout"])
    prepare = {
        # A batch copies tables; _Journal checks the rows.
        "sqlite": f"PRAGMA foreign_keys={'ON' if cascades else 'OFF'}",
        "postgresql": f"SET lock_timeout = {seconds * 1000}",
        "mysql": f"SET SESSION lock_wait_timeout={seconds}, innodb_lock_wait_timeout={seconds}",
    }.get(config.database_url.get_backend_name().replace("mariadb", "mysql"))

    def on_connect(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(prepare)
        cursor.close()
        connection.commit()  # else PostgreSQL takes the setting back with the first rollback

    if prepare:
        sa.event.listen(engine, "connect", on_connect)
    if engine.dialect.name == "sqlite":
        dialect: Any = engine.dialect
        dialect.get_unique_constraints = partial(_uniques, dialect.get_unique_constraints)
    return engine


def _uniques(
    read: Callable[..., Any], connection: Any, table: str, schema: str | None = None, **more: Any
) -> list[Any]:
    """Also those that SQLAlchemy misses in a table's text, like `name VARCHAR(9) UNIQUE`."""
    found = [*read(connection, table, schema, **more)]
    known, keys = {tuple(key["column_names"]) for key in found}, dict[str, list[str]]()
    query = """
        SELECT l.name, i.name FROM pragma_index_list(:name, :schema) AS l
        JOIN pragma_index_info(l.name, :schema) AS i WHERE l.origin = 'u' ORDER BY l.seq, i.seqno
    """
    names = {"name": table, "schema": schema or "main"}
    for key, column in connection.execute(sa.text(query), names):
        keys.setdefault(key, []).append(column)
    missed = [columns for columns in keys.values() if tuple(columns) not in known]
    return found + [{"name": None, "column_names": columns} for columns in missed]


def _begin_writing(config: Config, connection: Any) -> None:
    """SQLite, which has one writer: waits for another one, and says so, before it is too late."""
    options, driver = connection.get_execution_options(), connection.connection.driver_connection
    if "noventa_reads" in options or options.get("isolation_level") == "AUTOCOMMIT":
        return
    seconds = config["migrations.lock_timeout"]

    def attempt() -> str | None:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except driver.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == 5:  # SQLITE_BUSY
                return f"another program, which writes to {config.database_url.database}"
        return None  # what else may fail, the first statement meets and reports

    driver.execute("PRAGMA busy_timeout=0")
    try:
        _wait(attempt, seconds)
    finally:
        driver.execute(f"PRAGMA busy_timeout={seconds * 1000}")


class _Statements:
    """What a revision or a seed has its connection run, and how much of that is committed.

    Before each statement the driver is asked whether its transaction is still under way: it may
    be ended by a session, a text, the driver itself, and on MySQL by DDL.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.run: list[str] = []
        self.kept = 0  # how many of them are committed
        self.undone = False  # the others were rolled back
        event.listen(connection, "before_cursor_execute", self._note)
        event.listen(connection, "commit", self._keep)
        event.listen(connection, "rollback", self._roll_back)

    def clear(self) -> None:
        self.run, self.kept, self.undone = [], 0, False

    def committed(self, failed: bool) -> int:
        """How many statements stay; `failed` says whether the last one did."""
        count = len(self.run) - failed
        ends = failed and self.connection.dialect.name in ("mysql", "mariadb")
        if ends and not _ROWS_ONLY.match(self.run[-1]):
            return count  # DDL there commits what stands before it, even if it fails
        return min(self.kept, count)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.undone:
            del self.run[self.kept :]
            self.undone = False
        elif not _in_transaction(self.connection):
            self.kept = len(self.run)
        words = " ".join(statement.split())
        if _CHANGES.match(words):
            self.run.append(words)

    def _keep(self, _: Any) -> None:
        self.kept, self.undone = len(self.run), False

    def _roll_back(self, _: Any) -> None:
        if not _in_transaction(self.connection):
            self.kept = len(self.run)
        self.undone = True


def _in_transaction(connection: Any) -> bool:
    """Whether the driver has a transaction under way; True where it cannot be asked."""
    driver = connection.connection.driver_connection
    if hasattr(driver, "in_transaction"):  # sqlite3
        return bool(driver.in_transaction)
    if hasattr(driver, "server_status"):  # PyMySQL; 1 is SERVER_STATUS_IN_TRANS
        return bool(driver.server_status & 1)
    return bool(getattr(getattr(driver, "info", None), "transaction_status", 1))  # libpq: 0 is idle


class _Journal:
    """What one run does: the statements of the revision under way, and where it has arrived."""

    def __init__(self, connection: Any, *, quiet: bool) -> None:
        self.connection, self.quiet = connection, quiet
        self.statements = _Statements(connection)
        self.heads: set[str] = set()
        self.engine: Any = None  # of second connections, in a run of our own
        self.check_lock: Callable[[], None] = lambda: None
        self.step: Any = None  # the revision under way
        self.losses: _Losses | None = None  # of a downgrade
        self.orphans: Counter[str] | None = None  # counted on SQLite only
        self.began = time.monotonic()
        if not quiet:
            _show_statements(connection)

    def prepare(self, engine: Any, check_lock: Callable[[], None]) -> None:
        """Rows without parent that are there already are no revision's fault."""

        self.engine, self.check_lock = engine, check_lock
        if engine.dialect.name == "sqlite":
            with reading(engine) as connection:
                self.orphans = _orphans(connection)

    def steps(self, plan: Callable[..., Iterable[Any]], heads: Any, running: Any) -> Iterator[Any]:
        """Alembic's steps, each of which then goes through _run()."""
        for step in plan(heads, running):
            if hasattr(step, "revision"):  # else it stamps
                function = partial(self._run, step, step.migration_fn)
                step.migration_fn = functools.update_wrapper(function, step.migration_fn)
            yield step

    def _run(self, step: Any, function: Callable[..., None], **arguments: Any) -> None:
        self.check_lock()
        self.step, self.losses = step, None if step.is_upgrade else _Losses(self.connection)
        if self.engine:
            _mark_unfinished(self.connection, _id(step), step.name)
        self.statements.clear()
        doing = f"  {'upgrading' if step.is_upgrade else 'downgrading'} {_id(step)}"
        try:
            with nullcontext() if self.quiet else progress(doing):
                function(**arguments)
        except SystemExit as end:  # with exit code 0 the revision would pass for applied
            raise SysExit("it called sys.exit()").with_traceback(end.__traceback__) from None

    def applied(self, *, ctx: Any, step: Any, heads: Iterable[str], **_: Any) -> None:
        """Alembic calls this after each revision, before its COMMIT."""
        if self.orphans is not None:
            before, self.orphans = self.orphans, _orphans(ctx.connection)
            if found := self.orphans - before:
                listed = ", ".join(f"{where}: {count}" for where, count in found.items())
                raise NoventaError(
                    f"The revision would leave rows whose foreign key points to nothing: {listed}."
                    " Nothing of it was kept; let it mend or delete these rows first, for SQLite"
                    " runs no ON DELETE while it migrates."
                )
        self.heads = set(heads)
        lost = self.losses.told(self.statements.run) if self.losses else []
        if self.engine and self.step:
            self.connection.execute(_UNFINISHED.delete())
        self.step, self.losses = None, None
        verb = "stamped" if step.is_stamp else "upgraded" if step.is_upgrade else "downgraded"
        if not self.quiet:
            name = step.up_revision.revision if step.up_revision else "base"
            title = step.up_revision.doc if step.up_revision else ""
            _say_done(f"{verb} {name} {title}".rstrip(), self.began)
            for line in lost:
                say(f"    {line}")
        self.began = time.monotonic()


class SysExit(Exception):  # noqa: N818
    """A revision or a seed called sys.exit()."""


def _id(step: Any) -> str:
    return str(step.revision.revision)


class _Losses:
    """What a downgrade drops, with the number of rows, counted before they go."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.before = _columns_there(connection)
        self.counts: dict[str, dict[str, int]] = {}  # of a table's rows ("") and columns
        event.listen(connection, "before_cursor_execute", self._count)

    def told(self, run: Sequence[str]) -> list[str]:
        """Ends the counting; the seeds whose tables are gone are forgotten."""

        event.remove(self.connection, "before_cursor_execute", self._count)
        carried = " ".join(filter(_CARRIES.search, run))
        after, gone, parts = _columns_there(self.connection), set(), []
        for table, columns in self.before.items():
            counts = self.counts.get(table, {})
            if table not in after and not _named(table, carried):
                gone.add(table)
                parts.append(
                    f"table {table}" + (f" ({_counted(counts[''], 'row')})" if counts else "")
                )
            for column in columns - after.get(table, columns) if counts else ():
                if not _named(column, carried):
                    parts.append(f"column {table}.{column} ({_counted(counts[column], 'value')})")
        lines = [f"dropped {', '.join(parts)}"] if parts else []
        left = {
            table for table, columns in after.items() if columns != {"version_num"}
        }  # no seed's
        return lines + (_forget_seeds(self.connection, gone, left) if gone else [])

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not _DROPS.search(statement):
            return
        for name in self.before.keys() - self.counts.keys():
            inspector = sa.inspect(self.connection)
            if not _named(name, statement) or not inspector.has_table(name):
                continue
            keys = [column["name"] for column in inspector.get_columns(name)]
            table = sa.table(name, *map(sa.column, keys))
            columns = [sa.func.count(table.c[key]) for key in keys]
            row = self.connection.execute(sa.select(sa.func.count(), *columns).select_from(table))
            self.counts[name] = dict(zip(["", *keys], row.one(), strict=True))


def _columns_there(connection: Any) -> dict[str, set[str]]:
    """The columns of each table of the default schema, as another look at the database says."""

    found = sa.inspect(connection).get_multi_columns()
    return {name: {column["name"] for column in columns} for (_, name), columns in found.items()}


def _named(name: str, text: str) -> re.Match[str] | None:
    """Where `name` stands in an SQL text, quoted or not."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)


def _orphans(connection: Any) -> Counter[str]:
    """How many rows of each table lack the parent that a foreign key names."""
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return Counter(f"{child} (to {parent})" for child, _, parent, _ in rows)


def _run_revisions(context: Any, journal: _Journal) -> None:
    with _explained(context, journal), context.begin_transaction(), _without_warnings():
        context.run_migrations()


@contextmanager
def _explained(context: Any, journal: _Journal) -> Iterator[None]:
    """What a revision raises becomes one message that says where it failed, and what is left."""

    try:
        yield
    except Exception as error:  # whatever a revision may raise
        told = isinstance(error, CommandError | NoventaError)
        message = None if isinstance(error, CommandError) else _failure(error, context, journal)
        if told and not message and (left := "\n".join(_left(journal, failed=False))):
            message = f"{error}\n{left}"
        if message:
            raise NoventaError(message) from error
        raise
    finally:
        if not journal.quiet:
            _end_live()


def _failure(error: Exception, context: Any, journal: _Journal) -> str | None:
    """What failed, where, and what is left of it; None if no revision and no database failed."""

    failed = isinstance(error, sa.exc.DBAPIError)
    paths = set(_revision_paths(context.script))
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if Path(frame.filename).resolve() in paths]
    if not places:
        return _reason(error) if failed else None
    file, run = Path(places[-1].filename), journal.statements.run
    lines = [f"{_FOLDER}/versions/{file.name}:{places[-1].lineno}: {_reason(error)}"]
    if failed and run:
        lines.append(f"  in: {_shortened(run[-1])}")
    if waited := _blockers(error, journal.connection):
        lines.append(waited)
    left = [*_left(journal, failed and bool(run))]
    nothing = "Nothing of this revision was kept; mend the file and migrate again."
    text = "\n".join(lines + (left or [nothing]))
    return text.replace("_alembic_tmp_", "")  # the user's table, which was copied


def _left(journal: _Journal, failed: bool) -> Iterator[str]:
    """What of a revision that failed was committed, by whatever way, and what was not; or nothing.

    It is also written down, so that no later run takes the database for whole.
    """
    step, run = journal.step, journal.statements.run
    count = journal.statements.committed(failed) if step else 0
    transactional = journal.connection.dialect.name not in ("mysql", "mariadb")
    if not step or (transactional and not count and not _unfinished_row(journal.engine)):
        return
    if transactional:
        count = count or len(run) - failed
        yield "It committed on its way, so this much of the revision stays:"
    else:
        yield "This database cannot take DDL back. Of this revision these were applied:"
    planned = _planned(step, journal.connection.dialect)
    applied, missing = run[:count], run[count:] + planned[len(run) :]
    yield from (f"  {_shortened(statement)}" for statement in applied or ["(none)"])
    yield "and these were not:" if transactional is False else "and these do not:"
    missing = missing or ["(what stands after the failing line)"]
    yield from (f"  {_shortened(statement)}" for statement in missing)
    again = "migrate" if step.is_upgrade else f"migrate downgrade {_listed(step.to_revisions)}"
    if journal.engine and applied:
        journal.connection.rollback()  # of what the revision began after its own commit
        with journal.engine.begin() as connection:
            _mark_unfinished(connection, _id(step), step.name, "\n".join(applied))
    yield f"Undo the first ones by hand, mend the file, and run `{again}` again."


# -- a revision that stopped half-way, and what it left


def _mark_unfinished(connection: Any, revision: str, verb: str, applied: str = "") -> None:
    """The first thing in a revision's transaction: who sees it later knows of a commit in it."""
    _UNFINISHED.create(connection, checkfirst=True)
    connection.execute(_UNFINISHED.delete())
    connection.execute(_UNFINISHED.insert().values(revision=revision, verb=verb, applied=applied))


def _clear_unfinished(engine: Any, *, finished: bool = False) -> None:
    """Takes the table away, unless it tells of a revision that has not been `finished`."""

    with reading(engine) as connection:
        there = sa.inspect(connection).has_table(_UNFINISHED.name)
    if there and (finished or not _unfinished_row(engine)):
        with engine.begin() as connection:
            _UNFINISHED.drop(connection)


def _unfinished_row(engine: Any) -> Any:
    """As another process sees it, or None; `engine` may be None."""

    if engine is None:
        return None
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(_UNFINISHED.name):
            return None
        return connection.execute(sa.select(_UNFINISHED)).first()


def _refuse_unfinished(engine: Any, steps: Sequence[Any]) -> None:
    """A database that is between two revisions takes the same step again, and no other one."""

    row = _unfinished_row(engine)
    if row is None or (steps and (row.revision, row.verb) == (_id(steps[0]), steps[0].name)):
        return
    lines = [f"  {_shortened(statement)}" for statement in row.applied.splitlines()]
    raise NoventaError(
        f"The {row.verb} of {row.revision} has stopped half-way, and these of its statements stay:"
        f"\n{chr(10).join(lines) or '  (it was killed; which ones is not known)'}\n"
        f"Do what is missing by hand, or undo these, and then run `python -m noventa migrate stamp`"
        f" with the revision at which the tables are; or mend the file and run that {row.verb}"
        " again."
    )


def _planned(step: Any, dialect: Any) -> list[str]:
    """The statements of a revision, written down instead of run; none if it needs answers."""
    text = io.StringIO()
    options = {"as_sql": True, "output_buffer": text, "literal_binds": True}
    try:
        with Operations.context(MigrationContext.configure(dialect=dialect, opts=options)):
            getattr(step.revision.module, step.name)()
    except (Exception, SystemExit):  # whatever it may raise, say because a SELECT has no rows
        return []
    statements = (" ".join(part.split()) for part in text.getvalue().split(";\n"))
    return [statement for statement in statements if statement]


def _current_heads(engine: Any, running: Any) -> set[str]:
    """Reads the revision on a second connection: what another process sees is the truth."""

    names = ("version_table", "version_table_schema")
    options = {name: getattr(running, name) for name in names}
    with reading(engine) as connection:
        return set(MigrationContext.configure(connection, opts=options).get_current_heads())


def _listed(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"


def _shortened(statement: str) -> str:
    return statement if len(statement) <= 100 else f"{statement[:99]}…"


def _blockers(error: Exception, connection: Any) -> str | None:
    """After a lock timeout: the sessions that hold what the migration waited for."""

    original = getattr(error, "orig", None)
    expired = getattr(original, "sqlstate", None) == "55P03"
    if not expired and 1205 not in getattr(original, "args", ())[:1]:
        return None
    query = sa.text(_SESSIONS["postgresql" if expired else "mysql"])
    driver = connection.connection.driver_connection
    own = driver.thread_id() if not expired else getattr(driver.info, "backend_pid", 0)
    with connection.engine.connect() as second:
        rows = second.execute(query, {"own": own}).all()
    lines = [f"  session {row[0]} of {row[1]}, {row[2]}: {row[3] or 'idle'}" for row in rows]
    head = "It waited too long (migrations.lock_timeout); these sessions are in a transaction:"
    return "\n".join([head, *map(_shortened, lines)])


_SESSIONS = {
    "postgresql": """
        SELECT pid, usename, state || ' since ' || date_trunc('second', xact_start), query
        FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
        AND pid NOT IN (pg_backend_pid(), :own) AND backend_type = 'client backend'
        ORDER BY xact_start""",
    "mysql": """
        SELECT p.id, p.user, concat(lower(p.command), ' since ', t.trx_started), p.info
        FROM information_schema.innodb_trx t
        JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
        WHERE p.id NOT IN (connection_id(), :own) ORDER BY t.trx_started""",
}


# -- changing tables that hold rows


class _CarefulSQLite(SQLiteImpl):
    """Alembic's for SQLite, which copies a table whole."""

    __dialect__ = "sqlite"  # registers it
    transactional_ddl = True  # make_engine() sees to it
    copy: _Copy | None = None

    def requires_recreate_in_batch(self, batch_op: Any) -> bool:
        if not self.as_sql:
            batch_op.batch = list(_not_native(self, batch_op.batch))
        return super().requires_recreate_in_batch(batch_op)

    def cast_for_batch_migrate(self, existing: Any, transfer: Any, new_type: Any) -> None:
        column = transfer["expr"]
        if convert := self.memo.pop((column.table.name, column.name), None):
            transfer["expr"] = convert(column)

    def prep_table_for_batch(self, batch_impl: Any, table: Any) -> None:
        self.copy = None if self.as_sql else _Copy(self.connection, batch_impl)

    def create_table(self, table: Any, **options: Any) -> None:
        if self.copy and table is self.copy.new:
            self.copy.create()
        else:
            super().create_table(table, **options)

    def drop_table(self, table: Any, **options: Any) -> None:
        if not (self.copy and table is self.copy.new):  # after a failure; it is rolled back
            super().drop_table(table, **options)

    def rename_table(self, old_table_name: str, *arguments: Any, **options: Any) -> None:
        copy, self.copy = self.copy, None
        if copy:
            copy.replace(partial(super().rename_table, old_table_name, *arguments, **options))
        else:
            super().rename_table(old_table_name, *arguments, **options)


def _before(operation: type[Any], implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Has Alembic look at the rows before it changes a table."""

    def decorate(judge: Callable[..., None]) -> Callable[..., None]:
        @Operations.implementation_for(operation, replace=True)
        def run(operations: Any, step: Any) -> Any:
            if not operations.migration_context.as_sql:
                judge(operations, step)
            return implementation(operations, step)

        return judge

    return decorate


@_before(ops.AlterColumnOp, toimpl.alter_column)
def _judge_alter(operations: Any, operation: Any) -> None:
    """Refuses a change of type or NOT NULL that rows contradict. Raises NoventaError."""

    context = operations.migration_context
    table = sa.table(operation.table_name, schema=operation.schema)
    name, where = operation.column_name, f"{operation.table_name}.{operation.column_name}"
    column: Any = sa.column(name, _selectable=table)
    if operation.modify_nullable is False:
        _refuse_nulls(context.connection, column, where)
    if operation.modify_type is None or operation.kw.get("postgresql_using"):
        return  # who writes how to convert has decided
    new = _plain_type(sa.types.to_instance(operation.modify_type))
    old = operation.existing_type or _reflected_type(context.connection, operation)
    old = _plain_type(sa.types.to_instance(old))
    dialect = context.connection.dialect
    new, old = (kind._variant_mapping.get(dialect.name, kind) for kind in (new, old))
    if _is_wider(old, new):
        return
    read: Callable[[Any], Any] = partial(
        _converted, read=_reader(old, dialect), kind=new, dialect=dialect
    )
    if dialect.name in ("mysql", "mariadb") and isinstance(old, sa.Interval) != isinstance(
        new, sa.Interval
    ):
        read = partial(_exact, None)  # none stays: it is stored as a moment after 1970 there
    _refuse_values(context.connection, column, read, f"{where} is to be {new!r}")
    if dialect.name == "sqlite":
        context.impl.memo[operation.table_name, name] = _sqlite_function(
            context.connection, read, new
        )
    elif dialect.name in ("mysql", "mariadb") and isinstance(old, sa.String):
        _rewrite_texts(context.connection, table, column, read)
    elif dialect.name == "postgresql" and (using := _using(name, old, new, dialect)):
        operation.kw["postgresql_using"] = using


def _refuse_nulls(connection: Any, column: Any, where: str) -> None:
    query = sa.select(sa.func.count()).select_from(column.table).where(column.is_(None))
    if count := connection.scalar(query):
        raise NoventaError(
            f"{where} is to be NOT NULL, but {_rows(count)} no value;"
            " give them one first, in this revision: op.execute(…)"
        )


def _refuse_values(connection: Any, column: Any, read: Callable[[Any], Any], what: str) -> None:
    """Has each value of a column read as the new type reads it."""

    count, example = 0, None
    for (value,) in connection.execute(sa.select(column).where(column.is_not(None))):
        try:
            read(value)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            count, example = count + 1, example if count else value
    if count:
        raise NoventaError(
            f"{what}, but {_rows(count)} a value that it cannot hold, for example {example!r};"
            " change these first, or add a column and fill it by hand."
        )


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"


def _reflected_type(connection: Any, operation: Any) -> Any:
    columns = sa.inspect(connection).get_columns(operation.table_name, schema=operation.schema)
    return next(each["type"] for each in columns if each["name"] == operation.column_name)


def _is_wider(old: Any, new: Any) -> bool:
    """Whether every text of `old` is one of `new`; SQLite never cuts, but `old` may not say."""

    texts = all(
        isinstance(kind, sa.String) and not isinstance(kind, sa.Enum) for kind in (old, new)
    )
    return texts and (new.length is None or (old.length or sys.maxsize) <= new.length)


def _reader(kind: Any, dialect: Any) -> Callable[[Any], Any]:
    """What makes of a value as the driver gives it what it means."""

    stored: Any = sa.Date | sa.DateTime | sa.Time | sa.Interval | sa.Uuid
    if not isinstance(kind, stored):
        return bool if isinstance(kind, sa.Boolean) else lambda value: value
    return kind.dialect_impl(dialect).result_processor(dialect, None) or (lambda value: value)


def _sqlite_function(connection: Any, read: Callable[[Any], Any], kind: Any) -> Any:
    """A function of SQL that converts a column, stored as SQLAlchemy stores `kind`."""

    store = kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    if isinstance(kind, sa.JSON | sa.String) or store is None:  # JSON stays the text it was
        store = lambda value: value  # noqa: E731
    name = f"noventa_convert_{secrets.token_hex(4)}"

    def convert(value: Any) -> Any:
        return None if value is None else store(read(value))

    connection.connection.driver_connection.create_function(name, 1, convert)
    return getattr(sa.func, name)


def _rewrite_texts(connection: Any, table: Any, column: Any, read: Callable[[Any], Any]) -> None:
    """Writes each text as MySQL reads it: it knows no `true`."""

    texts = connection.scalars(sa.select(column).distinct().where(column.is_not(None))).all()
    target = sa.table(table.name, sa.column(column.name), schema=table.schema)
    for text in texts:
        if isinstance(value := read(text), bool):
            update = sa.update(target).where(target.c[column.name] == text)
            connection.execute(update.values({column.name: str(int(value))}))


_TRUTHS = (  # as PostgreSQL reads text
    dict.fromkeys(("1", "t", "true", "y", "yes", "on"), True)
    | dict.fromkeys(("0", "f", "false", "n", "no", "off"), False)
)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_SPAN = re.compile(r"(?:(-?\d+) days?,? )?(\d{1,2}):(\d\d):(\d\d)(?:\.(\d{1,6}))?")


def _converted(value: Any, *, read: Callable[[Any], Any], kind: Any, dialect: Any) -> Any:
    """The stored value as one of the type `kind`. Raises ValueError if it would not be the same."""

    value = read(value)
    for classes, convert in (
        (sa.Enum, _as_enum), (sa.String, _as_text), (sa.Boolean, _as_boolean),
        (sa.Integer, _as_integer), (sa.Numeric | sa.Float, _as_number),
        (sa.DateTime | sa.Date | sa.Time, _as_moment), (sa.Interval, _as_span),
        (sa.Uuid, lambda value, *_: uuid.UUID(str(value))), (sa.JSON, _as_json),
    ):  # fmt: skip
        if isinstance(kind, classes):
            return convert(value, kind, dialect)
    raise ValueError(value)


def _as_enum(value: Any, kind: Any, _: Any) -> str:
    if value not in kind.enums:
        raise ValueError(value)
    return str(value)


def _as_text(value: Any, kind: Any, dialect: Any) -> str:
    if isinstance(value, bytes):
        raise ValueError(value)
    text = str(int(value) if isinstance(value, bool) else value)
    if kind.length is not None and dialect.name != "sqlite" and len(text) > kind.length:
        raise ValueError(value)
    return text


def _as_boolean(value: Any, *_: Any) -> bool:
    return _TRUTHS[value.lower()] if isinstance(value, str) else _exact(value, bool(value))


def _as_integer(value: Any, kind: Any, _: Any) -> int:
    bits = (
        16 if isinstance(kind, sa.SmallInteger) else 64 if isinstance(kind, sa.BigInteger) else 32
    )
    found: int = _exact(_text_number(value), int(value))
    if not -(2 ** (bits - 1)) <= found < 2 ** (bits - 1):
        raise ValueError(value)
    return found


def _as_number(value: Any, kind: Any, dialect: Any) -> Any:
    number = Decimal(str(_text_number(value)))
    if isinstance(kind, sa.Float) or dialect.name == "sqlite":
        _exact(number, Decimal(repr(float(number))))
    if not isinstance(kind, sa.Float) and kind.scale is not None:
        _exact(number, number.quantize(Decimal(1).scaleb(-kind.scale)))
        if kind.precision and abs(number) >= 10 ** (kind.precision - kind.scale):
            raise ValueError(value)
    return number


def _text_number(value: Any) -> Any:
    """A number, of text only as it would be written again: `007` may be a code."""

    if not isinstance(value, str):
        return value
    if not _NUMBER.fullmatch(value):
        raise ValueError(value)
    return Decimal(value)


def _as_moment(value: Any, kind: Any, dialect: Any) -> Any:
    wanted = kind.python_type
    if type(value) is datetime.date and wanted is datetime.datetime:
        return datetime.datetime.combine(value, datetime.time())
    if isinstance(value, datetime.datetime) and wanted is datetime.date:
        _exact(value.replace(tzinfo=None), datetime.datetime.combine(value, datetime.time()))
        return value.date()
    found = wanted.fromisoformat(value) if isinstance(value, str) else value
    zone = getattr(found, "tzinfo", None)
    cut = dialect.name in ("mysql", "mariadb") and not getattr(kind, "fsp", None)
    if type(found) is not wanted or (zone and not getattr(kind, "timezone", False)):
        raise ValueError(value)
    if cut and getattr(found, "microsecond", None):
        raise ValueError(value)
    return found


def _as_span(value: Any, *_: Any) -> Any:
    if isinstance(value, datetime.timedelta):
        return value
    if not (found := _SPAN.fullmatch(value)):
        raise ValueError(value)
    days, hours, minutes, seconds, micro = found.groups("0")
    return datetime.timedelta(
        int(days), int(seconds), int(micro.ljust(6, "0")), 0, int(minutes), int(hours)
    )


def _as_json(value: Any, *_: Any) -> Any:
    if isinstance(value, str):
        json.loads(value)
    return value


def _exact(value: Any, converted: Any) -> Any:
    if value != converted:
        raise ValueError(value)
    return converted


def _using(name: str, old: Any, new: Any, dialect: Any) -> str | None:
    """PostgreSQL's expression that converts a column; None where it needs none."""

    column = dialect.identifier_preparer.quote(name)
    target = dialect.type_compiler_instance.process(new)
    numbers: Any = sa.Integer | sa.Numeric | sa.Float
    if isinstance(new, sa.Boolean) and isinstance(old, numbers):
        return f"{column} <> 0"
    if isinstance(old, sa.Boolean) and not isinstance(new, sa.Boolean):
        return f"{column}::integer::{target}"
    if isinstance(old, sa.String) and (isinstance(new, sa.Enum) or not isinstance(new, sa.String)):
        return f"{column}::text::{target}"  # an Enum is a String too
    zones = [getattr(kind, "timezone", None) for kind in (old, new)]
    if isinstance(old, sa.DateTime) and isinstance(new, sa.DateTime) and zones[0] != zones[1]:
        return f"{column} AT TIME ZONE 'UTC'"  # else the session's own zone would decide
    return None


@_before(ops.AddColumnOp, toimpl.add_column)
def _judge_add(operations: Any, operation: Any) -> None:
    """Refuses a column that rows would lack; MariaDB would make up zeros. Raises NoventaError."""

    column = operation.column
    if column.nullable or column.server_default is not None or column.primary_key:
        return
    table = sa.table(operation.table_name, schema=operation.schema)
    query = sa.select(sa.func.count()).select_from(table)
    if count := operations.migration_context.connection.scalar(query):
        raise NoventaError(
            f"{operation.table_name}.{column.name} must have a value, but {_rows(count)} none;"
            " give it a server_default, or add it nullable, fill it, and then alter it."
        )


@_before(ops.AddConstraintOp, toimpl.create_constraint)
def _judge_constraint(operations: Any, operation: Any) -> None:
    """Refuses a UNIQUE or CHECK that rows break. Raises NoventaError.

    Where its batch adds columns, which are not there yet, the database judges alone.
    """

    adds = any(verb == "add_column" for verb, *_ in getattr(operations.impl, "batch", ()))
    judged = ops.CreateUniqueConstraintOp | ops.CreateCheckConstraintOp
    if adds or not isinstance(operation, judged):
        return
    connection = operations.migration_context.connection
    name, query = operation.table_name, sa.select(sa.func.count())
    table = sa.table(name, schema=operation.schema)
    if isinstance(operation, ops.CreateUniqueConstraintOp):
        columns: list[Any] = [sa.column(str(column)) for column in operation.columns]
        filled = sa.select(*columns).select_from(table).where(*(c.is_not(None) for c in columns))
        repeated = filled.group_by(*columns).having(sa.func.count() > 1)
        found = connection.scalar(query.select_from(repeated.subquery()))
        problem = "values are there more than once"
    else:
        condition: Any = operation.condition
        condition = sa.text(f"NOT ({condition})") if isinstance(condition, str) else ~condition
        found = connection.scalar(query.select_from(table).where(condition))
        problem = "rows break it"
    if found:
        shown = operation.constraint_name or "the constraint"
        raise NoventaError(f"{name}: {shown} cannot be made, for {found} {problem}; mend these.")


# -- how SQLite copies a table


def _not_native(impl: Any, batch: Iterable[Any]) -> Iterator[Any]:
    """What a batch leaves to a copy: SQLite renames columns, everywhere, and drops indexes."""

    names: dict[str, str] = {}
    for verb, arguments, options in batch:
        if verb == "drop_index":
            impl.drop_index(*arguments, **options)
            continue
        if verb == "alter_column":
            table, column, *rest = arguments
            column, new = names.get(column, column), options.get("name")
            if new and new != column:
                impl._exec(ColumnName(table, column, new, schema=options.get("schema")))
                names[column], column = new, new
            left = {key: value for key, value in options.items() if key != "name"}
            unchanged = {"nullable": None, "type_": None, "server_default": False, "comment": False}
            if any(left.get(key, value) is not value for key, value in unchanged.items()):
                yield verb, (table, column, *rest), left
            continue
        yield verb, arguments, options


class _Copy:
    """A table of SQLite while a batch makes it anew under another name.

    Reflection knows less than CREATE TABLE says, so the text stays, but for what differs between
    the table as reflected and as the batch wants it; what went with the old table is made again
    (https://sqlite.org/lang_altertable.html, section 7).
    """

    def __init__(self, connection: Any, batch: Any) -> None:
        self.connection, self.new, self.name = connection, batch.new_table, batch.table.name
        self.execute = connection.exec_driver_sql
        self.indexes = list(batch.new_indexes.values())
        self.objects = self._objects()
        self.broken, self.sequence = self._broken(), self._sequence()
        batch.indexes, batch.new_indexes = {}, {}  # replace() makes them, from their own text
        before = sa.Table(self.name, sa.MetaData(), autoload_with=connection)
        for check in [each for each in before.constraints if isinstance(each, sa.CheckConstraint)]:
            if not check.name:  # the batch knows nothing of these either
                before.constraints.discard(check)
        for column in (*before.columns, *self.new.columns):
            if isinstance(column.type, sa.types.NullType):
                column.type = sa.BLOB()  # a column without type, which stays one
        for name, transfer in batch.column_transfers.items():
            if self.new.columns[name].computed is not None:
                transfer.pop("expr", None)
        made = (
            CreateTable(table).compile(dialect=connection.dialect) for table in (before, self.new)
        )
        self.text = _TableText(self._old_text()).merged(*(_TableText(str(text)) for text in made))

    def _old_text(self) -> str:
        query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        text = self.execute(query, (self.name,)).scalar()
        if text is None or text.upper().startswith("CREATE VIRTUAL"):
            raise NoventaError(f"{self.name} is no table that can be copied, so it stays as it is.")
        if self.execute("PRAGMA foreign_keys").scalar():
            raise NoventaError(
                f"{self.name} cannot be copied while PRAGMA foreign_keys is on: dropping the old"
                " one would delete the rows of its children."
            )
        return str(text)

    def _objects(self) -> dict[str, tuple[str, str, str]]:
        """Kind, table and text of each index, trigger and view of the database, by name."""
        query = "SELECT name, type, tbl_name, sql FROM sqlite_master WHERE type <> 'table'"
        return {name: (kind, of, sql) for name, kind, of, sql in self.execute(query) if sql}

    def create(self) -> None:
        quote = self.connection.dialect.identifier_preparer.quote
        try:
            self.execute(f"CREATE TABLE {quote(self.new.name)} {self.text}")
        except sa.exc.DBAPIError as error:
            raise NoventaError(f"{self.name} cannot be made so: {error.orig}.") from error

    def replace(self, rename: Callable[[], None]) -> None:
        """Gives the copy the name of the table that is gone, and all that went with it."""

        legacy = self.execute("PRAGMA legacy_alter_table").scalar()
        self.execute("PRAGMA legacy_alter_table=ON")  # views and triggers keep the name they know
        rename()
        self.execute(f"PRAGMA legacy_alter_table={legacy}")
        self._set_sequence()
        for name in self.objects.keys() - self._objects().keys():
            kind, _, text = self.objects[name]
            try:
                self.execute(text)
            except Exception as error:
                raise NoventaError(
                    f"The {kind} {name} on {self.name} would be lost ({_reason(error)});"
                    " drop or change it in the same revision."
                ) from error
        for index in self.indexes:
            self.connection.execute(CreateIndex(index))
        for name in self._broken() - self.broken:
            raise NoventaError(
                f"The {self.objects[name][0]} {name} uses what {self.name} would no longer have;"
                " drop or change it in the same revision."
            )

    def _broken(self) -> set[str]:
        """The views and triggers around this table that do not compile; nothing is run."""

        quote, found = self.connection.dialect.identifier_preparer.quote, set()
        for name, (kind, of, text) in self._objects().items():
            if kind == "index" or self.name.lower() not in text.lower():
                continue
            probes = [f"SELECT * FROM {quote(of)}"]  # noqa: S608
            if kind == "trigger":
                query = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0"
                columns = [quote(column) for column, *_ in self.execute(query, (of,))]
                changes = ", ".join(f"{column} = {column}" for column in columns)
                probes = [
                    f"INSERT INTO {quote(of)} DEFAULT VALUES",
                    f"DELETE FROM {quote(of)}",  # noqa: S608
                    f"UPDATE {quote(of)} SET {changes}",  # noqa: S608
                ]
            try:
                for probe in probes:
                    self.execute(f"EXPLAIN {probe}")
            except sa.exc.OperationalError:
                found.add(name)
        return found

    def _set_sequence(self) -> None:
        """AUTOINCREMENT never gives an id a second time, also not that of a deleted row."""
        if self.sequence is not None:
            self.execute("DELETE FROM sqlite_sequence WHERE name = ?", (self.name,))
            self.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (self.name, self.sequence))

    def _sequence(self) -> int | None:
        if not self.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").scalar():
            return None
        query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        found: int | None = self.execute(query, (self.name,)).scalar()
        return found


_TOKEN = re.compile(
    r"""((?:\s|--[^\n]*\n|/\*.*?\*/)*)"""
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[\w$.]+|.)""",
    re.DOTALL,
)
_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}
_CLAUSES = _CONSTRAINTS | {"NOT", "NULL", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED", "AS"}
_TAKES_NEXT = {"CONSTRAINT", "SET", "DEFAULT", "ALWAYS", "NOT", "COLLATE", "REFERENCES"}


class _TableText:
    """CREATE TABLE in its parts: each column's clauses by kind, the constraints, the options."""

    def __init__(self, sql: str) -> None:
        atoms = _atoms(sql.strip())
        position = next(i for i, atom in enumerate(atoms) if atom.lstrip().startswith("("))
        self.options = "".join(atoms[position + 1 :])
        self.columns: dict[str, dict[str, str]] = {}
        self.constraints: list[str] = []
        element: list[str] = []
        for atom in [*_atoms(atoms[position].strip()[1:-1].strip()), ","]:
            if atom.strip() != ",":
                element.append(atom)
                continue
            if element[0].strip().upper() in _CONSTRAINTS:
                self.constraints.append("".join(element).strip())
            else:
                self.columns[_unquoted(element[0])] = _clauses(element)
            element = []

    def __str__(self) -> str:
        columns = ["".join(clauses.values()).strip() for clauses in self.columns.values()]
        return "(\n    " + ",\n    ".join([*columns, *self.constraints]) + f"\n){self.options}"

    def merged(self, before: _TableText, after: _TableText) -> _TableText:
        """This text, with what differs between two others. Raises NoventaError."""
        known = {_normal(text) for text in before.constraints}
        wanted = {_normal(text) for text in after.constraints}
        for text in before.constraints:
            if _normal(text) not in wanted:
                self._remove(text)
        self.constraints += [text for text in after.constraints if _normal(text) not in known]
        self.columns = {
            name: self._merged_column(name, before.columns.get(name, {}), clauses)
            for name, clauses in after.columns.items()
        }
        if _normal(before.options) != _normal(after.options):
            self.options = after.options
        return self

    def _merged_column(
        self, name: str, before: dict[str, str], after: dict[str, str]
    ) -> dict[str, str]:
        if not before:
            return after
        own, merged = self.columns[name], {}
        for kind in dict.fromkeys(["name", "type", *own, *after]):
            same = _normal(before.get(kind, "")) == _normal(after.get(kind, ""))
            text = own.get(kind) if same or kind == "name" else after.get(kind)
            if text:
                merged[kind] = f" {text.strip()}"
        return merged

    def _remove(self, text: str) -> None:
        """Takes out a constraint, which may stand in a column."""

        gone = _identity(text)
        for own in self.constraints:
            if _is_same(_identity(own), gone):
                self.constraints.remove(own)
                return
        for column, clauses in self.columns.items():
            for kind, clause in clauses.items():
                if _is_same(_identity(clause, column), gone):
                    del clauses[kind]
                    return
        raise NoventaError(f"The constraint is not found in the text of the table: {text}")


def _atoms(sql: str) -> list[str]:
    """The words of SQL, each with a blank before it if there was one; parentheses are one."""
    found: list[str] = []
    depth = 0
    for gap, token in _TOKEN.findall(sql):
        piece = (" " if gap else "") + token
        if depth:
            found[-1] += piece
        else:
            found.append(piece)
        depth += {"(": 1, ")": -1}.get(token, 0)
    return found


def _clauses(element: Sequence[str]) -> dict[str, str]:
    """`id INTEGER NOT NULL`: its name, its type, and the rest by kind of clause."""
    words = [atom.strip().upper() for atom in element]
    clauses, kind = {"name": element[0]}, "type"
    for i, word in enumerate(words[1:], 1):
        argument = words[i - 1] in _TAKES_NEXT or (i > 1 and words[i - 2] == "CONSTRAINT")
        if word in _CLAUSES and not argument and words[i : i + 2] != ["NOT", "DEFERRABLE"]:
            start = i + 2 if word == "CONSTRAINT" else i
            kind = {"NOT": "NULL", "GENERATED": "AS"}.get(words[start], words[start])
            while kind in clauses:
                kind += "+"
        clauses[kind] = clauses.get(kind, "") + element[i]
    return clauses


def _identity(text: str, column: str = "") -> tuple[str, str, str]:
    """Name, kind and columns (or condition) of a constraint."""
    words = [atom.strip() for atom in _atoms(text.strip())]
    name = _unquoted(words[1]) if words[0].upper() == "CONSTRAINT" else ""
    words = words[2:] if name else words
    kind = {"REFERENCES": "FOREIGN"}.get(words[0].upper(), words[0].upper())
    groups = [word for word in words if word.startswith("(")]
    if kind == "CHECK" or not column:
        column = groups[0] if groups else ""
    return name, kind, _normal(column) or ""


def _is_same(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    named = bool(one[0] and other[0])
    return one[:2] == other[:2] if named else one[1:] == other[1:]


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in '"`[' else name


# -- one at a time


@contextmanager
def migration_lock(config: Config) -> Iterator[Callable[[], None]]:
    """Lets one process migrate or seed the database; the others wait. Raises NoventaError.

    The lock is on a connection of its own (or on a file beside SQLite's), so that nothing of
    it is in the migration's transaction, and whoever dies gives it back. Yields a function that
    raises NoventaError if the lock has been lost.
    """
    config = _migration_config(config)
    backend = config.database_url.get_backend_name()
    if not config["migrations.lock"] or config.in_memory or backend not in ("sqlite", *_LOCKS):
        yield lambda: None
        return
    with _file_lock(config) if backend == "sqlite" else _server_lock(config) as check:
        yield check


@contextmanager
def _server_lock(config: Config) -> Iterator[Callable[[], None]]:
    engine = make_engine(config, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    queries = _LOCKS[engine.dialect.name]

    def check() -> None:
        try:
            held = connection.scalar(sa.text(queries["held"]))
        except sa.exc.DBAPIError:  # its session has been ended
            held = False
        if not held:
            raise NoventaError(
                "The lock that lets one process migrate or seed was lost: its session on the"
                " server has ended. What comes next was not begun; run the command again."
            )

    def attempt() -> str | None:
        if connection.scalar(sa.text(queries["lock"])):
            return None
        number = connection.scalar(sa.text(queries["holder"]))
        return f"session {number} of the database, which migrates or seeds"

    with _reached(config), engine.connect() as connection:
        connection.execute(sa.text(queries["stay"]))
        _wait(attempt, config["migrations.lock_timeout"])
        yield check  # closing the connection gives the lock back


_KEY = 0x6E6F7665  # "nove": PostgreSQL's advisory locks are numbers, in each database anew
_NAME = "concat('noventa ', left(sha2(database(), 256), 40))"  # MySQL's are one set for the server
_GRANTED = f"classid = {_KEY} AND objid = 1 AND granted"
_LOCKS = {
    "postgresql": {
        "lock": f"SELECT pg_try_advisory_lock({_KEY}, 1)",
        "holder": f"""SELECT min(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE datname = current_database() AND {_GRANTED}""",  # noqa: S608
        "held": f"SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND {_GRANTED}",  # noqa: S608
        "stay": """SELECT set_config(name, '0', false) FROM pg_settings
        WHERE name = 'idle_session_timeout'""",  # from version 14 on
    },
    "mysql": {
        "lock": f"SELECT get_lock({_NAME}, 0)",
        "holder": f"SELECT is_used_lock({_NAME})",
        "held": f"SELECT is_used_lock({_NAME}) = connection_id()",
        "stay": "SET SESSION wait_timeout = 2147483",  # seconds: the most that it takes everywhere
    },
}
_LOCKS["mariadb"] = _LOCKS["mysql"]


@contextmanager
def _file_lock(config: Config) -> Iterator[Callable[[], None]]:
    path = Path(f"{config.database_url.database}.lock".removeprefix("file:"))
    opened: list[Any] = []

    def attempt() -> str | None:
        handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        if not _lock_file(handle):
            holder = handle.read().decode()
            handle.close()
            return f"process {holder or '?'}, which migrates or seeds"
        if not path.exists() or not os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            handle.close()  # its holder has just removed it: this one is nobody's lock
            return "a process that has just ended"
        opened.append(handle)
        return None

    try:
        _wait(attempt, config["migrations.lock_timeout"])
        opened[0].write(str(os.getpid()).encode())
        opened[0].truncate()
    except OSError as error:
        for handle in opened:
            path.unlink()
            handle.close()
        raise NoventaError(f"{path}: {error.strerror}; the lock is a file there.") from None
    with opened[0]:
        try:
            yield lambda: None
        finally:
            path.unlink(missing_ok=True)


def _lock_file(handle: Any) -> bool:
    """Whether the open file is now locked by this process, until it is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - Windows only

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _wait(attempt: Callable[[], str | None], seconds: int) -> None:
    """Repeats `attempt` until it names nobody who holds the lock (None). Raises NoventaError."""

    deadline, pause, told = time.monotonic() + seconds, 0.02, False
    while holder := attempt():
        if time.monotonic() >= deadline:
            raise NoventaError(
                f"Waited for {seconds} s: the database is held by {holder}."
                " Let it end, or end it, or raise migrations.lock_timeout."
            )
        if not told:
            complain(f"Process {os.getpid()} waits for {holder}.")
        told, pause = True, min(pause * 1.5, 0.5)
        time.sleep(pause)


# -- progress


def _show_statements(connection: Any) -> None:
    """On a terminal: each statement while it runs, in a line that is gone when it has ended."""

    def show(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        room = (width_of(sys.stdout) or 80) - 3  # a line that is broken could not be taken back
        print(f"\r  {' '.join(statement.split())[:room]}", end="", flush=True)

    if sys.stdout.isatty():
        event.listen(connection, "before_cursor_execute", show)
        event.listen(connection, "after_cursor_execute", lambda *_: _end_live())


def _say_done(text: str, began: float) -> None:
    _end_live()
    say(f"  {text} ({time.monotonic() - began:.2f} s)")


# -- taking over a database that has tables already


def _adopt(project: Project) -> int:
    """Stamps a database that no revision made, if it equals the models. Raises NoventaError.

    Constraints and indexes with other names than a revision gives them are renamed.
    """

    metadata = _plain_metadata(project.registry)
    with _reached(project.config), _migration_engine(project.config).connect() as connection:
        renames = [*_take_names(sa.inspect(connection), metadata.tables.values())]
        at, differences = _compared(project, metadata, connection)
    if at:
        raise NoventaError(f"The database is at {_listed(at)} already; there is nothing to adopt.")
    if differences:
        raise NoventaError(
            "The database differs from the models, so it was not adopted. To equal them it needs:\n"
            + "".join(f"  {difference}\n" for difference in differences)
            + "To take it as it is all the same: python -m noventa migrate stamp head"
        )
    _rename(project, renames)
    if revision_script(project.config) is None:
        with _scratch(project) as connection:  # empty, so that the revision makes all
            words = ["revision", "--autogenerate", "-m", "Tables that were there"]
            _alembic(project.root, words, connection=connection)
    return _alembic(project.root, ["stamp", "head"])


def _take_names(
    inspector: Any, tables: Iterable[Any], named: type[str] = str
) -> Iterator[tuple[Any, str | None, Any]]:
    """Gives what differs in its name only the name that the database has; yields both names.

    With `named=conv` only what the models leave to the convention: a history that Alembic made
    has other names for it, on each database its own.
    """
    server = inspector.dialect.name != "sqlite"
    for table in tables:
        if not inspector.has_table(table.name, table.schema):
            continue
        found = _keys_found(inspector, table)
        wanted: dict[Any, list[Any]] = {}
        for key in (*table.constraints, *table.indexes):
            wanted.setdefault(_signature(key), []).append(key)
        for signature, keys in wanted.items():
            names = found.get(signature, [])
            if len(keys) != 1 or len(names) != 1 or names[0] == keys[0].name:
                continue
            if isinstance(keys[0].name, named) and (signature[0] != "primary" or server):
                old, new, keys[0].name = names[0], keys[0].name, names[0]
                yield keys[0], old, new


def _signature(key: Any) -> tuple[Any, ...]:
    """What two constraints or indexes have in common that differ in their names only."""

    kinds = {"primary": sa.PrimaryKeyConstraint, "unique": sa.UniqueConstraint}
    if isinstance(key, sa.Index):
        columns = (getattr(each, "name", None) for each in key.expressions)
        return "index", tuple(columns), bool(key.unique)
    if isinstance(key, sa.ForeignKeyConstraint):
        return "foreignkey", tuple(key.column_keys), key.referred_table.name
    kind = next((name for name, base in kinds.items() if isinstance(key, base)), "check")
    return kind, tuple(key.columns.keys()) if kind != "check" else key.name


def _keys_found(inspector: Any, table: Any) -> dict[tuple[Any, ...], list[str | None]]:
    """The names in the database, by signature."""
    found: dict[tuple[Any, ...], list[str | None]] = {}
    where = table.name, table.schema
    primary = inspector.get_pk_constraint(*where)
    if inspector.dialect.name == "postgresql" and primary["name"]:  # the others have none for it
        found["primary", tuple(primary["constrained_columns"])] = [primary["name"]]
    for each in inspector.get_unique_constraints(*where):
        found.setdefault(("unique", tuple(each["column_names"])), []).append(each["name"])
    for each in inspector.get_foreign_keys(*where):
        signature = "foreignkey", tuple(each["constrained_columns"]), each["referred_table"]
        found.setdefault(signature, []).append(each["name"])
    for each in inspector.get_indexes(*where):
        signature = "index", tuple(each["column_names"]), bool(each["unique"])
        if "duplicates_constraint" not in each and None not in each["column_names"]:
            found.setdefault(signature, []).append(each["name"])
    return found


def _rename(project: Project, renames: Sequence[tuple[Any, str | None, Any]]) -> None:
    engine = _migration_engine(project.config)
    with migration_lock(project.config), _reached(project.config), engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        for key, old, new in renames:
            key.name = new
            _rename_key(operations, key, old, project.registry.metadata.naming_convention)
            say(f"  renamed {old or 'what had no name'} of {key.table.name} to {new}")


def _rename_key(operations: Any, key: Any, old: str | None, convention: Any) -> None:
    """By a statement where the database has one, else by making it anew; `convention` names what
    has no name in the database."""
    dialect, kind = operations.get_context().dialect, _signature(key)[0]
    prepare = dialect.identifier_preparer
    table, new = prepare.format_table(key.table), prepare.quote(key.name)
    if dialect.name == "postgresql":
        before = prepare.quote(old)
        schema = f"{prepare.quote(key.table.schema)}." if key.table.schema else ""
        index, other = f"INDEX {schema}{before} RENAME", f"TABLE {table} RENAME CONSTRAINT {before}"
        operations.execute(f"ALTER {index if kind == 'index' else other} TO {new}")
    elif dialect.name != "sqlite" and kind in ("index", "unique"):
        operations.execute(f"ALTER TABLE {table} RENAME INDEX {prepare.quote(old)} TO {new}")
    elif kind == "index":
        operations.drop_index(old, key.table.name, schema=key.table.schema)
        key.create(operations.get_bind())
    elif dialect.name == "sqlite":
        names = {kind: name for kind, name in convention.items() if kind != "pk"}  # AUTOINCREMENT
        with operations.batch_alter_table(key.table.name, naming_convention=names) as batch:
            batch.drop_constraint(old or key.name, type_=kind)
            batch.impl.batch.append(("add_constraint", (key,), {}))
    else:
        operations.impl.add_constraint(key)
        operations.drop_constraint(old, key.table.name, type_=kind, schema=key.table.schema)


def squash(config: AlembicConfig, message: str | None = None) -> None:
    """Makes one revision of all, with the id of the head; no file is touched before it was tried.

    A database at the head stays as it is. Raises NoventaError where the one would not make all
    that the old ones make, rows included.
    """
    project: Project = config.attributes["project"]
    script = ScriptDirectory.from_config(config)
    old = [*script.walk_revisions()]  # the head comes first
    if len(script.get_heads()) > 1:
        raise NoventaError(_heads_message(script))
    if len(old) < 2:
        raise NoventaError("There are no two revisions, so there is nothing to squash.")
    head, paths = old[0].revision, [Path(revision.path) for revision in old]
    with _reached(project.config):
        at = current_revisions(project.config, _migration_engine(project.config))
    if at != {head}:
        raise NoventaError(
            f"The database is at {_listed(at)}, not at {head}: first apply what is pending, here"
            " and in every other database: python -m noventa migrate"
        )
    with tempfile.TemporaryDirectory() as folder:
        with _scratch(project, own=True) as connection:
            words = ["-q", "revision", "--autogenerate", "--rev-id", head]
            words += ["-m", message or "squashed"]
            _alembic(project.root, words, Path(folder), connection=connection)
        lost = _contents_made(project) - _contents_made(project, Path(folder))
        if lost:
            raise NoventaError(_squash_message(lost, paths, project.root))
        [new] = Path(folder).glob("*.py")
        paths[0].write_bytes(new.read_bytes())
    for path in paths[1:]:
        path.unlink()
    target = paths[0].rename(paths[0].with_name(new.name))
    say(
        f"  {len(old)} revisions are one: {target.relative_to(project.root)}. A database that is"
        f" not at {head} yet needs the code of before: migrate it first."
    )


def _contents_made(project: Project, versions: Path | None = None) -> set[str]:
    """What the revisions make on an empty database: its objects, and rows. Raises NoventaError."""
    with _scratch(project, own=True) as connection:
        for fault in _try_revisions(project, connection, versions):
            raise NoventaError(f"Nothing was squashed. {fault}")
        backend = project.config.database_url.get_backend_name()
        found = {
            *connection.exec_driver_sql(_OBJECTS[backend.replace("mariadb", "mysql")]).scalars()
        }
        schemas = {table.schema for table in project.registry.metadata.tables.values()} | {None}
        versions_table = version_table(project.config)["version_table"]
        for schema in schemas:
            for name in sa.inspect(connection).get_table_names(schema):
                table = sa.table(name, schema=schema)
                count = connection.scalar(sa.select(sa.func.count()).select_from(table))
                if count and name != versions_table:
                    found.add(f"rows of {name} ({count})")
        return found


def _squash_message(lost: Collection[str], paths: Iterable[Path], root: Path) -> str:
    by_hand = [
        f"\n  {path.relative_to(root)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _BY_HAND.search(line)
    ]
    return (
        f"Nothing was squashed, for the models do not make what the revisions do: {_listed(lost)}."
        " Give rows to a seed; what else was made by hand cannot be squashed:" + "".join(by_hand)
    )


@contextmanager
def _scratch(project: Project, *, own: bool = False) -> Iterator[Any]:
    """A connection to an empty database, gone afterwards: SQLite, or of the project's own kind
    where the tables need it or `own` asks for it. Raises NoScratch."""

    metadata = _plain_metadata(project.registry)
    backend = project.config.database_url.get_backend_name()
    own = own or "sqlite" not in project.config["migrations.portable_to"]
    make: AbstractContextManager[str] = nullcontext("sqlite://")
    reason = _beyond_sqlite(metadata)
    of_versions = project.config["migrations.version_table_schema"]
    if reason or (own and backend != "sqlite"):
        schemas = {*(table.schema for table in metadata.tables.values()), of_versions} - {None}
        if schemas and backend in ("mysql", "mariadb"):
            shown = ", ".join(sorted(map(str, schemas)))
            raise NoScratch(f"on {backend} a schema is a database, so this would change {shown}")
        make = _server_database(project.config, reason or "what a server makes")
    with make as url:
        config = Config.from_mapping({"database": url}, project.root)
        with _migration_engine(config).connect() as connection:
            if of_versions:  # below SQLAlchemy, for SQLite attaches nothing within a transaction
                dialect, driver = connection.dialect, connection.connection
                verb = "ATTACH ':memory:' AS" if dialect.name == "sqlite" else "CREATE SCHEMA"
                driver.cursor().execute(f"{verb} {dialect.identifier_preparer.quote(of_versions)}")
                driver.commit()
            yield connection


class NoScratch(NoventaError):  # noqa: N818
    """No database could be made to try the revisions on."""


@contextmanager
def _server_database(config: Config, reason: str) -> Iterator[str]:
    """The URL of a new database on the project's server."""

    url, name = config.database_url, f"noventa_scratch_{secrets.token_hex(6)}"
    if url.get_backend_name() == "sqlite":
        raise NoScratch(f"SQLite cannot hold {reason}, and `database` names no other server")
    engine = make_engine(config, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except sa.exc.DBAPIError as error:
        raise NoScratch(
            f"SQLite cannot hold {reason}, and {shown_url(url)} makes no database to try them on:"
            f" {_reason(error)}"
        ) from None
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")


def _beyond_sqlite(metadata: Any) -> str | None:
    """What of the tables SQLite cannot hold: a schema, or a type that only others have."""

    for table in metadata.tables.values():
        if table.schema:
            return f"the schema {table.schema}"
        for column in table.columns:
            if _type_error(column, _DIALECTS["sqlite"]):
                return f"{table.name}.{column.name}, {column.type!r}"
    return None


def _type_error(column: Any, dialect: Any) -> exc.CompileError | None:
    """Why a database does not have the type of a column; None where it has it."""

    try:
        dialect.type_compiler_instance.process(column.type, type_expression=column)
    except exc.CompileError as error:
        return error
    return None


def _compared(project: Project, metadata: Any, connection: Any) -> tuple[set[str], list[str]]:
    """The revisions that a database is at, and what it lacks to equal the models."""
    options = _configuration(project.config, metadata, _options_of(project))
    context = MigrationContext.configure(connection, opts=options)
    with _without_warnings():
        operations = produce_migrations(context, metadata).upgrade_ops
    differences = operations.as_diffs() if operations else []
    return set(context.get_current_heads()), [_difference(entry) for entry in differences]


def _difference(entry: Any) -> str:
    """`add_column users.nick`: one of Alembic's tuples, for people to read."""
    if isinstance(entry, list):
        return ", ".join(_difference(part) for part in entry)
    kind, *rest = entry
    if kind in ("differs", "add_value", "add_sequence"):
        return str(rest[0]) if kind == "differs" else f"{kind} {rest[0]}"
    thing = rest[-1] if not kind.startswith("modify_") else None
    if thing is None:
        before, after = (str(getattr(value, "arg", value)) for value in rest[-2:])
        return f"{kind} {rest[1]}.{rest[2]}: {before} -> {after}"
    table = getattr(thing, "table", None)
    name = getattr(thing, "name", thing)
    if kind.endswith("_column"):
        return f"{kind} {rest[1]}.{name}"
    return f"{kind} {name}" + (f" of {table.name}" if table is not None else "")


# -- seeds


def seed(project: Project, *, again: str | None = None, show_list: bool = False) -> int:
    """Runs the seeds that have not run, in the order of the registry.

    Each runs once, in one transaction with its entry in the table noventa_seed, and leaves
    nothing if it fails. --list says which have run; --again NAME runs one once more.
    """

    seeds = {seed_name(function): function for function in project.registry.seeds}
    if show_list:
        return _list_seeds(project.config, seeds)
    chosen = _seed_called(again, seeds) if again else None
    engine = _migration_engine(project.config, cascades=True)
    with _reached(project.config), migration_lock(project.config) as check_lock:
        before = _applied_seeds(engine)
        pending = [chosen] if chosen else [name for name in seeds if not _has_run(before, name)]
        for name in set(before) & set(seeds) - set(pending):
            for reason in _reasons_to_repeat(before[name], seeds[name]):
                say(f"  {name} {reason}; to run it again: seed --again {name}")
        if pending:
            _make_ledger(engine)
        for name in pending:
            if name in before and not chosen:
                raise _half_seeded(name)
            check_lock()
            _run_seed(project, engine, name, seeds[name], again=bool(chosen))
        if not pending:
            say("Nothing to do: every seed has run." if seeds else "The registry lists no seeds.")
    return 0


def _run_seed(
    project: Project, engine: Any, name: str, function: Callable[..., Any], *, again: bool
) -> None:
    """One seed and its ledger row, in one transaction that the seed's commit does not end.

    The row comes first: of two processes that run one seed, the second waits here, and fails.
    """

    began, finished = time.monotonic(), False

    def refuse(_: object) -> None:
        if not finished:
            raise NoventaError("it ended its connection's transaction; call db.commit() only")

    with engine.connect() as connection:
        statements = _Statements(connection)
        try:
            with connection.begin():
                if not _enter_in_ledger(connection, name, _checksum(function), again=again):
                    say(f"  {name} has been run by another process meanwhile")
                    return
                _show_statements(connection)
                statements.clear()
                sa.event.listen(connection, "commit", refuse)
                session = orm.Session(connection, join_transaction_mode="create_savepoint")
                with progress(f"  seeding {name}"), session:
                    function(session)
                    session.commit()  # a seed that forgets to is meant to keep its rows too
                _set_sequences(connection, project.registry)
                _complete_in_ledger(connection, name, statements.run)
                finished = True
        except (Exception, SystemExit) as error:  # whatever a seed may raise
            raise _seed_failure(project.config, engine, function, error, statements) from error
        finally:
            _end_live()
    _say_done(f"seeded {name}", began)


def _seed_failure(
    config: Config, engine: Any, function: Any, error: Any, statements: _Statements
) -> Exception:
    """What to tell of a seed that failed: where, why, and what it left."""

    name, file = seed_name(function), inspect.getsourcefile(inspect.unwrap(function))
    frames = traceback.extract_tb(error.__traceback__)
    numbers = [frame.lineno for frame in frames if frame.filename == file]
    place = f" ({Path(file).name}:{numbers[-1]})" if file and numbers else ""
    reason = "it called sys.exit()" if isinstance(error, SystemExit) else _reason(error)
    head = f"Seed {name}{place} failed"
    row = _applied_seeds(engine).get(name)
    count = statements.committed(bool(statements.run) and isinstance(error, sa.exc.DBAPIError))
    if count or (row is not None and row.applied_at is None):
        kept = statements.run[: count or None] or ["(statements that went to the driver itself)"]
        listed = "".join(f"\n  {_shortened(statement)}" for statement in kept)
        text = (
            f"{head}: {reason}\nIts transaction was ended on the way (by COMMIT, or on MySQL by"
            f" DDL and TRUNCATE), so this stays:{listed}\n{_half_seeded(name)}"
        )
    else:
        mismatch = revision_mismatch(config, engine)
        text = f"{head} and left nothing: {reason}" + (f"\n{mismatch}" if mismatch else "")
    return NoventaError(text)


def _half_seeded(name: str) -> Exception:
    return NoventaError(
        f"Seed {name} has stopped half-way: take away what it left, then run"
        f" `python -m noventa seed --again {name}`."
    )


def _make_ledger(engine: Any) -> None:
    try:
        with engine.begin() as connection:
            _LEDGER.create(connection, checkfirst=True)
    except sa.exc.DBAPIError:  # without a lock another process may make it at the same moment
        if not sa.inspect(engine).has_table(_LEDGER.name):
            raise


def _enter_in_ledger(connection: Any, name: str, checksum: str, *, again: bool) -> bool:
    """Whether this process may run the seed: nobody else has, or has begun to."""

    if again:
        connection.execute(sa.delete(_LEDGER).where(_LEDGER.c.name == name))
    try:
        connection.execute(sa.insert(_LEDGER).values(name=name, checksum=checksum))
    except sa.exc.IntegrityError:
        return False
    return True


def _complete_in_ledger(connection: Any, name: str, statements: Iterable[str]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    tables = _columns_there(connection).keys() - {*_OUR_TABLES.tables}
    wrote = set()
    for statement in statements:  # of the tables that it names it writes the first
        places = {found.start(): each for each in tables if (found := _named(each, statement))}
        wrote |= {places[min(places)]} if places else set()
    values = {"applied_at": now.replace(tzinfo=None, microsecond=0), "wrote": sorted(wrote)}
    connection.execute(sa.update(_LEDGER).where(_LEDGER.c.name == name).values(values))


def _forget_seeds(connection: Any, gone: set[str], there: set[str]) -> list[str]:
    """After a downgrade: a seed of whose tables none is left runs again; else it is noted.

    One that has rows in other tables too would add these a second time.
    """

    if _LEDGER.name not in there:
        return []
    lines = []
    for row in connection.execute(sa.select(_LEDGER)).all():
        wrote = set(row.wrote or gone | there - {*_OUR_TABLES.tables})
        this = _LEDGER.c.name == row.name
        if wrote & gone and not wrote & there:
            connection.execute(sa.delete(_LEDGER).where(this))
            lines.append(f"forgot that {row.name} has run: `seed` runs it again")
        elif wrote & gone:
            lost = sorted({*(row.lost or ()), *(wrote & gone)})
            connection.execute(sa.update(_LEDGER).where(this).values(lost=lost))
    return lines


def _has_run(applied: Mapping[str, Any], name: str) -> bool:
    return name in applied and applied[name].applied_at is not None


def _reasons_to_repeat(row: Any, function: Callable[..., Any]) -> Iterator[str]:
    if row.checksum != _checksum(function):
        yield "has changed since it ran"
    if row.lost:
        yield f"has run, but a downgrade dropped its rows in {', '.join(row.lost)}"


def _applied_seeds(engine: Any) -> dict[str, Any]:
    """The rows of the ledger by name; none where there is no ledger, which is not made here."""

    if lacks_file(engine):
        return {}
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(_LEDGER.name):
            return {}
        return {row.name: row for row in connection.execute(sa.select(_LEDGER))}


def _list_seeds(config: Config, seeds: Mapping[str, Callable[..., Any]]) -> int:
    with _reached(config):
        applied = _applied_seeds(make_engine(config, poolclass=sa.NullPool))
    rows = [(name, _seed_state(applied.get(name), function)) for name, function in seeds.items()]
    for name in set(applied) - set(seeds):
        rows.append((name, f"ran {applied[name].applied_at}, no longer listed"))
    say(columns(rows) if rows else "The registry lists no seeds.")
    return 0


def _seed_state(row: Any, function: Callable[..., Any]) -> str:
    if row is None:
        return "pending"
    if row.applied_at is None:
        return "stopped half-way"
    changed = ", changed since" if row.checksum != _checksum(function) else ""
    lost = f", a downgrade dropped its rows in {', '.join(row.lost)}" if row.lost else ""
    return f"ran {row.applied_at}{changed}{lost}"


def _seed_called(name: str, seeds: Mapping[str, Any]) -> str:
    """The full name of a seed of which the last parts were given. Raises NoventaError."""

    found = [full for full in seeds if full == name or full.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    remedy = f"say which: {', '.join(found)}" if found else did_you_mean(name, seeds)
    raise NoventaError(f"{name!r} is {'more than one seed' if found else 'no seed'}; {remedy}")


def _checksum(function: Callable[..., Any]) -> str:
    """Of the whole file, for the rows that a seed adds are often listed beside it."""
    file = inspect.getsourcefile(inspect.unwrap(function))
    text = Path(file).read_text("utf-8") if file else repr(function)
    return hashlib.sha256(text.encode()).hexdigest()


def _set_sequences(connection: Any, registry: Registry) -> None:
    """PostgreSQL: a sequence knows nothing of the ids that a seed gave; it goes on after them."""

    if connection.dialect.name != "postgresql":
        return
    quote = connection.dialect.identifier_preparer
    for table in registry.metadata.tables.values():
        column = table.autoincrement_column
        if column is None or not sa.inspect(connection).has_table(table.name, schema=table.schema):
            continue
        name, key = quote.format_table(table), quote.format_column(column)
        connection.execute(
            sa.text(
                f"SELECT setval(s, top) FROM (SELECT max({key}) AS top,"  # noqa: S608
                " pg_get_serial_sequence(:name, :key)::regclass AS s FROM " + name + ") AS t"
                " WHERE s IS NOT NULL AND top >= coalesce(pg_sequence_last_value(s), 0)"
            ),
            {"name": name, "key": column.name},
        )


# -- what `check` says


def portability_faults(project: Project) -> Iterator[Fault]:
    """What one of the databases of `migrations.portable_to` could not hold of the models."""
    wanted = project.config["migrations.portable_to"]
    dialects = {name: dialect for name, dialect in _DIALECTS.items() if name in wanted}
    owners = {table.key: owner for table, owner in project.registry.tables.items()}
    tables = {
        table: _owner(owners[table.key], project.root)
        for table in _plain_metadata(project.registry).tables.values()
    }
    if "postgresql" in dialects:
        yield from _enum_faults(tables)
    for table, owner in tables.items():
        faults = [*_column_faults(table, owner, dialects)]
        if "mysql" in dialects:
            for where, problem, remedy in _mysql_faults(table, owner):
                faults.append(Fault(where, f"not portable to mysql: {problem}", remedy))
        yield from faults
        for name, dialect in dialects.items() if not faults else ():
            try:
                CreateTable(table).compile(dialect=dialect)
                for index in table.indexes:
                    CreateIndex(index).compile(dialect=dialect)
            except exc.SQLAlchemyError as error:
                problem = f"not portable to {name}: {str(error).splitlines()[0]}"
                yield Fault(owner, problem, "change it, or give it per database")


def length_advice(project: Project) -> Iterator[str]:
    """The columns of each model that hold less on MySQL and MariaDB than elsewhere."""

    if "mysql" not in project.config["migrations.portable_to"]:
        return
    for table, owner in project.registry.tables.items():
        if names := [column.name for column in table.columns if is_unbounded(column.type)]:
            where = f"{_owner(owner, project.root)}: {', '.join(names)}"
            yield (
                f"{where}: String without a length: VARCHAR(255) on MySQL and MariaDB, where longer"
                " text is refused; give it a length, or write sa.Text."
            )


def _owner(owner: str, root: Path) -> str:
    """`components/user/user_models.py: User`"""
    module, _, name = owner.rpartition(".")
    file = getattr(sys.modules.get(module), "__file__", None)
    return f"{os.path.relpath(Path(file).resolve(), root)}: {name}" if file else owner


def _column_faults(table: Any, owner: str, dialects: Mapping[str, Any]) -> Iterator[Fault]:
    for column in table.columns:
        for name, dialect in dialects.items():
            if error := _type_error(column, dialect):
                yield Fault(
                    f"{owner}.{column.name}",
                    f"not portable to {name}: {str(error).splitlines()[0].rstrip('.')}",
                    "take a type of sqlalchemy itself, or add .with_variant() for this database",
                )


def _mysql_faults(table: Any, owner: str) -> Iterator[tuple[str, str, str]]:
    """What SQLAlchemy compiles for MySQL and MariaDB, but they refuse or take otherwise: where,
    why, and what mends it. A key has 3,072 bytes (4 a character), and no text without a length."""

    for key in (*table.constraints, *table.indexes):
        columns = [] if isinstance(key, sa.CheckConstraint) else list(key.columns)
        total = 0
        for column in columns:
            kind = column.type.dialect_impl(_DIALECTS["mysql"])
            if isinstance(kind, sa.Text | sa.LargeBinary | sa.JSON):
                where, problem = f"{owner}.{column.name}", f"{kind!r} cannot be in a key or index"
                yield where, problem, "give it a length: String(255)"
            total += 4 * (getattr(kind, "length", None) or 0)
        if total > 3072:
            yield owner, f"the key {key.name} is over 3072 bytes", "shorten its columns"
    for index in table.indexes:
        conditions = (given.get("where") for given in index.dialect_options.values())
        if index.unique and any(condition is not None for condition in conditions):
            problem = f"it takes no WHERE, so {index.name} would be unique for all rows"
            remedy = "index a computed column that is NULL where the index does not apply"
            yield owner, problem, remedy
    for key in table.constraints:
        if key.deferrable is not None or key.initially is not None:
            problem = f"it knows no DEFERRABLE, which {key.name} is"
            yield owner, problem, "leave it out, or leave mysql out of migrations.portable_to"
    for column in table.columns:
        if column.computed is not None and not column.nullable:
            problem = "MariaDB refuses NOT NULL for a computed column"
            yield f"{owner}.{column.name}", problem, "write nullable=True"


def _enum_faults(tables: Mapping[Any, str]) -> Iterator[Fault]:
    """PostgreSQL has one type for all enums of one name."""

    first: dict[Any, tuple[list[str], str]] = {}
    for column in (column for table in tables for column in table.columns):
        where = f"{tables[column.table]}.{column.name}"
        for kind in _native_enums(column.type):
            values, other = first.setdefault(_enum_key(kind), (kind.enums, where))
            if values != kind.enums:
                problem = f"its enum {kind.name} has other values than that of {other}"
                yield Fault(where, problem, "give one of them another name: Enum(…, name=…)")


def revision_faults(project: Project) -> Iterator[Fault]:
    """Faults of the revisions and their files, found without the project's database."""
    folder = project.root / _FOLDER
    try:
        script = revision_script(project.config)
    except NoventaError as error:
        yield Fault(f"{_FOLDER}/versions", str(error), "correct the file")
        return
    for path in _revision_paths(script) if script else ():
        yield from _import_faults(path, project.root)
    environment = folder / "env.py"
    text = environment.read_text("utf-8") if environment.exists() else None
    if script is None and text is None:
        if project.registry.metadata.tables:
            yield Fault(_FOLDER, "no revision makes the tables", _REVISE)
    elif "run_migrations(registry" not in (text or ""):
        problem = "it does not call run_migrations(registry, …) of noventa_cli"
        yield Fault(f"{_FOLDER}/env.py", problem, "move it away; `noventa migrate` makes a new one")
    elif script is not None and len(script.get_heads()) > 1:
        yield Fault(f"{_FOLDER}/versions", *_heads_message(script).rsplit("\n", 1))
    else:
        with _scratch(project) as connection:
            yield from _try_revisions(project, connection)


_REVISE = 'run `python -m noventa migrate revision --autogenerate -m "…"`'


def _import_faults(path: Path, root: Path) -> Iterator[Fault]:
    """A revision is history: it must not change because a model does."""

    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = getattr(node, "module", None)
        for name in [module] if module else [alias.name for alias in node.names]:
            top = name.partition(".")[0]
            if (root / top).is_dir() or (root / f"{top}.py").is_file():
                yield Fault(
                    f"{_FOLDER}/versions/{path.name}:{node.lineno}",
                    f"it imports {name} of the application, which will change",
                    "write what it needs into the revision itself",
                )


def _try_revisions(
    project: Project, connection: Any, versions: Path | None = None
) -> Iterator[Fault]:
    """Each revision up, down and up again on an empty database; then the drift from the models."""
    where, table = f"{_FOLDER}/versions", project.config["migrations.version_table"]
    try:
        for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"]):
            _alembic(project.root, words, versions, connection=connection)
            connection.commit()
            left = set(sa.inspect(connection).get_table_names()) - {table}
            connection.rollback()
            if words[0] == "downgrade" and left:
                yield Fault(where, f"downgrade leaves {_listed(left)}", "drop it there")
    except NoventaError as error:
        first = str(error).splitlines()[0]
        name = connection.dialect.name
        problem = f"on a scratch database of {name} `{' '.join(words)}` fails: {first}"
        yield Fault(where, problem, "mend the revision")
        return
    _, differences = _compared(project, _plain_metadata(project.registry), connection)
    if differences:
        problem = f"the revisions do not make what the models say: {', '.join(differences)}"
        yield Fault(where, problem, _REVISE)


# ---- Inspection -----------------------------------------------------------------------------


@dataclass
class Report:
    """What `check` looked at, and what it found there; said as it goes unless `quiet`."""

    quiet: bool = False
    looked_at: list[str] = field(default_factory=list)
    faults: list[Fault | str] = field(default_factory=list)  # a text where one was raised
    advice: list[str] = field(default_factory=list)

    def add(self, part: str, text: str, faults: Iterable[Fault | str], sound: str = "") -> None:
        """A line on one part of the application; `sound` goes on where it has no fault."""
        found: dict[Fault | str, None] = {}
        with nullcontext() if self.quiet else progress(f"{part:<12} being looked at"):
            try:
                for fault in faults:
                    if fault not in self.faults:
                        found[fault] = None
            except NoScratch as error:  # what was found until then stays
                text, sound = f"{text}, not tried: {error}", ""
        self.faults += found
        text += f", {_counted(len(found), 'fault')}" if found else sound
        self.looked_at.append(f"{part}: {text}")
        if not self.quiet:
            line = wrapped(f"{part:<12} {text}", sys.stdout, indent=13)
            colour = "red" if found else "green"
            print(line.replace(part, coloured(part, colour, sys.stdout), 1), flush=True)


def check(root: Path, *, deploy: bool = False, as_json: bool = False) -> int:
    """Lists every fault of settings, registry, templates, models, migrations and database.

    Says `ok` where there is none; changes nothing. --deploy adds what matters in production
    only, and advice, which is no fault.
    """
    report = Report(quiet=as_json)
    config = _check_settings(report, root)
    sound = not report.faults  # env.py reads the settings itself
    _check_registry(report, root, config, sound=sound)
    if sound and deploy:  # of defaults that stand in for the settings it would say nothing
        report.faults += _deploy_faults(config)
        if fault := pooler_fault(config, make_engine(config, poolclass=sa.NullPool)):
            report.faults.append(f"config.yaml: {fault}")
        report.advice += _deploy_advice(config)
    elif not config["debug"]:
        report.faults += config.starter_keys()  # no application starts with one
    return _print_json(report) if as_json else _print_report(report)


def _print_report(report: Report) -> int:
    for line in report.advice:
        say(f"advice: {line}")
    if not report.faults:
        say(coloured("ok", "green", sys.stdout))
        return 0
    count = coloured(f"{_counted(len(report.faults), 'fault')}:", "red", sys.stderr)
    return complain("\n".join([count, *(f"  {fault}" for fault in report.faults)]))


def _print_json(report: Report) -> int:
    """The report as one document; a fault has `where`, `problem` and, where known, `remedy`."""
    faults = []
    for fault in report.faults:
        if isinstance(fault, str):
            where, _, problem = fault.partition(": ")
            faults.append({"where": where, "problem": problem, "remedy": None})
        else:
            faults.append(asdict(fault))
    document = {"faults": faults, "advice": report.advice, "looked_at": report.looked_at}
    print(json.dumps(document, indent=2, ensure_ascii=False))
    return 1 if faults else 0


def _check_settings(report: Report, root: Path) -> Config:
    """The settings, or the defaults where they have faults: the rest can be checked with them."""
    try:
        config = Config.load(root)
        Database(config)
    except ConfigError as error:
        report.add("settings", "config.yaml", str(error).splitlines())
        return Config.from_mapping({}, root)
    changed = sum(config[setting.name] != setting.default for setting in SETTINGS)
    report.add("settings", f"{changed} of {len(SETTINGS)} changed", (), ", none misspelt")
    return config


def _check_registry(report: Report, root: Path, config: Config, *, sound: bool) -> None:
    try:
        registry = load_registry(root)
    except NoventaError as error:
        report.add("registry", "registry.py", str(error).splitlines())
        return
    if wrong := wrong_types(registry):  # nothing else can be judged by them
        report.add("registry", "registry.py", wrong)
        return
    kinds = {"route": registry.routes, "component": registry.components, "seed": registry.seeds}
    listed = ", ".join(_counted(len(entries), noun) for noun, entries in kinds.items())
    components = Components(registry, config)
    found, of_routes = registry_faults(registry), [*route_faults(registry.routes)]
    report.add("registry", listed, [*found, *of_routes])
    faults = [*template_faults(registry, components), *static_faults(components)]
    if not of_routes:
        faults += link_faults(components, Router(registry.routes))
    if sound and not config["secret_keys"]:
        faults += _missing_key(components)
    report.add("templates", str(len(components.templates)), faults, " compile")
    if sound and not found:  # judged only by models that are whole
        _check_models(report, Project(root, config, registry))


def _missing_key(components: Components) -> Iterator[Fault]:
    """That templates need a session, and no secret key would sign it."""
    signing = {"action", "action_ticket", "flashes", "fragment"}
    using = [name for name, uses in sorted(components.uses.items()) if uses.names & signing]
    if using:
        listed = ", ".join(using[:3]) + (", …" if len(using) > 3 else "")
        problem = f"secret_keys is empty, but a form or a message needs one in {listed}"
        remedy = 'write ["${file:secret.key}"], and there what `openssl rand -hex 32` prints'
        yield Fault("config.yaml", problem, remedy)


def static_faults(components: Components) -> Iterator[Fault]:
    """Files that a template gives to `static()` and no folder has."""
    for name, uses in sorted(components.uses.items()):
        for call in uses.calls:
            if call.function == "static" and not components.static.has(call.first):
                yield components.static.missing(f"{name}:{call.line}", call.first)


_LINK = re.compile(r"""(?<![\w-])(?:href|(?:form)?action)\s*=\s*(["'])(/(?!/).*?)\1""", re.DOTALL)


def link_faults(components: Components, router: Router) -> Iterator[Fault]:
    """Paths in templates that no route answers."""
    for name, uses in sorted(components.uses.items()):
        for line, target in (*_urls(uses.calls), *_links(components.jinja, name)):
            path = unquote(re.split(r"[?#]", target)[0])
            match = router.match(path)
            if match and not isinstance(match.route, Static):
                continue
            if components.static.has(match.tail) if match else router.slash_variant(path):
                continue
            problem = f"it leads to {path!r}, which no route answers"
            remedy = (
                f"{did_you_mean(path, router.paths)} If another server does, write {{{{ '…' }}}}"
            )
            yield Fault(f"{name}:{line}", problem, remedy)


def _urls(calls: Iterable[Call]) -> Iterator[tuple[int, str]]:
    """Line and path of each `url("/…")`."""
    for call in calls:
        if call.function == "url" and re.match("/(?!/)", call.first):
            yield call.line, call.first


def _links(environment: jinja2.Environment, name: str) -> Iterator[tuple[int, str]]:
    """Line and path of each attribute of a template that links to a path written whole."""
    source, filename, _ = cast(jinja2.BaseLoader, environment.loader).get_source(environment, name)
    for text in environment.parse(source, name, filename).find_all(jinja2.nodes.TemplateData):
        for found in _LINK.finditer(text.data):
            yield text.lineno + text.data.count("\n", 0, found.start(2)), found[2]


def _check_models(report: Report, project: Project) -> None:
    registry, config = project.registry, project.config
    tables = _counted(len(registry.metadata.tables), "table")
    dialects = ", ".join(config["migrations.portable_to"])
    report.add("models", f"{tables}, on {dialects}", portability_faults(project))
    report.advice += length_advice(project)
    revisions = _counted(_revision_count(config), "revision")
    anew = "; made anew they equal the models"
    before = len(report.faults)
    report.add("migrations", revisions, revision_faults(project), anew)
    make_all = len(report.faults) == before
    _check_database(report, config, registry.tables if make_all else ())


def _revision_count(config: Config) -> int:
    try:
        script = revision_script(config)
    except NoventaError:  # revision_faults() says so
        return 0
    return len([*script.walk_revisions()]) if script else 0


def _check_database(report: Report, config: Config, tables: Iterable[sa.Table]) -> None:
    """Whether the database answers, is at the head of the revisions, and has the tables that they
    make."""
    engine = make_engine(config, poolclass=sa.NullPool)
    url, faults = shown_url(config.database_url), list[Fault]()
    where, current = f"database {url}", set[str]()
    try:
        current = current_revisions(config, engine)
    except sa.exc.DBAPIError as error:
        remedy = "start it, or mend `database` in config.yaml"
        faults.append(Fault(where, f"it does not answer: {_reason(error)}", remedy))
    else:
        if mismatch := revision_mismatch(config, engine):
            problem, _, remedy = mismatch.removesuffix(".").partition("; ")
            faults.append(Fault(where, problem, remedy))
        elif current and (absent := _absent_tables(engine, tables)):
            problem = f"it is at {_listed(current)}, but lacks {_listed(absent)}"
            faults.append(Fault(where, problem, "restore a backup, or begin with an empty one"))
    at = f"at {_listed(current)}, " if current else ""
    report.add("database", f"{at}{url}", faults)


def _absent_tables(engine: sa.Engine, tables: Iterable[sa.Table]) -> list[str]:
    with reading(engine) as connection:
        found = sa.inspect(connection)
        return [str(one) for one in tables if not found.has_table(one.name, one.schema)]


def _deploy_faults(config: Config) -> Iterator[str]:
    debug = "unset NOVENTA_DEBUG" if "NOVENTA_DEBUG" in os.environ else "write debug: false"
    keys = 'write ["${NOVENTA_SECRET_KEY}"] or ["${file:secret.key}"], and there what'
    keys += " `openssl rand -hex 32` prints"
    if config["debug"]:
        yield f"config.yaml: debug is true: errors show source code; {debug}."
    yield from config.starter_keys()
    if not config["secret_keys"]:
        yield f"config.yaml: secret_keys is empty: sessions and forms fail; {keys}."
    written = _written_keys(config)
    for number, key in enumerate(config["secret_keys"]):
        if any(key in entry for entry in written):
            yield f"config.yaml: secret_keys[{number}] stands in the file; {keys}."
    if not config["session.secure"]:
        yield (
            "config.yaml: session.secure is false: the cookie travels without encryption too;"
            " write session: {secure: true}."
        )
    if config.in_memory:
        yield "config.yaml: database is in memory: each process has its own; name a file."


def _written_keys(config: Config) -> Sequence[str]:
    """The entries of `secret_keys` as they stand in config.yaml, with defaults in them."""
    path = config.root / "config.yaml"  # a Config.from_mapping() has none
    document = yaml.safe_load(path.read_text("utf-8")) if path.exists() else None
    return (document or {}).get("secret_keys") or ()


def _deploy_advice(config: Config) -> Iterator[str]:
    if not config["server.hosts"]:
        yield (
            "server.hosts is empty: any Host is answered, and request.url says what it said; write"
            " server: {hosts: [example.com]}, or .example.com for all below it."
        )
    if config.database_url.get_backend_name() == "sqlite":
        yield (
            "database is SQLite: all processes must run on one machine, with the file on its own"
            " disk, and one writes at a time; for several machines write"
            " database: postgresql+psycopg://…"
        )
    if is_loopback(config["server.host"]):
        yield (
            f"server.host is {config['server.host']}: `serve` is reached through a proxy on this"
            " machine, which must speak HTTPS and pass Host on as it came."
        )
    else:
        yield (
            f"server.host is {config['server.host']}: `serve` speaks HTTP to whoever can connect;"
            " put a proxy that speaks HTTPS before it and write server: {host: 127.0.0.1}."
        )
    if "strict-transport-security" not in (name.lower() for name in config["headers"]):
        yield (
            "browsers may still try HTTP first; once HTTPS works for good, write"
            ' headers: {Strict-Transport-Security: "max-age=31536000"}.'
        )


def routes(project: Project, *, wide: bool = False, as_json: bool = False) -> int:
    """Prints each URL with what it is made of: page, guards, components, actions, tables.

    As a table, or where a terminal is too narrow for it, as a block for each URL.
    """
    registry = project.registry
    _, components = compile_registry(registry, project.config)
    rows = [_route_row(route, registry, components) for route in registry.routes]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    cells = [[" ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows]
    titles = [name.upper() for name in _ROUTE_COLUMNS]
    table = columns([titles, *([cell or "-" for cell in row] for row in cells)])
    needed, room = max(map(len, table.split("\n"))), width_of(sys.stdout)
    if wide or room is None or needed <= room:
        print(table)
        return 0
    for row in rows:
        say(coloured(row["url"], "cyan", sys.stdout))
        for label, text in _route_lines(row, components):
            print(wrapped(f"  {label:<11} {text}", sys.stdout, indent=12))
    say(f"The table is {needed} wide: routes --wide")
    return 0


def _route_lines(row: Mapping[str, Any], components: Components) -> Iterator[tuple[str, str]]:
    """The block of a route: what its table's row says, with components inside one another."""
    lines = {
        ", ".join(row["methods"]) if row["kind"] == "endpoint" else row["kind"]: [row["target"]],
        "guards": [name.rpartition(".")[2] for name in row["guards"]],
        "components": _nested(row["target"], components, ()) if row["components"] else [],
        "actions": [f"POST {name}" for name in row["actions"]],
        "tables": row["tables"],
    }
    for label, texts in lines.items():
        if text := ", ".join(dict.fromkeys(texts)):
            is_open = label == "actions" and not row["guards"]
            yield label, text + ("   (no guard)" if is_open else "")


def _nested(template: str, components: Components, above: tuple[str, ...]) -> list[str]:
    """`user_list › card`: what a template shows, each with what it shows itself."""
    texts = []
    for name in sorted(components.shown_in(template)):
        below = components.by_name[name].template
        inner = _nested(below, components, (*above, name)) if name not in above else []
        listed = inner[0] if len(inner) == 1 else f"({', '.join(inner)})"
        texts.append(f"{name} › {listed}" if inner else name)
    return texts


_ROUTE_COLUMNS = (
    "url", "kind", "methods", "target", "guards", "components", "actions", "tables",
)  # fmt: skip


def _route_row(route: Any, registry: Registry, components: Components) -> dict[str, Any]:
    """A row of the table; a page's `target` is its template, an endpoint's its function."""
    page = route if isinstance(route, Page) else None
    names = components.components_in(page.template) if page else []
    used = [component for component in registry.components if component.name in names]
    guards = [*registry.guards, *route.guards, *(c.guard for c in used if c.guard)]
    models = [model for one in (page, *used) if one for model in one.models]
    tables = {table.name for table in Registry(models=models).tables}
    actions = actions_of(page) if page else {}
    values = (
        route.path,
        route.kind,
        [] if route.below else list(route.methods),
        _target_of(route),
        [_name_of(guard) for guard in guards],
        [component.name for component in used],
        [*actions, *(f"{one.name}.{action}" for one in used for action in actions_of(one))],
        sorted(tables),
    )
    return dict(zip(_ROUTE_COLUMNS, values, strict=True))


def _target_of(route: Any) -> str:
    for name in ("template", "folder"):
        if hasattr(route, name):
            return str(getattr(route, name))
    return _name_of(getattr(route, "handler", None) or route.application)


def _name_of(function: Any) -> str:
    module = getattr(function, "__module__", type(function).__module__)
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def shell(project: Project) -> int:
    """Opens a Python prompt with `db`, `app`, `registry` and the models."""
    with _names(project) as names, suppress(SystemExit):  # exit() ends the prompt only
        banner = f"{project.root.name}: {', '.join(names)}. Only db.commit() keeps what db did."
        code.interact(banner, local=names, exitmsg="")
    return 0


def run(project: Project, file: str, arguments: Sequence[str]) -> int:
    """Runs a Python file of yours with the names of `shell`: `db`, `app`, `registry`, the models.

    It can import the project, and sees its ARGS in sys.argv. Only db.commit() keeps what db did.
    """
    path, before = Path(file).resolve(), (sys.argv, sys.modules["__main__"])
    try:
        source = path.read_bytes()
    except OSError as error:
        raise NoventaError(
            f"{file} cannot be read: {error.strerror}; name a Python file."
        ) from None
    with _names(project) as names:
        script = ModuleType("__main__")
        vars(script).update(names, __file__=str(path))
        sys.argv, sys.modules["__main__"] = [file, *arguments], script
        sys.path.insert(1, str(path.parent))  # the project comes first
        try:
            exec(compile(source, path, "exec"), vars(script))  # noqa: S102 - what was asked for
        except SystemExit as end:
            code = end.code or 0
            return code if isinstance(code, int) else complain(code)
        except Exception as error:  # the script's own, to be shown as Python does
            sys.stdout.flush()
            print(_own_traceback(error, str(path)), file=sys.stderr)  # source keeps its columns
            return 1
        finally:
            sys.argv, sys.modules["__main__"] = before
    return 0


def _own_traceback(error: Exception, file: str) -> str:
    """The traceback from the script's first line on, without what is above it."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return "".join(traceback.format_exception(error.with_traceback(frames))).rstrip()


@contextmanager
def _names(project: Project) -> Iterator[dict[str, Any]]:
    """What `shell` and `run` offer, with a session that is open meanwhile."""
    app, registry = load_app(project.root), project.registry
    members = [one for model, _ in registry.listed_models() for one, _ in members_of(model)]
    models = {one.__name__: one for one in members if isinstance(one, type)}
    with app.database.session() as db:
        yield {**models, "db": db, "app": app, "registry": registry}


# ---- Guide ----------------------------------------------------------------------------------


_CHAPTERS = (
    "first_steps", "registry", "pages", "forms", "fragments", "sessions", "database",
    "migrations", "endpoints", "uploads", "errors", "testing", "scripts", "settings", "security",
    "deploying", "performance", "from_flask", "from_django",
)  # fmt: skip


class Chapter(NamedTuple):
    """One of the guide, in Markdown."""

    title: str
    text: str


def chapters() -> dict[str, Chapter]:
    """The guide by the names of its chapters, in the order in which it is read."""
    found = {}
    for path in (data_folder("templates") / "guide").glob("*.md"):
        _, title, text = path.read_text("utf-8").split("\n", 2)  # the first is for its test
        found[path.stem] = Chapter(title.removeprefix("# "), text)
    return {name: found[name] for name in sorted(found, key=_CHAPTERS.index)}


def guide(topic: str | None = None) -> int:
    """Shows a chapter of the guide, in a pager on a terminal; without TOPIC the list of them.

    Of a word that is no chapter it says which chapters have it.
    """
    known = chapters()
    if topic is None:
        say("The guide. `python -m noventa help TOPIC` shows a chapter:\n")
        say(columns([(f"  {name}", chapter.title) for name, chapter in known.items()]))
    elif topic in known:
        title, text = known[topic]
        pydoc.pager(wrapped(f"# {title}\n{text}", sys.stdout, 0))
    else:
        times = {name: one.text.lower().count(topic.lower()) for name, one in known.items()}
        most = sorted(filter(times.get, times), key=lambda name: -times[name])[:5]
        remedy = f"it is spoken of in: {', '.join(most)}" if most else did_you_mean(topic, known)
        complain(f"help: {topic!r} is no chapter; {remedy}")
        return 2
    return 0


# ---- Workbench ------------------------------------------------------------------------------
# An App makes one in debug only, where no other machine gets an answer; in production nothing of
# this module is imported.

_KEPT = 50  # requests
_MOST_STATEMENTS = 1_000  # of one request
_LONGEST = 2_000  # characters of a statement, of its parameters
_MOST_NOTICES = 5  # on one page
_REPEATED = 3  # times that the same statement from one line is worth a word


@dataclass(eq=False)
class Statement:
    """One that was sent to the database; `where` is the line of the project that asked."""

    text: str
    parameters: str
    where: str
    tables: list[str]
    started: float
    seconds: float = 0.0
    rows: int | None = None  # given or changed, where the driver says it

    @property
    def writes(self) -> bool:
        """Whether it changed rows, by its first word; WITH … is judged as reading."""
        return self.text.lstrip("( ").partition(" ")[0].upper() in _WRITING


_WRITING = {"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}


def _alike(statements: Iterable[Statement]) -> list[list[Statement]]:
    """The same statements of one line together, in the order of the first of them."""
    found: dict[tuple[str, str], list[Statement]] = {}
    for one in statements:
        found.setdefault((one.text, one.where), []).append(one)
    return [*found.values()]


def _repeated(statements: Iterable[Statement]) -> list[list[Statement]]:
    """Those that one line sent again and again, most often first."""
    often = [same for same in _alike(statements) if len(same) >= _REPEATED]
    return sorted(often, key=len, reverse=True)


@dataclass(eq=False)
class Part:
    """A page, guard, component or action while it ran, with what ran inside."""

    name: str
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    inside: list[Part] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """With what ran inside."""
        return self.ended - self.started

    def walk(self) -> Iterator[Part]:
        """This part and all inside it, in order."""
        yield self
        for part in self.inside:
            yield from part.walk()


class Trail(list[str]):
    """The trail of a request that notes when each part of it began and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Part("")
        self.open = [self.root]

    def append(self, name: str) -> None:
        """A part begins."""
        super().append(name)
        part = Part(name)
        self.open[-1].inside.append(part)
        self.open.append(part)

    def pop(self, index: Any = -1) -> str:
        """The innermost part has ended."""
        name = super().pop(index)
        self.end(len(self) + 1)
        return name

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        self.end(len(self) + 1)

    def __setitem__(self, index: Any, names: Any) -> None:
        del self[:]
        for name in names:
            self.append(name)

    def end(self, depth: int) -> None:
        """Ends what is open from that depth on."""
        now = time.perf_counter()
        for part in self.open[depth:]:
            part.ended = now
        del self.open[depth:]


@dataclass(eq=False)
class Record:
    """A request that was answered, as the workbench shows it."""

    number: int
    what: str
    at: datetime.datetime = field(default_factory=datetime.datetime.now)
    trail: Trail = field(default_factory=Trail)
    statements: list[Statement] = field(default_factory=list)  # all that was sent, in order
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)
    session: list[str] = field(default_factory=list)
    refused: str = ""  # why, in one word
    endings: list[str] = field(default_factory=list)  # commits and rollbacks of transactions
    forgotten: list[Forgotten] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """What ran, in order."""
        return [*self.trail.root.walk()][1:]

    @property
    def tone(self) -> str:
        """The class of its status."""
        return "bad" if self.status >= 500 else "warn" if self.status >= 400 else "good"


@dataclass(eq=False)
class Forgotten:
    """What a handler changed and did not commit."""

    what: str  # the request
    handler: str
    where: str  # its first line
    lost: list[tuple[str, str, list[tuple[str, str, str]]]]  # rows: column, what it is, was to be
    statements: list[tuple[str, str]]  # what was sent, and its parameters
    flashes: list[str]  # messages that went with it


class Recorder:
    """What is kept of the requests to an application: what ran, what was sent and what was lost."""

    def __init__(self, app: App) -> None:
        self._config = app.config
        self.records: deque[Record] = deque(maxlen=_KEPT)
        self.notices: deque[Forgotten] = deque(maxlen=_MOST_NOTICES)  # for the next page
        self._numbers = itertools.count(1)
        self._now: ContextVar[Record | None] = ContextVar("noventa_record", default=None)
        self._files = {route.path for route in app.registry.routes if isinstance(route, Static)}
        for engine in app.database.engines:
            event.listen(engine, "before_cursor_execute", self._before_statement)
            event.listen(engine, "after_cursor_execute", self._after_statement)
            for ending in ("commit", "rollback"):
                event.listen(engine, ending, partial(self._note_ending, ending))

    @property
    def now(self) -> Record | None:
        """That of the request that is being answered."""
        return self._now.get()

    def respond(
        self, context: RequestContext, answer: Callable[[RequestContext], Answer]
    ) -> Answer:
        """The answer to a request, which is kept to be looked at."""
        record = Record(next(self._numbers), described(context.request.environ))
        context.trail = record.trail
        token = self._now.set(record)
        try:
            answered = answer(context)
        finally:
            self._now.reset(token)
            record.trail.end(0)
        of_ours = context.request.environ.get("PATH_INFO", "").startswith(Workbench.path)
        if not of_ours and not self._files.intersection(record.trail[:1]):
            self._keep(record, context, answered)
        return answered

    def _keep(self, record: Record, context: RequestContext, answered: Answer) -> None:
        request, session = context.request, context.session
        hide, environ = _hider(self._config, request), request.environ
        record.status = int(answered.status[:3])
        record.headers = [
            (name, "hidden" if name == "Set-Cookie" else hide(value))
            for name, value in answered.headerlist
        ]
        cookies = [f"{name}, hidden" for name, _ in _cookies(request) if name]
        record.asked = {
            "Query": hide(environ.get("QUERY_STRING", "")) or "none",
            "Accept": environ.get("HTTP_ACCEPT", "none"),
            "Cookies": ", ".join(cookies) or "none",
        }
        record.session = sorted(session) if session.touched else []
        for one in record.statements:
            one.parameters = hide(one.parameters)
        self.records.append(record)

    def _before_statement(self, *sent: Any) -> None:
        _, _, text, parameters, context, _ = sent
        record = self.now
        if record is None or len(record.statements) >= _MOST_STATEMENTS:
            return
        where, tables = _asking_line(self._config.root), _tables_of(context)
        shown = _BRIEF.repr(parameters)
        one = Statement(text[:_LONGEST], shown, where, tables, time.perf_counter())
        record.statements.append(one)
        record.trail.open[-1].statements.append(one)
        context.noventa_statement = one

    def _after_statement(self, *sent: Any) -> None:
        _, cursor, _, _, context, _ = sent
        one: Statement | None = getattr(context, "noventa_statement", None)
        if one is not None:
            one.seconds = time.perf_counter() - one.started
            fetched = getattr(context.cursor_fetch_strategy, "_rowbuffer", None)  # on SQLite all
            rows = cursor.rowcount if fetched is None else len(fetched)
            one.rows = rows if rows >= 0 else None

    def _note_ending(self, ending: str, _: sa.Connection) -> None:
        if record := self.now:
            record.endings.append(ending)

    def note_forgotten(
        self, context: RequestContext, handler: Callable[..., Any] | None, rows: Sequence[str]
    ) -> None:
        """Keeps what `handler` (None: it raised) leaves without commit, before it is lost."""
        if (record := self.now) is None:
            return
        hide, session = _hider(self._config, context.request), context.session
        sent = {" ".join(one.text.split())[:60]: hide(one.parameters) for one in record.statements}
        flashes = session.state["flashes"][session.old_flashes :] if session.touched else []
        forgotten = Forgotten(
            record.what,
            " › ".join([*context.trail[-1:], *([name_of(handler)] if handler else [])]),
            place_of(handler) if handler else "",
            [*_lost(context.arguments[2](), hide)],
            [(row, sent[row]) for row in rows if row in sent],
            [text for text, _ in flashes],
        )
        record.forgotten.append(forgotten)
        self.notices.append(forgotten)

    def note_refusal(self, reason: str) -> None:
        """Keeps why a request was refused, for its page."""
        if record := self.now:
            record.refused = reason


def _asking_line(root: Path) -> str:
    """`pages/index.html:7`: the line of the project that is running now."""
    stack = traceback.walk_stack(sys._getframe(1))
    return next(filter(None, (_line_of(frame, line, root) for frame, line in stack)), "")


def _tables_of(context: Any) -> list[str]:
    """The tables that a statement of SQLAlchemy's names; none for one that is text."""
    compiled = getattr(context, "compiled", None)
    if compiled is None or not isinstance(compiled.statement, sa.ClauseElement):
        return []
    found = find_tables(
        compiled.statement, check_columns=True, include_joins=True, include_selects=True,
        include_crud=True,
    )  # fmt: skip
    return sorted({table.name for table in found if isinstance(table, sa.Table)})


def _lost(
    session: orm.Session, hide: Callable[[str], str]
) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """The rows of a session that were not flushed: what was to happen to each, and its values."""
    kinds = {"added": session.new, "changed": session.dirty, "deleted": session.deleted}
    rows = [(kind, row) for kind, found in kinds.items() for row in found]
    for kind, row in rows[:_MOST_VALUES]:
        state = sa.inspect(row, raiseerr=True)
        name = " ".join([state.mapper.local_table.name, *map(str, state.identity or ())])
        columns = []
        for column in (attribute.key for attribute in state.mapper.column_attrs):
            history = state.attrs[column].history  # loads nothing
            if history.added:
                values = [hide(_BRIEF.repr(*found)) if found else "" for found in history[::2]]
                now, was = ("hidden", "hidden") if _SECRET.search(column) else values
                columns.append((column, was, now))
        if columns or kind != "changed":
            yield kind, name, columns


def _hider(config: Config, request: Request) -> Callable[[str], str]:
    """A function that takes secrets out of a text; the longest first, as it may contain a shorter
    one."""
    known: list[str] = [*config["secret_keys"]]
    if password := config.database_url.password:
        known += [password, quote(password, safe="")]
    cookies = [value for _, value in _cookies(request)]
    cookies += request.__dict__.get("cookies", {}).values()  # the same without their quotes
    known += [value for value in cookies if len(value) > 5]  # `theme=dark` is no secret
    known += [value for name, value in _posted_fields(request) if "password" in name.lower()]
    ordered = sorted({*known} - {""}, key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in ordered:
            text = text.replace(secret, "…")
        return text

    return hide


def _cookies(request: Request) -> list[tuple[str, str]]:
    """The cookies of a request as they were sent: nothing can be wrong with them."""
    pairs = (pair.partition("=") for pair in request.environ.get("HTTP_COOKIE", "").split(";"))
    return [(name.strip(), value.strip(" \t")) for name, _, value in pairs]


def _posted_fields(request: Request) -> list[tuple[str, str]]:
    """The fields of a form that was read already; none of one that was not."""
    fields = request.__dict__.get("_posted", ((), ()))[0]
    return [*fields.pairs()] if fields else []


class Workbench:
    """The pages at /_noventa/, and what debug adds to those of the application."""

    path = "/_noventa"
    refuse_strangers = staticmethod(refuse_strangers)

    def __init__(self, app: App) -> None:
        self.app, self.recorder = app, Recorder(app)
        self._templates = _workbench_templates()
        app.jinja.globals["workbench"] = self.link

    # What it adds to the pages of the application.

    @jinja2.pass_context
    def link(self, context: jinja2.runtime.Context) -> Markup:
        """A small link from a page to its request, for the foot of a layout."""
        record = self.recorder.now
        if record is None:
            return Markup()
        url = context["url"](f"{self.path}/requests/{record.number}")
        spent = _milliseconds(time.perf_counter() - record.trail.root.started)
        count = _counted(len(record.statements), "statement")
        return Markup(
            '<aside aria-label="Noventa, in debug"><a class="noventa" href="{}">{} · {}</a></aside>'
        ).format(url, spent, count)

    def with_notices(self, context: RequestContext, html: str) -> str:
        """A page with what was not committed before it, in this request or before a redirect."""
        waiting = self.recorder.notices
        if not waiting:
            return html
        notices = [waiting.popleft() for _ in range(len(waiting))]
        template = self._templates.get_template("notice.html")
        return insert_notice(html, template.render(notices=notices, at=context.url(self.path)))

    def error_page(self, context: RequestContext, error: BaseException, status: int) -> Answer:
        """What went wrong: its cure, the project's own lines with their values, the rest folded."""
        context.scope.end_session()  # its objects load nothing more: a repr() sends no SQL
        config, dialect = self.app.config, self.app.database.engine.dialect
        hide, record = _hider(config, context.request), self.recorder.now
        frames = [(one, _frames(one, config.root)[::-1]) for one in _chain(error)]
        chain = [(hide(_exception_line(one)), steps) for one, steps in frames]
        statement = getattr(error, "statement", None)
        server = ".".join(map(str, getattr(dialect, "server_version_info", None) or ("?",)))
        return self._page(
            context, "error.html", status,
            title=http.HTTPStatus(status).phrase,
            what=described(context.request.environ),
            trail=[*context.trail],
            exception=chain[0][0],
            cure=_cure(error, self.app),
            chain=chain,
            folded=_folded,
            source=partial(_source, hide),
            values=partial(_values, hide),
            hide=hide,
            statement=hide(statement[:_LONGEST]) if statement else None,
            parameters=hide(_BRIEF.repr(getattr(error, "params", None))),
            asked=_asked(context, hide),
            versions=[
                ("Noventa", __version__), ("Python", platform.python_version()),
                ("SQLAlchemy", sa.__version__), (dialect.name, server),
            ],
            number=record.number if record else 0,
        )  # fmt: skip

    def explains(self, context: RequestContext, status: int) -> bool:
        """Whether we know more of an error than the application's page for it: why a request was
        refused, or which routes there are."""
        record = self.recorder.now
        return bool(record and record.refused) or (status == 404 and not context.trail)

    def status_page(self, context: RequestContext, shown: Mapping[str, Any]) -> Answer:
        """An error that is no exception: what was refused and why, or which routes there are."""
        record, routes = self.recorder.now, self.app.registry.routes
        reason = record.refused if record else ""
        nearest: list[str] = []
        if shown["status"] == 404:
            asked = context.request.path_info
            paths = [_filled(str(route.path), asked) for route in routes]
            nearest = difflib.get_close_matches(asked, paths, n=1)
        hide = _hider(self.app.config, context.request)
        return self._page(
            context, "status.html", shown["status"],
            title=shown["title"], message=hide(shown["message"]),
            what=described(context.request.environ), trail=[*context.trail], reason=reason,
            nearest=[(path, context.url(path)) for path in nearest],
            routes=[(route.path, _target_of(route)) for route in routes],
        )  # fmt: skip

    # Its own pages.

    def page(self, context: RequestContext, path: str) -> Answer:
        """The answer at a path of ours. Raises HTTPNotFound."""
        name, _, rest = path.removeprefix(self.path).strip("/").partition("/")
        records = [*self.recorder.records]
        if context.request.method not in ("GET", "HEAD"):
            raise webob.exc.HTTPMethodNotAllowed(headers={"Allow": "GET, HEAD"})
        if not name:
            seen, deploy = Map(self.app, records), [*_deploy_faults(self.app.config)]
            return self._page(context, "map.html", map=seen, deploy=deploy)
        if name == "notice.css":
            style = reply(data_folder("templates") / "workbench" / name)
            return self.app.responder.of_response(context, style)
        if name == "guide" and rest in ("", *chapters()):
            return self._page(context, "guide.html", chapters=chapters(), chapter=rest)
        if name == "requests" and not rest:
            return self._page(context, "requests.html", records=records[::-1], gone="")
        numbers = [str(one.number) for one in records]
        if name == "requests" and rest.isdecimal() and rest not in numbers:
            page = {"records": records[::-1], "gone": rest}
            return self._page(context, "requests.html", 404, **page)
        if name != "requests" or rest not in numbers:
            raise webob.exc.HTTPNotFound
        here = numbers.index(rest)
        record, before, after = records[here], ["", *numbers][here], [*numbers, ""][here + 1]
        groups = [*_grouped(record.trail.root.inside)]
        return self._page(
            context, "request.html", record=record, groups=groups, before=before, after=after
        )

    def _page(self, context: RequestContext, name: str, status: int = 200, **values: Any) -> Answer:
        html = self._templates.get_template(name).render(
            values, app=self.app.config.name, home=context.url("/"), at=context.url(self.path),
            here=name, status=status, kept=_KEPT,
        )  # fmt: skip
        html = html.encode("utf-8", "replace").decode()  # a lone surrogate of a client's
        answer = self.app.responder.answers.framework_page(html, status)
        answer.headers["Cache-Control"] = "no-store"
        return answer


def _workbench_templates() -> jinja2.Environment:
    environment = _templates_in(data_folder("templates") / "workbench")
    environment.filters |= {
        "alike": _alike, "counted": _counted, "ms": _milliseconds, "repeated": _repeated,
        "type": _type_name,
    }  # fmt: skip
    return environment


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def _type_name(kind: TypeEngine[Any]) -> str:
    """A column's type as Python knows it, else as SQL does."""
    try:
        return kind.python_type.__name__
    except NotImplementedError:
        return str(kind).lower()


def _grouped(parts: Sequence[Part], depth: int = 0) -> Iterator[tuple[int, list[Part]]]:
    """The lines of a request's tree with their depths: parts of one name that ran one after
    another are one line, as twenty rows are."""
    for _, found in itertools.groupby(parts, key=lambda part: part.name):
        same = [*found]
        yield depth, same
        yield from _grouped([inner for part in same for inner in part.inside], depth + 1)


def _filled(path: str, asked: str) -> str:
    """The path of a route with what was asked for as its parameters, where it fits."""
    parts, segments = path.split("/"), asked.split("/")
    for number, part in enumerate(parts[: len(segments)]):
        if parameter := parameter_of(part):
            converter = CONVERTERS[parameter[1]]
            end = len(segments) if converter.takes_rest else number + 1
            text = "/".join(segments[number:end])
            parts[number] = text if converter.convert(text) is not None else part
    return "/".join(parts)


def _asked(context: RequestContext, hide: Callable[[str], str]) -> dict[str, str]:
    """What a handler could see of the request, secrets hidden."""
    request, session = context.request, context.session
    parts = {
        "View args": request.view_args,
        "Query": request.environ.get("QUERY_STRING") or {},
        "Form": dict(_posted_fields(request)),
        "Session": dict(session) if session.touched else {},
    }
    return {name: hide(_BRIEF.repr(part)) if part else "none" for name, part in parts.items()}


class Seen:
    """What the kept requests tell of a route or component, that the registry cannot know."""

    def __init__(self) -> None:
        self.reads, self.writes = set[str](), set[str]()
        self.worst: Record | None = None  # with the most statements
        self.writing: set[str] = set()  # its actions that wrote


class Map:
    """The registry as it runs, the database's state, and what the kept requests tell of both."""

    def __init__(self, app: App, records: Sequence[Record]) -> None:
        self.app, registry = app, app.registry
        self.seen: defaultdict[str, Seen] = defaultdict(Seen)
        for record in records:
            for part in record.trail.root.inside:
                seen = self.seen[part.name]
                if not seen.worst or len(record.statements) >= len(seen.worst.statements):
                    seen.worst = record
                self._note(part, part.name)
        self.routes = [_route_row(route, registry, app.components) for route in registry.routes]
        pages = [row for row in self.routes if row["kind"] == "page"]
        self.components = [self._component(one, pages) for one in registry.components]
        self.state = _database_state(app)
        counts = self.state["rows"]
        absent = "not there" if counts else "not asked"
        tables = sorted(registry.tables, key=lambda table: table.name)
        self.tables = [(table, counts.get(table.name, absent)) for table in tables]
        self.component_ids = {one["name"]: f"c{n}" for n, one in enumerate(self.components, 1)}
        self.table_ids = {table.name: f"t{n}" for n, table in enumerate(tables, 1)}
        used = {name for one in self.components for name in one["models"]}
        used |= {name for row in self.routes for name in row["tables"]}
        used |= {name for seen in self.seen.values() for name in seen.reads | seen.writes}
        self.unused = [name for name in self.table_ids if name not in used]

    def _note(self, part: Part, owner: str) -> None:
        """Notes what a part asked for at its nearest component, page or endpoint."""
        owner = part.name if part.name in self.app.components.by_name else owner
        seen = self.seen[owner]
        for one in part.statements:
            (seen.writes if one.writes else seen.reads).update(one.tables)
            if one.writes and part.name.startswith("action_"):
                seen.writing.add(part.name.removeprefix("action_"))
        for inner in part.inside:
            self._note(inner, owner)

    def _component(self, one: Component, pages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        components, seen = self.app.components, self.seen[one.name]
        shown = [row for row in pages if one.name in row["components"]]
        guarded = one.guard or all(row["guards"] for row in shown)
        return {
            "name": one.name,
            "where": one.where,
            "actions": [*components.by_name[one.name].actions],
            "open": [] if guarded else sorted(seen.writing),
            "inside": [
                other.name
                for other in self.app.registry.components
                if other is not one and one.name in components.components_in(other.template)
            ],
            "everywhere": len(shown) == len(pages) > 1,
            "models": {table.name for table in Registry(models=one.models).tables},
            "seen": seen,
        }

    def route_seen(self, row: Mapping[str, Any]) -> Record | None:
        """The request of a route with the most statements."""
        return self.seen[row["target"] if row["kind"] == "page" else row["url"]].worst

    @property
    def related(self) -> list[tuple[str, list[str]]]:
        """The entries of the page by their ids, each with those that hang on it."""
        known, related = self.table_ids, defaultdict[str, set[str]](set)
        hanging = [
            (f"r{n}", [self.component_ids[name] for name in row["components"]], row["tables"])
            for n, row in enumerate(self.routes, 1)
        ]
        for one in self.components:
            tables = one["models"] | one["seen"].reads | one["seen"].writes
            hanging.append((self.component_ids[one["name"]], [], tables))
        for upper, components, tables in hanging:
            for lower in [*components, *(known[name] for name in tables if name in known)]:
                related[upper].add(lower)
                related[lower].add(upper)
        return [(one, sorted(others)) for one, others in sorted(related.items())]


def _database_state(app: App) -> dict[str, Any]:
    """Revisions, seeds and rows as they are now; little, and why, where no database answers."""
    config, engine = app.config, app.database.engine
    names, rows = [seed_name(function) for function in app.registry.seeds], dict[str, str]()
    state: dict[str, Any] = {
        "url": shown_url(engine.url), "error": "", "mismatch": None, "rows": rows, "seeds": None,
        "revisions": [],
    }  # fmt: skip
    try:
        if lacks_file(engine):
            return state | {"error": "the file is not there: python -m noventa migrate"}
        state["mismatch"] = revision_mismatch(config, engine)
        ran = _applied_seeds(engine)
        state["seeds"] = f"{sum(_has_run(ran, name) for name in names)} of {len(names)} ran"
        applied = current_revisions(config, engine)
        with reading(engine) as connection:
            there = {*sa.inspect(connection).get_table_names()}
            for table in app.registry.tables:
                if table.schema is None and table.name in there:
                    count = connection.scalar(sa.select(sa.func.count()).select_from(table))
                    rows[table.name] = _counted(count or 0, "row")
    except sa.exc.DBAPIError as error:
        return state | {"error": f"it does not answer: {_reason(error)}"}
    if (script := revision_script(config)) is not None:
        files = {one.revision: Path(one.path).name for one in script.walk_revisions()}
        known = tuple(applied & files.keys())
        pending = {
            one.revision for one in script.iterate_revisions("heads", known, implicit_base=True)
        }
        state["revisions"] = [(name, file, name not in pending) for name, file in files.items()]
    return state


_LACKING = re.compile(  # SQLite, PostgreSQL, MySQL and MariaDB: a table or column is not there
    r"no such (?:table|column)|has no column|(?:relation|column) .* does not exist"
    r"|Unknown column|Table .* doesn't exist"
)
_SECRET = re.compile(r"passw|secret|token|api_?key|authorization|cookie", re.IGNORECASE)
_MOST_VALUES = 20  # of a frame


class _Brief(reprlib.Repr):
    """Short representations that load nothing; values with the name of a secret are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.maxtuple = self.maxlist = self.maxdict = 20
        self.maxstring = self.maxother = 200

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Values whose keys name a secret are hidden."""
        secret = {key for key in x if isinstance(key, str) and _SECRET.search(key)}
        return super().repr_dict({k: "hidden" if k in secret else v for k, v in x.items()}, level)

    def repr_instance(self, x: Any, level: int) -> str:
        """A mapped object by its class, key and loaded columns."""
        if isinstance(x, Request):
            return described(x.environ)
        if not isinstance(sa.inspect(type(x), raiseerr=False), orm.Mapper):
            return super().repr_instance(x, level)
        state = sa.inspect(x)
        key = ", ".join(map(str, state.identity or ("new",)))
        loaded = {
            name: state.dict[name] for name in state.mapper.columns.keys() & state.dict.keys()
        }
        return f"<{type(x).__name__} {key} {self.repr1(loaded, level - 1)}>"


_BRIEF = _Brief()


def _source(hide: Callable[[str], str], step: Step) -> list[tuple[int, str]]:
    """The lines around one with their numbers, without blank ones at the ends."""
    line = step.summary.lineno or 0
    texts = [hide(text.rstrip()) for text in linecache.getlines(step.summary.filename)]
    around = [*enumerate(texts, 1)][max(0, line - 5) : line + 3]
    filled = [line, *(number for number, text in around if text)]
    return [(number, text) for number, text in around if min(filled) <= number <= max(filled)]


def _values(hide: Callable[[str], str], step: Step) -> dict[str, str]:
    """The local names of a frame, those in its failing line first."""
    named, found = {*re.findall(r"\w+", step.summary.line or "")}, step.frame.f_locals
    names = [name for name in found if not name.startswith(("__", "."))]
    shown = sorted(names, key=lambda name: name not in named)[:_MOST_VALUES]
    return {
        name: "hidden" if _SECRET.search(name) else hide(_BRIEF.repr(found[name])) for name in shown
    }


def _folded(steps: Iterable[Step]) -> list[list[Step]]:
    """The project's own steps one by one, those of libraries between them together."""
    groups = itertools.groupby(steps, key=lambda step: step if step.own else None)
    return [[*found] for _, found in groups]


def _cure(error: BaseException, app: App) -> tuple[str, str, str]:
    """Which remedy the page shows: its kind, the name that it is about, and what is known of it."""
    if isinstance(error, sa.exc.IntegrityError):
        return "reference" if "foreign key" in str(error.orig).lower() else "rule", "", ""
    if isinstance(error, sa.exc.DBAPIError) and _LACKING.search(str(error.orig)):
        return "lacking", "", revision_mismatch(app.config, app.database.engine) or ""
    name, known = _misspelt(error)
    kind = "undefined" if isinstance(error, jinja2.UndefinedError) else "name"
    return kind, name, did_you_mean(name, known) if known else ""


def _misspelt(error: BaseException) -> tuple[str, Iterable[str]]:
    """The name that an error did not find, and those that there are."""
    if isinstance(error, AttributeError) and error.name:
        return error.name, [name for name in dir(error.obj) if not name.startswith("_")]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, jinja2.UndefinedError):
        found = re.match(r"'(\w+)' is undefined", str(error))
        in_templates = [one for one in frames if "__jinja_exception__" in one.f_globals]
        return (found[1], in_templates[-1].f_locals) if found and in_templates else ("", ())
    if isinstance(error, NameError) and error.name and frames:
        names = {*frames[-1].f_locals, *frames[-1].f_globals, *dir(builtins)}
        return error.name, {name for name in names if not name.startswith("__")}
    if isinstance(error, KeyError) and error.args and frames:
        tables = [one for one in frames[-1].f_locals.values() if isinstance(one, dict)]
        if len(tables) == 1:
            return str(error.args[0]), [str(key) for key in tables[0]]
    return "", ()
