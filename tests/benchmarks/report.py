"""Format the results as Markdown tables and as an SVG chart."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

TITLES = {
    "floor": "floor", "noventa": "Noventa", "bottle": "Bottle", "falcon": "Falcon",
    "flask": "Flask", "pyramid": "Pyramid", "django": "Django", "django_orm": "Django with its ORM",
    "inline": "inlined", "include": "Jinja include", "jinjax": "JinjaX",
    "libraries": "libraries only",
}  # fmt: skip
_PACKAGES = (
    "noventa-wsgi", "SQLAlchemy", "Jinja2", "WebOb", "bottle", "falcon", "Flask",
    "Flask-SQLAlchemy", "pyramid", "Django", "jinjax", "gunicorn",
)  # fmt: skip
_COLOURS = ("#c2410c", "#64748b", "#94a3b8", "#0e7490", "#7c3aed", "#15803d", "#4d7c0f")


class Table(NamedTuple):
    """A heading, a note on its figures, the column names, and rows of a title and cells."""

    title: str
    note: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, str]]]


def markdown(tables: Sequence[Table]) -> str:
    """Return the tables below the date, the machine and the versions."""
    parts = [f"# Benchmark of {date.today():%d %B %Y}", machine()]
    for table in tables:
        head = ["", *(TITLES[name] for name in table.names)]
        lines = [head, ["---", *("---:" for _ in table.names)]]
        lines += [[title, *(row.get(n, "–") for n in table.names)] for title, row in table.rows]
        parts += [f"## {table.title}", table.note]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """Describe processor, system, Python and packages in one sentence."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.+)", cpuinfo.read_text())
        processor = found[1] if found else processor
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}; {packages}."
    )


def _version(name: str) -> str:
    import noventa

    return noventa.__version__ if name == "noventa-wsgi" else version(name)


def chart(title: str, names: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return bars, grouped by row: each application's cost as a multiple of the floor's."""
    bar, left, width, longest = 13, 200, 760, 8.0
    scale = (width - left - 60) / longest
    parts: list[str] = []
    y = 58
    for number, name in enumerate(names):
        x = left + number % 4 * 130
        top = 28 + number // 4 * 15
        parts.append(f'<rect x="{x}" y="{top - 9}" width="10" height="10" {_fill(number)}/>')
        parts.append(_text(x + 14, top, TITLES[name]))
    for row, values in rows.items():
        parts.append(_text(left - 8, y + bar * len(values) / 2 + 4, row, "end"))
        for name, value in values.items():
            length = min(value, longest) * scale
            fill = _fill(names.index(name))
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" {fill}/>'
            )
            cut = " …" if value > longest else ""
            parts.append(_text(left + length + 4, y + bar - 4, f"{value:.2f}{cut}"))
            y += bar
        y += 12
    floor = left + scale
    parts.append(f'<path d="M{floor:.1f} 50V{y - 10}" stroke="#000" stroke-dasharray="3"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-size="11"'
        f' font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{y}" fill="#fff"/>'
        f"{_text(8, 14, title)}{''.join(parts)}</svg>\n"
    )


def _fill(number: int) -> str:
    return f'fill="{_COLOURS[number % len(_COLOURS)]}"'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
