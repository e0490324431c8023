"""Static files: which files are sent, which are not, and how they are cached."""

import gc
import os
import sys
from pathlib import Path

import pytest
from processes import write_files
from support import SECRET, make_app
from visitors import ask

from noventa import NoventaError, Page, Static

CSS = "body { color: teal }\n"


@pytest.fixture
def app(tmp_path):
    """Create an application that serves `public`, with secret files in it and around it."""
    public = tmp_path / "public"
    (public / "deep" / ".hidden").mkdir(parents=True)
    (public / ".well-known").mkdir()
    files = {
        "public/site.css": CSS, "public/deep/a b.txt": "deep", "public/.env": "SECRET",
        "public/empty": "",
        "public/deep/.hidden/x": "SECRET", "public/.well-known/security.txt": "well known",
        "public/.Well-Known/x": "SECRET",
        "secret.txt": "SECRET",
        "public/data.unknown-type": "?", "publicity/x": "SECRET",
        "page.html": "{{ static('site.css') }}",
    }  # fmt: skip
    for name in (
        "con",
        "Com1.txt",
        "lpt9",
        "nul .css",
        "aux.tar.gz",
        "site.css:x",
        "deep\\a b.txt",
    ):
        files[f"public/{name}"] = "SECRET"  # ordinary names here, but special on other systems
    (public / "out").symlink_to(tmp_path)
    (public / "out.txt").symlink_to(tmp_path / "secret.txt")
    (public / "in.css").symlink_to(public / "site.css")
    (public / "inside").symlink_to(public / "deep")
    (public / "v1").symlink_to(public)
    (public / "circle").symlink_to(public / "circle")
    (public / "broken").symlink_to(public / "nowhere")
    os.mkfifo(public / "pipe")
    pipe = os.open(public / "pipe", os.O_RDWR)  # with one end open, opening the other never blocks
    routes = [Page("/", "page.html"), Static("/files", "public")]
    yield make_app(tmp_path, files, routes=routes)
    os.close(pipe)


def get(app, tail, **environ):
    return ask(app, path=f"/files{tail}", **environ)


@pytest.mark.parametrize(("tail", "content"), [
    ("/site.css", CSS), ("/deep/a b.txt", "deep"), ("/in.css", CSS), ("/empty", ""),
    ("/inside/a b.txt", "deep"), ("/v1/site.css", CSS), ("/v1/v1/deep/a b.txt", "deep"),
    ("/.well-known/security.txt", "well known"), ("/data.unknown-type", "?"),
])  # fmt: skip
def test_a_file_is_sent_whole(app, tail, content):
    response = get(app, tail)
    assert (response.status, response.text) == (200, content)
    assert response.header("Content-Length") == str(len(content))
    assert response.header("X-Content-Type-Options") == "nosniff"


def test_the_content_type_comes_from_the_name_or_is_octet_stream(app):
    assert get(app, "/site.css").header("Content-Type").startswith("text/css")
    assert get(app, "/data.unknown-type").header("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize(("name", "expected"), [
    ("a.html.gz", "application/gzip"), ("a.tgz", "application/gzip"),
    ("a.svg.bz2", "application/x-bzip2"), ("a.js.xz", "application/x-xz"),
    ("a.html.br", "application/octet-stream"), ("a.xml.Z", "application/octet-stream"),
    ("a.html", "text/html; charset=UTF-8"),
])  # fmt: skip
def test_a_compressed_file_has_the_type_of_its_compression(app, name, expected):
    (app.config.root / "public" / name).write_bytes(b"x")
    assert get(app, f"/{name}").header("Content-Type") == expected


NOT_PUBLIC = [
    "", "/", "/deep", "/deep/", "/no", "/.env", "/deep/.hidden/x", "/.well-known",
    "/out/secret.txt", "/out.txt", "/out/public/site.css", "/inside", "/inside/.hidden/x", "/v1",
    "/v1/", "/.Well-Known/x",
    "/circle", "/broken", "/pipe", "/../secret.txt", "/deep/../../secret.txt", "/deep/../site.css",
    "/./site.css",
    "//site.css", "/site.css/", "/site.css/x", "/..\\secret.txt", "/deep\\a b.txt", "/C:\\x",
    "/site.css:x", "/con",
    "/Com1.txt", "/lpt9", "/nul .css", "/aux.tar.gz", "/../publicity/x", "icity/x", "/" + "x" * 300,
    "/" + "x/" * 3000,
]  # fmt: skip


def test_a_path_that_is_not_a_public_file_is_a_404(app):
    for tail in NOT_PUBLIC:
        response = get(app, tail)
        assert response.status == 404, tail
        assert "SECRET" not in response.text, tail
        assert str(app.config.root) not in response.text, tail


@pytest.mark.parametrize(("swapped", "tail", "expected"), [
    ("site.css", "/site.css", (404, None)), ("deep", "/deep/b.css", (200, "deep")),
    ("in.css", "/in.css", (404, None)),
])  # fmt: skip
def test_a_path_replaced_by_a_symlink_after_its_check_is_not_followed(app, swapped, tail, expected):
    """The audit event precedes the system call, so the path changes between check and use."""
    public, outside = app.config.root / "public", app.config.root / "outside"
    (public / "deep" / "b.css").write_text("deep")
    outside.mkdir()
    (outside / "b.css").write_text("SECRET")
    armed = [public / swapped]

    def swap(event, arguments):
        if armed and event == "open" and str(arguments[0]).endswith(tail.rpartition("/")[2]):
            entry = armed.pop()
            entry.rename(entry.with_suffix(".old"))
            entry.symlink_to(outside if swapped == "deep" else outside / "b.css")

    sys.addaudithook(swap)
    response = get(app, tail)
    assert not armed
    assert (response.status, response.text if response.status == 200 else None) == expected


def test_a_nul_in_the_path_is_rejected(app):
    assert get(app, "/site.css\0.txt").status == 400


def test_an_unreadable_file_is_a_404(app, monkeypatch):
    (app.config.root / "public" / "gone.css").write_text("x")

    def fail(*_):
        raise PermissionError

    monkeypatch.setattr("os.open", fail)
    assert get(app, "/gone.css").status == 404


@pytest.mark.parametrize(("requested", "status", "content", "content_range"), [
    ("bytes=0-3", 206, "body", "bytes 0-3/21"), ("bytes=-5", 206, "al }\n", "bytes 16-20/21"),
    ("bytes=15-", 206, "eal }\n", "bytes 15-20/21"), ("bytes=0-999", 206, CSS, "bytes 0-20/21"),
    ("bytes=0-0,2-3", 200, CSS, None), ("bytes=x", 200, CSS, None), ("items=0-1", 200, CSS, None),
    ("bytes=5-1", 200, CSS, None),
])  # fmt: skip
def test_a_single_range_is_sent_and_anything_else_is_ignored(
    app, requested, status, content, content_range
):
    response = get(app, "/site.css", HTTP_RANGE=requested)
    assert (response.status, response.text, response.header("Content-Range")) == (
        status,
        content,
        content_range,
    )
    assert response.header("Content-Length") == str(len(content))


def test_a_range_beyond_the_end_returns_416(app):
    response = get(app, "/site.css", HTTP_RANGE="bytes=21-")
    assert (response.status, response.header("Content-Range")) == (416, "bytes */21")


def test_an_unchanged_file_is_not_sent_again(app):
    first = get(app, "/site.css")
    for name, key in (("ETag", "HTTP_IF_NONE_MATCH"), ("Last-Modified", "HTTP_IF_MODIFIED_SINCE")):
        response = get(app, "/site.css", **{key: first.header(name)})
        assert (response.status, response.body) == (304, b"")
    assert get(app, "/site.css", HTTP_IF_NONE_MATCH='"other"').status == 200


def test_a_changed_file_is_sent_whole_instead_of_a_range(app):
    tag = get(app, "/site.css").header("ETag")
    assert get(app, "/site.css", HTTP_RANGE="bytes=0-3", HTTP_IF_RANGE=tag).status == 206
    assert get(app, "/site.css", HTTP_RANGE="bytes=0-3", HTTP_IF_RANGE='"old"').status == 200


def test_head_has_the_headers_of_get_and_no_body(app):
    got, head = get(app, "/site.css"), get(app, "/site.css", method="HEAD", HTTP_RANGE="bytes=0-3")
    assert head.body == b""
    assert (head.status, head.headers) == (200, got.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_return_405(app, method):
    response = get(app, "/site.css", method=method)
    assert (response.status, response.refused) == (405, "method")
    assert response.header("Allow") == "GET, HEAD, OPTIONS"


def test_a_file_that_grows_while_it_is_sent_keeps_its_length(app):
    started, large = [], app.config.root / "public" / "large.css"
    large.write_text(CSS * 10_000)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/files/large.css"}
    body = app(environ, lambda status, headers: started.append(dict(headers)))
    with large.open("a") as file:
        file.write("more" * 100)
    assert len(b"".join(body)) == int(started[0]["Content-Length"]) == len(CSS) * 10_000
    body.close()


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_small_and_large_files_are_sent_alike(app, size):
    (app.config.root / "public" / "x.bin").write_bytes(b"x" * size)
    whole, part = get(app, "/x.bin"), get(app, "/x.bin", HTTP_RANGE=f"bytes=0-{size}")
    assert whole.body == part.body == b"x" * size
    assert whole.header("Content-Length") == str(size)
    assert {name for name, _ in whole.headers} == {
        "Accept-Ranges", "Content-Length", "Content-Security-Policy", "Content-Type",
        "Cross-Origin-Opener-Policy", "ETag", "Last-Modified", "Referrer-Policy",
        "X-Content-Type-Options",
    }  # fmt: skip


@pytest.mark.parametrize("environ", [
    {}, {"method": "HEAD"}, {"HTTP_RANGE": "bytes=0-3"}, {"HTTP_RANGE": "bytes=99-"},
    {"HTTP_IF_NONE_MATCH": "*"},
])  # fmt: skip
def test_the_file_is_closed_whatever_part_of_it_is_sent(app, environ):
    get(app, "/site.css", **environ)
    gc.collect()  # an unclosed file would warn, and warnings are errors
    targets = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [target for target in targets if target.endswith("site.css")]


def test_a_file_whose_body_is_never_read_is_closed(app):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/files/site.css", "HTTP_RANGE": "bytes=0-3"}
    body = app(environ, lambda status, headers: None)
    body.close()
    gc.collect()


def test_the_url_changes_with_the_file_and_only_the_current_url_is_immutable(app):
    url = ask(app).text
    path, _, query = url.partition("?")
    assert path == "/files/site.css"
    assert "immutable" in ask(app, path=path, query=query).header("Cache-Control")
    assert ask(app, path=path).header("Cache-Control") is None
    assert ask(app, path=path, query="v=other").header("Cache-Control") is None
    (app.config.root / "public" / "site.css").write_text("changed")
    assert ask(app).text != url
    assert ask(app, path=path, query=query).header("Cache-Control") is None


def test_the_url_has_the_mount_prefix_and_is_percent_encoded(app):
    assert ask(app, SCRIPT_NAME="/m").text.startswith("/m/files/site.css?v=")
    assert app.components.static.url("deep/a b.txt").startswith("/files/deep/a%20b.txt?v=")


@pytest.mark.parametrize("name", ["no.css", "../secret.txt", ".env", "out.txt", "/"])
def test_the_url_of_a_missing_or_private_file_is_an_error(app, name):
    with pytest.raises(NoventaError, match="no such file"):
        app.components.static.url(name)


@pytest.mark.parametrize(("environ", "status"), [
    ({}, 200), ({"HTTP_RANGE": "bytes=0-1"}, 206),
    ({"HTTP_IF_MODIFIED_SINCE": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
])  # fmt: skip
def test_guarded_files_are_private_and_always_revalidated(tmp_path, environ, status):
    def let_in(request, session, db):
        return None if "user" in request.args else {"_status": 403}

    routes = [Static("/files", "public", guards=[let_in])]
    app = make_app(tmp_path, {"public/a.css": CSS}, routes=routes)
    assert ask(app, path="/files/a.css").status == 403
    version = app.components.static.url("a.css").partition("v=")[2]
    for query in ("user=1", f"user=1&v={version}"):
        response = ask(app, path="/files/a.css", query=query, **environ)
        assert response.status == status
        assert response.header("Cache-Control") == "private, no-cache"


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(NoventaError, match="folder 'no' does not exist"):
        make_app(tmp_path, routes=[Static("/files", "no")])


@pytest.mark.parametrize(("folder", "file"), [
    (".", "config.yaml"), ("..", "config.yaml"), ("public/../", "config.yaml"),
    ("/", "config.yaml"), ("data", "test.db"), ("keys", "secret.key"), ("other", "registry.py"),
    ("link", "config.yaml"), ("kept", "config.yaml"),
])  # fmt: skip
def test_a_folder_with_settings_registry_or_database_is_an_error(tmp_path, folder, file):
    root, config = tmp_path / "project", {"database": "sqlite:///./data/deep/test.db"}
    files = {"public/a.css": "", "keys/secret.key": "", "other/registry.py": "", "kept/c.yaml": ""}
    write_files(root, {**files, "data/deep/x": ""})
    (root / "link").symlink_to(tmp_path)
    if folder == "kept":
        (root / "config.yaml").symlink_to(root / "kept" / "c.yaml")
    with pytest.raises(NoventaError, match=f"folder .* contains {file}, which visitors could read"):
        make_app(root, config=config, routes=[Static("/files", folder)])


@pytest.mark.parametrize("file", ["own.txt", "database.url", "test.db-wal", "test.db.lock"])
def test_a_folder_with_secrets_of_the_settings_is_an_error(tmp_path, file):
    write_files(tmp_path, {"public/a.css": "", "public/own.txt": SECRET, f"public/{file}": SECRET})
    if file.startswith("test.db"):
        (tmp_path / file).symlink_to(tmp_path / "public" / file)
    config = {"secret_keys": ["${file:public/own.txt}"]} if file == "own.txt" else {}
    with pytest.raises(NoventaError, match=f"folder 'public' contains {file}, which visitors"):
        make_app(tmp_path, config=config, routes=[Static("/files", "public")])


def test_a_template_name_from_the_url_cannot_include_other_kinds_of_files(tmp_path):
    files = {"page.html": "{% include name %}", "part.html": "part", "config.yaml": "SECRET"}
    app = make_app(tmp_path, files, routes=[Page("/{name:path}", "page.html")])
    assert ask(app, path="/part.html").text == "part"
    for name in ("config.yaml", "x/../config.yaml", "./config.yaml", "CONFIG.YAML", "test.db"):
        response = ask(app, path=f"/{name}")
        assert (response.status, "SECRET" in response.text) == (500, False)
