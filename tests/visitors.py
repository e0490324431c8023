"""Helpers for requests in this process: a visitor with cookies, under wsgiref's validator."""

import io
import re
from html import unescape
from http.cookies import SimpleCookie
from typing import NamedTuple
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    status: int
    headers: list
    body: bytes

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def refused(self):
        return self.header("X-Noventa-Refused")

    @property
    def tickets(self):
        """Every ticket on the page, in order."""
        return [
            unescape(value) for value in re.findall(r'name="_ticket" value="([^"]*)"', self.text)
        ]

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


def ask(app, method="GET", path="/", query="", body=b"", **environ):
    """Send one request. `environ` are further keys of its environ; None removes a key.

    The validator checks the whole response, but against a valid environ: only the application
    receives `environ`, which may be invalid.
    """
    valid = {"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO(body), "QUERY_STRING": ""}
    setup_testing_defaults(valid)
    if body:
        environ = {"CONTENT_LENGTH": str(len(body))} | environ
    requested = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query} | environ
    started = []

    def with_environ(validated, start_response):
        merged = {**validated, **requested}
        return app({k: v for k, v in merged.items() if v is not None}, start_response)

    def start_response(status, headers, exc_info=None):
        started[:] = [status, headers]
        return lambda data: None

    valid["REQUEST_METHOD"] = "HEAD" if method == "HEAD" else "GET"
    chunks = validator(with_environ)(valid, start_response)
    try:
        sent = b"".join(chunks)
    finally:
        chunks.close()
    return Answer(int(started[0].split()[0]), started[1], sent)


def post(app, path="/", fields=(), **environ):
    """Post a form of urlencoded fields."""
    body = urlencode(fields).encode()
    environ = {"CONTENT_TYPE": FORM, "CONTENT_LENGTH": str(len(body))} | environ
    return ask(app, "POST", path, body=body, **environ)


def multipart(*parts, boundary="limit"):
    """Return a multipart body of (name, content) and (name, content, filename, type)."""
    lines = []
    for name, content, *rest in parts:
        head = f'Content-Disposition: form-data; name="{name}"'
        if rest:
            head += f'; filename="{rest[0]}"\r\nContent-Type: {rest[1]}'
        lines.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


class Visitor:
    """A client that keeps cookies between requests, as a browser does."""

    def __init__(self, app, **environ):
        self.app, self.environ, self.cookies = app, environ, {}

    def get(self, path="/", **more):
        return self._remember(ask(self.app, "GET", path, **self._with(more)))

    def head(self, path="/", **more):
        return self._remember(ask(self.app, "HEAD", path, **self._with(more)))

    def post(self, path="/", ticket=None, fields=(), **more):
        fields = [*dict(fields).items()] if isinstance(fields, dict) else [*fields]
        if ticket is not None:
            fields.append(("_ticket", ticket))
        return self._remember(post(self.app, path, fields, **self._with(more)))

    def upload(self, path, *parts, **more):
        body = multipart(*parts)
        more["CONTENT_TYPE"] = "multipart/form-data; boundary=limit"
        return self._remember(ask(self.app, "POST", path, body=body, **self._with(more)))

    def _with(self, more):
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {**self.environ, **({"HTTP_COOKIE": cookie} if cookie else {}), **more}

    def _remember(self, answer):
        for name, value in answer.headers:
            if name == "Set-Cookie":
                for key, morsel in SimpleCookie(value).items():
                    if morsel["max-age"] == "0":
                        self.cookies.pop(key, None)
                    else:
                        self.cookies[key] = morsel.value
        return answer
