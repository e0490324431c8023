"""Forms end to end: tickets, origin checks, guards, refilling, flashes and uploads."""

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
SAME_ORIGIN = {"HTTP_SEC_FETCH_SITE": "same-origin"}
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
    """Create an application with one component of many actions; `calls` records their calls."""
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


def rebuild_app(app, routes=None, guards=(), **component):
    """Create the same application with its component, and optionally its routes, changed."""
    registry, root = app.registry, app.config.root
    note = dataclasses.replace(registry.components[0], **component)
    return make_app(root, components=[note], routes=routes or registry.routes, guards=guards)


@pytest.fixture
def app(tmp_path):
    return make_forms(tmp_path)


def ticket_for(response, action, number=0):
    """Return an action's ticket. Each instance on the page prints its tickets in order of NAMES."""
    names = NAMES.split()
    return response.tickets[number * len(names) + names.index(action)]


def rows(app):
    with app.database.session() as db:
        return db.execute(sa.text("SELECT text FROM notes")).scalars().all()


# ---- Calling an action ----


def test_a_form_calls_its_action_and_renders_the_page_again(app, visitor):
    response = visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "<b>"})
    assert response.status == 200
    assert "added &lt;b&gt;|" in response.text
    assert rows(app) == ["<b>"]


def test_a_ticket_can_be_reused_within_its_session(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert [visitor.post(ticket=ticket).status for _ in range(3)] == [200, 200, 200]
    assert len(rows(app)) == 3


def test_the_ticket_is_not_among_the_form_fields(app, visitor):
    visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "x"})
    assert app.calls == [("add", {}, {"text": "x"})]


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
STRINGS = st.text(
    st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=20
)


@pytest.mark.slow
@given(
    props=st.dictionaries(st.sampled_from(["id", "name", "für", "x_1"]), SCALARS),
    form=st.dictionaries(STRINGS, STRINGS, max_size=5),
)
@settings(max_examples=60)
def test_props_and_form_fields_reach_the_action_separately(app, props, form):
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


def test_only_the_posted_instance_of_two_shows_the_result(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    response = visitor.post(ticket=ticket_for(visitor.get(), "add", 1), fields={"text": "x"})
    first, second = response.text.split("</section>")[:2]
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
def test_only_the_posted_instance_of_three_identical_ones_shows_the_result(tmp_path, page, number):
    app = make_forms(tmp_path)
    box = Component("box", "box.html")
    files = {"page.html": page, "box.html": "<div>{{ children }}</div>"}
    app = make_forms(tmp_path, files, components=[*app.registry.components, box])
    visitor = Visitor(app)
    response = visitor.post(ticket=ticket_for(visitor.get(), "remove", number))
    assert ["removed" in part for part in response.text.split("</section>")[:3]] == [
        n == number for n in range(3)
    ]


def test_the_result_stays_with_its_row_when_earlier_rows_are_removed(tmp_path):
    page = "{% for id in ids %}{{ component('note', id=id) }}{% endfor %}"
    app = make_forms(tmp_path, {"page.html": page})
    app.jinja.globals["ids"] = ids = [1, 2, 3]
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(), "remove", 1)
    ids.remove(1)
    parts = visitor.post(ticket=ticket).text.split("</section>")[:2]
    assert ["removed" in part for part in parts] == [True, False]


def test_the_pressed_button_selects_the_action(tmp_path):
    button = '<button name="_ticket" value="{{ action_ticket(name) }}">'
    note = (
        f"{{{{ message }}}}<form method=post>{{% for name in names %}}{button}{{% endfor %}}</form>"
    )
    visitor = Visitor(make_forms(tmp_path, {"note.html": note}))
    visitor.post(ticket=ticket_for(visitor.get(), "remove"))
    assert visitor.app.calls == [("remove", {}, {})]


def test_a_buttons_ticket_overrides_an_earlier_hidden_field(app, visitor):
    page = visitor.get()
    visitor.post(
        fields=[("_ticket", ticket_for(page, "add")), ("_ticket", ticket_for(page, "remove"))]
    )
    assert app.calls == [("remove", {}, {})]


def test_an_imported_function_is_not_an_action(tmp_path):
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
def test_a_non_scalar_prop_of_an_action_is_an_error_that_names_the_fix(tmp_path, caplog, value):
    app = make_forms(tmp_path, {"page.html": f'{{{{ component("note", row={value}) }}}}'})
    assert ask(app).status == 500
    assert "pass the id instead" in caplog.text


# ---- Rejected tickets ----


def refused(app, response, status, reason):
    """Assert that the request was rejected for that reason and ran no action."""
    assert (response.status, response.refused) == (status, reason)
    assert app.calls == []
    assert rows(app) == []
    return True


def test_a_post_without_a_ticket_runs_no_action(app, visitor):
    visitor.get()
    assert refused(app, visitor.post(fields={"text": "x"}), 400, "no-ticket")
    assert refused(app, visitor.post(ticket=""), 400, "no-ticket")
    assert refused(app, ask(app, "POST"), 400, "no-ticket")


@pytest.mark.parametrize("ticket", ["x", "x.y", "A" * 3_000, "é.é", "a b.c"])
def test_a_malformed_ticket_is_rejected(app, visitor, ticket):
    visitor.get()
    assert refused(app, visitor.post(ticket=ticket), 400, "malformed-ticket")


def test_a_ticket_in_the_query_string_is_ignored(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert refused(app, visitor.post(query=f"_ticket={ticket}"), 400, "no-ticket")


def test_a_ticket_in_a_get_request_runs_no_action(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    assert visitor.get(query=f"_ticket={ticket}").status == 200
    assert app.calls == []


def test_a_ticket_from_another_page_is_rejected(app, visitor):
    ticket = ticket_for(visitor.get("/users/ann"), "add")
    for path in ("/", "/users/bob", "/users/ann%20"):
        assert refused(app, visitor.post(path, ticket), 403, "other-page")
    assert visitor.post("/users/ann", ticket).status == 200


def test_a_ticket_from_another_mount_point_is_rejected(app):
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(SCRIPT_NAME="/a"), "add")
    assert refused(app, visitor.post(ticket=ticket, SCRIPT_NAME="/b"), 403, "other-page")
    assert visitor.post(ticket=ticket, SCRIPT_NAME="/a").status == 200


def test_a_ticket_from_another_session_is_rejected(app, visitor):
    ticket, other = ticket_for(visitor.get(), "add"), Visitor(app)
    assert refused(app, other.post(ticket=ticket), 403, "other-session")
    other.get()
    assert refused(app, other.post(ticket=ticket), 403, "other-session")


@pytest.mark.parametrize("field", range(9))
def test_a_ticket_with_a_changed_field_is_rejected(app, visitor, field):
    ticket, fields = ticket_for(visitor.get(), "add"), None
    payload = json.loads(Signer([SECRET], "ticket").verify(ticket))
    values = [*["remove"] * 5, {"id": 8}, [["note", {}]], "guards", payload[8] + 1]
    fields = [*payload[:field], values[field], *payload[field + 1 :]]
    tampered = Signer([SECRET], "ticket").sign(json.dumps(fields).encode()).partition(".")[0]
    signature = ticket.partition(".")[2]
    assert refused(app, visitor.post(ticket=f"{tampered}.{signature}"), 403, "bad-signature")


def test_the_signature_of_another_row_or_action_is_rejected(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    app = make_forms(tmp_path, {"page.html": page})
    visitor = Visitor(app)
    response = visitor.get()
    own = ticket_for(response, "add").partition(".")[0]
    for other in (ticket_for(response, "add", 1), ticket_for(response, "remove")):
        forged = f"{own}.{other.partition('.')[2]}"
        assert refused(app, visitor.post(ticket=forged), 403, "bad-signature")


def test_a_session_cookie_is_rejected_as_a_ticket(app, visitor):
    visitor.get()
    assert refused(
        app, visitor.post(ticket=visitor.cookies["noventa_session"]), 403, "bad-signature"
    )


def test_secret_keys_can_be_rotated(tmp_path):
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
    response = visitor.post(ticket=ticket)
    assert (response.status, response.refused, visitor.app.calls) == (403, "bad-signature", [])


@pytest.mark.parametrize("removed", ["action", "component"])
def test_a_ticket_for_a_removed_action_returns_409(tmp_path, removed):
    visitor = Visitor(make_forms(tmp_path))
    ticket = ticket_for(visitor.get(), "add")
    app = make_forms(tmp_path)
    if removed == "action":
        del app.logic.action_add
    components = app.registry.components if removed == "action" else []
    pages = {} if removed == "action" else {"page.html": "nothing"}
    visitor.app = make_app(tmp_path, pages, components=components, routes=app.registry.routes)
    response = visitor.post(ticket=ticket)
    assert (response.status, response.refused) == (409, "unknown-action")


def test_a_ticket_in_an_outdated_format_returns_409(app, visitor):
    visitor.get()
    text = Signer([SECRET], "ticket").sign(b'["of", "another", "shape"]')
    assert refused(app, visitor.post(ticket=text), 409, "outdated-ticket")


def test_a_rejection_logs_one_warning_with_its_reason(app, visitor, caplog):
    visitor.get()
    caplog.clear()
    visitor.post("/users/a%0d%0ab", "x.y")
    [record] = [record for record in caplog.records if record.name == "noventa"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "refused POST /users/a%250d%250ab: malformed-ticket (400)"


# ---- Resubmitting after the session has changed ----


def ticket_before_login(visitor):
    """Return a ticket issued before the visitor logged in."""
    page = visitor.get()
    assert visitor.post(ticket=ticket_for(page, "rotate")).status == 303
    return ticket_for(page, "add")


def test_rotating_the_session_invalidates_old_tickets(app, visitor):
    assert refused(app, visitor.post(ticket=ticket_before_login(visitor)), 403, "other-session")


def test_a_same_origin_form_from_an_old_session_is_refilled(app, visitor):
    ticket = ticket_before_login(visitor)
    response = visitor.post(ticket=ticket, fields={"text": "typed <i>"}, **SAME_ORIGIN)
    assert refused(app, response, 403, "other-session")
    assert "typed &lt;i&gt;" in response.text
    assert "Please submit the form again" in response.text
    assert visitor.post(ticket=ticket_for(response, "add"), fields={"text": "typed"}).status == 200
    assert rows(app) == ["typed"]


def test_only_the_posted_instance_is_refilled(tmp_path):
    page = '{{ component("note", id=1) }}{{ component("note", id=2) }}'
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    before = visitor.get()
    visitor.cookies.clear()
    response = visitor.post(
        ticket=ticket_for(before, "add", 1), fields={"text": "typed"}, **SAME_ORIGIN
    )
    first, second = response.text.split("</section>")[:2]
    assert "typed" not in first
    assert "typed" in second


def test_a_form_posted_with_a_lost_cookie_can_be_resubmitted(app, visitor):
    ticket = ticket_for(visitor.get(), "add")
    visitor.cookies.clear()
    response = visitor.post(ticket=ticket, fields={"text": "typed"}, **SAME_ORIGIN)
    assert refused(app, response, 403, "other-session")
    assert visitor.post(ticket=ticket_for(response, "add"), fields={"text": "typed"}).status == 200


@pytest.mark.parametrize("evidence", [
    {}, {"HTTP_SEC_FETCH_SITE": "cross-site"}, {"HTTP_ORIGIN": "http://evil.example"},
])  # fmt: skip
def test_a_form_without_proof_of_the_same_origin_gets_no_new_ticket(app, visitor, evidence):
    response = visitor.post(
        ticket=ticket_before_login(visitor), fields={"text": "typed"}, **evidence
    )
    assert response.status == 403
    assert response.tickets == []
    assert "typed" not in response.text


@pytest.mark.parametrize("shows_flashes", [True, False])
def test_the_resubmit_message_is_shown_once_with_or_without_flashes(tmp_path, shows_flashes):
    page = (
        '<body>{{ component("note") }}'
        + ("{% for f in flashes() %}{{ f.text }}{% endfor %}" if shows_flashes else "")
        + "</body>"
    )
    visitor = Visitor(make_forms(tmp_path, {"page.html": page}))
    response = visitor.post(ticket=ticket_before_login(visitor), **SAME_ORIGIN)
    assert response.text.count("Please submit the form again") == 1
    assert response.text.rstrip().endswith("</body>")
    assert "submit the form again" not in visitor.get("/said").text


def test_a_page_now_closed_by_its_guard_is_not_rendered_again(tmp_path):
    def guard(request, session, db):
        return {"_status": 403} if session.get("user") else None

    app = make_forms(tmp_path, routes=[Page("/", "page.html", guards=[guard])])
    visitor = Visitor(app)
    response = visitor.post(
        ticket=ticket_before_login(visitor), fields={"text": "typed"}, **SAME_ORIGIN
    )
    assert (response.status, response.refused, response.tickets) == (403, None, [])


def backdate(ticket, ago):
    """Return the same ticket, issued `ago` seconds ago."""
    fields = json.loads(Signer([SECRET], "ticket").verify(ticket))
    fields[8] = int(time.time()) - ago
    return Signer([SECRET], "ticket").sign(json.dumps(fields).encode())


@pytest.mark.parametrize(("config", "ago", "fresh"), [
    ({}, 86_000, True), ({}, 86_500, False), ({}, -200, True), ({}, -1_000, False),
    ({"session": {"ticket_age": 100}}, 90, True), ({"session": {"ticket_age": 100}}, 120, False),
])  # fmt: skip
def test_an_expired_ticket_asks_to_resubmit_the_form(tmp_path, config, ago, fresh):
    app = make_forms(tmp_path, config=config)
    visitor = Visitor(app)
    ticket = backdate(ticket_for(visitor.get(), "add"), ago)
    response = visitor.post(ticket=ticket, fields={"text": "typed"}, **SAME_ORIGIN)
    if fresh:
        assert response.status == 200
        return
    assert refused(app, response, 403, "old-ticket")
    assert "typed" in response.text
    assert "This form is out of date. Please submit it again." in response.text
    assert visitor.post(ticket=ticket_for(response, "add"), fields={"text": "typed"}).status == 200


def test_an_expired_ticket_without_proof_of_the_same_origin_gets_no_new_one(app, visitor):
    response = visitor.post(ticket=backdate(ticket_for(visitor.get(), "add"), 90_000))
    assert refused(app, response, 403, "old-ticket")
    assert response.tickets == []


# ---- Origin checks ----

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


def test_a_page_rejects_forms_from_another_origin(evidence_app):
    visitor = Visitor(evidence_app, **HOST)
    ticket = ticket_for(visitor.get(), "remove")
    for headers, same in EVIDENCE:
        response = visitor.post(ticket=ticket, **headers)
        expected = (403, "other-origin") if same is False else (200, None)
        assert (response.status, response.refused) == expected, headers


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_endpoint_accepts_only_requests_proven_to_be_same_origin(evidence_app, method):
    expected = {True: (200, None), False: (403, "other-origin"), None: (403, "no-origin")}
    for headers, same in EVIDENCE:
        response = ask(evidence_app, method, "/change", **{**HOST, **headers})
        assert (response.status, response.refused) == expected[same], headers


def test_safe_methods_and_cross_origin_endpoints_accept_any_origin(evidence_app):
    for headers, _ in EVIDENCE:
        assert ask(evidence_app, "GET", "/change", **{**HOST, **headers}).status == 200, headers
        assert ask(evidence_app, "POST", "/open", **{**HOST, **headers}).status == 200, headers


def test_the_log_explains_a_scheme_hidden_by_a_proxy(evidence_app, caplog):
    plain = {"HTTP_HOST": "site.example", "HTTP_ORIGIN": "https://site.example"}
    assert ask(evidence_app, "POST", "/change", **plain).refused == "other-origin"
    message = "'https://site.example' is neither 'http://site.example' nor in trusted_origins"
    assert message in caplog.text
    assert "a proxy that terminates TLS must pass the scheme" in caplog.text


# ---- Order of checks ----


class UnreadableBody(io.BytesIO):
    """A body that must not be read."""

    def read(self, size=-1):
        raise AssertionError("the body was read")


def test_requests_are_checked_in_a_fixed_order(tmp_path):
    def guard(request, session, db):
        return None if "let" in request.args else {"_status": 401}

    routes = [Page("/", "page.html", guards=[guard])]
    app = make_forms(tmp_path, config={"limits": {"body": 1000, "fields": 2}}, routes=routes)
    arguments = {
        "path": "/no",
        "method": "PUT",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "1001",
    }
    arguments |= {"HTTP_SEC_FETCH_SITE": "cross-site", "wsgi.input": UnreadableBody()}
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
    for corrected, status, reason in steps:
        arguments |= corrected
        response = ask(app, **arguments)
        assert (response.status, response.refused) == (status, reason), corrected
    assert app.calls == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "BREW", "post"])
def test_an_unsupported_method_returns_405_with_allow(app, method):
    response = ask(app, method)
    assert refused(app, response, 405, "method")
    assert response.header("Allow") == "GET, HEAD, OPTIONS, POST"


# ---- Guards ----


def require_password(request, session, db, **props):
    """Redirect visitors whose query does not contain the password."""
    return None if request.args.get("word") == "please" else {"_redirect": "/said"}


GUARDED = {
    "registry": {"guards": [require_password]},
    "page": {
        "routes": [Page("/", "page.html", guards=[require_password]), Page("/said", "said.html")]
    },
    "component": {},
}


def make_guarded(root, where):
    app = make_forms(root, **GUARDED[where])
    if where == "component":
        return rebuild_app(app, guard=require_password), app.logic
    return app, app.logic


@pytest.mark.parametrize("where", GUARDED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_guard_protects_every_method(tmp_path, where, method):
    app, logic = make_guarded(tmp_path, where)
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    if method == "POST":
        response = visitor.post(ticket=ticket)
        assert visitor.post(ticket=ticket, query="word=please").status == 200
        assert len(logic.calls) == 1
    else:
        response = ask(app, method)
    assert (response.status, response.header("Location"), response.body) == (303, "/said", b"")


@pytest.mark.parametrize("where", ["registry", "page"])
def test_a_guard_runs_before_the_body_is_read(tmp_path, where):
    app, _ = make_guarded(tmp_path, where)
    response = ask(
        app, "POST", CONTENT_LENGTH="9", CONTENT_TYPE=FORM, **{"wsgi.input": UnreadableBody()}
    )
    assert response.status == 303


def test_guards_run_from_the_outside_in(tmp_path):
    order = []

    def named(name):
        return lambda request, session, db, **props: order.append(name)

    routes = [Page("/", "page.html", guards=[named("page"), named("page 2")])]
    app = make_forms(tmp_path, routes=routes)
    visitor = Visitor(rebuild_app(app, guards=[named("registry")], guard=named("component")))
    page = visitor.get()
    assert order == ["registry", "page", "page 2", "component"]
    order.clear()
    visitor.post(ticket=ticket_for(page, "rotate"))
    assert order == ["registry", "page", "page 2", "component"]


@pytest.mark.parametrize("user", [1, 2])
def test_a_components_guard_receives_the_props_of_the_ticket(tmp_path, user):
    def own_only(request, session, db, id):
        return None if str(id) == request.args.get("user", str(id)) else {"_status": 403}

    app = make_forms(tmp_path, {"page.html": '{{ component("note", id=1, other=3) }}'})
    visitor = Visitor(rebuild_app(app, guard=own_only))
    response = visitor.post(ticket=ticket_for(visitor.get(), "add"), query=f"user={user}")
    assert response.status == (200 if user == 1 else 403)
    assert len(app.calls) == (1 if user == 1 else 0)


NESTINGS = {
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


def make_boxed(root, files, guard, note_guard=None):
    """Create an application with a note inside a guarded `box`, nested as in `files`."""
    note = dataclasses.replace(make_forms(root).registry.components[0], guard=note_guard)
    box, plain = Component("box", "box.html", guard=guard), Component("plain", "plain.html")
    pages = {"box.html": "{{ children }}", "plain.html": "{{ children }}"} | files
    app = make_forms(root, pages, components=[note, box, plain])
    app.calls = note.logic.calls
    return app


@pytest.mark.parametrize("files", NESTINGS.values(), ids=NESTINGS)
def test_a_components_guard_protects_the_actions_nested_in_it(tmp_path, files):
    members = {"1"}

    def members_only(request, session, db, *, id):
        return None if str(id) in members else {"_status": 403, "message": "members only"}

    app = make_boxed(tmp_path, files, members_only)
    visitor = Visitor(app)
    ticket = ticket_for(visitor.get(), "remove")
    assert visitor.post(ticket=ticket).status == 200
    members.clear()
    assert visitor.get().status == 403
    response = visitor.post(ticket=ticket)
    assert (response.status, "members only" in response.text) == (403, True)
    assert len(app.calls) == 1


def test_ancestor_guards_run_from_the_outside_in_with_their_own_props(tmp_path):
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


def test_an_ancestor_guards_prop_that_no_ticket_can_store_is_an_error(tmp_path, caplog):
    files = {**NESTINGS["template"], "page.html": "{{ component('box', row=[1], id=1) }}"}
    assert ask(make_boxed(tmp_path, files, require_password), query="word=please").status == 500
    assert "component 'box' runs its guard again" in caplog.text
    assert "its prop 'row' is a list; pass the id instead" in caplog.text
    assert ask(make_boxed(tmp_path, files, by_id)).status == 200


def by_id(request, session, db, *, id):
    return None


GUARD_CHANGES = {
    "gained": (None, require_password),
    "lost": (require_password, None),
    "takes more": (by_id, lambda request, session, db, *, id, team=None: None),
    "takes less": (require_password, by_id),
}


@pytest.mark.parametrize(("before", "after"), GUARD_CHANGES.values(), ids=GUARD_CHANGES)
def test_a_ticket_issued_before_a_guard_changed_returns_409(tmp_path, before, after):
    visitor = Visitor(make_boxed(tmp_path, NESTINGS["template"], before))
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    visitor.app = make_boxed(tmp_path, NESTINGS["template"], after)
    response = visitor.post(ticket=ticket, query="word=please")
    assert (response.status, response.refused) == (409, "changed-guards")
    assert visitor.app.calls == []


def test_a_ticket_issued_before_a_guarded_ancestor_was_removed_is_rejected(tmp_path):
    visitor = Visitor(make_boxed(tmp_path, NESTINGS["template"], require_password))
    ticket = ticket_for(visitor.get(query="word=please"), "add")
    visitor.app = make_forms(tmp_path, {"page.html": "{{ component('note') }}"})
    assert visitor.post(ticket=ticket).refused == "changed-guards"
    assert visitor.app.calls == []


@pytest.mark.parametrize(("result", "status", "text"), [
    ({"_status": 403}, 403, "This is not allowed"),
    ({"_status": 404, "message": "<gone>"}, 404, "&lt;gone&gt;"),
    ({"_redirect": "/said"}, 303, ""), (webob.Response(b"own", status=418), 418, "own"),
    (webob.exc.HTTPForbidden(), 403, "This is not allowed"),
    ({"_redirect": "//evil.example"}, 400, "understood"),
])  # fmt: skip
def test_a_guard_may_return_a_status_redirect_response_or_http_exception(
    tmp_path, result, status, text
):
    def guard(request, session, db):
        return result

    response = ask(make_forms(tmp_path, guards=[guard]))
    assert response.status == status
    assert text in response.text


def test_a_guard_may_raise_an_http_exception(tmp_path):
    def guard(request, session, db):
        raise webob.exc.HTTPFound(location="/said")

    response = ask(make_forms(tmp_path, guards=[guard]))
    assert (response.status, response.header("Location")) == (302, "/said")


# ---- Validation and refilling ----


def test_a_422_refills_the_form_and_rolls_back(app, visitor, caplog):
    response = visitor.post(ticket=ticket_for(visitor.get(), "check"), fields={"text": '"><i>'})
    assert response.status == 422
    assert "|too short|&#34;&gt;&lt;i&gt;|" in response.text
    assert rows(app) == []
    assert "without db.commit" not in caplog.text


@pytest.mark.parametrize("undefined", [jinja2.Undefined, jinja2.StrictUndefined])
def test_errors_and_values_are_empty_before_a_form_is_posted(tmp_path, undefined):
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
    response = visitor.post(
        ticket=ticket_for(visitor.get(), "say"), fields={"text": "x", "to": target}
    )
    assert (response.status, response.header("Location")) == (status, location)


def test_a_redirect_keeps_the_mount_prefix_and_never_contains_the_host(app):
    visitor = Visitor(
        app, SCRIPT_NAME="/m", HTTP_HOST="evil.example", HTTP_X_FORWARDED_HOST="evil.example"
    )
    response = visitor.post(ticket=ticket_for(visitor.get(), "rotate"))
    assert response.header("Location") == "/m/"


# ---- Flashes ----


def post_flash(visitor, text="hello"):
    response = visitor.post(ticket=ticket_for(visitor.get(), "say"), fields={"text": text})
    assert response.status == 303


def test_a_flash_is_shown_once(visitor):
    post_flash(visitor, "<b>")
    assert visitor.get("/said").text == "[&lt;b&gt;, good]"
    assert visitor.get("/said").text == ""


def test_a_flash_waits_for_a_page_that_shows_it(visitor):
    post_flash(visitor)
    visitor.get("/")
    visitor.get("/nowhere")
    assert "hello" in visitor.get("/said").text


def test_a_head_request_does_not_consume_flashes(visitor):
    post_flash(visitor)
    assert visitor.head("/said").status == 200
    assert "hello" in visitor.get("/said").text


@pytest.mark.parametrize("ending", ["redirect", "not-found", "error"])
def test_a_flash_is_kept_if_the_page_that_showed_it_was_not_sent(tmp_path, ending):
    def load(request, session, db, **props):
        if ending == "error":
            raise RuntimeError("on purpose")
        raise webob.exc.HTTPNotFound

    logic = make_module("late_logic", "")
    logic.load_template_context = load
    late = Component(
        "late", "late.html", logic=logic, guard=require_password if ending == "redirect" else None
    )
    note = make_forms(tmp_path).registry.components[0]
    page = "{% for f in flashes() %}{{ f.text }}{% endfor %}{{ component('late') }}"
    app = make_app(
        tmp_path, {"broken.html": page, "late.html": ""}, components=[note, late],
        routes=[Page("/", "page.html"), Page("/broken", "broken.html"), Page("/said", "said.html")],
    )  # fmt: skip
    visitor = Visitor(app)
    post_flash(visitor)
    assert (
        visitor.get("/broken").status == {"redirect": 303, "not-found": 404, "error": 500}[ending]
    )
    assert "hello" in visitor.get("/said").text


# ---- Uploads ----


def send_files(visitor, *parts, action="upload"):
    ticket = ticket_for(visitor.get(), action)
    return visitor.upload("/", *parts, ("_ticket", ticket.encode()))


def test_an_upload_reaches_its_action(app, visitor):
    response = send_files(visitor, ("f", b"content", "../a.txt", "text/plain"))
    assert response.status == 200
    assert "a.txt|" in response.text
    assert app.calls[0][1] == {"f": b"content"}


@pytest.mark.parametrize("action", ["upload", "break"])
@pytest.mark.parametrize("size", [10, 5_000])
def test_an_upload_is_closed_after_the_request(tmp_path, action, size):
    app = make_forms(tmp_path, config={"limits": {"memory": 1_000}})
    files = []
    registered = app.components.by_name["note"].actions
    original = registered[action]

    def watch(request, session, db, **props):
        files.append(request.files["f"].file)
        return original(request, session, db, **props)

    registered[action] = watch
    response = send_files(Visitor(app), ("f", b"x" * size, "a", "a/b"), action=action)
    assert response.status == (200 if action == "upload" else 500)
    assert (files[0].name is not None) == (size > 1_000)  # then it is spooled to disk
    assert files[0].closed


def test_a_retried_action_can_read_its_upload_again(tmp_path):
    class Conflict(Exception):
        sqlstate = "40001"

    calls = []

    def conflict_once(request, session, db, **props):
        calls.append((request.form["text"], request.files["f"].file.read()))
        if len(calls) == 1:
            raise sa.exc.OperationalError("UPDATE", {}, Conflict())
        return {}

    app = rebuild_app(make_forms(tmp_path), retries=1)
    app.components.by_name["note"].actions["upload"] = conflict_once
    response = send_files(Visitor(app), ("text", b"t"), ("f", b"content", "a", "a/b"))
    assert response.status == 200
    assert calls == [("t", b"content")] * 2


@pytest.mark.parametrize(("limits", "parts", "status"), [
    ({"body": 20_000}, [("f", b"x" * 15_000, "a", "a/b")], 200),
    ({}, [("f", b"x" * 15_000, "a", "a/b")], 413),
    ({"fields": 9}, [("a", b"")] * 8, 200), ({}, [("a", b"")] * 8, 413),
    ({"form": 9}, [("a", b"x" * 2_000)], 200),
    ({"files": 4}, [("f", b"x", "a", "a/b")] * 4, 200), ({}, [("f", b"x", "a", "a/b")] * 4, 413),
])  # fmt: skip
def test_a_page_can_raise_a_limit(tmp_path, limits, parts, status):
    config = {"limits": {"body": 10_000, "fields": 4, "files": 2}}
    app = make_forms(tmp_path, config=config, routes=[Page("/", "page.html", limits=limits)])
    assert send_files(Visitor(app), *parts).status == status


@pytest.mark.parametrize(("limits", "status"), [({}, 413), ({"form": 2_000}, 200)])
def test_a_page_can_raise_the_limit_for_urlencoded_forms(tmp_path, limits, status):
    routes = [Page("/", "page.html", limits=limits)]
    visitor = Visitor(make_forms(tmp_path, config={"limits": {"form": 900}}, routes=routes))
    response = visitor.post(ticket=ticket_for(visitor.get(), "add"), fields={"text": "x" * 900})
    assert (response.status, response.refused) == (
        status,
        "form-too-large" if status == 413 else None,
    )
    assert len(visitor.app.calls) == (status == 200)


def test_an_endpoint_can_raise_a_limit(tmp_path):
    def count(request, session, db):
        return {"bytes": len(request.body)}

    routes = [
        Endpoint("/small", count, methods=["POST"], cross_origin=True),
        Endpoint("/large", count, methods=["POST"], cross_origin=True, limits={"body": 5_000}),
    ]
    app = make_app(tmp_path, config={"limits": {"body": 1_000}}, routes=routes)
    assert ask(app, "POST", "/small", body=b"x" * 2_000).status == 413
    assert ask(app, "POST", "/large", body=b"x" * 2_000).status == 200


# ---- Values that the database rejects ----


@pytest.mark.parametrize(("number", "status"), [(2**63 - 1, 200), (2**63, 400), (10**300, 400)])
def test_a_number_too_large_for_sqlite_is_a_bad_request(tmp_path, number, status):
    def load(request, session, db):
        number = request.args.get("number", type=int)
        return {"same": db.execute(sa.select(sa.literal(number))).scalar() == number}

    response = ask(make_app(tmp_path, routes=[Endpoint("/", load)]), query=f"number={number}")
    assert (response.status, response.refused) == (status, None if status == 200 else "bad-value")


def test_a_value_that_the_database_rejects_is_a_bad_request(tmp_path, caplog):
    def load(request, session, db):
        raise sa.exc.DataError("SELECT", {}, Exception("invalid input\x1b[31m\nsyntax"))

    app = make_app(tmp_path, routes=[Endpoint("/", load)])
    response = ask(app)
    assert (response.status, response.refused) == (400, "bad-value")
    assert all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize("debug", [True, False])
def test_a_bad_value_from_the_application_is_logged_with_its_traceback(tmp_path, caplog, debug):
    def load(request, session, db):
        return {"same": db.execute(sa.select(sa.literal(2**63))).scalar()}

    app = make_app(tmp_path, config={"debug": debug}, routes=[Endpoint("/here", load)])
    response = ask(app, path="/here", HTTP_ACCEPT="text/html")
    assert (response.status, response.refused) == (400, "bad-value")
    (record,) = caplog.records
    assert record.getMessage().startswith("refused GET /here: bad-value (400), in /here > load: ")
    assert record.exc_info[0] is OverflowError
    assert ("sa.literal(2**63)" in re.sub("</?em>", "", response.text)) is debug
    assert ("OverflowError" in response.text) is debug


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
@pytest.mark.parametrize("in_page", [True, False])
def test_an_action_receives_the_date_or_uuid_of_its_page(tmp_path, kind, text, value, in_page):
    logic = make_module("day_logic", DAY_LOGIC)
    form = "<form method='post'>{{ action('book') }}</form>{{ day }} {{ booked }}"
    files = {"c.html": form, "p.html": form if in_page else "{{ component('c', day=day) }}"}
    page = Page(f"/{{day:{kind}}}", "p.html", logic=logic if in_page else None)
    components = [Component("c", "c.html", logic=logic)]
    visitor = Visitor(make_app(tmp_path, files, routes=[page], components=components))
    response = visitor.get(f"/{text}")
    assert text in response.text
    assert f"{text} True" in visitor.post(f"/{text}", *response.tickets).text
    before = [value] if in_page else []  # a page's logic runs before its actions
    assert logic.calls == [value, *before, value, value]
