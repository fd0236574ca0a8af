from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import made_up
import pytest

from mosaic_core.contract.errors import StoreError
from postprocess import structure
from postprocess.layout import Document, arrays_of, forecast_document, points_document
from postprocess.store_files import write_documents


@pytest.mark.parametrize("name", structure.template_documents())
def test_checked_in_template_is_what_the_code_makes(name: str) -> None:
    made = structure.template_documents()[name]
    assert structure.differences(json.loads(structure.checked_in(name)), made) == []


@pytest.mark.parametrize("rounding", ["default", "none"])
def test_the_guard_lets_our_stores_pass(rounding: str) -> None:
    spec = made_up.spec(rounding=rounding)
    for kind, build in (("forecast", forecast_document), ("points", points_document)):
        document = build(spec.sizes, rounding, spec.attributes())
        structure.guard(document, structure.template_name(kind, rounding), spec.open_sizes)


def test_the_guard_names_every_difference() -> None:
    spec = made_up.spec()
    document = copy.deepcopy(forecast_document(spec.sizes, "default", spec.attributes()))
    temperature = arrays_of(document)["temperature"]
    temperature["attributes"]["units"] = "degC"
    temperature["shape"][2] = 99
    temperature["codecs"] = []
    del document["attributes"]["run_id"]
    document["attributes"]["mood"] = "good"
    with pytest.raises(StoreError) as caught:
        structure.guard(document, "forecast", spec.open_sizes)
    text = str(caught.value)
    for part in ("units", "shape/2", "codecs", "run_id", "mood", "degC"):
        assert part in text
    assert "templates --write" in text


def test_an_unknown_template_is_an_error() -> None:
    with pytest.raises(StoreError, match="no template"):
        structure.guard({"attributes": {}}, "nothing", {})


def test_a_store_that_breaks_a_promise_is_not_written(tmp_path: Path) -> None:
    good = forecast_document(made_up.spec().sizes, "default", made_up.spec().attributes())
    write_documents(tmp_path / "good", good)
    damages: dict[str, Callable[[Document], object]] = {
        "temperature: chunks without": lambda arrays: inner(arrays["temperature"])["codecs"].pop(),
        "msl: chunks without": lambda arrays: inner(arrays["mean_sea_level_pressure"])[
            "index_codecs"
        ].pop(),
        "latitude: chunks without": lambda arrays: arrays["latitude"]["codecs"].pop(),
        "geopotential: gaps": lambda arrays: arrays["geopotential"].update(fill_value=0.0),
        "level: dims": lambda arrays: arrays["level"]["dimension_names"].pop(),
        "valid_time: no such": lambda arrays: arrays.pop("valid_time"),
    }
    for fault, damage in damages.items():
        document = copy.deepcopy(good)
        damage(arrays_of(document))
        with pytest.raises(StoreError, match=fault.replace("msl", "mean_sea_level_pressure")):
            write_documents(tmp_path / "bad", document)
        assert not (tmp_path / "bad").exists()


def inner(array: Document) -> Document:
    """Configuration of the sharding codec."""
    configuration: Document = array["codecs"][0]["configuration"]
    return configuration
