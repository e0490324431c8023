"""Noventa's command line. Each command is a function; its docstring is its help.

    Entry                 `main(argv) -> int`: the parser only translates
    Output                what is printed, and how a fault is shown
    Projects              finding and importing a project, making a new one
    Server                waitress, reloading, stopping
    Migrations and seeds  what env.py runs, and the commands around Alembic
    Inspection            check, routes, shell
"""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.util
import inspect
import ipaddress
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time only inside functions: `--help` must not wait for SQLAlchemy
    from noventa import App, Config, Registry

# ---- Entry ----------------------------------------------------------------------------------

# Every command with its arguments; the function of that name gets them by name.
COMMANDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "new": {
        "name": {"metavar": "NAME", "help": "the folder to make; its last part is the name"},
        "--serve": {"action": "store_true", "dest": "and_serve", "help": "serve it at once"},
    },
    "serve": {
        "--host": {"help": "instead of server.host"},
        "--port": {"type": int, "help": "instead of server.port; 0 takes a free one"},
        "--threads": {"type": int, "help": "instead of server.threads"},
        "--reload": {"action": "store_true", "help": "restart when Python or config.yaml changes"},
        "--debug": {"action": "store_true", "help": "as debug: true; on this machine only"},
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
    },
    "routes": {"--json": {"action": "store_true", "dest": "as_json", "help": "for programs"}},
    "shell": {},
}  # fmt: skip


def run() -> None:
    """The console script `noventa`."""
    raise SystemExit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 when done, 1 for a fault the user can mend, 2 for wrong usage."""
    try:
        options = _parse(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as end:  # argparse's way to leave, also after --help
        return int(end.code or 0)
    from noventa import NoventaError

    try:
        return _run(options)
    except NoventaError as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return 130  # as shells report SIGINT


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, own = _parser(), argparse.ArgumentParser("noventa", add_help=False, allow_abbrev=False)
    own.add_argument("--project", metavar="DIR", default=".")  # it may stand anywhere
    known, rest = own.parse_known_args(argv)
    name = next(iter(rest), "--help")
    if not name.startswith("-") and name not in COMMANDS:
        from noventa import did_you_mean

        parser.error(f"{name!r} is no command; {did_you_mean(name, COMMANDS)}")
    if name == "migrate" and rest[1:2] not in (["-h"], ["--help"]):
        known.command, known.arguments = name, rest[1:]  # Alembic parses its own
        return known
    return parser.parse_args(rest or ["--help"], known)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="noventa",
        description="Noventa: server-rendered pages made of components, on a real database.",
        epilog="`noventa COMMAND --help` says more. Exit: 0 done, 1 a fault, 2 wrong usage.",
    )
    parser.add_argument("--project", metavar="DIR", help="the project's folder (default: here)")
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print it and leave"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, arguments in COMMANDS.items():
        text = inspect.getdoc(_function(name)) or ""
        sub = commands.add_parser(
            name, help=text.splitlines()[0], description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        for flag, settings in arguments.items():
            sub.add_argument(flag, **settings)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from noventa import __version__

        say(f"noventa {__version__}")
        parser.exit()


def _run(options: argparse.Namespace) -> int:
    values = vars(options)  # named as the function's parameters are
    name, place = values.pop("command"), Path(values.pop("project"))
    if name == "new":
        return new(str(place / values.pop("name")), **values)
    root = place.resolve()
    with project_imports(root):
        subject = root if name in ("serve", "check") else load_project(root)
        return _function(name)(subject, **values)


def _function(command: str) -> Callable[..., int]:
    return {
        "new": new, "serve": serve, "migrate": migrate, "seed": seed, "check": check,
        "routes": routes, "shell": shell,
    }[command]  # fmt: skip


# ---- Output ---------------------------------------------------------------------------------


def say(text: str) -> None:
    """Progress, for people: to standard output, at once."""
    print(text, flush=True)


def complain(text: str) -> int:
    """A fault, to standard error. Returns the exit code that belongs to it."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    return 1


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows, of equal length, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


# ---- Projects -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """A project as the commands see it: its folder, its settings, its registry."""

    root: Path
    config: Config
    registry: Registry


def data_folder(name: str) -> Path:
    """A folder that is shipped with Noventa: beside the installed module, or in the sources."""
    beside = Path(__file__).resolve().parent
    packed = beside / "noventa_data" / name
    return packed if packed.is_dir() else beside / name


@contextmanager
def project_imports(root: Path) -> Iterator[None]:
    """Lets `registry`, `components.…` and the like mean those of `root`, and forgets them after.

    Several projects may be used in one process, one after the other: every project has a
    module `registry`, so what another one imported steps aside meanwhile.
    """
    path, before = sys.path[:], dict(sys.modules)
    strangers = {name for name, folder in _project_modules().items() if folder != root}
    for name in strangers:
        del sys.modules[name]
    own = [entry for entry in path if not _is_project(Path(entry or ".").resolve())]
    sys.path[:] = [str(root), *own]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name, folder in _project_modules().items():
            if folder == root and name not in before:
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in strangers})
        sys.path[:] = path


def load_project(root: Path) -> Project:
    """The project in `root`; to be called inside `project_imports(root)`. Raises NoventaError."""
    from noventa import Config

    config = Config.load(root)
    return Project(root, config, load_registry(root))


def load_registry(root: Path) -> Registry:
    """What `registry.py` calls `registry`. Raises NoventaError."""
    from noventa import NoventaError, Registry

    module = import_from_project("registry", root)
    if not hasattr(module, "registry"):
        raise NoventaError("registry.py defines no `registry`; write registry = Registry(…).")
    if not isinstance(module.registry, Registry):
        kind = type(module.registry).__name__
        raise NoventaError(f"registry.py: `registry` is a {kind}; expected Registry(…).")
    return module.registry


def import_from_project(name: str, root: Path) -> ModuleType:
    """The project's module `name`. Raises NoventaError saying which line of which file fails."""
    from noventa import NoventaError

    if not (root / f"{name}.py").is_file():
        raise NoventaError(
            f"{root / name}.py does not exist; give the project's folder with --project,"
            " or make a project with `python -m noventa new NAME`."
        )
    try:
        return importlib.import_module(name)
    except NoventaError:
        raise
    except Exception as error:  # whatever the user's code may raise
        place, text = _origin(error, root) or f"{name}.py", getattr(error, "msg", error)
        raise NoventaError(
            f"{name}.py cannot be imported: {place}: {type(error).__name__}: {text}"
        ) from error


def new(name: str, *, and_serve: bool = False) -> int:
    """Makes a project that works: migrated, seeded and tested, step by step."""
    from noventa import NoventaError

    folder = Path(name).resolve()
    _refuse_folder(folder)
    say(f"Making {folder}")
    _write_starter(folder)
    with project_imports(folder):
        project = load_project(folder)
        for title, step, mend in _STEPS:
            say(f"\n{title}:")
            try:
                failed = step(project)
            except NoventaError as error:
                failed = complain(str(error))
            if failed:
                raise NoventaError(
                    f"\n{folder} was made, but this step failed: {title.lower()}. Mend what is"
                    f" said above, then go on in that folder with: {mend}"
                )
        say(_next_commands(folder))
        return serve(folder) if and_serve else 0


_STEPS: Sequence[tuple[str, Callable[[Project], int], str]] = (
    (
        "The first migration, written from the models",
        lambda project: migrate(project, ["revision", "--autogenerate", "-m", "First tables"]),
        'python -m noventa migrate revision --autogenerate -m "First tables"',
    ),
    ("Applying it", lambda project: migrate(project, []), "python -m noventa migrate"),
    ("The first rows", lambda project: seed(project), "python -m noventa seed"),
    ("Its own tests", lambda project: _run_tests(project), "python -m pytest"),
)


def _refuse_folder(folder: Path) -> None:
    from noventa import NoventaError

    name = folder.name
    if name.lower() in ("noventa", "noventa_cli", "noventa_data"):
        raise NoventaError(f"{name!r} is the name of Noventa's own module; choose another.")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise NoventaError(
            f"{name!r} is no name for a project; expected letters, digits, - and _, a letter first."
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise NoventaError(f"{folder} exists and is not an empty folder; choose another name.")


def _write_starter(folder: Path) -> None:
    import jinja2

    environment = jinja2.Environment(autoescape=True, keep_trailing_newline=True)
    values = {"name": folder.name, "secret_key": STARTER_KEY + secrets.token_hex(32)}
    sources = {
        data_folder("templates") / "project": folder,
        data_folder("migrations_skeleton") / "seed": folder / "migrations" / "seed",
    }
    for origin, target in sources.items():
        for source in sorted(origin.rglob("*")):
            if "__pycache__" in source.parts or not source.is_file():
                continue
            text = source.read_text("utf-8")
            written = target / source.relative_to(origin)
            if source.suffix == ".jinja":
                text = environment.from_string(text).render(values)
                written = written.with_name(_STARTER_NAMES.get(source.name, source.stem))
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(text, "utf-8")


STARTER_KEY = "starter-"  # how a secret key begins that `new` wrote, for `check --deploy`
_STARTER_NAMES = {"gitignore.jinja": ".gitignore"}  # ours would hide what it names from the wheel


def _run_tests(project: Project) -> int:
    missing = [name for name in ("pytest", "webtest") if not importlib.util.find_spec(name)]
    if missing:
        say(f"  not run: pip install {' '.join(missing)}, then `python -m pytest` there")
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short"]
    return subprocess.run(command, cwd=project.root, check=False).returncode  # noqa: S603


def _next_commands(folder: Path) -> str:
    shown = os.path.relpath(folder)
    return (
        f"\n{folder.name} is ready. Next:\n"
        f"  cd {folder if shown.startswith('..') else shown}\n"
        "  python -m noventa serve --reload\n"
        '  python -m noventa migrate revision --autogenerate -m "…"    after changing models\n'
        "  python -m noventa check"
    )


def _is_project(folder: Path) -> bool:
    return (folder / "registry.py").is_file() and (folder / "config.yaml").is_file()


def _project_modules() -> dict[str, Path]:
    """Each loaded module that lies in a project, with the project's folder.

    Judged by the module's own name and file: a .venv inside a project is not part of it.
    """
    found: dict[str, Path] = {}
    known: dict[Path, bool] = {}
    for name, module in list(sys.modules.items()):
        folder = _import_root(name, module)
        if folder and folder not in known:
            known[folder] = _is_project(folder)
        if folder and known[folder]:
            found[name] = folder
    for name, folder in list(found.items()):  # `components` itself has no file to judge by
        while name := name.rpartition(".")[0]:
            found.setdefault(name, folder)
    return found


def _import_root(name: str, module: Any) -> Path | None:
    """The folder on `sys.path` that a module was found in."""
    file = getattr(module, "__dict__", {}).get("__file__")
    if not file or name == "__main__" or name.startswith("noventa"):
        return None
    parents, depth = Path(file).parents, name.count(".") + file.endswith("__init__.py")
    return parents[depth] if depth < len(parents) else None


def _origin(error: BaseException, root: Path) -> str | None:
    """`components/user/user_logic.py:3`: the project's line that raised, or cannot be parsed."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    for file, line in reversed(places):
        if Path(file).is_relative_to(root):
            return f"{Path(file).relative_to(root)}:{line}"
    return None


# ---- Server ---------------------------------------------------------------------------------

_PARENT = "NOVENTA_RELOADER"  # in the environment of a server that --reload started: who did
_DRAIN_SECONDS = 30  # for requests under way when the server is told to stop
_WATCH_SECONDS = 0.5
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def serve(
    root: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    threads: int | None = None,
    reload: bool = False,
    debug: bool = False,
) -> int:
    """Serves `wsgi:application` with waitress until SIGINT or SIGTERM.

    Requests under way are answered before it stops. --reload restarts it after a change of a
    Python file or config.yaml, and waits where a fault keeps it from starting.
    """
    from noventa import Config

    if reload and _PARENT not in os.environ and (root / "config.yaml").is_file():
        return _supervise(root)
    if debug:
        os.environ["NOVENTA_DEBUG"] = "1"
    config = Config.load(root)
    host = config["server.host"] if host is None else host
    port = config["server.port"] if port is None else port
    _refuse_open_debug(config, host)
    application = _application(root)
    _configure_logging(config["log_level"])
    sockets: dict[int, Any] = {}
    server = _listen(
        _with_access_log(application), host, port, map=sockets,
        threads=threads or config["server.threads"],
        max_request_body_size=_body_limit(load_registry(root), config),
    )  # fmt: skip
    say(f"Serving {config.root.name} at {_url(host, server)} (Ctrl+C stops)")
    _say_pending(config)
    with _stop_signals() as stopping:
        _answer_until(stopping, sockets)
    server.task_dispatcher.shutdown(timeout=1)
    return 0


def _refuse_open_debug(config: Config, host: str) -> None:
    from noventa import NoventaError

    if config["debug"] and not _is_loopback(host):
        raise NoventaError(
            f"debug shows source code to whoever can connect, so it is served on this machine"
            f" only, not on {host!r}; use --host 127.0.0.1, or set debug: false."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _application(root: Path) -> Any:
    from noventa import NoventaError

    module = import_from_project("wsgi", root)
    application = getattr(module, "application", None)
    if not callable(application):
        raise NoventaError("wsgi.py defines no `application`; write application = App(…).")
    return application


def _configure_logging(level: str) -> None:
    """Log lines to standard error, unless wsgi.py has already said where they go."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _OneLine(logging.Formatter):
    """A request's path or header cannot begin a line of its own, nor steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().formatMessage(record))


def _with_access_log(application: Any) -> Any:
    """`GET /users/7 200 3 ms`: no query, which may hold what nobody should read."""
    from noventa import described

    access = logging.getLogger("noventa.access")

    def logged(environ: dict[str, Any], start_response: Any) -> Any:
        began, status = time.perf_counter(), "-"

        def start(line: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, headers, *more)

        try:
            return application(environ, start)
        finally:
            taken = (time.perf_counter() - began) * 1000
            access.info("%s %s %.0f ms", described(environ), status, taken)

    return logged


def _listen(application: Any, host: str, port: int, **more: Any) -> Any:
    """Waitress' server, listening. Raises NoventaError."""
    import waitress

    from noventa import NoventaError

    try:
        return waitress.create_server(
            application, host=host, port=port, ident=None,
            # Clients that send half a request and wait shall not keep the others out.
            connection_limit=500, channel_timeout=30, cleanup_interval=5, asyncore_use_poll=True,
            **more,
        )  # fmt: skip
    except OSError as error:
        reason, remedy = error.strerror or str(error), "choose another with --host or --port"
        if error.errno == errno.EADDRINUSE:
            reason, remedy = "it is taken", f"stop what listens there, or try --port {port + 1}"
        raise NoventaError(f"Cannot listen on {host}, port {port}: {reason}; {remedy}.") from error
    except (ValueError, OverflowError) as error:
        raise NoventaError(f"Cannot listen on {host}, port {port}: no such address.") from error


def _body_limit(registry: Registry, config: Config) -> int:
    """Bytes of a body that waitress takes in before anybody is asked."""
    from noventa import Mount

    if any(isinstance(route, Mount) for route in registry.routes):
        return 2**30  # waitress' own: what is mounted has its own limits
    limits = (getattr(route, "limits", {}).get("body", 0) for route in registry.routes)
    return 1 + max(config["limits.body"], *limits, 0)


def _url(host: str, server: Any) -> str:
    port = getattr(server, "effective_port", None) or server.effective_listen[0][1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _say_pending(config: Config) -> None:
    from noventa import make_engine, revision_mismatch

    engine = make_engine(config)
    try:
        if text := revision_mismatch(config, engine):
            say(text)
    finally:
        engine.dispose()


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


def _answer_until(stopping: list[int], sockets: dict[int, Any]) -> None:
    """Runs waitress' loop; once `stopping`, until what is under way is answered."""
    from waitress import wasyncore

    def turn(seconds: float) -> None:
        wasyncore.loop(timeout=seconds, map=sockets, use_poll=True, count=1)

    parent = int(os.environ.get(_PARENT, "0"))
    while not stopping and parent in (0, os.getppid()):  # no orphan where the parent was killed
        turn(0.25)
    deadline = time.monotonic() + (3 if parent else _DRAIN_SECONDS)
    turn(0)  # takes in who has connected already
    for listener in [entry for entry in sockets.values() if entry.accepting]:
        wasyncore.dispatcher.close(listener)
    while time.monotonic() < deadline and _busy_channels(sockets):
        turn(0.05)


def _busy_channels(sockets: dict[int, Any]) -> int:
    """How many connections wait for an answer; the others are told to close."""
    busy = 0
    for channel in list(sockets.values()):
        if not hasattr(channel, "will_close"):  # waitress' own pipe
            continue
        if channel.requests or channel.request or channel.total_outbufs_len:
            busy += 1
        else:
            channel.will_close = True
    return busy


def _supervise(root: Path) -> int:
    """Runs this same command as a child, anew after each change, until it is told to stop."""
    environment = {**os.environ, _PARENT: str(os.getpid())}
    with _stop_signals() as stopping:
        while not stopping:
            seen = _source_times(root)
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, *sys.orig_argv[1:]], env=environment
            )
            try:
                _wait_for_change(root, seen, child, stopping)
            finally:
                _end(child)
    return 0


def _wait_for_change(
    root: Path, seen: object, child: subprocess.Popen[bytes], stopping: list[int]
) -> None:
    ended = False
    while not stopping and _source_times(root) == seen:
        if not ended and child.poll() is not None:
            ended = True
            say("The server has ended; waiting for a change.")
        time.sleep(_WATCH_SECONDS)
    if not stopping:
        say("Changed: starting again.")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _source_times(root: Path) -> dict[str, int]:
    """When each Python file of the project, and its config.yaml, was last changed."""
    times: dict[str, int] = {}
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if not (name.startswith((".", "__")) or name == "venv")]
        for file in files:
            if file.endswith(".py") or file == "config.yaml":
                with suppress(FileNotFoundError):
                    times[f"{folder}/{file}"] = Path(folder, file).stat().st_mtime_ns
    return times


# ---- Migrations and seeds -------------------------------------------------------------------

# ---- Inspection -----------------------------------------------------------------------------


def check(root: Path, *, deploy: bool = False) -> int:
    """Lists every fault of settings, registry, templates, models and migrations.

    Says `ok` where there is none; changes nothing and needs no server. --deploy adds what
    matters in production only, and advice, which is no fault.
    """
    config, faults = _settings_faults(root)
    faults += _registry_faults(root, config)
    if deploy:
        faults += _deploy_faults(config)
        for line in _deploy_advice(config):
            say(f"advice: {line}")
    if not faults:
        say("ok")
        return 0
    count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    return complain("\n".join([f"{count}:", *(f"  {fault}" for fault in faults)]))


def _settings_faults(root: Path) -> tuple[Config, list[str]]:
    """The settings, or the defaults where they have faults: the rest can be checked with them."""
    from noventa import Config, ConfigError

    try:
        return Config.load(root), []
    except ConfigError as error:
        return Config.from_mapping({}, root), str(error).splitlines()


def _registry_faults(root: Path, config: Config) -> list[str]:
    from noventa import App, NoventaError, RegistryError

    try:
        registry = load_registry(root)
    except NoventaError as error:
        return str(error).splitlines()
    faults: list[Any] = []
    try:
        App(registry, config).database.engine.dispose()
    except RegistryError as error:
        faults += error.faults
    except NoventaError as error:
        faults += str(error).splitlines()
    if not registry.faults():  # migrations can be judged only by models that are whole
        faults += migration_faults(Project(root, config, registry))
    return [str(fault) for fault in faults]


def _deploy_faults(config: Config) -> Iterator[str]:
    if config["debug"]:
        remedy = "unset NOVENTA_DEBUG" if "NOVENTA_DEBUG" in os.environ else "write debug: false"
        yield f"config.yaml: debug is true: errors show source code; {remedy}."
    remedy = 'write ["${NOVENTA_SECRET_KEY}"], and into the variable `openssl rand -hex 32`'
    if not config["secret_keys"]:
        yield f"config.yaml: secret_keys is empty: sessions and forms fail; {remedy}."
    for number, key in enumerate(config["secret_keys"]):
        if key.startswith(STARTER_KEY):
            yield f"config.yaml: secret_keys[{number}] is the starter's; {remedy}."
        elif key not in _values_from_environment(config):
            yield f"config.yaml: secret_keys[{number}] stands in the file; {remedy}."
    if not config["session.secure"]:
        yield (
            "config.yaml: session.secure is false: the cookie travels without encryption too;"
            " write session: {secure: true}."
        )
    if config.in_memory:
        yield "config.yaml: database is in memory: each process has its own; name a file."


def _values_from_environment(config: Config) -> set[str]:
    """What the entries of `secret_keys` become that hold a variable which is set."""
    import yaml

    document = yaml.safe_load((config.root / "config.yaml").read_text("utf-8")) or {}
    written = zip(document.get("secret_keys") or (), config["secret_keys"], strict=False)
    return {
        value for text, value in written
        if any(os.environ.get(name) for name in re.findall(r"\$\{(\w+)", text))
    }  # fmt: skip


def _deploy_advice(config: Config) -> Iterator[str]:
    if config.database_url.get_backend_name() == "sqlite":
        yield (
            "database is SQLite: all processes must run on one machine, with the file on its own"
            " disk, and one writes at a time; for several machines write"
            " database: postgresql+psycopg://…"
        )
    if _is_loopback(config["server.host"]):
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


def routes(project: Project, *, as_json: bool = False) -> int:
    """Prints each URL with what it is made of: page, guards, components, actions, tables."""
    from noventa import App

    app = App(project.registry, project.config)
    rows = [_route_row(route, app) for route in project.registry.routes]
    app.database.engine.dispose()
    if as_json:
        say(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    cells = [[" ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows]
    titles = [name.upper() for name in _ROUTE_COLUMNS]
    say(columns([titles, *([cell or "-" for cell in row] for row in cells)]))
    return 0


_ROUTE_COLUMNS = (
    "url", "kind", "methods", "target", "guards", "components", "actions", "tables",
)  # fmt: skip


def _route_row(route: Any, app: App) -> dict[str, Any]:
    """A row of the table; a page's `target` is its template, an endpoint's its function."""
    from noventa import Page, Registry, actions_of

    names = app.components.used_by(route.template) if isinstance(route, Page) else []
    used = [component for component in app.registry.components if component.name in names]
    guards = [*app.registry.guards, *route.guards, *(c.guard for c in used if c.guard)]
    tables = {table.name for c in used for table in Registry(models=c.models).tables}
    values = (
        route.path,
        type(route).__name__.lower(),
        list(getattr(route, "methods", ())),
        _target_of(route),
        [_name_of(guard) for guard in guards],
        [component.name for component in used],
        [f"{component.name}.{action}" for component in used for action in actions_of(component)],
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
    import code

    from noventa import App

    app = App(project.registry, project.config)
    models = _model_classes(project.registry)
    with app.database.session() as db, suppress(SystemExit):  # exit() ends the prompt only
        names = {**models, "db": db, "app": app, "registry": project.registry}
        banner = f"{project.root.name}: {', '.join(names)}. What db did stays after db.commit()."
        code.interact(banner, local=names, exitmsg="")
    return 0


def _model_classes(registry: Registry) -> dict[str, type]:
    listed = [model for component in registry.components for model in component.models]
    found: dict[str, type] = {}
    for model in [*listed, *registry.models]:
        members = vars(model).values() if isinstance(model, ModuleType) else [model]
        classes = (member for member in members if isinstance(member, type))
        found |= {cls.__name__: cls for cls in classes if "__mapper__" in vars(cls)}
    return found
