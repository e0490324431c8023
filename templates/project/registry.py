# registry.py: the whole application on one page
from noventa import Component, Endpoint, Page, Registry, Static

from components.account import account_logic
from components.navigation import navigation_logic
from components.sign_in import sign_in_logic, sign_in_models
from components.start import start_logic
from components.user import user_logic, user_models
from components.user_list import user_list_logic
from functions import guards, users_json
from migrations.seed import initial_users
from models import global_models
from pages.users import profile_logic

registry = Registry(
    components=[
        Component("account", logic=account_logic),
        Component("card"),
        Component("navigation", logic=navigation_logic),
        Component("pagination"),
        Component("sign_in", logic=sign_in_logic, models=[sign_in_models]),
        Component("start", logic=start_logic),
        Component("user", logic=user_logic, models=[user_models]),
        Component("user_list", logic=user_list_logic),
    ],
    models=[global_models],
    routes=[
        Page("/", "pages/index.html"),
        Page(
            "/users/{id:int}",
            "pages/users/profile.html",
            logic=profile_logic,
            guards=[guards.signed_in],
        ),
        Page("/sign-in", "pages/sign_in.html"),
        Page("/account", "pages/account.html", guards=[guards.signed_in]),
        Endpoint("/api/users.json", users_json.list_users),
        Static("/files", "files"),
    ],
    seeds=[initial_users.seed_users],
    errors={"4xx": "pages/error.html", "5xx": "pages/error.html"},
    # Findings hidden from the map: sign-in is public, and the settings are for later.
    dismissed=["open sign_in.sign_in", "unused system_settings"],
)
