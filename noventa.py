"""Noventa: server-rendered pages made of components, on a real database.

The file is layered: each section uses only the sections above it that its banner names.

    Errors         errors that users can fix, refused requests, and the log
    Configuration  config.yaml: one table of settings, checked and typed
    Registry       the parts of an application, listed explicitly
    Router         from a path to its route, in time that does not grow with the routes
    Request        a WebOb request, read strictly
    Answers        responses: status, headers and body, built and checked
    Signing        a key for each purpose, and the tickets of forms
    Session        a dict in a signed cookie
    Database       engines, pools, scoped session, transactions, sandbox, current revision
    Handlers       how handlers are called, what they may return, forgotten commits
    Static         the files of a folder, and nothing outside it
    Components     templates, components and pages, compiled and rendered
    Checks         the rules for registry and templates; each violation is a Fault
    App            policy, responder, pages, dispatcher, and the WSGI application composed of them

Start reading at `App.__call__`, near the end.
"""

from __future__ import annotations

if __name__ == "__main__":  # `python -m noventa`: hand over before any class exists twice
    from noventa_cli import main

    raise SystemExit(main())

import base64
import binascii
import contextlib
import copy
import dataclasses
import datetime
import decimal
import difflib
import email.message
import enum
import errno
import functools
import hashlib
import hmac
import http
import inspect
import io
import ipaddress
import itertools
import json
import logging
import math
import mimetypes
import os
import random
import re
import secrets
import stat
import sys
import tempfile
import threading
import time
import traceback
import uuid
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType, NoneType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, Self, TypeVar, cast
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import multipart
import sqlalchemy as sa
import yaml
from markupsafe import Markup, escape
from sqlalchemy import event, orm
from sqlalchemy.engine.interfaces import BindTyping
from sqlalchemy.util import memoized_property

with warnings.catch_warnings():  # WebOb imports `cgi`, deprecated since Python 3.11
    warnings.simplefilter("ignore", DeprecationWarning)
    import webob
    import webob.exc
    import webob.multidict
    import webob.request
    from webob.datetime_utils import parse_date, serialize_date
    from webob.headers import ResponseHeaders

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from noventa_cli import Workbench

__all__ = [  # noventa_cli also imports names that are not public and may change at any time
    "App", "BadTicket", "Component", "Config", "ConfigError", "Database", "Endpoint",
    "Mount", "NoventaError", "Page", "Redirect", "Registry", "RegistryError", "Request", "Session",
    "ShortCircuit", "Signer", "Static", "Upload", "redirect", "reply",
]  # fmt: skip
__version__ = "0.2.0"

log = logging.getLogger("noventa")

T = TypeVar("T")
Handler = Callable[..., Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


# ---- Errors ----------------------------------------------------------------------------------
# Uses nothing above.

UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    """Escape control characters, so that `text` cannot start a line or steer a terminal."""
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def format_traceback(exc_info: Any) -> str:
    """Return the traceback indented, so that an exception's text cannot pass for a log entry."""
    lines = "".join(traceback.format_exception(*exc_info)).rstrip("\n").split("\n")
    return "\n".join(f"  {one_line(line)}" for line in lines)


class _EscapeControls(logging.Filter):
    """Escape control characters before any log handler sees the record."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (escaped := one_line(message)) != message:
            record.msg, record.args = escaped, None
        if record.exc_info:
            record.exc_text = format_traceback(record.exc_info)  # formatters use it unchanged
        return True


log.addFilter(_EscapeControls())


class NoventaError(Exception):
    """An error that the user can fix. The command line prints it without a traceback."""


class ConfigError(NoventaError):
    """config.yaml is invalid, or a file or variable that it names is missing."""


class RegistryError(NoventaError):
    """The registry has problems; `faults` lists them all."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = f"{len(self.faults)} problem{'s' if len(self.faults) > 1 else ''}"
        super().__init__(f"The registry has {count}:\n{lines}")


class PropsError(NoventaError):
    """A component was called with a prop that it does not accept, or without a required one."""


class SessionError(NoventaError):
    """The session cannot be stored in a cookie: no key, not JSON, or too large."""


class BadTicket(NoventaError):  # noqa: N818
    """A form's ticket was altered or is malformed. `reason` is one word for the log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The form's ticket was rejected: {reason}.")


class Rejection(Exception):  # noqa: N818
    """A refused request. `reason` is one word for the log; `detail` also appears on debug pages."""

    def __init__(
        self, status: int, reason: str, headers: Mapping[str, str] | None = None, detail: str = ""
    ) -> None:
        self.status, self.reason, self.headers = status, reason, dict(headers or {})
        self.detail = detail
        super().__init__(f"{status} {reason}")


class MissingField(Rejection, KeyError):  # noqa: N818
    """A handler read a field that was not sent: a 400 response unless it catches the KeyError.

    `source` is the request's attribute, such as `form`. `name` may be visitor input.
    """

    def __init__(self, source: str, name: object) -> None:
        short = str(name) if len(str(name)) <= 50 else f"{str(name)[:47]}..."
        super().__init__(400, "missing-field", detail=f"there is no request.{source}[{short!a}].")


def error_location(error: BaseException) -> str:
    """Return the location where an exception was raised, as `components/user/user_logic.py:12`."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    depth = frame.f_globals.get("__name__", "").count(".") + 1
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-depth:])}:{line}"


@dataclass(frozen=True)
class Fault:
    """A problem in an application: where it is, what is wrong, what to do."""

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        end = "" if self.remedy.endswith("?") else "."
        return f"{self.where}: {self.problem}; {self.remedy}{end}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name nearest to a misspelt one, or else list all known names."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"


# ---- Configuration ---------------------------------------------------------------------------
# Uses Errors.


class Setting(NamedTuple):
    """A row of the settings table. `name` is the setting's path in config.yaml."""

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


_TEXT, _NUMBER, _FLAG = "a string", "a whole number", "true or false"
_TEXTS, _MAPPING = "a list of strings", "a mapping of names to values"
SETTINGS = (
    Setting("database.url", _TEXT, "sqlite:///./noventa.db",
            "database URL; `database: URL` is the short form"),
    Setting("database.driver", _TEXT, None,
            "database driver, instead of a URL: `sqlite`, `postgresql`, `mysql` …"),
    Setting("database.host", _TEXT, None, "host name or address of the database server"),
    Setting("database.port", _NUMBER, None, "port of the database server; default: the driver's"),
    Setting("database.user", _TEXT, None, "user name for the database"),
    Setting("database.password", _TEXT, None,
            "password for the database: any characters, unencoded; never printed"),
    Setting("database.name", _TEXT, None, "name of the database, or path of the SQLite file"),
    Setting("database.options", _MAPPING, {}, "options for the driver, as in a URL's query"),
    Setting("database.pool_size", _NUMBER, None,
            "connections that each engine keeps open; default: `server.threads`"),
    Setting("database.max_overflow", _NUMBER, 2, "extra connections under load, closed after use"),
    Setting("database.pool_timeout", _NUMBER, 10, "seconds to wait for a connection before a 503"),
    Setting("database.pool_recycle", _NUMBER, 1800, "seconds after which a connection is replaced"),
    Setting("database.isolation_level", _TEXT, None,
            "isolation level of transactions; default: the database's; SQLite: not AUTOCOMMIT"),
    Setting("database.autocommit_reads", _FLAG, True,
            "PostgreSQL: GET requests read in autocommit; false: in one transaction"),
    Setting("database.pooler", _FLAG, False, "PostgreSQL is behind PgBouncer in transaction mode"),
    Setting("database.replicas", _TEXTS, (),
            "URLs of PostgreSQL replicas, for entries with `replica=True`"),
    Setting("database.max_lag", _NUMBER, 10, "seconds a replica may lag before it is left out"),
    Setting("name", _TEXT, None,
            "site name shown on the plain error page; default: the project folder's name"),
    Setting("app", _MAPPING, {}, "the application's own settings: `request.app.config.app[\"…\"]`"),
    Setting("debug", _FLAG, False,
            "show source code on error pages; the environment variable NOVENTA_DEBUG overrides it"),
    Setting("debug_from", _TEXTS, (), "networks that also see debug pages, like `172.16.0.0/12`"),
    Setting("editor", _TEXT, None,
            "URL for file:line links on debug pages, like `vscode://file/{file}:{line}`"),
    Setting("secret_keys", _TEXTS, (), "keys, 32 characters or more; the first signs, all verify"),
    Setting("session.cookie_name", _TEXT, "noventa_session",
            "name of the session cookie; may start with `__Host-`"),
    Setting("session.max_age", _NUMBER, 1_209_600,
            "seconds of inactivity after which a session expires"),
    Setting("session.lifetime", _NUMBER, 7_776_000,
            "seconds after which a session expires, active or not"),
    Setting("session.ticket_age", _NUMBER, 86_400,
            "seconds after which an open form must be submitted again"),
    Setting("session.secure", _FLAG, False, "send the session cookie over HTTPS only"),
    Setting("session.same_site", _TEXT, "lax",
            "SameSite of the session cookie; strict: links from other sites open without a session",
            ("lax", "strict", "none")),
    Setting("session.domain", _TEXT, None, "Domain of the session cookie; default: the host only"),
    Setting("server.host", _TEXT, "127.0.0.1", "address that `serve` listens on"),
    Setting("server.port", _NUMBER, 8000, "port that `serve` listens on"),
    Setting("server.threads", _NUMBER, 8, "requests that one process handles at once"),
    Setting("server.hosts", _TEXTS, (), "accepted names in the `Host` header; empty: any"),
    Setting("server.health", _TEXT, None, "path for health probes: 200, or 503 without a database"),
    Setting("limits.body", _NUMBER, 10_485_760, "maximum bytes of a request body"),
    Setting("limits.form", _NUMBER, 500_000, "maximum bytes of a form without files (urlencoded)"),
    Setting("limits.json", _NUMBER, 1_048_576,
            "maximum bytes of a JSON body; parsing 1 MB may take 40 MB of memory"),
    Setting("limits.memory", _NUMBER, 1_048_576, "bytes above which an upload goes to disk"),
    Setting("limits.fields", _NUMBER, 1000, "maximum number of fields in a form or query"),
    Setting("limits.files", _NUMBER, 100, "maximum number of files in a form"),
    Setting("trusted_origins", _TEXTS, (),
            "origins that may also post, like `https://example.com`"),
    Setting("headers", _MAPPING, {}, "headers added to every response; null removes a default one"),
    Setting("migrations.portable_to", _TEXTS, ("sqlite", "postgresql", "mysql"),
            "databases that `check` tests the models against"),
    Setting("migrations.url", _TEXT, None,
            "database URL for migrations and seeds; default: that of `database`"),
    Setting("migrations.version_table", _TEXT, "alembic_version", "table that stores the revision"),
    Setting("migrations.version_table_schema", _TEXT, None,
            "schema of the version table; default: the database's default schema"),
    Setting("migrations.lock", _FLAG, True, "let one process migrate at a time; the others wait"),
    Setting("migrations.lock_timeout", _NUMBER, 60,
            "seconds to wait for another migrating process"),
    Setting("migrations.table_timeout", _NUMBER, 5,
            "PostgreSQL: seconds a migration waits for a table before it retries"),
    Setting("migrations.on_mismatch", _TEXT, "warn",
            "if the database is not at head: warn, or refuse to start", ("warn", "refuse")),
    Setting("log_level", _TEXT, "info", "lowest level that `serve` logs",
            ("debug", "info", "warning", "error")),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_VARIABLE = re.compile(
    r"\$(?P<escape>\$)?\{(?:file:(?P<file>[^}]+?)|(?P<name>\w+))(?::-(?P<default>[^}]*))?\}"
)
_SECRET_LENGTH, _SECRET_VARIETY = 32, 8  # minimum numbers of all and of different characters
_KEY_REMEDY = "use the output of `openssl rand -hex 32`."
MAKE_KEY = "(umask 077; openssl rand -hex 32 > {})"  # only the owner can read the file
STARTER_KEY = "starter-"  # prefix of the keys that `new` writes, accepted only in debug
_SECRET_SETTINGS = (
    "secret_keys", "database.url", "database.password", "database.options", "migrations.url",
)  # fmt: skip
_URL_PARTS = {  # Noventa's names to SQLAlchemy's
    "host": "host", "port": "port", "user": "username", "password": "password",
    "name": "database", "options": "query",
}  # fmt: skip
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_EDITOR = re.compile(  # no scheme that lets a link run a script
    r"(?!javascript:|vbscript:|data:)[a-z][a-z0-9+.-]*:.*\{file\}", re.IGNORECASE
)
_DOMAIN = re.compile(r"[\w.-]*", re.ASCII)
_HOST = r"\w[\w.-]*|\[[0-9a-f:.]+\]"
_HOST_AND_PORT = re.compile(rf"({_HOST})(?::[0-9]*)?", re.ASCII)
_ALLOWED_HOST = re.compile(rf"\.?(?:{_HOST})", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST})(?::([0-9]{{1,5}}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}
EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}  # pip extras, by backend
_POSTGRESQL_DRIVERS = {"psycopg": "psycopg", "psycopg2": "psycopg2", "pg8000": "pg8000"}
_MYSQL_DRIVERS = {"pymysql": "pymysql", "mysqldb": "MySQLdb", "mariadbconnector": "mariadb"}
# SQLAlchemy's driver names and their modules. A URL without a driver uses the first installed.
_DRIVERS = {
    "postgresql": _POSTGRESQL_DRIVERS, "mysql": _MYSQL_DRIVERS, "mariadb": _MYSQL_DRIVERS,
}  # fmt: skip
_SQLITE_DRIVERS = ("pysqlite", "pysqlcipher")
_PACKAGES = {  # modules whose pip package has another name
    "psycopg": "noventa-wsgi[postgres]", "psycopg2": "psycopg2-binary",
    "pymysql": "noventa-wsgi[mysql]", "MySQLdb": "mysqlclient",
    "pysqlcipher3": "sqlcipher3-binary",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Config:
    """A project's settings, read as `config["session.max_age"]`. `root` is the project folder."""

    values: Mapping[str, Any]
    root: Path
    files: Sequence[Path] = ()  # named by `${file:…}`

    @classmethod
    def load(cls, folder: str | os.PathLike[str], **overrides: Any) -> Config:
        """Read `config.yaml` in `folder`; `overrides` replace its top-level entries.

        Raises ConfigError, which lists every problem.
        """
        path = Path(folder).resolve() / "config.yaml"
        document = {**_read_yaml(path), **overrides}
        if os.environ.get("NOVENTA_DEBUG"):
            document["debug"] = "${NOVENTA_DEBUG}"
        return cls.from_mapping(document, path.parent)

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any], root: str | os.PathLike[str]) -> Config:
        """Create a Config from `document`, nested like config.yaml. Raises ConfigError."""
        values = {setting.name: setting.default for setting in SETTINGS}
        folder = Path(root).resolve()
        problems: list[str] = []
        values |= _read_settings(document, folder, problems)
        files = [match["file"] for match in _VARIABLE.finditer(repr(document))]
        config = cls(values, folder, [folder / file for file in files if file])
        problems += config._problems()
        if problems:
            raise ConfigError("\n".join(f"config.yaml: {problem}" for problem in problems))
        return config

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __repr__(self) -> str:
        return f"<Config of {self.root}, database {self.database_url.set(query={})!r}>"

    @functools.cached_property
    def database_url(self) -> sa.URL:
        """The database URL. A relative SQLite path is resolved against the project folder."""
        parts = {part: self[f"database.{name}"] for name, part in _URL_PARTS.items()}
        parts["query"] = {n: value for n, value in parts["query"].items() if isinstance(value, str)}
        driver = self["database.driver"]
        try:
            url = sa.URL.create(driver, **parts) if driver else sa.make_url(self["database.url"])
        except (sa.exc.ArgumentError, ValueError):  # their messages would print the password
            raise ConfigError(
                "database is not a URL; expected driver://user:password@host:port/name, with"
                " special characters in user and password percent-encoded, or a mapping."
            ) from None
        url = _with_driver(url)
        file = sqlite_file(url)
        return url.set(database=str((self.root / file).resolve())) if file else url

    @functools.cached_property
    def replica_urls(self) -> list[sa.URL]:
        """The replicas' URLs. With libpq, connecting times out after 2 seconds by default."""
        urls = [_with_driver(sa.make_url(text)) for text in self["database.replicas"]]
        libpq, default = ("psycopg", "psycopg2"), {"connect_timeout": "2"}
        return [
            url.set(query={**default, **url.query}) if url.get_driver_name() in libpq else url
            for url in urls
        ]

    @property
    def driver_options(self) -> dict[str, Any]:
        """The non-string entries of `database.options`, which reach the driver outside the URL."""
        options = self["database.options"].items()
        return {name: value for name, value in options if not isinstance(value, str)}

    @property
    def name(self) -> str:
        """The site's name."""
        return self["name"] or self.root.name

    @property
    def app(self) -> Mapping[str, Any]:
        """The application's own section of config.yaml."""
        return cast(Mapping[str, Any], self["app"])

    @property
    def in_memory(self) -> bool:
        """True if the database is SQLite's `:memory:`, which lasts as long as its connection."""
        url = self.database_url
        return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")

    def allows_host(self, host: str) -> bool:
        """Return True if a `Host` header names one of `server.hosts`."""
        name = normalize_host(host)
        for entry in self["server.hosts"]:
            known = normalize_host(entry.removeprefix("."))
            if name == known or (entry.startswith(".") and name.endswith(f".{known}")):
                return True
        return False

    def starter_key_problems(self) -> list[str]:
        """Return a problem for each secret key that `new` wrote; only debug accepts them."""
        return [
            f"config.yaml: secret_keys[{number}] is the starter's key; create your own with"
            f" `{MAKE_KEY.format('secret.key')}`."
            for number, key in enumerate(self["secret_keys"])
            if key.startswith(STARTER_KEY)
        ]

    def _problems(self) -> Iterator[str]:
        for name, (fits, expected) in _RULES.items():
            value = self[name]
            entries = {name: value}
            if isinstance(value, tuple):
                entries = {f"{name}[{number}]": entry for number, entry in enumerate(value)}
            for entry_name, entry in entries.items():
                if entry is not None and not fits(entry):
                    yield f"{entry_name} is {_short_repr(entry)}; expected {expected}."
        for name, value in self["headers"].items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(str(value)):
                yield f"headers: {name!r} or its value has characters invalid in HTTP; encode them."
        yield from self._session_problems()
        yield from self._database_problems()

    def _session_problems(self) -> Iterator[str]:
        for number, key in enumerate(self["secret_keys"]):
            if "${" in key:  # a misspelt variable would be a key that anyone can guess
                yield f"secret_keys[{number}] has an invalid ${{…}}; write ${{NAME}}."
            elif len(key) < _SECRET_LENGTH:
                problem = f"has {len(key)} characters; expected at least {_SECRET_LENGTH}"
                yield f"secret_keys[{number}] {problem}: {_KEY_REMEDY}"
            elif len(set(key)) < _SECRET_VARIETY:
                problem = f"has too few different characters ({len(set(key))}) and can be guessed"
                yield f"secret_keys[{number}] {problem}; {_KEY_REMEDY}"
        if self["session.cookie_name"].startswith("__Host-") and (
            self["session.domain"] or not self["session.secure"]
        ):
            yield "session.cookie_name starts with __Host-; it needs secure: true and no domain."
        if self["session.same_site"] == "none" and not self["session.secure"]:
            yield "session.same_site is 'none'; set session.secure: true, which browsers require."

    def _database_problems(self) -> Iterator[str]:
        parts = [f"database.{part}" for part in _URL_PARTS if self[f"database.{part}"]]
        if parts and not self["database.driver"]:
            yield f"database.driver is missing; {parts[0]} needs one, like `driver: postgresql`."
        elif self["database.driver"] and self["database.url"] != _BY_NAME["database.url"].default:
            yield "database.url and database.driver are both set; remove one of them."
        try:
            yield from self._driver_problems(self.database_url)
        except ConfigError as error:
            yield str(error)

    def _driver_problems(self, url: sa.URL) -> Iterator[str]:
        backend, driver = url.get_backend_name(), url.drivername.partition("+")[2]
        if self["database.pooler"] and backend != "postgresql":
            yield "database.pooler is true, but the database is not PostgreSQL; remove it."
        yield from self._replica_problems()
        if backend == "sqlite" and driver not in ("", *_SQLITE_DRIVERS):
            yield f"database: {url.drivername!r} is not supported; expected sqlite:///FILE."
            return
        if backend == "sqlite" and url.query.get("cache") == "shared":
            yield "database has cache=shared, which makes connections block each other; remove it."
        try:
            dialect = url.get_dialect()
            dialect.import_dbapi()
        except sa.exc.NoSuchModuleError:
            remedy = did_you_mean(backend, ("sqlite", *_DRIVERS, "oracle", "mssql"))
            yield f"database: {url.drivername!r} is not a known driver; {remedy}"
        except ImportError as error:
            package = _PACKAGES.get(error.name or "", error.name or "the driver")
            yield f"database: the driver is not installed ({error}); run pip install '{package}'."
        else:
            if dialect.is_async:
                known = " or ".join(_DRIVERS.get(backend, _SQLITE_DRIVERS))
                problem = f"the driver {driver} is asynchronous, but handlers are synchronous"
                yield f"database: {problem}; use {known}."

    def _replica_problems(self) -> Iterator[str]:
        try:
            drivers = {url.drivername for url in self.replica_urls}
        except (sa.exc.ArgumentError, ValueError):  # its message would print the password
            yield "database.replicas has an invalid URL; expected postgresql://user:password@host."
            return
        if drivers - {f"postgresql+{driver}" for driver in _POSTGRESQL_DRIVERS}:
            yield "database.replicas must be postgresql:// URLs, for psycopg, psycopg2 or pg8000."


def _with_driver(url: sa.URL) -> sa.URL:
    """Return the URL, completed with the first installed driver if it names none."""
    if not (drivers := _DRIVERS.get(url.drivername)):
        return url
    installed = (name for name, module in drivers.items() if find_spec(module))
    return url.set(drivername=f"{url.drivername}+{next(installed, next(iter(drivers)))}")


def normalize_host(host: str) -> str:
    """Return `Example.com.:80` as `example.com`: no port, final dot or brackets; "" if invalid."""
    match = _HOST_AND_PORT.fullmatch(host.lower())
    return match[1].strip("[]").removesuffix(".") if match else ""


def sqlite_file(url: sa.URL) -> str | None:
    """Return the SQLite file's path; None for memory, a `file:` URI and other databases."""
    file = url.database or ""
    is_other = url.get_backend_name() != "sqlite" or file.startswith((":memory:", "file:"))
    return None if is_other else file or None


def is_loopback(host: str) -> bool:
    """Return True if a host name or address always means this machine (RFC 6761, 6.3)."""
    try:
        return f".{host}".endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network for a string like `172.16.0.0/12`; None if invalid."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """Return (scheme, host, given or default port) of an origin (RFC 6454, 4); None if invalid."""
    if not (match := _ORIGIN.fullmatch(text.lower())):
        return None
    scheme, host, port = match.groups()
    return scheme, host, int(port) if port else _DEFAULT_PORTS.get(scheme)


class _StrictYamlLoader(yaml.SafeLoader):
    """A YAML loader that rejects recursion and duplicate keys (PyYAML keeps the last)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)  # rejects recursion

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:str":  # `<<`, or not the name of a setting
                continue
            if key in keys:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"config.yaml: line {line}: {key!r} appears twice; remove one.")
            keys.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.load(path.read_text("utf-8"), Loader=_StrictYamlLoader)  # noqa: S506
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; pass the project's folder with --project,"
            " or create a project with `python -m noventa new NAME`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be read.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date like 2026-99-99
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        where = f"config.yaml: line {mark.line + 1}:" if mark else "config.yaml is invalid YAML:"
        raise ConfigError(f"{where} {problem}.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"config.yaml is {_short_repr(document)}; expected {_MAPPING}.")
    return document


def _read_settings(
    document: Mapping[str, Any], root: Path, problems: list[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) for each setting in a document; append errors to `problems`."""
    for key, raw in document.items():
        name = f"{prefix}{key}"
        if name == "database" and isinstance(raw, str):
            name = "database.url"
        if setting := _BY_NAME.get(name):
            try:
                yield name, _parse_value(setting, raw, root)
            except ConfigError as error:
                problems.append(str(error))
        elif not any(known.startswith(f"{name}.") for known in _BY_NAME):
            siblings = (n.removeprefix(prefix) for n in _BY_NAME if n.startswith(prefix))
            known = {sibling.split(".")[0] for sibling in siblings}
            problems.append(f"{name} is not a setting; {did_you_mean(str(key), known)}")
        elif isinstance(raw, Mapping):
            yield from _read_settings(raw, root, problems, f"{name}.")
        elif name == "database":  # its value may contain a password
            problems.append("database has the wrong type; expected a URL or a mapping.")
        elif raw is not None:
            problems.append(f"{name} is {_short_repr(raw)}; expected {_MAPPING}.")


_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _parse_value(setting: Setting, raw: Any, root: Path) -> Any:
    """Return a setting's value, checked and converted. Raises ConfigError naming the setting."""
    value = _expand(setting.name, raw, root)
    if value is None:
        return setting.default
    is_expanded = isinstance(raw, str) and value != raw  # variables and files hold only strings
    if is_expanded:
        if setting.type == _FLAG:
            value = _FLAGS.get(value.strip().lower(), value)
        elif setting.type == _NUMBER and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
            value = int(value)
    fits = {
        _TEXT: isinstance(value, str),
        _NUMBER: _is_count(value),
        _FLAG: isinstance(value, bool),
        _TEXTS: isinstance(value, list) and all(isinstance(item, str) for item in value),
        _MAPPING: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    }
    if not fits[setting.type]:
        problem = f"is {_short_repr(value)}" + (f", from {raw}" if is_expanded else "")
        problem = "has the wrong type" if setting.name in _SECRET_SETTINGS else problem
        raise ConfigError(f"{setting.name} {problem}; expected {setting.type}.")
    return tuple(value) if setting.type == _TEXTS else value


def _expand(name: str, raw: Any, root: Path) -> Any:
    """Replace `${VAR}` with the variable, `${file:PATH}` with the file's text, `$${` with `${`.

    `${VAR:-default}` uses the default if VAR is missing or empty. Paths are relative to `root`.
    """
    if isinstance(raw, list):
        return [_expand(name, item, root) for item in raw]
    if isinstance(raw, dict):
        return {key: _expand(f"{name}.{key}", item, root) for key, item in raw.items()}

    def replacement(match: re.Match[str]) -> str:
        variable, file, default = match["name"], match["file"], match["default"]
        if match["escape"]:
            return match[0][1:]
        try:
            value = (root / file).read_text("utf-8").strip() if file else os.environ[variable]
        except (KeyError, OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in it
            if default is not None and isinstance(error, KeyError | FileNotFoundError):
                return default
            if isinstance(error, KeyError):
                problem = f"the environment variable {variable}, which is not set"
                remedy = f"set it, or add a default: ${{{variable}:-…}}"
            else:
                problem, remedy = _unreadable(name, root / file, error)
            raise ConfigError(f"{name} needs {problem}; {remedy}.") from None
        return value or default or ""

    return _VARIABLE.sub(replacement, raw) if isinstance(raw, str) else raw


def _unreadable(setting: str, file: Path, error: Exception) -> tuple[str, str]:
    reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if isinstance(error, FileNotFoundError):
        reason = "does not exist"
    remedy = f"create it, or add a default: ${{file:{file.name}:-…}}"
    if setting == "secret_keys":
        remedy = f"create one with `{MAKE_KEY.format(file.name)}`"
    return f"the file {file}, which {reason}", remedy


# Rules beyond the type, for a value or each item of a list, and their wording in messages.
_RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "server.port": (range(65_536).__contains__, "0 to 65535"),
    "server.threads": (range(1, 10_001).__contains__, "1 to 10000"),
    "server.hosts": (
        _ALLOWED_HOST.fullmatch,
        "a name without scheme and port, like example.com, or .example.com for subdomains too",
    ),
    "server.health": (re.compile("/[!-~]*").fullmatch, "a path, like /health"),
    "debug_from": (parse_network, "a network like 172.16.0.0/12, with no host bits set"),
    "trusted_origins": (
        parse_origin,
        "a scheme, a host and a port if it is not the default, like https://example.com:8443",
    ),
    "session.cookie_name": (_HEADER_NAME.fullmatch, "letters, digits, - and _"),
    "session.domain": (_DOMAIN.fullmatch, "a name like example.com"),
    "editor": (
        _EDITOR.match,
        "an editor's URL that contains {file}, like vscode://file/{file}:{line}",
    ),
}
_RULES |= {
    setting.name: (setting.choices.__contains__, f"one of {', '.join(setting.choices)}")
    for setting in SETTINGS
    if setting.choices
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def data_folder(name: str) -> Path:
    """Return a folder shipped with Noventa; a wheel installs it in `noventa_data`."""
    here = Path(__file__).resolve().parent
    installed = here / "noventa_data" / name
    return installed if installed.is_dir() else here / name


# ---- Registry --------------------------------------------------------------------------------
# Uses nothing above.


def _call_site() -> str:
    """Return the location where this function's caller was called, as `registry.py:12`."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@dataclass(frozen=True, eq=False)
class Entry:
    """An entry of the registry. `where` is the line that created it."""

    _: KW_ONLY
    where: str = field(default_factory=_call_site, repr=False)


@dataclass(frozen=True, eq=False)
class Component(Entry):
    """A template, its logic module and its models, rendered by `component("name")`.

    The template of `"user"` is `components/user/user_template.html` by default. `logic` is a
    module with `load_template_context` and `action_*` functions, all optional. `guard` runs before
    the component is rendered, and before its own and any nested actions. `retries` is how many
    times an action is repeated after a transaction conflict.
    """

    name: str
    template: str = ""
    _: KW_ONLY
    logic: ModuleType | None = None
    models: Sequence[Any] = ()
    guard: Handler | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        if self.template == "":
            last = str(self.name).rpartition("/")[2]
            default = f"components/{self.name}/{last}_template.html"
            object.__setattr__(self, "template", default)  # the dataclass is frozen

    @property
    def label(self) -> str:
        """The component's name in messages."""
        return f"component {self.name!r}"


_GET: Sequence[str] = ("GET",)


@dataclass(frozen=True, eq=False)
class Route(Entry):
    """A URL, and how its requests are handled.

    `path` may contain `{name}`, `{id:int}`, `{id:uuid}`, `{day:date}` or, last, `{rest:path}`.
    `guards` run in order before the handler. `limits` overrides limits of config.yaml:
    `{"body": 50_000_000}`.
    """

    path: str
    _: KW_ONLY
    guards: Sequence[Handler] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    kind = ""
    # Without an annotation these are not parameters; some subclasses annotate them.
    is_prefix = False  # whether it also matches paths below its own
    methods = _GET
    is_api = False  # whether errors are JSON unless the client prefers HTML
    cross_origin = False  # whether unsafe methods need no same-origin evidence
    writes = False  # whether a GET uses the writing engine, like an action
    replica = False  # whether a GET reads from a replica

    @property
    def segments(self) -> list[str]:
        """The path's segments. The final slash of a prefix route is ignored."""
        return (self.path.rstrip("/") if self.is_prefix else self.path).split("/")[1:]


@dataclass(frozen=True, eq=False)
class Page(Route):
    """A component at a URL. The URL's parameters are its props. It accepts GET, HEAD and POST.

    Set `writes` if rendering writes: a GET then uses the writing engine, like an action. With
    `replica` it reads from one of `database.replicas`, whose rows may be some seconds old.
    `retries` is how many times an action is repeated after a transaction conflict.
    """

    template: str
    _: KW_ONLY
    logic: ModuleType | None = None
    models: Sequence[Any] = ()
    writes: bool = False
    replica: bool = False
    retries: int = 0
    kind = "page"
    methods = ("GET", "HEAD", "POST")
    name = ""  # only components have one
    guard: ClassVar[Handler | None] = None  # its `guards` run before its body is read

    @property
    def label(self) -> str:
        """The page's name in messages."""
        return f"page {self.path!r}"


@dataclass(frozen=True, eq=False)
class Endpoint(Route):
    """A function at a URL that returns a WebOb response, or a dict or list to send as JSON.

    Unsafe methods need same-origin evidence unless `cross_origin` is set. With `writes` a GET uses
    the writing engine, like an action; with `replica` it reads from one of `database.replicas`.
    `retries` is how many times the handler is repeated after a transaction conflict.
    """

    handler: Handler
    _: KW_ONLY
    methods: Sequence[str] = _GET
    cross_origin: bool = False
    writes: bool = False
    replica: bool = False
    retries: int = 0
    kind = "endpoint"
    is_api = True


@dataclass(frozen=True, eq=False)
class Mount(Route):
    """Another WSGI application below a URL. It enforces its own limits.

    `limits` is for `serve`, which receives the body first: `{"body": 50_000_000}`.
    """

    application: WSGIApp
    kind = "mount"
    is_prefix = True
    methods = ()  # the application checks methods and origins itself
    cross_origin = True


@dataclass(frozen=True, eq=False)
class Static(Route):
    """The files of a folder (relative to the project) below a URL.

    The registry's guards do not run for files. If it has any, `guards` is required here, and
    `guards=[]` makes the files public.
    """

    folder: str
    limits: Mapping[str, int] = field(default_factory=dict, init=False, repr=False)
    kind = "static"
    is_prefix = True


@dataclass(frozen=True, eq=False)
class Registry(Entry):
    """Everything that an application consists of. Unlisted parts do not exist.

    `models` and `Component(models=)` accept modules, mapped classes and tables, and a declarative
    Base or a MetaData for all its tables. `seeds` are functions of one argument, the session.
    `guards` run before every request except for files, even if no route matches. `filters`,
    `globals` and `extensions` (classes) are added to Jinja's. `errors` maps a status, `"4xx"` or
    `"5xx"` to a template. `dismissed` lists hints to hide from the map: `"unused audit_log"`.
    """

    _: KW_ONLY
    components: Sequence[Component] = ()
    models: Sequence[Any] = ()
    routes: Sequence[Route] = ()
    seeds: Sequence[Callable[[orm.Session], Any]] = ()
    guards: Sequence[Handler] | None = None
    extensions: Sequence[type[jinja2.ext.Extension]] = ()
    filters: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    globals: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[int | str, str] = field(default_factory=dict)
    dismissed: Sequence[str] = ()

    @functools.cached_property
    def metadata(self) -> sa.MetaData:
        """The tables of every Base in one MetaData, with a name for each constraint.

        A `String` without a length is `VARCHAR(255)` on MySQL and MariaDB, which require one.
        """
        merged = sa.MetaData(naming_convention=_NAMING_CONVENTION)
        for table in self.tables:
            if table.key not in merged.tables:
                copied: Any = table.to_metadata(merged).columns
                for column in table.columns:
                    if isinstance(column.type, sa.Enum):  # to_metadata() sets the table's
                        copied[column.key].type.schema = column.type.schema
        for table in merged.tables.values():  # foreign keys now have the type of their target
            for column in table.columns:
                column.type = with_length(column.type)
        return merged

    @functools.cached_property
    def tables(self) -> Mapping[sa.Table, str]:
        """The registered tables, each with the module and class that define it."""
        owners: dict[sa.Table, str] = {}
        for model, _ in self.listed_models():
            for member, owner in members_of(model):
                tables = [member]
                if isinstance(member, type):
                    tables = [*orm.class_mapper(member, configure=False).tables]
                for table in tables:
                    if isinstance(table, sa.Table):
                        owners.setdefault(table, owner)
        return owners

    @property
    def pages(self) -> list[Page]:
        """The routes that are pages."""
        return [route for route in self.routes if isinstance(route, Page)]

    def listed_models(self) -> Iterator[tuple[Any, str]]:
        """Yield each entry of a `models` list with the line that lists it."""
        components: list[Component | Page] = [*self.components, *self.pages]
        for component in components:
            yield from ((model, component.where) for model in component.models)
        yield from ((model, self.where) for model in self.models)


def seed_name(seed: Callable[..., Any]) -> str:
    """Return the seed's name in the ledger, as `migrations.seed.initial_users.seed_users`."""
    return f"{getattr(seed, '__module__', '?')}.{getattr(seed, '__qualname__', seed)}"


def load_function(component: Component | Page) -> Handler | None:
    """Return the component's `load_template_context`, or None."""
    return getattr(component.logic, "load_template_context", None)


def actions_of(component: Component | Page) -> dict[str, Handler]:
    """Return the `action_*` functions that the logic module defines, by name without prefix."""
    if not isinstance(component.logic, ModuleType):
        return {}  # None, or an entry that the checks report
    return {
        name.removeprefix("action_"): value
        for name, value in vars(component.logic).items()
        if name.startswith("action_")
        and inspect.isfunction(value)
        and value.__module__ == component.logic.__name__
    }


def function_name(function: Any) -> str:
    """Return a function's name, or the repr of a partial or callable object, which has none."""
    return getattr(function, "__name__", None) or repr(function)


def location_of(function: Any) -> str:
    """Return `components/user/user_logic.py:12`, relative to the folder of its top package."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return repr(function)
    depth = function.__module__.count(".") + 1
    return f"{'/'.join(Path(code.co_filename).parts[-depth:])}:{code.co_firstlineno}"


def handler_label(function: Any) -> str:
    """Return `components/user/user_logic.py:12: action_rename`, the start of an error message."""
    return f"{location_of(function)}: {function_name(function)}"


def _parameters(function: Any) -> list[inspect.Parameter]:
    """Return a function's parameters; none for a built-in without a signature or a non-function."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


class Props(NamedTuple):
    """Accepted, required and default props. `accepted` is None if any name is accepted."""

    accepted: frozenset[str] | None
    required: frozenset[str]
    defaults: Mapping[str, Any]

    def unknown(self, passed: Set[str]) -> list[str]:
        """Return the names in `passed` that are not accepted."""
        return [] if self.accepted is None else sorted(passed - self.accepted)


def props_of(handler: Handler | None) -> Props:
    """Return a handler's props: its parameters after the third. No handler means any props."""
    if handler is None:
        return Props(None, frozenset(), {})
    parameters = _parameters(handler)[3:]
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    required = frozenset(p.name for p in named if p.default is p.empty)
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return Props(None if accepts_any else required | defaults.keys(), required, defaults)


def members_of(model: Any) -> Iterator[tuple[Any, str]]:
    """Yield (table or mapped class, name) for an entry of `models`.

    A module contributes what it defines, a declarative Base or a MetaData everything it contains.
    """
    members: Iterable[Any] = [model]
    registry = getattr(model, "registry", None) if isinstance(model, type) else None
    if isinstance(model, ModuleType):
        for name, value in vars(model).items():
            if isinstance(value, sa.Table):
                yield value, f"{model.__name__}.{name}"
        classes = (value for value in vars(model).values() if isinstance(value, type))
        members = (cls for cls in classes if cls.__module__ == model.__name__)
    elif isinstance(model, sa.MetaData):
        members = model.tables.values()
    elif isinstance(registry, orm.registry) and not _is_mapped(model):
        classes = (mapper.class_ for mapper in registry.mappers)
        members = (*sorted(classes, key=_full_name), *model.metadata.tables.values())
    for member in members:
        if isinstance(member, sa.Table):
            yield member, f"table {member.key}"
        elif isinstance(member, type) and _is_mapped(member):
            yield member, _full_name(member)


def _is_mapped(cls: type) -> bool:
    return "__mapper__" in vars(cls)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def is_unbounded(sql_type: Any) -> bool:
    """Return True if a type is a `String` without a length. Text and Enum do not count."""
    return type(sql_type) in (sa.String, sa.Unicode, sa.VARCHAR) and sql_type.length is None


def with_length(sql_type: Any) -> Any:
    """Return the type, with length 255 on MySQL and MariaDB for a `String` that has none."""
    if is_unbounded(sql_type):
        bounded = type(sql_type)(255, collation=sql_type.collation)
        for dialect in ("mysql", "mariadb"):
            with contextlib.suppress(sa.exc.ArgumentError):  # the model has a variant for it
                sql_type = sql_type.with_variant(bounded, dialect)
    return sql_type


def _condition(constraint: Any, table: sa.Table) -> str:
    """Return a check constraint's name, or a hash of its condition if it has none."""
    if isinstance(constraint.name, str):
        return str(constraint.name)
    text = " ".join(str(constraint.sqltext).split())
    return hashlib.sha256(text.encode()).hexdigest()[:8]


_NAMING_CONVENTION: dict[str, Any] = {
    "condition": _condition,
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(condition)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# ---- Router ----------------------------------------------------------------------------------
# Uses Registry.

_PARAMETER = re.compile(r"\{([A-Za-z_]\w*)(?::(\w+))?\}")


@dataclass(frozen=True, eq=False)
class Converter:
    """Converts URL parameters from strings to `type`, like `date` in `{day:date}`."""

    type: type
    pattern: re.Pattern[str]
    read: Callable[[str], Any]
    takes_rest: bool = False  # whether it matches the rest of the path, slashes included

    def convert(self, text: str) -> Any:
        """Return the value, or None if `text` is invalid."""
        try:
            return self.read(text) if self.pattern.fullmatch(text) else None
        except ValueError:  # a date like 2026-02-30
            return None


_ANY = re.compile(".+", re.DOTALL)
_INT = re.compile("[0-9]{1,18}")  # more digits overflow a BIGINT
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
CONVERTERS = {  # by name, in the order in which they are tried
    "int": Converter(int, _INT, int),
    "uuid": Converter(uuid.UUID, _UUID, uuid.UUID),
    "date": Converter(datetime.date, _DATE, datetime.date.fromisoformat),
    "str": Converter(str, _ANY, str),
    "path": Converter(str, _ANY, str, takes_rest=True),
}

# A node maps a literal segment or a Converter to the next node. _END (the path ends here) and
# _PREFIX (a Mount or Static matches whatever follows) map to a Match.
_Node = dict[Any, Any]
_END, _PREFIX = range(2)


@dataclass(slots=True)
class Match:
    """A route matched to a path.

    `methods` has a Match for each method that the path allows; it is empty for a Mount. `names`
    are the parameters' names. `tail` is the rest of the path below a Mount or a Static.
    """

    route: Route
    methods: dict[str, Match]
    names: tuple[str, ...]
    view_args: dict[str, Any] = field(default_factory=dict)
    tail: str = ""


def methods_of(route: Route) -> frozenset[str]:
    """Return a route's methods, plus HEAD if it has GET; none for a Mount, which accepts any."""
    methods = frozenset(name.upper() for name in route.methods)
    return methods | {"HEAD"} if "GET" in methods else methods


def parse_parameter(segment: str) -> tuple[str, str] | None:
    """Return the two names in `{name:converter}`; None for a literal segment."""
    match = _PARAMETER.fullmatch(segment)
    return (match[1], match[2] or "str") if match else None


def route_key(route: Route) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return the route's keys in the tree, from root to leaf, and its parameters' names."""
    keys, names = list[Any](), list[str]()
    for segment in route.segments:
        if parameter := parse_parameter(segment):
            names.append(parameter[0])
            keys.append(CONVERTERS[parameter[1]])
        else:
            keys.append(segment)
    return (*keys, _PREFIX if route.is_prefix else _END), tuple(names)


class Router:
    """Routes by path: a dict for paths without parameters, a tree of segments for the rest.

    For each segment, literals are tried first, then converters in their order, then a Mount or
    Static. The routes must be valid.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.paths = [route.path for route in routes]
        self._root: _Node = {}
        self._exact: dict[str, Match] = {}
        for route in routes:
            (*keys, end), names = route_key(route)
            node = self._root
            for key in keys:
                node = node.setdefault(key, {})
            first = node.setdefault(end, Match(route, {}, names))
            match = Match(route, first.methods, names)
            for method in methods_of(route):
                first.methods.setdefault(method, match)
            if end == _END and not names:
                self._exact[route.path] = first

    def match(self, path: str, method: str = "GET") -> Match | None:
        """Return the match for a decoded path, preferably for `method`, or None."""
        if (exact := self._exact.get(path)) is not None:
            return exact.methods.get(method, exact)
        if not path.startswith("/"):
            return None
        found = _find(self._root, path.split("/")[1:], 0)
        if found is None:
            return None
        first, values, tail = found
        match = first.methods.get(method, first)
        view_args = dict(zip(match.names, values, strict=True))
        return Match(match.route, match.methods, match.names, view_args, tail)

    def slash_variant(self, path: str) -> str | None:
        """Return the path with its final slash added or removed, if that path has a route."""
        other = path[:-1] if path.endswith("/") else f"{path}/"
        return other if other and self.match(other) else None


def _find(
    node: _Node, segments: Sequence[str], position: int
) -> tuple[Match, tuple[Any, ...], str] | None:
    """Return (match, values, tail) for the segments from `position`, searched below `node`."""
    if position == len(segments):
        match = node.get(_END) or node.get(_PREFIX)
        return (match, (), "") if match else None
    segment = segments[position]
    if (child := node.get(segment)) and (found := _find(child, segments, position + 1)):
        return found
    for converter in CONVERTERS.values():
        if not (child := node.get(converter)):
            continue
        end = len(segments) if converter.takes_rest else position + 1
        value = converter.convert("/".join(segments[position:end]))
        if value is not None and (found := _find(child, segments, end)):
            match, values, tail = found
            return match, (value, *values), tail
    if match := node.get(_PREFIX):
        return match, (), "/" + "/".join(segments[position:])
    return None


# ---- Request ---------------------------------------------------------------------------------
# Uses Errors, Configuration.

READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_COOKIE_HEADER_LIMIT = 16_384  # bytes
_CONTENT_TYPE_LIMIT = 1_024
_AUTHORIZATION_LIMIT = 1_024
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WHITESPACE = " \t"  # in headers; `str.strip()` would also strip \x85 and \xa0, part of names
_SAFE_IN_PATH = "/~!$&'()*+,=:@"  # in a path (RFC 3986, 3.3)
# Invalid values of these must be ignored (RFC 9110, 13.1.3, 14.2), but WebOb raises an error.
# It also needs a third of a second to parse a very long one.
_DROPPED_IF_INVALID = (
    "HTTP_DATE", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE",
    "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_MAX_FORWARDS", "HTTP_RANGE",
    "HTTP_ACCEPT", "HTTP_ACCEPT_CHARSET", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE",
)  # fmt: skip
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
_DEFAULT_LIMITS = {
    setting.name.removeprefix("limits."): setting.default
    for setting in SETTINGS
    if setting.name.startswith("limits.")
}


class FieldText(str):
    """A string from a request that SQLAlchemy compares as the column's type.

    For PostgreSQL, SQLAlchemy casts a plain `str` to VARCHAR, which never equals an integer.
    """

    __slots__ = ()


class Values(Mapping[str, T]):
    """Values by name. The first of several wins; `getlist` returns them all.

    A missing name raises a KeyError, which becomes a 400 response unless it is caught.
    """

    def __init__(self, pairs: Iterable[tuple[str, T]] = (), source: str = "form") -> None:
        self._source = source  # the attribute of the request
        self._lists: dict[str, list[T]] = {}
        for name, value in pairs:
            self._lists.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> T:
        if name not in self._lists:
            raise MissingField(self._source, name)
        return self._lists[name][0]

    def __contains__(self, name: object) -> bool:
        return name in self._lists

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def __or__(self, other: Values[Any]) -> Values[Any]:
        """Return the values of both: form libraries accept `request.form | request.files`."""
        return Values([*self.pairs(), *other.pairs()], self._source)

    def __repr__(self) -> str:  # names only: values may be passwords
        return f"<Values {sorted(self._lists)}>"

    def getlist(self, name: str) -> list[T]:
        """Return all values of `name`, in the order they were sent."""
        return list(self._lists.get(name, ()))

    def discard(self, name: str) -> None:
        """Remove every value of `name`."""
        self._lists.pop(name, None)

    def pairs(self) -> Iterator[tuple[str, T]]:
        """Yield every (name, value)."""
        return ((name, value) for name, values in self._lists.items() for value in values)

    def get(self, name: str, default: Any = None, type: Callable[[T], Any] | None = None) -> Any:
        """Return the first value, converted by `type`; `default` if missing or not convertible."""
        if name not in self._lists:
            return default
        try:
            value: Any = type(self[name]) if type else self[name]
            is_number = isinstance(value, float | decimal.Decimal)
            return default if is_number and not math.isfinite(value) else value
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            return default


@dataclass(frozen=True)
class Upload:
    """An uploaded file. `file` is open for reading bytes, and closed after the request.

    `filename` has no folders or control characters. `content_type` is only the client's claim.
    """

    filename: str
    content_type: str
    file: tempfile.SpooledTemporaryFile[bytes]


class BoundedRequest(webob.request.BaseRequest):
    """A WebOb request that limits its body and refuses malformed input."""

    cleanup_callbacks: list[Callable[[], Any]] | None = None  # called when the request ends
    _open_files: tuple[tempfile.SpooledTemporaryFile[bytes], ...] = ()
    limits: Mapping[str, int] = _DEFAULT_LIMITS

    def __init__(self, environ: dict[str, Any], **attributes: Any) -> None:
        super().__init__(environ, **attributes)
        for name in _DROPPED_IF_INVALID:
            if name in environ and not _is_valid(name, environ[name]):
                del environ[name]
                if name == "HTTP_IF_RANGE":  # then ignore the range (RFC 9110, 13.1.5)
                    environ.pop("HTTP_RANGE", None)

    def __repr__(self) -> str:
        return f"<Request {describe_request(self.environ)}>"

    __str__ = __repr__  # WebOb's shows the body and cookies

    @property
    def length(self) -> int | None:
        """The declared length of the body, or None. Raises Rejection if invalid or too large."""
        text = str(self.environ.get("CONTENT_LENGTH") or "")
        if not text:
            return None
        if not (text.isascii() and text.isdigit()):
            raise Rejection(400, "bad-length")
        if len(text) > 18 or int(text) > self.limits["body"]:
            raise Rejection(413, "body-too-large")
        return int(text)

    def limit_body(self) -> None:
        """Check the declared length, and limit how much of the body can be read."""
        length = self.length
        if "_body" not in self.__dict__:
            self._body = _LimitedStream(self.environ, length, self.limits["body"])
            self.environ["wsgi.input"] = io.BufferedReader(self._body)
            self.environ["webob.is_body_seekable"] = False

    def read_body(self, size: int = -1) -> bytes:
        """Return up to `size` bytes of the body. Raises Rejection if its end is unknown."""
        if self.length is None and not self.environ.get("wsgi.input_terminated"):
            raise Rejection(411, "no-length")
        if "_body" not in self.__dict__:
            self.limit_body()
        return cast(bytes, self.environ["wsgi.input"].read(size))

    def read_limited(self, kind: str) -> bytes:
        """Return the whole body, a "form" or "json". Raises Rejection if it exceeds that limit."""
        limit = self.limits[kind]
        if (self.length or 0) > limit or len(body := self.read_body(limit + 1)) > limit:
            raise Rejection(413, f"{kind}-too-large")
        return body

    def buffer_body(self) -> None:
        """Read a limited body into a file, so that later readers do not wait for the client."""
        body = self.__dict__.get("_body")
        if body and body.left == body.total and self.is_body_readable:
            self.make_body_seekable()

    def make_tempfile(self) -> tempfile.SpooledTemporaryFile[bytes]:  # type: ignore[override]
        """Create a file that moves to disk above `limits.memory`. WebOb's `body` uses it too."""
        file = tempfile.SpooledTemporaryFile[bytes](self.limits["memory"])
        if self.cleanup_callbacks is not None and not self._open_files:
            self.cleanup_callbacks.append(self.close_files)
        self._open_files = (*self._open_files, file)
        return file

    def close_files(self) -> None:
        """Close every uploaded file, which deletes it."""
        for file in self._open_files:
            file.close()

    def rewind(self) -> None:
        """Rewind the body and uploaded files."""
        if self.is_body_seekable:
            self.environ["wsgi.input"].seek(0)
        for file in self._open_files:
            if not file.closed:
                file.seek(0)

    @property
    def charset(self) -> str:
        """UTF-8. Raises Rejection for any other charset: decoding some takes quadratic time."""
        charset = str(super().charset)
        if charset.lower() not in ("utf-8", "us-ascii", "ascii"):
            raise Rejection(415, "charset")
        return "UTF-8"

    @property
    def text(self) -> str:  # type: ignore[override]
        """The body as a string. Raises Rejection if it is not UTF-8."""
        try:
            return self.body.decode(self.charset)
        except UnicodeDecodeError:
            raise Rejection(400, "undecodable-body") from None

    def as_text(self) -> str:
        """Return the whole request as a string, with invalid UTF-8 escaped."""
        return self.as_bytes().decode("utf-8", "backslashreplace")

    @property
    def body_file_raw(self) -> Any:
        """`wsgi.input` up to the limit. `body` and `body_file` read from it."""
        if not self.is_body_seekable:  # otherwise it is a copy that WebOb made
            self.limit_body()
        return self.environ["wsgi.input"]

    @body_file_raw.setter
    def body_file_raw(self, file: Any) -> None:
        self.environ["wsgi.input"] = file

    @property
    def client_addr(self) -> str | None:
        """The peer's address. WebOb's version trusts X-Forwarded-For."""
        return cast("str | None", self.environ.get("REMOTE_ADDR"))

    @property
    def authorization(self) -> Any:  # type: ignore[override]
        """WebOb's parsed header. Long ones except Bearer are refused: parsing is quadratic."""
        header = self.environ.get("HTTP_AUTHORIZATION", "")
        if len(header) > _AUTHORIZATION_LIMIT and not header.startswith("Bearer "):
            raise Rejection(431, "authorization-too-large")
        return super().authorization


class Request(BoundedRequest):
    """A WebOb request that reads path, query, cookies and body strictly.

    `args`, `form` (strings) and `files` are `Values`. `view_args` are the URL's parameters. `app`
    is the App, with its `config` and `database`. Malformed input is refused with a 4xx status on
    first access; path and query are checked before any handler runs.
    """

    app: Any = None
    text_type: type[str] = str  # FieldText if the database needs it
    view_args: Mapping[str, Any] = MappingProxyType({})

    def check(self) -> str:
        """Return the decoded path, and check the query too. Raises Rejection."""
        environ = self.environ
        # Servers put the slash between prefix and path in either; "//" would name another host.
        if prefix := environ.setdefault("SCRIPT_NAME", ""):
            environ["SCRIPT_NAME"] = f"/{stripped}" if (stripped := prefix.strip("/")) else ""
            _decode_path(prefix)
        environ["PATH_INFO"] = raw = environ.get("PATH_INFO") or "/"
        path = _decode_path(raw)
        if path[0] != "/":
            raise Rejection(400, "relative-path")
        if environ.setdefault("QUERY_STRING", ""):
            _ = self.args
        return path

    @memoized_property
    def prefix(self) -> str:
        """The path where this application is mounted, percent-encoded: "" or `/m`."""
        prefix = self.environ.get("SCRIPT_NAME", "").strip("/")
        raw = prefix.encode("latin-1", "replace")  # may be invalid in a refused request
        return f"/{quote(raw, safe=_SAFE_IN_PATH)}" if prefix else ""

    @memoized_property
    def full_path(self) -> str:
        """The decoded path with the mount prefix. A form's ticket is valid for this path only."""
        return self.script_name + self.path_info

    @memoized_property
    def args(self) -> Values[str]:
        """The query's fields."""
        try:
            query = self.environ.get("QUERY_STRING", "").encode("latin-1")
        except UnicodeEncodeError:
            raise Rejection(400, "undecodable-query") from None
        return self.field_values(_parse_fields(query, self.limits["fields"], "query"), "args")

    def field_values(self, pairs: Iterable[tuple[str, str]], source: str) -> Values[str]:
        """Return `pairs` as Values of `text_type`."""
        return Values(((name, self.text_type(value)) for name, value in pairs), source)

    def as_field_text(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert strings from a path or a ticket to `text_type`, the type of form fields."""
        convert = self.text_type
        return {n: convert(v) if isinstance(v, str) else v for n, v in values.items()}

    @property
    def form(self) -> Values[str]:
        """The posted fields, always strings."""
        return self._parsed_body[0]

    @property
    def files(self) -> Values[Upload]:
        """The uploaded files."""
        return self._parsed_body[1]

    @property
    def parsed_form(self) -> Any:
        """For debug pages: a form's fields and files if it was parsed already, else two Nones."""
        return self.__dict__.get("_parsed_body", (None, None))

    @memoized_property
    def _parsed_body(self) -> tuple[Values[str], Values[Upload]]:
        return _parse_form(self)

    @memoized_property
    def cookies(self) -> Values[str]:  # type: ignore[override]
        """The cookies that are valid UTF-8. The first of several with one name wins."""
        try:
            return Values(_parse_cookies(self.environ.get("HTTP_COOKIE", "")), "cookies")
        except Rejection:
            self.__dict__["cookies"] = Values((), "cookies")  # for the error page
            raise

    @memoized_property
    def json(self) -> Any:
        """The parsed JSON body. Raises Rejection: 415 (type), 413 (size) or 400 (syntax)."""
        if self.media_type != "application/json" and not self.media_type.endswith("+json"):
            raise Rejection(415, "content-type")
        return _parse_json(self.read_limited("json"))

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        header = str(self.environ.get("CONTENT_TYPE") or "")
        return header.partition(";")[0].strip(_WHITESPACE).lower()

    @memoized_property
    def form_type(self) -> tuple[str, dict[str, str]]:
        """A form's media type and parameters. Raises Rejection if the body is not a form."""
        header = str(self.environ.get("CONTENT_TYPE") or "")
        if len(header) > _CONTENT_TYPE_LIMIT or self.media_type not in _FORM_TYPES:
            raise Rejection(415, "content-type")
        options = multipart.parse_options_header(header)[1] if ";" in header else {}
        if options.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
            raise Rejection(415, "charset")
        return self.media_type, options

    @property
    def json_body(self) -> Any:
        """The same as `json`."""
        return self.json

    @property
    def GET(self) -> Any:  # noqa: N802 - WebOb's name
        """`args` as a WebOb MultiDict."""
        return webob.multidict.MultiDict(self.args.pairs())

    @property
    def POST(self) -> Any:  # noqa: N802 - WebOb's name
        """`form` as a WebOb MultiDict. WebOb's own parser is lenient, and gone in Python 3.13."""
        return webob.multidict.MultiDict(self.form.pairs())


class _LimitedStream(io.RawIOBase):
    """`wsgi.input` up to its declared length or, without one, up to the limit."""

    def __init__(self, environ: Mapping[str, Any], length: int | None, limit: int) -> None:
        self.stream, self.has_length = environ["wsgi.input"], length is not None
        if length is None and not environ.get("wsgi.input_terminated"):
            length, self.has_length = 0, True  # the stream may never end: read nothing
        self.total = self.left = limit + 1 if length is None else length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.left == 0:
            return 0
        try:
            data = self.stream.read(min(len(buffer), self.left))
        except Exception as error:  # each server raises classes of its own for a broken body
            raise Rejection(400, "body-unreadable") from error
        if not data and self.has_length:
            raise Rejection(400, "body-too-short")
        self.left -= len(data)
        if not self.has_length and self.left == 0:
            raise Rejection(413, "body-too-large")
        buffer[: len(data)] = data
        return len(data)


def describe_request(environ: Mapping[str, Any]) -> str:
    """Return `GET /users/7` for logs, in printable ASCII whatever the client sent."""
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    method = str(environ.get("REQUEST_METHOD", "GET"))[:20]
    return f"{quote(method)} {quote(path.encode('latin-1', 'replace'))[:200]}"


def _decode_path(path: str) -> str:
    """Decode a WSGI path (bytes as latin-1, PEP 3333) as UTF-8. Raises Rejection."""
    try:
        text = path if path.isascii() else path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise Rejection(400, "undecodable-path") from None
    if "\0" in text:
        raise Rejection(400, "nul-in-path")
    return text


def _is_valid(name: str, value: str) -> bool:
    """Return True if WebOb can read the value of a header in _DROPPED_IF_INVALID."""
    if len(value) > 1_000 or not value.isascii():
        return False
    if name == "HTTP_MAX_FORWARDS":
        return value.isdigit() and len(value) < 10
    is_date = name != "HTTP_IF_RANGE" or value.endswith(" GMT")
    if name.endswith("MATCH") or name.startswith(("HTTP_ACCEPT", "HTTP_RANGE")) or not is_date:
        return True
    try:
        return parse_date(value) is not None
    except (ValueError, OverflowError, TypeError):
        return False


def _parse_cookies(header: str) -> Iterator[tuple[str, str]]:
    """Yield the valid pairs of a Cookie header."""
    if len(header) > _COOKIE_HEADER_LIMIT:
        raise Rejection(431, "cookies-too-large")
    is_plain = header.isascii() and header.isprintable()
    for pair in header.split(";"):
        name, equals, text = pair.strip(_WHITESPACE).partition("=")
        text = text.strip('"')
        if not is_plain:
            try:
                text = text.encode("latin-1").decode("utf-8")
            except UnicodeError:
                continue
        if equals and name and (is_plain or not _CONTROLS.search(text)):
            yield name, text


def _parse_fields(data: bytes, limit: int, source: str) -> list[tuple[str, str]]:
    """Parse a "query" or a urlencoded "form" (WHATWG URL, 5.1) strictly."""
    if b"\0" in data or b"%00" in data:
        raise Rejection(400, f"nul-in-{source}")
    try:
        text = data.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=limit)
    except UnicodeDecodeError:
        raise Rejection(400, f"undecodable-{source}") from None
    except ValueError:  # more than max_num_fields
        raise Rejection(414 if source == "query" else 413, "too-many-fields") from None


def _parse_json(body: bytes) -> Any:
    """Parse a JSON body (RFC 8259) strictly."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
        if b"\\u" in body:  # may be half a surrogate pair, which cannot be encoded
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise Rejection(400, "malformed-json") from None
    return value


def _finite(text: str) -> float:
    """Parse a number. Raises ValueError for 1e999 and Infinity, which JSON cannot express."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not JSON")
    return number


def _parse_form(request: Request) -> tuple[Values[str], Values[Upload]]:
    """Return the fields and files of a request's body."""
    if request.method in READ_METHODS or (not request.media_type and not request.length):
        return Values(), Values((), "files")
    media_type, options = request.form_type
    if media_type == "multipart/form-data":
        return _parse_multipart(request, options.get("boundary", ""))
    fields = _parse_fields(request.read_limited("form"), request.limits["fields"], "form")
    return request.field_values(fields, "form"), Values((), "files")


def _parse_multipart(request: Request, boundary: str) -> tuple[Values[str], Values[Upload]]:
    """Parse the fields and files of a multipart body (RFC 7578) strictly."""
    request.read_body(0)  # refuses a body whose end is unknown
    limits = request.limits
    fields: list[tuple[str, str]] = []
    files: list[tuple[str, Upload]] = []
    try:
        for segment, file in _segments(request, boundary):
            if "\0" in segment.name:
                raise Rejection(400, "nul-in-form")
            if segment.filename is None:
                data = file.read()
                file.close()
                if b"\0" in data:
                    raise Rejection(400, "nul-in-form")
                fields.append((segment.name, request.text_type(data.decode("utf-8"))))
            elif segment.filename or segment.size:  # otherwise no file was chosen
                name = UNPRINTABLE.sub("", re.split(r"[/\\]", segment.filename)[-1]).strip()
                media_type = _CONTROLS.sub("", segment.content_type or "application/octet-stream")
                upload = Upload("file" if name in ("", ".", "..") else name, media_type, file)
                files.append((segment.name, upload))
            if len(fields) > limits["fields"] or len(files) > limits["files"]:
                raise Rejection(413, "too-many-fields")
    except multipart.ParserLimitReached:
        raise Rejection(413, "too-many-fields") from None
    except (multipart.MultipartError, UnicodeError):
        raise Rejection(400, "malformed-form") from None
    return Values(fields), Values(files, "files")


def _segments(
    request: Request, boundary: str
) -> Iterator[tuple[multipart.MultipartSegment, tempfile.SpooledTemporaryFile[bytes]]]:
    """Yield each part of a multipart body with a file of its content."""
    max_parts = request.limits["fields"] + request.limits["files"]
    length = -1 if request.length is None else request.length
    with multipart.PushMultipartParser(boundary, length, max_segment_count=max_parts) as parser:
        for parsed in parser.parse_blocking(request.environ["wsgi.input"].read):
            if isinstance(parsed, multipart.MultipartSegment):
                segment = parsed
                file = request.make_tempfile()
            elif parsed:
                file.write(parsed)
            else:
                file.seek(0)
                yield segment, file


# ---- Answers ---------------------------------------------------------------------------------
# Uses Errors, Configuration, Registry, Request.

_COMPLETE_TYPES = (list, tuple)  # types of a complete body; any other is streamed
# The reserved characters of RFC 3986, and the percent sign of anything already encoded.
_SAFE_IN_URL = "/?#[]@!$&'()*+,;=:%~"
_SINGLE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")
_DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Answer:
    """A response ready to be sent, with WebOb's attribute names, never shared by two requests."""

    __slots__ = ("app_iter", "headerlist", "status", "streams")

    def __init__(
        self, status: str, headerlist: list[tuple[str, str]], app_iter: Iterable[bytes],
        *, streams: bool = False,
    ) -> None:  # fmt: skip
        self.status, self.headerlist, self.app_iter = status, headerlist, app_iter
        self.streams = streams  # handler code runs while the body is sent

    @property
    def headers(self) -> ResponseHeaders:
        """The headers as a case-insensitive mapping."""
        return ResponseHeaders.view_list(self.headerlist)


class Redirect(webob.Response):
    """A redirect with any `status`. `target` and `external` are as for `redirect()`."""

    def __init__(
        self, target: str, *, external: bool = False, status: int = 303, where: str = ""
    ) -> None:
        super().__init__(status=status)
        self.headers["Location"] = safe_target(target, external=external, where=where)


def redirect(target: str, external: bool = False) -> Redirect:
    """Return a 303 See Other to a local path such as `/users/7`, relative to the mount point.

    With `external`, `target` may also be a whole http(s) URL. Any other target raises Rejection,
    and the client gets a 400.
    """
    return Redirect(target, external=external, where=_call_site())


def reply(
    content: Any, status: int = 200, *, content_type: str | None = None,
    headers: Mapping[str, str] | None = None, filename: str | None = None,
) -> webob.Response:  # fmt: skip
    """Return a response whose body is `content`.

    A dict or list is sent as JSON, a `str` as plain text, bytes as they are, and a `Path` as a file
    (with ranges and conditional requests). An iterable of strings or bytes is streamed.
    `filename` makes it a download: `reply(rows, content_type="text/csv", filename="users.csv")`.

    Raises HTTPNotFound if the file does not exist, NoventaError for other content or a bad status.
    """
    if not isinstance(status, int) or not 200 <= status <= 599:
        problem = f"reply() got the status {_short_repr(status)}"
        raise NoventaError(f"{problem}; expected a number from 200 to 599.")
    media_type, response = "application/octet-stream", webob.Response(status=status)
    if isinstance(content, Path):
        name = filename or content.name
        response = _file_response(_open_reply_file(content), name)
        media_type, response.status_int = _media_type(name), status
    elif isinstance(content, str):
        media_type, response.body = "text/plain", content.encode()
    elif isinstance(content, bytes):
        response.body = content
    elif isinstance(content, dict | list):
        media_type, response.body = "application/json", encode_json(content, reply)
    elif isinstance(content, Iterable):
        response.app_iter = _encode_chunks(content)
    else:
        expected = "a dict or list, a string, bytes, a Path, or an iterable of strings or bytes"
        raise NoventaError(f"reply() got {_short_repr(content)}; expected {expected}.")
    media_type = content_type or media_type
    if media_type.startswith("text/") and "charset" not in media_type:
        media_type += "; charset=UTF-8"
    response.headers["Content-Type"] = media_type
    if filename is not None:
        response.headers["Content-Disposition"] = _download_header(filename)
    response.headers.update([*(headers or {}).items()])
    return response


def _download_header(filename: str) -> str:
    """Return the Content-Disposition of a download (RFC 6266; RFC 8187 for non-ASCII names)."""
    name = UNPRINTABLE.sub("", filename.replace("\\", "/").rpartition("/")[2])
    parameter = name if name.isascii() else ("utf-8", "", name)
    message = email.message.Message()
    message.add_header("Content-Disposition", "attachment", filename=parameter)
    return str(message["Content-Disposition"])


def _encode_chunks(chunks: Iterable[str | bytes]) -> Iterator[bytes]:
    try:
        for chunk in chunks:
            if not isinstance(chunk, str | bytes | bytearray | memoryview):
                problem = f"A reply's stream yielded {_short_repr(chunk)}"
                raise NoventaError(f"{problem}; expected strings or bytes.")
            yield chunk.encode() if isinstance(chunk, str) else chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


def _open_reply_file(path: Path) -> io.FileIO:
    try:
        if path.is_file():
            return io.FileIO(path, "rb")
    except OSError as error:
        log.warning("reply(%s): %s", path, error)
    raise webob.exc.HTTPNotFound


def _file_response(file: io.FileIO, name: str) -> webob.Response:
    """Return a conditional response that sends an open file; `name` determines its type."""
    status = os.fstat(file.fileno())
    headers = [*_file_headers(status, name), ("Content-Length", str(status.st_size))]
    body = _OpenFile(file, status.st_size)
    return webob.Response(headerlist=headers, app_iter=body, conditional_response=True)


def _file_headers(status: os.stat_result, name: str) -> list[tuple[str, str]]:
    return [
        ("Content-Type", _media_type(name)),
        ("Last-Modified", _http_date(int(status.st_mtime))),
        ("ETag", f'"{status.st_mtime_ns:x}-{status.st_size:x}"'),
        ("Accept-Ranges", "bytes"),
    ]


class _OpenFile:
    """An open file, or a range of it, as a response body. It is closed even if never read."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self.file, self.remaining = file, size

    def app_iter_range(self, start: int, stop: int) -> _OpenFile:
        """Limit the body to the bytes from `start` to `stop`. WebOb calls this for a range."""
        self.file.seek(start)
        self.remaining = stop - start
        return self

    def __iter__(self) -> _OpenFile:
        return self

    def __next__(self) -> bytes:
        block = self.file.read(min(_BLOCK, self.remaining))
        if not block:
            raise StopIteration
        self.remaining -= len(block)
        return block

    def close(self) -> None:
        """Close the file. The WSGI server calls this after sending the body."""
        self.file.close()


_BLOCK = 65_536  # bytes read from a file at a time
_COMPRESSED = {
    "gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"
}  # fmt: skip
_http_date = functools.lru_cache(maxsize=1_000)(serialize_date)


@functools.lru_cache(maxsize=1_000)
def _media_type(path: str) -> str:
    media_type, encoding = mimetypes.guess_type(path)
    if encoding:  # sent without Content-Encoding, so that browsers do not decompress it
        media_type = _COMPRESSED.get(encoding)
    media_type = media_type or "application/octet-stream"
    is_text = media_type.startswith("text/") or media_type.endswith("xml")
    return f"{media_type}; charset=UTF-8" if is_text else media_type


def safe_target(
    target: str, *, external: bool = False, relative: bool = False, where: str | Handler = ""
) -> str:
    """Return a redirect's target, percent-encoded.

    Raises Rejection unless `target` is a local path. `external` also allows a whole http(s) URL,
    `relative` a path without a leading slash. The error names `where`: a line or a handler.
    """
    if isinstance(target, str) and not _CONTROLS.search(target) and "\\" not in target:
        with contextlib.suppress(ValueError):
            parts = urlsplit(target)
            is_url = external and parts.scheme in ("http", "https") and bool(parts.netloc)
            is_local = not parts.scheme and not parts.netloc and not target.startswith("//")
            if is_url or (is_local and (relative or target.startswith("/"))):
                return quote(target, safe=_SAFE_IN_URL)
    expected = "a whole http(s) URL or a local path" if external else "a local path"
    source = where if isinstance(where, str) else handler_label(where)
    detail = f"{source}: redirect to {_short_repr(target)}; expected {expected}, like '/users/7'"
    raise Rejection(400, "redirect-target", detail=detail.removeprefix(": "))


def encode_json(value: Any, handler: Handler) -> bytes:
    """Encode a handler's return value as JSON. Raises NoventaError naming the first bad value."""
    try:
        return _to_json(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"a value that JSON cannot represent: {_json_problem(value, _to_json, error)}"
        raise NoventaError(f"{handler_label(handler)} returned {problem}.") from None


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_to_json = json.JSONEncoder(  # a circular value raises RecursionError
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"),
    default=_json_default,
).encode  # fmt: skip


def _json_problem(value: Any, encode: Callable[[Any], str], error: Exception) -> str:
    """Describe the value that `encode` rejects, as in `users[3].photo: Object of type …`."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply or contains itself"
    path, items = "", _items_of(value)
    while items:
        for step, item in items:
            try:
                encode(item).encode("utf-8")
            except (TypeError, ValueError) as inner:
                path, items, error = path + step, _items_of(item), inner
                break
        else:
            break
    return f"{path.lstrip('.')}: {error}".removeprefix(": ")


def _items_of(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    is_list = isinstance(value, list | tuple)
    return [(f"[{number}]", item) for number, item in enumerate(value)] if is_list else []


def make_private(answer: Answer) -> None:
    """Keep shared caches from serving the response to other visitors (RFC 9111, 5.2.2.7)."""
    if not [name for name, _ in answer.headerlist if name.lower() in ("cache-control", "vary")]:
        answer.headerlist += [("Cache-Control", "private"), ("Vary", "Cookie")]
        return
    headers = answer.headers
    directives = [d for d in _list_items(headers.get("Cache-Control")) if d.lower() != "public"]
    if not any(directive.lower() in ("private", "no-store") for directive in directives):
        directives.insert(0, "private")
    headers["Cache-Control"] = ", ".join(directives)
    vary = _list_items(headers.get("Vary"))
    if "cookie" not in (name.lower() for name in vary):
        headers["Vary"] = ", ".join([*vary, "Cookie"])


def _list_items(header: str | None) -> list[str]:
    return [item for part in (header or "").split(",") if (item := part.strip(_WHITESPACE))]


def content_security_policy(html: str) -> str:
    """Return a policy (CSP 3) that allows only data: images and the page's own styles and forms."""
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(style.encode()).digest()) for style in styles]
    sources = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    forms = "'self'" if "<form" in html else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {sources}; base-uri 'none';"
        f" form-action {forms}; frame-ancestors 'self'"
    )


def insert_notice(page: str, notice: str) -> str:
    """Return the page with `notice` at the end of its body."""
    before, end, after = page.rpartition("</body>")
    return before + notice + end + after if end else page + notice


@functools.lru_cache(maxsize=600)
def _status_line(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Error"


def _guess_media_type(body: bytes) -> str:
    """Guess the media type of a body. WebOb drops the type if `headers` are passed.

    Never guess HTML, because the body may contain user input.
    """
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return "text/plain; charset=UTF-8"
    return "application/json"


def add_headers(answer: Answer, headers: Iterable[tuple[str, str]]) -> Answer:
    """Add the headers that handlers set; each replaces Noventa's default.

    Headers of the same name are combined into one, except cookies (RFC 9110, 5.3).
    """
    values_by_name: dict[str, list[str]] = {}
    for name, value in headers:
        values_by_name.setdefault(name.title(), []).append(value)
    for name, values in values_by_name.items():
        if name == "Set-Cookie":
            answer.headerlist += [(name, value) for value in values]
        else:
            answer.headers[name] = ", ".join(values)
    return answer


class AnswerBuilder:
    """Builds responses with the default headers."""

    def __init__(self, config: Config) -> None:
        headers = {**_DEFAULT_HEADERS, **{n.title(): v for n, v in config["headers"].items()}}
        self._headers = [
            (name, str(value))
            for name, value in headers.items()
            if value is not None and name not in ("Content-Type", "Content-Length")
        ]

    def page(self, html: str, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """Return an HTML page with the `headers` that its handlers set."""
        answer = self.make("text/html; charset=UTF-8", html.encode("utf-8"), status)
        return add_headers(answer, headers)

    def framework_page(self, html: str, status: int) -> Answer:
        """Return a built-in page. Its Content-Security-Policy allows no external resources."""
        answer = self.page(html, status)
        answer.headers["Content-Security-Policy"] = content_security_policy(html)
        return answer

    def make(self, content_type: str, body: bytes, status: int = 200) -> Answer:
        """Return a response whose headers need no check: built-in ones or checked settings."""
        if status in (204, 304):  # no body (RFC 9110, 15.3.5 and 15.4.5)
            return Answer(_status_line(status), [*self._headers], [])
        body = b"" if status == 205 else body
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        return Answer(_status_line(status), headers + self._headers, [body])

    def complete(self, answer: Answer) -> set[str]:
        """Add default headers and the length of a complete body; return the names already set."""
        names = {name.title() for name, _ in answer.headerlist}
        if "Content-Type" not in names and isinstance(answer.app_iter, _COMPLETE_TYPES):
            answer.headerlist.append(("Content-Type", _guess_media_type(b"".join(answer.app_iter))))
        answer.headerlist += [pair for pair in self._headers if pair[0] not in names]
        if answer.status[:3] in ("204", "304"):
            for name in ("Content-Type", "Content-Length"):
                answer.headers.pop(name, None)
            if hasattr(answer.app_iter, "close"):
                answer.app_iter.close()
            answer.app_iter = []
        elif "Content-Length" not in names and isinstance(answer.app_iter, _COMPLETE_TYPES):
            length = sum(map(len, answer.app_iter))
            answer.headerlist.append(("Content-Length", str(length)))
        return names


def answer_from_response(request: Request, response: webob.Response) -> Answer:
    """Copy a response, which handlers may share. WebOb handles conditions and single ranges."""
    streams = not isinstance(response.app_iter, (*_COMPLETE_TYPES, _OpenFile))
    if response.conditional_response:
        environ = dict(request.environ)
        if request.method != "GET" or not _SINGLE_RANGE.fullmatch(environ.get("HTTP_RANGE", "")):
            environ.pop("HTTP_RANGE", None)  # Range applies to GET only (RFC 9110, 14.2)
        # Don't call the response: a WebOb exception would make its own Location absolute.
        response = webob.request.BaseRequest(environ).send(response.conditional_response_app)
    return Answer(response.status, [*response.headerlist], response.app_iter, streams=streams)


def check_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers as exact `str` objects (PEP 3333).

    Raises NoventaError or Rejection for a header that would be split, dropped or crash the server.
    """
    for name, value in headers:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise NoventaError(f"The header {name!r} has a name that HTTP does not allow.")
        if not isinstance(value, str):
            raise NoventaError(f"The header {name!r} is {_short_repr(value)}; expected a string.")
        if not _HEADER_VALUE.fullmatch(value):  # most likely user input
            raise Rejection(400, f"value-of-{name}")
    return [(str(name), str(value)) for name, value in headers]


# ---- Signing ---------------------------------------------------------------------------------
# Uses Errors, Router, Request.

CLOCK_TOLERANCE = 300  # seconds that the clocks of two servers may differ
_SIGNATURE_LENGTH = 44  # a dot and the 32 bytes of SHA-256 in base64url
_SIGNED = re.compile(r"[\w-]+\.[\w-]{43}", re.ASCII)
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


class Signer:
    """Signs bytes for one purpose: HMAC-SHA256 under a key derived from each secret (RFC 2104).

    The first secret signs and any of them verifies, so secrets can be rotated. A signature for
    one purpose never verifies for another: `Signer(secret_keys, "unsubscribe").sign(b"7")`.
    """

    def __init__(self, secret_keys: Sequence[str], purpose: str) -> None:
        label = f"noventa {purpose}".encode()
        derived = (hmac.digest(secret.encode(), label, "sha256") for secret in secret_keys)
        self._keys = [hmac.new(key, digestmod="sha256") for key in derived]

    def sign(self, payload: bytes) -> str:
        """Return `payload.signature` in base64url. Raises SessionError if there is no secret."""
        if not self._keys:
            raise SessionError(
                "config.yaml: secret_keys is empty, but sessions and forms need a key; add the"
                " output of `openssl rand -hex 32`, or ${NOVENTA_SECRET_KEY}."
            )
        encoded = _base64(payload)
        return b"".join((encoded, b".", _signature(self._keys[0], encoded))).decode("ascii")

    def verify(self, signed: str) -> bytes:
        """Return the payload. Raises BadTicket if it or its signature was altered."""
        encoded, _, signature = signed.encode("utf-8", "replace").partition(b".")
        for key in self._keys:
            if hmac.compare_digest(_signature(key, encoded), signature):
                return binascii.a2b_base64(encoded.translate(_FROM_URL) + b"==")
        raise BadTicket("bad-signature" if _SIGNED.fullmatch(signed) else "malformed-ticket")


def _signature(key: hmac.HMAC, message: bytes) -> bytes:
    mac = key.copy()  # faster than hmac.digest(), which hashes the key each time
    mac.update(message)
    return _base64(mac.digest())


def _base64(data: bytes) -> bytes:
    """Encode `data` in base64url without padding (RFC 4648, 5)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=")


_TICKET_LIMIT = 2_048  # bytes
FRAGMENT = "_fragment"  # the query parameter that requests one component


class Ticket(NamedTuple):
    """The action or fragment that one page offers to one session."""

    nonce: str  # the session's
    path: str
    component: str
    instance: str
    action: str
    props: dict[str, Any]
    guarded_ancestors: Sequence[tuple[str, dict[str, Any]]]  # outermost first, with guard props
    guards: str  # a digest of the guarded components
    issued: int  # Unix time in seconds
    alone: bool  # the instance has no children, so it can be rendered without its page


# A ticket holds JSON scalars and, as a converter's name and a string, the other values that a path
# can contain.
_SCALARS = (str, int, float, bool, NoneType)
_CONVERTER_NAMES = {converter.type: name for name, converter in CONVERTERS.items()}


def fits_ticket(value: Any) -> bool:
    """Return True if a ticket can hold `value` as a prop."""
    return isinstance(value, _SCALARS) or type(value) in _CONVERTER_NAMES


def _convert_props(props: dict[str, Any]) -> dict[str, Any]:
    for name, value in props.items():
        if type(value) is list:
            props[name] = CONVERTERS[value[0]].read(value[1])
    return props


_write_ticket = json.JSONEncoder(
    separators=(",", ":"), default=lambda value: (_CONVERTER_NAMES[type(value)], str(value))
).encode
_read_ticket = json.JSONDecoder(object_hook=_convert_props).decode


class Tickets:
    """Issues and reads tickets: a form's hidden field, or the parameter of a fragment's URL."""

    def __init__(self, secret_keys: Sequence[str], field_name: str = "_ticket") -> None:
        self.field_name = field_name
        self._signer = Signer(secret_keys, field_name.strip("_"))

    def issue(self, ticket: Ticket) -> str:
        """Return the signed ticket. Raises PropsError if its props are unsuitable or too long."""
        for name, value in ticket.props.items():
            if not fits_ticket(value):
                usage = "renders an action" if ticket.action else "is rendered as a fragment"
                remedy = "pass the id instead and load the row in the handler."
                raise PropsError(_unsuitable_prop(ticket.component, usage, name, value, remedy))
        purpose = f"action {ticket.action!r}" if ticket.action else "fragment"
        for ancestor, props in ticket.guarded_ancestors:
            for name, value in props.items():
                if not fits_ticket(value):
                    usage = f"runs its guard again before the {purpose} of {ticket.component!r}"
                    remedy = "pass the id instead, or declare the props that the guard needs."
                    raise PropsError(_unsuitable_prop(ancestor, usage, name, value, remedy))
        signed = self._signer.sign(_write_ticket(ticket).encode())
        if len(signed) > _TICKET_LIMIT:
            raise PropsError(
                f"component {ticket.component!r}: the ticket of its {purpose} has {len(signed)}"
                f" bytes; the limit is {_TICKET_LIMIT}; pass fewer or shorter props."
            )
        return signed

    def read(self, fields: Values[str]) -> Ticket:
        """Read the last ticket, which is the pressed button's. Raises BadTicket."""
        tickets = fields.getlist(self.field_name)
        if not tickets or not tickets[-1]:
            raise BadTicket("no-ticket")
        if len(tickets[-1]) > _TICKET_LIMIT:
            raise BadTicket("malformed-ticket")
        payload = self._signer.verify(tickets[-1])
        try:
            return Ticket(*_read_ticket(payload.decode()))
        except (TypeError, ValueError, LookupError):  # issued by another version of Noventa
            raise BadTicket("outdated-ticket") from None


def _unsuitable_prop(component: str, usage: str, name: str, value: Any, remedy: str) -> str:
    problem = f"its prop {name!r} is a {type(value).__name__}"
    return f"component {component!r} {usage}, but {problem}; {remedy}"


# ---- Session ---------------------------------------------------------------------------------
# Uses Errors, Configuration, Request, Answers, Signing.

_COOKIE_LIMIT = 4_000  # bytes of name and value; browsers drop a cookie of more than 4,096
_REFRESH = 10  # the last-seen time is renewed after a tenth of max_age
_STATE_KEYS = ("data", "flashes", "nonce", "issued", "seen", "prefix")  # the cookie's content
_STATE_TYPES = [[dict, list, nonce, int, int, str] for nonce in (str, NoneType)]
_encode_state = json.JSONEncoder(check_circular=False).encode
_decode_state = json.JSONDecoder().raw_decode


class Flash(NamedTuple):
    """A message for the next page. `kind` is any word that the application chooses."""

    text: str
    kind: str


class Session(MutableMapping[str, Any]):
    """A dict of JSON values in a signed cookie, read on first access and sent only if changed.

    Changes inside a stored list or dict count too. The cookie has room for about 2,900 bytes of
    JSON. Larger data, or values that JSON cannot represent, raise SessionError on saving.
    """

    shown_flashes = 0  # how many a page has displayed
    old_flashes = 0  # how many were queued before the current handler
    rotated = False
    may_have_changed = False

    def __init__(self, load: Callable[[], tuple[dict[str, Any], str]]) -> None:
        self._load = load  # returns the state as a dict and as JSON

    @memoized_property
    def loaded_state(self) -> dict[str, Any]:
        """The cookie's content: data, flashes, nonce, the times issued and seen, mount prefix."""
        state, self.loaded_json = self._load()
        self.old_flashes = len(state["flashes"])
        return state

    @property
    def state(self) -> dict[str, Any]:
        """The same dict as `loaded_state`, for callers that may change it."""
        self.may_have_changed = True
        return self.loaded_state

    @property
    def touched(self) -> bool:
        """True once anything was read or written."""
        return "loaded_state" in self.__dict__

    @property
    def nonce(self) -> str:
        """A random string that binds tickets to this session, created on first access."""
        if not self.loaded_state["nonce"]:
            self.state["nonce"] = secrets.token_urlsafe(12)
        return cast(str, self.loaded_state["nonce"])

    def __getitem__(self, key: str) -> Any:
        return self.state["data"][key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.state["data"][key] = value

    def __delitem__(self, key: str) -> None:
        del self.state["data"][key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state["data"])

    def __len__(self) -> int:
        return len(self.state["data"])

    def __repr__(self) -> str:  # keys only: values may be secrets
        return f"<Session {sorted(self.state['data']) if self.touched else 'not touched'}>"

    def checkpoint(self) -> Callable[[], None]:
        """Return a function that restores the session as it is now."""
        saved = copy.deepcopy({name: vars(self)[name] for name in vars(self) if name != "_load"})

        def restore() -> None:
            load = self._load
            vars(self).clear()
            vars(self).update(copy.deepcopy(saved), _load=load)

        return restore

    def flash(self, text: str, kind: str = "info") -> None:
        """Queue a message until a page that shows it has been sent."""
        self.state["flashes"].append([str(text), kind])

    def flashes(self) -> list[Flash]:
        """Return the queued messages. They are removed once the page that called this is sent."""
        self.shown_flashes = len(self.state["flashes"])
        return [Flash(text, kind) for text, kind in self.state["flashes"]]

    def finish_handler(self, *, keep_flashes: bool) -> None:
        """Keep or drop the flashes of the handler that has just run."""
        if self.touched:
            flashes = self.loaded_state["flashes"]
            if not keep_flashes:
                del flashes[self.old_flashes :]
            self.old_flashes = len(flashes)

    def rotate(self) -> None:
        """Invalidate all earlier tickets and keep the data. Call it after a login or logout."""
        now, self.rotated = int(time.time()), True
        self.state.update(nonce=secrets.token_urlsafe(12), issued=now, seen=now)

    def clear(self) -> None:
        """Remove all data and messages, and invalidate all earlier tickets."""
        self.old_flashes = 0
        self.state.update(data={}, flashes=[], nonce=None)

    def forbid(self) -> None:
        """Make first access from now on raise SessionError."""

        def load() -> NoReturn:
            raise SessionError(
                "The session was first used in a streamed body whose Cache-Control is public; use"
                " it before returning the response, or remove `public`."
            )

        self._load = load


class SessionCookies:
    """Reads sessions from signed cookies and writes them back.

    In a test, `app.sessions.read(client.cookies)` returns a client's session, and
    `client.set_cookie(app.sessions.name, app.sessions.make({"user_id": 7}))` sets it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name: str = config["session.cookie_name"]
        self._max_age: int = config["session.max_age"]
        self._lifetime: int = config["session.lifetime"]
        self.signer = Signer(config["secret_keys"], "session")
        # Base64 turns three bytes into four. A very long cookie name leaves no room at all.
        self._room = (_COOKIE_LIMIT - len(self.name) - _SIGNATURE_LENGTH) * 3 // 4
        domain, is_secure = config["session.domain"], config["session.secure"]
        self._attributes = f"; HttpOnly; SameSite={config['session.same_site'].title()}"
        self._attributes += "; Secure" if is_secure else ""
        self._attributes += f"; Domain={domain}" if domain else ""

    def open(self, request: Request) -> Session:
        """Return the visitor's session. The cookie is read on first access."""
        return Session(lambda: self._read(request.cookies, request.prefix))

    def read(self, cookies: Mapping[str, str], prefix: str = "") -> Session:
        """Return the session in a client's cookies (by name), or an empty one.

        `prefix` is the application's mount point, such as `/m`.
        """
        return Session(lambda: self._read(cookies, prefix))

    def make(self, data: Mapping[str, Any], prefix: str = "") -> str:
        """Return the cookie value of a new session with `data`. Raises SessionError."""
        session = self.read({}, prefix)
        session.update(data)
        return self.signer.sign(self._dump(session.state).encode())

    def save(self, session: Session, request: Request, answer: Answer) -> None:
        """Set the cookie if the session changed. Raises SessionError if it does not fit."""
        make_private(answer)
        state, now = session.loaded_state, int(time.time())
        is_fresh = now - state["seen"] < self._max_age / _REFRESH
        if is_fresh and not session.may_have_changed:
            return
        dumped = self._dump(state)
        if len(dumped) > self._room:
            dumped = self._drop_old_flashes(state)
        if dumped == session.loaded_json and (is_fresh or not (state["data"] or state["nonce"])):
            return
        if not (state["data"] or state["flashes"] or state["nonce"]):
            if self.name in request.cookies:
                answer.headerlist.append(("Set-Cookie", self._cookie(request, "", max_age=0)))
            return
        if self._may_be_withheld(request) and not session.rotated:
            return
        if state["seen"] != now:
            dumped = self._dump({**state, "seen": now})
        if len(dumped) > self._room:
            raise SessionError(_too_large(state["data"]))
        value = self.signer.sign(dumped.encode())
        cookie = self._cookie(request, value, max_age=self._max_age)
        answer.headerlist.append(("Set-Cookie", cookie))

    def _may_be_withheld(self, request: Request) -> bool:
        """Return True if the browser may hold a session cookie that it withheld.

        Setting a new one would replace it. Cross-site requests never carry a strict cookie, and a
        lax one only if the method is safe (RFC 6265bis, 5.7.3).
        """
        if request.environ.get("HTTP_SEC_FETCH_SITE") != "cross-site":
            return False
        policy = self.config["session.same_site"]
        is_sent = policy == "none" or (policy == "lax" and request.method in READ_METHODS)
        return not is_sent and self.name not in request.cookies

    def _drop_old_flashes(self, state: dict[str, Any]) -> str:
        """Keep the newest flashes that fit, and return the state as JSON."""
        flashes, fitting = state["flashes"], list[Any]()
        room = self._room - len(self._dump({**state, "flashes": []}))
        for flash in reversed(flashes):
            size = len(_encode_state(flash)) + 2  # with a comma and a space
            if size <= room:
                fitting.insert(0, flash)
                room -= size
            elif fitting:
                break
        if dropped := len(flashes) - len(fitting):
            log.warning("the session is full: unread messages were dropped (%d)", dropped)
        state["flashes"] = fitting
        return self._dump(state)

    def _read(self, cookies: Mapping[str, str], prefix: str) -> tuple[dict[str, Any], str]:
        now, cookie = int(time.time()), cookies.get(self.name)
        if cookie and (loaded := self._verify(cookie)):
            state, _ = loaded
            idle, age = now - state["seen"], now - state["issued"]
            is_alive = idle <= self._max_age and age <= self._lifetime
            is_alive = is_alive and min(idle, age) >= -CLOCK_TOLERANCE
            if is_alive and state["prefix"] == prefix:  # else it is of an application above
                return loaded
        empty: dict[str, Any] = {"data": {}, "flashes": [], "nonce": None}
        empty |= {"issued": now, "seen": now, "prefix": prefix}
        return empty, _encode_state(empty)

    def _verify(self, cookie: str) -> tuple[dict[str, Any], str] | None:
        try:
            payload = self.signer.verify(cookie).decode()
            state, _ = _decode_state(payload)
        except (BadTicket, ValueError, RecursionError):
            return None
        if not isinstance(state, dict) or len(state) != len(_STATE_KEYS):
            return None
        types = [type(state.get(key)) for key in _STATE_KEYS]
        return (state, payload) if types in _STATE_TYPES else None

    def _dump(self, state: dict[str, Any]) -> str:
        try:
            return _encode_state(state)
        except (TypeError, ValueError, RecursionError) as error:
            problem = _json_problem(state["data"], _encode_state, error)
            raise SessionError(
                f"The session holds a value that JSON cannot represent: {problem}; store the id of"
                " a row, and other values as strings or numbers."
            ) from None

    def _cookie(self, request: Request, value: str, *, max_age: int) -> str:
        path = "/" if self.name.startswith("__Host-") else request.prefix or "/"
        return f"{self.name}={value}; Path={path}; Max-Age={max_age}{self._attributes}"


def _too_large(data: Mapping[str, Any]) -> str:
    sizes = {key: len(_encode_state(value)) for key, value in data.items()}
    largest = max(sizes, key=sizes.__getitem__, default="")
    return (
        f"The session does not fit into a cookie of {_COOKIE_LIMIT} bytes; its largest key is"
        f" {largest!r} ({sizes.get(largest, 0)} bytes). Store large values in the database and"
        " their ids in the session."
    )


# ---- Database --------------------------------------------------------------------------------
# Uses Errors, Configuration, Request.

READS = "noventa_reads"  # execution option: SQLite begins the transaction without a lock
INTERNAL_STATEMENT = "noventa_internal"  # execution option: not sent by the application
_BEGIN = {True: "BEGIN", False: "BEGIN IMMEDIATE"}  # SQLite's statement; True: only reads
_BUSY_TIMEOUT = 30  # seconds that SQLite waits for another writer
_CONNECT_TIMEOUT = 10  # seconds; libpq has no default
_MAX_REPORTED = 20  # rows in the report of a forgotten commit
_FIRST_DELAY, _MAX_DELAY = 0.005, 0.1  # seconds before a retry after a conflict
_PING_AFTER = 0.2  # seconds of idleness after which a connection is tested before use
_KNOWN_TO_WRITE = 60  # seconds for which an entry begins as a writer after a GET wrote


def make_engine(
    config: Config, *, url: sa.URL | None = None, reads: bool = False,
    begin: Callable[[sa.Connection], None] | None = None, **options: Any,
) -> sa.Engine:  # fmt: skip
    """Create an engine for the project's database, or for a replica at `url`.

    It connects on first use. With `reads`, each statement is its own transaction and the database
    refuses writes. On SQLite it sets WAL, foreign keys and a busy timeout, and `begin` begins each
    transaction. `options` are passed to `sqlalchemy.create_engine`.
    """
    url = url or config.database_url
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if driver in ("pymysql", "mysqldb") and "charset" not in url.query:
        url = url.update_query_dict({"charset": "utf8mb4"})
    arguments = _connect_arguments(config, url)
    defaults: dict[str, Any] = {"hide_parameters": True, "connect_args": arguments}
    if reads and backend != "sqlite":
        defaults["isolation_level"] = "AUTOCOMMIT"
    elif config["database.isolation_level"]:
        defaults["isolation_level"] = config["database.isolation_level"]
    if "poolclass" not in options:
        defaults |= _pool_options(config)
    engine = sa.create_engine(url, **(defaults | options))
    _check_isolation_level(config, engine.dialect)
    if backend == "sqlite":
        _set_up_sqlite(config, engine, begin or _begin_sqlite, reads=reads)
    else:
        if reads:
            event.listen(engine, "connect", _make_read_only)
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", functools.partial(_ping_if_idle, engine.dialect))
    return engine


def _connect_arguments(config: Config, url: sa.URL) -> dict[str, Any]:
    """Return the arguments of the driver's `connect()` that are not in the URL."""
    backend, driver = url.get_backend_name(), url.get_driver_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        arguments |= {"timeout": _BUSY_TIMEOUT, "check_same_thread": False}
        arguments["factory"] = _sqlite_connection(cast(Any, url.get_dialect().import_dbapi()))
    elif driver in ("psycopg", "psycopg2", *_MYSQL_DRIVERS) and "connect_timeout" not in url.query:
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
    if driver == "pymysql" and url.password:  # PyMySQL would encode a string as latin-1
        arguments["password"] = url.password.encode()
    if config["database.pooler"] and driver == "psycopg":
        arguments["prepare_threshold"] = None  # clients' prepared statements would collide
    return arguments | config.driver_options


def _set_up_sqlite(
    config: Config, engine: sa.Engine, begin: Callable[[sa.Connection], None], *, reads: bool
) -> None:
    event.listen(engine, "connect", functools.partial(_prepare_sqlite, reads))
    if not reads:
        event.listen(engine, "begin", begin)
    if (file := sqlite_file(engine.url)) and config["debug"]:
        event.listen(engine, "connect", functools.partial(_note_file, file))
        event.listen(engine, "checkout", functools.partial(_discard_replaced_file, file))


@functools.cache
def _sqlite_connection(driver: Any) -> Any:
    """Return a connection class for `sqlite3`, or SQLCipher, whose cursors fetch all rows at once.

    An open cursor would hold its snapshot, and the next write on the connection would fail with
    "database is locked". `is_stream` is set if the statement asked SQLAlchemy for a stream.
    """

    class Cursor(driver.Cursor):  # type: ignore[misc]
        closed = is_stream = False
        rows: Iterator[Any] | None = None  # None if the driver reads them one by one

        def execute(self, *arguments: Any) -> Self:
            super().execute(*arguments)
            self.rows = None if self.is_stream else iter(super().fetchall())
            return self

        def __next__(self) -> Any:
            return super().__next__() if self.rows is None else next(self.rows)

        def fetchone(self) -> Any:
            return next(self, None)

        def fetchmany(self, size: int | None = None) -> list[Any]:
            return list(itertools.islice(self, size or self.arraysize))

        def fetchall(self) -> list[Any]:
            return super().fetchall() if self.rows is None else list(self.rows)

        def close(self) -> None:
            self.closed = True
            super().close()

    class Connection(driver.Connection):  # type: ignore[misc]
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return Connection


def _prepare_sqlite(reads: bool, connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would not cover DDL or SAVEPOINT
    connection.execute("PRAGMA foreign_keys=ON")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except connection.OperationalError as error:
            # Busy: another connection is switching the file. Read-only: it cannot be switched.
            if _sqlite_code(error) not in (_SQLITE_BUSY, _SQLITE_READONLY):
                raise
    if reads:
        connection.execute("PRAGMA query_only=ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin as a writer, which waits for other writers instead of failing on its first write."""
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":  # VACUUM needs AUTOCOMMIT
        statement = _BEGIN[READS in options]
        connection.exec_driver_sql(statement, execution_options={INTERNAL_STATEMENT: True})


def _make_read_only(connection: Any, _: object) -> None:
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SET default_transaction_read_only = on")
    cursor.close()


def _note_file(file: str, _: object, record: Any) -> None:
    record.info["file"] = _file_identity(file)


def _discard_replaced_file(file: str, _: object, record: Any, __: object) -> None:
    """Empty the pool if the file was replaced: writes to an unlinked SQLite file are lost."""
    if record.info["file"] != _file_identity(file):
        raise sa.exc.InvalidatePoolError  # it drops all connections


def _file_identity(file: str) -> tuple[int, int] | None:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def redacted_url(url: sa.URL) -> str:
    """Return the URL without its password and its query, which may contain one too."""
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection for reading. On SQLite, it never blocks other connections."""
    with engine.connect() as connection:
        yield connection.execution_options(**{READS: True, INTERNAL_STATEMENT: True})


def pooler_problem(config: Config, engine: sa.Engine) -> str | None:
    """Return a message if PostgreSQL is behind a pooler, such as PgBouncer, that is not configured.

    A pooler reports an invented process id to its clients, the server the real one. Returns None
    also if the database does not respond.
    """
    if engine.dialect.name != "postgresql" or config["database.pooler"]:
        return None
    try:
        with reading(engine) as connection:
            info = getattr(connection.connection.driver_connection, "info", None)
            reported = getattr(info, "backend_pid", None)  # pg8000 does not expose it
            actual = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    except sa.exc.SQLAlchemyError:
        return None
    if reported in (None, actual):
        return None
    return (
        f"{redacted_url(engine.url)} is a connection pooler. If it is PgBouncer in transaction"
        " mode, set database.pooler: true; otherwise clients share statements and settings."
    )


class RequestSession(orm.Session):
    """The session of a request or, if `scope` is None, of work outside one.

    Each transaction of a request begins on the engine that is `scope.bind` at that moment.
    """

    scope: Scope | None = None
    connections: tuple[sa.Connection, ...] = ()  # of its transaction
    committed = False

    def get_bind(self, *arguments: Any, bind: Any = None, **options: Any) -> Any:
        """Return the engine for the next statement (SQLAlchemy: "Custom Vertical Partitioning")."""
        if self.scope is None or bind is not None:
            return super().get_bind(*arguments, bind=bind, **options)
        return self.scope.bind


class Scope:
    """The database session of one request, and the cleanup at its end.

    Inside `with database.scope(writes=False):`, `database.scoped` is this request's session,
    which connects on its first query. Leaving the block rolls back uncommitted changes, unless a
    stream has taken over the scope and closes it later.
    """

    streams = False  # the body is generated while it is sent
    refused = False  # the reader has refused a statement, even if the handler caught the error
    wrote = False  # a request that began as a reader has written, in a sandbox
    replica: sa.Engine | None = None  # the engine to read from, unless the request writes
    replica_failed = False  # it did not respond; use the primary
    session: RequestSession | None = None  # created when `db` is first used
    owned_by_stream = False  # the stream closes this scope

    def __init__(self, database: Database, *, writes: bool) -> None:
        self.database, self.writes = database, writes
        self.cleanup_callbacks: list[Callable[[], Any]] = []

    def __enter__(self) -> Scope:
        self._outer = self.database.current_scope.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self.owned_by_stream and (self.cleanup_callbacks or self.session is not None):
                self.close()
        finally:
            self.database.current_scope.reset(self._outer)

    @property
    def bind(self) -> sa.Engine | sa.Connection:
        """The engine, or the sandbox's connection, of the session's next transaction."""
        database = self.database
        if database.sandbox_connection is not None:
            return database.sandbox_connection
        if self.replica is not None and not self.writes:
            return self.replica
        if self.streams:
            return database.streaming
        return database.engine if self.writes else database.reader

    def close(self) -> None:
        """Run the cleanup callbacks and end the session. Call it while this scope is current."""
        try:
            while self.cleanup_callbacks:
                _run_cleanup(self.cleanup_callbacks.pop(0))
        finally:
            self.end_session()

    def uncommitted(self) -> list[str]:
        """Describe the session's uncommitted changes: `new User`, `UPDATE users SET …`."""
        return uncommitted(self.session) if self.session is not None else []

    def end_transaction(self, *, expire: bool = True) -> None:
        """Roll back uncommitted changes and return the connection to the pool.

        Loaded objects are refreshed on next use. With `expire=False`, and if nothing was changed,
        they keep their values, and a result that is being streamed keeps its connection.
        """
        session = self.session
        if session is None:
            return
        if expire or uncommitted(session):
            _clean_up(session, session.rollback)
        elif (transaction := session.get_transaction()) and not _open_streams(session):
            _clean_up(session, transaction.close)

    def end_session(self) -> None:
        """Roll back and discard the session. Call it while this scope is current."""
        session, self.session = self.session, None
        if session is None:
            return
        _clean_up(session, session.close)
        self.database.scoped.registry.clear()
        self.database.refresh_sandbox()

    def new_transaction(self, *, writes: bool) -> None:
        """End the transaction. The next one may write if `writes` is True."""
        self.end_transaction()
        self.writes = writes

    def begin_stream(self) -> None:
        """Hand this scope over to a stream, which uses transactions and may write in them."""
        self.owned_by_stream = self.streams = True

    def is_refused(self, error: BaseException) -> bool:
        """Return True if the reader refused a statement, now (`error`) or earlier."""
        if not self.writes and is_refused(error):
            self.refused = True  # a raw cursor raised it
        return self.refused

    def read_from_replica(self) -> None:
        """Read from the next available replica, if there is one."""
        if not (self.writes or self.replica_failed or self.database.sandbox_connection):
            self.replica = self.database.replicas.next()

    def is_replica_failure(self, error: BaseException) -> bool:
        """Return True if `error` means that the replica failed, and note it for the retry."""
        if self.replica is None or not is_unavailable(error):
            return False
        self.replica_failed = True
        if not (isinstance(error, sa.exc.DBAPIError) and is_conflict(error)):
            self.database.replicas.set_problem(self.replica, "it does not respond")
        return True

    @property
    def needs_retry(self) -> bool:
        """True if the request must run again, as a writer or on the primary."""
        return self.refused or (self.replica_failed and self.replica is not None)

    def prepare_retry(self) -> None:
        """Discard the session and choose the engine for the second attempt."""
        self.end_session()
        self.writes, self.refused, self.replica = self.refused, False, None

    @contextmanager
    def on_primary(self) -> Iterator[None]:
        """Read from the primary inside the block, where a revoked permission applies at once."""
        replica, self.replica = self.replica, None
        try:
            yield
        finally:
            self.replica = replica

    def retry_on_conflict(self, attempt: Callable[[], T], retries: int) -> T:
        """Call `attempt`; call it again after a conflict of transactions if nothing was committed.

        It is repeated at most `retries` times, with exponential backoff and jitter.
        """
        max_delay = _FIRST_DELAY
        while True:
            if self.session is not None:
                self.session.committed = False  # only a commit by `attempt` rules out a retry
            try:
                return attempt()
            except sa.exc.DBAPIError as error:
                committed = self.session is not None and self.session.committed
                if retries <= 0 or committed or not is_conflict(error):
                    raise
                retries -= 1
                log.info("retried after a transaction conflict: %s", type(error.orig).__name__)
                self.end_session()
                time.sleep(random.uniform(max_delay / 2, max_delay))  # noqa: S311 - no secret
                max_delay = min(max_delay * 2, _MAX_DELAY)

    @contextmanager
    def activated(self) -> Iterator[None]:
        """Make this scope the current one inside the block, for one chunk of a stream."""
        outer = self.database.current_scope.set(self)
        try:
            yield
        finally:
            self.database.current_scope.reset(outer)


def _run_cleanup(callback: Callable[[], Any]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a cleanup callback failed at the end of a request")


_LAG = """
    SELECT pg_is_in_recovery(), CASE
        WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
            AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
        ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 1e9)
    END
"""  # the age of the last transaction alone keeps growing while the primary is idle
_LAG_CHECK_INTERVAL = 1.0  # seconds between two checks of a replica's lag


class Replicas:
    """PostgreSQL's replicas, used in turn.

    A replica that does not respond, is more than `database.max_lag` seconds behind or was promoted
    is left out until it recovers. Both changes are logged once.
    """

    def __init__(self, config: Config) -> None:
        self._max_lag: int = config["database.max_lag"]
        self.engines = [make_engine(config, url=url, reads=True) for url in config.replica_urls]
        self._checked_at = dict.fromkeys(self.engines, -math.inf)  # by the monotonic clock
        self._problems: dict[sa.Engine, str] = {}  # of replicas that are left out
        self._turns = itertools.cycle(self.engines)

    def next(self) -> sa.Engine | None:
        """Return the next replica, or None if there is none or all are left out."""
        for _ in self.engines:
            engine = next(self._turns)
            if time.monotonic() - self._checked_at[engine] > _LAG_CHECK_INTERVAL:
                self._checked_at[engine] = time.monotonic()
                self.set_problem(engine, self._check(engine))
            if engine not in self._problems:
                return engine
        return None

    def set_problem(self, engine: sa.Engine, problem: str | None) -> None:
        """Leave the replica out because of `problem`, or use it again if that is None."""
        known = self._problems.pop(engine, None)
        if problem is not None:
            self._problems[engine] = problem
        if (known is None) != (problem is None):
            status = f"left out: {problem}" if problem else "in use again"
            log.warning("the replica %s is %s", redacted_url(engine.url), status)

    def _check(self, engine: sa.Engine) -> str | None:
        options = {INTERNAL_STATEMENT: True}
        try:
            with engine.connect() as connection:
                in_recovery, lag = connection.exec_driver_sql(_LAG, execution_options=options).one()
        except sa.exc.SQLAlchemyError as error:
            return str(getattr(error, "orig", error)).partition("\n")[0]
        if not in_recovery:
            return "it was promoted"
        return f"it is {lag:.0f} seconds behind" if lag > self._max_lag else None


class Database:
    """The engines and sessions of one application: `app.database`.

    `engine` writes. `reader` reads: each statement is its own transaction, and the database refuses
    writes. If a database cannot do that, the reader shares the connections of `engine`.
    `scoped`, the `db` of handlers, is a `scoped_session` whose scope is the request. Outside a
    request use `with app.database.session() as db:`, in tests `sandbox()`.

    Raises ConfigError for SQLite in memory without `debug`, or an unknown isolation level.
    """

    def __init__(self, config: Config) -> None:
        if config.in_memory and not config["debug"]:
            raise ConfigError(
                "config.yaml: database is SQLite in memory, which is lost when the process exits"
                " and invisible to other processes; name a file, or set debug: true in a test."
            )
        self.config = config
        self.current_scope: ContextVar[Scope] = ContextVar("noventa_scope")
        self.engine = make_engine(config)
        self.streaming = self.engine.execution_options(**{READS: True})
        self.reader = make_engine(config, reads=True) if _has_reader(config) else self.streaming
        self.replicas = Replicas(config)
        readers = [] if self.reader is self.streaming else [self.reader]
        self._readers = [*readers, *self.replicas.engines]  # engines that refuse writes
        self.engines = [self.engine, *self._readers]
        renders_casts = self.engine.dialect.bind_typing is BindTyping.RENDER_CASTS
        self.text_type = FieldText if renders_casts else str  # the type of a request's strings
        self.sandbox_connection: sa.Connection | None = None
        self._sandbox_session: orm.Session | None = None
        self.scoped: orm.scoped_session[orm.Session] = orm.scoped_session(
            cast("orm.sessionmaker[orm.Session]", self._create_scoped_session), self.scope_now
        )
        self._known_to_write: dict[object, float] = {}  # entry to expiry, by the monotonic clock
        self._last_outage = 0.0
        self._watch()

    def _watch(self) -> None:
        event.listen(self.engine, "after_cursor_execute", self._note_statement)
        event.listen(self.engine, "savepoint", _note_savepoint)
        event.listen(self.engine, "rollback_savepoint", _forget_rolled_back)
        for ending in ("commit", "rollback"):  # these fire first, while drivers can close a cursor
            event.listen(self.engine, ending, _end_streams)
        for reader in self._readers:
            event.listen(reader, "handle_error", self._note_refusal)
            event.listen(reader, "checkin", self._end_reading)
            if reader.dialect.name == "postgresql":
                listen_to_statements(reader, _check_reader)
        for engine in self.engines:
            listen_to_statements(engine, _note_stream)
            _reset_pool_after_fork(engine)
            weakref.finalize(self, engine.dispose)  # also at the end of the process

    def __repr__(self) -> str:
        return f"<Database {redacted_url(self.engine.url)}>"

    def dispose(self) -> None:
        """Close all idle connections."""
        for engine in self.engines:
            engine.dispose()

    @contextmanager
    def session(self) -> Iterator[orm.Session]:
        """Open a session outside a request. Call commit(): uncommitted changes are rolled back."""
        session = self.new_session()
        try:
            yield session
            if rows := uncommitted(session):
                log.warning("a session() ended without a commit, rolled back: %s", ", ".join(rows))
        finally:
            session.close()
            self.refresh_sandbox()

    @contextmanager
    def sandbox(self) -> Iterator[orm.Session]:
        """Open a session for a test, in a transaction that is rolled back at the end.

        Requests and `session()` use the same transaction in this thread: the sandbox's session
        loads what they commit, and it is rolled back too. Raises NoventaError if a sandbox is open.
        """
        if self._sandbox_session is not None:
            raise NoventaError("A sandbox is already open; close it before opening another.")
        with self.engine.connect() as connection, connection.begin() as transaction:
            self.sandbox_connection = connection
            session = self._sandbox_session = self.new_session()
            try:
                yield session
            finally:
                self._sandbox_session = self.sandbox_connection = None
                session.close()
                if transaction.is_active:
                    transaction.rollback()

    def refresh_sandbox(self) -> None:
        """Expire the sandbox's session, so that it loads what others have committed."""
        if self._sandbox_session is not None and self.sandbox_connection is not None:
            _end_streams(self.sandbox_connection)
            self._sandbox_session.expire_all()

    def scope(self, *, writes: bool) -> Scope:
        """Return a scope for one request: `with database.scope(writes=True): …`."""
        return Scope(self, writes=writes)

    def is_known_to_write(self, entry: object) -> bool:
        """Return True if a GET of this entry wrote within the last minute."""
        return self._known_to_write.get(entry, 0.0) > time.monotonic()

    def note_writer(self, entry: object, label: str, inside: str) -> None:
        """Begin the next GETs of this entry as writers. Log once per process how to declare it."""
        if entry not in self._known_to_write:
            suffix = f" (in {inside})" if inside else ""
            log.warning("%s writes: say writes=True on its entry%s", label, suffix)
        self._known_to_write[entry] = time.monotonic() + _KNOWN_TO_WRITE

    def report_outage(self, error: BaseException) -> None:
        """Log that the database does not respond, at most once a second."""
        now = time.monotonic()
        if now - self._last_outage >= 1:
            self._last_outage = now
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            log.error("database %s: %s", redacted_url(self.engine.url), reason)

    def scope_now(self) -> Scope:
        """Return the scope of the current request. Raises NoventaError outside one."""
        try:
            return self.current_scope.get()
        except LookupError:
            raise NoventaError(
                "db was used outside its request; in a thread or background task, use"
                " `with app.database.session() as db:`."
            ) from None

    def new_session(self, scope: Scope | None = None, **options: Any) -> RequestSession:
        """Create a session with `options`. `scope` is None for work outside a request."""
        if self.sandbox_connection is not None:
            options["join_transaction_mode"] = "create_savepoint"
        session = RequestSession(self.sandbox_connection or self.engine, **options)
        session.scope = scope
        return session

    def _create_scoped_session(self, **options: Any) -> orm.Session:
        scope = self.scope_now()
        scope.session = self.new_session(scope, **options)
        return scope.session

    def _note_statement(self, connection: sa.Connection, *arguments: Any) -> None:
        _, statement, _, context, _ = arguments
        if not _is_write(statement, context):
            return
        written = connection.info.setdefault("written", [])
        if len(written) < _MAX_REPORTED:
            written.append(" ".join(statement.split())[:60])
        scope = self.current_scope.get(None)
        if scope is not None and not scope.writes and self.sandbox_connection is not None:
            scope.wrote = True  # a sandbox has no reader that would refuse it

    def _note_refusal(self, context: sa.engine.ExceptionContext) -> None:
        scope = self.current_scope.get(None)
        if scope is not None and not scope.writes and is_refused(context.original_exception):
            scope.refused = True

    def _end_reading(self, connection: Any, record: Any) -> None:
        """Reset a reader's connection after a stream.

        The transaction has ended, and PostgreSQL's cursors with it. Some drivers refuse to close
        them; others send a statement, which must not begin another transaction.
        """
        if streams := record.info.pop("streams", None):
            if connection is not None and self.engine.dialect.name == "postgresql":
                connection.autocommit = True
            _close_cursors(streams, self.engine.dialect)


def _has_reader(config: Config) -> bool:
    """Return True if GETs use a separate engine."""
    autocommit = config["database.autocommit_reads"] and not config["database.pooler"]
    is_sqlite = config.database_url.get_backend_name() == "sqlite"
    refuses = can_refuse_writes(config.database_url)
    return refuses and (autocommit or is_sqlite) and not config["database.isolation_level"]


def can_refuse_writes(url: sa.URL) -> bool:
    """Return True if the database itself can refuse writes on some connections."""
    if url.get_backend_name() == "sqlite":
        return sqlite_file(url) is not None
    return url.get_driver_name() in _POSTGRESQL_DRIVERS


def listen_to_statements(
    engine: sa.Engine, listener: Callable[..., None], *, insert: bool = False
) -> None:
    """Call `listener(cursor, statement, …, context)` before each statement.

    `insert` puts it before the others. Engine events would make a query by primary key 20 % slower.
    """
    for name in ("do_execute", "do_execute_no_params", "do_executemany"):
        event.listen(engine, name, listener, insert=insert)


def _note_stream(*arguments: Any) -> None:
    """Note the cursor of a streamed result, to close it when its transaction ends."""
    context = arguments[-1]
    if context.execution_options.get("stream_results"):
        if context.dialect.name == "sqlite":
            context.cursor.is_stream = True
        streams = context.root_connection.info.setdefault("streams", [])
        streams[:] = [cursor for cursor in streams if _is_open(cursor)]
        streams.append(context.cursor)


def _is_open(cursor: Any) -> bool:
    """Return True if a cursor is open. MySQL's drivers do not report it: assume that it is."""
    return not getattr(cursor, "closed", False)


def _end_streams(connection: sa.Connection) -> None:
    _close_cursors(connection.info.pop("streams", ()), connection.dialect)


def _close_cursors(cursors: Iterable[Any], dialect: sa.Dialect) -> None:
    for cursor in cursors:
        with contextlib.suppress(dialect.loaded_dbapi.Error):  # the connection is gone
            cursor.close()


class NeedsTransactionError(NoventaError):
    """A statement that needs a transaction was sent to the reader, which has none."""

    def __init__(self, statement: str) -> None:
        problem = f"{_short_repr(statement)} needs a transaction, but database.reader has none"
        super().__init__(f"{problem}; use database.engine.")


def _check_reader(cursor: Any, statement: str, *arguments: Any) -> None:
    """Begin a transaction for a PostgreSQL stream; refuse other statements that need one."""
    context = arguments[-1]
    driver = context.root_connection.connection.dbapi_connection
    if context.execution_options.get("stream_results") and driver.autocommit:
        driver.autocommit = False  # a server-side cursor needs a transaction
    if _needs_transaction(statement):
        raise NeedsTransactionError(statement)


@functools.lru_cache(maxsize=1_000)
def _needs_transaction(statement: str) -> bool:
    """Return True unless a statement is a plain read without other effects."""
    return not _PLAIN_READ.match(statement) or bool(_TRANSACTIONAL.search(statement))


_PLAIN_READ = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|table|show|explain)\b[^;]*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_TRANSACTIONAL = re.compile(  # effects that a read-only connection allows
    r"\b(?:pg_(?:try_)?advisory_\w+|set_config|pg_notify|pg_logical_emit_message|lo_\w+"
    r"|pg_export_snapshot)\b",
    re.IGNORECASE,
)


def _note_connection(
    session: RequestSession, transaction: orm.SessionTransaction, connection: sa.Connection
) -> None:
    if not transaction.nested:
        session.connections += (connection,)
        connection.info["written"] = []


def _forget_connections(session: RequestSession, transaction: orm.SessionTransaction) -> None:
    if transaction.parent is None:
        session.connections = ()


def _note_commit(session: RequestSession) -> None:
    session.committed = session.committed or not session.in_nested_transaction()


event.listen(RequestSession, "after_begin", _note_connection)
event.listen(RequestSession, "after_transaction_end", _forget_connections)
event.listen(RequestSession, "after_commit", _note_commit)


def _connection_infos(session: RequestSession) -> Iterator[dict[str, Any]]:
    """Yield the `info` of each usable connection of the session's transaction."""
    for connection in session.connections:
        if not (connection.closed or connection.invalidated):
            yield connection.info


def _note_savepoint(connection: sa.Connection, name: str) -> None:
    connection.info[name] = len(connection.info.get("written", ()))


def _forget_rolled_back(connection: sa.Connection, name: str, _: object) -> None:
    del connection.info.get("written", [])[connection.info.get(name, 0) :]


def _is_write(statement: str, context: Any) -> bool:
    """Return True if a statement writes, judging SQL that was not compiled by its first word."""
    if context.isinsert or context.isupdate or context.isdelete or context.isddl:
        return True
    if any(cte.element.is_dml for cte in getattr(context.compiled, "ctes", None) or ()):
        return True
    first = _FIRST_WORD.match(statement)
    return first is not None and first[1].lower() in _WRITING_WORDS


_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(\w*)", re.DOTALL)
_WRITING_WORDS = {
    "insert", "update", "delete", "replace", "merge", "create", "alter", "drop", "truncate", "call",
}  # fmt: skip


def _clean_up(session: RequestSession, clean: Callable[[], None]) -> None:
    """Call `clean`. If it fails, drop the connections, so that the response can still be sent."""
    connections = session.connections
    try:
        clean()
    except (sa.exc.SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", error)
        log.warning("a session could not be cleaned up; its connection was dropped: %s", reason)
        for connection in connections:
            if not connection.closed:
                connection.invalidate()
                connection.close()


def uncommitted(session: RequestSession) -> list[str]:
    """Describe uncommitted changes of `session`: `new User`, `UPDATE users SET …`."""
    rows = [f"new {type(row).__name__}" for row in session.new]
    rows += [f"changed {_describe_row(row)}" for row in session.dirty if session.is_modified(row)]
    rows += [f"deleted {_describe_row(row)}" for row in session.deleted]
    for info in _connection_infos(session):
        rows += info.get("written", ())
    return rows if len(rows) < _MAX_REPORTED else [*rows[:_MAX_REPORTED], "…"]


def _describe_row(row: Any) -> str:
    return f"{type(row).__name__} {sa.inspect(row, raiseerr=True).identity}"


def _open_streams(session: RequestSession) -> bool:
    """Return True if the session has results that are still being streamed."""
    infos = _connection_infos(session)
    return any(_is_open(cursor) for info in infos for cursor in info.get("streams", ()))


_SQLITE_BUSY, _SQLITE_READONLY = 5, 8
_MYSQL_CONFLICTS = (1213, 1205, 1020)  # deadlock, lock wait timeout, MariaDB's stale snapshot
_MYSQL_BAD_VALUE = 1292  # a bad date or time; drivers raise OperationalError for it


def sqlstate(error: Any) -> str | None:
    """Return PostgreSQL's code of an error, wherever its driver stores it."""
    details = next(iter(getattr(error, "args", ())), None)
    by_pg8000 = details.get("C") if isinstance(details, dict) else None
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or by_pg8000


def _sqlite_code(error: Any) -> int:
    """Return SQLite's primary code of an error, or 0 if it did not come from SQLite."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _mysql_code(error: Any) -> Any:
    """Return MySQL's code of an error; for an error of another source, its first argument."""
    return next(iter(getattr(error, "args", ())), None)


def is_refused(error: Any) -> bool:
    """Return True if the reader refused a statement that writes or needs a transaction."""
    original = getattr(error, "orig", error)
    return (
        isinstance(error, NeedsTransactionError)
        or _sqlite_code(original) == _SQLITE_READONLY
        or sqlstate(original) in ("25006", "25P01")  # read-only, no transaction
    )


def is_conflict(error: sa.exc.DBAPIError) -> bool:
    """Return True if two transactions collided, so that a retry may succeed."""
    original = error.orig
    return (
        sqlstate(original) in ("40001", "40P01")  # could not serialize, deadlock
        or _sqlite_code(original) == _SQLITE_BUSY
        or _mysql_code(original) in _MYSQL_CONFLICTS
    )


_UNBINDABLE = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


def is_bad_value(error: BaseException) -> bool:
    """Return True if a column or the database rejected a value, such as a number out of range.

    A value that PostgreSQL's enum lacks counts only if it came from the request. One that comes
    from the model is a missing migration.
    """
    if not isinstance(error, sa.exc.StatementError):
        return False
    if not isinstance(error, sa.exc.DBAPIError):  # raised before anything was sent
        return isinstance(error.orig, _UNBINDABLE)
    if "invalid input value for enum" in str(error.orig):
        values = error.params.values() if isinstance(error.params, Mapping) else error.params or ()
        return any(isinstance(value, FieldText) for value in values)
    is_data_error = isinstance(error, sa.exc.DataError) or (sqlstate(error.orig) or "")[:2] == "22"
    return is_data_error or _mysql_code(error.orig) == _MYSQL_BAD_VALUE


def is_unavailable(error: BaseException) -> bool:
    """Return True if the database did not respond, had no connection left, or was busy."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if isinstance(error, sa.exc.PendingRollbackError):
        return error.code == "8s2b"  # the connection was lost during a transaction
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    failed = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    connecting = failed and error.statement in (None, *_BEGIN.values())
    return error.connection_invalidated or connecting or is_conflict(error)


def _check_isolation_level(config: Config, dialect: sa.Dialect) -> None:
    level = config["database.isolation_level"]
    if dialect.name == "sqlite" and level and level.upper() == "AUTOCOMMIT":
        raise ConfigError(
            f"config.yaml: database.isolation_level is {level!r}, but SQLite could then neither"
            " roll back a failed request nor prevent lost updates; remove it, and set it only where"
            " needed: connection.execution_options(isolation_level='AUTOCOMMIT')."
        )
    known = dialect.get_isolation_level_values(cast(Any, None))
    if level and level.replace("_", " ").upper() not in known:
        remedy = did_you_mean(level.upper(), known)
        raise ConfigError(f"config.yaml: database.isolation_level is {level!r}; {remedy}")


def _pool_options(config: Config) -> dict[str, Any]:
    options = {"poolclass": sa.QueuePool, "pool_timeout": config["database.pool_timeout"]}
    if config.in_memory:  # the database is its one connection
        return {**options, "pool_size": 1, "max_overflow": 0}
    threads = config["server.threads"]
    size, overflow = config["database.pool_size"] or threads, config["database.max_overflow"]
    if size + overflow < threads:
        log.warning(
            "database.pool_size and max_overflow allow %d connections for %d threads;"
            " some requests will wait for a connection",
            size + overflow, threads,
        )  # fmt: skip
    options["pool_recycle"] = config["database.pool_recycle"]
    return {**options, "pool_size": size, "max_overflow": overflow}


def _note_use(_: object, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_if_idle(dialect: sa.Dialect, connection: Any, record: Any, _: object) -> None:
    """Test a connection as `pool_pre_ping` does, but spare busy ones the round trip."""
    if time.monotonic() - record.info.get("used", math.inf) < _PING_AFTER:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error:
        raise sa.exc.DisconnectionError from None  # makes the pool reconnect


def _reset_pool_after_fork(engine: sa.Engine) -> None:
    """Give a forked child a new pool, and never close its parent's connections in it."""
    reference = weakref.ref(engine)
    inherited: list[sa.Pool] = []  # kept: the destructor would close the parent's sockets

    def reset_pool() -> None:
        if (live_engine := reference()) is not None:
            inherited.append(live_engine.pool)
            live_engine.dispose(close=False)

    os.register_at_fork(after_in_child=reset_pool)


def revision_script(config: Config) -> ScriptDirectory | None:
    """Return the project's revisions as Alembic reads them, or None if there are none.

    Raises NoventaError if a revision cannot be imported.
    """
    folder = config.root / "migrations"
    settings = folder / "alembic.ini"
    if not any((folder / "versions").rglob("*.py")) and not _has_version_locations(settings):
        return None
    from alembic.config import Config as AlembicConfig  # noqa: PLC0415 - takes 0.1 s
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    try:
        alembic = AlembicConfig(settings)
        alembic.set_main_option("script_location", str(folder).replace("%", "%%"))
        alembic.remove_main_option("prepend_sys_path")  # it would change sys.path
        script = ScriptDirectory.from_config(alembic)
        return script if script.get_heads() else None  # this imports every file
    except (Exception, SystemExit) as error:  # whatever a revision may raise
        problem = f"{folder}/versions: {type(error).__name__}: {error}"
        raise NoventaError(f"The revisions cannot be read: {problem}.") from error


def _has_version_locations(settings: Path) -> bool:
    """Return True if alembic.ini may name folders other than migrations/versions."""
    return settings.exists() and "version_locations" in settings.read_text("utf-8", "replace")


def revision_mismatch(config: Config, engine: sa.Engine) -> str | None:
    """Describe how the database's revision differs from the project's, and what to do.

    Return None if they agree, there are no revisions, or the database does not respond.
    """
    try:
        script = revision_script(config)
        return _describe_mismatch(script, current_revisions(config, engine)) if script else None
    except (sa.exc.SQLAlchemyError, OSError):
        return None
    except NoventaError as error:
        return str(error)


def _describe_mismatch(script: ScriptDirectory, current: set[str]) -> str | None:
    heads = set(script.get_heads())
    recorded, newest = ", ".join(sorted(current)), ", ".join(sorted(heads))
    if unknown := sorted(current - {item.revision for item in script.walk_revisions()}):
        return (
            f"The database is at {', '.join(unknown)}, which is not in migrations/versions. If it"
            " is ahead of this code, deploy the code with this revision; if the file is lost, run"
            " `python -m noventa migrate stamp --purge head` once the tables match the models."
        )
    if not current:
        return f"The database has no revision, expected {newest}; run `python -m noventa migrate`."
    # A head that another revision depends on is applied but not recorded.
    if heads <= {item.revision for item in script.get_all_current(tuple(current))}:
        return None
    return f"The database is at {recorded}, behind {newest}; run `python -m noventa migrate`."


def is_file_missing(engine: sa.Engine) -> bool:
    """Return True if the database is an SQLite file that does not exist yet."""
    file = engine.url.database or ""
    if engine.dialect.name != "sqlite" or file.startswith("file:"):
        return False
    return not Path(file).exists()  # connecting would create it


def current_revisions(config: Config, engine: sa.Engine) -> set[str]:
    """Return the revisions that the database records. Raises as `require_migrations` does."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 - takes 0.1 s

    if is_file_missing(engine):
        return set()
    require_migrations(engine.dialect)
    with reading(engine) as connection:
        migration = MigrationContext.configure(connection, opts=version_table(config))
        return set(migration.get_current_heads())


def require_migrations(dialect: sa.Dialect) -> None:
    """Raise NoventaError if Alembic does not support the database."""
    from alembic.ddl.impl import DefaultImpl  # noqa: PLC0415 - takes 0.1 s

    try:
        DefaultImpl.get_by_dialect(dialect)
    except KeyError as error:
        raise NoventaError(
            f"Alembic does not support {error}; create the tables without revisions:"
            " registry.metadata.create_all(app.database.engine)."
        ) from None


def version_table(config: Config) -> dict[str, Any]:
    """Return the `configure()` options of Alembic for the table that records the revision."""
    names = ("version_table", "version_table_schema")
    return {name: config[f"migrations.{name}"] for name in names}


# ---- Handlers --------------------------------------------------------------------------------
# Uses Errors, Configuration, Registry, Request, Answers, Session, Database.


class Trail:
    """Where a request is now: its page, then components and handlers, outermost first."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def enter(self, name: str) -> None:
        """Enter a page, component or handler inside the current one."""
        self.names.append(name)

    def leave(self, depth: int = -1) -> None:
        """Leave the innermost name, or all names deeper than `depth`."""
        del self.names[depth:]

    def __str__(self) -> str:
        return " > ".join(self.names)


class RequestContext:
    """The state of one request while it is handled."""

    mounted = False  # a mounted application responds
    guarded = False  # a guard has run
    status = 200  # the page's
    is_api = False  # errors are JSON unless the client prefers HTML
    unavailable = False  # the database is down
    reference = ""  # the error's, on its page and in the log
    route: Route | None = None  # that matched

    def __init__(self, request: Request, session: Session, scope: Scope, *, reads: bool) -> None:
        self.request, self.session, self.scope = request, session, scope
        self.arguments = request, session, scope.database.scoped  # a handler's first three
        self.reads = reads  # the method is safe (RFC 9110, 9.2.1)
        self.trail = Trail()
        self.headers: list[tuple[str, str]] = []  # added to the page's response by handlers

    def make_reference(self) -> str:
        """Return the reference that links an error page to its log line."""
        self.reference = self.reference or secrets.token_hex(4)
        return self.reference

    @property
    def begins_as_writer(self) -> bool:
        """True if the route is declared with `writes=True`, or one of its GETs wrote recently."""
        route = self.route
        return route is not None and (route.writes or self.scope.database.is_known_to_write(route))

    def note_writer(self) -> None:
        """Begin the route's next GETs as writers, and log how to declare it."""
        if self.route is not None:
            request = describe_request(self.request.environ)
            handler = " > ".join(self.trail.names[1:])
            self.scope.database.note_writer(self.route, request, handler)

    def url(self, path: str) -> str:
        """Return `path` as a URL of this application, percent-encoded and with the mount prefix."""
        if not path.startswith("/") or path.startswith("//"):
            problem = f"{template_location()}: url({path!r}) is not a local path"
            raise NoventaError(f"{problem}; expected one like '/x'.")
        return self.request.prefix + quote(path, safe=_SAFE_IN_URL)


class ShortCircuit(Exception):  # noqa: N818
    """Raised when a guard, or a handler inside a page, responds instead of the page.

    `result` has the `status`, and the `redirect` or `response` if it is one.
    """

    def __init__(self, result: Result) -> None:
        self.result = result


class Result(NamedTuple):
    """A handler's return value, parsed and checked."""

    returned: Any  # the original
    status: int = 200
    redirect: str | None = None
    values: Any = None  # without the special keys
    response: webob.Response | None = None  # the whole one that it returned
    headers: Sequence[tuple[str, str]] = ()

    @property
    def is_final(self) -> bool:
        """True if this is the whole response: a redirect or a Response, not a page or JSON."""
        return self.redirect is not None or self.response is not None


def run_handler(
    context: RequestContext, handler: Handler, arguments: Mapping[str, Any], *,
    retries: int = 0, is_api: bool = False,
) -> Result:  # fmt: skip
    """Call a handler and process its result.

    With `retries`, call it again after a conflict between transactions, with the body rewound
    and the session restored. With `is_api`, its result becomes JSON.
    """
    context.trail.enter(function_name(handler))
    if retries:
        restore = context.session.checkpoint()

        def attempt() -> Any:
            context.request.rewind()
            restore()
            return handler(*context.arguments, **arguments)

        returned = context.scope.retry_on_conflict(attempt, retries)
    else:
        returned = handler(*context.arguments, **arguments)
    context.trail.leave()
    return process_result(context, handler, returned, is_api=is_api)


def process_result(
    context: RequestContext, handler: Handler, returned: Any, *, is_api: bool = False
) -> Result:
    """Parse a handler's return value and finish its transaction."""
    result = read_result(returned, handler, is_api=is_api)
    if result.redirect is not None and (workbench := context.request.app.workbench):
        workbench.recorder.note_link(handler_label(handler), result.redirect)
    if context.scope.session is not None or context.session.touched:
        finish_transaction(context, handler, result.status)
    return result


_SPECIAL_KEYS = {"_headers", "_redirect", "_status"}
_FRAMEWORK_HEADERS = {"Connection", "Content-Length", "Location", "Transfer-Encoding"}


def read_result(returned: Any, handler: Handler, *, is_api: bool = False) -> Result:
    """Parse a handler's return value: a response, a dict, or None for an empty dict.

    With `is_api`, lists are accepted too, and any key may start with an underscore. Raises
    NoventaError for other types, a misspelt `_key`, or an invalid value for a special key.
    """
    if isinstance(returned, webob.Response):
        return Result(returned, returned.status_int, response=returned)
    if is_api and isinstance(returned, list):
        return Result(returned, values=returned)
    if not isinstance(returned, (dict, Mapping)) and (is_api or returned is not None):
        expected = "a Response, or a dict or list for JSON" if is_api else "a dict"
        problem = f"{handler_label(handler)} returned a {type(returned).__name__}"
        raise NoventaError(f"{problem}; expected {expected}.")
    values = returned or {}
    special = _SPECIAL_KEYS.intersection(values)
    for name in values if not is_api else ():
        if str(name).startswith("_") and name not in special:
            remedy = did_you_mean(name, _SPECIAL_KEYS)
            raise NoventaError(f"{handler_label(handler)} returned {name!r}; {remedy}")
    if not special:
        return Result(returned, values=values)
    values = dict(values)
    status, target = values.pop("_status", 200), values.pop("_redirect", None)
    headers = values.pop("_headers", None)
    if not isinstance(status, int) or not 200 <= status <= 599:
        problem = f"{handler_label(handler)} returned _status {_short_repr(status)}"
        raise NoventaError(f"{problem}; expected a number from 200 to 599.")
    if target is not None:
        target = safe_target(target, where=handler)
    return Result(returned, status, target, values, headers=_read_headers(headers, handler))


def _read_headers(value: Any, handler: Handler) -> Sequence[tuple[str, str]]:
    """Parse the `_headers` that a handler returned: a mapping, or pairs."""
    if value is None:
        return ()
    pairs = [*value.items()] if isinstance(value, Mapping) else value
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        problem = f"{handler_label(handler)} returned _headers {_short_repr(value)}"
        raise NoventaError(f"{problem}; expected a mapping or (name, value) pairs.")
    headers = check_headers([(name, content) for name, content in pairs])
    for name, _ in headers:
        if name.title() in _FRAMEWORK_HEADERS:
            problem = f"{handler_label(handler)} returned {name!r} in _headers"
            raise NoventaError(f"{problem}; Noventa sets that header, so remove it.")
    return headers


def finish_transaction(context: RequestContext, handler: Handler | None, status: int) -> None:
    """Roll back at status 400 or above; otherwise report and roll back uncommitted changes.

    The handler's flashes are dropped together with uncommitted changes: a visitor must not read
    "Saved." when nothing was saved. `handler` is None if it raised.
    """
    if status >= 400:
        context.scope.end_transaction()
        return
    rows = context.scope.uncommitted()
    if rows and (workbench := context.request.app.workbench):
        workbench.recorder.note_forgotten(context, handler, rows)
    context.session.finish_handler(keep_flashes=not rows)
    if rows:
        context.scope.end_transaction()
        names = [] if handler is None else [function_name(handler)]
        name = " > ".join((*context.trail.names, *names))
        log.warning("%s changed rows without db.commit(); rolled back: %s", name, ", ".join(rows))


def in_new_transaction(context: RequestContext, work: Callable[[], T]) -> T:
    """Call `work` in a new transaction and return its result.

    If the reader refuses a statement, call it again as a writer. The session is restored first, so
    each flash is shown exactly once.
    """
    scope, depth, headers = context.scope, len(context.trail.names), [*context.headers]
    scope.new_transaction(writes=context.begins_as_writer)
    if scope.writes:
        return work()
    restore = context.session.checkpoint()
    try:
        result = work()
    except Exception as error:
        if not scope.is_refused(error):
            raise
    else:
        if not scope.refused:
            return result
    context.note_writer()
    restore()
    context.trail.leave(depth)
    context.headers[:] = headers
    scope.refused = False
    scope.new_transaction(writes=True)
    return work()


def run_guard(
    context: RequestContext, guard: Handler, props: Mapping[str, Any] | None = None
) -> None:
    """Run a guard. Raises ShortCircuit if it responds."""
    context.guarded = True
    with context.scope.on_primary():
        result = run_handler(context, guard, props or {})
    if result.returned is None:
        return
    if not result.is_final and "_status" not in result.returned:
        raise NoventaError(
            f"{location_of(guard)}: the guard returned {_short_repr(result.returned)}; expected"
            " None, a dict with _redirect or _status (200 to 599), or a Response."
        )
    raise ShortCircuit(result)


def template_location() -> str:
    """Return the location being rendered in a template, as `pages/index.html:7`."""
    frame = sys._getframe(1)
    while frame:
        template = frame.f_globals.get("__jinja_template__")
        if template is not None:
            return f"{template.name}:{template.get_corresponding_lineno(frame.f_lineno)}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside a template"


# ---- Static ----------------------------------------------------------------------------------
# Uses Errors, Configuration, Registry, Request, Answers, Handlers.


class StaticFiles:
    """The files of the registry's Static routes: their URLs and responses."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self.config = config
        self.routes = {
            route: os.path.realpath(config.root / route.folder)
            for route in registry.routes
            if isinstance(route, Static)
        }
        self._fingerprints: dict[tuple[int, int], tuple[int, int, str]] = {}

    def url(self, name: str) -> str:
        """Return `/files/site.css?v=FINGERPRINT`. Raises NoventaError if the file is missing."""
        if (match := self.find(name)) is None:
            raise NoventaError(str(self.missing(template_location(), name)))
        route, file = match
        with file:
            fingerprint = self._fingerprint(file, os.fstat(file.fileno()))
        path = quote(f"{route.path.rstrip('/')}/{name.lstrip('/')}")
        return f"{path}?v={fingerprint}"

    def find(self, name: str) -> tuple[Static, io.FileIO] | None:
        """Return the first Static route that has the file `name`, and the open file, or None."""
        for route, folder in self.routes.items():
            if file := _open_file(folder, "/" + name.lstrip("/")):
                return route, file
        return None

    def has(self, name: str) -> bool:
        """Return True if a Static folder has the file `name`."""
        if match := self.find(name):
            match[1].close()
        return match is not None

    def missing(self, where: str, name: str) -> Fault:
        """Return the Fault for a file that is in no Static folder."""
        if not self.routes:
            problem = f"static({name!r}): the registry has no Static route"
            return Fault(where, problem, "add one to its routes")
        known = [file for folder in self.routes.values() for file in similar_files(folder, name)]
        folders = ", ".join(route.folder for route in self.routes)
        problem = f"static({name!r}): no such file in {folders}"
        return Fault(where, problem, did_you_mean(name, known))

    def respond(self, request: Request, route: Static, tail: str) -> Answer:
        """Return the file at `tail`, with Last-Modified, ETag and ranges. Raises HTTPNotFound."""
        file = _open_file(self.routes[route], tail)
        if file is None:
            raise webob.exc.HTTPNotFound
        info = os.fstat(file.fileno())
        headers = _file_headers(info, tail)
        fingerprint = request.args.get("v") if request.environ["QUERY_STRING"] else None
        if route.guards:  # caches must revalidate
            headers.append(("Cache-Control", "private, no-cache"))
        elif fingerprint and fingerprint == self._fingerprint(file, info):
            headers.append(("Cache-Control", "public, max-age=31536000, immutable"))
        if info.st_size <= _BLOCK and _CONDITIONAL.isdisjoint(request.environ):
            with file:
                data = file.read(info.st_size)
            return Answer("200 OK", [*headers, ("Content-Length", str(len(data)))], [data])
        response = _file_response(file, tail)
        response.headerlist = [*headers, ("Content-Length", str(info.st_size))]
        return answer_from_response(request, response)

    def _fingerprint(self, file: io.FileIO, info: os.stat_result) -> str:
        identity = info.st_dev, info.st_ino
        known = self._fingerprints.get(identity)
        if known is None or known[:2] != (info.st_mtime_ns, info.st_size):
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
            file.seek(0)
            known = self._fingerprints[identity] = (info.st_mtime_ns, info.st_size, digest)
        return known[2]


def similar_files(root: str | Path, name: str) -> list[str]:
    """Return the files near a missing one: in its folder and one level below."""
    folder = Path(os.path.normpath(Path(root, name.strip("/")))).parent
    folder = folder if folder.is_dir() else folder.parent
    paths = [*folder.glob("*.*"), *folder.glob("*/*.*")]
    return [path.relative_to(root).as_posix() for path in paths if path.is_relative_to(root)]


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never wait for a pipe
_MAX_LINKS = 40  # as on Linux
_CONDITIONAL = {
    "HTTP_IF_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE", "HTTP_RANGE",
}  # fmt: skip
_UNSAFE_SEGMENT = re.compile(
    r"\.(?!(?-i:well-known)$)|(?:con|prn|aux|nul|com\d|lpt\d) *(?:\..*)?$|.*[\\:\0]|$",
    re.IGNORECASE | re.DOTALL,
)


def _open_file(folder: str, tail: str) -> io.FileIO | None:
    """Open the regular file at `tail` (`/a/b.css`) below `folder`, a real path, or return None."""
    segments = tail.split("/")[1:]
    if not segments or any(map(_UNSAFE_SEGMENT.match, segments)):
        return None
    try:
        descriptor = _open_below(folder, segments)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return io.FileIO(descriptor, "rb")
    os.close(descriptor)
    return None


def _open_below(folder: str, segments: Sequence[str], links: int = 0) -> int:
    """Open a file below `folder` and return its descriptor.

    Each segment is opened relative to the previous one without following links, so nothing can
    be swapped between check and use. A link is resolved, and its target must be inside.
    Raises OSError, or ValueError if it is outside.
    """
    descriptor = os.open(folder, _READ)
    for number, segment in enumerate(segments):
        outer = descriptor
        try:
            descriptor = os.open(segment, _READ, dir_fd=outer)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK) or links == _MAX_LINKS:
                raise
            target = os.path.realpath(Path(folder, *segments[: number + 1]), strict=True)
            inside = Path(target).relative_to(folder).parts
            return _open_below(folder, [*inside, *segments[number + 1 :]], links + 1)
        finally:
            os.close(outer)
    return descriptor


# ---- Components ------------------------------------------------------------------------------
# Uses Errors, Configuration, Registry, Request, Answers, Signing, Handlers, Static.

_FUNCTIONS = {
    "action", "action_ticket", "component", "flashes", "fragment", "static", "url", "workbench"
}  # fmt: skip
RESERVED = frozenset({*_FUNCTIONS, "children", "instance", "key"})
_RESERVED_PROPS = RESERVED | {"request", "session", "db", "caller"}
_RESERVED_NAME = "reserved for a template function or a handler argument"
_RENDERED_TOO_EARLY = "a component, rendered before the outer component's guard has run"
_USE_CHILDREN = "move it into {% call component(…) %}, and print {{ children }} in the outer one"
_MAX_DEPTH = 50  # nested components; anything deeper probably renders itself


class Fields(dict[str, Any]):
    """The `errors` or `values` of a form. A missing field is "" for any Jinja `undefined`."""

    posted: Values[Any] | None = None  # the form, if a handler returned it unchanged

    @classmethod
    def from_handler(cls, value: Any, owner: str) -> Fields:
        """Return a handler's value as Fields. Raises PropsError unless it is a dict."""
        if value and not isinstance(value, Mapping):
            raise PropsError(f"{owner} is a {type(value).__name__}; expected a dict.")
        fields = cls(value or ())
        fields.posted = value if isinstance(value, Values) else None
        return fields

    def __missing__(self, key: str) -> str:
        return ""

    def getlist(self, name: str) -> list[Any]:
        """Return all values of `name`, from the posted form or from a handler's list."""
        if self.posted is not None:
            return self.posted.getlist(name)
        value = self.get(name, [])
        return [*value] if isinstance(value, list | tuple | set) else [value]


class RenderedComponent(Markup):
    """The HTML that `component()` returns."""


class ActionResult(NamedTuple):
    """The values an action returned, for the instance whose form was posted."""

    instance: str
    values: Mapping[str, Any]


class CompiledComponent:
    """A component or page ready to render: its handlers and the props they accept."""

    def __init__(self, entry: Component | Page) -> None:
        self.name, self.label, self.guard = entry.name, entry.label, entry.guard
        self.template, self.where, self.retries = entry.template, entry.where, entry.retries
        self.load = load_function(entry)
        self.actions = actions_of(entry)
        self._props: dict[str | None, Props] = {None: props_of(self.load)}
        self._props |= {name: props_of(action) for name, action in self.actions.items()}
        self.defaults = self._props[None].defaults
        self.guard_accepts = props_of(self.guard).accepted
        # Instances without forms need no ids. In debug, an edited template may add a form.
        self.may_contain_forms = self.may_use_instance = True

    def check_props(self, props: Mapping[str, Any], action: str | None = None) -> None:
        """Raise PropsError, naming the template line, for a missing, unknown or reserved prop."""
        declared, passed = self._props[action], props.keys()
        known = declared.accepted is None or passed <= declared.accepted
        if not (known and declared.required <= passed and _RESERVED_PROPS.isdisjoint(passed)):
            raise PropsError(str(next(self.props_faults(template_location(), passed, action))))
        for name, value in props.items():
            if isinstance(value, RenderedComponent):
                problem = f"the prop {name!r} of {self.label} is {_RENDERED_TOO_EARLY}"
                raise PropsError(str(Fault(template_location(), problem, _USE_CHILDREN)))

    def props_faults(
        self, where: str, passed: Set[str], action: str | None = None
    ) -> Iterator[Fault]:
        """Yield the reserved, missing and unknown names among the props passed."""
        props = self._props[action]
        owner = self.label + (f": action {action!r}" if action else "")
        for name in sorted(_RESERVED_PROPS & passed):
            yield Fault(where, f"{self.label}: the prop {name!r} is {_RESERVED_NAME}", "rename it")
        for name in sorted(props.required - passed):
            remedy = f"pass it: component({self.name!r}, {name}=…)"
            yield Fault(where, f"{owner} requires the prop {name!r}", remedy)
        for name in props.unknown(passed - _RESERVED_PROPS):
            problem = f"{owner} has no prop {name!r}"
            yield Fault(where, problem, did_you_mean(name, props.accepted or ()))

    def find_action(self, name: str) -> Handler:
        """Return the function of an action. Raises PropsError, naming the template line."""
        if action := self.actions.get(name):
            return action
        problem = f"{template_location()}: {self.label} has no action {name!r}"
        raise PropsError(f"{problem}; {did_you_mean(name, self.actions)}")

    def guard_props(self, props: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `props` that the component's guard accepts."""
        accepted = self.guard_accepts
        return {name: props[name] for name in props if accepted is None or name in accepted}

    def check_guard(self, context: RequestContext, props: Mapping[str, Any]) -> None:
        """Run the component's guard with the props it accepts. Raises ShortCircuit."""
        if self.guard is not None:
            run_guard(context, self.guard, self.guard_props(props))


class Components:
    """The templates and components of an application, compiled once (in debug: on change)."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self.faults: list[Fault] = []  # of templates that do not compile
        self.debug: bool = config["debug"]
        self._loader = _TemplateLoader(config.root)
        self.jinja = jinja2.Environment(
            loader=self._loader, autoescape=True, auto_reload=self.debug, cache_size=-1,
            extensions=registry.extensions,
        )  # fmt: skip
        self.jinja.filters.update(registry.filters)
        self.jinja.globals.update(registry.globals)
        self.jinja.globals["workbench"] = str  # prints nothing outside debug
        self.static = StaticFiles(registry, config)
        self.tickets = Tickets(config["secret_keys"])
        self.fragments = Tickets(config["secret_keys"], FRAGMENT)
        self.by_name = {entry.name: CompiledComponent(entry) for entry in registry.components}
        self.by_page = {page: CompiledComponent(page) for page in registry.pages}
        self.by_error = {
            status: CompiledComponent(Page(f"errors[{status!r}]", template, where=registry.where))
            for status, template in registry.errors.items()
        }
        self.compiled = *self.by_name.values(), *self.by_page.values(), *self.by_error.values()
        self.guards = _digest_of_guards(registry.components)
        self.uses: dict[str, TemplateUses] = {}  # of each valid template
        for compiled in self.compiled:
            self._analyse(compiled.template, compiled.where)
        for compiled in self.compiled if not self.debug else ():
            compiled.may_contain_forms = self._may_contain_forms(compiled)
            compiled.may_use_instance = self.may_use(compiled.template, "instance")

    @property
    def templates(self) -> list[str]:
        """The valid templates that pages and components use, sorted."""
        return sorted(self.uses)

    def error_page(self, status: int) -> CompiledComponent | None:
        """Return the application's error page for a status or its class, or None."""
        return self.by_error.get(status) or self.by_error.get(f"{status // 100}xx")

    def find(self, name: str) -> CompiledComponent:
        """Return a component by name. Raises PropsError, naming the template line."""
        if compiled := self.by_name.get(name):
            return compiled
        problem = f"{template_location()}: component {name!r} is not in the registry"
        raise PropsError(f"{problem}; {did_you_mean(name, self.by_name)}")

    def components_in(self, template: str) -> list[str]:
        """Return the names of components used in a template, directly or through others, sorted."""
        names = list(self.direct_components(template))
        for name in names:
            if name in self.by_name:
                names += self.direct_components(self.by_name[name].template).difference(names)
        return sorted(names)

    def direct_components(self, template: str) -> set[str]:
        """Return the names of components used in a template or its includes."""
        return self.literal_arguments(template, "component", "fragment")

    def literal_arguments(self, template: str, *functions: str) -> set[str]:
        """Return the strings passed first to `functions` in a template and its includes."""
        parts = self.with_includes(template)
        return {c.first for part in parts for c in part.calls if c.function in functions}

    def may_use(self, template: str, *names: str) -> bool:
        """Return True if a template or one of its includes uses, or might use, these names."""
        parts = self.with_includes(template)
        return any(part.is_dynamic or not part.names.isdisjoint(names) for part in parts)

    def with_includes(self, template: str) -> list[TemplateUses]:
        """Return the uses of a template and its includes; invalid ones are left out."""
        parts = [template]
        for part in parts:
            parts += self.uses[part].included.difference(parts) if part in self.uses else ()
        return [self.uses[part] for part in parts if part in self.uses]

    def _analyse(self, name: str, where: str | None) -> None:
        """Compile a template and its includes, and collect their uses.

        `where` names the entry or template that needs it; None if it may be missing.
        """
        if name in self.uses:
            return
        try:
            source, filename, _ = self._loader.get_source(self.jinja, name)
            uses = analyse_template(self.jinja.parse(source, name, filename))
            self.jinja.get_template(name)
        except jinja2.TemplateNotFound:
            known = filter(self._loader.has_suffix, similar_files(self._loader.root, name))
            problem, remedy = f"template {name!r} does not exist", did_you_mean(name, known)
            if not self._loader.has_suffix(name):
                problem, remedy = f"{name!r} is not a template: {_SUFFIX_RULE}", "rename it"
            if where:
                self.faults.append(Fault(where, problem, remedy))
        except (jinja2.TemplateSyntaxError, UnicodeDecodeError) as error:
            line, problem = getattr(error, "lineno", 1), getattr(error, "message", str(error))
            problem = str(problem).rstrip(".")
            self.faults.append(Fault(f"{name}:{line}", problem, "fix the template"))
        except (SyntaxError, RecursionError):  # Python's limits on Jinja's generated code
            remedy = "move parts of it into other templates"
            self.faults.append(Fault(name, "the template is nested too deeply", remedy))
        else:
            self.uses[name] = uses
            for other in sorted(uses.included):
                self._analyse(other, None if other in uses.optional else name)

    def _may_contain_forms(self, compiled: CompiledComponent) -> bool:
        """Return True if it, or a component inside, has actions or might have some."""
        inner = map(self.by_name.get, self.components_in(compiled.template))
        return any(
            part.actions or self.may_use(part.template, "children", "fragment", "instance")
            for part in (compiled, *filter(None, inner))
        )


def _digest_of_guards(components: Iterable[Component]) -> str:
    """Return a digest that changes when a guard is added, removed or accepts other props.

    Older tickets would then name the wrong guarded ancestors.
    """
    signatures = []
    for component in components:
        if component.guard:
            accepted, required, _ = props_of(component.guard)
            names = None if accepted is None else sorted(accepted)
            signatures.append((component.name, names, sorted(required)))
    signatures.sort()
    return hashlib.sha256(json.dumps(signatures).encode()).hexdigest()[:12]


class Rendering:
    """The rendering of one page for one request."""

    __slots__ = ("components", "context", "duplicate_counts", "functions", "guarded", "posted")

    def __init__(
        self, components: Components, context: RequestContext, posted: ActionResult | None = None
    ) -> None:
        self.components, self.context, self.posted = components, context, posted
        self.duplicate_counts: dict[str, int] = {}
        self.guarded: list[Node] = []  # guarded components around the current one, outermost first
        workbench = context.request.app.workbench
        self.functions: dict[str, Any] = {
            **components.jinja.globals,
            "url": context.url if workbench is None else functools.partial(workbench.url, context),
            "static": lambda name: context.url(components.static.url(name)),
            "flashes": context.session.flashes,
            "errors": Fields(),
            "values": Fields(),
        }

    def fragment(self, compiled: CompiledComponent, ticket: Ticket) -> str:
        """Render one instance exactly as its page would, tickets included."""
        for name, props in ticket.guarded_ancestors:
            self.guarded.append(Node(self, self.components.by_name[name], "", props))
        return Node(self, compiled, ticket.instance, ticket.props).show()


@functools.lru_cache(maxsize=1_000)
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Node:
    """A component instance being rendered. Its methods are functions of its template."""

    __slots__ = ("caller", "compiled", "id", "is_empty", "props", "rendering")

    def __init__(
        self, rendering: Rendering, compiled: CompiledComponent, id: str, props: dict[str, Any],
        caller: Callable[[], str] | None = None,
    ) -> None:  # fmt: skip
        self.rendering, self.compiled, self.id, self.props = rendering, compiled, id, props
        self.caller = caller  # renders its children
        self.is_empty = False  # load_template_context returned None

    @property
    def instance(self) -> str:
        """An id for the DOM, the same in the page and in the fragment: `user-1f0c3a9d27b4`."""
        return f"{self.compiled.name.replace('/', '-')}-{_digest(self.id)}" if self.id else "page"

    def show(self) -> str:
        """Return the component's HTML. Its guard runs first."""
        compiled, context, guarded = self.compiled, self.rendering.context, self.rendering.guarded
        trail = context.trail
        if len(trail.names) > _MAX_DEPTH:
            path = " > ".join(trail.names[-3:])
            raise PropsError(f"components are nested more than {_MAX_DEPTH} deep: {path}.")
        trail.enter(compiled.name)
        if compiled.guard is None:
            html = self.html()
        else:
            compiled.check_guard(context, self.props)
            guarded.append(self)
            html = self.html()
            guarded.pop()
        trail.leave()
        return html

    def html(self) -> str:
        """Render the template with its values."""
        jinja, values = self.rendering.components.jinja, self.values()
        values |= {
            "component": self.component, "action": self.action, "fragment": self.fragment,
            "action_ticket": self.action_ticket, "children": self.caller() if self.caller else "",
        }  # fmt: skip
        functions = _FUNCTIONS
        if self.compiled.may_use_instance:
            values["instance"] = self.instance
            functions = {*_FUNCTIONS, "instance"}
        template = jinja.get_template(self.compiled.template)
        jinja_context = jinja.context_class(jinja, values, template.name, template.blocks)
        jinja_context.globals_keys = functions  # imported macros can use them too
        try:  # `Template.render` does the same, but copies all values twice
            return "".join(template.root_render_func(jinja_context))
        except Exception as error:
            if self.is_empty and isinstance(error, jinja2.UndefinedError):
                problem = f"{handler_label(cast(Handler, self.compiled.load))} returned None"
                raise PropsError(f"{problem}; its template needs a dict: {error}.") from error
            jinja.handle_exception()  # adds template lines to the traceback

    def values(self) -> dict[str, Any]:
        """Return the page's functions, the props, handlers' results, `errors` and `values`."""
        rendering, compiled = self.rendering, self.compiled
        values = {**rendering.functions, **compiled.defaults, **self.props}
        self._add(values, self.load())
        if rendering.posted and rendering.posted.instance == self.id:
            self._add(values, rendering.posted.values)
        for name in ("errors", "values"):
            if type(values[name]) is not Fields:
                values[name] = Fields.from_handler(values[name], f"{compiled.label}: {name}")
        return values

    def load(self) -> Mapping[str, Any]:
        """Call `load_template_context`. Raises ShortCircuit if it refuses or redirects."""
        context, load = self.rendering.context, self.compiled.load
        if load is None:
            return {}
        returned = load(*context.arguments, **self.props)
        self.is_empty, result = returned is None, process_result(context, load, returned)
        if result.is_final or result.status >= 400:
            raise ShortCircuit(result)
        context.status = max(context.status, result.status)
        context.headers += result.headers
        return cast(Mapping[str, Any], result.values)

    def _add(self, values: dict[str, Any], result: Mapping[str, Any]) -> None:
        if not RESERVED.isdisjoint(result):
            name = min(RESERVED & result.keys())
            problem = f"{self.compiled.label}: a handler returned {name!r}, a reserved name"
            raise PropsError(f"{problem}; rename the key.")
        values.update(result)

    def component(
        self, name: str, /, key: Any = None, caller: Any = None, **props: Any
    ) -> RenderedComponent:
        """Render a component here. `key` distinguishes instances with the same name and props."""
        compiled = self.rendering.components.find(name)
        compiled.check_props(props)
        instance = ""
        if compiled.may_contain_forms:
            instance = self._instance_id(name, key, props, number=True)
        return RenderedComponent(Node(self.rendering, compiled, instance, props, caller).show())

    def fragment(self, name: str = "", /, key: Any = None, caller: Any = None, **props: Any) -> str:
        """Return a URL of this page that renders one component alone, as `component()` would here.

        Without a name it renders this instance again, with `props` added to its own.
        """
        rendering, node = self.rendering, self
        if name:
            compiled = rendering.components.find(name)
            node = Node(rendering, compiled, self._instance_id(name, key, props, number=False), {})
        ticket, compiled = node.ticket(""), node.compiled
        ticket = ticket._replace(props={**node.props, **props})
        compiled.check_props(ticket.props)
        if caller is not None or not (compiled.name and ticket.alone):
            call = f"fragment({name!r})" if name else f"{compiled.label}: fragment()"
            problem = "cannot render children" if compiled.name else "requires a component name"
            raise PropsError(f"{template_location()}: {call} {problem}.")
        value = rendering.components.fragments.issue(ticket)
        request = rendering.context.request
        return f"{request.prefix}{quote(request.path_info, safe=_SAFE_IN_URL)}?{FRAGMENT}={value}"

    def action(self, name: str) -> Markup:
        """Return the hidden field of a `<form method="post">` that calls `action_<name>`."""
        field_name, ticket = self.rendering.components.tickets.field_name, self.action_ticket(name)
        return Markup(f'<input type="hidden" name="{field_name}" value="{ticket}">')  # noqa: S704

    def action_ticket(self, name: str) -> str:
        """Return the value of that field, for a button: `<button name="_ticket" value="…">`."""
        self.compiled.find_action(name)
        self.compiled.check_props(self.props, name)
        return self.rendering.components.tickets.issue(self.ticket(name))

    def ticket(self, action: str) -> Ticket:
        """Return the ticket of an action; with an empty `action`, the one for a fragment."""
        rendering = self.rendering
        path, nonce = rendering.context.request.full_path, rendering.context.session.nonce
        ancestors = [
            (node.compiled.name, node.compiled.guard_props(node.props))
            for node in rendering.guarded
            if node is not self
        ]
        return Ticket(
            nonce, path, self.compiled.name, self.id, action, self.props, ancestors,
            rendering.components.guards, int(time.time()), self.caller is None,
        )  # fmt: skip

    def _instance_id(self, name: str, key: Any, props: dict[str, Any], *, number: bool) -> str:
        """Return a nested component's id: this id, its name, and its key or its props' digest."""
        instance = f"{self.id}/{name}"
        if key is not None:
            instance += f"={quote(str(key), safe='')}"
        elif props:
            fitting = [(n, props[n]) for n in sorted(props) if fits_ticket(props[n])]
            instance += f"~{_digest(repr(fitting))}"
        if not number:
            return instance
        counts = self.rendering.duplicate_counts  # equal ids are numbered
        count = counts[instance] = counts.get(instance, 0) + 1
        return instance if count == 1 else f"{instance}#{count}"


TEMPLATE_SUFFIXES: tuple[str, ...] = (
    ".html", ".htm", ".xhtml", ".xml", ".svg", ".txt", ".md", ".css", ".js",
    ".jinja", ".jinja2", ".j2",
)  # fmt: skip
_SUFFIX_RULE = f"templates end in {', '.join(TEMPLATE_SUFFIXES)}"


class _TemplateLoader(jinja2.FileSystemLoader):
    """A loader of templates inside the project: no dot files, no links that point outside."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root

    @staticmethod
    def has_suffix(template: str) -> bool:
        """Return True if a template may have this name. A request must not render config.yaml."""
        return template.lower().endswith(TEMPLATE_SUFFIXES)

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        if not self.has_suffix(template):
            raise jinja2.TemplateNotFound(template, f"{template!r}: {_SUFFIX_RULE}")
        source, filename, is_current = super().get_source(environment, template)
        hidden = any(part.startswith(".") for part in template.split("/"))
        if hidden or not Path(filename).resolve().is_relative_to(self.root):
            raise jinja2.TemplateNotFound(template)
        return source, filename, is_current


class Call(NamedTuple):
    """A template call whose first argument is a string. `props` is None if it has a `*` or `**`."""

    line: int
    function: str
    first: str
    props: tuple[str, ...] | None


class TemplateUses(NamedTuple):
    """The calls, names and includes of a template."""

    calls: Sequence[Call]
    names: Set[str]
    included: set[str]
    optional: set[str]  # includes that may be missing
    is_dynamic: bool  # its components or includes depend on the request
    nested: Sequence[int]  # lines where a component is an argument of another


def analyse_template(tree: jinja2.nodes.Template) -> TemplateUses:
    """Collect the uses from a template's syntax tree."""
    nodes, calls = jinja2.nodes, list[Call]()
    for call in tree.find_all(nodes.Call):
        first = getattr(call.args[0], "value", None) if call.args else None
        if isinstance(call.node, nodes.Name) and isinstance(first, str):
            props = tuple(keyword.key for keyword in call.kwargs if keyword.key != "key")
            is_complete = call.dyn_args is None and call.dyn_kwargs is None
            calls.append(Call(call.lineno, call.node.name, first, props if is_complete else None))
    optional = {
        constant.value
        for include in tree.find_all(nodes.Include)  # `ignore missing`, or a list to choose from
        if include.ignore_missing or not isinstance(include.template, nodes.Const)
        for constant in (include.template, *include.template.find_all(nodes.Const))
        if isinstance(constant, nodes.Const)
    }
    names = [name.name for name in tree.find_all(nodes.Name)]
    referenced = [*jinja2.meta.find_referenced_templates(tree)]
    literal = sum(call.function == "component" for call in calls)
    is_dynamic = None in referenced or names.count("component") > literal
    nested = [
        call.lineno
        for call in tree.find_all(nodes.Call)
        if _calls_component(call) and any(map(_calls_component, call.find_all(nodes.Call)))
    ]
    included = {*filter(None, referenced)}
    return TemplateUses(calls, {*names}, included, optional, is_dynamic, nested)


def _calls_component(call: jinja2.nodes.Call) -> bool:
    return isinstance(call.node, jinja2.nodes.Name) and call.node.name == "component"


# ---- Checks ----------------------------------------------------------------------------------
# Uses Errors, Configuration, Registry, Router, Request, Static, Components.


def compile_registry(registry: Registry, config: Config) -> tuple[Router, Components]:
    """Compile a registry's routes and templates. Raises RegistryError with all its problems."""
    if faults := type_faults(registry):  # the other checks rely on the types
        raise RegistryError(faults)
    components = Components(registry, config)
    faults = [*registry_faults(registry), *route_faults(registry.routes)]
    faults += template_faults(registry, components)
    if faults:
        raise RegistryError([*dict.fromkeys(faults)])
    return Router(registry.routes), components


def type_faults(registry: Registry) -> list[Fault]:
    """Return entries, and fields of entries, that have the wrong type."""
    if faults := [*_field_faults(registry)]:
        return faults
    for extension in registry.extensions:
        if not (isinstance(extension, type) and issubclass(extension, jinja2.ext.Extension)):
            remedy = "list the class itself, like jinja2.ext.InternationalizationExtension"
            faults.append(Fault(registry.where, f"extensions has {_short_repr(extension)}", remedy))
    for name, entry_type, expected in (
        ("components", Component, "a Component"),
        ("routes", Route, "a Page, Endpoint, Mount or Static"),
    ):
        for number, entry in enumerate(getattr(registry, name)):
            if isinstance(entry, entry_type):
                faults += _field_faults(entry)
            else:
                where = f"{registry.where}: {name}[{number}]"
                problem = f"{_short_repr(entry)} is a {type(entry).__name__}"
                faults.append(Fault(where, problem, f"expected {expected}"))
    return faults


_LISTS = ("components", "models", "routes", "seeds", "extensions", "dismissed")
_FIELDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(_LISTS, (list | tuple, "a list")),
    **dict.fromkeys(("name", "template", "folder"), (str, _TEXT)),
    "guards": (list | tuple | None, "a list"),
    "errors": (Mapping, "a mapping of statuses to templates"),
    "filters": (Mapping, "a mapping of names to functions"),
    **dict.fromkeys(("globals", "limits"), (Mapping, _MAPPING)),
    "logic": (ModuleType | None, "the imported module"),
    "application": (Callable, "a WSGI application"),
    "retries": (int, "0 or more"),
    **dict.fromkeys(("cross_origin", "writes", "replica"), (bool, "True or False")),
}


def _field_faults(entry: Entry) -> Iterator[Fault]:
    for name in [f.name for f in dataclasses.fields(entry) if f.name in _FIELDS]:
        value, (field_type, expected) = getattr(entry, name), _FIELDS[name]
        if not (_is_count(value) if field_type is int else isinstance(value, field_type)):
            yield Fault(entry.where, f"{name} is {_short_repr(value)}", f"expected {expected}")
    limits = getattr(entry, "limits", None)
    for name, value in limits.items() if isinstance(limits, Mapping) else ():
        if name not in _DEFAULT_LIMITS:
            remedy = did_you_mean(str(name), _DEFAULT_LIMITS)
            yield Fault(entry.where, f"unknown limit {name!r}", remedy)
        elif not _is_count(value):
            yield Fault(entry.where, f"limits[{name!r}] is {value!r}", f"expected {_NUMBER}")


def registry_faults(registry: Registry) -> list[Fault]:
    """Return the problems outside templates and routes. Types must have been checked."""
    return [
        *_duplicates(registry),
        *_handler_faults(registry),
        *_model_faults(registry),
        *_seed_faults(registry),
    ]


def _duplicates(registry: Registry) -> Iterator[Fault]:
    named = [(f"component {c.name!r}", c.where) for c in registry.components]
    for number, seed in enumerate(registry.seeds):
        named.append((f"seed {seed_name(seed)!r}", f"{registry.where}: seeds[{number}]"))
    for name, where, first in _find_duplicates(named):
        yield Fault(where, f"{name} is listed twice, first at {first}", "remove one of them")
    tables = ((table.key, owner) for table, owner in registry.tables.items())
    for name, owner, first in _find_duplicates(tables):
        problem = f"table {name!r} is already defined by {first}"
        yield Fault(owner, problem, "set another __tablename__ on one of them")


def _find_duplicates(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield each repeated name with its location and the first location."""
    first: dict[str, str] = {}
    for name, where in named:
        if name in first:
            yield name, where, first[name]
        first.setdefault(name, where)


def _handler_faults(registry: Registry) -> Iterator[Fault]:
    for entry in (*registry.components, *registry.routes):
        for handler in _handlers_of(entry).values():
            yield from _signature_faults(handler, entry.where)
    for component in registry.components:
        if component.guard is not None:
            yield from _signature_faults(component.guard, component.where)
    guards = [(registry.where, guard) for guard in registry.guards or ()]
    guards += [(route.where, guard) for route in registry.routes for guard in route.guards or ()]
    for where, guard in guards:
        faults = [*_signature_faults(guard, where)]
        yield from faults
        for name in sorted(props_of(guard).required) if not faults else ():
            problem = f"{function_name(guard)} requires {name!r}, which is not passed to this guard"
            yield Fault(location_of(guard), problem, "add a default")


def _handlers_of(entry: Entry) -> dict[str, Any]:
    """Return the handlers of an entry, keyed by their names in messages."""
    if isinstance(entry, Endpoint):
        return {"the handler": entry.handler}
    if not isinstance(entry, Component | Page):
        return {}
    handlers = load_function(entry), *actions_of(entry).values()
    return {function_name(handler): handler for handler in handlers if handler is not None}


def _signature_faults(function: Any, where: str) -> Iterator[Fault]:
    if not callable(function):
        yield Fault(where, f"{_short_repr(function)} is not a function", "pass the function itself")
        return
    parameters = _parameters(function)
    first = [p.name for p in parameters[:3] if p.kind is not p.KEYWORD_ONLY]
    if first != ["request", "session", "db"]:
        name = function_name(function)
        signature = f"{name}({', '.join(parameter.name for parameter in parameters)})"
        problem = f"{signature}: the first three parameters are not request, session, db"
        remedy = f"write it as def {name}(request, session, db, **props)"
        yield Fault(location_of(function), problem, remedy)


def _seed_faults(registry: Registry) -> Iterator[Fault]:
    for seed in registry.seeds:
        if not callable(seed):
            problem = f"seed {_short_repr(seed)} is not a function"
            yield Fault(registry.where, problem, "list the function itself")
        elif len(parameters := _parameters(seed)) != 1:
            names = ", ".join(parameter.name for parameter in parameters)
            problem = f"seed {seed_name(seed)}({names}) must accept exactly one argument"
            yield Fault(location_of(seed), problem, "write it as def NAME(db: Session)")


def _model_faults(registry: Registry) -> Iterator[Fault]:
    classes: list[type] = []
    for model, where in registry.listed_models():
        members = [member for member, _ in members_of(model)]
        classes += (member for member in members if isinstance(member, type))
        if not members:
            name = model.__name__ if isinstance(model, ModuleType | type) else _short_repr(model)
            remedy = "list a models module, a class, a Table, a Base or a MetaData"
            yield Fault(where, f"models entry {name} has no table", remedy)
    listed: list[orm.Mapper[Any]] = [orm.class_mapper(cls, configure=False) for cls in classes]
    registries = {mapper.registry: None for mapper in listed}
    mappers = dict.fromkeys((*listed, *(m for base in registries for m in base.mappers)))
    yield from _mapper_faults(registries, mappers)
    for table, owner in registry.tables.items():
        yield from _foreign_key_faults(table, owner, registry.tables.keys())
    yield from _unlisted_tables(registry, mappers)


def _mapper_faults(
    registries: Iterable[orm.registry], mappers: Iterable[orm.Mapper[Any]]
) -> Iterator[Fault]:
    """Yield unresolvable relationships. SQLAlchemy stops at the first one of each Base."""
    reported = set[str]()
    for registry in registries:
        try:
            registry.configure(cascade=True)
        except (sa.exc.SQLAlchemyError, NameError, AttributeError) as error:
            # The error of a Base that depends on a failed one ends with the original message.
            message = str(error).rpartition("Original exception was: ")[2]
            message = message.partition("\n")[0].rstrip(".")
            if message in reported:
                continue
            reported.add(message)
            failed = next((m for m in mappers if str(m) in message), next(iter(registry.mappers)))
            remedy = "fix the relationship it names"
            if "failed to locate a name" in message:
                remedy = "across Bases pass the class, not its name: relationship(User)"
            yield Fault(_full_name(failed.class_), message, remedy)


def _foreign_key_faults(table: sa.Table, owner: str, known: Set[sa.Table]) -> Iterator[Fault]:
    for key in table.foreign_keys:
        where = f"{owner}.{key.parent.name}"
        try:
            target = key.column.table
        except sa.exc.NoReferenceError:
            problem = f"ForeignKey points to {key.target_fullname!r}, which is not in its Base"
            remedy = "across Bases pass the column, not its name: ForeignKey(User.id)"
            yield Fault(where, problem, remedy)
            continue
        if target not in known and target.metadata is not table.metadata:
            problem = f"ForeignKey points to table {target.key!r}, which is not registered"
            yield Fault(where, problem, "add the module that defines it to models")


def _unlisted_tables(registry: Registry, mappers: Iterable[orm.Mapper[Any]]) -> Iterator[Fault]:
    """Yield unlisted tables of listed MetaData: queries can use them, migrations skip them."""
    owners: dict[sa.MetaData, str] = {}
    for table, owner in registry.tables.items():
        owners.setdefault(table.metadata, owner)
    names = {t: _full_name(mapper.class_) for mapper in mappers for t in mapper.tables}
    for metadata, owner in owners.items():
        for table in metadata.tables.values():
            if table not in registry.tables:
                problem = f"table {table.key!r} is in the MetaData of {owner} but not listed"
                remedy = "add its module, class, Table or whole Base to models"
                where = names.get(table, f"table {table.key}")
                yield Fault(where, problem, remedy)


def route_faults(routes: Sequence[Route]) -> Iterator[Fault]:
    """Yield malformed and duplicate paths, and handlers that do not fit their path."""
    first: dict[Any, Route] = {}  # by key and method
    for route in routes:
        if not (faults := [*_path_faults(route)]):
            key, names = route_key(route)
            methods = ["*"] if route.is_prefix else sorted(methods_of(route))
            for method in [method for method in methods if (key, method) in first][:1]:
                other = first[key, method]
                problem = f"route {route.path!r} duplicates {other.path!r} at {other.where}"
                if route.is_api and other.is_api:
                    problem += f", and both accept {method}"
                faults.append((problem, "remove one of them"))
            for method in methods:
                first.setdefault((key, method), route)
            faults += _view_args_faults(route, frozenset(names))
        for problem, remedy in faults:
            yield Fault(route.where, problem, remedy)


_FOREIGN_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>|:(\w+)")  # other frameworks' syntax


def _path_faults(route: Route) -> Iterator[tuple[str, str]]:
    subject = f"route {route.path!r}:"
    if not isinstance(route.path, str) or not route.path.startswith("/"):
        yield f"{subject} it does not begin with a slash", "write it as '/…'"
        return
    names = list[str]()
    for number, segment in enumerate(route.segments, start=1):
        is_last = number == len(route.segments)
        if parameter := parse_parameter(segment):
            name, converter = parameter
            if converter not in CONVERTERS:
                remedy = did_you_mean(converter, CONVERTERS)
                yield f"{subject} unknown converter {converter!r}", remedy
            elif CONVERTERS[converter].takes_rest and (route.is_prefix or not is_last):
                yield f"{subject} {segment} is not the last segment", "move it to the end"
            if name in names:
                yield f"{subject} two parameters are named {name!r}", "rename one"
            names.append(name)
        elif foreign := _FOREIGN_PARAMETER.fullmatch(segment):
            converter = f":{foreign[1]}" if foreign[1] else ""
            remedy = f"write {{{foreign[2] or foreign[3]}{converter}}}"
            yield f"{subject} segment {segment!r} has another framework's syntax", remedy
        elif "{" in segment or "}" in segment:
            yield f"{subject} malformed segment {segment!r}", "write plain text or a single {name}"
        elif not segment and not is_last:
            yield f"{subject} two slashes in a row", "write one"
    methods = route.methods if isinstance(route.methods, list | tuple | Set) else ()
    valid = all(isinstance(name, str) and _HEADER_NAME.fullmatch(name) for name in methods)
    if not valid or not (methods or route.is_prefix):
        yield f"{subject} methods is {route.methods!r}", 'expected a list like ["GET", "POST"]'


def _view_args_faults(route: Route, passed: Set[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(passed & _RESERVED_PROPS) if isinstance(route, Page) else ():
        yield f"parameter {name!r} of {route.path!r} is {_RESERVED_NAME}", "rename it"
    for label, handler in _handlers_of(route).items():
        props = props_of(handler)
        subject = f"route {route.path!r}: {label}"
        for name in sorted(props.required - passed):
            yield f"{subject} requires {name!r}", f"add {{{name}}} to the path, or add a default"
        for name in props.unknown(passed):
            yield f"{subject} does not accept {name!r}", "add the parameter, or **view_args"


_ERROR_KEYS = {*range(400, 600), "4xx", "5xx"}


def template_faults(registry: Registry, components: Components) -> Iterator[Fault]:
    """Yield problems of templates, of the components and actions they call, and of folders."""
    for name in sorted(RESERVED & registry.globals.keys()):
        yield Fault(registry.where, f"globals has {name!r}, a reserved name", "rename it")
    for status in registry.errors:
        if status not in _ERROR_KEYS:
            remedy = "expected a number from 400 to 599, '4xx' or '5xx'"
            yield Fault(registry.where, f"errors has the key {_short_repr(status)}", remedy)
    yield from _folder_faults(components.static, guarded=bool(registry.guards))
    yield from components.faults
    for compiled in components.compiled:
        yield from _action_faults(compiled)
        if compiled.template in components.uses:
            yield from _call_faults(components, compiled)
    for template, uses in sorted(components.uses.items()):
        for line in uses.nested:
            problem = f"an argument of component() is {_RENDERED_TOO_EARLY}"
            yield Fault(f"{template}:{line}", problem, _USE_CHILDREN)
        for line, function, name, props in sorted(uses.calls, key=lambda call: call.line):
            called = components.by_name.get(name) if function in ("component", "fragment") else None
            if called is not None and props is not None:
                yield from called.props_faults(f"{template}:{line}", frozenset(props))


_PRIVATE_FILES = ("config.yaml", "registry.py", "wsgi.py", "secret.key", "database.url")
_SQLITE_SUFFIXES = "", "-wal", "-shm", "-journal", ".lock"  # the database and its side files


def _folder_faults(static: StaticFiles, *, guarded: bool) -> Iterator[Fault]:
    """Yield Static folders that are missing, contain private files or do not set their guards."""
    config = static.config
    private = [config.root / name for name in _PRIVATE_FILES] + [*config.files]
    if config.database_url.get_backend_name() == "sqlite" and not config.in_memory:
        file = str(config.database_url.database).removeprefix("file:").partition("?")[0]
        private += [Path(file + suffix) for suffix in _SQLITE_SUFFIXES]
    for route, folder in static.routes.items():
        if route.guards is None and guarded:
            problem = f"static {route.path!r} has no guards (the registry's do not run for files)"
            yield Fault(route.where, problem, "set guards=[…], or guards=[] if they are public")
        if not Path(folder).is_dir():
            yield Fault(route.where, f"folder {route.folder!r} does not exist", "create it")
            continue
        others = (Path(folder, name) for name in _PRIVATE_FILES)
        for path in (*private, *filter(Path.exists, others)):
            if path.resolve().is_relative_to(folder):
                problem = f"folder {route.folder!r} contains {path.name}, which visitors could read"
                yield Fault(route.where, problem, "move the public files to a folder of their own")
                break


def _action_faults(compiled: CompiledComponent) -> Iterator[Fault]:
    """Yield props with reserved names, and component props that an action does not accept."""
    props = props_of(compiled.load)
    for name in sorted(_RESERVED_PROPS & (props.required | props.defaults.keys())):
        problem = f"prop {name!r} of {compiled.label} is {_RESERVED_NAME}"
        yield Fault(location_of(compiled.load), problem, "rename it")
    for action in compiled.actions.values():
        for name in props_of(action).unknown(props.accepted or frozenset())[:1]:
            problem = f"does not accept the prop {name!r} of load_template_context"
            remedy = "add the parameter, or **props"
            yield Fault(location_of(action), f"{action.__name__} {problem}", remedy)


def _call_faults(components: Components, owner: CompiledComponent) -> Iterator[Fault]:
    template, known = owner.template, components.by_name
    for name in sorted(components.direct_components(template) - known.keys()):
        problem = f"component {name!r} is not in the registry"
        yield Fault(template, problem, did_you_mean(name, known))
    for name in sorted(components.literal_arguments(template, "fragment") & known.keys()):
        if any("children" in part.names for part in components.with_includes(known[name].template)):
            problem = f"component {name!r} uses children, so it cannot be a fragment"
            yield Fault(template, problem, "name another component")
    called = components.literal_arguments(template, "action", "action_ticket")
    for name in sorted(called - owner.actions.keys()):
        problem = f"{owner.label} has no action {name!r}"
        yield Fault(template, problem, did_you_mean(name, owner.actions))


# ---- App -------------------------------------------------------------------------------------
# Uses all above but Static.

_MESSAGES = {
    400: "The request could not be understood.",
    403: "This is not allowed. Go back, reload the page and try again.",
    404: "There is no page at this address.",
    405: "This address does not accept that request method.",
    409: "The site has changed since this form was shown. Reload the page and try again.",
    411: "The request does not state its length.",
    413: "The submitted data is too large.",
    415: "The submitted data is of a type that this address does not accept.",
    431: "The request headers are too large. Delete this site's cookies and try again.",
    500: "The site could not handle this request. The error has been logged.",
    503: "The service is temporarily unavailable. Please try again in a moment.",
}
_PROBLEM = "application/problem+json"
_RETRY_AFTER = 5  # seconds


class RequestPolicy:
    """Accepts requests for the site's own hosts, and unsafe ones only from its own pages."""

    def __init__(self, config: Config) -> None:
        self._allows_host = functools.lru_cache(maxsize=100)(config.allows_host)
        self._trusted_origins = frozenset(map(parse_origin, config["trusted_origins"]))
        self.allows_any_host = not config["server.hosts"]

    def check_host(self, environ: Mapping[str, Any]) -> None:
        """Refuse a Host that is not the site's."""
        host = str(environ.get("HTTP_HOST", environ.get("SERVER_NAME", "")))  # like WebOb
        if not self._allows_host(host):
            detail = f"Host is {host[:80]!a}; if it is yours, add it to server.hosts."
            raise Rejection(400, "unknown-host", detail=detail)

    def check_origin(self, environ: Mapping[str, Any], route: Route) -> None:
        """Refuse an unsafe method from another site."""
        if route.cross_origin:
            return
        evidence = self.is_same_origin(environ)
        if evidence is None and route.is_api:  # for a page the ticket decides
            raise Rejection(403, "no-origin")
        if evidence is False:
            origin, own = environ.get("HTTP_ORIGIN", ""), _own_origin(environ)
            detail = f"Origin {origin[:80]!a} is neither {own[:80]!a} nor in trusted_origins;"
            detail += " a proxy that terminates TLS must pass the scheme https to the server."
            raise Rejection(403, "other-origin", detail=detail)

    def is_same_origin(self, environ: Mapping[str, Any]) -> bool | None:
        """Return True if a page of this site sent the request; None if the browser does not say.

        Trusted origins come first, because Fetch Metadata (W3C) calls them cross-site. Otherwise
        Fetch Metadata decides, or without it the Origin (RFC 6454).
        """
        origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE")
        if origin and self._trusted_origins and parse_origin(origin) in self._trusted_origins:
            return True
        if site is not None:
            return site in ("same-origin", "none")
        if origin is None:
            return None
        parsed = parse_origin(origin)
        return parsed is not None and parsed == parse_origin(_own_origin(environ))


def _own_origin(environ: Mapping[str, Any]) -> str:
    return f"{environ.get('wsgi.url_scheme', 'http')}://{environ.get('HTTP_HOST', '')}"


@functools.cache
def _error_page() -> jinja2.Template:
    """Compile the built-in error page, once for all applications of the process."""
    source = (data_folder("templates") / "error.html").read_text("utf-8")
    return jinja2.Environment(autoescape=True).from_string(source)


class Responder:
    """Turns results, responses and errors into an `Answer`, and sets the session cookie."""

    def __init__(
        self, config: Config, components: Components, sessions: SessionCookies, database: Database
    ) -> None:
        self.config, self.components = config, components
        self.sessions, self.database = sessions, database
        self.answers = AnswerBuilder(config)
        self.workbench: Workbench | None = None
        self._debug: bool = config["debug"]
        self._error_page = _error_page()

    def from_result(self, context: RequestContext, result: Result) -> Answer:
        """Return the response for a result that replaces a page or JSON."""
        if result.response is not None:
            return self.from_response(context, result.response)
        if result.redirect is not None:
            answer = self.answers.page("", 303)
            answer.headerlist.append(("Location", context.request.prefix + result.redirect))
        else:
            answer = self.error(context, result.status, result.values.get("message"))
        return add_headers(answer, result.headers)

    def from_response(self, context: RequestContext, response: webob.Response) -> Answer:
        """Return a checked, completed copy, or an error page for a WebOb error without a body."""
        is_error = isinstance(response, webob.exc.WSGIHTTPException) and response.status_int >= 400
        if is_error and not response.has_body and not context.mounted:
            answer = self.error(context, response.status_int, getattr(response, "detail", None))
            headers = response.headerlist
            answer.headerlist += [h for h in headers if not h[0].lower().startswith("content-")]
            return answer
        answer = answer_from_response(context.request, response)
        if not context.mounted and "Location" in self.answers.complete(answer):
            location = response.headers["Location"]  # WebOb made the answer's absolute, from Host
            if isinstance(response, Redirect) and location.startswith("/"):
                location = context.request.prefix + location
            answer.headers["Location"] = safe_target(location, external=True, relative=True)
        if not _HEADER_VALUE.fullmatch(answer.status):
            raise NoventaError("The status line contains characters that HTTP does not allow.")
        answer.headerlist = check_headers(answer.headerlist)
        return answer

    def from_short_circuit(
        self, context: RequestContext, error: ShortCircuit | webob.exc.HTTPException
    ) -> Answer:
        """Return the response that a ShortCircuit or an HTTP exception carries."""
        context.session.shown_flashes = 0  # the page that showed them is not sent
        if isinstance(error, ShortCircuit):
            return self.from_result(context, error.result)
        _log_raised(context, error)
        # `wsgi_response` is the exception itself; without its traceback it holds no frames.
        response = error.with_traceback(None).wsgi_response
        finish_transaction(context, None, response.status_int)
        return self.from_response(context, response)

    def from_exception(self, context: RequestContext, error: BaseException) -> Answer:
        """Return the response to any other exception."""
        if isinstance(error, Rejection):
            return self._refuse(context, error)
        too_large = isinstance(error, OverflowError) and "SQLite" in str(error)
        if too_large or is_bad_value(error):
            message = _CONTROLS.sub(" ", str(getattr(error, "orig", error)))[:200]
            return self._refuse(context, Rejection(400, "bad-value", detail=message), error)
        if is_unavailable(error):
            self.database.report_outage(error)
            context.unavailable = True
            message = f"{redacted_url(self.database.engine.url)}: {error.__cause__ or error}"
            answer = self.error(context, 503, message if self._debug else None)
            answer.headers["Retry-After"] = str(_RETRY_AFTER)
            return answer
        request, reference = describe_request(context.request.environ), context.make_reference()
        where, name = str(context.trail) or "?", type(error).__name__
        if self.workbench is not None:
            reference += f", {self.workbench.address(context)}"
        log.error("500 %s in %s: %s, reference %s", request, where, name, reference, exc_info=error)
        return self.error(context, 500, exception=error)

    def _refuse(
        self, context: RequestContext, rejection: Rejection, cause: BaseException | None = None
    ) -> Answer:
        """Log a refused request and return its response. `cause` is the original error, if any."""
        reason, status, message = rejection.reason, rejection.status, rejection.detail
        if message and context.trail.names:
            message = f"in {context.trail}: {message}"
        if self.components.error_page(status) is not None:
            context.make_reference()
        _log_refusal(context, rejection, message, cause)
        if self.workbench is not None:
            self.workbench.recorder.note_refusal(reason)
        answer = self.error(context, status, message if self._debug else None, cause)
        answer.headers.update([*rejection.headers.items(), ("X-Noventa-Refused", reason)])
        return answer

    def error(
        self, context: RequestContext, status: int, message: str | None = None,
        exception: BaseException | None = None,
    ) -> Answer:  # fmt: skip
        """Return an error as the client prefers it: problem+json (RFC 9457) or a page.

        In debug, the page of an `exception` shows source code and the JSON names the line.
        """
        title = _status_line(status)[4:]
        values = {
            "status": status, "title": title, "message": message or _MESSAGES.get(status, title),
            "reference": context.reference,
        }  # fmt: skip
        workbench, page = self.workbench, None
        if workbench is not None and exception is not None:
            page = workbench.error_page(context, exception, status)  # recorded even if not sent
        if _prefers_json(context.request, default=context.is_api):
            problem = {"title": title, "status": status, "detail": values["message"]}
            if context.reference:
                problem["reference"] = context.reference
            if workbench is not None:
                problem |= workbench.problem_of(context)
            answer = self.answers.make(_PROBLEM, _to_json(problem).encode(), status)
        elif page is not None:
            page.headerlist += _retarget_headers(context.request)
            return page
        else:
            answer = self._error_page_answer(context, values)
            answer.headerlist += _retarget_headers(context.request)
            if context.session.touched or context.guarded:
                make_private(answer)
        answer.headerlist.append(("Vary", "Accept"))
        return answer

    def _error_page_answer(self, context: RequestContext, values: dict[str, Any]) -> Answer:
        """Return the application's page, the workbench's if it explains more, or Noventa's."""
        status, workbench = values["status"], self.workbench
        page = self.components.error_page(status)
        if page is not None and not (workbench and workbench.explains(context, status)):
            html = self._render_error(context, page, values)
            if html is not None:
                return self.answers.page(html, status, context.headers)
        if workbench is not None:
            return workbench.status_page(context, values)
        html = self._error_page.render(values, home=context.url("/"), name=self.config.name)
        return self.answers.framework_page(html, status)

    def _render_error(
        self, context: RequestContext, page: CompiledComponent, values: dict[str, Any]
    ) -> str | None:
        """Render the application's error page; None if it fails or the database is down."""
        if not context.reference:  # nothing was logged yet
            request = describe_request(context.request.environ)
            values["reference"] = context.make_reference()
            log.info("%s returned %d, reference %s", request, values["status"], context.reference)
        if context.unavailable:
            return None
        context.trail.leave(0)
        context.trail.enter(page.template)
        context.headers.clear()  # they belong to a page that is not sent

        def show() -> str:
            rendering = Rendering(self.components, context, ActionResult("", values))
            return Node(rendering, page, "", {}).html()

        try:
            return in_new_transaction(context, show)
        except Exception as error:
            if not isinstance(error, Rejection | UnicodeDecodeError):  # already refused and logged
                log.error("the error page %s failed: %s", page.template, error, exc_info=error)
            return None

    def finish(self, context: RequestContext, answer: Answer) -> Answer:
        """Set the session cookie, and move a script's redirect to a header it can read."""
        session, request = context.session, context.request
        is_redirect = answer.status[0] == "3" and "Location" in answer.headers
        if is_redirect and not context.mounted and _wants_fragment(request):
            self._redirect_in_header(request, answer)
        if session.touched:
            if session.shown_flashes and request.method != "HEAD":
                del session.state["flashes"][: session.shown_flashes]
            self.sessions.save(session, request, answer)
        elif context.guarded:
            make_private(answer)
        elif answer.streams and not context.mounted:
            if "public" in _list_items((answer.headers.get("Cache-Control") or "").lower()):
                session.forbid()
            else:
                make_private(answer)  # the stream may still read the session
        return answer

    def _redirect_in_header(self, request: Request, answer: Answer) -> None:
        """Move Location to a header of its own, or the page behind it would become a fragment."""
        header = "HX-Redirect" if "HTTP_HX_REQUEST" in request.environ else "Noventa-Redirect"
        answer.headers[header] = target = answer.headers.pop("Location")
        current = re.sub(r"^https?://[^/]*|#.*", "", request.environ.get("HTTP_HX_CURRENT_URL", ""))
        if "#" in target and target.partition("#")[0] == current:  # else it would only scroll
            answer.headers["HX-Refresh"] = "true"
        answer.headers["Cache-Control"] = "no-store"  # a 204 is cacheable (RFC 9110, 15.3.5)
        answer.status = _status_line(204)
        self.answers.complete(answer)


def _log_refusal(
    context: RequestContext, rejection: Rejection, message: str, cause: BaseException | None
) -> None:
    """Log a refused request on one line, with the reference that its error page shows."""
    request, reason = describe_request(context.request.environ), rejection.reason
    end = f", {message}" if message else ""
    end += f", reference {context.reference}" if context.reference else ""
    log.warning("refused %s: %s (%d)%s", request, reason, rejection.status, end, exc_info=cause)


def _log_raised(context: RequestContext, error: webob.exc.HTTPException) -> None:
    """Log an HTTP error that a handler raised, and where."""
    status, route = error.wsgi_response.status_int, context.route
    if status >= 400 and route is not None and route.kind in ("page", "endpoint"):
        text = f"{type(error).__name__}: {error}"
        request, where = describe_request(context.request.environ), error_location(error)
        log.info("%s returned %d in %s, %s, %s", request, status, context.trail, text, where)
        if workbench := context.request.app.workbench:
            workbench.recorder.note_error(context, error)


def _prefers_json(request: Request, *, default: bool) -> bool:
    """Return True if the client prefers JSON (RFC 9110, 12.5.1); `default` if it does not say."""
    offered = ["text/html", "application/json", _PROBLEM]
    best = request.accept.acceptable_offers(offered[::-1] if default else offered)
    return best[0][0] != "text/html" if best else default


def _wants_fragment(request: Request) -> bool:
    """Return True if a script wants one component only, by a fragment's URL or a posted form.

    htmx sends HX-Request, and one of two more headers if it wants a page after all.
    """
    environ = request.environ
    reads = environ["REQUEST_METHOD"] in READ_METHODS
    if reads and FRAGMENT not in environ.get("QUERY_STRING", ""):
        return False
    wants_page = "HTTP_HX_BOOSTED" in environ or "HTTP_HX_HISTORY_RESTORE_REQUEST" in environ
    by_htmx = environ.get("HTTP_HX_REQUEST") == "true" and not wants_page
    return by_htmx or environ.get("HTTP_NOVENTA_FRAGMENT") == "1"


def _retarget_headers(request: Request) -> list[tuple[str, str]]:
    """Return headers that make htmx replace the whole page instead of a component."""
    if "HTTP_HX_REQUEST" not in request.environ:
        return []
    return [("HX-Retarget", "body"), ("HX-Reswap", "innerHTML")]


_RESUBMIT_MESSAGES = {
    "other-session": "Your session has changed. Please submit the form again.",
    "old-ticket": "This form is out of date. Please submit it again.",
}


class Pages:
    """Responds to requests for pages: the whole page, one component of it, or a form's action."""

    def __init__(
        self, config: Config, components: Components, responder: Responder, policy: RequestPolicy
    ) -> None:
        self.components, self.responder, self.policy = components, responder, policy
        self.answers = responder.answers
        self._ticket_age: int = config["session.ticket_age"]

    def respond(self, context: RequestContext, page: Page) -> Answer:
        """Return the response to a request for `page`. Raises Rejection or ShortCircuit."""
        request, components = context.request, self.components
        wants_fragment = FRAGMENT in request.environ["QUERY_STRING"] and FRAGMENT in request.args
        if context.reads and not wants_fragment:
            return self.answers.page(self.render(context, page), context.status, context.headers)
        if context.reads:
            ticket = self._ticket(request, components.fragments, request.args)
        else:
            ticket = self._ticket(request, components.tickets, request.form)
            request.form.discard(components.tickets.field_name)
        named = components.by_name.get(ticket.component)
        compiled = named if ticket.component else components.by_page[page]
        if compiled is None or (ticket.action not in compiled.actions and not context.reads):
            raise Rejection(409, "unknown-action")
        if ticket.guards != components.guards:
            raise Rejection(409, "changed-guards")
        same_session = ticket.nonce == context.session.loaded_state["nonce"]
        age = time.time() - ticket.issued
        if not same_session or not -CLOCK_TOLERANCE <= age <= self._ticket_age:
            reason = "old-ticket" if same_session else "other-session"
            if context.reads or not self.policy.is_same_origin(request.environ):
                raise Rejection(403, reason)
            return self._ask_to_resubmit(context, page, ticket, reason)
        if context.reads:
            html = self._fragment(context, page, ticket, compiled)
            return self.answers.page(html, context.status, context.headers)
        self._check_page(context, page)
        self._run_ancestor_guards(context, ticket)
        return self._act(context, page, ticket, compiled)

    def _check_page(self, context: RequestContext, page: Page) -> None:
        """Let the page refuse or redirect before an action.

        It is loaded again to be rendered, so its changes to the session are rolled back here.
        """
        node = self._node(context, page)
        if node.compiled.load is None:
            return
        restore = context.session.checkpoint()
        in_new_transaction(context, node.load)
        restore()
        context.scope.new_transaction(writes=True)

    def _run_ancestor_guards(self, context: RequestContext, ticket: Ticket) -> None:
        for name, props in ticket.guarded_ancestors:
            context.trail.enter(name)
            self.components.by_name[name].check_guard(context, props)

    def _fragment(
        self, context: RequestContext, page: Page, ticket: Ticket, compiled: CompiledComponent,
        posted: ActionResult | None = None,
    ) -> str:  # fmt: skip
        """Render one component, if the page and the guards around it allow it."""
        self._node(context, page).load()
        self._run_ancestor_guards(context, ticket)
        return Rendering(self.components, context, posted).fragment(compiled, ticket)

    def _ticket(self, request: Request, tickets: Tickets, fields: Values[str]) -> Ticket:
        try:
            ticket = tickets.read(fields)
        except BadTicket as error:
            status = {"bad-signature": 403, "outdated-ticket": 409}.get(error.reason, 400)
            raise Rejection(status, error.reason) from None
        if ticket.path != request.full_path:
            raise Rejection(403, "other-page")
        convert = request.as_field_text
        ancestors = [(name, convert(props)) for name, props in ticket.guarded_ancestors]
        return ticket._replace(props=convert(ticket.props), guarded_ancestors=ancestors)

    def _ask_to_resubmit(
        self, context: RequestContext, page: Page, ticket: Ticket, reason: str
    ) -> Answer:
        """Show the form again with its values: it is too old, or a login changed the session."""
        request, session, text = context.request, context.session, _RESUBMIT_MESSAGES[reason]
        described = describe_request(request.environ)
        log.warning("refused %s: %s (403), form shown again", described, reason)
        session.flash(text, "warning")
        typed = ActionResult(ticket.instance, {"values": request.form, "errors": {"form": text}})
        html = in_new_transaction(context, lambda: self.render(context, page, typed))
        if not session.shown_flashes:  # the page shows none
            session.state["flashes"].pop()
            html = insert_notice(html, f'<p role="status">{escape(text)}</p>')
        answer = self._whole_page(context, html, 403)
        answer.headers["X-Noventa-Refused"] = reason
        return answer

    def _act(
        self, context: RequestContext, page: Page, ticket: Ticket, compiled: CompiledComponent
    ) -> Answer:
        """Run the action, then render the page or the component with its result."""
        if compiled.name:
            context.trail.enter(compiled.name)
            compiled.check_guard(context, ticket.props)
        action = compiled.actions[ticket.action]
        result = run_handler(context, action, ticket.props, retries=compiled.retries)
        if result.is_final:
            return self.responder.from_result(context, result)
        context.trail.leave(1)
        context.status, context.headers = result.status, [*result.headers]
        posted = ActionResult(ticket.instance, result.values)
        if _wants_fragment(context.request) and compiled.name and ticket.alone:
            show = functools.partial(self._fragment, context, page, ticket, compiled, posted)
            html = in_new_transaction(context, show)
            return self.answers.page(html, context.status, context.headers)
        html = in_new_transaction(context, lambda: self.render(context, page, posted))
        return self._whole_page(context, html, context.status)

    def _whole_page(self, context: RequestContext, html: str, status: int) -> Answer:
        """Return a whole page after a post. htmx must replace its page, and ignores a 403."""
        request = context.request
        if "HTTP_HX_REQUEST" not in request.environ or not _wants_fragment(request):
            return self.answers.page(html, status, context.headers)
        answer = self.answers.page(html, 422 if status == 403 else status, context.headers)
        answer.headerlist += _retarget_headers(request)
        return answer

    def render(
        self, context: RequestContext, page: Page, posted: ActionResult | None = None
    ) -> str:
        """Return the page's HTML. Raises ShortCircuit if a handler inside responds instead."""
        html, workbench = self._node(context, page, posted).html(), self.responder.workbench
        return html if workbench is None else workbench.with_notices(context, html)

    def _node(
        self, context: RequestContext, page: Page, posted: ActionResult | None = None
    ) -> Node:
        rendering = Rendering(self.components, context, posted)
        return Node(rendering, self.components.by_page[page], "", {**context.request.view_args})


class Dispatcher:
    """Finds the route of a request, runs the guards and calls the handler."""

    def __init__(self, registry: Registry, config: Config, router: Router, pages: Pages) -> None:
        self.registry, self.router, self.pages = registry, router, pages
        self.components, self.responder = pages.components, pages.responder
        self.policy, self.answers = pages.policy, pages.answers
        self.limits = {name: config[f"limits.{name}"] for name in _DEFAULT_LIMITS}
        self._health: str | None = config["server.health"]

    def dispatch(self, context: RequestContext) -> Answer:
        """Return the response to a request. Raises Rejection, ShortCircuit or HTTPException."""
        request, environ = context.request, context.request.environ
        if self._health is not None and environ.get("PATH_INFO") == self._health:
            return self._probe(context)
        workbench = self.responder.workbench
        if workbench is not None:
            workbench.check_debug_client(environ)
        elif not self.policy.allows_any_host:
            self.policy.check_host(environ)
        path, method = request.check(), environ["REQUEST_METHOD"]
        if workbench is not None and path.startswith(workbench.path):
            return workbench.page(context, path)
        match = self.router.match(path, method)
        if match is not None:
            self._enter_route(context, match)
        if not isinstance(context.route, Static):
            for guard in self.registry.guards or ():
                run_guard(context, guard)
        if match is None:
            return self._redirect_slash(context, path)
        return self._run_route(context, match)

    def _run_route(self, context: RequestContext, match: Match) -> Answer:
        """Run the route's guards, then respond according to its type."""
        route, environ = match.route, context.request.environ
        method = environ["REQUEST_METHOD"]
        is_accepted = method in match.methods or not match.methods
        if not context.reads and is_accepted:
            self.policy.check_origin(environ, route)
        for guard in route.guards or ():
            run_guard(context, guard)
        if not is_accepted:
            return self._other_method(method, match.methods)
        if context.reads and route.replica:
            context.scope.read_from_replica()
        has_body = environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ
        if has_body or not context.reads:
            self._prepare_body(context, route)
        if isinstance(route, Page):
            return self.pages.respond(context, route)
        if isinstance(route, Endpoint):
            return self._endpoint(context, route)
        if isinstance(route, Mount):
            return self._mount(context, route, match.tail)
        answer = self.components.static.respond(context.request, cast(Static, route), match.tail)
        self.answers.complete(answer)
        return answer

    def _probe(self, context: RequestContext) -> Answer:
        """Respond to a health probe, under any Host, if the database is reachable."""
        options = {INTERNAL_STATEMENT: True}
        context.scope.database.scoped.execute(sa.select(1), execution_options=options)
        return self.answers.make("text/plain; charset=UTF-8", b"ok\n")

    def _enter_route(self, context: RequestContext, match: Match) -> None:
        """Set the matched route, even if it does not accept the method."""
        request, route = context.request, match.route
        if match.view_args:
            request.view_args = request.as_field_text(match.view_args)
        context.route, context.is_api = route, route.is_api
        context.trail.enter(getattr(route, "template", route.path))
        if context.reads and not context.scope.writes:
            context.scope.writes = context.begins_as_writer

    def _redirect_slash(self, context: RequestContext, path: str) -> Answer:
        """Redirect to the path with or without its trailing slash, if only that one has a route."""
        other = self.router.slash_variant(path)
        if other is None:
            raise webob.exc.HTTPNotFound
        query = quote(context.request.query_string.encode("latin-1"), safe=_SAFE_IN_URL)
        target = quote(other, safe=f"{_SAFE_IN_PATH};")
        response = Redirect(f"{target}?{query}" if query else target, status=308)
        return self.responder.from_response(context, response)

    def _other_method(self, method: str, methods: Iterable[str]) -> Answer:
        """Respond to OPTIONS, and refuse any other method that the path does not accept."""
        allow = ", ".join(sorted({*methods, "OPTIONS"}))
        if method != "OPTIONS":
            raise Rejection(405, "method", {"Allow": allow})
        answer = self.answers.page("", 204)
        answer.headers["Allow"] = allow
        return answer

    def _prepare_body(self, context: RequestContext, route: Route) -> None:
        """Apply the route's limits to the body before it is read."""
        request = context.request
        if route.is_prefix:  # mounted applications have their own limits, files read no body
            return
        request.limits = {**self.limits, **route.limits}
        if not context.reads and request.media_type and not route.is_api:
            _ = request.form_type
        request.limit_body()
        context.scope.end_transaction()  # a slow client must not hold the guards' connection
        if route.is_api:
            request.buffer_body()

    def _endpoint(self, context: RequestContext, route: Endpoint) -> Answer:
        handler, view_args = route.handler, context.request.view_args
        result = run_handler(context, handler, view_args, retries=route.retries, is_api=True)
        if result.is_final:
            return self.responder.from_result(context, result)
        body = encode_json(result.values, handler)
        answer = self.answers.make("application/json", body, result.status)
        return add_headers(answer, result.headers)

    def _mount(self, context: RequestContext, route: Mount, tail: str) -> Answer:
        context.mounted = True
        context.scope.end_transaction(expire=False)
        environ = context.request.environ.copy()
        path, tail = environ["PATH_INFO"], tail.encode("utf-8").decode("latin-1")
        environ["SCRIPT_NAME"] += path[: len(path) - len(tail)]
        environ["PATH_INFO"] = tail
        # PEP 3333 lets it replace an unsent response; without `catch_exc_info` WebOb would raise.
        inner = webob.request.BaseRequest(environ)
        response = inner.send(route.application, catch_exc_info=True)
        return self.responder.from_response(context, response)


_SAVEPOINT = re.compile("(?:RELEASE |ROLLBACK TO )?SAVEPOINT ")


def is_query(statement: str, context: Any) -> bool:
    """Return True unless Noventa itself sent the statement.

    Savepoints do not count: a sandbox turns commits into them.
    """
    return not (_SAVEPOINT.match(statement) or context.execution_options.get(INTERNAL_STATEMENT))


class Queries(list[str]):
    """SQL statements in the order they were sent. The repr counts repeated ones."""

    def __repr__(self) -> str:
        counts = Counter(" ".join(statement.split()) for statement in self)
        lines = (f"\n{count:5} x {statement}" for statement, count in counts.items())
        return f"{len(self)} {'query' if len(self) == 1 else 'queries'}{''.join(lines)}"


class App:
    """A WSGI application: `App(registry, Config.load(folder))`.

    Raises RegistryError with all problems of the registry and its templates, and ConfigError if
    the starter's secret key is used without debug. `database` is for work outside requests and
    for tests; `jinja` is the template environment.
    """

    def __init__(self, registry: Registry, config: Config) -> None:
        if not config["debug"] and (problems := config.starter_key_problems()):
            raise ConfigError("\n".join(problems))
        self.registry, self.config = registry, config
        self.router, self.components = compile_registry(registry, config)
        self.jinja = self.components.jinja
        self.database = Database(config)
        self._compare_revisions()
        self.sessions = SessionCookies(config)
        self.responder = Responder(config, self.components, self.sessions, self.database)
        pages = Pages(config, self.components, self.responder, RequestPolicy(config))
        self.dispatcher = Dispatcher(registry, config, self.router, pages)
        self.workbench: Workbench | None = None
        if config["debug"]:
            from noventa_cli import Workbench  # noqa: PLC0415 - never loaded in production

            self.workbench = self.responder.workbench = Workbench(self)

    def __repr__(self) -> str:
        return f"<App {self.config.root.name}, {self.database!r}>"

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        with Scope(self.database, writes=environ["REQUEST_METHOD"] not in READ_METHODS) as scope:
            answer = self.respond(environ, scope)
            return send(answer, environ, start_response, scope)

    def respond(self, environ: dict[str, Any], scope: Scope) -> Answer:
        """Return the response to a request, whatever happens.

        A GET is run again as a writer if the reader refused a statement, and on the primary if
        its replica failed.
        """
        reads = environ["REQUEST_METHOD"] in READ_METHODS
        while True:
            request = Request(environ)
            context = self._context(request, self.sessions.open(request), scope, reads=reads)
            if self.workbench is None:
                answer = self._respond_once(context)
            else:
                answer = self.workbench.recorder.respond(context, self._respond_once)
            if not scope.needs_retry:
                break
            if hasattr(answer.app_iter, "close"):  # the handler swallowed the refusal
                answer.app_iter.close()
            if scope.refused:
                context.note_writer()
            context.request.rewind()
            scope.prepare_retry()
        if scope.wrote:
            context.note_writer()  # in a sandbox, whose reader refuses nothing
        return answer

    def _context(
        self, request: Request, session: Session, scope: Scope, *, reads: bool
    ) -> RequestContext:
        """Attach the application to a request and create its context."""
        request.app, request.limits = self, self.dispatcher.limits
        request.text_type = self.database.text_type
        request.cleanup_callbacks = scope.cleanup_callbacks
        return RequestContext(request, session, scope, reads=reads)

    def _respond_once(self, context: RequestContext) -> Answer:
        try:
            try:
                answer = self.dispatcher.dispatch(context)
            except (ShortCircuit, webob.exc.HTTPException) as error:
                answer = self.responder.from_short_circuit(context, error)
            return self.responder.finish(context, answer)
        except (Exception, SystemExit) as error:
            if context.scope.is_refused(error) or context.scope.is_replica_failure(error):
                return Answer(_status_line(500), [], [])  # never sent: respond() retries
            # In a server's worker thread, SystemExit would leave the client hanging. In the main
            # thread, it may be how the server stops.
            in_main = threading.current_thread() is threading.main_thread()
            if isinstance(error, SystemExit) and in_main:
                raise
            return self.responder.from_exception(context, error)

    @contextmanager
    def count_queries(self) -> Iterator[Queries]:
        """Collect the statements that requests and sessions send within the block.

        `with app.count_queries() as queries: client.get("/")`, then `len(queries) == 2`.
        """
        queries = Queries()

        def note(*arguments: Any) -> None:
            _, _, statement, _, context, _ = arguments
            if is_query(statement, context):
                queries.append(statement)

        for engine in self.database.engines:
            event.listen(engine, "before_cursor_execute", note)
        try:
            yield queries
        finally:
            for engine in self.database.engines:
                event.remove(engine, "before_cursor_execute", note)

    def render(
        self, name: str, /, *, request: Request | None = None,
        session: Mapping[str, Any] | None = None, **props: Any,
    ) -> str:  # fmt: skip
        """Return a component's HTML without a page or HTTP, for a test or an email.

        `session` is the session or its data. Raises ShortCircuit if its guard or a handler inside
        responds instead.
        """
        request = request or Request.blank("/")
        with self._standalone_context(request, session, writes=False) as context:

            def show() -> str:
                rendering = Rendering(self.components, context)
                return Node(rendering, self.components.find(name), "", {}).component(name, **props)

            return in_new_transaction(context, show)

    def act(
        self, action: str, posted: Mapping[str, Any] | Request | None = None, /, *,
        session: Mapping[str, Any] | None = None, **props: Any,
    ) -> Any:  # fmt: skip
        """Run an action after its guard and return its result: `app.act("user.update_user")`.

        `posted` is the form's fields or a whole request, `session` the session or its data. As
        after any post, uncommitted changes are rolled back and reported. Raises ShortCircuit if
        the guard responds.
        """
        if not isinstance(posted, Request):
            posted = Request.blank("/", POST=posted or {})
        name, _, action = action.rpartition(".")
        compiled = self.components.find(name)
        handler = compiled.find_action(action)
        compiled.check_props(props, action)
        with self._standalone_context(posted, session, writes=True) as context:
            compiled.check_guard(context, props)
            return run_handler(context, handler, props, retries=compiled.retries).returned

    @contextmanager
    def _standalone_context(
        self, request: Request, session: Mapping[str, Any] | None, *, writes: bool
    ) -> Iterator[RequestContext]:
        """Yield the context for handlers that run without an HTTP request."""
        if not isinstance(session, Session):
            data, session = session or {}, self.sessions.read({})
            session.update(data)
        with self.database.scope(writes=writes) as scope:
            yield self._context(request, session, scope, reads=not writes)

    def _compare_revisions(self) -> None:
        """Warn, or raise with `migrations.on_mismatch: refuse`, if the database is not at head."""
        mismatch = revision_mismatch(self.config, self.database.engine)
        if problem := pooler_problem(self.config, self.database.engine):
            log.warning("%s", problem)
        self.database.dispose()  # a server may fork after this
        if mismatch and self.config["migrations.on_mismatch"] == "refuse":
            raise NoventaError(mismatch)
        if mismatch:
            log.warning("%s", mismatch)


class Stream:
    """A body that is generated while it is sent, and may use `db`.

    Its connection is in the pool between chunks, unless a result is being read row by row.
    """

    def __init__(self, chunks: Iterable[bytes], scope: Scope) -> None:
        self._closed = False
        self._scope = scope
        self._chunks = iter(chunks)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        with self._scope.activated():
            try:
                return next(self._chunks)
            except StopIteration:
                raise
            except Exception as error:
                log.error("a streamed body failed: %s", type(error).__name__, exc_info=error)
                raise
            finally:
                if rows := self._scope.uncommitted():
                    changes = ", ".join(rows)
                    log.warning("a streamed body changed rows without db.commit(): %s", changes)
                self._scope.end_transaction(expire=False)

    def close(self) -> None:
        """Close the body and its session. WSGI servers call this even after an error."""
        if not self._closed:
            self._closed = True
            with self._scope.activated():
                self._scope.close()

    def __del__(self) -> None:  # for servers that never call close()
        self.close()


def send(
    answer: Answer, environ: Mapping[str, Any], start_response: StartResponse, scope: Scope
) -> Iterable[bytes]:
    """Send a response by the WSGI protocol (PEP 3333). A streamed body takes over the scope."""
    body = answer.app_iter
    is_complete = isinstance(body, _COMPLETE_TYPES)
    if not is_complete:
        if hasattr(body, "close"):
            scope.cleanup_callbacks.append(body.close)
        scope.end_transaction(expire=False)
    start_response(answer.status, answer.headerlist)
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    if is_complete:
        return body
    scope.begin_stream()
    return Stream(body, scope)
