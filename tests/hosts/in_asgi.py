"""Noventa mounted below a prefix of an ASGI application."""

from contextlib import asynccontextmanager

from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.routing import Mount
from wsgi import app as noventa


@asynccontextmanager
async def lifespan(application):
    yield
    noventa.database.dispose()  # uvicorn runs no exit handlers after a signal


application = Starlette(routes=[Mount("/m", WSGIMiddleware(noventa))], lifespan=lifespan)
