def load_template_context(request, session, db):
    signed_in = "user_id" in session
    return {
        "here": request.path_info,
        "links": [
            ("/", "People"),
            ("/account", "Account") if signed_in else ("/sign-in", "Sign in"),
        ],
    }
