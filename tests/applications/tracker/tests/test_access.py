import pytest
from conftest import PASSWORD, press
from sqlalchemy import select

from models.issue_models import Label
from models.project_models import Project


def test_who_signs_in_comes_to_where_they_wanted(visit, ada, project):
    client = visit()
    page = client.get("/projects/engine/new", status=303).follow()
    assert "Please sign in first." in page
    answer = press("Sign in", page, email=ada.email, password=PASSWORD)
    assert answer.follow().request.path == "/projects/engine/new"


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "ada@tracker.test", "password": "a guess"},
        {"email": "nobody@tracker.test", "password": PASSWORD},
    ],
)
def test_a_failed_sign_in_does_not_tell_why(visit, grace, wrong):
    page = press("Sign in", visit().get("/sign-in"), status=422, **wrong)
    assert "This address and password do not belong together." in page
    assert page.form["email"].value == wrong["email"]


@pytest.mark.parametrize(("path", "status"), [("/account", 200), ("/nowhere", 404)])
def test_who_signs_out_on_any_page_is_signed_out(visit, grace, path, status):
    client = visit(grace)
    page = press("Sign out", client.get(path, status=status)).follow()
    assert "You have signed out." in page
    client.get("/account", status=303)


def test_administration_is_for_administrators(visit, grace, admin):
    for client in visit(), visit(grace):
        page = client.get("/admin", status=403)
        assert page.html.h1.text == "Forbidden"
        assert "This page is for administrators." in page
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
def test_what_is_there_already_or_makes_no_sense_is_refused(
    visit, db, admin, project, button, fields
):
    db.add(Project(slug="loom", name="The Loom"))
    db.commit()
    page = press(button, visit(admin).get("/admin"), status=422, **fields)
    (wrong,) = page.html.select("[aria-invalid]")  # also of two forms that are alike
    assert wrong["name"] in fields
    assert wrong["value"] == fields[wrong["name"]]
