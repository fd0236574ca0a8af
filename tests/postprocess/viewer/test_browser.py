"""The page in a browser while things go wrong: what it shows is always all of one cycle."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Page, Route

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.viewer.atlas import write_atlas
from postprocess.viewer.serve import serving
from tests.browser import Browser, browser, program
from tests.postprocess.scores.worlds import publish_forecast

OLD, NEW = Cycle.parse("2026-11-23T00Z"), Cycle.parse("2026-11-23T06Z")
NOW = dt.datetime(2026, 11, 23, 15, tzinfo=dt.UTC)
PRESSURE = {OLD: 1010, NEW: 1020}  # hPa, everywhere

pytestmark = pytest.mark.skipif(program() is None, reason="needs an installed Chromium")


def fields(cycle: Cycle) -> xr.Dataset:
    """Pressure and 2 m temperature of a cycle, the same everywhere."""
    dims = ("lead_time", "latitude", "longitude")
    flat = np.ones((3, 121, 240), np.float32)
    pressure = {"mean": 100 * PRESSURE[cycle] * flat, "std": 50 * flat}
    warmth = {"mean": 280 * flat, "std": flat}
    arrays = {f"mean_sea_level_pressure_{name}": (dims, values, {"units": "Pa"})
              for name, values in pressure.items()}  # fmt: skip
    arrays |= {f"2m_temperature_{name}": (dims, values, {"units": "K"})
               for name, values in warmth.items()}  # fmt: skip
    leads = np.array([0, 6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    coords = {"lead_time": leads, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset(arrays, coords)


@pytest.fixture(scope="module")
def two_cycles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published root with two cycles."""
    root = tmp_path_factory.mktemp("root")
    for cycle in (OLD, NEW):
        folder = tmp_path_factory.mktemp("run")
        write_atlas(fields(cycle), folder)
        (folder / "tracks.geojson").write_text('{"type":"FeatureCollection","features":[]}')
        publish_forecast(str(root), cycle, folder)
    return root


@pytest.fixture
def root(two_cycles: Path, tmp_path: Path) -> Path:
    """The same, for one test to change."""
    return Path(shutil.copytree(two_cycles, tmp_path / "root", copy_function=shutil.copy))


@pytest.fixture
def shown(root: Path) -> Iterator[Browser]:
    """A browser, nothing open in it; the page must not fail unseen."""
    with serving(root) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser(f"http://127.0.0.1:{server.server_port}", str(program())) as window:
            faults: list[str] = []
            window.page.on("pageerror", lambda error: faults.append(str(error)))
            window.page.set_default_timeout(15_000)
            window.page.clock.install(time=NOW)
            yield window
        server.shutdown()
    assert faults == []


def opened(window: Browser) -> Page:
    window.open("/index.html#lead=1", "9 h old, 4 healthy members")
    wait_for(window.page, "when", "+6 h, valid 2026-11-23T12Z")
    return window.page


def wait_for(page: Page, name: str, text: str) -> None:
    page.locator(f"#{name}", has_text=text).wait_for()


def rewrite(path: Path, content: object) -> None:
    """Change a file so that a reader, who compares times to the second, is sure to notice."""
    path.write_text(json.dumps(content))
    os.utime(path, (path.stat().st_mtime + 60,) * 2)


def step_and_return(page: Page) -> None:
    """Have the map drawn again."""
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")


def told(page: Page) -> tuple[str, str, str, str]:
    """Chosen cycle, cycle in the address, valid time and pressure under the pointer."""
    page.locator("#map").hover(position={"x": 10, "y": 10})
    page.locator("#map").hover(position={"x": 480, "y": 242})
    when, reading = page.locator("#when").inner_text(), page.locator("#reading").inner_text()
    found = re.search(r"cycle=([\w-]+)", page.url)
    assert found is not None
    value = reading.split(": ")[1].split(" ±")[0]
    return page.locator("#cycle").input_value(), found[1], when.split()[-1], value


# What the page does with a picture when it has come is done after this.
DECODED = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  for (let i = 0; i < 3; i++) await new Promise((next) => setTimeout(next));
}"""
OLD_SHOWN = (OLD.label, OLD.label, "2026-11-23T06Z", "1010")
NEW_SHOWN = (NEW.label, NEW.label, "2026-11-23T12Z", "1020")


@pytest.mark.parametrize("missing", ["atlas.json", "*pressure*mean*.webp"])
def test_a_cycle_that_cannot_be_read_leaves_the_shown_one(shown: Browser, missing: str) -> None:
    page = opened(shown)
    assert told(page) == NEW_SHOWN
    page.route(f"**/{OLD.id}/**/{missing}", lambda route: route.fulfill(status=503))
    page.locator("#cycle").select_option(OLD.label)
    wait_for(page, "state", f"of {OLD.label}: ")
    assert f"of {NEW.label} is still shown" in page.locator("#state").inner_text()
    step_and_return(page)
    assert told(page) == NEW_SHOWN
    page.unroute_all()
    page.locator("#cycle").select_option(OLD.label)
    wait_for(page, "when", "T06Z")
    wait_for(page, "state", "healthy members")
    assert told(page) == OLD_SHOWN


def test_while_a_cycle_loads_and_of_two_choices_the_last(shown: Browser) -> None:
    page = opened(shown)
    held: list[Route] = []
    page.route(f"**/{OLD.id}/**/atlas.json", lambda route: held.append(route))
    with page.expect_request(f"**/{OLD.id}/**/atlas.json"):
        page.locator("#cycle").select_option(OLD.label)
    step_and_return(page)
    assert told(page)[1:] == NEW_SHOWN[1:]
    page.locator("#cycle").select_option(NEW.label)
    page.locator("#field").select_option("2m temperature")
    wait_for(page, "title", "2m temperature")
    with page.expect_response(f"**/{OLD.id}/**/*std*.webp") as late:
        held[0].continue_()
    page.evaluate(DECODED, late.value.url)
    step_and_return(page)
    assert told(page)[:3] == NEW_SHOWN[:3]
    assert page.locator("#title").inner_text().startswith("2m temperature")


def test_controls_work_after_a_first_cycle_that_cannot_be_read(shown: Browser) -> None:
    page = shown.page
    page.route(f"**/{NEW.id}/**/atlas.json", lambda route: route.fulfill(status=404))
    shown.open("/index.html", f"cannot show {NEW.label}")
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#tracks").click()
    page.locator("#cycle").select_option(OLD.label)
    wait_for(page, "when", "+0 h, valid 2026-11-23T00Z")
    wait_for(page, "state", "healthy members")


def test_an_open_page_becomes_late_and_finds_what_is_new(shown: Browser, root: Path) -> None:
    page = opened(shown)
    page.clock.fast_forward("06:30:00")
    wait_for(page, "state", "late, the next one should be here")
    page.route("**/index.json", lambda route: route.fulfill(status=503))
    page.clock.fast_forward("05:01")
    wait_for(page, "state", "the catalogue cannot be read")
    page.unroute_all()
    newer = json.loads((root / "index.json").read_text())
    newer["cycles"].insert(
        0, newer["cycles"][0] | {"cycle": "2026-11-23T12Z", "init_time": "2026-11-23T12:00:00Z",
                                 "href": "elsewhere"}
    )  # fmt: skip
    rewrite(root / "index.json", newer)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(page, "state", "newest cycle 2026-11-23T12Z, 10 h old, 4 healthy members")
    assert page.locator("#cycle option").all_inner_texts() == [
        "2026-11-23T12Z",
        NEW.label,
        OLD.label,
    ]
    assert told(page) == NEW_SHOWN


def test_a_store_that_was_removed_is_not_offered(shown: Browser, root: Path) -> None:
    page = opened(shown)
    assert "forecast.zarr" in page.locator("#open").inner_text()
    assert not page.locator("#gone").is_visible()
    index = json.loads((root / "index.json").read_text())
    for store in index["cycles"][0]["stores"]:
        store["available"] = store["name"] != "forecast.zarr"
    rewrite(root / "index.json", index)
    page.clock.fast_forward("05:01")
    page.locator("#gone").wait_for()
    assert not page.locator("#open").is_visible()


def test_tracks_that_cannot_be_read_are_not_called_none(shown: Browser) -> None:
    page = opened(shown)
    assert not page.locator("#untracked").is_visible()
    page.route(f"**/{OLD.id}/**/tracks.geojson", lambda route: route.fulfill(status=503))
    page.locator("#cycle").select_option(OLD.label)
    page.get_by_text("tracks could not be read").wait_for()
    assert told(page) == OLD_SHOWN
    page.locator("#cycle").select_option(NEW.label)
    page.locator("#untracked").wait_for(state="hidden")
