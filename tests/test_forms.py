"""Forms, through the application: tickets, origin, guards, re-fill, flashes, uploads."""

import dataclasses
import datetime
import io
import json
import logging
import re
import time
import uuid

import jinja2
import pytest
import sqlalchemy as sa
import webob
from hypothesis import given, settings
from hypothesis import strategies as st
from support import NOTES, SECRET, make_app, make_module
from visitors import FORM, Visitor, ask

from noventa import Component, Endpoint, Page, RegistryError, Signer, Tickets, Values

OTHER_SECRET = "another secret, as long as the first one is"
SAME = {"HTTP_SEC_FETCH_SITE": "same-origin"}
LOGIC = (
    NOTES
    + """
    calls = []

    def action_add(request, session, db, **props):
        calls.append(("add", props, dict(request.form)))
        db.add(Note(text=request.form.get("text", "")))
        db.commit()
        return {"message": "added " + request.form.get("text", "")}

    def action_remove(request, session, db, **props):
        calls.append(("remove", props, dict(request.form)))
        return {"message": "removed"}

    def action_check(request, session, db, **props):
        db.add(Note(text="not to be kept"))
        db.flush()
        return {"_status": 422, "errors": {"text": "too short"}, "values": request.form}

    def action_upload(request, session, db, **props):
        files = request.files
        calls.append(("upload", {name: files[name].file.read() for name in files}))
        return {"message": ", ".join(file.filename for file in files.values())}

    def action_rotate(request, session, db, **props):
        session["user"] = 7
        session.rotate()
        return {"_redirect": "/"}

    def action_say(request, session, db, **props):
        session.flash(request.form["text"], "good")
        return {"_redirect": request.form.get("to", "/")}

    def action_break(request, session, db, **props):
        raise RuntimeError("broken on purpose")
"""
)
NOTE = """
    <section>{{ message }}|{{ errors.text }}|{{ values.text }}|
    {% for name in names %}<form method="post">{{ action(name) }}</form>{% endfor %}</section>
"""
NAMES = "add remove check upload rotate say break"


def make_forms(root, files=None, config=None, **registry):
    """An application with one component of many actions; `calls` is what they were called with."""
    logic = make_module(
        f"note_logic_{root.name}",
        f"names = {NAMES.split()}\n" + re.sub("^    ", "", LOGIC, flags=re.M),
    )
    logic.load_template_context = lambda request, session, db, **props: {"names": logic.names}
    defaults = {
        "components": [Component("note", "note.html", logic=logic, models=[logic])],
        "routes": [
            Page("/", "page.html"),
            Page("/users/{name}", "page.html"),
            Page("/said", "said.html"),
        ],
    }
    pages = {
        "note.html": NOTE,
        "page.html": '{{ component("note") }}',
        "said.html": "{% for f in flashes() %}[{{ f.text }}, {{ f.kind }}]{% endfor %}",
    }
    app = make_app(root, {**pages, **(files or {})}, config, **{**defaults, **registry})
    app.logic, app.calls = logic, logic.calls
    return app


def changed(app, routes=None, guards=(), **component):
    """The same application with its component, and perhaps its routes, changed."""
    registry, root = app.registry, app.config.root
    note = dataclasses.replace(registry.components[0], **component)
    return make_app(root, components=[note], routes=routes or registry.routes, guards=guards)


@pytest.fixture
def app(tmp_path):
    return make_forms(tmp_path)


def ticket_for(answer, action, number=0):
    """The ticket of an action on a page, where each instance prints them in the order of NAMES."""
    names = NAMES.split()
    return answer.tickets[number * len(names) + names.index(action)]


def rows(app):
    with app.database.session() as db:
        return db.execute(sa.text("SELECT text FROM notes")).scalars().all()


# ---- Calling an action ----


def test_a_form_calls_its_action_and_shows_the_page_again(app, visitor):
    answer = visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "<b>"})
    assert answer.status == 200
    assert "added &lt;b&gt;|" in answer.text
    assert rows(app) == ["<b>"]


def test_a_ticket_may_be_used_again_within_its_session(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert [visitor.post(ticket=ticket).status for _ in range(3)] == [200, 200, 200]
    assert len(rows(app)) == 3


def test_the_ticket_is_not_among_the_form_fields(app, visitor):
    visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "x"})
    assert app.calls == [("add", {}, {"text": "x"})]


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
TEXTS = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.slow
@given(
    props=st.dictionaries(st.sampled_from(["id", "name", "für", "x_1"]), SCALARS),
    form=st.dictionaries(TEXTS, TEXTS, max_size=5),
)
@settings(max_examples=60)
def test_any_props_and_any_form_reach_the_action_unmixed(app, props, form):
    form.pop("_ticket", None)
    app.jinja.globals["props"] = props
    app.jinja.get_template("page.html").root_render_func = app.jinja.from_string(
        '{{ component("note", **props) }}'
    ).root_render_func
    visitor = Visitor(app)
    app.calls.clear()
    assert visitor.post(ticket=ticket_for(visitor.get(), "add"), fields=form).status == 200
    assert app.calls == [("add", props, form)]


def test_props_come_from_the_ticket_and_fields_from_the_form(tmp_path):
    app = make_forms(tmp_path, {"page.html": '{{ component("note", id=1, text="prop") }}'})
    visitor = Visitor(app)
    visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"id": "2", "text": "field"})
    assert app.calls == [("add", {"id": 1, "text": "prop"}, {"id": "2", "text": "field"})]


def test_only_the_posted_one_of_two_instances_shows_the_result(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    answer = visitor.post(ticket=ticket_for(visitor.get(), "add", 1), fields={"text": "x"})
    first, second = answer.text.split("</section>")[:2]
    assert "added x" not in first
    assert "added x" in second
    assert visitor.app.calls[0][1] == {"id": 2}


@pytest.mark.parametrize("page", [
    '{{ component("note") }}{{ component("note") }}{{ component("note") }}',
    "{% for n in range(3) %}{{ component('note', id=1) }}{% endfor %}",
    "{% for n in range(3) %}{{ component('note', key=n) }}{% endfor %}",
    '{% call component("box") %}{{ component("note") }}{% endcall %}' * 2
    + '{{ component("note") }}',
])  # fmt: skip
@pytest.mark.parametrize("number", [0, 1, 2])
def test_only_the_posted_one_of_three_twins_shows_the_result(tmp_path, page, number):
    app = make_forms(tmp_path)
    box = Component("box", "box.html")
    files = {"page.html": page, "box.html": "<div>{{ children }}</div>"}
    app = make_forms(tmp_path, files, components=[*app.registry.components, box])
    visitor = Visitor(app)
    answer = visitor.post(ticket=ticket_for(visitor.get(), "remove", number))
    assert ["removed" in part for part in answer.text.split("</section>")[:3]] == [
        n == number for n in range(3)
    ]


def test_the_result_follows_its_row_when_the_rows_before_it_are_gone(tmp_path):
    page = "{% for id in ids %}{{ component('note', id=id) }}{% endfor %}"
    app = make_forms(tmp_path, {"page.html": page})
    app.jinja.globals["ids"] = ids = [1, 2, 3]
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(), "remove", 1)
    ids.remove(1)
    parts = visitor.post(ticket=ticket).text.split("</section>")[:2]
    assert ["removed" in part for part in parts] == [True, False]


def test_the_pressed_one_of_several_buttons_decides(tmp_path):
    button = '<button name="_ticket" value="{{ action_ticket(name) }}">'
    note = (
        f"{{{{ message }}}}<form method=post>{{% for name in names %}}{button}{{% endfor %}}</form>"
    )
    visitor = Visitor(make_forms(tmp_path, {"note.html": note}))
    visitor.post(ticket=ticket_for(visitor.get(), "remove"))
    assert visitor.app.calls == [("remove", {}, {})]


def test_a_button_wins_over_the_hidden_field_before_it(app, visitor):
    page = visitor.get()
    visitor.post(
        fields=[("_ticket", ticket_for(page, "add")), ("_ticket", ticket_for(page, "remove"))]
    )
    assert app.calls == [("remove", {}, {})]


def test_an_action_that_was_only_imported_does_not_exist(tmp_path):
    other = make_module("other_logic", "def action_other(request, session, db): pass")
    logic = make_module(
        "own_logic",
        "from other_logic import action_other\naction_it = print\nclass action_c: pass\n",
    )
    component = Component("own", "own.html", logic=logic)
    with pytest.raises(RegistryError, match="no action 'other'"):
        make_app(tmp_path, {"own.html": "{{ action('other') }}"}, components=[component])
    assert other.action_other is logic.action_other


@pytest.mark.parametrize("value", ["[1]", "{'a': 1}", "range(3)"])
def test_a_prop_that_is_no_scalar_is_an_error_that_names_the_remedy(tmp_path, caplog, value):
    app = make_forms(tmp_path, {"page.html": f'{{{{ component("note", row={value}) }}}}'})
    assert ask(app).status == 500
    assert "pass the id instead" in caplog.text


# ---- Tickets that do not fit ----


def refused(app, answer, status, reason):
    """The request was refused with that reason, and no action was run."""
    assert (answer.status, answer.refused) == (status, reason)
    assert app.calls == []
    assert rows(app) == []
    return True


def test_without_a_ticket_nothing_is_run(app, visitor):
    visitor.get()
    assert refused(app, visitor.post(fields={"text": "x"}), 400, "no-ticket")
    assert refused(app, visitor.post(ticket=""), 400, "no-ticket")
    assert refused(app, ask(app, "POST"), 400, "no-ticket")


@pytest.mark.parametrize("ticket", ["x", "x.y", "A" * 3_000, "é.é", "a b.c"])
def test_a_malformed_ticket_is_refused(app, visitor, ticket):
    visitor.get()
    assert refused(app, visitor.post(ticket=ticket), 400, "malformed-ticket")


def test_a_ticket_in_the_query_is_none(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert refused(app, visitor.post(query=f"_ticket={ticket}"), 400, "no-ticket")


def test_a_ticket_in_a_get_calls_nothing(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert visitor.get(query=f"_ticket={ticket}").status == 200
    assert app.calls == []


def test_a_ticket_of_another_page_is_refused(app, visitor):
    ticket = ticket_for(visitor.get("/users/ann"), "add")
    for path in ("/", "/users/bob", "/users/ann%20"):
        assert refused(app, visitor.post(path, ticket), 403, "other-page")
    assert visitor.post("/users/ann", ticket).status == 200


def test_a_ticket_of_another_mount_is_refused(app):
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(SCRIPT_NAME="/a"), "add")
    assert refused(app, visitor.post(ticket=ticket, SCRIPT_NAME="/b"), 403, "other-page")
    assert visitor.post(ticket=ticket, SCRIPT_NAME="/a").status == 200


def test_a_ticket_of_another_session_is_refused(app, visitor):
    ticket, other = ticket_for(visitor.get(), "add"), Visitor(app)
    assert refused(app, other.post(ticket=ticket), 403, "other-session")
    other.get()
    assert refused(app, other.post(ticket=ticket), 403, "other-session")


@pytest.mark.parametrize("field", range(9))
def test_a_ticket_with_any_field_changed_is_refused(app, visitor, field):
    ticket, fields = ticket_for(visitor.get(), "add"), None
    payload = json.loads(Signer([SECRET], "ticket").verify(ticket))
    values = [*["remove"] * 5, {"id": 8}, [["note", {}]], "guards", payload[8] + 1]
    fields = [*payload[:field], values[field], *payload[field + 1 :]]
    changed = Signer([SECRET], "ticket").sign(json.dumps(fields).encode()).partition(".")[0]
    signature = ticket.partition(".")[2]
    assert refused(app, visitor.post(ticket=f"{changed}.{signature}"), 403, "bad-signature")


def test_the_signature_of_another_row_or_action_is_refused(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    app = make_forms(tmp_path, {"page.html": page})
    visitor = Visitor(app)
    shown = visitor.get()
    own = ticket_for(shown, "add").partition(".")[0]
    for other in (ticket_for(shown, "add", 1), ticket_for(shown, "remove")):
        forged = f"{own}.{other.partition('.')[2]}"
        assert refused(app, visitor.post(ticket=forged), 403, "bad-signature")


def test_a_session_cookie_is_no_ticket(app, visitor):
    visitor.get()
    assert refused(
        app, visitor.post(ticket=visitor.cookies["noventa_session"]), 403, "bad-signature"
    )


def test_secret_keys_rotate(tmp_path):
    old = make_forms(tmp_path)
    visitor = Visitor(old)
    ticket = ticket_for(visitor.get(), "add")
    visitor.app = make_forms(tmp_path, config={"secret_keys": [OTHER_SECRET, SECRET]})
    assert visitor.post(ticket=ticket).status == 200
    new = ticket_for(visitor.get(), "add")
    with pytest.raises(Exception, match="bad-signature"):
        Tickets([SECRET]).read(Values([("_ticket", new)]))
    visitor.app = make_forms(tmp_path, config={"secret_keys": [OTHER_SECRET]})
    visitor.app.calls.clear()
    answer = visitor.post(ticket=ticket)
    assert (answer.status, answer.refused, visitor.app.calls) == (403, "bad-signature", [])


@pytest.mark.parametrize("gone", ["action", "component"])
def test_after_a_deploy_that_removed_the_action_the_answer_is_409(tmp_path, gone):
    visitor = Visitor(make_forms(tmp_path))
    ticket = ticket_for(visitor.get(), "add")
    app = make_forms(tmp_path)
    if gone == "action":
        del app.logic.action_add
    components = app.registry.components if gone == "action" else []
    pages = {} if gone == "action" else {"page.html": "nothing"}
    visitor.app = make_app(tmp_path, pages, components=components, routes=app.registry.routes)
    answer = visitor.post(ticket=ticket)
    assert (answer.status, answer.refused) == (409, "unknown-action")


def test_after_an_upgrade_that_changed_the_tickets_the_answer_is_409(app, visitor):
    visitor.get()
    text = Signer([SECRET], "ticket").sign(b'["of", "another", "shape"]')
    assert refused(app, visitor.post(ticket=text), 409, "outdated-ticket")


def test_each_refusal_is_one_warning_with_its_reason(app, visitor, caplog):
    visitor.get()
    caplog.clear()
    visitor.post("/users/a%0d%0ab", "x.y")
    [record] = [record for record in caplog.records if record.name == "noventa"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "refused POST /users/a%250d%250ab: malformed-ticket (400)"


# ---- A session that changed: asking again ----


def rotated(visitor):
    """A ticket from before the login of this visitor."""
    page = visitor.get()
    assert visitor.post(ticket=ticket_for(page, "rotate")).status == 303
    return ticket_for(page, "add")


def test_after_a_rotation_old_tickets_are_dead(app, visitor):
    assert refused(app, visitor.post(ticket=rotated(visitor)), 403, "other-session")


def test_with_proven_same_origin_the_page_comes_back_with_the_typed_text(app, visitor):
    ticket = rotated(visitor)
    answer = visitor.post(ticket=ticket, fields={"text": "typed <i>"}, **SAME)
    assert refused(app, answer, 403, "other-session")
    assert "typed &lt;i&gt;" in answer.text
    assert "Please submit the form again" in answer.text
    assert visitor.post(ticket=ticket_for(answer, "add"), fields={"text": "typed"}).status == 200
    assert rows(app) == ["typed"]


def test_the_typed_text_comes_back_to_its_own_instance_only(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    shown = visitor.get()
    visitor.cookies.clear()
    answer = visitor.post(ticket=ticket_for(shown, "add", 1), fields={"text": "typed"}, **SAME)
    first, second = answer.text.split("</section>")[:2]
    assert "typed" not in first
    assert "typed" in second


def test_a_lost_cookie_is_asked_again_too(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    visitor.cookies.clear()
    answer = visitor.post(ticket=ticket, fields={"text": "typed"}, **SAME)
    assert refused(app, answer, 403, "other-session")
    assert visitor.post(ticket=ticket_for(answer, "add"), fields={"text": "typed"}).status == 200


@pytest.mark.parametrize("evidence", [
    {}, {"HTTP_SEC_FETCH_SITE": "cross-site"}, {"HTTP_ORIGIN": "http://evil.example"},
])  # fmt: skip
def test_without_proof_of_the_same_origin_nobody_sees_a_new_ticket(app, visitor, evidence):
    answer = visitor.post(ticket=rotated(visitor), fields={"text": "typed"}, **evidence)
    assert answer.status == 403
    assert answer.tickets == []
    assert "typed" not in answer.text


@pytest.mark.parametrize("shows", [True, False])
def test_the_request_to_send_again_is_shown_once_with_or_without_flashes(tmp_path, shows):
    page = (
        '<body>{{ component("note") }}'
        + ("{% for f in flashes() %}{{ f.text }}{% endfor %}" if shows else "")
        + "</body>"
    )
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    answer = visitor.post(ticket=rotated(visitor), **SAME)
    assert answer.text.count("Please submit the form again") == 1
    assert answer.text.rstrip().endswith("</body>")
    assert "submit the form again" not in visitor.get("/said").text


def test_a_page_that_its_guard_closed_meanwhile_is_not_shown_again(tmp_path):
    def guard(request, session, db):
        return {"_status": 403} if session.get("user") else None

    app = make_forms(tmp_path, routes=[Page("/", "page.html", guards=[guard])])
    visitor = Visitor(app)
    answer = visitor.post(ticket=rotated(visitor), fields={"text": "typed"}, **SAME)
    assert (answer.status, answer.refused, answer.tickets) == (403, None, [])


def issued(ticket, ago):
    """The same ticket, issued that many seconds ago."""
    fields = json.loads(Signer([SECRET], "ticket").verify(ticket))
    fields[8] = int(time.time()) - ago
    return Signer([SECRET], "ticket").sign(json.dumps(fields).encode())


@pytest.mark.parametrize(("config", "ago", "fresh"), [
    ({}, 86_000, True), ({}, 86_500, False), ({}, -200, True), ({}, -1_000, False),
    ({"session": {"ticket_age": 100}}, 90, True), ({"session": {"ticket_age": 100}}, 120, False),
])  # fmt: skip
def test_an_old_ticket_is_asked_for_again(tmp_path, config, ago, fresh):
    app = make_forms(tmp_path, config=config)
    visitor = Visitor(app)
    ticket = issued(ticket_for(visitor.get(), "add"), ago)
    answer = visitor.post(ticket=ticket, fields={"text": "typed"}, **SAME)
    if fresh:
        assert answer.status == 200
        return
    assert refused(app, answer, 403, "old-ticket")
    assert "typed" in answer.text
    assert "This form is out of date. Please submit it again." in answer.text
    assert visitor.post(ticket=ticket_for(answer, "add"), fields={"text": "typed"}).status == 200


def test_without_proof_of_the_same_origin_an_old_ticket_brings_no_new_one(app, visitor):
    answer = visitor.post(ticket=issued(ticket_for(visitor.get(), "add"), 90_000))
    assert refused(app, answer, 403, "old-ticket")
    assert answer.tickets == []


# ---- Evidence of another origin ----

HOST = {"HTTP_HOST": "site.example", "wsgi.url_scheme": "https"}
EVIDENCE = [
    ({}, None),
    ({"HTTP_SEC_FETCH_SITE": "same-origin"}, True),
    ({"HTTP_SEC_FETCH_SITE": "none"}, True),
    ({"HTTP_SEC_FETCH_SITE": "same-site"}, False),
    ({"HTTP_SEC_FETCH_SITE": "cross-site"}, False),
    ({"HTTP_SEC_FETCH_SITE": ""}, False),
    ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "https://site.example"}, False),
    ({"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "https://evil.example"}, True),
    ({"HTTP_ORIGIN": "https://site.example"}, True),
    ({"HTTP_ORIGIN": "HTTPS://Site.Example"}, True),
    ({"HTTP_ORIGIN": "https://site.example:443"}, True),
    ({"HTTP_ORIGIN": "https://site.example", "HTTP_HOST": "Site.Example:443"}, True),
    ({"HTTP_ORIGIN": "http://site.example"}, False),
    ({"HTTP_ORIGIN": "http://site.example:443"}, False),
    ({"HTTP_ORIGIN": "https://site.example", "wsgi.url_scheme": "http"}, False),
    ({"HTTP_ORIGIN": "http://site.example", "wsgi.url_scheme": "http"}, True),
    ({"HTTP_ORIGIN": "http://site.example:80", "wsgi.url_scheme": "http"}, True),
    ({"HTTP_ORIGIN": "https://site.example:8000"}, False),
    ({"HTTP_ORIGIN": "https://evil.example"}, False),
    ({"HTTP_ORIGIN": "https://site.example.evil.example"}, False),
    ({"HTTP_ORIGIN": "https://evilsite.example"}, False),
    ({"HTTP_ORIGIN": "null"}, False),
    ({"HTTP_ORIGIN": ""}, False),
    ({"HTTP_ORIGIN": "site.example"}, False),
    ({"HTTP_ORIGIN": "https://trusted.example"}, True),
    ({"HTTP_ORIGIN": "https://Trusted.example:443"}, True),
    ({"HTTP_ORIGIN": "https://trusted.example", "HTTP_SEC_FETCH_SITE": "same-site"}, True),
    ({"HTTP_ORIGIN": "https://trusted.example", "HTTP_SEC_FETCH_SITE": "cross-site"}, True),
    ({"HTTP_ORIGIN": "https://odd.example:8443", "HTTP_SEC_FETCH_SITE": "cross-site"}, True),
    ({"HTTP_ORIGIN": "https://odd.example", "HTTP_SEC_FETCH_SITE": "cross-site"}, False),
    ({"HTTP_ORIGIN": "http://trusted.example", "HTTP_SEC_FETCH_SITE": "cross-site"}, False),
    ({"HTTP_ORIGIN": "https://trusted.example:8443"}, False),
    ({"HTTP_ORIGIN": "http://trusted.example"}, False),
    ({"HTTP_ORIGIN": "null", "HTTP_HOST": "null"}, False),
    ({"HTTP_ORIGIN": "http://", "HTTP_HOST": ""}, False),
    ({"HTTP_ORIGIN": "https://evil.example", "HTTP_X_FORWARDED_HOST": "evil.example"}, False),
]


@pytest.fixture(scope="module")
def evidence_app(tmp_path_factory):
    def change(request, session, db):
        return {"done": True}

    routes = [
        Page("/", "page.html"),
        Endpoint("/change", change, methods=["GET", "POST", "DELETE"]),
        Endpoint("/open", change, methods=["POST"], cross_origin=True),
    ]
    config = {"trusted_origins": ["https://trusted.example", "https://odd.example:8443"]}
    return make_forms(tmp_path_factory.mktemp("evidence"), config=config, routes=routes)


def test_a_page_is_closed_to_evidence_of_another_origin(evidence_app):
    visitor = Visitor(evidence_app, **HOST)
    ticket = ticket_for(visitor.get(), "remove")
    for headers, same in EVIDENCE:
        answer = visitor.post(ticket=ticket, **headers)
        expected = (403, "other-origin") if same is False else (200, None)
        assert (answer.status, answer.refused) == expected, headers


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_endpoint_is_open_to_evidence_of_the_same_origin_only(evidence_app, method):
    expected = {True: (200, None), False: (403, "other-origin"), None: (403, "no-origin")}
    for headers, same in EVIDENCE:
        answer = ask(evidence_app, method, "/change", **{**HOST, **headers})
        assert (answer.status, answer.refused) == expected[same], headers


def test_reading_and_what_says_cross_origin_is_open_to_everybody(evidence_app):
    for headers, _ in EVIDENCE:
        assert ask(evidence_app, "GET", "/change", **{**HOST, **headers}).status == 200, headers
        assert ask(evidence_app, "POST", "/open", **{**HOST, **headers}).status == 200, headers


def test_the_log_says_what_to_do_where_a_proxy_hides_the_scheme(evidence_app, caplog):
    plain = {"HTTP_HOST": "site.example", "HTTP_ORIGIN": "https://site.example"}
    assert ask(evidence_app, "POST", "/change", **plain).refused == "other-origin"
    said = "'https://site.example' is neither 'http://site.example' nor in trusted_origins"
    assert said in caplog.text
    assert "a proxy that terminates TLS must pass the scheme" in caplog.text


# ---- Order of checks ----


class Unread(io.BytesIO):
    """A body that nobody may read."""

    def read(self, size=-1):
        raise AssertionError("the body was read")


def test_the_checks_come_in_their_order(tmp_path):
    def guard(request, session, db):
        return None if "let" in request.args else {"_status": 401}

    routes = [Page("/", "page.html", guards=[guard])]
    app = make_forms(tmp_path, config={"limits": {"body": 1000, "fields": 2}}, routes=routes)
    asked = {"path": "/no", "method": "PUT", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "1001"}
    asked |= {"HTTP_SEC_FETCH_SITE": "cross-site", "wsgi.input": Unread()}
    steps = [
        ({}, 404, None),
        ({"path": "/"}, 401, None),
        ({"query": "let"}, 405, "method"),
        ({"method": "POST"}, 403, "other-origin"),
        ({"HTTP_SEC_FETCH_SITE": None, "query": ""}, 401, None),
        ({"query": "let"}, 415, "content-type"),
        ({"CONTENT_TYPE": FORM}, 413, "body-too-large"),
        ({"CONTENT_LENGTH": "x"}, 400, "bad-length"),
        ({"CONTENT_LENGTH": None}, 411, "no-length"),
        ({"CONTENT_LENGTH": "9", "wsgi.input": io.BytesIO(b"a=%ff&b&c")}, 413, "too-many-fields"),
        ({"CONTENT_LENGTH": "7", "wsgi.input": io.BytesIO(b"a=%ff&b")}, 400, "undecodable-form"),
        ({"CONTENT_LENGTH": "7", "wsgi.input": io.BytesIO(b"a=1&b=2")}, 400, "no-ticket"),
    ]
    for repaired, status, reason in steps:
        asked |= repaired
        answer = ask(app, **asked)
        assert (answer.status, answer.refused) == (status, reason), repaired
    assert app.calls == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "BREW", "post"])
def test_another_method_is_405_with_allow(app, method):
    answer = ask(app, method)
    assert refused(app, answer, 405, "method")
    assert answer.header("Allow") == "GET, HEAD, OPTIONS, POST"


# ---- Guards ----


def closed(request, session, db, **props):
    """Open to those who know the word."""
    return None if request.args.get("word") == "please" else {"_redirect": "/said"}


GUARDED = {
    "registry": {"guards": [closed]},
    "page": {"routes": [Page("/", "page.html", guards=[closed]), Page("/said", "said.html")]},
    "component": {},
}


def make_guarded(root, where):
    app = make_forms(root, **GUARDED[where])
    if where == "component":
        return changed(app, guard=closed), app.logic
    return app, app.logic


@pytest.mark.parametrize("where", GUARDED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_guard_stands_before_every_method(tmp_path, where, method):
    app, logic = make_guarded(tmp_path, where)
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    if method == "POST":
        answer = visitor.post(ticket=ticket)
        assert visitor.post(ticket=ticket, query="word=please").status == 200
        assert len(logic.calls) == 1
    else:
        answer = ask(app, method)
    assert (answer.status, answer.header("Location"), answer.body) == (303, "/said", b"")


@pytest.mark.parametrize("where", ["registry", "page"])
def test_a_guard_answers_before_the_body_is_read(tmp_path, where):
    app, _ = make_guarded(tmp_path, where)
    answer = ask(app, "POST", CONTENT_LENGTH="9", CONTENT_TYPE=FORM, **{"wsgi.input": Unread()})
    assert answer.status == 303


def test_guards_run_from_the_outside_in(tmp_path):
    order = []

    def named(name):
        return lambda request, session, db, **props: order.append(name)

    routes = [Page("/", "page.html", guards=[named("page"), named("page 2")])]
    app = make_forms(tmp_path, routes=routes)
    visitor = Visitor(changed(app, guards=[named("registry")], guard=named("component")))
    page = visitor.get()
    assert order == ["registry", "page", "page 2", "component"]
    order.clear()
    visitor.post(ticket=ticket_for(page, "rotate"))
    assert order == ["registry", "page", "page 2", "component"]


@pytest.mark.parametrize("user", [1, 2])
def test_a_components_guard_gets_the_props_of_the_ticket(tmp_path, user):
    def own_only(request, session, db, id):
        return None if str(id) == request.args.get("user", str(id)) else {"_status": 403}

    app = make_forms(tmp_path, {"page.html": '{{ component("note", id=1, other=3) }}'})
    visitor = Visitor(changed(app, guard=own_only))
    answer = visitor.post(ticket=ticket_for(visitor.get(), "add"), query=f"user={user}")
    assert answer.status == (200 if user == 1 else 403)
    assert len(app.calls) == (1 if user == 1 else 0)


INSIDE = {
    "template": {
        "page.html": "{{ component('box', id=1) }}",
        "box.html": "{{ component('note') }}",
    },
    "call": {"page.html": "{% call component('box', id=1) %}{{ component('note') }}{% endcall %}"},
    "deeper": {
        "page.html": "{{ component('box', id=1) }}",
        "box.html": "{% call component('plain') %}{{ component('note') }}{% endcall %}",
    },
    "own call": {
        "note.html": "{% call component('box', id=1) %}"
        "{% for name in names %}{{ action(name) }}{% endfor %}{% endcall %}",
    },
}


def make_boxed(root, files, guard, own=None):
    """A note inside a `box`, which has a guard; `files` says how."""
    note = dataclasses.replace(make_forms(root).registry.components[0], guard=own)
    box, plain = Component("box", "box.html", guard=guard), Component("plain", "plain.html")
    pages = {"box.html": "{{ children }}", "plain.html": "{{ children }}"} | files
    app = make_forms(root, pages, components=[note, box, plain])
    app.calls = note.logic.calls
    return app


@pytest.mark.parametrize("files", INSIDE.values(), ids=INSIDE)
def test_the_guard_of_a_component_around_stands_before_the_actions_inside(tmp_path, files):
    members = {"1"}

    def members_only(request, session, db, *, id):
        return None if str(id) in members else {"_status": 403, "message": "members only"}

    app = make_boxed(tmp_path, files, members_only)
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(), "remove")
    assert visitor.post(ticket=ticket).status == 200
    members.clear()
    assert visitor.get().status == 403
    answer = visitor.post(ticket=ticket)
    assert (answer.status, "members only" in answer.text) == (403, True)
    assert len(app.calls) == 1


def test_the_guards_around_run_from_the_outside_in_each_with_its_own_props(tmp_path):
    order = []

    def outer(request, session, db, *, id, team="none"):
        order.append(("outer", id, team))

    def inner(request, session, db, **props):
        order.append(("inner", props))

    files = {"page.html": "{{ component('box', id=1) }}{{ component('box', id=2) }}",
             "box.html": "{{ component('note', text='x') }}"}  # fmt: skip
    visitor = Visitor(make_boxed(tmp_path, files, outer, inner))
    page = visitor.get()
    order.clear()
    visitor.post(ticket=ticket_for(page, "rotate", 1))
    assert order == [("outer", 2, "none"), ("inner", {"text": "x"})]


def test_a_prop_of_a_guard_around_that_no_ticket_can_hold_is_an_error(tmp_path, caplog):
    files = {**INSIDE["template"], "page.html": "{{ component('box', row=[1], id=1) }}"}
    assert ask(make_boxed(tmp_path, files, closed), query="word=please").status == 500
    assert "component 'box' runs its guard again" in caplog.text
    assert "its prop 'row' is a list; pass the id instead" in caplog.text
    assert ask(make_boxed(tmp_path, files, by_id)).status == 200


def by_id(request, session, db, *, id):
    return None


CHANGES = {
    "gained": (None, closed),
    "lost": (closed, None),
    "takes more": (by_id, lambda request, session, db, *, id, team=None: None),
    "takes less": (closed, by_id),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_ticket_from_before_a_guard_changed_is_409(tmp_path, before, after):
    visitor = Visitor(make_boxed(tmp_path, INSIDE["template"], before))
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    visitor.app = make_boxed(tmp_path, INSIDE["template"], after)
    answer = visitor.post(ticket=ticket, query="word=please")
    assert (answer.status, answer.refused) == (409, "changed-guards")
    assert visitor.app.calls == []


def test_a_ticket_from_before_a_component_around_went_is_409(tmp_path):
    visitor = Visitor(make_boxed(tmp_path, INSIDE["template"], closed))
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    visitor.app = make_forms(tmp_path, {"page.html": "{{ component('note') }}"})
    assert visitor.post(ticket=ticket).refused == "changed-guards"
    assert visitor.app.calls == []


@pytest.mark.parametrize(("answer", "status", "text"), [
    ({"_status": 403}, 403, "This is not allowed"),
    ({"_status": 404, "message": "<gone>"}, 404, "&lt;gone&gt;"),
    ({"_redirect": "/said"}, 303, ""), (webob.Response(b"own", status=418), 418, "own"),
    (webob.exc.HTTPForbidden(), 403, "This is not allowed"),
    ({"_redirect": "//evil.example"}, 400, "understood"),
])  # fmt: skip
def test_what_a_guard_may_answer(tmp_path, answer, status, text):
    def guard(request, session, db):
        return answer

    sent = ask(make_forms(tmp_path, guards=[guard]))
    assert sent.status == status
    assert text in sent.text


def test_a_guard_may_raise_its_answer(tmp_path):
    def guard(request, session, db):
        raise webob.exc.HTTPFound(location="/said")

    answer = ask(make_forms(tmp_path, guards=[guard]))
    assert (answer.status, answer.header("Location")) == (302, "/said")


# ---- Validation and re-fill ----


def test_a_422_fills_the_form_again_and_undoes_what_was_written(app, visitor, caplog):
    answer = visitor.post(ticket=ticket_for(visitor.get(), "check"), fields={"text": '"><i>'})
    assert answer.status == 422
    assert "|too short|&#34;&gt;&lt;i&gt;|" in answer.text
    assert rows(app) == []
    assert "without db.commit" not in caplog.text


@pytest.mark.parametrize("undefined", [jinja2.Undefined, jinja2.StrictUndefined])
def test_errors_and_values_are_there_and_empty_before_anything_was_sent(tmp_path, undefined):
    note = "[{{ errors.a }}{{ errors['b'] }}{{ values.c }}{% if errors %}wrong{% endif %}]"
    logic = make_module(
        "plain_logic", "def action_x(request, session, db): return {'errors': None}"
    )
    component = Component("note", "note.html", logic=logic)
    app = make_app(
        tmp_path, {"page.html": '{{ component("note") }}', "note.html": note},
        components=[component], routes=[Page("/", "page.html")],
    )  # fmt: skip
    app.jinja.undefined = undefined
    assert ask(app).text == "[]"


# ---- Redirects of actions ----


@pytest.mark.parametrize(("target", "status", "location"), [
    ("/said?a=1#b", 303, "/said?a=1#b"), ("/é x", 303, "/%C3%A9%20x"),
    ("//evil.example", 400, None),
    ("https://evil.example", 400, None), ("said", 400, None), ("/\\evil.example", 400, None),
    ("/a\r\nX: b", 400, None),
])  # fmt: skip
def test_an_action_redirects_to_local_paths_only(app, visitor, target, status, location):
    answer = visitor.post(
        ticket=ticket_for(visitor.get(), "say"), fields={"text": "x", "to": target}
    )
    assert (answer.status, answer.header("Location")) == (status, location)


def test_a_redirect_keeps_the_prefix_of_the_mount_and_never_names_the_host(app):
    visitor = Visitor(
        app, SCRIPT_NAME="/m", HTTP_HOST="evil.example", HTTP_X_FORWARDED_HOST="evil.example"
    )
    answer = visitor.post(ticket=ticket_for(visitor.get(), "rotate"))
    assert answer.header("Location") == "/m/"


# ---- Flashes ----


def say(visitor, text="hello"):
    answer = visitor.post(ticket=ticket_for(visitor.get(), "say"), fields={"text": text})
    assert answer.status == 303


def test_a_flash_is_shown_once(visitor):
    say(visitor, "<b>")
    assert visitor.get("/said").text == "[&lt;b&gt;, good]"
    assert visitor.get("/said").text == ""


def test_a_flash_waits_for_a_page_that_shows_it(visitor):
    say(visitor)
    visitor.get("/")
    visitor.get("/nowhere")
    assert "hello" in visitor.get("/said").text


def test_a_head_request_shows_no_flash(visitor):
    say(visitor)
    assert visitor.head("/said").status == 200
    assert "hello" in visitor.get("/said").text


@pytest.mark.parametrize("ending", ["redirect", "not-found", "error"])
def test_a_flash_stays_when_the_page_that_showed_it_was_not_sent(tmp_path, ending):
    def load(request, session, db, **props):
        if ending == "error":
            raise RuntimeError("on purpose")
        raise webob.exc.HTTPNotFound

    logic = make_module("late_logic", "")
    logic.load_template_context = load
    late = Component(
        "late", "late.html", logic=logic, guard=closed if ending == "redirect" else None
    )
    note = make_forms(tmp_path).registry.components[0]
    page = "{% for f in flashes() %}{{ f.text }}{% endfor %}{{ component('late') }}"
    app = make_app(
        tmp_path, {"broken.html": page, "late.html": ""}, components=[note, late],
        routes=[Page("/", "page.html"), Page("/broken", "broken.html"), Page("/said", "said.html")],
    )  # fmt: skip
    visitor = Visitor(app)
    say(visitor)
    assert (
        visitor.get("/broken").status == {"redirect": 303, "not-found": 404, "error": 500}[ending]
    )
    assert "hello" in visitor.get("/said").text


# ---- Uploads ----


def send_files(visitor, *parts, action="upload"):
    ticket = ticket_for(visitor.get(), action)
    return visitor.upload("/", *parts, ("_ticket", ticket.encode()))


def test_an_upload_reaches_its_action(app, visitor):
    answer = send_files(visitor, ("f", b"content", "../a.txt", "text/plain"))
    assert answer.status == 200
    assert "a.txt|" in answer.text
    assert app.calls[0][1] == {"f": b"content"}


@pytest.mark.parametrize("action", ["upload", "break"])
@pytest.mark.parametrize("size", [10, 5_000])
def test_an_upload_is_closed_and_gone_afterwards(tmp_path, action, size):
    app = make_forms(tmp_path, config={"limits": {"memory": 1_000}})
    seen = []
    registered = app.components.by_name["note"].actions
    original = registered[action]

    def watch(request, session, db, **props):
        seen.append(request.files["f"].file)
        return original(request, session, db, **props)

    registered[action] = watch
    answer = send_files(Visitor(app), ("f", b"x" * size, "a", "a/b"), action=action)
    assert answer.status == (200 if action == "upload" else 500)
    assert (seen[0].name is not None) == (size > 1_000)  # then it has a place on the disk
    assert seen[0].closed


def test_an_upload_is_read_anew_when_the_action_is_replayed(tmp_path):
    class Conflict(Exception):
        sqlstate = "40001"

    seen = []

    def twice(request, session, db, **props):
        seen.append((request.form["text"], request.files["f"].file.read()))
        if len(seen) == 1:
            raise sa.exc.OperationalError("UPDATE", {}, Conflict())
        return {}

    app = changed(make_forms(tmp_path), retries=1)
    app.components.by_name["note"].actions["upload"] = twice
    answer = send_files(Visitor(app), ("text", b"t"), ("f", b"content", "a", "a/b"))
    assert answer.status == 200
    assert seen == [("t", b"content")] * 2


@pytest.mark.parametrize(("limits", "parts", "status"), [
    ({"body": 20_000}, [("f", b"x" * 15_000, "a", "a/b")], 200),
    ({}, [("f", b"x" * 15_000, "a", "a/b")], 413),
    ({"fields": 9}, [("a", b"")] * 8, 200), ({}, [("a", b"")] * 8, 413),
    ({"form": 9}, [("a", b"x" * 2_000)], 200),
    ({"files": 4}, [("f", b"x", "a", "a/b")] * 4, 200), ({}, [("f", b"x", "a", "a/b")] * 4, 413),
])  # fmt: skip
def test_a_page_may_raise_a_limit(tmp_path, limits, parts, status):
    config = {"limits": {"body": 10_000, "fields": 4, "files": 2}}
    app = make_forms(tmp_path, config=config, routes=[Page("/", "page.html", limits=limits)])
    assert send_files(Visitor(app), *parts).status == status


@pytest.mark.parametrize(("limits", "status"), [({}, 413), ({"form": 2_000}, 200)])
def test_a_page_may_raise_the_limit_of_urlencoded_text(tmp_path, limits, status):
    routes = [Page("/", "page.html", limits=limits)]
    visitor = Visitor(make_forms(tmp_path, config={"limits": {"form": 900}}, routes=routes))
    answer = visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "x" * 900})
    assert (answer.status, answer.refused) == (status, "form-too-large" if status == 413 else None)
    assert len(visitor.app.calls) == (status == 200)


def test_an_endpoint_may_raise_a_limit(tmp_path):
    def count(request, session, db):
        return {"bytes": len(request.body)}

    routes = [
        Endpoint("/small", count, methods=["POST"], cross_origin=True),
        Endpoint("/large", count, methods=["POST"], cross_origin=True, limits={"body": 5_000}),
    ]
    app = make_app(tmp_path, config={"limits": {"body": 1_000}}, routes=routes)
    assert ask(app, "POST", "/small", body=b"x" * 2_000).status == 413
    assert ask(app, "POST", "/large", body=b"x" * 2_000).status == 200


# ---- Values that the database cannot take ----


@pytest.mark.parametrize(("number", "status"), [(2**63 - 1, 200), (2**63, 400), (10**300, 400)])
def test_a_number_too_large_for_sqlite_is_a_bad_request(tmp_path, number, status):
    def load(request, session, db):
        number = request.args.get("number", type=int)
        return {"same": db.execute(sa.select(sa.literal(number))).scalar() == number}

    answer = ask(make_app(tmp_path, routes=[Endpoint("/", load)]), query=f"number={number}")
    assert (answer.status, answer.refused) == (status, None if status == 200 else "bad-value")


def test_a_value_that_the_database_cannot_take_is_a_bad_request(tmp_path, caplog):
    def load(request, session, db):
        raise sa.exc.DataError("SELECT", {}, Exception("invalid input\x1b[31m\nsyntax"))

    app = make_app(tmp_path, routes=[Endpoint("/", load)])
    answer = ask(app)
    assert (answer.status, answer.refused) == (400, "bad-value")
    assert all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize("debug", [True, False])
def test_a_value_that_is_our_own_fault_is_found_by_its_traceback(tmp_path, caplog, debug):
    def load(request, session, db):
        return {"same": db.execute(sa.select(sa.literal(2**63))).scalar()}

    app = make_app(tmp_path, config={"debug": debug}, routes=[Endpoint("/here", load)])
    answer = ask(app, path="/here", HTTP_ACCEPT="text/html")
    assert (answer.status, answer.refused) == (400, "bad-value")
    (record,) = caplog.records
    assert record.getMessage().startswith("refused GET /here: bad-value (400), in /here > load: ")
    assert record.exc_info[0] is OverflowError
    assert ("sa.literal(2**63)" in re.sub("</?em>", "", answer.text)) is debug
    assert ("OverflowError" in answer.text) is debug


DAY_LOGIC = """
    calls = []

    def load_template_context(request, session, db, day):
        calls.append(day)
        return {}

    def action_book(request, session, db, day):
        calls.append(day)
        return {"booked": True}
"""
ROOM = "0b3a1c52-6f0e-4c57-9d3c-9f3f0b6a7c11"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("date", "2024-02-29", datetime.date(2024, 2, 29)), ("uuid", ROOM, uuid.UUID(ROOM))],
)
@pytest.mark.parametrize("of_page", [True, False])
def test_a_form_gets_the_date_or_uuid_of_its_page_back(tmp_path, kind, text, value, of_page):
    logic = make_module("day_logic", DAY_LOGIC)
    form = "<form method='post'>{{ action('book') }}</form>{{ day }} {{ booked }}"
    files = {"c.html": form, "p.html": form if of_page else "{{ component('c', day=day) }}"}
    page = Page(f"/{{day:{kind}}}", "p.html", logic=logic if of_page else None)
    components = [Component("c", "c.html", logic=logic)]
    visitor = Visitor(make_app(tmp_path, files, routes=[page], components=components))
    shown = visitor.get(f"/{text}")
    assert text in shown.text
    assert f"{text} True" in visitor.post(f"/{text}", *shown.tickets).text
    before = [value] if of_page else []  # a page is asked before its actions
    assert logic.calls == [value, *before, value, value]
