"""The forecaster's page over a published run: everything it asks for is there, and it draws."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import httpx
import pytest

from flows.demo import CYCLE
from postprocess.viewer.serve import serving
from postprocess.viewer.site import site
from tests.browser import browser, program
from tests.factories import DemoFolder


@pytest.fixture(scope="module")
def page(finished: DemoFolder) -> Iterator[str]:
    with serving(finished.published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.e2e
def test_every_file_of_the_page_is_served_with_its_type(page: str) -> None:
    types = {
        "html": "text/html",
        "js": "text/javascript",
        "css": "text/css",
        "json": "application/json",
    }
    for key, content in site().items():
        answer = httpx.get(f"{page}/{key}")
        assert answer.content == content
        assert answer.headers["content-type"].startswith(types[key.rsplit(".")[-1]])
    assert httpx.get(f"{page}/cycles/").status_code == 404


@pytest.mark.e2e
def test_what_the_page_draws_with_is_published(page: str) -> None:
    entry = httpx.get(f"{page}/index.json").json()["cycles"][0]
    atlas = httpx.get(f"{page}/{entry['href']}/atlas/atlas.json").json()
    assert {field["statistic"] for field in atlas["fields"]} == {"mean", "std"}
    for field in atlas["fields"]:
        answer = httpx.get(f"{page}/{entry['href']}/atlas/{field['file']}")
        assert answer.headers["content-type"] == "image/webp"
    assert not [href for href in entry["plots"] if "atlas" in href]
    assert httpx.get(f"{page}/{entry['href']}/tracks.geojson").status_code == 200


@pytest.mark.e2e
@pytest.mark.skipif(program() is None, reason="no Chromium: the tests above ask for every file")
def test_a_forecaster_sees_a_map_reads_values_and_steps_through_the_leads(page: str) -> None:
    with browser(page, str(program())) as shown:
        faults: list[str] = []
        shown.page.on("pageerror", lambda error: faults.append(str(error)))
        shown.open("/index.html", CYCLE.id, "not weather")
        screen = shown.page
        screen.locator("#when", has_text="+0 h").wait_for()
        assert "late, the next one should be here" in screen.locator("#state").inner_text()
        before = screen.evaluate("document.getElementById('map').toDataURL()")
        screen.locator("#map").focus()
        screen.keyboard.press("ArrowRight")
        screen.locator("#when", has_text="+6 h").wait_for()
        assert screen.evaluate("document.getElementById('map').toDataURL()") != before
        screen.locator("#map").click(position={"x": 480, "y": 242})
        assert re.search(r"at 0° N 0° [EW], hPa", screen.locator("#place").inner_text())
        assert screen.locator("#series").is_visible()
        screen.locator("#map").hover(position={"x": 480, "y": 242})
        assert "±" in screen.locator("#reading").inner_text()
        screen.locator("#field").select_option("geopotential 500 hPa")
        screen.locator("#title", has_text="gpdm").wait_for()
        assert faults == []
        assert shown.hosts <= {page.removeprefix("http://"), ""}
