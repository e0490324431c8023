"""Takes the README's picture, in templates/guide/pictures: `python tests/pictures.py`."""

import tempfile
from pathlib import Path

from conftest import CHROMIUM, QUIET
from playwright.sync_api import sync_playwright
from processes import ROOT, environment, noventa, serving

PASSWORD = "a password for the pictures"
SIZE = {"width": 1000, "height": 620}


def main() -> None:
    """Changes a name in a new project whose action has lost its `db.commit()`."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        made = noventa("new", "hello", cwd=place, env=environment(NOVENTA_ADMIN_PASSWORD=PASSWORD))
        assert made.returncode == 0, made.stderr
        logic = Path(place, "hello", "components", "user", "user_logic.py")
        logic.write_text(logic.read_text("utf-8").replace("    db.commit()\n", ""), "utf-8")
        with serving(Path(place, "hello")) as server:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            page = browser.new_page(viewport=SIZE, base_url=server.url, device_scale_factor=1.5)
            page.goto("/sign-in")
            page.get_by_label("Email address").fill("admin@example.com")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/account")
            page.goto("/users/1")
            page.get_by_role("textbox").first.fill("Ada Lovelace")
            page.get_by_role("button", name="Save").click()
            page.get_by_text("Not saved").first.wait_for()
            page.screenshot(path=ROOT / "templates" / "guide" / "pictures" / "not_saved.png")
            browser.close()


if __name__ == "__main__":
    main()
