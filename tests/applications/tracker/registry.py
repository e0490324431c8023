# registry.py: the whole application on one page
from noventa import Component, Endpoint, Page, Registry, Static

from components.attachments import attachment_models, attachments_logic
from components.comment import comment_logic, comment_models
from components.issue_list import issue_list_logic
from components.members import members_logic
from components.navigation import navigation_logic
from components.triage import triage_logic
from functions import access, api, downloads
from migrations.seed import first_rows
from models import issue_models, project_models, user_models
from pages import (
    account_logic,
    admin_logic,
    index_logic,
    issue_logic,
    new_issue_logic,
    project_logic,
    sign_in_logic,
)

registry = Registry(
    components=[
        Component(
            "attachments",
            logic=attachments_logic,
            models=[attachment_models],
            guard=access.member_of_issue,
        ),
        Component("comment", logic=comment_logic, models=[comment_models]),
        Component("issue_list", logic=issue_list_logic),
        Component("members", logic=members_logic),
        Component("navigation", logic=navigation_logic),
        Component("triage", logic=triage_logic),
    ],
    models=[issue_models, project_models, user_models],
    routes=[
        Page("/", "pages/index.html", logic=index_logic),
        Page("/sign-in", "pages/sign_in.html", logic=sign_in_logic),
        Endpoint("/sign-out", access.sign_out, methods=["POST"]),
        Page("/account", "pages/account.html", logic=account_logic, guards=[access.signed_in]),
        Page("/admin", "pages/admin.html", logic=admin_logic, guards=[access.admin]),
        Page("/projects/{slug}", "pages/project.html", logic=project_logic),
        Page(
            "/projects/{slug}/new",
            "pages/new_issue.html",
            logic=new_issue_logic,
            guards=[access.signed_in, access.member],
        ),
        Page(
            "/projects/{slug}/{number:int}",
            "pages/issue.html",
            logic=issue_logic,
            limits={"body": attachment_models.MAX_SIZE},
        ),
        Endpoint("/projects/{slug}/issues.csv", downloads.issues_csv),
        Endpoint("/attachments/{id:int}", downloads.attachment, guards=[access.signed_in]),
        Endpoint("/api/projects/{slug}/issues", api.list_issues, guards=[access.bearer]),
        Endpoint(
            "/api/projects/{slug}/issues",
            api.add_issue,
            methods=["POST"],
            guards=[access.bearer],
            cross_origin=True,
        ),
        Static("/files", "files"),
    ],
    seeds=[first_rows.seed_first_rows],
    errors={"4xx": "pages/error.html", "5xx": "pages/error.html"},
)
