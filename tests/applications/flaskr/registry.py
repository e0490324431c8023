# registry.py: the whole application on one page
from noventa import Component, Endpoint, Page, Registry, Static

from components.post import post_logic, post_models
from components.user import user_logic, user_models
from functions import accounts
from migrations.seed import welcome
from pages import log_in_logic, posts_logic, register_logic, write_logic

signed_in = [user_logic.signed_in]

registry = Registry(
    components=[
        Component("user", logic=user_logic, models=[user_models]),
        Component("post", logic=post_logic, models=[post_models]),
    ],
    routes=[
        Page("/", "pages/posts.html", logic=posts_logic),
        Page("/posts/new", "pages/write.html", logic=write_logic, guards=signed_in),
        Page("/posts/{id:int}", "pages/write.html", logic=write_logic, guards=signed_in),
        Page("/register", "pages/register.html", logic=register_logic),
        Page("/log-in", "pages/log_in.html", logic=log_in_logic),
        Endpoint("/log-out", accounts.log_out, methods=["POST"]),
        Static("/files", "files"),
    ],
    seeds=[welcome.seed_welcome],
    errors={"4xx": "pages/error.html", "5xx": "pages/error.html"},
)
