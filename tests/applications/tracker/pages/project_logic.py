from functions.access import current_user, is_member
from functions.issues import find_project


def load_template_context(request, session, db, *, slug):
    project = find_project(db, slug)
    return {
        "title": project.name,
        "project": project,
        "values": {"q": request.args.get("q", "")},
        "may_add": is_member(current_user(request, session, db), project),
    }
