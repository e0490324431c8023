from functions.access import current_user
from functions.issues import errors_in, find_project, open_issue


def load_template_context(request, session, db, *, slug):
    return {"title": f"New issue in {find_project(db, slug).name}"}


def action_add(request, session, db, *, slug):
    title, body = request.form["title"].strip(), request.form["body"]
    if errors := errors_in(title, body):
        return {"_status": 422, "errors": errors, "values": request.form}
    issue = open_issue(db, find_project(db, slug), current_user(request, session, db), title, body)
    db.commit()
    return {"_redirect": issue.path}
