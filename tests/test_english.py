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
    r"whoever", r"\bwho (?:asks|has|wants|connects|reads|can|may|is|was|does|posts|writes|looks)\b",
    r"\bof ours\b", r"\bof (?:his|her) own\b", r"\bseen to\b", r"\b(?:is|are|was|were) told\b",
    r"\bwhat is not\b", r"\bwhat it (?:is|was|has|had)\b", r"\bmend", r"\banew\b", r"\bled to\b",
    r", say\b(?! )", r"\bstands?\b(?! for| out| in for| in the way)", r"\ba text\b", r"\btexts\b",
    r"(?<!there )\b(?:is|are) no (?!longer|more\b|less\b|other\b)[a-z]", r"spoken of",
    r"hangs? together", r"lets? go\b", r"tak(?:es?|en) back", r"half-way", r"\bbears?\b",
    r"\b(?:is|are|was|were) to be\b", r"as (?:it|they) stands?\b", r"for people to read",
    r"beside each other", r"\bon the way\b", r"\bseen as\b", r"\bwhat (?:goes|went|hangs|lies)\b",
    r"\bshows? itself\b", r"\bgives? itself\b", r"\bof the kind\b", r"\bfor the rest\b",
    r"\bnone of (?:it|them) is\b", r"\bin silence\b", r"\bby far\b", r"\bwherefore\b",
    r"\b(?:our|ours|us)\b", r"\bsees to\b", r"\bsay(?:s)? so\b", r"\bsaid so\b", r"\bnamed by\b",
    r"\bhow often\b", r"\bas often as\b", r"\bdoes not tell\b", r"\btells? of\b", r"\bis answered\b",
    r"\bare answered\b", r"\banswered (?:with|by)\b", r"\banswers [1-5]\d\d\b",
]  # fmt: skip
ALLOWED = {  # a phrase where it is right: (file, part of the line)
}
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
