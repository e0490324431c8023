"""Write the guide's reference page from the code: `python -m tests.reference`.

Signatures, docstrings, settings, commands and options come from the code. This file adds what the
code cannot say: one example for each name, the chapter that explains it, and what a log word means.
tests/test_reference.py runs the examples and fails when the page or this file is out of date.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml
from sqlalchemy.util import memoized_property

import noventa
import noventa_cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "templates" / "guide" / "reference.md"
DATA = yaml.safe_load((ROOT / "tests" / "data" / "reference.yaml").read_text("utf-8"))

INTERNAL = {  # public by name, but for Noventa itself
    "App": {"respond"},
    "Component": {"label"},
    "Config": {"driver_options", "replica_urls", "starter_key_problems"},
    "Database": {
        "dispose", "is_known_to_write", "new_session", "note_writer", "refresh_sandbox",
        "report_outage", "scope", "scope_now",
    },
    "Page": {"label"},
    "Route": {"segments"},
    "Result": {"is_final"},
    "Registry": {"listed_models", "pages", "tables"},
    "Request": {
        "GET", "POST", "as_field_text", "as_text", "authorization", "body_file_raw", "buffer_body",
        "charset", "check", "client_addr", "close_files", "field_values",
        "form_type", "full_path", "json_body", "length", "limit_body", "make_tempfile",
        "media_type", "parsed_form", "prefix", "read_body", "read_limited", "rewind", "text",
    },
    "Session": {
        "checkpoint", "finish_handler", "flashes", "forbid", "loaded_state", "nonce", "state",
        "touched",
    },
    "SessionCookies": {"open", "save"},
    "Values": {"discard", "pairs"},
}  # fmt: skip
GIVEN = {  # classes that are not imported, and where an application meets them
    "Fault": "an item of `RegistryError.faults`",
    "Flash": "an item of `flashes()`",
    "Queries": "the list that `app.count_queries()` collects",
    "Result": "`ShortCircuit.result`",
    "SessionCookies": "`app.sessions`",
    "Values": "`request.args`, `request.form`, `request.files` and `request.cookies`",
}
DOCUMENTED = (  # kinds of members
    FunctionType, classmethod, property, functools.cached_property, memoized_property,
)  # fmt: skip
COMMAND_LINE = ("main", "run_migrations", "migrate_to_head")  # of noventa_cli, for programs


def link(chapter: str) -> str:
    """Return a link to a chapter, which may be followed by `#` and a heading's slug."""
    name, hash_sign, slug = chapter.partition("#")
    return f"[{name}]({name}.md{hash_sign}{slug})"


def public_members(cls: type) -> list[str]:
    """Return the methods and properties of a public class, without internal ones."""
    found = [
        name
        for base in cls.__mro__
        if base.__module__ == "noventa"
        for name, value in vars(base).items()
        if not name.startswith("_") and isinstance(value, DOCUMENTED)
    ]
    internal = {name for base in cls.__mro__ for name in INTERNAL.get(base.__name__, ())}
    internal |= {*getattr(cls, "_fields", ())}  # in the signature
    return [name for name in dict.fromkeys(found) if name not in internal]


class Source(str):
    """An annotation or default that `str(signature)` shows as it is written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(function: Callable[..., Any], name: str) -> str:
    """Return the signature as it is written in Python, without `self`, `cls` and `where`."""
    try:
        parsed = inspect.signature(function)
    except ValueError:  # an exception that takes what Exception takes
        return f"{name}(message)"
    fields = getattr(function, "__annotations__", {})  # a NamedTuple's are not in its signature
    parameters = []
    for parameter in parsed.parameters.values():
        is_where = parameter.name == "where" and parameter.kind is parameter.KEYWORD_ONLY
        if is_where or parameter.name in ("self", "cls", "_"):
            continue
        annotation = fields.get(parameter.name, parameter.annotation)
        annotation = getattr(annotation, "__forward_arg__", annotation)
        changes = {"annotation": Source(annotation)} if isinstance(annotation, str) else {}
        if "factory" in repr(parameter.default):
            changes["default"] = Source("{}")
        parameters.append(parameter.replace(**changes))
    returned = parsed.return_annotation
    is_shown = isinstance(returned, str) and not inspect.isclass(function)
    returned = Source(returned) if is_shown else parsed.empty
    return f"{name}{parsed.replace(parameters=parameters, return_annotation=returned)}"


def docstring(thing: Any) -> str:
    """Return the docstring, each paragraph on one line."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(thing) or "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def block(language: str, text: str) -> str:
    return f"```{language} no-run\n{text.rstrip()}\n```\n"


def described(heading: str, shown: str, text: str, name: str) -> Iterator[str]:
    """Yield a heading, the signature, the docstring, the chapter and the example of a name."""
    example, chapter = DATA["python"][name]
    yield f"{heading}\n\n{block('python', shown)}\n{text}\n\nExample ({link(chapter)}):\n"
    yield block("python", example)


def api() -> Iterator[str]:
    """Yield every public class and function of noventa, with the members of classes."""
    for name in sorted([*noventa.__all__, *GIVEN]):
        thing, text = getattr(noventa, name), docstring(getattr(noventa, name))
        shown = signature(thing, name)
        if name in GIVEN:
            has_fields = hasattr(thing, "_fields") or dataclasses.is_dataclass(thing)
            shown = shown if has_fields else name
            text += f" You do not import it; you receive it as {GIVEN[name]}."
        yield from described(f"### {name}", shown, text, name)
        for member in public_members(thing) if inspect.isclass(thing) else ():
            full, value = f"{name}.{member}", inspect.getattr_static(thing, member)
            function = getattr(value, "__func__", value)
            shown = signature(function, full) if inspect.isfunction(function) else full
            yield from described(f"#### {full}", shown, docstring(value), full)
    for name in COMMAND_LINE:
        function = getattr(noventa_cli, name)
        shown = f"from noventa_cli import {name}\n\n{signature(function, name)}"
        yield from described(f"### {name}", shown, docstring(function), name)


def row(*cells: object) -> str:
    texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(texts)} |"


def table(*titles: str) -> str:
    return f"{row(*titles)}\n{row(*['---'] * len(titles))}"


def names(part: str, title: str) -> Iterator[str]:
    """Yield a table of names with their meaning, an example and the chapter."""
    yield table(title, "meaning", "example", "chapter")
    for name, (meaning, example, chapter) in DATA[part].items():
        yield row(f"`{name}`", meaning, f"`{example}`", link(chapter))


def settings() -> Iterator[str]:
    """Yield a table of the settings with their types, defaults and meanings."""
    yield table("setting", "type", "default", "meaning", "example", "chapter")
    for setting in noventa.SETTINGS:
        example, chapter = DATA["settings"][setting.name]
        default = json.dumps(setting.default).replace('"', "")
        choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
        yield row(
            f"`{setting.name}`", setting.type, "–" if default == "null" else f"`{default}`",
            setting.help + choices, f"`{example}`", link(chapter),
        )  # fmt: skip


def commands() -> Iterator[str]:
    """Yield every command with its help, arguments and options."""
    for name, arguments in noventa_cli.COMMANDS.items():
        example, chapter = DATA["commands"][name]
        text = docstring(noventa_cli._function(name))
        yield f"### noventa {name}\n\n{text}\n\nExample ({link(chapter)}):\n"
        yield block("console", f"$ {example}")
        if arguments:
            yield table("argument", "meaning")
            for flag, options in arguments.items():
                words = [flag] if flag.startswith("-") else []
                words += [options["metavar"]] if "metavar" in options else []
                yield row(f"`{' '.join(words)}`", options["help"])
            yield ""


def log_words() -> Iterator[str]:
    """Yield a table of the reasons for which a request is rejected, with their statuses."""
    yield table("reason", "status", "meaning", "example", "chapter")
    for reason, (statuses, meaning, example, chapter) in DATA["log words"].items():
        yield row(f"`{reason}`", statuses, meaning, f"`{example}`", link(chapter))


def messages() -> Iterator[str]:
    """Yield a table of the logger's other messages, each by an example."""
    yield table("message", "meaning", "chapter")
    for example, meaning, chapter in DATA["messages"].values():
        yield row(f"`{example}`", meaning, link(chapter))


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "Python": api,
    "Keys of a handler's result": lambda: names("results", "key"),
    "Template functions and variables": lambda: names("templates", "name"),
    "Settings": settings,
    "Environment variables": lambda: names("environment", "variable"),
    "Commands": commands,
    "Headers": lambda: names("headers", "header"),
    "Statuses": lambda: names("statuses", "status"),
    "Reasons in the log": log_words,
    "Other log messages": messages,
}


def page() -> str:
    """Return the whole page, in Markdown."""
    intro = DATA["intro"]
    text = f"<!-- project: none -->\n# Reference\n\n{intro['Reference']}\n"
    for title, part in PARTS.items():
        text += f"\n## {title}\n\n{intro[title]}\n\n" + "\n".join(part())
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
