"""The checked-in templates of our stores, and the guard that refuses to write anything else.

A template (postprocess/templates/NAME.json) is the root zarr.json of a store in which every size
that differs from run to run is the name of its dimension and every attribute that differs is
"<run>". `write_templates` makes them again; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.files import write_json_atomic
from postprocess.layout import (
    Document,
    Sizes,
    arrays_of,
    forecast_document,
    points_document,
)
from postprocess.provenance import FIXED_ATTRIBUTES, RUN_ATTRIBUTES

RUN_VALUE = "<run>"
_ANY_SIZE = Sizes("number", "lead_time")
PRODUCTS = "products"
_MEANING = ("standard_name", "long_name", "units", "cell_methods")
_SIZE_KEYS = ("shape", "chunk_shape")


def template_documents() -> dict[str, Document]:
    """Every template by name, built from the code's tables."""
    attributes = {**FIXED_ATTRIBUTES, **dict.fromkeys(RUN_ATTRIBUTES, RUN_VALUE)}
    return {
        "forecast": forecast_document(_ANY_SIZE, "default", attributes),
        "forecast_unrounded": forecast_document(_ANY_SIZE, "none", attributes),
        "points": points_document(_ANY_SIZE, "default", attributes),
        "points_unrounded": points_document(_ANY_SIZE, "none", attributes),
    }


def template_name(kind: str, rounding: str) -> str:
    """Name of the template of a 'forecast' or 'points' store."""
    return kind if rounding == "default" else f"{kind}_unrounded"


def template_directory() -> Path:
    """Where the checked-in templates lie."""
    return Path(str(resources.files("postprocess"))) / "templates"


def template_faults() -> list[str]:
    """Every way in which a checked-in template differs from what the code makes."""
    return [
        f"{name}.json {fault}"
        for name, made in template_documents().items()
        for fault in differences(json.loads(checked_in(name)), made)
    ]


def write_templates() -> list[Path]:
    """Write every template again; the paths written."""
    paths = []
    for name, document in template_documents().items():
        path = template_directory() / f"{name}.json"
        write_json_atomic(path, document)
        paths.append(path)
    return paths


@cache
def checked_in(name: str) -> str:
    """Text of a checked-in template; StoreError when there is none."""
    path = template_directory() / f"{name}.json"
    if not path.is_file():
        raise StoreError(
            f"no template {name!r}", where=str(path), remedy="mosaic-ops templates --write"
        )
    return path.read_text()


def guard(document: Document, name: str, sizes: Mapping[str, int]) -> None:
    """StoreError that lists every way in which `document` differs from template `name`.

    `sizes` are the lengths of the dims that the template leaves open.
    """
    expected = _filled(json.loads(checked_in(name)), document, sizes)
    found = differences(expected, document)
    if found:
        listed = "\n  - ".join(found)
        raise StoreError(
            f"the store would not have the reviewed structure {name!r}:\n  - {listed}",
            remedy="if the change is meant: mosaic-ops templates --write, then review it",
        )


def outline(document: Document) -> Document:
    """Dims, type and meaning of every array of a store, without sizes and packing."""
    return {
        name: {
            "dims": array["dimension_names"],
            "data_type": array["data_type"],
            **{key: array["attributes"].get(key) for key in _MEANING},
        }
        for name, array in arrays_of(document).items()
    }


def write_outlines(outlines: Mapping[str, Document]) -> Path:
    """Write the checked-in outlines of the product stores again."""
    path = template_directory() / f"{PRODUCTS}.json"
    write_json_atomic(path, outlines)
    return path


def guard_product(document: Document, name: str) -> None:
    """StoreError that lists every array of the product store `name` that is not what it was.

    Arrays that settings add are let pass, and so are those that they leave out, and stores that
    only come with settings of one's own.
    """
    reviewed = json.loads(checked_in(PRODUCTS)).get(name, {})
    made = outline(document)
    shared = sorted(reviewed.keys() & made.keys())
    found = [line for key in shared for line in differences(reviewed[key], made[key], key)]
    if found:
        listed = "\n  - ".join(found)
        raise StoreError(
            f"the store would not have the reviewed structure of {name!r}:\n  - {listed}",
            remedy="if the change is meant: mosaic-ops templates --write, then review it",
        )


def require_promises(document: Document, where: str) -> None:
    """StoreError that lists what `document` lacks of what every store of ours promises: a checksum
    in every chunk and shard index, gaps that read as NaN, named dims, the coordinates it names."""
    arrays = arrays_of(document)
    faults = [f"{name}: {fault}" for name, array in arrays.items() for fault in _faults(array)]
    named = str(document["attributes"].get("coordinates", "")).split()
    faults += [f"{name}: no such coordinate" for name in named if name not in arrays]
    if faults:
        listed = "\n  - ".join(faults)
        raise StoreError(f"the store would break its promises:\n  - {listed}", where=where)


def _faults(array: Document) -> Iterator[str]:
    if any(chain[-1]["name"] != "crc32c" for chain in _chains(array["codecs"])):
        yield "chunks without a checksum"
    if array["data_type"] == "float32" and array["fill_value"] != "NaN":
        yield "gaps would read as numbers"
    if len(array["dimension_names"]) != len(array["shape"]):
        yield "dims without names"


def _chains(codecs: list[Document]) -> Iterator[list[Document]]:
    """Every chain of codecs that bytes go through on their way into an object."""
    sharding = codecs[-1]["configuration"] if codecs[-1]["name"] == "sharding_indexed" else None
    if sharding is None:
        yield codecs
        return
    yield from _chains(sharding["codecs"])
    yield from _chains(sharding["index_codecs"])


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Every leaf in which two JSON values differ, as 'path: expected X, found Y'."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted({*expected, *found})
        missing = object()
        return [
            line
            for key in keys
            for line in differences(
                expected.get(key, missing), found.get(key, missing), f"{path}/{key}"
            )
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}/{i}")]
    if expected == found:
        return []
    return [f"{path}: expected {_shown(expected)}, found {_shown(found)}"]


def _shown(value: Any) -> str:
    return "nothing" if type(value) is object else json.dumps(value, default=str)[:80]


def _filled(template: Document, document: Document, sizes: Mapping[str, int]) -> Document:
    """The template with this run's sizes and this run's attribute values in place."""
    filled: Document = _with_sizes(template, sizes)
    attributes = filled["attributes"]
    for name, value in attributes.items():
        if value == RUN_VALUE:
            attributes[name] = document["attributes"].get(name, RUN_VALUE)
    return filled


def _with_sizes(value: Any, sizes: Mapping[str, int], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _with_sizes(item, sizes, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_sizes(item, sizes, key) for item in value]
    return sizes.get(value, value) if key in _SIZE_KEYS and isinstance(value, str) else value
