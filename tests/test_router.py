"""Router: from path to route, by rules that do not depend on the order of the routes."""

import gc
import itertools
import re
import sys
from datetime import date
from functools import cache
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noventa import Endpoint, Mount, Page, Router, Static, route_faults

ID = "0b3a1c52-6f0e-4c57-9d3c-9f3f0b6a7c11"


def any_args(request, session, db, **view_args):
    return {}


def page(path):
    return Page(path, "a.html")


def endpoint(path, **options):
    return Endpoint(path, any_args, **options)


def match_of(router, path):
    """Return the path of the matched route, its view args and the rest of the path."""
    match = router.match(path)
    return match and (match.route.path, match.view_args, match.tail)


def faults_of(*routes):
    return [str(fault) for fault in route_faults(routes)]


@pytest.mark.parametrize(
    ("route", "path", "view_args"),
    [
        ("/", "/", {}),
        ("/users", "/users", {}),
        ("/users/", "/users/", {}),
        ("/café", "/café", {}),
        ("/users/{name}", "/users/ada", {"name": "ada"}),
        ("/users/{name}", "/users/ada lovelace", {"name": "ada lovelace"}),
        ("/users/{id:int}", "/users/007", {"id": 7}),
        ("/users/{id:int}/posts/{post}", "/users/7/posts/x.y", {"id": 7, "post": "x.y"}),
        ("/docs/{id:uuid}", f"/docs/{ID}", {"id": UUID(ID)}),
        ("/docs/{id:uuid}", f"/docs/{ID.upper()}", {"id": UUID(ID)}),
        ("/days/{day:date}/x", "/days/2024-02-29/x", {"day": date(2024, 2, 29)}),
        ("/docs/{rest:path}", "/docs/a/b/c.txt", {"rest": "a/b/c.txt"}),
        ("/docs/{rest:path}", "/docs/a//b/", {"rest": "a//b/"}),
        ("/{a}/{b}/", "/1/2/", {"a": "1", "b": "2"}),
        ("/{rest:path}", "/a", {"rest": "a"}),
        ("/a/*", "/a/*", {}),
        ("/a/{name}", "/a/{int}", {"name": "{int}"}),
    ],
)
def test_a_path_matches_its_route_and_parameters(route, path, view_args):
    assert match_of(Router([page(route)]), path) == (route, view_args, "")


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/", ""),
        ("/users", "/user"),
        ("/users", "/users/"),
        ("/users", "/Users"),
        ("/users", "x/users"),
        ("/users/{name}", "/users/"),
        ("/users/{name}", "/users/a/b"),
        ("/users/{id:int}", "/users/ada"),
        ("/users/{id:int}", "/users/-1"),
        ("/users/{id:int}", "/users/+1"),
        ("/users/{id:int}", "/users/1_0"),
        ("/users/{id:int}", "/users/٣"),
        ("/users/{id:int}", "/users/²"),
        ("/users/{id:int}", "/users/" + "9" * 19),
        ("/docs/{id:uuid}", "/docs/" + ID.replace("-", "")),
        ("/docs/{id:uuid}", f"/docs/{{{ID}}}"),
        ("/days/{day:date}", "/days/2023-02-29"),
        ("/days/{day:date}", "/days/20240229"),
        ("/days/{day:date}", "/days/2024-02-29T00:00"),
        ("/docs/{rest:path}", "/docs"),
        ("/docs/{rest:path}", "/docs/"),
        ("/a/{b}/c", "/a//c"),
        ("/a/*", "/a/b"),
        ("/a/{id:int}", "/a/{int}"),
    ],
)
def test_any_other_path_does_not_match(route, path):
    assert Router([page(route)]).match(path) is None


@pytest.mark.parametrize(
    ("prefix", "path", "tail"),
    [
        ("/m", "/m", ""),
        ("/m", "/m/", "/"),
        ("/m", "/m/a/b", "/a/b"),
        ("/m/", "/m//a", "//a"),
        ("/", "/a", "/a"),
        ("/", "/", "/"),
    ],
)
@pytest.mark.parametrize("kind", [Mount, Static])
def test_a_mount_matches_everything_below_it(kind, prefix, path, tail):
    assert match_of(Router([kind(prefix, "files")]), path) == (prefix, {}, tail)


def test_a_mount_matches_whole_segments_only():
    assert Router([Mount("/m", any_args)]).match("/mm/a") is None


def test_a_page_takes_precedence_over_a_mount_at_the_same_path():
    router = Router([Mount("/t/{tenant}", any_args), page("/t/{name}")])
    assert match_of(router, "/t/acme") == ("/t/{name}", {"name": "acme"}, "")


def test_a_mount_may_have_a_parameter():
    router = Router([Mount("/t/{tenant}", any_args)])
    assert match_of(router, "/t/acme/a") == ("/t/{tenant}", {"tenant": "acme"}, "/a")


RANKED = ["/a/7", "/a/{id:int}", "/a/{name}", "/a/{rest:path}", "/a"]


def test_the_most_literal_route_wins_whatever_the_order():
    routes = [Mount(path, any_args) if path == "/a" else page(path) for path in RANKED]
    paths = ["/a/7", "/a/8", "/a/b", "/a/b/c", "/a/"]
    for order in itertools.permutations(routes):
        router = Router(order)
        assert [router.match(path).route.path for path in paths] == RANKED, order


def test_a_parameter_is_tried_if_the_literal_segment_leads_to_no_match():
    router = Router([page("/users/new/form"), page("/{kind}/{id}"), page("/users/{id:int}/x")])
    assert match_of(router, "/users/new") == ("/{kind}/{id}", {"kind": "users", "id": "new"}, "")
    assert match_of(router, "/users/7") == ("/{kind}/{id}", {"kind": "users", "id": "7"}, "")


def test_each_match_has_its_own_view_args():
    router = Router([page("/b/{name}")])
    router.match("/b/x").view_args["left"] = "over"
    assert router.match("/b/x").view_args == {"name": "x"}


# Comparison with a simple implementation of the rules

segments = st.sampled_from(["a", "b", "7", "{x}", "{y:int}", "{z:path}", ""])
patterns = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
kinds = st.sampled_from([page, lambda path: Mount(path, any_args)])
some_routes = st.lists(
    st.builds(lambda make, path: make(path), kinds, patterns), min_size=1, max_size=8
)
some_paths = st.lists(st.sampled_from(["a", "b", "7", "c", ""]), min_size=1, max_size=5)
KIND_OF = {"{y:int}": (1, "[0-9]+"), "{x}": (2, "[^/]+"), "{z:path}": (3, ".+")}


def expression_of(route):
    """Return a regular expression for a route, and its rank. The lowest matching rank wins."""
    prefix = isinstance(route, Mount)
    parts = (route.path.rstrip("/") if prefix else route.path).split("/")[1:]
    read = [KIND_OF.get(part, (0, re.escape(part))) for part in parts]
    text = "".join(f"/{expression}" for _, expression in read)
    below = "(?:/.*)?" if prefix else ""
    return re.compile(text + below), [rank for rank, _ in read] + [4] * prefix


@settings(max_examples=100)
@given(some_routes, some_paths)
def test_a_match_follows_the_rules(routes, parts):
    valid = [route for route in routes if not [*route_faults([route])]]
    path = "/" + "/".join(parts)
    matching = [r for r in valid if expression_of(r)[0].fullmatch(path)]
    best = min(matching, key=lambda route: expression_of(route)[1], default=None)
    match = Router(valid).match(path)
    assert (match and match.route) is best


# Cost of a lookup


def count_calls(function, *arguments):
    """Return how many functions, including built-in ones, `function` calls."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # finalizers would be counted too
    sys.setprofile(profile)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@cache
def numbered_router(count):
    """Create a router with five routes for each number below `count`."""
    shapes = [
        "/{{a}}/s{0}",
        "/s{0}",
        "/s{0}/{{id:int}}",
        "/s{0}/{{name}}/edit",
        "/s{0}/x/{{r:path}}",
    ]
    return Router([page(shape.format(number)) for number in range(count) for shape in shapes])


@pytest.mark.parametrize("path", ["/s3", "/s3/7", "/s3/ada/edit", "/s3/x/a/b", "/q/s3", "/s3/q/no"])
def test_the_cost_of_a_lookup_does_not_grow_with_the_number_of_routes(path):
    few, thousands = numbered_router(4), numbered_router(1000)
    assert match_of(few, path) == match_of(thousands, path)
    assert count_calls(thousands.match, path) == count_calls(few.match, path) < 60


def test_the_cost_of_a_lookup_does_not_grow_with_the_length_of_the_path():
    router = numbered_router(4)
    assert count_calls(router.match, "/s3/x" + "/a" * 5000) == count_calls(router.match, "/s3/x/a")
    assert count_calls(router.match, "/" * 5000) < 60


# Trailing slashes


@pytest.mark.parametrize(
    ("route", "path", "other"),
    [
        ("/users", "/users/", "/users"),
        ("/users/", "/users", "/users/"),
        ("/users/{name}", "/users/ada/", "/users/ada"),
        ("/users/{name}/", "/users/ada", "/users/ada/"),
        ("/users", "/user/", None),
        ("/users", "/users//", None),
        ("/", "", "/"),
        ("/a", "/", None),
    ],
)
def test_slash_variant_returns_only_a_path_with_a_route(route, path, other):
    assert Router([page(route)]).slash_variant(path) == other


def test_both_slash_variants_of_a_path_can_have_routes():
    router = Router([page("/users"), page("/users/")])
    assert match_of(router, "/users")[0] == "/users"
    assert match_of(router, "/users/")[0] == "/users/"


# Errors


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/users", "/users"),
        ("/users/{id}", "/users/{name}"),
        ("/users/{id}", "/users/{name:str}"),
        ("/{a:int}/x", "/{b:int}/x"),
        ("/{a:path}", "/{b:path}"),
    ],
)
def test_two_routes_of_the_same_shape_are_an_error_that_names_both(first, second):
    old, new = page(first), endpoint(second)
    assert faults_of(old, new) == [
        (f"{new.where}: route {second!r} duplicates {first!r} at {old.where}; remove one of them.")
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/users/{id}", "/users/{id:int}"),
        ("/a/{x:date}", "/a/{x:uuid}"),
        ("/users", "/users/"),
        ("/a/{x:path}", "/a/{x}"),
    ],
)
def test_routes_of_different_shapes_can_coexist(first, second):
    assert faults_of(page(first), page(second)) == []


def test_two_mounts_at_the_same_path_are_an_error():
    (fault,) = faults_of(Mount("/m", any_args), Static("/m/", "files"))
    assert "route '/m/' duplicates '/m' at test_router.py:" in fault


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (page("users"), "route 'users': it does not begin with a slash; write it as '/…'."),
        (page(""), "route '': it does not begin with a slash"),
        (page(None), "route None: it does not begin with a slash"),
        (page("/a//b"), "route '/a//b': two slashes in a row; write one."),
        (page("/a/{id:itn}"), "converter 'itn'; did you mean 'int'?"),
        (page("/a/<int:id>"), "segment '<int:id>' has another framework's syntax; write {id:int}."),
        (page("/a/<id>"), "segment '<id>' has another framework's syntax; write {id}."),
        (page("/a/:id/b"), "segment ':id' has another framework's syntax; write {id}."),
        (page("/a/x{id}"), "malformed segment 'x{id}'; write plain text or a single {name}."),
        (page("/a/{id"), "malformed segment '{id'; write"),
        (page("/a/{1}"), "malformed segment '{1}'; write"),
        (page("/{a}/{a}"), "two parameters are named 'a'; rename one."),
        (page("/{a:path}/b"), "{a:path} is not the last segment; move it to the end."),
        (Mount("/{a:path}", any_args), "{a:path} is not the last segment"),
        (endpoint("/a", methods="GET"), "methods is 'GET'; expected a list like"),
        (endpoint("/a", methods=[]), "methods is []; expected a list like"),
        (endpoint("/a", methods=5), "methods is 5; expected a list like"),
        (endpoint("/a", methods=["GET", 5]), "methods is ['GET', 5]; expected a list like"),
        (endpoint("/a", methods=["GET POST"]), "methods is ['GET POST']; expected a list like"),
        (endpoint("/a", methods=["GET\r\nX: y"]), "expected a list like"),
        (
            Endpoint("/a", lambda request, session, db, id: {}),
            "the handler requires 'id'; add {id} to",
        ),
        (
            Endpoint("/{id}", lambda request, session, db: {}),
            "the handler does not accept 'id'; add",
        ),
    ],
)
def test_an_invalid_route_is_an_error(route, problem):
    (fault,) = faults_of(route)
    assert fault.startswith(f"{route.where}: route {route.path!r}: ")
    assert problem in fault


def test_a_parameter_with_a_default_need_not_be_in_the_path():
    def handler(request, session, db, *, id, page=1):
        return {}

    assert (
        faults_of(Endpoint("/{id:int}", handler), Endpoint("/{id:int}/{page:int}", handler)) == []
    )
