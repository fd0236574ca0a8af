"""An installed Chromium, driven over the pages of a local server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 1280, "height": 900}


def program() -> str | None:
    """The browser of this machine, if it has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Browser:
    """One page. `hosts` is every host that was asked for anything."""

    page: Page
    root: str
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str, *texts: str) -> None:
        """Show a page and wait until it shows each of the texts."""
        self.page.goto(self.root + path)
        for text in texts:
            self.page.get_by_text(text, exact=False).first.wait_for(timeout=60_000)

    def pictures(self) -> list[int]:
        """Widths in pixels of the embedded pictures that the page has drawn."""
        found = self.page.locator("img[src^='data:image']")
        found.first.wait_for(timeout=60_000)
        widths: list[int] = found.evaluate_all("all => all.map(one => one.naturalWidth)")
        return widths

    def keep(self, path: Path) -> None:
        """A screenshot."""
        self.page.screenshot(path=path)


@contextmanager
def browser(root: str, where: str) -> Iterator[Browser]:
    """The browser `where` over the server at `root`; what else it asks for is noted."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        shown = Browser(started.new_page(viewport=SIZE), root)  # type: ignore[arg-type]
        shown.page.on("request", lambda request: shown.hosts.add(urlsplit(request.url).netloc))
        try:
            yield shown
        finally:
            started.close()
