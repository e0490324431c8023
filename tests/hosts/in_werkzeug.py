"""Noventa mounted below a prefix, next to any other WSGI application."""

from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from wsgi import application as noventa

application = DispatcherMiddleware(NotFound(), {"/deep/down": noventa})
