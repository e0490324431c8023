"""First steps for developers, shown in debug only."""


def load_template_context(request, session, db):
    config = request.app.config
    return {
        "name": config.name,
        "map": "/_noventa/" if config["debug"] else None,
        "user_id": session.get("user_id"),
    }
