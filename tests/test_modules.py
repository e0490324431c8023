"""The shape of the two modules: what their docstrings and banners say of their sections is true."""

import ast
import re

import pytest
from processes import ROOT

FILES = ("noventa.py", "noventa_cli.py")
BANNER = re.compile(r"^# ---- (.+?) -+$", re.MULTILINE)


def read(file):
    """Its text, its tree, and the section of each line."""
    text = (ROOT / file).read_text("utf-8")
    sections, current = [None], None
    for line in text.splitlines():
        found = BANNER.match(line)
        current = found[1] if found else current
        sections.append(current)
    return text, ast.parse(text), sections


def names_of(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


@pytest.mark.parametrize("file", FILES)
def test_the_docstring_is_the_map_of_the_sections(file):
    text, tree, _ = read(file)
    banners = BANNER.findall(text)
    listed = re.findall(r"^ *(\w[\w ]*?)  +\S", ast.get_docstring(tree), re.MULTILINE)
    assert listed == banners


def test_each_section_of_the_core_uses_what_its_banner_says_and_only_what_stands_above():
    text, tree, sections = read("noventa.py")
    banners = BANNER.findall(text)
    home = {name: sections[node.lineno] for node in tree.body for name in names_of(node)}
    used = {banner: set() for banner in banners}
    for node in tree.body:
        if here := sections[node.lineno]:
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            used[here] |= {home[name] for name in names & home.keys()} - {here, None}
    for number, banner in enumerate(banners):
        said = re.search(rf"^# ---- {banner} -+\n# Uses (.*)\.$", text, re.MULTILINE)[1]
        above = set(banners[:number])
        listed = set(said.removeprefix("all above but ").split(", ")) - {"nothing above"}
        assert used[banner] == (above - listed if said.startswith("all") else listed), banner
        assert used[banner] <= above


@pytest.mark.parametrize("file", FILES)
def test_no_function_is_over_40_lines_and_no_class_over_200(file):
    _, tree, _ = read(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            most = 40 if isinstance(node, ast.FunctionDef) else 200
            assert node.end_lineno - node.lineno < most, node.name
