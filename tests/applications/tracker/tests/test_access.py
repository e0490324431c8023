import pytest
from conftest import PASSWORD, press
from sqlalchemy import select

from models.issue_models import Label
from models.project_models import Project


def test_signing_in_leads_to_the_requested_page(visit, ada, project):
    client = visit()
    page = client.get("/projects/engine/new", status=303).follow()
    assert "Please sign in first." in page
    response = press("Sign in", page, email=ada.email, password=PASSWORD)
    assert response.follow().request.path == "/projects/engine/new"


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "ada@tracker.test", "password": "a guess"},
        {"email": "nobody@tracker.test", "password": PASSWORD},
    ],
)
def test_a_failed_sign_in_does_not_reveal_which_accounts_exist(visit, grace, wrong):
    page = press("Sign in", visit().get("/sign-in"), status=422, **wrong)
    assert "Unknown address or wrong password." in page
    assert page.form["email"].value == wrong["email"]


@pytest.mark.parametrize(("path", "status"), [("/account", 200), ("/nowhere", 404)])
def test_a_user_can_sign_out_on_any_page(visit, grace, path, status):
    client = visit(grace)
    page = press("Sign out", client.get(path, status=status)).follow()
    assert "You have signed out." in page
    client.get("/account", status=303)


def test_only_administrators_can_use_the_administration(visit, grace, admin):
    for client in visit(), visit(grace):
        page = client.get("/admin", status=403)
        assert page.html.h1.text == "Forbidden"
        assert "This page is only for administrators." in page
    assert "Administration" in visit(admin).get("/")
    assert visit(admin).get("/admin").html.h1.text == "Administration"


def test_an_administrator_adds_projects_labels_and_members(visit, db, admin, grace):
    page = visit(admin).get("/admin")
    page = press("Add project", page, slug="Loom", name="The Loom").follow()
    page = press("Add label", page, label="urgent").follow()
    page = press("Add member", page, email=grace.email).follow()
    assert db.scalars(select(Project.slug)).all() == ["loom"]
    assert db.scalars(select(Label.name)).all() == ["urgent"]
    assert "Grace" in page.html.main.text


@pytest.mark.parametrize(
    ("button", "fields"),
    [
        ("Add project", {"slug": "engine", "name": "Again"}),
        ("Add project", {"slug": "../", "name": "Odd"}),
        ("Add label", {"label": "bug"}),
        ("Add label", {"label": "much too long to be a label, is it not"}),
        ("Add member", {"email": "nobody@tracker.test"}),
    ],
)
def test_duplicate_or_invalid_entries_are_refused(visit, db, admin, project, button, fields):
    db.add(Project(slug="loom", name="The Loom"))
    db.commit()
    page = press(button, visit(admin).get("/admin"), status=422, **fields)
    (wrong,) = page.html.select("[aria-invalid]")  # one, although two forms have an `email`
    assert wrong["name"] in fields
    assert wrong["value"] == fields[wrong["name"]]
