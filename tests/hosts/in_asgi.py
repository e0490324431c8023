"""Below a prefix in an ASGI application."""

from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.routing import Mount
from wsgi import application as noventa

application = Starlette(routes=[Mount("/m", WSGIMiddleware(noventa))])
