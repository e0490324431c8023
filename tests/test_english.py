"""Shipped text is plain English: phrases that read like a translation may not appear in it."""

from __future__ import annotations

import re

import pytest
from processes import ROOT

SHIPPED = (
    "README.md", "SECURITY.md", "CHANGELOG.md", "noventa.py", "noventa_cli.py", "pyproject.toml",
    "templates/**/*", "migrations_skeleton/**/*", "tests/applications/**/*",
    "tests/data/reference.yaml",
)  # fmt: skip
BINARY = {".png", ".pyc", ".db"}
PHRASES = [
    r"whoever", r"\bwho asks\b", r"(?:^|[.;:] )Who (?!.*\?)", r"\b(?:to|for|by) who\b", r"\bours\b",
    r"\b(?:his|her) own\b", r"\bseen to\b", r"\bsees to\b", r"\b(?:is|are|was|were) told\b",
    r"\bwhat is not\b", r"\bwhat (?:hangs|lies|stands|went)\b", r"\bmend", r"\banew\b",
    r"\bled to\b", r", say\b(?! )", r"\bstands?\b(?! for| out| in )", r"\ba text\b",
    r"\btexts\b", r"spoken of", r"hangs? together", r"lets? go\b", r"tak(?:es?|en) back",
    r"(?<!there )\b(?:is|are) no (?!longer|more\b|less\b|other\b)[a-z]", r"half-way",
    r"\bbears?\b", r"\b(?:is|are|was|were) to be\b", r"\bas (?:it|they) stands?\b",
    r"for people to read", r"beside each other", r"\bshows? itself\b", r"\bgives? itself\b",
    r"\bin silence\b", r"\bhow often\b", r"\bas often as\b", r"\bdoes not tell\b",
    r"\btells? of\b", r"\banswered (?:with|by)\b", r"\banswers [1-5]\d\d\b",
]  # fmt: skip
FOUND = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)


def shipped_files() -> list[str]:
    paths = {path for pattern in SHIPPED for path in ROOT.glob(pattern)}
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and path.suffix not in BINARY
    )


@pytest.mark.parametrize("file", shipped_files())
def test_no_phrase_of_a_translation_is_in(file):
    lines = (ROOT / file).read_text("utf-8").splitlines()
    found = [
        f"{file}:{number}: {match[0]!r} in: {line.strip()}"
        for number, line in enumerate(lines, 1)
        for match in FOUND.finditer(line)
    ]
    assert found == [], "\n".join(found)
