"""Product stores keep the structure that was reviewed."""

from __future__ import annotations

import json

import pytest

from mosaic_core.contract.errors import StoreError
from postprocess.layout import Document, arrays_of, group_document
from postprocess.products.outlines import made_outlines
from postprocess.structure import PRODUCTS, checked_in, differences, guard_product, outline

STORES = {"ensemble", "probabilities", "meteograms", "spectra", "scalar_spectra",
          "cyclone_probability", "plumes"}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Document]:
    return made_outlines()


def test_checked_in_outlines_are_what_the_products_look_like(made: dict[str, Document]) -> None:
    assert set(made) == STORES
    assert differences(json.loads(checked_in(PRODUCTS)), made) == []


def test_every_quantity_has_units_and_every_coordinate_a_name(made: dict[str, Document]) -> None:
    nameless = [
        f"{store}/{name}"
        for store, arrays in made.items()
        for name, array in arrays.items()
        if array["data_type"].startswith("float") and not array["units"]
    ]
    assert nameless == []


def spectra(**changes: object) -> Document:
    array = {"dimension_names": ["number", "lead_time", "level", "degree"], "data_type": "float32",
             "attributes": {"long_name": "rotational kinetic energy per degree",
                            "units": "m2 s-2"}}  # fmt: skip
    return group_document({}, {"ke_rot": {**array, **changes}})


def test_what_settings_add_or_leave_out_passes_and_a_change_does_not() -> None:
    guard_product(spectra(), "spectra")
    added = spectra()
    arrays_of(added)["ke_of_mine"] = arrays_of(added)["ke_rot"]
    guard_product(added, "spectra")
    for changes, fault in (
        ({"data_type": "float64"}, "ke_rot/data_type"),
        ({"dimension_names": ["level", "number", "lead_time", "degree"]}, "ke_rot/dims"),
        ({"attributes": {"units": "J kg-1"}}, "ke_rot/units"),
    ):
        with pytest.raises(StoreError, match=fault):
            guard_product(spectra(**changes), "spectra")
    assert outline(spectra())["ke_rot"]["units"] == "m2 s-2"
