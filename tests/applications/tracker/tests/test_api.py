import pytest
from conftest import press

ISSUES = "/api/projects/engine/issues"


@pytest.fixture
def token(visit):
    """`token(user)`: the header with a token that the user has made on their page."""

    def make(user):
        page = press("Make a token", visit(user).get("/account"), status=200)
        return {"Authorization": f"Bearer {page.html.code.text}"}

    return make


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer guessed", "Basic YTpi", 'Digest a="b"'])
def test_without_a_token_nothing_is_told(visit, issue, sent):
    answer = visit().get(ISSUES, headers={"Authorization": sent}, status=401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.content_type == "application/problem+json"
    assert answer.json["detail"] == "Send a token."


def test_a_token_reads_issues(visit, grace, token, issue):
    answer = visit().get(f"{ISSUES}?q=halts", headers=token(grace))
    assert answer.json == [
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


def test_a_members_token_writes_from_anywhere(visit, ada, token, project):
    elsewhere = token(ada) | {"Sec-Fetch-Site": "cross-site"}
    answer = visit().post_json(ISSUES, {"title": "By a script"}, headers=elsewhere, status=201)
    assert (answer.json["number"], answer.json["author"]) == (1, "Ada")


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({}, "title"),
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": 7}, "title"),
        ({"title": "x", "body": None}, "body"),
        ([], "title"),
    ],
)
def test_what_is_no_issue_is_refused(visit, ada, token, project, sent, wrong):
    answer = visit().post_json(ISSUES, sent, headers=token(ada), status=422)
    assert [*answer.json["errors"]] == [wrong]


def test_who_is_no_member_writes_nothing(visit, grace, token, project):
    visit().post_json(ISSUES, {"title": "No"}, headers=token(grace), status=403)


def test_a_new_token_ends_the_one_before(visit, grace, token, project):
    first = token(grace)
    token(grace)
    visit().get(ISSUES, headers=first, status=401)
