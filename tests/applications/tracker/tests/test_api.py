import pytest
from conftest import press

ISSUES = "/api/projects/engine/issues"


@pytest.fixture
def token(visit):
    """`token(user)` returns a header with a token that the user created on the account page."""

    def create(user):
        page = press("Create a token", visit(user).get("/account"), status=200)
        return {"Authorization": f"Bearer {page.html.code.text}"}

    return create


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer guessed", "Basic YTpi", 'Digest a="b"'])
def test_the_api_requires_a_token(visit, issue, header):
    response = visit().get(ISSUES, headers={"Authorization": header}, status=401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == "A token is required."


def test_a_token_reads_issues(visit, grace, token, issue):
    response = visit().get(f"{ISSUES}?q=halts", headers=token(grace))
    assert response.json == [
        {
            "number": 1,
            "title": "It halts",
            "body": "After the\n<seventh> number.",
            "open": True,
            "author": "Ada",
            "labels": [],
            "created_at": issue.created_at.isoformat(),
        }
    ]
    assert visit().get(f"{ISSUES}?page=2", headers=token(grace)).json == []


def test_a_members_token_can_write_from_another_origin(visit, ada, token, project):
    headers = token(ada) | {"Sec-Fetch-Site": "cross-site"}
    response = visit().post_json(ISSUES, {"title": "By a script"}, headers=headers, status=201)
    assert (response.json["number"], response.json["author"]) == (1, "Ada")


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({}, "title"),
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": 7}, "title"),
        ({"title": "x", "body": None}, "body"),
        ([], "title"),
    ],
)
def test_an_invalid_issue_is_refused(visit, ada, token, project, data, wrong):
    response = visit().post_json(ISSUES, data, headers=token(ada), status=422)
    assert [*response.json["errors"]] == [wrong]


def test_only_members_can_write(visit, grace, token, project):
    visit().post_json(ISSUES, {"title": "No"}, headers=token(grace), status=403)


def test_a_new_token_replaces_the_previous_one(visit, grace, token, project):
    first = token(grace)
    token(grace)
    visit().get(ISSUES, headers=first, status=401)
