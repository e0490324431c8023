"""Makes the pictures of the README, in templates/guide/pictures: `python tests/pictures.py`."""

import tempfile
from pathlib import Path

from conftest import CHROMIUM, QUIET
from playwright.sync_api import sync_playwright
from processes import ROOT, environment, noventa, serving

PASSWORD = "a password for the pictures"
SIZE = {"width": 1200, "height": 675}


def main() -> None:
    """A new project as whoever has signed in sees it, and the map of it."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        made = noventa("new", "hello", cwd=place, env=environment(NOVENTA_ADMIN_PASSWORD=PASSWORD))
        assert made.returncode == 0, made.stderr
        with serving(Path(place, "hello")) as server:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            page = browser.new_page(viewport=SIZE, base_url=server.url)
            page.goto("/sign-in")
            page.get_by_label("Email address").fill("admin@example.com")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/account")
            page.goto("/users/2")
            for name, path in {"starter": "/", "map": "/_noventa/"}.items():
                page.goto(path)
                page.screenshot(path=ROOT / "templates" / "guide" / "pictures" / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    main()
