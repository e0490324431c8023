"""The same site written for each framework: `make("flask", url)` is a WSGI application.

    /plain              a page without a query        /message.json   a dict as JSON
    /users/7            one query by key              /static/…       a file
    /fortunes           twelve rows                   /visits         a session read and written
    POST /edit/7        ticket, update, redirect      /r3/7           one of `extra` routes

Each is written as its manual shows, with the parts that it brings. What one lacks (a database,
templates, tickets) is the same SQLAlchemy session, Jinja template and HMAC as on the floor, a
WSGI function written by hand. A framework is imported only when its application is made.
"""

from __future__ import annotations

import functools
import json
import mimetypes
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import jinja2
import sqlalchemy as sa
from sqlalchemy import orm

from . import work
from .work import MESSAGE, SECRET, SITE, Fortune, StartResponse, User, WSGIApp


def make(name: str, url: str, extra: int = 0) -> WSGIApp:
    """The application `name` on the database at `url`, with `extra` more routes."""
    return MAKERS[name](url, extra)


def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(SITE)
    return jinja2.Environment(loader=loader, autoescape=True, auto_reload=False)


def _pages() -> list[Callable[..., str]]:
    jinja = _templates()
    return [jinja.get_template(f"{name}.html").render for name in ("plain", "user", "fortunes")]


def _cookie(environ: dict[str, Any], name: str) -> str:
    for pair in environ.get("HTTP_COOKIE", "").split("; "):
        key, _, value = pair.partition("=")
        if key == name:
            return str(value)
    return ""


def make_floor(url: str, extra: int) -> WSGIApp:
    engine, (plain, user, fortunes) = sa.create_engine(url), _pages()
    Answer = tuple[bytes, str]  # body and type
    html = "text/html; charset=utf-8"

    def show_plain(environ: dict[str, Any], rest: str) -> Answer:
        return plain().encode(), html

    def show_user(environ: dict[str, Any], rest: str) -> Answer:
        with orm.Session(engine) as db:
            return user(user=db.get(User, int(rest))).encode(), html

    def show_fortunes(environ: dict[str, Any], rest: str) -> Answer:
        with orm.Session(engine) as db:
            return fortunes(fortunes=work.all_fortunes(db)).encode(), html

    def show_message(environ: dict[str, Any], rest: str) -> Answer:
        return json.dumps(MESSAGE).encode(), "application/json"

    def show_file(environ: dict[str, Any], rest: str) -> Answer:
        path = (SITE / "static" / rest).resolve()
        if not path.is_relative_to(SITE / "static"):
            raise PermissionError(rest)
        return path.read_bytes(), mimetypes.guess_type(path.name)[0] or "text/plain"

    def show_route(environ: dict[str, Any], rest: str) -> Answer:
        return rest.encode(), "text/plain"

    def count_visits(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        cookie = _cookie(environ, "session")
        session = work.verify(cookie) if cookie else {"visits": 0}
        session["visits"] += 1
        kept = f"session={work.sign(session)}; Path=/; HttpOnly; SameSite=Lax"
        start("200 OK", [("Content-Type", "application/json"), ("Set-Cookie", kept)])
        return [json.dumps(session).encode()]

    def edit(environ: dict[str, Any], start: StartResponse, rest: str) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        form = parse_qs(body.decode())
        work.check_ticket(_cookie(environ, "session"), form["_ticket"][0])
        with orm.Session(engine) as db:
            work.rename(db, int(rest), form["name"][0])
        start("303 See Other", [("Location", f"/users/{rest}"), ("Content-Length", "0")])
        return [b""]

    handlers: dict[str, Callable[[dict[str, Any], str], Answer]] = {
        "plain": show_plain, "users": show_user, "fortunes": show_fortunes,
        "message.json": show_message, "static": show_file,
        **{f"r{n}": show_route for n in range(extra)},
    }  # fmt: skip

    def application(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        first, _, rest = environ["PATH_INFO"][1:].partition("/")
        if first == "edit":
            return edit(environ, start, rest)
        if first == "visits":
            return count_visits(environ, start)
        body, kind = handlers[first](environ, rest)
        start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return application


def make_noventa(url: str, extra: int) -> WSGIApp:
    import webob
    from noventa import App, Component, Config, Endpoint, Page, Registry, Static

    from .logic import editor_logic, fortunes_logic, user_logic

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
            Component("card", "components/card.html"),
            Component("list", "components/list_noventa.html"),
            Component("item", "components/item.html"),
        ],
        routes=[
            Page("/plain", "plain.html"),
            Page("/users/{id:int}", "noventa/user_page.html"),
            Page("/fortunes", "noventa/fortunes_page.html"),
            Page("/edit/{id:int}", "noventa/edit_page.html"),
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

    engine, (plain, user, fortunes), app = sa.create_engine(url), _pages(), Bottle()

    @app.get("/plain")
    def show_plain() -> Any:
        return plain()

    @app.get("/users/<id:int>")
    def show_user(id: int) -> Any:
        with orm.Session(engine) as db:
            return user(user=db.get(User, id))

    @app.get("/fortunes")
    def show_fortunes() -> Any:
        with orm.Session(engine) as db:
            return fortunes(fortunes=work.all_fortunes(db))

    @app.post("/edit/<id:int>")
    def edit(id: int) -> Any:
        work.check_ticket(request.get_cookie("session"), request.forms["_ticket"])
        with orm.Session(engine) as db:
            work.rename(db, id, request.forms["name"])
        redirect(f"/users/{id}", 303)

    @app.get("/message.json")
    def show_message() -> Any:
        return MESSAGE

    @app.get("/visits")
    def count_visits() -> Any:
        visits = request.get_cookie("visits", 0, secret=SECRET) + 1
        response.set_cookie("visits", visits, secret=SECRET, path="/", httponly=True)
        return {"visits": visits}

    @app.get("/static/<name:path>")
    def show_file(name: str) -> Any:
        return static_file(name, root=SITE / "static")

    def show_route(id: str) -> Any:
        response.content_type = "text/plain"
        return id

    for n in range(extra):
        app.get(f"/r{n}/<id>")(show_route)
    return app


def make_falcon(url: str, extra: int) -> WSGIApp:
    import falcon

    engine, (plain, user, fortunes) = sa.create_engine(url), _pages()

    class Plain:
        def on_get(self, request: Any, response: Any) -> None:
            response.content_type = falcon.MEDIA_HTML
            response.text = plain()

    class ShowUser:
        def on_get(self, request: Any, response: Any, id: int) -> None:
            response.content_type = falcon.MEDIA_HTML
            with orm.Session(engine) as db:
                response.text = user(user=db.get(User, id))

    class Fortunes:
        def on_get(self, request: Any, response: Any) -> None:
            response.content_type = falcon.MEDIA_HTML
            with orm.Session(engine) as db:
                response.text = fortunes(fortunes=work.all_fortunes(db))

    class Edit:
        def on_post(self, request: Any, response: Any, id: int) -> None:
            form = request.get_media()
            work.check_ticket(request.cookies["session"], form["_ticket"])
            with orm.Session(engine) as db:
                work.rename(db, id, form["name"])
            raise falcon.HTTPSeeOther(f"/users/{id}")

    class Message:
        def on_get(self, request: Any, response: Any) -> None:
            response.media = MESSAGE

    class Visits:
        def on_get(self, request: Any, response: Any) -> None:
            cookie = request.cookies.get("session")
            session = work.verify(cookie) if cookie else {"visits": 0}
            session["visits"] += 1
            response.set_cookie("session", work.sign(session), path="/", secure=False)
            response.media = session

    class Route:
        def on_get(self, request: Any, response: Any, id: str) -> None:
            response.content_type = falcon.MEDIA_TEXT
            response.text = id

    app, route = falcon.App(), Route()
    app.add_route("/plain", Plain())
    app.add_route("/users/{id:int}", ShowUser())
    app.add_route("/fortunes", Fortunes())
    app.add_route("/edit/{id:int}", Edit())
    app.add_route("/message.json", Message())
    app.add_route("/visits", Visits())
    app.add_static_route("/static", SITE / "static")
    for n in range(extra):
        app.add_route(f"/r{n}/{{id}}", route)
    return app


def make_flask(url: str, extra: int) -> WSGIApp:
    from flask import Flask, redirect, render_template, request, session
    from flask_sqlalchemy import SQLAlchemy

    folders = {"template_folder": str(SITE), "static_folder": str(SITE / "static")}
    app = Flask(__name__, static_url_path="/static", **folders)
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

    engine, (plain, user, fortunes) = sa.create_engine(url), _pages()

    def show_plain(request: Any) -> Any:
        return Response(plain())

    def show_user(request: Any) -> Any:
        with orm.Session(engine) as db:
            return Response(user(user=db.get(User, int(request.matchdict["id"]))))

    def show_fortunes(request: Any) -> Any:
        with orm.Session(engine) as db:
            return Response(fortunes(fortunes=work.all_fortunes(db)))

    def edit(request: Any) -> Any:
        id = int(request.matchdict["id"])
        work.check_ticket(request.cookies["session"], request.POST["_ticket"])
        with orm.Session(engine) as db:
            work.rename(db, id, request.POST["name"])
        return HTTPSeeOther(f"/users/{id}")

    def show_message(request: Any) -> Any:
        return MESSAGE

    def count_visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    def show_route(request: Any) -> Any:
        return Response(request.matchdict["id"], content_type="text/plain")

    with Configurator(session_factory=SignedCookieSessionFactory(SECRET)) as config:

        def add(path: str, view: Any, renderer: str | None = None) -> None:
            config.add_route(path, path)
            config.add_view(view, route_name=path, renderer=renderer)

        add("/plain", show_plain)
        add("/users/{id}", show_user)
        add("/fortunes", show_fortunes)
        add("/edit/{id}", edit)
        add("/message.json", show_message, "json")
        add("/visits", count_visits, "json")
        config.add_static_view("static", str(SITE / "static"))
        for n in range(extra):
            add(f"/r{n}/{{id}}", show_route)
        return config.make_wsgi_app()  # type: ignore[no-any-return]


def make_django(url: str, extra: int, *, own_orm: bool = False) -> WSGIApp:
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
    from django.shortcuts import render
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt
    from django.views.static import serve

    alias = _configure_django(url)
    engine = sa.create_engine(url)

    def show_plain(request: Any) -> Any:
        return render(request, "plain.html")

    def show_user(request: Any, id: int) -> Any:
        if own_orm:
            return render(request, "user.html", {"user": users.get(id=id)})
        with orm.Session(engine) as db:
            return render(request, "user.html", {"user": db.get(User, id)})

    def show_fortunes(request: Any) -> Any:
        if own_orm:
            rows = sorted(fortunes.all(), key=lambda fortune: fortune.message)
            return render(request, "fortunes.html", {"fortunes": rows})
        with orm.Session(engine) as db:
            return render(request, "fortunes.html", {"fortunes": work.all_fortunes(db)})

    @csrf_exempt
    def edit(request: Any, id: int) -> Any:
        work.check_ticket(request.COOKIES["session"], request.POST["_ticket"])
        if own_orm:
            user = users.get(id=id)
            user.name = request.POST["name"]
            user.save()
        else:
            with orm.Session(engine) as db:
                work.rename(db, id, request.POST["name"])
        return HttpResponseRedirect(f"/users/{id}", status=303)

    def show_message(request: Any) -> Any:
        return JsonResponse(MESSAGE)

    def count_visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return JsonResponse({"visits": request.session["visits"]})

    def show_route(request: Any, id: str) -> Any:
        return HttpResponse(id, content_type="text/plain")

    if own_orm:
        users, fortunes = (model.objects.using(alias) for model in _django_models())
    urls = (
        path("plain", show_plain),
        path("users/<int:id>", show_user),
        path("fortunes", show_fortunes),
        path("edit/<int:id>", edit),
        path("message.json", show_message),
        path("visits", count_visits),
        path("static/<path:path>", serve, {"document_root": SITE / "static"}),
        *(path(f"r{n}/<id>", show_route) for n in range(extra)),
    )

    class Application(WSGIHandler):  # type: ignore[misc]
        def get_response(self, request: Any) -> Any:
            request.urlconf = urls  # settings are global: this lets several sites share them
            return super().get_response(request)

    return Application()  # type: ignore[no-any-return]


def _configure_django(url: str) -> str:
    """Django's settings, made once for all its applications; the database's alias."""
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY=SECRET,
            USE_TZ=True,
            ROOT_URLCONF="tests.benchmarks.apps",
            DATABASES={"default": {}},
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            MIDDLEWARE=[  # of `startproject`, without those of the admin
                "django.middleware.security.SecurityMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware",
            ],
            TEMPLATES=[
                {"BACKEND": "django.template.backends.jinja2.Jinja2", "DIRS": [SITE]},
            ],
        )
        django.setup()
    parts = sa.make_url(url)
    alias = parts.get_backend_name()
    connections.settings[alias] = connections.configure_settings(
        {"default": {}, alias: {
            "ENGINE": f"django.db.backends.{'sqlite3' if alias == 'sqlite' else alias}",
            "NAME": parts.database, "USER": parts.username or "", "HOST": parts.host or "",
            "PASSWORD": parts.password or "", "PORT": parts.port or "", "CONN_MAX_AGE": None,
        }}
    )[alias]  # fmt: skip
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


def make_django_orm(url: str, extra: int) -> WSGIApp:
    return make_django(url, extra, own_orm=True)


def make_inline(url: str, extra: int) -> WSGIApp:
    """Components: what one costs is measured against its text written into the page."""
    return _component_pages(*_rendered("inline"))


def make_include(url: str, extra: int) -> WSGIApp:
    """Components as Jinja's own `include`."""
    return _component_pages(*_rendered("include"))


def make_jinjax(url: str, extra: int) -> WSGIApp:
    """Components of JinjaX."""
    from jinjax import Catalog

    catalog = Catalog(auto_reload=False)
    catalog.jinja_env.autoescape = True
    catalog.add_folder(SITE / "jinjax")
    return _component_pages(lambda: catalog.render("Cards"), lambda: catalog.render("Nested"))


def _rendered(kind: str) -> list[Callable[[], str]]:
    jinja = _templates()
    names = (f"components/{page}_{kind}.html" for page in ("cards", "nested"))
    return [jinja.get_template(name).render for name in names]


def _component_pages(cards: Callable[[], str], nested: Callable[[], str]) -> WSGIApp:
    def application(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        body = (cards if environ["PATH_INFO"] == "/cards" else nested)().encode()
        kind = ("Content-Type", "text/html; charset=utf-8")
        start("200 OK", [kind, ("Content-Length", str(len(body)))])
        return [body]

    return application


MAKERS: dict[str, Callable[[str, int], WSGIApp]] = {
    "floor": make_floor,
    "noventa": make_noventa,
    "bottle": make_bottle,
    "falcon": make_falcon,
    "flask": make_flask,
    "pyramid": make_pyramid,
    "django": make_django,
    "django_orm": make_django_orm,
    "inline": make_inline,
    "include": make_include,
    "jinjax": make_jinjax,
}
