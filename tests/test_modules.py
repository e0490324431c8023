"""The shape of the two modules: what their docstrings and banners say of their sections is true."""

import ast
import inspect
import re

import pytest
from processes import ROOT

import noventa
import noventa_cli

FILES = ("noventa.py", "noventa_cli.py")
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}  # of a NamedTuple
ALLOWED = {  # private names of other libraries, and what is replaced in them: only fewer
    "noventa.py": {"_getframe"},
    "noventa_cli.py": {
        "_variant_mapping", "sys.argv",
    },
}  # fmt: skip
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


def private_names(tree):
    """`_name` of others that a module reads, imports or asks for by `getattr`; also getrefcount."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module not in ("noventa", "noventa_cli"):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            yield from (one.value for one in node.args[1:2] if isinstance(one, ast.Constant))


def names_made_here(tree):
    """Functions, classes, variables and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            of_self = getattr(getattr(node, "value", None), "id", "") in ("self", "cls")
            yield node.id if isinstance(node, ast.Name) else node.attr if of_self else ""
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def assigned_in_imports(tree):
    """`sys.argv` for `sys.argv = …`, where `sys` is imported and no name of the function's own."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {name.asname or name.name for node in imports for name in node.names}
    for block in tree.body:
        names = {node.arg for node in ast.walk(block) if isinstance(node, ast.arg)}
        names |= {
            node.id
            for node in ast.walk(block)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for node in ast.walk(block):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                root = ast.unparse(node).partition(".")[0]
                if root in imported - names:
                    yield ast.unparse(node)


def private_overrides(module):
    """`_name` that a class of ours takes over from a class of another library."""
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            bases = [base for base in kind.__mro__[1:] if base.__module__ != module.__name__]
            functions = {name for name, value in vars(kind).items() if inspect.isroutine(value)}
            yield from (name for base in bases for name in functions & vars(base).keys())


@pytest.mark.parametrize("module", [noventa, noventa_cli])
def test_private_names_of_other_libraries_are_those_that_are_listed(module):
    file = f"{module.__name__}.py"
    trees = {name: read(name)[1] for name in FILES}
    own = {name for tree in trees.values() for name in names_made_here(tree)} | DOCUMENTED
    names = {*private_names(trees[file])} - own | {*private_overrides(module)}
    private = {name for name in names if re.match(r"_[a-z]|getrefcount$", str(name))}
    assert private | {*assigned_in_imports(trees[file])} == ALLOWED[file]
