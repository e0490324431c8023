"""The workbench: what debug shows at /_noventa/ of the application and its requests."""

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
    """An application with a list of four rows that each ask for themselves."""
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


def text_of(answer):
    """The text of a page as it is read: one space between words."""
    body = re.sub(r"<style>.*?</style>", "", answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_requests_are_listed_with_posts_and_redirects_and_without_files(tmp_path):
    app = bench(tmp_path)
    ask(app)
    ask(app, path="/away")
    ask(app, path="/files/site.css")
    post(app, "/", {"x": "y"})
    ask(app, path="/_noventa/requests")
    shown = text_of(ask(app, path="/_noventa/requests"))
    found = re.findall(r"(\d{3}) ((?:GET|POST) \S+)", shown)
    assert found == [("400", "POST /"), ("303", "GET /away"), ("200", "GET /")]


# Wrong links and names


def test_a_url_that_no_route_answers_is_said_in_the_log_and_on_the_page(tmp_path, caplog):
    page = "<p>\n<a href=\"{{ url('/user/' ~ 7) }}\">x</a> {{ url('/users/7#top') }}</p>"
    files, routes = {"page.html": page}, [Page("/", "page.html"), Page("/users/{id}", "page.html")]
    app = make_app(tmp_path, files, {"debug": True}, routes=routes)
    answer = ask(app)
    assert "page.html:2: no route matches '/user/7'" in caplog.text
    assert "Broken link: page.html:2" in text_of(answer)
    assert "/users/7'" not in caplog.text
    caplog.clear()
    assert "Broken link" not in ask(make_app(tmp_path, files, routes=routes)).text
    assert not caplog.records


def test_a_redirect_that_no_route_answers_is_said_in_the_log_and_on_the_next_page(tmp_path, caplog):
    def leave(request, session, db):
        return {"_redirect": "/nowhere?a=1"}

    app = make_app(tmp_path, {}, {"debug": True}, routes=[Endpoint("/", leave)])
    assert ask(app).status == 303
    assert re.search(r"leave.*: no route matches '/nowhere'", caplog.text)
    assert re.search(r"Broken link: .*leave", text_of(ask(app, path="/nowhere")))


def test_an_undefined_name_that_a_template_prints_is_logged_in_debug(tmp_path, caplog):
    files, routes = {"page.html": "\n{% if a %}{% endif %}[{{ b }}]"}, [Page("/", "page.html")]
    assert "[]" in ask(make_app(tmp_path, files, {"debug": True}, routes=routes)).text
    (record,) = [one for one in caplog.records if "undefined" in one.getMessage()]
    assert record.getMessage() == "page.html:2: Template variable warning: 'b' is undefined"
    caplog.clear()
    assert "[]" in ask(make_app(tmp_path, files, routes=routes)).text
    assert not caplog.records


def test_a_request_shows_its_parts_statements_rows_and_the_line_that_asked(tmp_path):
    app = bench(tmp_path)
    ask(app)
    shown = text_of(ask(app, path="/_noventa/requests/1"))
    names = re.findall(r"(page.html|signed_in|rows|row × 4) [\d.e-]+ ms", shown)
    assert names == ["page.html", "signed_in", "rows", "row × 4"]
    assert re.search(r"row × 4 [\d.e-]+ ms 4 statements SELECT counters.id", shown)
    assert re.search(r"1: 4 sent, 1 distinct , [\d.e-]+ ms · rows.html:1 · explain 1", shown)
    assert "Session {&#39;user&#39;: 1}" in shown


def test_a_statement_sent_again_and_again_comes_with_its_cure(tmp_path):
    app = bench(tmp_path)
    ask(app)
    shown = text_of(ask(app, path="/_noventa/requests/1"))
    assert "Repeated statement: 4 sent, 1 distinct" in shown
    assert "Load all rows once in the enclosing component" in shown


def test_what_a_post_wrote_and_committed_is_shown(tmp_path):
    visitor = Visitor(bench(tmp_path))
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    shown = text_of(visitor.get("/_noventa/requests/2"))
    assert "Written counters: 1 row" in shown
    assert "Transactions commit" in shown


def test_a_page_links_to_its_own_request_below_a_mount(tmp_path):
    app = bench(tmp_path)
    answer = ask(app, SCRIPT_NAME="/m")
    link = r'<a class="noventa" href="/m/_noventa/requests/1">[\d.e-]+ ms · 4 statements</a>'
    assert re.search(link, answer.text)


def test_the_guide_can_be_read_beside_the_map(tmp_path):
    app = bench(tmp_path)
    assert 'href="/_noventa/guide"' in ask(app, path="/_noventa/").text
    assert 'href="/_noventa/guide/registry"' in ask(app, path="/_noventa/guide").text
    assert "<code>Mount(path, application)</code>" in ask(app, path="/_noventa/guide/registry").text
    assert ask(app, path="/_noventa/guide/registri").status == 404


@pytest.mark.slow
def test_in_production_there_is_no_workbench_and_its_module_is_not_loaded(tmp_path):
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


def test_pages_of_the_workbench_allow_their_own_style_only(tmp_path):
    app = bench(tmp_path)
    ask(app)
    for path in ("/_noventa/", "/_noventa/requests", "/_noventa/requests/1", "/fail"):
        answer = ask(app, path=path, HTTP_ACCEPT="text/html")
        style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = answer.header("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; ")
        assert f"style-src 'sha256-{digest}';" in policy
        assert "style=" not in answer.text
        assert answer.header("Cache-Control") == "no-store"


def test_only_this_machine_sees_the_workbench(tmp_path):
    app = bench(tmp_path)
    assert ask(app, path="/_noventa/", REMOTE_ADDR="192.0.2.1").status == 403
    assert ask(app, path="/_noventa/", HTTP_HOST="evil.example").status == 403
    assert ask(app, "POST", "/_noventa/").status == 405
    assert ask(app, path="/_noventa/nope").status == 404
    assert ask(app, path="/_noventa/requests/x").status == 404
    gone = ask(app, path="/_noventa/requests/99")
    assert gone.status == 404
    assert "Request 99 is not available It is too old" in text_of(gone)


def test_the_last_fifty_requests_are_kept(tmp_path):
    app = bench(tmp_path)
    for _ in range(55):
        ask(app, path="/away")
    numbers = [record.number for record in app.workbench.recorder.records]
    assert numbers == [*range(6, 56)]


def test_secrets_are_hidden_in_what_is_kept(tmp_path):
    app = bench(tmp_path)
    with app.database.session() as db:
        db.execute(sa.update(Counter).values(label="of-the-cookie"))
        db.commit()
    answer = ask(app, path="/fail", HTTP_COOKIE="token=of-the-cookie", HTTP_ACCEPT="text/html")
    assert "lost: …" in answer.text
    assert "of-the-cookie" not in answer.text
    assert "of-the-cookie" not in ask(app, path="/_noventa/requests/1").text


def failing(root, source, files=(), **options):
    """An application whose page runs `source` as the body of its handler."""
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


def test_an_error_shows_the_failing_expression_and_the_values_of_its_names(tmp_path):
    app = failing(tmp_path, "prices, name = {'Ada': 12}, 'Adah'\nreturn {'x': prices[name]}")
    answer = ask(app)
    assert "<em>prices[name]</em>" in answer.text
    shown = text_of(answer)
    assert "KeyError: &#39;Adah&#39;" in shown
    assert "Did you mean &#39;Ada&#39;?" in shown
    assert "prices {&#39;Ada&#39;: 12}" in shown
    assert re.search(r"raised in load_template_context page_logic.py:\d", shown)
    assert re.search(r"\d+ frames in libraries", shown)


def test_a_mapped_object_is_shown_without_a_statement_and_secrets_are_hidden(tmp_path):
    source = """
counter = db.get(Counter, 1)
db.expire(counter, ["value"])
password, settings = "hunter2", {"api_key": "k-123"}
raise ValueError("no")"""
    app = failing(tmp_path, source)
    shown = text_of(ask(app))
    assert "counter &lt;Counter 1 {&#39;id&#39;: 1, &#39;label&#39;: None}&gt;" in shown
    assert "password hidden" in shown
    assert "{&#39;api_key&#39;: &#39;hidden&#39;}" in shown
    assert "hunter2" not in shown.partition("raised in")[2].partition("called by")[2]
    assert len(app.workbench.recorder.records[0].statements) == 1


def test_an_error_shows_what_it_came_from(tmp_path):
    source = "try:\n    1 // 0\nexcept ZeroDivisionError as error:\n    raise ValueError from error"
    assert "Caused by ZeroDivisionError" in text_of(ask(failing(tmp_path, source)))


def test_a_line_of_a_template_that_a_handler_caught_is_shown_as_it_is_written(tmp_path):
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
def test_a_name_that_a_template_does_not_see_comes_with_its_cure(tmp_path, used, remedy):
    macro = "{% macro field() %}{{ errors.name }}{% endmacro %}"
    app = failing(tmp_path, "return {}", {"page.html": used, "macro.html": macro})
    assert remedy in text_of(ask(app))


def test_a_row_that_is_still_referred_to_is_answered_with_how_to_delete_it(tmp_path):
    source = """
for words in ("notes (id INTEGER PRIMARY KEY)", "tags (note_id REFERENCES notes)"):
    db.execute(sa.text(f"CREATE TABLE {words}"))
db.execute(sa.text("INSERT INTO notes VALUES (1)"))
db.execute(sa.text("INSERT INTO tags VALUES (1)"))
db.execute(sa.text("DELETE FROM notes"))"""
    shown = text_of(ask(failing(tmp_path, source)))
    assert "A row refers to one that does not exist, or that you delete" in shown
    assert "is taken" not in shown


def test_a_missing_table_is_answered_with_the_command_that_makes_it(tmp_path):
    app = failing(tmp_path, "return {'x': db.execute(sa.text('SELECT a FROM orders')).scalar()}")
    shown = text_of(ask(app))
    assert "No migration creates this yet" in shown
    assert "if not, correct the name" in shown
    assert "python -m noventa migrate revision --autogenerate" in shown
    assert "SELECT a FROM orders" in shown
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1.py").write_text("revision = 'a1'\ndown_revision = None\n")
    shown = text_of(ask(app))
    assert "The database is behind the models" in shown
    assert "$ python" not in shown
    assert "python -m noventa migrate" in shown


def test_a_broken_rule_of_the_database_is_answered_with_a_422(tmp_path):
    app = failing(tmp_path, "db.add(Counter(id=1))\ndb.commit()")
    assert "&#34;_status&#34;: 422" in text_of(ask(app))


def test_misspelt_names_get_the_nearest_one(tmp_path):
    app = failing(tmp_path, "return {'counter': request.jsno}")
    assert "Did you mean &#39;json&#39;?" in text_of(ask(app))
    app = failing(tmp_path, "return {'counter': 1}", {"page.html": "{{ countre + 1 }}"})
    assert "Did you mean &#39;counter&#39;?" in text_of(ask(app))


def test_an_unknown_address_shows_the_nearest_route_and_all(tmp_path):
    answer = ask(bench(tmp_path), path="/awya", HTTP_ACCEPT="text/html")
    shown = text_of(answer)
    assert answer.status == 404
    assert "Did you mean /away ?" in shown
    assert "/fail test_workbench.fail" in shown


def test_an_unknown_address_leads_to_the_one_that_was_meant_with_its_parameters(tmp_path):
    routes = [
        Page("/gone", "page.html", guards=[lambda request, session, db: {"_status": 404}]),
        Page("/users/{id:int}", "page.html"),
        Page("/usres/{day:date}", "page.html"),  # no date was asked for
    ]
    files = {"page.html": "of the application"}
    app = make_app(tmp_path, files, {"debug": True}, routes=routes, errors={"4xx": "page.html"})
    shown = ask(app, path="/usres/7", SCRIPT_NAME="/m", HTTP_ACCEPT="text/html").text
    assert '<a href="/m/users/7"><code>/users/7</code></a>?' in shown
    assert "of the application" not in shown
    assert "of the application" in ask(app, path="/gone", HTTP_ACCEPT="text/html").text


def test_a_refusal_says_its_reason_and_remedy_in_debug_only(tmp_path):
    shown = text_of(post(bench(tmp_path), "/", {"x": "y"}))
    assert "no-ticket Write this inside the &lt;form method=&#34;post&#34;&gt;" in shown
    assert "{{ action(&#39;name&#39;) }}" in shown
    assert "no-ticket" not in post(bench(tmp_path, debug=False), "/", {"x": "y"}).text


def test_what_was_not_committed_is_said_on_the_next_page_with_values_and_line(tmp_path):
    visitor = Visitor(bench(tmp_path))
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"redirect": "1"})
    answer = visitor.get("/")
    shown = text_of(answer)
    assert "Not saved: row › action_add did not commit" in shown
    assert "Not changed: counters 1 , value is still 0 , not 1" in shown
    assert "Call db.commit() before the return in row_logic.py:6" in shown
    assert "style=" not in answer.text
    assert "Not saved" not in text_of(visitor.get("/"))
    style = ask(visitor.app, path="/_noventa/notice.css")
    assert "light-dark(" in style.text


def test_what_was_added_deleted_flushed_or_flashed_in_vain_is_said_too(tmp_path):
    source = """
session.flash("Saved.", "success")
db.execute(sa.update(Counter).values(label="flushed"))
db.delete(db.get(Counter, 1))
db.add(Counter(id=2, label="hunter2"))
return {"x": ""}"""
    app = failing(tmp_path, source)
    shown = text_of(ask(app, HTTP_COOKIE="token=hunter2"))
    assert "Not added: counters , id : 2 , label : &#39;…&#39;" in shown
    assert "Not deleted: counters 1" in shown
    assert "Rolled back: UPDATE counters SET label=? with (&#39;flushed&#39;,)" in shown
    assert "Its message “Saved.” was discarded." in shown
    assert "Rolled back: added counters , id 2" in text_of(ask(app, path="/_noventa/requests/1"))


def test_what_an_endpoint_did_not_commit_is_said_on_the_next_page(tmp_path):
    def forget(request, session, db):
        db.get(Counter, 1).value = 7
        return {}

    app = counting_app(
        tmp_path, "sqlite:///./a.db", Page("/", "page.html"), Endpoint("/forget", forget),
        debug=True, files={"page.html": ""},
    )  # fmt: skip
    ask(app, path="/forget")
    assert "Not changed: counters 1 , value is still 0 , not 7" in text_of(ask(app))


def map_of(app):
    return text_of(ask(app, path="/_noventa/"))


def test_the_map_shows_routes_components_and_tables_as_they_run(tmp_path):
    shown = map_of(bench(tmp_path))
    assert "/ guard signed_in row , rows page.html · not observed yet" in shown
    assert "/away GET test_workbench.bench." in shown
    assert "/files static files" in shown
    assert re.search(r"row POST add test_workbench.py:\d+ · inside rows", shown)
    assert "counters 1 row id integer, primary key value integer label varchar(40), unique" in shown


def test_what_only_requests_tell_is_marked_as_seen(tmp_path):
    visitor = Visitor(bench(tmp_path))
    assert "unused" not in map_of(visitor.app)  # nothing was asked for yet
    ticket = visitor.get("/").tickets[0]
    shown = map_of(visitor.app)
    assert "repeated / sent 4 statements, one of them 4 times from" in shown
    assert "observed reading counters" in shown
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    assert "observed writing counters" in map_of(visitor.app)
    assert "row.add changed rows" not in map_of(visitor.app)  # its page has a guard


def test_an_action_that_wrote_without_a_guard_is_worth_a_look(tmp_path):
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
    assert "open row.add changed rows, and no guard protects it" in map_of(app)
    assert "row POST add, no guard" in map_of(app)


def test_the_map_says_what_is_to_apply_and_to_mend_before_deploying(tmp_path):
    app = bench(tmp_path)
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1_first.py").write_text("revision = 'a1'\ndown_revision = None\n")
    shown = map_of(app)
    assert "Migrations not at head" in shown
    assert "The database has no revision, expected a1; run `python -m noventa migrate`, or" in shown
    assert "config.yaml: debug is true" in shown


def test_the_map_is_shown_where_the_database_does_not_answer(tmp_path):
    app = counting_app(tmp_path, "sqlite:///./a.db", debug=True)
    app.database.engine.dispose()
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    assert "it is not available: DatabaseError: file is not a database" in map_of(app)


# ---- what is true of each request -----------------------------------------------------------


def page_of(app, number=1, query=""):
    return text_of(ask(app, path=f"/_noventa/requests/{number}", query=query))


def refuse(request, session, db):
    raise HTTPForbidden("Only on Sundays.")


def of_errors(root, *, debug=True):
    routes = [Endpoint("/fail", fail), Endpoint("/refuse", refuse)]
    return counting_app(root, "sqlite:///./a.db", *routes, debug=debug)


def test_the_page_of_a_failed_request_names_the_exception_and_keeps_the_error_page(tmp_path):
    app = of_errors(tmp_path)
    shown = ask(app, path="/fail", HTTP_ACCEPT="text/html").text
    assert re.search(r"LookupError: lost: Raised in \S+test_workbench.py:\d+", page_of(app))
    assert ask(app, path="/_noventa/requests/1/page").text == shown
    assert ask(app, path="/_noventa/requests/2/page").status == 404


def test_an_error_that_a_handler_raises_as_an_answer_is_named_with_its_line(tmp_path, caplog):
    caplog.set_level("INFO")
    app = of_errors(tmp_path)
    shown = text_of(ask(app, path="/refuse", HTTP_ACCEPT="text/html"))
    line = r"HTTPForbidden: Only on Sundays\., (?:raised in )?\S*test_workbench.py:\d+"
    assert re.search(line, shown)
    assert re.search(
        r"HTTPForbidden: Only on Sundays. Raised in \S+test_workbench.py", page_of(app)
    )
    assert re.search(rf"GET /refuse returned 403 in /refuse > refuse, {line}", caplog.text)


def test_programs_get_exception_and_line_in_debug_only(tmp_path):
    problem = json.loads(ask(of_errors(tmp_path), path="/fail").text)
    assert problem["exception"] == "LookupError: lost:"
    assert re.search(r"test_workbench.py:\d+$", problem["where"])
    assert problem["page"] == "http://127.0.0.1/_noventa/requests/1"
    assert "exception" not in ask(of_errors(tmp_path, debug=False), path="/fail").text


def test_the_log_has_the_address_of_the_request_that_failed(tmp_path, caplog):
    ask(of_errors(tmp_path), path="/fail")
    assert re.search(r"500 GET /fail .*, http://127.0.0.1/_noventa/requests/1\n", caplog.text)


def test_a_recursion_is_one_line_of_an_error_page(tmp_path):
    source = "def helper(n):\n    return helper(n + 1)\nreturn helper(0)"
    answer = ask(failing(tmp_path, source))
    assert re.search(r"Repeated: helper , 9\d\d times", text_of(answer))
    assert len(answer.text) < 30_000


def test_what_an_error_page_leaves_out_is_said(tmp_path):
    names = "\n".join(f"name_{n} = {n}" for n in range(25))
    shown = text_of(ask(failing(tmp_path, f"{names}\nraise ValueError(name_24)")))
    assert re.search(r"8 more names: name_\d+, ", shown)
    assert "name_24 24" in shown


def test_of_a_template_its_own_names_are_shown(tmp_path):
    app = failing(tmp_path, "return {'mine': 1}", {"page.html": "{{ mine // 0 }}"})
    shown = text_of(ask(app)).partition("raised in")[2].partition("called by")[0]
    assert "mine 1" in shown
    assert "lipsum" not in shown
    assert "fragment" not in shown


def test_statements_and_text_beyond_the_most_are_counted(tmp_path):
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
    assert "3 more statements, counted but not recorded" in page_of(app)
    assert "Statements 1003" in page_of(app)
    assert "… and 1012 more characters" in page_of(app, 2)


def test_a_statement_that_failed_is_marked_and_the_workbench_counts_none_of_its_own(tmp_path):
    app = failing(tmp_path, "db.execute(sa.text('SELECT * FROM nowhere'))")
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1.py").write_text("revision = 'a1'\ndown_revision = None\n")
    assert "The database is behind the models" in text_of(ask(app))  # it was asked for that
    shown = page_of(app)
    assert re.search(r"SELECT \* FROM nowhere 1: failed · page_logic.py:\d", shown)
    assert "Statements 1 " in shown


def test_statements_stand_where_they_were_sent_after_those_of_the_guard(tmp_path):
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
    shown = page_of(app)
    assert shown.index("of the guard") < shown.index("then page.html") < shown.index("of the page")


def test_a_get_that_writes_is_one_request_which_was_answered_twice(tmp_path):
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/", increment), debug=True)
    ask(app)
    (record,) = app.workbench.recorder.records
    assert record.number == 1
    shown = page_of(app)
    assert "This request ran twice" in shown
    assert "Written counters: 1 row" in shown


def test_a_notice_is_shown_although_the_page_had_to_be_answered_twice(tmp_path):
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


def test_a_request_shows_fields_files_and_the_way_to_its_route(tmp_path):
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
    answer = ask(app, path="/_noventa/requests/1")
    shown = text_of(answer)
    assert "View args {&#39;id&#39;: 7}" in shown
    assert "&#39;name&#39;: &#39;Ada&#39;" in shown
    assert "photo: ada.png" in shown
    assert "Session {&#39;seen&#39;: 1}" in shown
    assert "hunter22" not in answer.text
    assert 'href="/_noventa/?about=/take/%7Bid%3Aint%7D"' in answer.text


def test_requests_are_found_by_the_beginning_of_status_method_and_path(tmp_path):
    app = bench(tmp_path)
    for path in ("/", "/away", "/awry"):
        ask(app, path=path)
    post(app, "/", {"x": "y"})

    def found(words):
        shown = text_of(ask(app, path="/_noventa/requests", query=f"q={words}"))
        return re.findall(r"(\d{3}) (?:GET|POST) (\S+) ", shown)

    assert found("4") == [("400", "/"), ("404", "/awry")]
    assert found("GET+/aw") == [("404", "/awry"), ("303", "/away")]
    assert found("4+POST") == [("400", "/")]


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_a_query_is_explained_by_its_number_and_a_write_is_not(tmp_path, database):
    app = counting_app(tmp_path, database, Endpoint("/", increment, writes=True), debug=True)
    ask(app)
    plan = {"sqlite": "SEARCH counters", "postgresql": "counters_pkey", "mysql": "PRIMARY"}
    backend = app.database.engine.dialect.name.replace("mariadb", "mysql")
    shown = page_of(app, query="explain=1").partition("Query plan of statement 1")[2]
    assert re.search(plan[backend].replace("counters_pkey", "counters"), shown)
    assert "Query plan" not in page_of(app, query="explain=2")  # an UPDATE
    for number in ("0", "9", "x", "²"):
        assert "Query plan" not in page_of(app, query=f"explain={number}")
    with app.database.session() as db:
        assert db.get(Counter, 1).value == 1


def test_a_broken_rule_names_the_column_and_the_nearest_field(tmp_path):
    def add(request, session, db):
        db.add(Counter(id=request.form.get("id", 2), label=request.form["labell"]))
        db.commit()

    route = Endpoint("/", add, methods=["POST"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", route, debug=True)
    body = {"labell": "same"}
    post(app, "/", body, HTTP_ACCEPT="text/html")
    shown = text_of(post(app, "/", body | {"id": "3"}, HTTP_ACCEPT="text/html"))
    assert "A row violates a constraint on counters.label" in shown
    assert "&#34;labell&#34;: &#34;cannot be taken&#34;" in shown
    report = shown.partition("A summary of this page")[2]
    assert "INSERT INTO counters" in report
    assert "Tell visitors what to correct" in report


# ---- the map --------------------------------------------------------------------------------


def test_the_map_has_actions_of_pages_and_endpoints_that_are_posted_to(tmp_path):
    module = make_module("page_logic", ROW.replace(", number", "").replace("number", "1"))
    page, endpoint = Page("/", "page.html", logic=module), action("/add", increment)
    app = counting_app(
        tmp_path, "sqlite:///./a.db", page, endpoint, debug=True, files={"page.html": ""}
    )
    post(app, "/add", {})
    shown = map_of(app)
    assert "/ POST add, no guard" in shown
    assert "/add POST POST, no guard" in shown
    assert "open /add.POST changed rows, and no guard protects it." in shown


def test_a_table_is_unused_once_every_route_was_seen_and_none_named_it(tmp_path):
    def read(request, session, db):
        return {"value": db.scalar(sa.text("SELECT value FROM counters"))}

    def nothing(request, session, db):
        return {}

    (tmp_path / "files").mkdir()
    routes = Endpoint("/a", nothing), Endpoint("/b", nothing), Static("/files", "files")
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes, debug=True)
    ask(app, path="/a")
    assert "unused counters" not in map_of(app)
    ask(app, path="/b")
    assert "unused counters is not listed by any component or page" in map_of(app)
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/a", read), debug=True)
    ask(app, path="/a")
    assert "unused counters" not in map_of(app)


def test_two_entries_of_one_path_are_two_on_the_map(tmp_path):
    def read(request, session, db):
        return {}

    routes = Endpoint("/counter", read), action("/counter", increment), Static("/files", "files")
    (tmp_path / "files").mkdir()
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes, debug=True)
    ask(app, path="/counter")
    post(app, "/counter", {})
    shown = map_of(app)
    assert re.search(r"/counter GET .* /counter POST POST, no guard", shown)
    assert "open /counter.POST changed rows" in shown


def test_a_hint_can_be_dismissed_in_the_registry(tmp_path):
    routes = [action("/add", increment)]
    app = make_app(
        tmp_path, {}, {"debug": True}, routes=routes, models=[Counter], dismissed=["open /add.POST"]
    )
    with app.database.session() as db:
        db.add(Counter(id=1))
        db.commit()
    post(app, "/add", {})
    assert "Worth a look" not in map_of(app)


def about(app, name):
    return text_of(ask(app, path="/_noventa/", query=f"about={name}")).partition("everything")[2]


def test_the_map_shows_what_hangs_together_with_a_name(tmp_path):
    app = bench(tmp_path)
    ask(app)
    shown = about(app, "row")
    assert re.search(r"Routes 1 / .* Components 2 rows .* row .* Tables 1 counters", shown)
    assert "/away" not in shown
    assert re.search(r"Routes 1 / .* Components 2 rows .* row .* Tables 1", about(app, "counters"))
    assert "Nothing matches." in about(app, "nothing")


def test_the_map_finds_by_a_part_of_a_name_and_folds_what_begins_alike(tmp_path):
    def nothing(request, session, db, **view_args):
        return {}

    routes = [Endpoint(f"/admin/thing-{n}", nothing) for n in range(40)]
    app = make_app(tmp_path, {}, {"debug": True}, routes=[*routes, Endpoint("/home", nothing)])
    whole = ask(app, path="/_noventa/").text
    assert re.search(r"<summary>/admin <span class=\"tag\">40</span>", whole)
    found = text_of(ask(app, path="/_noventa/", query="q=G-7"))
    assert "Routes 1 /admin/thing-7 GET" in found


# ---- editor, reload, guide ------------------------------------------------------------------


def test_a_line_is_a_link_into_the_editor_that_the_settings_name(tmp_path):
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
def test_an_editor_is_no_script_and_gets_the_file(editor, tmp_path):
    with pytest.raises(ConfigError, match="expected an editor's URL that contains"):
        Config.from_mapping({"editor": editor}, tmp_path)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (None, True),
        ("default-src 'self'", True),
        ("default-src 'none'", False),
        ("script-src 'none'", False),
        ("default-src 'none'; script-src 'self'", False),  # it could not ask
        ("default-src 'none'; script-src 'self'; connect-src 'self'", True),
    ],
)
def test_under_reload_a_page_loads_itself_again_where_its_policy_allows(
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


def test_a_chapter_has_contents_neighbours_and_links(tmp_path):
    app = bench(tmp_path)
    html = ask(app, path="/_noventa/guide/registry").text
    assert 'rel="prev" href="/_noventa/guide/first_steps"' in html
    assert 'rel="next" href="/_noventa/guide/pages"' in html
    assert 'aria-current="page">The registry</a>' in html
    assert 'href="/_noventa/guide/errors"' in html
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_the_guide_is_searched_by_a_word(tmp_path):
    shown = text_of(ask(bench(tmp_path), path="/_noventa/guide", query="q=getlist"))
    assert re.search(r"forms Forms, \d+ times", shown)
    missing = text_of(ask(bench(tmp_path), path="/_noventa/guide", query="q=xyzzy"))
    assert "No chapter contains it." in missing
