"""The workbench: the pages under /_noventa/ that show the application and its requests in debug."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from textwrap import dedent

import pytest
import sqlalchemy as sa
import webob
from counters import Counter, action, counting_app, increment
from processes import ROOT, environment
from support import make_app, make_module
from visitors import Visitor, ask, post
from webob.exc import HTTPForbidden

from noventa import Component, Config, ConfigError, Endpoint, Page, Static, redirect

FILES = {
    "layout.html": "<body>{% block main %}{% endblock %}{{ workbench() }}</body>",
    "page.html": """{% extends 'layout.html' %}{% block main %}
      {{ component('rows') }}{% endblock %}""",
    "rows.html": "{% for n in range(4) %}{{ component('row', number=1, key=n) }}{% endfor %}",
    "row.html": "{{ counter.value }}<form method='post'>{{ action('add') }}</form>",
    "files/site.css": "body {}",
}
ROW = """
    import sqlalchemy as sa
    from counters import Counter
    def load_template_context(request, session, db, number):
        return {"counter": db.scalars(sa.select(Counter).where(Counter.id == number)).one()}
    def action_add(request, session, db, number):
        db.get(Counter, number).value += 1
        if "commit" in request.form:
            db.commit()
        return {"_redirect": "/"} if "redirect" in request.form else {}
"""


def signed_in(request, session, db):
    session["user"] = 1


def fail(request, session, db):
    raise LookupError("lost: " + request.cookies.get("token", ""))


def bench(root, *, debug=True):
    """Create an application with a list of four rows, each of which runs its own query."""
    return counting_app(
        root, "sqlite:///./a.db",
        Page("/", "page.html", guards=[signed_in]),
        Endpoint("/away", lambda request, session, db: redirect("/")),
        Endpoint("/fail", fail),
        Static("/files", "files"),
        debug=debug, files=FILES,
        components=[
            Component("rows", "rows.html"),
            Component("row", "row.html", logic=make_module("row_logic", ROW)),
        ],
    )  # fmt: skip


def text_of(response):
    """Return the text of a page without tags and styles, with single spaces."""
    body = re.sub(r"<style>.*?</style>", "", response.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_request_list_shows_pages_posts_and_redirects_but_no_static_files(tmp_path):
    app = bench(tmp_path)
    ask(app)
    ask(app, path="/away")
    ask(app, path="/files/site.css")
    post(app, "/", {"x": "y"})
    ask(app, path="/_noventa/requests")
    text = text_of(ask(app, path="/_noventa/requests"))
    matches = re.findall(r"(\d{3}) ((?:GET|POST) \S+)", text)
    assert matches == [("400", "POST /"), ("303", "GET /away"), ("200", "GET /")]


# Broken links and undefined names


def test_a_broken_link_is_logged_and_shown_on_the_page(tmp_path, caplog):
    page = "<p>\n<a href=\"{{ url('/user/' ~ 7) }}\">x</a> {{ url('/users/7#top') }}</p>"
    files, routes = {"page.html": page}, [Page("/", "page.html"), Page("/users/{id}", "page.html")]
    app = make_app(tmp_path, files, {"debug": True}, routes=routes)
    response = ask(app)
    assert "page.html:2: no route matches '/user/7'" in caplog.text
    assert "Broken link: page.html:2" in text_of(response)
    assert "/users/7'" not in caplog.text
    caplog.clear()
    assert "Broken link" not in ask(make_app(tmp_path, files, routes=routes)).text
    assert not caplog.records


def test_a_redirect_to_a_missing_route_is_logged_and_shown_on_the_next_page(tmp_path, caplog):
    def leave(request, session, db):
        return {"_redirect": "/nowhere?a=1"}

    app = make_app(tmp_path, {}, {"debug": True}, routes=[Endpoint("/", leave)])
    assert ask(app).status == 303
    assert re.search(r"leave.*: no route matches '/nowhere'", caplog.text)
    assert re.search(r"Broken link: .*leave", text_of(ask(app, path="/nowhere")))


def test_printing_an_undefined_name_in_a_template_is_logged_only_in_debug(tmp_path, caplog):
    files, routes = {"page.html": "\n{% if a %}{% endif %}[{{ b }}]"}, [Page("/", "page.html")]
    assert "[]" in ask(make_app(tmp_path, files, {"debug": True}, routes=routes)).text
    (warning,) = [record for record in caplog.records if "undefined" in record.getMessage()]
    assert warning.getMessage() == "page.html:2: Template variable warning: 'b' is undefined"
    caplog.clear()
    assert "[]" in ask(make_app(tmp_path, files, routes=routes)).text
    assert not caplog.records


def test_a_request_page_shows_components_statements_and_calling_lines(tmp_path):
    app = bench(tmp_path)
    ask(app)
    text = text_of(ask(app, path="/_noventa/requests/1"))
    names = re.findall(r"(page.html|signed_in|rows|row × 4) [\d.e-]+ ms", text)
    assert names == ["page.html", "signed_in", "rows", "row × 4"]
    assert re.search(r"row × 4 [\d.e-]+ ms 4 statements SELECT counters.id", text)
    assert re.search(r"1: 4 sent, 1 distinct , [\d.e-]+ ms · rows.html:1 · explain 1", text)
    assert "Session {&#39;user&#39;: 1}" in text


def test_a_repeated_statement_is_shown_with_a_fix(tmp_path):
    app = bench(tmp_path)
    ask(app)
    text = text_of(ask(app, path="/_noventa/requests/1"))
    assert "Repeated statement: 4 sent, 1 distinct" in text
    assert "Load all rows once in the enclosing component" in text


def test_a_request_page_shows_the_rows_a_post_committed(tmp_path):
    visitor = Visitor(bench(tmp_path))
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    text = text_of(visitor.get("/_noventa/requests/2"))
    assert "Written counters: 1 row" in text
    assert "Transactions commit" in text


def test_a_page_links_to_its_own_request_below_a_mount_point(tmp_path):
    app = bench(tmp_path)
    response = ask(app, SCRIPT_NAME="/m")
    link = r'<a class="noventa" href="/m/_noventa/requests/1">[\d.e-]+ ms · 4 statements</a>'
    assert re.search(link, response.text)


def test_the_workbench_serves_the_guide(tmp_path):
    app = bench(tmp_path)
    assert 'href="/_noventa/guide"' in ask(app, path="/_noventa/").text
    assert 'href="/_noventa/guide/registry"' in ask(app, path="/_noventa/guide").text
    assert "<code>Mount(path, application)</code>" in ask(app, path="/_noventa/guide/registry").text
    assert ask(app, path="/_noventa/guide/registri").status == 404


@pytest.mark.slow
def test_production_neither_serves_the_workbench_nor_imports_noventa_cli(tmp_path):
    app = bench(tmp_path, debug=False)
    assert "noventa" not in ask(app).text
    assert ask(app, path="/_noventa/").status == 404
    script = (
        "import sys, noventa; from pathlib import Path;"
        " noventa.App(noventa.Registry(), noventa.Config.from_mapping({}, Path('.')));"
        " print('noventa_cli' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**environment(), "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip
    assert ended.stdout == "False\n"


def test_workbench_pages_only_allow_their_own_style(tmp_path):
    app = bench(tmp_path)
    ask(app)
    for path in ("/_noventa/", "/_noventa/requests", "/_noventa/requests/1", "/fail"):
        response = ask(app, path=path, HTTP_ACCEPT="text/html")
        style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = response.header("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; ")
        assert f"style-src 'sha256-{digest}';" in policy
        assert "style=" not in response.text
        assert response.header("Cache-Control") == "no-store"


def test_the_workbench_is_served_to_this_machine_only(tmp_path):
    app = bench(tmp_path)
    assert ask(app, path="/_noventa/", REMOTE_ADDR="192.0.2.1").status == 403
    assert ask(app, path="/_noventa/", HTTP_HOST="evil.example").status == 403
    assert ask(app, "POST", "/_noventa/").status == 405
    assert ask(app, path="/_noventa/nope").status == 404
    assert ask(app, path="/_noventa/requests/x").status == 404
    dropped = ask(app, path="/_noventa/requests/99")
    assert dropped.status == 404
    assert "Request 99 is not available It is too old" in text_of(dropped)


def test_the_last_fifty_requests_are_kept(tmp_path):
    app = bench(tmp_path)
    for _ in range(55):
        ask(app, path="/away")
    numbers = [record.number for record in app.workbench.recorder.records]
    assert numbers == [*range(6, 56)]


def test_secrets_are_hidden_in_recorded_requests(tmp_path):
    app = bench(tmp_path)
    with app.database.session() as db:
        db.execute(sa.update(Counter).values(label="of-the-cookie"))
        db.commit()
    response = ask(app, path="/fail", HTTP_COOKIE="token=of-the-cookie", HTTP_ACCEPT="text/html")
    assert "lost: …" in response.text
    assert "of-the-cookie" not in response.text
    assert "of-the-cookie" not in ask(app, path="/_noventa/requests/1").text


def failing(root, source, files=(), **options):
    """Create an application whose page runs `source` as the body of its handler."""
    body = "".join(f"        {line}\n" for line in source.strip().split("\n"))
    text = f"""
    import sqlalchemy as sa
    from counters import Counter
    def load_template_context(request, session, db):
{body}"""
    path, module = root / "page_logic.py", make_module("page_logic", "")
    path.write_text(dedent(text))
    exec(compile(dedent(text), path, "exec"), vars(module))
    files = {"page.html": "{{ x }}", **dict(files)}
    return counting_app(
        root, "sqlite:///./a.db", Page("/", "page.html", logic=module), debug=True, files=files,
        **options,
    )  # fmt: skip


def test_an_error_page_shows_the_failing_expression_and_its_variables(tmp_path):
    app = failing(tmp_path, "prices, name = {'Ada': 12}, 'Adah'\nreturn {'x': prices[name]}")
    response = ask(app)
    assert "<em>prices[name]</em>" in response.text
    text = text_of(response)
    assert "KeyError: &#39;Adah&#39;" in text
    assert "Did you mean &#39;Ada&#39;?" in text
    assert "prices {&#39;Ada&#39;: 12}" in text
    assert re.search(r"raised in load_template_context page_logic.py:\d", text)
    assert re.search(r"\d+ frames in libraries", text)


def test_an_error_page_shows_mapped_objects_without_a_query_and_hides_secrets(tmp_path):
    source = """
counter = db.get(Counter, 1)
db.expire(counter, ["value"])
password, settings = "hunter2", {"api_key": "k-123"}
raise ValueError("no")"""
    app = failing(tmp_path, source)
    text = text_of(ask(app))
    assert "counter &lt;Counter 1 {&#39;id&#39;: 1, &#39;label&#39;: None}&gt;" in text
    assert "password hidden" in text
    assert "{&#39;api_key&#39;: &#39;hidden&#39;}" in text
    assert "hunter2" not in text.partition("raised in")[2].partition("called by")[2]
    assert len(app.workbench.recorder.records[0].statements) == 1


def test_an_error_page_shows_the_cause_of_an_exception(tmp_path):
    source = "try:\n    1 // 0\nexcept ZeroDivisionError as error:\n    raise ValueError from error"
    assert "Caused by ZeroDivisionError" in text_of(ask(failing(tmp_path, source)))


def test_a_chained_template_error_is_shown_with_its_source_line(tmp_path):
    def shielded(caller):
        try:
            return caller()
        except ZeroDivisionError as error:
            raise ValueError("shielded") from error

    page = "<p>\n{% call shielded() %}{{ 1 // 0 }}{% endcall %}\n</p>"
    app = make_app(
        tmp_path, {"page.html": page}, {"debug": True}, routes=[Page("/", "page.html")],
        globals={"shielded": shielded},
    )  # fmt: skip
    cause = ask(app).text.partition("Caused by ZeroDivisionError")[2]
    assert "page.html:2</code>" in cause
    assert "<mark><b>2</b>{% call shielded() %}" in cause


@pytest.mark.parametrize(
    ("used", "remedy"),
    [
        ("{% from 'macro.html' import field %}{{ field() }}", "import … with context"),
        ("{{ request.path }}", "A template receives only what its handler returned"),
    ],
)
def test_a_name_missing_from_a_templates_context_is_shown_with_a_fix(tmp_path, used, remedy):
    macro = "{% macro field() %}{{ errors.name }}{% endmacro %}"
    app = failing(tmp_path, "return {}", {"page.html": used, "macro.html": macro})
    assert remedy in text_of(ask(app))


def test_deleting_a_referenced_row_shows_a_foreign_key_explanation(tmp_path):
    source = """
for words in ("notes (id INTEGER PRIMARY KEY)", "tags (note_id REFERENCES notes)"):
    db.execute(sa.text(f"CREATE TABLE {words}"))
db.execute(sa.text("INSERT INTO notes VALUES (1)"))
db.execute(sa.text("INSERT INTO tags VALUES (1)"))
db.execute(sa.text("DELETE FROM notes"))"""
    text = text_of(ask(failing(tmp_path, source)))
    assert "A foreign key refers to a row that does not exist or is being deleted" in text
    assert "is taken" not in text


def test_a_missing_table_is_shown_with_the_command_that_creates_it(tmp_path):
    app = failing(tmp_path, "return {'x': db.execute(sa.text('SELECT a FROM orders')).scalar()}")
    text = text_of(ask(app))
    assert "No migration creates this yet" in text
    assert "if not, fix the name" in text
    assert "python -m noventa migrate revision --autogenerate" in text
    assert "SELECT a FROM orders" in text
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1.py").write_text("revision = 'a1'\ndown_revision = None\n")
    text = text_of(ask(app))
    assert "The database is behind the models" in text
    assert "$ python" not in text
    assert "python -m noventa migrate" in text


def test_a_constraint_violation_suggests_returning_a_422(tmp_path):
    app = failing(tmp_path, "db.add(Counter(id=1))\ndb.commit()")
    assert "&#34;_status&#34;: 422" in text_of(ask(app))


def test_misspelt_names_get_a_suggestion(tmp_path):
    app = failing(tmp_path, "return {'counter': request.jsno}")
    assert "Did you mean &#39;json&#39;?" in text_of(ask(app))
    app = failing(tmp_path, "return {'counter': 1}", {"page.html": "{{ countre + 1 }}"})
    assert "Did you mean &#39;counter&#39;?" in text_of(ask(app))


def test_an_unknown_url_shows_the_nearest_route_and_lists_all_routes(tmp_path):
    response = ask(bench(tmp_path), path="/awya", HTTP_ACCEPT="text/html")
    text = text_of(response)
    assert response.status == 404
    assert "Did you mean /away ?" in text
    assert "/fail test_workbench.fail" in text


def test_an_unknown_url_links_to_the_nearest_route_with_its_parameters(tmp_path):
    routes = [
        Page("/gone", "page.html", guards=[lambda request, session, db: {"_status": 404}]),
        Page("/users/{id:int}", "page.html"),
        Page("/usres/{day:date}", "page.html"),  # '7' is not a date
    ]
    files = {"page.html": "of the application"}
    app = make_app(tmp_path, files, {"debug": True}, routes=routes, errors={"4xx": "page.html"})
    text = ask(app, path="/usres/7", SCRIPT_NAME="/m", HTTP_ACCEPT="text/html").text
    assert '<a href="/m/users/7"><code>/users/7</code></a>?' in text
    assert "of the application" not in text
    assert "of the application" in ask(app, path="/gone", HTTP_ACCEPT="text/html").text


def test_a_rejected_request_shows_reason_and_remedy_only_in_debug(tmp_path):
    text = text_of(post(bench(tmp_path), "/", {"x": "y"}))
    assert "no-ticket Write this inside the &lt;form method=&#34;post&#34;&gt;" in text
    assert "{{ action(&#39;name&#39;) }}" in text
    assert "no-ticket" not in post(bench(tmp_path, debug=False), "/", {"x": "y"}).text


def test_uncommitted_changes_are_shown_on_the_next_page_with_values_and_line(tmp_path):
    visitor = Visitor(bench(tmp_path))
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"redirect": "1"})
    response = visitor.get("/")
    text = text_of(response)
    assert "Not saved: row › action_add did not commit" in text
    assert "Not changed: counters 1 , value is still 0 , not 1" in text
    assert "Call db.commit() before the return in row_logic.py:6" in text
    assert "style=" not in response.text
    assert "Not saved" not in text_of(visitor.get("/"))
    style = ask(visitor.app, path="/_noventa/notice.css")
    assert "light-dark(" in style.text


def test_the_notice_includes_uncommitted_inserts_deletes_statements_and_messages(tmp_path):
    source = """
session.flash("Saved.", "success")
db.execute(sa.update(Counter).values(label="flushed"))
db.delete(db.get(Counter, 1))
db.add(Counter(id=2, label="hunter2"))
return {"x": ""}"""
    app = failing(tmp_path, source)
    text = text_of(ask(app, HTTP_COOKIE="token=hunter2"))
    assert "Not added: counters , id : 2 , label : &#39;…&#39;" in text
    assert "Not deleted: counters 1" in text
    assert "Rolled back: UPDATE counters SET label=? with (&#39;flushed&#39;,)" in text
    assert "Its message “Saved.” was discarded." in text
    assert "Rolled back: added counters , id 2" in text_of(ask(app, path="/_noventa/requests/1"))


def test_changes_an_endpoint_did_not_commit_are_shown_on_the_next_page(tmp_path):
    def forget(request, session, db):
        db.get(Counter, 1).value = 7
        return {}

    app = counting_app(
        tmp_path, "sqlite:///./a.db", Page("/", "page.html"), Endpoint("/forget", forget),
        debug=True, files={"page.html": ""},
    )  # fmt: skip
    ask(app, path="/forget")
    assert "Not changed: counters 1 , value is still 0 , not 7" in text_of(ask(app))


def map_text(app):
    return text_of(ask(app, path="/_noventa/"))


def test_the_map_shows_routes_components_and_tables(tmp_path):
    text = map_text(bench(tmp_path))
    assert "/ guard signed_in row , rows page.html · not observed yet" in text
    assert "/away GET test_workbench.bench." in text
    assert "/files static files" in text
    assert re.search(r"row POST add test_workbench.py:\d+ · inside rows", text)
    assert "counters 1 row id integer, primary key value integer label varchar(40), unique" in text


def test_a_component_is_not_inside_one_that_uses_a_table_of_its_name(tmp_path):
    app = counting_app(
        tmp_path, "sqlite:///./a.db", Page("/", "page.html"), debug=True,
        components=[
            Component("counters", "counters.html"), Component("one", "one.html", models=[Counter]),
        ],
        files={"page.html": "", "counters.html": "", "one.html": ""},
    )  # fmt: skip
    assert "· lists counters" in map_text(app)
    assert "· inside" not in map_text(app)


def test_the_map_marks_facts_learned_from_requests_as_observed(tmp_path):
    visitor = Visitor(bench(tmp_path))
    assert "unused" not in map_text(visitor.app)  # no request yet
    ticket = visitor.get("/").tickets[0]
    text = map_text(visitor.app)
    assert "repeated / sent 4 statements, one of them 4 times from" in text
    assert "observed reading counters" in text
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    assert "observed writing counters" in map_text(visitor.app)
    assert "row.add changed rows" not in map_text(visitor.app)  # its page has a guard


def test_the_map_warns_about_a_writing_action_without_a_guard(tmp_path):
    app = counting_app(
        tmp_path, "sqlite:///./a.db", Page("/", "page.html"), debug=True, files=FILES,
        components=[
            Component("rows", "rows.html"),
            Component("row", "row.html", logic=make_module("row_logic", ROW)),
        ],
    )  # fmt: skip
    visitor = Visitor(app)
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    assert "open row.add changed rows, and no guard protects it" in map_text(app)
    assert "row POST add, no guard" in map_text(app)


def test_the_map_lists_pending_migrations_and_deployment_problems(tmp_path):
    app = bench(tmp_path)
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1_first.py").write_text("revision = 'a1'\ndown_revision = None\n")
    text = map_text(app)
    assert "Migrations not at head" in text
    assert "The database has no revision, expected a1; run `python -m noventa migrate`." in text
    assert "config.yaml: debug is true" in text


def test_the_map_is_shown_without_a_working_database(tmp_path):
    app = counting_app(tmp_path, "sqlite:///./a.db", debug=True)
    app.database.engine.dispose()
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    assert "it is not available: DatabaseError: file is not a database" in map_text(app)


# ---- requests -----------------------------------------------------------------------------


def request_text(app, number=1, query=""):
    return text_of(ask(app, path=f"/_noventa/requests/{number}", query=query))


def refuse(request, session, db):
    raise HTTPForbidden("Only on Sundays.")


def failing_routes(root, *, debug=True):
    routes = [Endpoint("/fail", fail), Endpoint("/refuse", refuse)]
    return counting_app(root, "sqlite:///./a.db", *routes, debug=debug)


def test_a_failed_requests_page_names_the_exception_and_stores_the_error_page(tmp_path):
    app = failing_routes(tmp_path)
    text = ask(app, path="/fail", HTTP_ACCEPT="text/html").text
    assert re.search(r"LookupError: lost: Raised in \S+test_workbench.py:\d+", request_text(app))
    assert ask(app, path="/_noventa/requests/1/page").text == text
    assert ask(app, path="/_noventa/requests/2/page").status == 404


def test_a_raised_http_error_is_shown_and_logged_with_its_line(tmp_path, caplog):
    caplog.set_level("INFO")
    app = failing_routes(tmp_path)
    text = text_of(ask(app, path="/refuse", HTTP_ACCEPT="text/html"))
    line = r"HTTPForbidden: Only on Sundays\., (?:raised in )?\S*test_workbench.py:\d+"
    assert re.search(line, text)
    assert re.search(
        r"HTTPForbidden: Only on Sundays. Raised in \S+test_workbench.py", request_text(app)
    )
    assert re.search(rf"GET /refuse returned 403 in /refuse > refuse, {line}", caplog.text)


def test_problem_json_includes_exception_and_line_only_in_debug(tmp_path):
    problem = json.loads(ask(failing_routes(tmp_path), path="/fail").text)
    assert problem["exception"] == "LookupError: lost:"
    assert re.search(r"test_workbench.py:\d+$", problem["where"])
    assert problem["page"] == "http://127.0.0.1/_noventa/requests/1"
    assert "exception" not in ask(failing_routes(tmp_path, debug=False), path="/fail").text


def test_the_log_links_to_the_failed_request(tmp_path, caplog):
    ask(failing_routes(tmp_path), path="/fail")
    assert re.search(r"500 GET /fail .*, http://127.0.0.1/_noventa/requests/1\n", caplog.text)


def test_recursion_is_collapsed_on_an_error_page(tmp_path):
    source = "def helper(n):\n    return helper(n + 1)\nreturn helper(0)"
    response = ask(failing(tmp_path, source))
    assert re.search(r"Repeated: helper , 9\d\d times", text_of(response))
    assert len(response.text) < 30_000


def test_an_error_page_lists_the_names_it_omits(tmp_path):
    names = "\n".join(f"name_{n} = {n}" for n in range(25))
    text = text_of(ask(failing(tmp_path, f"{names}\nraise ValueError(name_24)")))
    assert re.search(r"8 more names: name_\d+, ", text)
    assert "name_24 24" in text


def test_a_template_error_shows_only_the_context_names_of_the_application(tmp_path):
    app = failing(tmp_path, "return {'mine': 1}", {"page.html": "{{ mine // 0 }}"})
    text = text_of(ask(app)).partition("raised in")[2].partition("called by")[0]
    assert "mine 1" in text
    assert "lipsum" not in text
    assert "fragment" not in text


def test_statements_beyond_the_limits_are_counted_and_long_ones_truncated(tmp_path):
    def many(request, session, db):
        for _ in range(1_003):
            db.scalar(sa.text("SELECT 1"))
        return {}

    def long(request, session, db):
        return {"x": db.scalar(sa.text(f"SELECT 1 -- {'x' * 3_000}"))}

    routes = Endpoint("/many", many), Endpoint("/long", long)
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes, debug=True)
    ask(app, path="/many")
    ask(app, path="/long")
    assert "3 more statements, counted but not recorded" in request_text(app)
    assert "Statements 1003" in request_text(app)
    assert "… and 1012 more characters" in request_text(app, 2)


def test_a_failed_statement_is_marked_and_workbench_queries_are_not_counted(tmp_path):
    app = failing(tmp_path, "db.execute(sa.text('SELECT * FROM nowhere'))")
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1.py").write_text("revision = 'a1'\ndown_revision = None\n")
    assert "The database is behind the models" in text_of(ask(app))  # the page queried it
    text = request_text(app)
    assert re.search(r"SELECT \* FROM nowhere 1: failed · page_logic.py:\d", text)
    assert "Statements 1 " in text


def test_statements_are_listed_in_order_with_the_guards_first(tmp_path):
    def guard(request, session, db):
        db.scalar(sa.text("SELECT 'of the guard'"))

    source = """
    import sqlalchemy as sa
    def load_template_context(request, session, db):
        return {"x": db.scalar(sa.text("SELECT 'of the page'"))}
    """
    page = Page("/", "page.html", guards=[guard], logic=make_module("page_logic", source))
    app = counting_app(tmp_path, "sqlite:///./a.db", page, debug=True, files={"page.html": ""})
    ask(app)
    text = request_text(app)
    assert text.index("of the guard") < text.index("then page.html") < text.index("of the page")


def test_a_get_that_writes_is_recorded_as_one_request_that_ran_twice(tmp_path):
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/", increment), debug=True)
    ask(app)
    (record,) = app.workbench.recorder.records
    assert record.number == 1
    text = request_text(app)
    assert "This request ran twice" in text
    assert "Written counters: 1 row" in text


def test_a_notice_is_shown_even_if_the_page_ran_twice(tmp_path):
    source = """
    from counters import Counter
    def load_template_context(request, session, db):
        db.get(Counter, 1).value += 1
        db.commit()
        return {}
    """

    def forget(request, session, db):
        db.get(Counter, 1).value = 7
        return {}

    page = Page("/", "page.html", logic=make_module("page_logic", source))
    app = counting_app(
        tmp_path, "sqlite:///./a.db", page, action("/forget", forget), debug=True,
        files={"page.html": "<body></body>"},
    )  # fmt: skip
    post(app, "/forget", {})
    assert "Not changed: counters 1 , value is still 0 , not 7" in text_of(ask(app))


def test_a_request_page_shows_fields_files_and_a_link_to_its_route(tmp_path):
    def take(request, session, db):
        session["seen"] = len(request.files)
        return {}

    route = Endpoint("/take/{id:int}", lambda request, session, db, id: take(request, session, db),
                     methods=["POST"], cross_origin=True)  # fmt: skip
    app = counting_app(tmp_path, "sqlite:///./a.db", route, debug=True)
    fields = {"name": "Ada", "password": "hunter22", "photo": ("ada.png", b"x")}
    body = webob.Request.blank("/", POST=fields)
    body.body  # noqa: B018 - encodes the fields
    ask(app, "POST", "/take/7", body=body.body, CONTENT_TYPE=body.headers["Content-Type"])
    response = ask(app, path="/_noventa/requests/1")
    text = text_of(response)
    assert "View args {&#39;id&#39;: 7}" in text
    assert "&#39;name&#39;: &#39;Ada&#39;" in text
    assert "photo: ada.png" in text
    assert "Session {&#39;seen&#39;: 1}" in text
    assert "hunter22" not in response.text
    assert 'href="/_noventa/?about=/take/%7Bid%3Aint%7D"' in response.text


def test_requests_can_be_filtered_by_prefixes_of_status_method_and_path(tmp_path):
    app = bench(tmp_path)
    for path in ("/", "/away", "/awry"):
        ask(app, path=path)
    post(app, "/", {"x": "y"})

    def matches(words):
        text = text_of(ask(app, path="/_noventa/requests", query=f"q={words}"))
        return re.findall(r"(\d{3}) (?:GET|POST) (\S+) ", text)

    assert matches("4") == [("400", "/"), ("404", "/awry")]
    assert matches("GET+/aw") == [("404", "/awry"), ("303", "/away")]
    assert matches("4+POST") == [("400", "/")]


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_explain_shows_the_plan_of_a_query_but_not_of_a_write(tmp_path, database):
    app = counting_app(tmp_path, database, Endpoint("/", increment, writes=True), debug=True)
    ask(app)
    plan = {"sqlite": "SEARCH counters", "postgresql": "counters_pkey", "mysql": "PRIMARY"}
    backend = app.database.engine.dialect.name.replace("mariadb", "mysql")
    text = request_text(app, query="explain=1").partition("Query plan of statement 1")[2]
    assert re.search(plan[backend].replace("counters_pkey", "counters"), text)
    assert "Query plan" not in request_text(app, query="explain=2")  # an UPDATE
    for number in ("0", "9", "x", "²"):
        assert "Query plan" not in request_text(app, query=f"explain={number}")
    with app.database.session() as db:
        assert db.get(Counter, 1).value == 1


def test_a_constraint_violation_names_the_column_and_the_nearest_field(tmp_path):
    def add(request, session, db):
        db.add(Counter(id=request.form.get("id", 2), label=request.form["labell"]))
        db.commit()

    route = Endpoint("/", add, methods=["POST"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", route, debug=True)
    body = {"labell": "same"}
    post(app, "/", body, HTTP_ACCEPT="text/html")
    text = text_of(post(app, "/", body | {"id": "3"}, HTTP_ACCEPT="text/html"))
    assert "A row violates a constraint on counters.label" in text
    assert "&#34;labell&#34;: &#34;cannot be taken&#34;" in text
    report = text.partition("A summary of this page")[2]
    assert "INSERT INTO counters" in report
    assert "Tell visitors what to correct" in report


# ---- the map --------------------------------------------------------------------------------


def test_the_map_includes_page_actions_and_posted_endpoints(tmp_path):
    module = make_module("page_logic", ROW.replace(", number", "").replace("number", "1"))
    page, endpoint = Page("/", "page.html", logic=module), action("/add", increment)
    app = counting_app(
        tmp_path, "sqlite:///./a.db", page, endpoint, debug=True, files={"page.html": ""}
    )
    post(app, "/add", {})
    text = map_text(app)
    assert "/ POST add, no guard" in text
    assert "/add POST POST, no guard" in text
    assert "open /add.POST changed rows, and no guard protects it." in text


def test_a_table_is_reported_unused_after_every_route_ran_without_it(tmp_path):
    def read(request, session, db):
        return {"value": db.scalar(sa.text("SELECT value FROM counters"))}

    def nothing(request, session, db):
        return {}

    (tmp_path / "files").mkdir()
    routes = Endpoint("/a", nothing), Endpoint("/b", nothing), Static("/files", "files")
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes, debug=True)
    ask(app, path="/a")
    assert "unused counters" not in map_text(app)
    ask(app, path="/b")
    assert "unused counters is not listed by any component or page" in map_text(app)
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/a", read), debug=True)
    ask(app, path="/a")
    assert "unused counters" not in map_text(app)


def test_a_table_can_be_unused_while_a_component_of_its_name_is_in_use(tmp_path):
    page = Page("/", "page.html")
    app = counting_app(
        tmp_path, "sqlite:///./a.db", page, components=[Component("counters", "counters.html")],
        files={"page.html": '{{ component("counters") }}', "counters.html": ""}, debug=True,
    )  # fmt: skip
    ask(app)
    assert "unused counters is not listed by any component or page" in map_text(app)


def test_routes_sharing_a_path_are_listed_separately_on_the_map(tmp_path):
    def read(request, session, db):
        return {}

    routes = Endpoint("/counter", read), action("/counter", increment), Static("/files", "files")
    (tmp_path / "files").mkdir()
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes, debug=True)
    ask(app, path="/counter")
    post(app, "/counter", {})
    text = map_text(app)
    assert re.search(r"/counter GET .* /counter POST POST, no guard", text)
    assert "open /counter.POST changed rows" in text


def test_a_hint_can_be_dismissed_in_the_registry(tmp_path):
    routes = [action("/add", increment)]
    app = make_app(
        tmp_path, {}, {"debug": True}, routes=routes, models=[Counter], dismissed=["open /add.POST"]
    )
    with app.database.session() as db:
        db.add(Counter(id=1))
        db.commit()
    post(app, "/add", {})
    assert "Worth a look" not in map_text(app)


def about(app, name):
    return text_of(ask(app, path="/_noventa/", query=f"about={name}")).partition("everything")[2]


def test_the_map_shows_everything_related_to_a_name(tmp_path):
    app = bench(tmp_path)
    ask(app)
    text = about(app, "row")
    assert re.search(r"Routes 1 / .* Components 2 rows .* row .* Tables 1 counters", text)
    assert "/away" not in text
    assert re.search(r"Routes 1 / .* Components 2 rows .* row .* Tables 1", about(app, "counters"))
    assert "Nothing matches." in about(app, "nothing")


def test_the_map_searches_by_substring_and_groups_common_prefixes(tmp_path):
    def nothing(request, session, db, **view_args):
        return {}

    routes = [Endpoint(f"/admin/thing-{n}", nothing) for n in range(40)]
    app = make_app(tmp_path, {}, {"debug": True}, routes=[*routes, Endpoint("/home", nothing)])
    full_map = ask(app, path="/_noventa/").text
    assert re.search(r"<summary>/admin <span class=\"tag\">40</span>", full_map)
    text = text_of(ask(app, path="/_noventa/", query="q=G-7"))
    assert "Routes 1 /admin/thing-7 GET" in text


# ---- editor, reload, guide ------------------------------------------------------------------


def test_source_lines_link_to_the_configured_editor(tmp_path):
    root = tmp_path / "my files"
    root.mkdir()
    app = make_app(
        root, {"page.html": "\n{{ 1 // 0 }}"}, {"debug": True, "editor": "idea://x?f={file}&l={line}"},
        routes=[Page("/", "page.html")],
    )  # fmt: skip
    link = f'href="idea://x?f={str(root).replace(" ", "%20")}/page.html&amp;l=2"'
    assert link in ask(app).text
    assert link in ask(app, path="/_noventa/requests/1").text


@pytest.mark.parametrize("editor", ["javascript:alert({file})", "DATA:,{file}", "vscode://file/"])
def test_an_editor_url_must_contain_the_file_and_not_be_a_script(editor, tmp_path):
    with pytest.raises(ConfigError, match="expected an editor's URL that contains"):
        Config.from_mapping({"editor": editor}, tmp_path)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (None, True),
        ("default-src 'self'", True),
        ("default-src 'none'", False),
        ("script-src 'none'", False),
        ("default-src 'none'; script-src 'self'", False),  # connect-src forbids the polling
        ("default-src 'none'; script-src 'self'; connect-src 'self'", True),
    ],
)
def test_a_page_reloads_itself_under_reload_if_its_policy_allows(
    policy, allowed, tmp_path, monkeypatch
):
    def page(**environ):
        headers = {"headers": {"Content-Security-Policy": policy}} if policy else {}
        app = make_app(
            tmp_path, {"page.html": "{{ workbench() }}"}, {"debug": True, **headers},
            routes=[Page("/", "page.html")],
        )  # fmt: skip
        return app, ask(app).text

    assert "<script" not in page()[1]
    monkeypatch.setenv("NOVENTA_RELOADER", "1")
    app, html = page()
    assert ('<script src="/_noventa/reload.js" defer></script>' in html) is allowed
    before = ask(app, path="/_noventa/changed").text
    assert ask(app, path="/_noventa/changed").text == before
    (tmp_path / "page.html").write_text("changed")
    assert ask(app, path="/_noventa/changed").text != before


def test_a_chapter_has_a_table_of_contents_neighbours_and_links(tmp_path):
    app = bench(tmp_path)
    html = ask(app, path="/_noventa/guide/registry").text
    assert 'rel="prev" href="/_noventa/guide/first_steps"' in html
    assert 'rel="next" href="/_noventa/guide/pages"' in html
    assert 'aria-current="page">The registry</a>' in html
    assert 'href="/_noventa/guide/errors"' in html
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_the_guide_can_be_searched(tmp_path):
    text = text_of(ask(bench(tmp_path), path="/_noventa/guide", query="q=getlist"))
    assert re.search(r"forms Forms, \d+ times", text)
    missing = text_of(ask(bench(tmp_path), path="/_noventa/guide", query="q=xyzzy"))
    assert "No chapter contains it." in missing
