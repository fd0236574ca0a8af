"""A static STAC 1.1 catalogue of the published cycles, with the datacube, forecast and zarr
extensions: catalog.json, one collection, one item per cycle."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mosaic_core.contract.schema import COORDINATE_ATTRIBUTES, variable_attributes
from mosaic_core.contract.variables import LEVELS, VARIABLES
from postprocess.objects.root import MUTABLE, ObjectInfo, ObjectRoot

if TYPE_CHECKING:
    from postprocess.catalog import CycleEntry, Index, StoreEntry

_VERSION = "1.1.0"
_EXTENSIONS = [
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/forecast/v0.2.0/schema.json",
    "https://stac-extensions.github.io/zarr/v1.1.0/schema.json",
]
_ATLAS = "atlas/atlas.json"
"""Which pictures the page in the browser draws with (postprocess.viewer.atlas)."""
_COLLECTION = "mosaic-forecast"
_LICENSE = "CC-BY-NC-4.0"
_GLOBE = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0], [-180.0, -90.0]]
_BBOX = [-180.0, -90.0, 180.0, 90.0]
_MEDIA_TYPES = {
    ".geojson": "application/geo+json",
    ".csv": "text/csv",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}

Json = dict[str, Any]


def stac_documents(index: Index, only: str | None = None) -> dict[str, bytes]:
    """Every document by key, items first; of the items only that of the cycle `only`, if given."""
    documents = {
        f"stac/items/{entry.cycle}.json": item(entry)
        for entry in index.cycles
        if only in (None, entry.cycle)
    }
    documents["stac/collection.json"] = collection(index)
    documents["stac/catalog.json"] = catalog()
    return {
        key: (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
        for key, document in documents.items()
    }


def write_stac(root: ObjectRoot, index: Index) -> None:
    """Write what changed of `stac/`, and delete the items of cycles that are gone."""
    documents = stac_documents(index)
    there = {info.key: info for info in root.objects("stac")}
    for key, content in documents.items():
        if key not in there or not _holds(root, there[key], content):
            root.write(key, content, cache=MUTABLE)
    root.delete(sorted(there.keys() - documents.keys()))


def _holds(root: ObjectRoot, found: ObjectInfo, content: bytes) -> bool:
    """Whether an object has this content; the listing tells it where it has digests."""
    if found.size != len(content):
        return False
    if found.md5 is None:
        now = root.read_tagged(found.key)  # another publisher may just have deleted it
        return now is not None and now.content == content
    return found.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()


def catalog() -> Json:
    """The entry document."""
    return {
        "type": "Catalog",
        "id": "mosaic-ops",
        "stac_version": _VERSION,
        "title": "Mosaic Ops",
        "description": "Operational ensemble forecasts with the Mosaic weather model.",
        "links": [
            _link("root", "./catalog.json"),
            _link("self", "./catalog.json"),
            _link("child", "./collection.json"),
        ],
    }


def collection(index: Index) -> Json:
    """The collection of all cycles."""
    starts = [_iso(entry.init_time) for entry in index.cycles]
    return {
        "type": "Collection",
        "id": _COLLECTION,
        "stac_version": _VERSION,
        "stac_extensions": _EXTENSIONS[:1],
        "title": "Mosaic ensemble forecast",
        "description": "Global ensemble forecasts on 1.5 degrees, one item per cycle.",
        "license": _LICENSE,
        "extent": {
            "spatial": {"bbox": [_BBOX]},
            "temporal": {"interval": [[starts[-1], None] if starts else [None, None]]},
        },
        "cube:dimensions": _dimensions(None),
        "cube:variables": _variables(),
        "links": [
            _link("root", "./catalog.json"),
            _link("parent", "./catalog.json"),
            _link("self", "./collection.json"),
            *(_link("item", f"./items/{entry.cycle}.json") for entry in index.cycles),
        ],
    }


def item(entry: CycleEntry) -> Json:
    """One cycle: its assets are its stores, tables and plots."""
    return {
        "type": "Feature",
        "id": entry.cycle,
        "stac_version": _VERSION,
        "stac_extensions": _EXTENSIONS,
        "collection": _COLLECTION,
        "bbox": _BBOX,
        "geometry": {"type": "Polygon", "coordinates": [_GLOBE]},
        "properties": {
            "datetime": _iso(entry.init_time),
            "created": _iso(entry.available_at),
            "updated": _iso(entry.modified_at),
            "license": _LICENSE,
            "forecast:reference_datetime": _iso(entry.init_time),
            "forecast:horizon": f"PT{entry.lead_hours}H",
            "cube:dimensions": _dimensions(entry),
            "cube:variables": _variables(),
            "mosaic:run_id": entry.run_id,
            "mosaic:members": entry.members,
            "mosaic:health": list(entry.health),
        },
        "assets": _assets(entry),
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
            _link("self", f"./{entry.cycle}.json"),
        ],
    }


def _assets(entry: CycleEntry) -> dict[str, Json]:
    """What is there, by key below the run. A folder that is no store has only files in it."""
    there = {store.name: store for store in entry.stores if store.available}
    stores = {name: _store(entry, store) for name, store in there.items() if not _is_folder(store)}
    keys = [href.removeprefix(f"{entry.href}/") for href in entry.plots]
    plots = {key: _file(entry, key, "overview") for key in keys if _first(key) in there}
    atlas = {_ATLAS: _file(entry, _ATLAS, "data")} if _first(_ATLAS) in there else {}
    return stores | plots | atlas


def _first(key: str) -> str:
    """The store, file or folder of the run that an object is in."""
    return key.partition("/")[0]


def _is_folder(store: StoreEntry) -> bool:
    """Published files have a suffix, folders have none."""
    return store.kind == "file" and not PurePosixPath(store.name).suffix


def _file(entry: CycleEntry, key: str, role: str) -> Json:
    media = _MEDIA_TYPES.get(PurePosixPath(key).suffix, "application/octet-stream")
    return {"href": f"../../{entry.href}/{key}", "type": media, "roles": [role], "title": key}


def _store(entry: CycleEntry, store: StoreEntry) -> Json:
    if store.kind == "file":
        return _file(entry, store.name, "data")
    return {
        "href": f"../../{store.href}",
        "type": "application/vnd.zarr; version=3",
        "roles": ["data"],
        "title": store.name,
        "zarr:consolidated": True,
        "zarr:node_type": "group",
        "zarr:zarr_format": 3,
    }


def _dimensions(entry: CycleEntry | None) -> Json:
    members = list(range(entry.members)) if entry else None
    start = _iso(entry.init_time) if entry else None
    return {
        "latitude": {"type": "spatial", "axis": "y", "extent": [-90.0, 90.0], "step": 1.5},
        "longitude": {"type": "spatial", "axis": "x", "extent": [0.0, 358.5], "step": 1.5},
        "level": {"type": "spatial", "axis": "z", "values": list(LEVELS), "unit": "hPa"},
        "init_time": {
            "type": "temporal",
            "extent": [start, start],
            **({"values": [start]} if start else {}),
        },
        "lead_time": _other("lead_time", "h", [0, entry.lead_hours] if entry else [0, None]),
        "number": {
            "type": "realization",
            "description": COORDINATE_ATTRIBUTES["number"]["long_name"],
            **({"values": members} if members else {"extent": [0, None]}),
        },
    }


def _other(name: str, unit: str, extent: list[int | None]) -> Json:
    description = COORDINATE_ATTRIBUTES[name]["long_name"]
    return {"type": "forecast_period", "description": description, "unit": unit, "extent": extent}


def _variables() -> Json:
    leading = ["init_time", "number", "lead_time"]
    return {
        variable.name: {
            "type": "data",
            "dimensions": [
                *leading, *(["level"] if variable.on_levels else []), "latitude", "longitude"
            ],
            "description": variable.long_name,
            "unit": variable_attributes(variable)["units"],
        }
        for variable in VARIABLES
    }  # fmt: skip


def _link(relation: str, href: str) -> Json:
    kind = "application/geo+json" if relation == "item" else "application/json"
    return {"rel": relation, "href": href, "type": kind}


def _iso(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
