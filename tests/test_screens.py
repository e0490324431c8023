"""Every screen of the starter and the workbench in Chromium: light and dark, narrow and wide,
under a strict policy, checked for WCAG with axe-core, and operated by keyboard alone."""

import os
import re
import shutil

import pytest
from conftest import leave
from playwright.sync_api import expect
from processes import environment, from_npm, noventa, serving

pytestmark = pytest.mark.slow

PASSWORD = "a password for the screens"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
POLICY = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'"
BROKEN = """\
def load_template_context(request, session, db):
    prices, password = {"Ada Lovelace": 12, "Alan Turing": 20}, "of nobody"
    return {"price": prices["Ada Lovelac"]}
"""
ROUTES = """\
    routes=[
        Page("/broken", "pages/sign_in.html", logic=broken_logic),
        Page("/busy", "pages/sign_in.html", guards=[lambda request, session, db: {"_status": 500}]),
"""


def change(file, old, new):
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A new project with a page that fails, and an action that forgets to commit one name."""
    place = tmp_path_factory.mktemp("screens")
    ended = noventa("new", "hello", cwd=place, env=environment(NOVENTA_ADMIN_PASSWORD=PASSWORD))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    root = place / "hello"
    (root / "secret.key").write_text("a key for the screens, 32 characters or more")
    (root / "pages" / "broken_logic.py").write_text(BROKEN)
    change(root / "config.yaml", "debug: true", f'debug: true\nheaders: {{CSP: "{POLICY}"}}')
    change(root / "config.yaml", "CSP", "Content-Security-Policy")
    change(root / "registry.py", "    routes=[\n", ROUTES)
    change(
        root / "registry.py", "from pages.users", "from pages import broken_logic\nfrom pages.users"
    )
    change(root / "functions" / "passwords.py", "2**17", "2**4")  # fast hashes suffice for tests
    logic = root / "components" / "user" / "user_logic.py"
    change(logic, "    db.commit()", '    if name != "Countess Lovelace":\n        db.commit()')
    return root


@pytest.fixture(scope="module")
def debug(project):
    with serving(project) as server:
        yield server.url


@pytest.fixture(scope="module")
def production(project):
    """The same project in production and without its own error pages."""
    root = shutil.copytree(project, project.parent / "production")
    change(root / "registry.py", "    errors=", "    errors={} and ")
    with serving(root, env=environment(NOVENTA_DEBUG="false")) as server:
        yield server.url


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    folder = from_npm(tmp_path_factory.mktemp("npm"), "axe-core@4")
    return (folder / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def context(chromium, debug, axe):
    context = chromium.new_context(base_url=debug)
    context.add_init_script(axe)
    yield context
    context.close()


@pytest.fixture
def page(context):
    """A page without a session. At the end the browser must not have reported any problem."""
    context.clear_cookies()
    page, complaints = context.new_page(), []

    def note_console(message):  # the browser also reports pages that are meant to be errors
        if not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    def note_failed_response(response):
        if response.status >= 400 and not response.request.is_navigation_request():
            complaints.append(f"{response.url}: {response.status}")

    page.on("console", note_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", note_failed_response)
    yield page
    page.close()
    assert complaints == []


def send(page, **fields):
    for label, text in fields.items():
        page.get_by_label(label).fill(text)
    leave(page, page.locator("main button").first)


def sign_in(page, password=PASSWORD):
    page.goto("/sign-in")
    send(page, Email="admin@example.com", Password=password)


def show_account(page):
    sign_in(page)
    page.wait_for_url("**/account")


def rename(page, name):
    show_account(page)
    page.goto("/users/1")
    send(page, Name=name)


def show_other(page):
    show_account(page)
    page.goto("/users/2")


def show_missing_user(page):
    show_account(page)
    page.goto("/users/999")


def show_request(page):
    page.goto("/")
    leave(page, page.locator(".noventa"))


def show_requests(page):
    page.goto("/")
    page.goto("/_noventa/requests")


def show_notice(page):
    rename(page, "Countess Lovelace")
    page.locator("#noventa-notice").wait_for()


def show_refusal(page):
    page.goto("/sign-in")
    page.locator("main [name=_ticket]").evaluate("field => field.remove()")
    send(page, Email="admin@example.com", Password="x")


# Screens by name: how to reach them, and their titles.
SCREENS = {
    "home": (lambda page: page.goto("/"), "People · hello"),
    "sign-in": (lambda page: page.goto("/sign-in"), "Sign in · hello"),
    "sign-in-refused": (lambda page: sign_in(page, "wrong"), "Sign in · hello"),
    "account": (show_account, "Account · hello"),
    "profile": (lambda page: rename(page, "Admin"), "Admin · hello"),
    "profile-refused": (lambda page: rename(page, " "), "Admin · hello"),
    "other": (show_other, "Ada Lovelace · hello"),
    "own-404": (show_missing_user, "Not Found · hello"),
    "own-500": (lambda page: page.goto("/busy"), "Internal Server Error · hello"),
    "notice": (show_notice, "Admin · hello"),
    "map": (lambda page: page.goto("/_noventa/"), "Map · hello"),
    "requests": (show_requests, "Requests · hello"),
    "request": (show_request, r"GET /, [\d.]+ ms · hello"),
    "guide": (lambda page: page.goto("/_noventa/guide"), "Guide · hello"),
    "chapter": (lambda page: page.goto("/_noventa/guide/pages"), "Pages and components · hello"),
    "error": (lambda page: page.goto("/broken"), "KeyError: 'Ada Lovelac' · GET /broken · hello"),
    "status": (lambda page: page.goto("/usres/7"), "404 Not Found · GET /usres/7 · hello"),
    "refusal": (show_refusal, "400 Bad Request · POST /sign-in · hello"),
}
PLAIN = {
    "plain-404": ("/nothing", "404 Not Found · production"),
    "plain-500": ("/broken", "500 Internal Server Error · production"),
}


def show(page, name):
    """Open a screen and wait for its title."""
    go, title = SCREENS[name]
    go(page)
    expect(page).to_have_title(re.compile(f"^{title}$"))


CHECK = """async rules => {
    const options = {runOnly: rules, resultTypes: ["violations"], preload: false};
    const found = await axe.run(document, options);
    return found.violations.map(v => [v.id, v.help, ...v.nodes.map(node => node.html)]);
}"""


def check(page, name):
    """Check a page in each colour scheme and width, and take screenshots if they are kept."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1440, 768, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CHECK, RULES) == []
            if folder := os.environ.get("NOVENTA_ARTIFACTS"):
                page.screenshot(path=f"{folder}/{name}-{scheme}-{width}.png", full_page=True)


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_accessible(page, name):
    show(page, name)
    check(page, name)


@pytest.mark.parametrize("name", PLAIN)
def test_a_built_in_production_page_is_accessible(page, production, name):
    path, title = PLAIN[name]
    page.goto(production + path)
    assert page.title() == title
    check(page, name)


def test_the_startup_error_page_is_accessible(page, project):
    root = shutil.copytree(project, project.parent / "faulty")
    (root / "pages" / "index.html").write_text("{% if %}")
    with serving(root, "--reload") as server:
        page.goto(server.url)
        assert page.title() == "faulty does not start"
        check(page, "fault")


KINDS = "a[href], button, input, textarea, summary, [tabindex]"
FOCUSABLE = """kinds => [...document.querySelectorAll(kinds)]
    .filter(element => element.type != "hidden" && element.checkVisibility()).length"""
FOCUSED = """() => {
    const element = document.activeElement, all = [...document.querySelectorAll("*")];
    const {left, right} = element.getBoundingClientRect(), style = getComputedStyle(element);
    return {position: all.indexOf(element), visible: right > 0 && left < innerWidth,
        marked: style.outlineStyle != "none" && style.outlineWidth != "0px"};
}"""


@pytest.mark.parametrize(
    "name", ["home", "profile", "account", "map", "request", "error", "notice"]
)
def test_the_keyboard_reaches_every_control_in_reading_order(page, name):
    show(page, name)
    page.evaluate("document.activeElement.blur()")
    focused = []
    for _ in range(page.evaluate(FOCUSABLE, KINDS)):
        page.keyboard.press("Tab")
        focused.append(page.evaluate(FOCUSED))
    positions = [element["position"] for element in focused]
    assert positions == sorted(set(positions))
    assert all(element["visible"] and element["marked"] for element in focused)


@pytest.mark.parametrize("name", ["home", "map"])
def test_the_first_tab_stop_is_a_skip_link(page, name):
    show(page, name)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


@pytest.mark.parametrize(
    ("name", "label"), [("sign-in-refused", "Password"), ("profile-refused", "Name")]
)
def test_the_invalid_field_has_the_focus(page, name, label):
    show(page, name)
    expect(page.get_by_label(label)).to_be_focused()
    assert page.get_by_label(label).get_attribute("aria-invalid") == "true"


def test_the_notice_is_visible_at_once_in_dark_mode(page):
    page.set_viewport_size({"width": 360, "height": 500})
    page.emulate_media(color_scheme="dark")
    show_notice(page)
    box = page.locator("#noventa-notice").bounding_box()
    assert 0 < box["y"] < 500 >= box["y"] + box["height"]
    background = "notice => getComputedStyle(notice).backgroundColor"
    assert page.locator("#noventa-notice").evaluate(background) == "rgb(28, 32, 37)"


def test_forced_colours_and_print_keep_the_essentials(page):
    page.goto("/")
    page.emulate_media(forced_colors="active")
    borders = page.locator(".site-header nav a").evaluate_all(
        "links => links.map(link => getComputedStyle(link).borderBottomColor)"
    )
    assert len(set(borders)) == 2  # the current page is marked
    page.emulate_media(forced_colors="none", media="print")
    assert not page.locator(".site-header nav, .noventa, .skip").filter(visible=True).count()
    assert page.get_by_role("heading", name="People").is_visible()
