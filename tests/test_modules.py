"""The structure of the two modules: docstrings and banners describe the sections correctly."""

import ast
import inspect
import re

import pytest
from processes import ROOT

import noventa
import noventa_cli

FILES = ("noventa.py", "noventa_cli.py")
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}  # methods of NamedTuple
ALLOWED = {  # other libraries' private names and patched attributes: never add any
    "noventa.py": {"_getframe"},
    "noventa_cli.py": {
        "_variant_mapping", "sys.argv",
    },
}  # fmt: skip
BANNER = re.compile(r"^# ---- (.+?) -+$", re.MULTILINE)


def read(file):
    """Return the text of a module, its tree and the section of each line."""
    text = (ROOT / file).read_text("utf-8")
    sections, current = [None], None
    for line in text.splitlines():
        found = BANNER.match(line)
        current = found[1] if found else current
        sections.append(current)
    return text, ast.parse(text), sections


def defined_names(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [
        name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
    ]


@pytest.mark.parametrize("file", FILES)
def test_the_docstring_lists_the_sections_in_order(file):
    text, tree, _ = read(file)
    banners = BANNER.findall(text)
    listed = re.findall(r"^ *(\w[\w ]*?)  +\S", ast.get_docstring(tree), re.MULTILINE)
    assert listed == banners


def test_each_section_of_the_core_uses_exactly_the_earlier_sections_in_its_banner():
    text, tree, sections = read("noventa.py")
    banners = BANNER.findall(text)
    home = {name: sections[node.lineno] for node in tree.body for name in defined_names(node)}
    used = {banner: set() for banner in banners}
    for node in tree.body:
        if section := sections[node.lineno]:
            names = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
            used[section] |= {home[name] for name in names & home.keys()} - {section, None}
    for number, banner in enumerate(banners):
        uses = re.search(rf"^# ---- {banner} -+\n# Uses (.*)\.$", text, re.MULTILINE)[1]
        above = set(banners[:number])
        listed = set(uses.removeprefix("all above but ").split(", ")) - {"nothing above"}
        assert used[banner] == (above - listed if uses.startswith("all") else listed), banner
        assert used[banner] <= above


@pytest.mark.parametrize("file", FILES)
def test_no_function_is_over_40_lines_and_no_class_over_200(file):
    _, tree, _ = read(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            limit = 40 if isinstance(node, ast.FunctionDef) else 200
            assert node.end_lineno - node.lineno < limit, node.name


def private_names(tree):
    """Yield the attributes that a module reads, imports or looks up by `getattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module not in ("noventa", "noventa_cli"):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            yield from (
                argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)
            )


def names_defined_in(tree):
    """Yield functions, classes, variables and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            of_self = getattr(getattr(node, "value", None), "id", "") in ("self", "cls")
            yield node.id if isinstance(node, ast.Name) else node.attr if of_self else ""
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def patched_imports(tree):
    """Yield `sys.argv` for `sys.argv = …` if `sys` is an import and not a local name."""
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


def overridden_names(module):
    """Yield names that a class of the module overrides in a base class of another library."""
    for kind in vars(module).values():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            bases = [base for base in kind.__mro__[1:] if base.__module__ != module.__name__]
            functions = {name for name, value in vars(kind).items() if inspect.isroutine(value)}
            yield from (name for base in bases for name in functions & vars(base).keys())


@pytest.mark.parametrize("module", [noventa, noventa_cli])
def test_only_the_listed_private_names_of_other_libraries_are_used(module):
    file = f"{module.__name__}.py"
    trees = {name: read(name)[1] for name in FILES}
    own = {name for tree in trees.values() for name in names_defined_in(tree)} | DOCUMENTED
    names = {*private_names(trees[file])} - own | {*overridden_names(module)}
    private = {name for name in names if re.match(r"_[a-z]|getrefcount$", str(name))}
    assert private | {*patched_imports(trees[file])} == ALLOWED[file]
