"""The workbench: what debug shows at /_noventa/ of the application and its requests."""

import base64
import hashlib
import re
import subprocess
import sys
from textwrap import dedent

import pytest
import sqlalchemy as sa
from counters import Counter, counting_app
from processes import ROOT, environment
from support import make_app, make_module
from visitors import Visitor, ask, post

from noventa import Component, Endpoint, Page, Static, redirect

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


def test_a_request_shows_its_parts_statements_rows_and_the_line_that_asked(tmp_path):
    app = bench(tmp_path)
    ask(app)
    shown = text_of(ask(app, path="/_noventa/requests/1"))
    names = [part.name for part in app.workbench.recorder.records[0].parts]
    assert names == ["page.html", "signed_in", "rows", *["row"] * 4]
    assert re.search(r"row × 4 [\d.e-]+ ms 4 statements SELECT counters.id", shown)
    assert "4 times , " in shown
    assert re.search(r"4 times , .* ms · 4 rows · rows.html:1", shown)
    assert "Session user" in shown


def test_a_statement_sent_again_and_again_comes_with_its_cure(tmp_path):
    app = bench(tmp_path)
    ask(app)
    shown = text_of(ask(app, path="/_noventa/requests/1"))
    assert "One statement was sent 4 times" in shown
    assert "Load all of them once in the component around it" in shown


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
    assert "Request 99 is not kept It is older" in text_of(gone)


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
    (root / "page_logic.py").write_text(dedent(text))
    module = make_module("page_logic", text)
    module.load_template_context.__code__ = module.load_template_context.__code__.replace(
        co_filename=str(root / "page_logic.py")
    )
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
    assert re.search(r"\d+ steps through libraries", shown)


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
    assert "It came from ZeroDivisionError" in text_of(ask(failing(tmp_path, source)))


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
    cause = ask(app).text.partition("It came from ZeroDivisionError")[2]
    assert "page.html:2</code>" in cause
    assert "<mark><b>2</b>{% call shielded() %}" in cause


@pytest.mark.parametrize(
    ("used", "remedy"),
    [
        ("{% from 'macro.html' import field %}{{ field() }}", "import … with context"),
        ("{{ request.path }}", "A template sees what its logic returned"),
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
    assert "A row refers to one that is not there, or that you delete" in shown
    assert "is taken" not in shown


def test_a_missing_table_is_answered_with_the_command_that_makes_it(tmp_path):
    app = failing(tmp_path, "return {'x': db.execute(sa.text('SELECT a FROM orders')).scalar()}")
    shown = text_of(ask(app))
    assert "No migration makes this yet" in shown
    assert "else mend the name in the statement" in shown
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
    assert "no-ticket Write {{ action(&#39;name&#39;) }} inside the" in shown
    assert "no-ticket" not in post(bench(tmp_path, debug=False), "/", {"x": "y"}).text


def test_what_was_not_committed_is_said_on_the_next_page_with_values_and_line(tmp_path):
    visitor = Visitor(bench(tmp_path))
    ticket = visitor.get("/").tickets[0]
    visitor.post("/", ticket, {"redirect": "1"})
    answer = visitor.get("/")
    shown = text_of(answer)
    assert "Not saved: row › action_add did not commit" in shown
    assert "Still counters 1 , value : 0 , not 1" in shown
    assert "Write db.commit() before the return in row_logic.py:6" in shown
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
    assert "Still counters 1 , which was to be deleted" in shown
    assert "Rolled back: UPDATE counters SET label=? with (&#39;flushed&#39;,)" in shown
    assert "Its message “Saved.” was held back." in shown
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
    assert "Still counters 1 , value : 0 , not 7" in text_of(ask(app))


def map_of(app):
    return text_of(ask(app, path="/_noventa/"))


def test_the_map_shows_routes_components_and_tables_as_they_run(tmp_path):
    shown = map_of(bench(tmp_path))
    assert "/ guard signed_in rows · row page.html · not seen yet" in shown
    assert "/away GET test_workbench.bench." in shown
    assert "/files static files" in shown
    assert re.search(r"row POST add test_workbench.py:\d+ · inside rows", shown)
    assert "counters 1 row id int, key value int label str, unique, or none" in shown


def test_what_only_requests_tell_is_marked_as_seen(tmp_path):
    visitor = Visitor(bench(tmp_path))
    assert "unused No component or page lists the table counters" in map_of(visitor.app)
    ticket = visitor.get("/").tickets[0]
    shown = map_of(visitor.app)
    assert "unused" not in shown
    assert "slow / was seen to send 4 statements, one of them 4 times from" in shown
    assert "seen to read counters" in shown
    visitor.post("/", ticket, {"commit": "1", "redirect": "1"})
    assert "seen to write counters" in map_of(visitor.app)
    assert "row.add was seen to change rows" not in map_of(visitor.app)  # its page has a guard


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
    assert "open row.add was seen to change rows, and no guard stands before it" in map_of(app)


def test_the_map_says_what_is_to_apply_and_to_mend_before_deploying(tmp_path):
    app = bench(tmp_path)
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1_first.py").write_text("revision = 'a1'\ndown_revision = None\n")
    shown = map_of(app)
    assert "Migrations 1 to apply" in shown
    assert "behind The database is empty, not at a1; run `python -m noventa migrate`." in shown
    assert "a1 a1_first.py to apply" in shown
    assert "config.yaml: debug is true" in shown


def test_the_map_is_shown_where_the_database_does_not_answer(tmp_path):
    app = counting_app(tmp_path, "sqlite:///./a.db", debug=True)
    app.database.engine.dispose()
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    assert "it does not answer: DatabaseError: file is not a database" in map_of(app)
