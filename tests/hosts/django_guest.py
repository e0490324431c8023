"""A Django project to mount. It does not know its prefix."""

from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path, reverse

HERE = Path(__file__).parent


def home(request):
    return HttpResponse(f"{reverse('sign')} {request.COOKIES.get('last')}")


def sign(request):
    response = HttpResponseRedirect(reverse("home"))
    response.set_cookie("last", request.POST["name"], path=reverse("home"))
    return response


def file(request):
    return FileResponse((HERE / "files/site.css").open("rb"))


class Lines:
    def __iter__(self):
        return (f"line {number}\n".encode() for number in range(3))

    def close(self):
        (HERE / "closed.txt").touch()


def stream(request):
    return StreamingHttpResponse(Lines())


urlpatterns = [
    path("", home, name="home"),
    path("sign/", sign, name="sign"),
    path("file/", file),
    path("stream/", stream),
]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
application = get_wsgi_application()
