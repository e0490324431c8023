"""Noventa mounted in a Pyramid application. `/m*subpath` alone would also match `/mm`."""

from pyramid.config import Configurator
from pyramid.wsgi import wsgiapp2
from wsgi import application as noventa

with Configurator() as config:
    config.add_route("noventa", "/m{slash:/|$}*subpath")
    config.add_view(wsgiapp2(noventa), route_name="noventa")
    application = config.make_wsgi_app()
