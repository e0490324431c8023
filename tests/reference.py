"""Writes the guide's reference page from the code: `python -m tests.reference`.

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
from typing import Any, NamedTuple

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


class Entry(NamedTuple):
    """One example and the chapter (with a heading's slug) that explains it."""

    example: str
    chapter: str

    @property
    def link(self) -> str:
        """A link to the chapter."""
        name, hash_sign, slug = self.chapter.partition("#")
        return f"[{name}]({name}.md{hash_sign}{slug})"


def entries(part: str) -> dict[str, Entry]:
    """The examples of one part of reference.yaml by name."""
    return {name: Entry(*fields) for name, fields in DATA[part].items()}


def public_members(cls: type) -> list[str]:
    """The methods and properties of a public class that have a docstring, without internal ones."""
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


def signature(function: Callable[..., Any], name: str) -> str:
    """The signature as it would be written in Python, without `self`, `cls` and `where`."""
    try:
        parsed = inspect.signature(function)
    except ValueError:  # an exception that takes what Exception takes
        return f"{name}(message)"
    parameters = [*parsed.parameters.values()]
    positional_only = [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY]
    last_positional = next(reversed(positional_only), None)
    parts, keyword_only = [], False
    for parameter in parameters:
        is_keyword = parameter.kind is parameter.KEYWORD_ONLY
        if parameter.name in ("self", "cls", "_") or (is_keyword and parameter.name == "where"):
            continue
        text = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            text, keyword_only = f"*{text}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
            keyword_only = True
        annotation = getattr(function, "__annotations__", {}).get(parameter.name)
        annotation = getattr(annotation, "__forward_arg__", annotation)  # of a NamedTuple
        annotation = annotation if isinstance(annotation, str) else parameter.annotation
        if isinstance(annotation, str):
            text += f": {annotation}"
        if parameter.default is not parameter.empty:
            default = "{}" if "factory" in repr(parameter.default) else repr(parameter.default)
            text += f" = {default}"
        parts.append(text)
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name == last_positional:
            parts.append("/")
    returned = parsed.return_annotation
    arrow = f" -> {returned}" if isinstance(returned, str) and not inspect.isclass(function) else ""
    return f"{name}({', '.join(parts)}){arrow}"


def docstring(thing: Any) -> str:
    """The docstring, its paragraphs on one line each."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(thing) or "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def described(heading: str, shown: str, text: str, entry: Entry) -> Iterator[str]:
    """A heading, the signature, the docstring, the chapter and the example."""
    yield f"{heading}\n\n```python no-run\n{shown}\n```\n\n{text}\n\nExample ({entry.link}):\n"
    yield f"```python no-run\n{entry.example.rstrip()}\n```\n"


def api() -> Iterator[str]:
    """Every public class and function of noventa, with the members of classes."""
    examples = entries("python")
    for name in sorted([*noventa.__all__, *GIVEN]):
        thing, text = getattr(noventa, name), docstring(getattr(noventa, name))
        shown = signature(thing, name)
        if name in GIVEN:
            has_fields = hasattr(thing, "_fields") or dataclasses.is_dataclass(thing)
            shown = shown if has_fields else name
            text += f" You do not import it; you receive it as {GIVEN[name]}."
        yield from described(f"### {name}", shown, text, examples[name])
        for member in public_members(thing) if inspect.isclass(thing) else ():
            full, value = f"{name}.{member}", inspect.getattr_static(thing, member)
            function = getattr(value, "__func__", value)
            is_method = inspect.isfunction(function)
            shown = signature(function, full) if is_method else full
            yield from described(f"#### {full}", shown, docstring(value), examples[full])
    for name in COMMAND_LINE:
        function = getattr(noventa_cli, name)
        shown = f"from noventa_cli import {name}\n\n{signature(function, name)}"
        yield from described(f"### {name}", shown, docstring(function), examples[name])


def cell(text: str) -> str:
    """The text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def row(*cells: str) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def table(*titles: str) -> str:
    return f"{row(*titles)}\n{row(*['---'] * len(titles))}"


def names(part: str, title: str) -> Iterator[str]:
    """A table of names with their meaning, an example and the chapter."""
    yield table(title, "meaning", "example", "chapter")
    for name, (meaning, *fields) in DATA[part].items():
        entry = Entry(*fields)
        yield row(f"`{name}`", meaning, f"`{entry.example}`", entry.link)


def settings() -> Iterator[str]:
    """Every setting with its type, default and meaning."""
    examples = entries("settings")
    yield table("setting", "type", "default", "meaning", "example", "chapter")
    for setting in noventa.SETTINGS:
        entry, default = examples[setting.name], "–"
        if setting.default is not None:
            default = json.dumps(setting.default).replace('"', "")
        choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
        yield row(
            f"`{setting.name}`", setting.type, f"`{default}`" if default != "–" else default,
            setting.help + choices, f"`{entry.example}`", entry.link,
        )  # fmt: skip


def commands() -> Iterator[str]:
    """Every command with its help, arguments and options."""
    examples = entries("commands")
    for name, arguments in noventa_cli.COMMANDS.items():
        entry = examples[name]
        text = docstring(noventa_cli._function(name))
        yield f"### noventa {name}\n\n{text}\n\nExample ({entry.link}):\n"
        yield f"```console no-run\n$ {entry.example}\n```\n"
        if arguments:
            yield table("argument", "meaning")
            for flag, options in arguments.items():
                shown = options.get("metavar", flag) if not flag.startswith("-") else flag
                value = options.get("metavar", "") if flag.startswith("-") else ""
                yield row(f"`{shown} {value}`".replace(" `", "`"), options["help"])
            yield ""


def log_words() -> Iterator[str]:
    """Every reason for which a request is rejected, with its statuses."""
    yield table("reason", "status", "meaning", "example", "chapter")
    for reason, (statuses, meaning, example, chapter) in DATA["log words"].items():
        yield row(f"`{reason}`", str(statuses), meaning, f"`{example}`", Entry("", chapter).link)


def messages() -> Iterator[str]:
    """Every other message of the logger, by an example."""
    yield table("message", "meaning", "chapter")
    for example, meaning, chapter in DATA["messages"].values():
        yield row(f"`{example}`", meaning, Entry("", chapter).link)


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
    """The whole page, in Markdown."""
    intro = DATA["intro"]
    text = f"<!-- project: none -->\n# Reference\n\n{intro['Reference']}\n"
    for title, part in PARTS.items():
        text += f"\n## {title}\n\n{intro[title]}\n\n" + "\n".join(part())
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
