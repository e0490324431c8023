"""The same site written for each framework: `make("flask", url)` is a WSGI application.

    /plain              a page without a query        /message.json   a dict as JSON
    /users/7            one query by key              /static/…       a file
    /fortunes           twelve rows                   /visits         a session read and written
    POST /edit/7        ticket, update, redirect      /forms          two tickets for a visitor
    /r3/7               one of `extra` routes

Each site follows the framework's manual and uses what the framework provides. What is missing (a
database, templates, sessions, tickets) is taken from the floor, a hand-written WSGI function: the
same SQLAlchemy session, Jinja template and HMAC. A framework is imported when its site is created.
"""

from __future__ import annotations

import functools
import json
import mimetypes
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import sqlalchemy as sa

from . import work
from .work import MESSAGE, SECRET, SITE, Fortune, Site, StartResponse, User, WSGIApp


def make(name: str, url: str, extra: int = 0) -> WSGIApp:
    """Create the site in framework `name`, on the database at `url`, with `extra` more routes."""
    return MAKERS[name](url, extra)


def make_floor(url: str, extra: int) -> WSGIApp:
    site = Site(url)
    Answer = tuple[str, str, bytes]  # status, a header, body
    html = "Content-Type: text/html; charset=utf-8"

    def show_file(environ: dict[str, Any], rest: str) -> Answer:
        path = (SITE / "static" / rest).resolve()
        if not path.is_relative_to(SITE / "static"):
            raise PermissionError(rest)
        kind = mimetypes.guess_type(path.name)[0] or "text/plain"
        return "200 OK", f"Content-Type: {kind}", path.read_bytes()

    def count_visits(environ: dict[str, Any], rest: str) -> Answer:
        session = work.count_visit(_cookies(environ).get("session"))
        kept = f"Set-Cookie: session={work.sign(session)}; Path=/; HttpOnly; SameSite=Lax"
        return "200 OK", kept, json.dumps(session).encode()

    def edit(environ: dict[str, Any], rest: str) -> Answer:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        form = parse_qs(body.decode())
        cookie = _cookies(environ)["session"]
        site.edit(int(rest), cookie, form["_ticket"][0], form["name"][0])
        return "303 See Other", f"Location: /users/{rest}", b""

    def show_route(environ: dict[str, Any], rest: str) -> Answer:
        return "200 OK", "Content-Type: text/plain", rest.encode()

    handlers: dict[str, Callable[[dict[str, Any], str], Answer]] = {
        "plain": lambda environ, rest: ("200 OK", html, site.plain().encode()),
        "forms": lambda environ, rest: (
            "200 OK", html, site.forms(_cookies(environ)["session"]).encode(),
        ),
        "users": lambda environ, rest: ("200 OK", html, site.user(int(rest)).encode()),
        "fortunes": lambda environ, rest: ("200 OK", html, site.fortunes().encode()),
        "message.json": lambda environ, rest: (
            "200 OK", "Content-Type: application/json", json.dumps(MESSAGE).encode(),
        ),
        "static": show_file, "visits": count_visits, "edit": edit,
        **{f"r{n}": show_route for n in range(extra)},
    }  # fmt: skip

    def application(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        first, _, rest = environ["PATH_INFO"][1:].partition("/")
        status, header, body = handlers[first](environ, rest)
        name, _, value = header.partition(": ")
        start(status, [(name, value), ("Content-Length", str(len(body)))])
        return [body]

    return application


def _cookies(environ: dict[str, Any]) -> dict[str, str]:
    pairs = environ.get("HTTP_COOKIE", "").split("; ")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def make_noventa(url: str, extra: int) -> WSGIApp:
    import webob

    from noventa import App, Component, Config, Endpoint, Page, Registry, Static

    from .logic import editor_logic, forms_logic, fortunes_logic, user_logic

    def show_message(request: Any, session: Any, db: Any) -> Any:
        return MESSAGE

    def count_visits(request: Any, session: Any, db: Any) -> Any:
        session["visits"] = session.get("visits", 0) + 1
        return {"visits": session["visits"]}

    def show_route(request: Any, session: Any, db: Any, *, id: str) -> Any:
        return webob.Response(id, content_type="text/plain")

    registry = Registry(
        components=[
            Component("user", "noventa/user.html", logic=user_logic, models=[User]),
            Component("editor", "noventa/editor.html", logic=editor_logic),
            Component("fortunes", "noventa/fortunes.html", logic=fortunes_logic, models=[Fortune]),
            Component("forms", "noventa/forms.html", logic=forms_logic),
            Component("card", "components/card.html"),
            Component("list", "components/list_noventa.html"),
            Component("item", "components/item.html"),
        ],
        routes=[
            Page("/plain", "plain.html"),
            Page("/users/{id:int}", "noventa/user_page.html"),
            Page("/fortunes", "noventa/fortunes_page.html"),
            Page("/edit/{id:int}", "noventa/edit_page.html"),
            Page("/forms", "noventa/forms_page.html"),
            Page("/cards", "components/cards_noventa.html"),
            Page("/nested", "components/nested_noventa.html"),
            Endpoint("/message.json", show_message),
            Endpoint("/visits", count_visits),
            Static("/static", "static"),
            *(Endpoint(f"/r{n}/{{id}}", show_route) for n in range(extra)),
        ],
    )
    return App(registry, Config.from_mapping({"database": url, "secret_keys": [SECRET]}, SITE))


def make_bottle(url: str, extra: int) -> WSGIApp:
    from bottle import Bottle, redirect, request, response, static_file

    site, app = Site(url), Bottle()
    app.get("/plain")(site.plain)
    app.get("/users/<id:int>")(site.user)
    app.get("/fortunes")(site.fortunes)
    app.get("/message.json")(lambda: MESSAGE)
    app.get("/forms")(lambda: site.forms(request.get_cookie("session")))

    @app.post("/edit/<id:int>")
    def edit(id: int) -> None:
        form = request.forms
        site.edit(id, request.get_cookie("session"), form["_ticket"], form["name"])
        redirect(f"/users/{id}", 303)

    @app.get("/visits")
    def count_visits() -> Any:
        visits = request.get_cookie("visits", 0, secret=SECRET) + 1
        response.set_cookie("visits", visits, secret=SECRET, path="/", httponly=True)
        return {"visits": visits}

    @app.get("/static/<name:path>")
    def show_file(name: str) -> Any:
        return static_file(name, root=SITE / "static")

    def show_route(id: str) -> str:
        response.content_type = "text/plain"
        return id

    for n in range(extra):
        app.get(f"/r{n}/<id>")(show_route)
    return app


def make_falcon(url: str, extra: int) -> WSGIApp:
    import falcon

    site = Site(url)

    class Text:
        def __init__(self, show: Callable[..., str], kind: str = falcon.MEDIA_HTML) -> None:
            self.show, self.kind = show, kind

        def on_get(self, request: Any, response: Any, **arguments: Any) -> None:
            response.content_type = self.kind
            response.text = self.show(**arguments)

    class Edit:
        def on_post(self, request: Any, response: Any, id: int) -> None:
            form = request.get_media()
            site.edit(id, request.cookies["session"], form["_ticket"], form["name"])
            raise falcon.HTTPSeeOther(f"/users/{id}")

    class Forms:
        def on_get(self, request: Any, response: Any) -> None:
            response.content_type = falcon.MEDIA_HTML
            response.text = site.forms(request.cookies["session"])

    class Message:
        def on_get(self, request: Any, response: Any) -> None:
            response.media = MESSAGE

    class Visits:
        def on_get(self, request: Any, response: Any) -> None:
            session = work.count_visit(request.cookies.get("session"))
            response.set_cookie("session", work.sign(session), path="/", secure=False)
            response.media = session

    app, route = falcon.App(), Text(lambda id: id, falcon.MEDIA_TEXT)
    app.add_route("/plain", Text(site.plain))
    app.add_route("/users/{id:int}", Text(site.user))
    app.add_route("/fortunes", Text(site.fortunes))
    app.add_route("/edit/{id:int}", Edit())
    app.add_route("/forms", Forms())
    app.add_route("/message.json", Message())
    app.add_route("/visits", Visits())
    app.add_static_route("/static", SITE / "static")
    for n in range(extra):
        app.add_route(f"/r{n}/{{id}}", route)
    return app


def make_flask(url: str, extra: int) -> WSGIApp:
    from flask import Flask, redirect, render_template, request, session
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__, template_folder=str(SITE), static_folder=str(SITE / "static"))
    app.config.update(SECRET_KEY=SECRET, SQLALCHEMY_DATABASE_URI=url)
    db = SQLAlchemy(app)

    @app.get("/plain")
    def show_plain() -> Any:
        return render_template("plain.html")

    @app.get("/users/<int:id>")
    def show_user(id: int) -> Any:
        return render_template("user.html", user=db.session.get(User, id))

    @app.get("/fortunes")
    def show_fortunes() -> Any:
        return render_template("fortunes.html", fortunes=work.all_fortunes(db.session))

    @app.post("/edit/<int:id>")
    def edit(id: int) -> Any:
        work.check_ticket(request.cookies["session"], request.form["_ticket"])
        work.rename(db.session, id, request.form["name"])
        return redirect(f"/users/{id}", 303)

    @app.get("/forms")
    def show_forms() -> Any:
        return render_template("forms.html", tickets=work.tickets(request.cookies["session"]))

    @app.get("/message.json")
    def show_message() -> Any:
        return MESSAGE

    @app.get("/visits")
    def count_visits() -> Any:
        session["visits"] = session.get("visits", 0) + 1
        return {"visits": session["visits"]}

    def show_route(id: str) -> Any:
        return id, {"Content-Type": "text/plain"}

    for n in range(extra):
        app.add_url_rule(f"/r{n}/<id>", "show_route", show_route)
    return app


def make_pyramid(url: str, extra: int) -> WSGIApp:
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPSeeOther
    from pyramid.response import Response
    from pyramid.session import SignedCookieSessionFactory

    site = Site(url)

    def edit(request: Any) -> Any:
        id, form = int(request.matchdict["id"]), request.POST
        site.edit(id, request.cookies["session"], form["_ticket"], form["name"])
        return HTTPSeeOther(f"/users/{id}")

    def count_visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    def show_route(request: Any) -> Any:
        return Response(request.matchdict["id"], content_type="text/plain")

    with Configurator(session_factory=SignedCookieSessionFactory(SECRET)) as config:

        def add(path: str, view: Any, renderer: str | None = None) -> None:
            config.add_route(path, path)
            config.add_view(view, route_name=path, renderer=renderer)

        add("/plain", lambda request: Response(site.plain()))
        add("/users/{id}", lambda request: Response(site.user(int(request.matchdict["id"]))))
        add("/fortunes", lambda request: Response(site.fortunes()))
        add("/edit/{id}", edit)
        add("/forms", lambda request: Response(site.forms(request.cookies["session"])))
        add("/message.json", lambda request: MESSAGE, "json")
        add("/visits", count_visits, "json")
        config.add_static_view("static", str(SITE / "static"))
        for n in range(extra):
            add(f"/r{n}/{{id}}", show_route)
        return config.make_wsgi_app()  # type: ignore[no-any-return]


def make_django(url: str, extra: int) -> WSGIApp:
    """Create the site in Django with SQLAlchemy and Jinja, like the others."""
    from django.http import HttpResponse, HttpResponseRedirect

    _configure_django(url)
    site = Site(url)

    def edit(request: Any, id: int) -> Any:
        form = request.POST
        site.edit(id, request.COOKIES["session"], form["_ticket"], form["name"])
        return HttpResponseRedirect(f"/users/{id}", status=303)

    return _django_site(
        lambda request: HttpResponse(site.plain()),
        lambda request, id: HttpResponse(site.user(id)),
        lambda request: HttpResponse(site.fortunes()),
        lambda request: HttpResponse(site.forms(request.COOKIES["session"])),
        edit, extra,
    )  # fmt: skip


def make_django_orm(url: str, extra: int) -> WSGIApp:
    """Create the site in Django with its own ORM and its Jinja backend."""
    from django.http import HttpResponseRedirect
    from django.shortcuts import render

    alias = _configure_django(url)
    users, fortunes = (model.objects.using(alias) for model in _django_models())

    def show_fortunes(request: Any) -> Any:
        rows = sorted(fortunes.all(), key=lambda fortune: fortune.message)
        return render(request, "fortunes.html", {"fortunes": rows})

    def show_forms(request: Any) -> Any:
        tickets = work.tickets(request.COOKIES["session"])
        return render(request, "forms.html", {"tickets": tickets})

    def edit(request: Any, id: int) -> Any:
        work.check_ticket(request.COOKIES["session"], request.POST["_ticket"])
        user = users.get(id=id)
        user.name = request.POST["name"]
        user.save()
        return HttpResponseRedirect(f"/users/{id}", status=303)

    return _django_site(
        lambda request: render(request, "plain.html"),
        lambda request, id: render(request, "user.html", {"user": users.get(id=id)}),
        show_fortunes, show_forms, edit, extra,
    )  # fmt: skip


def _django_site(
    plain: Any, user: Any, fortunes: Any, forms: Any, edit: Any, extra: int
) -> WSGIApp:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse, JsonResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt
    from django.views.static import serve

    def count_visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return JsonResponse({"visits": request.session["visits"]})

    def show_route(request: Any, id: str) -> Any:
        return HttpResponse(id, content_type="text/plain")

    urls = (
        path("plain", plain),
        path("users/<int:id>", user),
        path("fortunes", fortunes),
        path("forms", forms),
        path("edit/<int:id>", csrf_exempt(edit)),
        path("message.json", lambda request: JsonResponse(MESSAGE)),
        path("visits", count_visits),
        path("static/<path:path>", serve, {"document_root": SITE / "static"}),
        *(path(f"r{n}/<id>", show_route) for n in range(extra)),
    )

    class Application(WSGIHandler):  # type: ignore[misc]
        def get_response(self, request: Any) -> Any:
            request.urlconf = urls  # settings are global; this lets several sites share them
            return super().get_response(request)

    return Application()  # type: ignore[no-any-return]


def _configure_django(url: str) -> str:
    """Configure Django once for all its sites; return the alias of the database at `url`."""
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        middleware = (  # as in `startproject`, without the admin's
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        )
        settings.configure(
            ALLOWED_HOSTS=["*"], SECRET_KEY=SECRET, USE_TZ=True, MIDDLEWARE=middleware,
            ROOT_URLCONF=__name__, DATABASES={"default": {}},
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            TEMPLATES=[{"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [SITE]}],
        )  # fmt: skip
        django.setup()
    parts = sa.make_url(url)
    alias = parts.get_backend_name()
    database = {
        "ENGINE": f"django.db.backends.{'sqlite3' if alias == 'sqlite' else alias}",
        "NAME": parts.database, "USER": parts.username or "", "HOST": parts.host or "",
        "PASSWORD": parts.password or "", "PORT": parts.port or "", "CONN_MAX_AGE": None,
    }  # fmt: skip
    databases = connections.configure_settings({"default": {}, alias: database})
    connections.settings[alias] = databases[alias]
    return alias


@functools.cache
def _django_models() -> tuple[Any, Any]:
    from django.db import models

    class DjangoUser(models.Model):  # type: ignore[misc]
        email = models.CharField(max_length=100)
        name = models.CharField(max_length=100)

        class Meta:
            app_label, db_table = "work", "users"

    class DjangoFortune(models.Model):  # type: ignore[misc]
        message = models.CharField(max_length=200)

        class Meta:
            app_label, db_table = "work", "fortunes"

    return DjangoUser, DjangoFortune


def make_inline(url: str, extra: int) -> WSGIApp:
    """Create pages whose components are written inline: the baseline for the others."""
    return _component_pages(*work.renderers("components/cards_inline", "components/nested_inline"))


def make_include(url: str, extra: int) -> WSGIApp:
    """Create the same pages with Jinja's own `include`."""
    pages = ("components/cards_include", "components/nested_include")
    return _component_pages(*work.renderers(*pages))


def make_jinjax(url: str, extra: int) -> WSGIApp:
    """Create the same pages with JinjaX components."""
    from jinjax import Catalog

    catalog = Catalog(auto_reload=False)
    catalog.jinja_env.autoescape = True
    catalog.add_folder(SITE / "jinjax")
    return _component_pages(lambda: catalog.render("Cards"), lambda: catalog.render("Nested"))


def _component_pages(cards: Callable[[], str], nested: Callable[[], str]) -> WSGIApp:
    def application(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        body = (cards if environ["PATH_INFO"] == "/cards" else nested)().encode()
        kind = ("Content-Type", "text/html; charset=utf-8")
        start("200 OK", [kind, ("Content-Length", str(len(body)))])
        return [body]

    return application


MAKERS: dict[str, Callable[[str, int], WSGIApp]] = {
    "floor": make_floor, "noventa": make_noventa, "bottle": make_bottle, "falcon": make_falcon,
    "flask": make_flask, "pyramid": make_pyramid, "django": make_django,
    "django_orm": make_django_orm, "inline": make_inline, "include": make_include,
    "jinjax": make_jinjax,
}  # fmt: skip
