"""Noventa mounted below a prefix of a Django project, as a view."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import StreamingHttpResponse
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt
from webob.request import BaseRequest
from wsgi import application as noventa


@csrf_exempt  # Noventa's forms have tickets
def noventa_view(request, path):
    environ = request.environ.copy()
    before = request.path_info.removesuffix(path)
    environ["SCRIPT_NAME"] += before.encode().decode("latin-1")  # Django has decoded both
    environ["PATH_INFO"] = path.encode().decode("latin-1")
    inner = BaseRequest(environ).send(noventa)
    response = StreamingHttpResponse(inner.app_iter, status=inner.status_int)
    for name, value in inner.headerlist:
        if name == "Set-Cookie":
            response.cookies.load(value)
        else:
            response[name] = value
    return response


urlpatterns = [re_path(r"^m((?:/.*)?)$", noventa_view)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
application = get_wsgi_application()
