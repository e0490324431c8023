"""The registry: the parts of an application, and the checks that report all problems at once."""

import functools
import re

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql, postgresql
from support import make_app, make_module, users_module

from noventa import (
    Component,
    Endpoint,
    Fault,
    Mount,
    Page,
    Registry,
    RegistryError,
    Static,
    did_you_mean,
    registry_faults,
    type_faults,
)


def faults_of(root, files=None, **registry):
    """Build the application, which must fail, and return its problems as strings."""
    with pytest.raises(RegistryError) as raised:
        make_app(root, files, **registry)
    return [str(fault) for fault in raised.value.faults]


def guard(request, session, db):
    return None


def endpoint(request, session, db):
    return {}


def seed_users(db):
    pass


# Reporting


def test_all_problems_are_reported_together(tmp_path):
    logic = make_module("bad.bad_logic", "def load_template_context(req, session, db): ...")
    models = [users_module("one.models"), users_module("two.models")]
    files = {
        "card.html": "{{ component('crad') }}",
        "index.html": "{% if %}",
    }
    faults = faults_of(
        tmp_path,
        files,
        components=[
            Component("card", "card.html"),
            Component("card", "card.html"),
            Component("bad", "card.html", logic=logic),
        ],
        models=models,
        routes=[Page("/", "index.html"), Page("/x", "missing.html"), Page("/x", "card.html")],
        seeds=[seed_users, seed_users],
    )
    text = "\n".join(faults)
    for part in [
        "component 'card' is listed twice",
        "seed 'test_registry.seed_users' is listed twice",
        "the first three parameters are not request, session, db",
        "table 'users' is already defined by one.models.User",
        "route '/x' duplicates '/x'",
        "template 'missing.html' does not exist",
        "index.html:1: Expected an expression",
        "component 'crad' is not in the registry; did you mean 'card'?",
    ]:
        assert part in text
    assert len(faults) == len(set(faults)) == 8


def test_the_error_lists_each_problem_on_its_own_line():
    faults = [Fault("registry.py:3", "it is wrong", "fix it"), Fault("a.html:1", "no", "yes")]
    assert str(RegistryError(faults)) == (
        "The registry has 2 problems:\n  registry.py:3: it is wrong; fix it.\n  a.html:1: no; yes."
    )
    assert str(RegistryError(faults[:1])).startswith("The registry has 1 problem:\n")


def test_a_remedy_that_is_a_question_keeps_its_question_mark():
    assert str(Fault("here", "no 'ab'", did_you_mean("ab", ["abc"]))).endswith("mean 'abc'?")


@pytest.mark.parametrize(
    ("known", "remedy"),
    [(["users", "c"], "did you mean 'users'?"), (["b", "a"], "known: a, b"), ([], "none is known")],
)  # fmt: skip
def test_did_you_mean_suggests_the_nearest_name_or_lists_all(known, remedy):
    assert did_you_mean("user", known) == remedy


# Entries


@pytest.mark.parametrize(
    ("registry", "problem"),
    [
        ({"components": [endpoint]}, "components[0]: <function endpoint"),
        ({"routes": [Page("/", "a.html"), "/x"]}, "routes[1]: '/x' is a str; expected a Page, En"),
        ({"routes": Page("/", "a.html")}, "routes is Page(path='/'"),
        ({"components": None}, "components is None; expected a list"),
        ({"seeds": seed_users}, "seeds is <function seed_users"),
        ({"models": pytest}, "models is <module 'pytest'"),
        ({"guards": guard}, "guards is <function guard"),
        ({"filters": ["a"]}, "filters is ['a']; expected a mapping"),
        ({"components": [Component("a", None)]}, "template is None; expected a string"),
        ({"components": [Component(pytest, "a.html")]}, "name is <module 'pytest'"),
        ({"components": [Component("a", "a.html", models=pytest)]}, "models is <module 'pytest'"),
        ({"components": [Component("a", "a.html", retries=-1)]}, "retries is -1; expected 0 or"),
        ({"components": [Component("a", "a.html", logic="a.py")]}, "logic is 'a.py'; expected the"),
        ({"routes": [Page("/", "a.html", guards=guard)]}, "guards is <function guard"),
        ({"routes": [Page("/", "a.html", limits=9)]}, "limits is 9; expected a mapping"),
        ({"routes": [Page("/", "a.html", limits={"bdoy": 9})]}, "unknown limit 'bdoy'; did you"),
        ({"routes": [Page("/", "a.html", limits={"body": "9"})]}, "limits['body'] is '9'; expec"),
        ({"routes": [Static("/f", None)]}, "folder is None; expected a string"),
        ({"routes": [Mount("/m", "app")]}, "application is 'app'; expected a WSGI application"),
        ({"routes": [Endpoint("/e", endpoint, retries="2")]}, "retries is '2'; expected 0 or more"),
        ({"routes": [Endpoint("/e", endpoint, cross_origin=1)]}, "cross_origin is 1; expected"),
        ({"routes": [Page("/", "a.html", limits={"body": -1})]}, "limits['body'] is -1; expected"),
        ({"routes": [Page("/", "a.html", retries=True)]}, "retries is True; expected 0 or more"),
        ({"routes": [Page("/", "a.html", replica="no")]}, "replica is 'no'; expected True"),
        ({"routes": [Page("/", "a.html", writes="no")]}, "writes is 'no'; expected True or False"),
    ],
)  # fmt: skip
def test_an_entry_of_the_wrong_type_is_reported_with_its_location(tmp_path, registry, problem):
    (fault,) = faults_of(tmp_path, {"a.html": ""}, **registry)
    assert fault.startswith(("test_registry.py:", "support.py:"))
    assert next(str(found) for found in type_faults(Registry(**registry))).endswith(
        fault.partition(": ")[2]
    )
    assert problem in fault


def test_an_entry_records_the_line_that_created_it():
    line = test_an_entry_records_the_line_that_created_it.__code__.co_firstlineno
    component = Component("card", "card.html")
    assert component.where == f"test_registry.py:{line + 2}"
    assert "where" not in repr(component)


def test_a_duplicate_entry_is_reported_with_both_locations(tmp_path):
    first = Component("card", "a.html")
    second = Component("card", "b.html")
    routes = [Page("/a", "a.html"), Page("/a", "b.html")]
    faults = faults_of(
        tmp_path, {"a.html": "", "b.html": ""}, components=[first, second], routes=routes
    )
    assert faults == [
        (
            f"{second.where}: component 'card' is listed twice, first at {first.where};"
            " remove one of them."
        ),
        (
            f"{routes[1].where}: route '/a' duplicates '/a' at {routes[0].where};"
            " remove one of them."
        ),
    ]


def test_listing_the_same_route_object_twice_is_a_problem(tmp_path):
    page = Page("/a", "a.html")
    (fault,) = faults_of(tmp_path, {"a.html": ""}, routes=[page, page])
    assert "route '/a' duplicates '/a' at" in fault


def test_a_duplicate_seed_is_reported_with_both_locations(tmp_path):
    (fault,) = faults_of(tmp_path, seeds=[seed_users, len, seed_users])
    assert "seeds[2]: seed 'test_registry.seed_users' is listed twice, first at" in fault
    assert "seeds[0];" in fault


@pytest.mark.parametrize(
    ("seed", "problem"),
    [
        ("migrations.seed", "seed 'migrations.seed' is not a function; list the function itself"),
        (
            lambda: None,
            "<lambda>() must accept exactly one argument; write it as def NAME(db: Session)",
        ),
        (lambda db, more: None, "<lambda>(db, more) must accept exactly one argument; write it"),
        (dict, "dict() must accept exactly one argument; write it as"),
    ],
)
def test_an_uncallable_seed_is_a_problem(tmp_path, seed, problem):
    (fault,) = faults_of(tmp_path, seeds=[seed])
    assert problem in fault


# Handlers


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def load_template_context(request, db, session): ...",
         ("c/c_logic.py:1: load_template_context(request, db, session): the first three parameters"
         " are not request, session, db; write it as"
         " def load_template_context(request, session, db, **props).")),
        ("\ndef action_save(request): ...", "c/c_logic.py:2: action_save(request): the first"),
        ("def action_save(*, request, session, db): ...", "action_save(request, session, db): the"),
        ("load_template_context = {}", "{} is not a function; pass the function itself"),
        (("def load_template_context(request, session, db, *, id): ...\n"
         "def action_save(request, session, db, *, name): ..."),
         ("c/c_logic.py:2: action_save does not accept the prop 'id' of load_template_context;"
         " add the parameter, or **props.")),
    ],
)  # fmt: skip
def test_a_handler_with_the_wrong_parameters_is_a_problem(tmp_path, source, problem):
    logic = make_module("c.c_logic", source)
    (fault,) = faults_of(
        tmp_path, {"c.html": ""}, components=[Component("c", "c.html", logic=logic)]
    )
    assert problem in fault


@pytest.mark.parametrize("kind", ["endpoint", "guard", "route guard", "component guard"])
@pytest.mark.parametrize("function", [lambda request: None, "a text", dict])
def test_every_kind_of_handler_is_checked(tmp_path, kind, function):
    routes = [
        Endpoint("/e", function if kind == "endpoint" else endpoint),
        Page("/", "a.html", guards=[function] if kind == "route guard" else []),
    ]
    component = Component("c", "a.html", guard=function if kind == "component guard" else None)
    guards = [function] if kind == "guard" else []
    (fault,) = faults_of(
        tmp_path, {"a.html": ""}, routes=routes, components=[component], guards=guards
    )
    assert "not request, session, db" in fault or "is not a function; pass the function" in fault


def test_a_guard_with_a_fourth_required_parameter_is_a_problem(tmp_path):
    def signed_in(request, session, db, role):
        return None

    (fault,) = faults_of(tmp_path, {"a.html": ""}, routes=[Page("/", "a.html", guards=[signed_in])])
    assert "signed_in requires 'role', which is not passed to this guard; add a default." in fault


def test_partials_methods_and_callable_objects_are_valid_handlers(tmp_path):
    class Callable:
        def __call__(self, request, session, db):
            return {"by": "object"}

        def method(self, request, session, db):
            return {"by": "method"}

    def full(request, session, db, by):
        return {"by": by}

    routes = [
        Endpoint("/object", Callable()),
        Endpoint("/method", Callable().method),
        Endpoint("/partial", functools.partial(full, by="partial")),
    ]
    assert make_app(tmp_path, routes=routes).router.match("/partial").route is routes[2]


def test_only_functions_defined_in_the_logic_module_are_actions(tmp_path):
    make_module("shared.other_logic", "def action_delete(request, session, db): ...")
    logic = make_module(
        "c.c_logic",
        """
        from shared.other_logic import action_delete

        action_text = "no function"
        def action_save(request, session, db): ...
        """,
    )
    app = make_app(tmp_path, {"c.html": ""}, components=[Component("c", "c.html", logic=logic)])
    assert list(app.components.by_name["c"].actions) == ["save"]


# Models


def test_models_accepts_modules_classes_and_tables(tmp_path):
    module = users_module("a.models")
    other = users_module("b.models", table="others")
    table = sa.Table("plain", sa.MetaData(), sa.Column("id", sa.Integer))
    registry = Registry(
        components=[Component("c", "c.html", models=[other.User, table])], models=[module]
    )
    assert sorted(registry.metadata.tables) == ["others", "plain", "users"]
    assert sorted(registry.tables.values()) == ["a.models.User", "b.models.User", "table plain"]
    assert registry_faults(registry) == []


def test_every_constraint_is_named_and_strings_get_a_length_where_required():
    module = make_module(
        "shop.models",
        """
        import sqlalchemy as sa

        colours = sa.Table(
            "colours", sa.MetaData(),
            sa.Column("name", sa.String(collation="C"), primary_key=True),
            sa.Column("code", sa.String(6), unique=True),
            sa.Column("note", sa.Text, index=True),
            sa.Column("mixed_from", sa.ForeignKey("colours.name")),
            sa.CheckConstraint("code <> name", name="other"),
            sa.CheckConstraint("code <> note"),
        )
        """,
    )
    registry = Registry(models=[module])
    assert registry.tables == {module.colours: "shop.models.colours"}
    (table,) = registry.metadata.tables.values()
    types = {
        name: [str(column.type.compile(dialect)) for column in table.columns]
        for name, dialect in (("mariadb", mysql.dialect()), ("postgresql", postgresql.dialect()))
    }
    names = {str(constraint.name) for constraint in (*table.constraints, *table.indexes)}
    unbounded = 'VARCHAR COLLATE "C"'
    assert types == {
        "mariadb": ["VARCHAR(255) COLLATE C", "VARCHAR(6)", "TEXT", "VARCHAR(255) COLLATE C"],
        "postgresql": [unbounded, "VARCHAR(6)", "TEXT", unbounded],
    }
    assert {re.sub("_[0-9a-f]{8}$", "_HASH", name) for name in names} == {
        "pk_colours", "uq_colours_code", "ix_colours_note", "fk_colours_mixed_from_colours",
        "other", "ck_colours_HASH",
    }  # fmt: skip


def test_listing_a_module_twice_is_harmless(tmp_path):
    module = users_module("a.models")
    registry = Registry(models=[module, module.User, module.User.__table__])
    assert (registry_faults(registry), list(registry.metadata.tables)) == ([], ["users"])


def test_two_models_with_the_same_table_name_are_reported_with_both_modules(tmp_path):
    models = [users_module("one.models"), users_module("two.models")]
    assert faults_of(tmp_path, models=models) == [
        (
            "two.models.User: table 'users' is already defined by one.models.User;"
            " set another __tablename__ on one of them."
        )
    ]


@pytest.mark.parametrize("entry", [pytest, dict, "models.py"])
def test_a_models_entry_without_a_table_is_a_problem(tmp_path, entry):
    (fault,) = faults_of(tmp_path, models=[entry])
    assert "has no table; list a models module, a class, a Table, a Base or a MetaData" in fault


def test_a_foreign_key_that_its_base_cannot_resolve_is_a_problem(tmp_path):
    users = users_module("one.models")
    posts = make_module(
        "two.models",
        """
        from sqlalchemy import ForeignKey
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

        class Base(DeclarativeBase):
            pass

        class Post(Base):
            __tablename__ = "posts"
            id: Mapped[int] = mapped_column(primary_key=True)
            author: Mapped[int] = mapped_column(ForeignKey("users.id"))
        """,
    )
    assert faults_of(tmp_path, models=[users, posts]) == [
        (
            "two.models.Post.author: ForeignKey points to 'users.id', which is not in its Base;"
            " across Bases pass the column, not its name: ForeignKey(User.id)."
        )
    ]


def test_a_foreign_key_to_an_unregistered_table_is_a_problem(tmp_path):
    users = users_module("one.models")
    posts = sa.Table("posts", sa.MetaData(), sa.Column("author", sa.ForeignKey(users.User.id)))
    assert faults_of(tmp_path, models=[posts]) == [
        (
            "table posts.author: ForeignKey points to table 'users', which is not registered;"
            " add the module that defines it to models."
        )
    ]
    assert registry_faults(Registry(models=[posts, users])) == []


def test_an_unresolvable_relationship_is_a_problem(tmp_path):
    class Base(orm.DeclarativeBase):
        pass

    class Post(Base):
        __tablename__ = "posts"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        author = orm.relationship("Nobody")

    for _ in range(2):  # also for a second App in the same process
        (fault,) = faults_of(tmp_path, models=[Post])
        assert fault.startswith("test_registry.Post: When initializing mapper")
        assert "expression 'Nobody' failed to locate a name" in fault
        assert "pass the class, not its name: relationship(User)" in fault


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (lambda: Nobody, "name 'Nobody' is not defined"),  # noqa: F821
        (lambda: orm.Nobody, "module 'sqlalchemy.orm' has no attribute 'Nobody'"),
        (lambda: unrelated_models().User, "Could not determine join condition"),
    ],
)
def test_a_broken_relationship_to_a_class_is_a_problem(tmp_path, target, problem):
    class Base(orm.DeclarativeBase):
        pass

    class Post(Base):
        __tablename__ = "posts"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        author = orm.relationship(target)

    for _ in range(2):
        (fault,) = faults_of(tmp_path, models=[Post])
        assert fault.startswith("test_registry.Post: ")
        assert problem in fault
        assert fault.endswith("; fix the relationship it names.")


@functools.cache
def unrelated_models():
    return users_module("unrelated.models")


def test_a_mapper_error_is_reported_once_for_the_class_that_causes_it(tmp_path):
    class Base(orm.DeclarativeBase):
        pass

    class Other(orm.DeclarativeBase):
        pass

    class Note(Other):
        __tablename__ = "notes"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        posts = orm.relationship(lambda: Post, back_populates="note")

    class Post(Base):
        __tablename__ = "posts"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        note_id = orm.mapped_column(sa.ForeignKey(Note.id))
        note = orm.relationship("Note", back_populates="posts")

    (fault,) = faults_of(tmp_path, models=[Note, Post])
    assert fault.startswith("test_registry.Post: When initializing mapper Mapper[Post(posts)]")


SHOP = """
import sqlalchemy as sa
from sqlalchemy import orm

class Base(orm.DeclarativeBase):
    pass

class Tag(Base):
    __tablename__ = "tags"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)

class Item(Base):
    __tablename__ = "items"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    tags = orm.relationship(
        Tag,
        secondary=sa.Table(
            "item_tags", Base.metadata,
            sa.Column("item_id", sa.ForeignKey("items.id"), primary_key=True),
            sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
        ),
    )

def made(name):
    columns = {"id": orm.mapped_column(sa.Integer, primary_key=True)}
    return type(name, (Base,), {"__tablename__": name.lower(), "__module__": "factory", **columns})

Made = made("Made")
"""


def test_an_unlisted_table_in_a_registered_metadata_is_a_problem(tmp_path):
    shop = make_module("shop.models", SHOP)
    problem = "is in the MetaData of shop.models.Tag but not listed"
    remedy = "add its module, class, Table or whole Base to models."
    assert faults_of(tmp_path, models=[shop]) == [
        f"table item_tags: table 'item_tags' {problem}; {remedy}",
        f"factory.Made: table 'made' {problem}; {remedy}",
    ]


@pytest.mark.parametrize(
    "listed",
    [
        lambda shop: [shop.Base],
        lambda shop: [shop.Base.metadata],
        lambda shop: [shop, shop.Made, shop.Base.metadata.tables["item_tags"]],
        lambda shop: [shop, shop.Base],
    ],
    ids=["Base", "MetaData", "module, class and Table", "twice"],
)
def test_listing_a_base_or_metadata_registers_all_its_tables(listed):
    shop = make_module("shop.models", SHOP)
    registry = Registry(models=listed(shop))
    assert registry_faults(registry) == []
    assert sorted(registry.metadata.tables) == ["item_tags", "items", "made", "tags"]


def test_several_components_can_share_a_base(tmp_path):
    shop = make_module("shop.models", SHOP)
    tags, items = shop.Tag, [shop.Item, shop.Made, shop.Base.metadata.tables["item_tags"]]
    components = [
        Component("tags", "a.html", models=[tags]),
        Component("b", "a.html", models=items),
    ]
    assert registry_faults(Registry(components=components)) == []
    assert len(registry_faults(Registry(components=components[:1]))) == 3


def test_two_core_tables_with_the_same_name_are_a_problem(tmp_path):
    first, second = (sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer)) for _ in "ab")
    (fault,) = faults_of(tmp_path, models=[first, second.metadata])
    assert "table 'users' is already defined by table users" in fault


def test_checking_the_registry_does_not_touch_the_database(tmp_path):
    with pytest.raises(RegistryError):
        make_app(tmp_path, routes=[Page("/", "no.html")])
    assert list(tmp_path.iterdir()) == []


# Templates and folders


def test_a_missing_template_is_reported_with_the_nearest_match(tmp_path):
    page, component = Page("/", "pages/indx.html"), Component("card", "components/card.html")
    files = {"pages/index.html": "", "components/card/card.html": ""}
    of_component, of_page = faults_of(tmp_path, files, routes=[page], components=[component])
    assert of_component.startswith(f"{component.where}: template 'components/card.html' does not")
    assert of_component.endswith("; did you mean 'components/card/card.html'?")
    assert of_page.startswith(f"{page.where}: template 'pages/indx.html' does not exist")
    assert of_page.endswith("; did you mean 'pages/index.html'?")


def test_files_outside_the_project_are_not_suggested_as_templates(tmp_path):
    (tmp_path / "outside.html").write_text("")
    (fault,) = faults_of(tmp_path / "a", {"a.html": ""}, routes=[Page("/", "../outsid.html")])
    assert "outside.html" not in fault


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "<p>\n{% if %}",
            "a.html:2: Expected an expression, got 'end of statement block'; fix",
        ),
        ("{{ x | nosuchfilter }}", "a.html:1: No filter named 'nosuchfilter'; fix"),
        ("{% block a %}", "a.html:1: Unexpected end of template. Jinja was"),
        ("{% extends 'base.html' %}", "a.html: template 'base.html' does not exist"),
        ("{% include 'b.html' %}", "b.html:3: Encountered unknown tag 'endif'; fix"),
        ("{% extends 'b.html' %}", "b.html:3: Encountered unknown tag 'endif'; fix"),
        ("{% import 'b.html' as b %}", "b.html:3: Encountered unknown tag 'endif'; fix"),
    ],
)
def test_a_broken_template_is_reported_with_its_file_and_line(tmp_path, source, problem):
    files = {"a.html": source, "b.html": "\n\n{% endif %}"}
    (fault,) = faults_of(tmp_path, files, routes=[Page("/", "a.html"), Page("/2", "a.html")])
    assert fault.startswith(problem)
    assert "\n" not in fault


def test_a_broken_layout_is_one_problem_however_many_pages_use_it(tmp_path):
    files = {"base.html": "{% if %}", "a.html": "{% extends 'base.html' %}"}
    files["b.html"] = files["a.html"]
    routes = [Page("/a", "a.html"), Page("/b", "b.html")]
    assert len(faults_of(tmp_path, files, routes=routes)) == 1


def test_a_template_that_is_not_utf_8_is_a_problem(tmp_path):
    (tmp_path / "a.html").write_bytes(b"\xff")
    (fault,) = faults_of(tmp_path, routes=[Page("/", "a.html")])
    assert fault.startswith("a.html:1: 'utf-8' codec can't decode")


@pytest.mark.parametrize("name", ["../outside.html", ".hidden.html", "link.html", "folder.html"])
def test_a_template_outside_the_project_does_not_exist(tmp_path, name):
    (tmp_path / "outside.html").write_text("")
    root = tmp_path / "project"
    (root / "folder.html").mkdir(parents=True)
    (root / ".hidden.html").write_text("")
    (root / "link.html").symlink_to(tmp_path / "outside.html")
    (fault,) = faults_of(root, routes=[Page("/", name)])
    assert f"template {name!r} does not exist" in fault


@pytest.mark.parametrize("name", ["config.yaml", "registry.py", "x.html.key", "test.db", "page"])
def test_a_file_without_a_template_suffix_is_rejected(tmp_path, name):
    (tmp_path / name).write_text("")
    files = {"a.html": f"{{% include {name!r} %}}"}
    routes = [Page("/", name), Page("/a", "a.html")]
    first, second = faults_of(tmp_path, files, routes=routes, components=[Component("c", "a.html")])
    assert f"{name!r} is not a template: templates end in .html, .htm, " in first + second
    assert first.endswith("; rename it.")


@pytest.mark.parametrize(
    "source",
    [
        "{% include 'no.html' ignore missing %}",
        "{% include ['no.html', 'a.html'] %}",
        "{% include chosen ignore missing %}",
    ],
)
def test_an_optional_template_may_be_missing(tmp_path, source):
    files = {"a.html": "", "index.html": source}
    make_app(tmp_path, files, routes=[Page("/", "index.html")])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ component('usr') }}", "component 'usr' is not in the registry; did you mean 'user'?"),
        ("{% call component('usr') %}{% endcall %}", "component 'usr' is not in the registry"),
        ("{% include 'part.html' %}", "component 'usre' is not in the registry"),
        ("{{ action('save') }}", "page '/' has no action 'save'; none is known"),
        ("{{ action_ticket('save') }}", "page '/' has no action 'save'"),
    ],
)
def test_a_template_that_uses_an_unknown_component_or_action_is_a_problem(
    tmp_path, source, problem
):
    files = {"page.html": source, "user.html": "", "part.html": "{{ component('usre') }}"}
    (fault,) = faults_of(
        tmp_path,
        files,
        components=[Component("user", "user.html")],
        routes=[Page("/", "page.html")],
    )
    assert fault.startswith(f"page.html: {problem}")


def test_a_component_that_uses_an_unknown_action_is_a_problem(tmp_path):
    logic = make_module("u.u_logic", "def action_save(request, session, db): ...")
    files = {"user.html": "{{ action('sve') }}{{ action(name) }}{{ other('x') }}"}
    assert faults_of(tmp_path, files, components=[Component("user", "user.html", logic=logic)]) == [
        "user.html: component 'user' has no action 'sve'; did you mean 'save'?"
    ]


def test_a_path_parameter_named_like_a_template_function_is_a_problem(tmp_path):
    (fault,) = faults_of(tmp_path, {"a.html": ""}, routes=[Page("/{url}", "a.html")])
    assert "parameter 'url' of '/{url}' is reserved for a template function or" in fault


def test_a_missing_static_folder_is_a_problem(tmp_path):
    (fault,) = faults_of(tmp_path, routes=[Static("/files", "fiels")])
    assert "folder 'fiels' does not exist; create it." in fault


def test_components_in_lists_every_component_a_page_can_render(tmp_path):
    files = {
        "page.html": "{{ component('list') }}{% include 'part.html' %}",
        "part.html": "{% call component('card') %}{% endcall %}{% include 'page.html' %}",
        "list.html": "{{ component('user') }}{{ component('list') }}",
        "user.html": "",
        "card.html": "",
    }
    names = ["card", "list", "user"]
    components = [Component(name, f"{name}.html") for name in names]
    app = make_app(tmp_path, files, components=components, routes=[Page("/", "page.html")])
    assert app.components.components_in("page.html") == names
