from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pystac
import pystac.validation
import pytest
import tiny

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from postprocess.catalog import (
    INDEX,
    Index,
    build_index,
    read_index,
    schema_directory,
    schemas,
    update_catalog,
)
from postprocess.objects.root import MUTABLE, open_root
from postprocess.pointer import cycle_manifests
from postprocess.pruned import Pruned, write_pruned
from postprocess.publish import publish


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Two cycles, the newer one published first, with a plot."""
    root = tmp_path / "root"
    for number, cycle in enumerate((tiny.CYCLE, tiny.CYCLE.shift(-6))):
        staged = tiny.stage(tmp_path / str(number), cycle)
        (staged / "plots").mkdir()
        (staged / "plots" / "z500.png").write_bytes(b"picture")
        publish(staged, root, cycle=cycle, run_id=f"run-{number}", now=lambda: tiny.NOON)
    return root


def test_the_index_tells_what_exists_and_since_when(filled: Path) -> None:
    index = read_index(open_root(filled))
    assert [entry.cycle for entry in index.cycles] == ["2026-11-23T00Z", "2026-11-22T18Z"]
    assert index.latest == "2026-11-23T00Z"
    newest = index.cycles[0]
    assert newest.init_time == tiny.CYCLE.datetime
    assert newest.available_at == tiny.NOON
    assert (newest.members, newest.lead_hours) == (2, 12)
    assert newest.plots == ("cycles/20261123T00Z/run-0/plots/z500.png",)
    stores = {store.name: store for store in newest.stores}
    assert set(stores) == {"cyclones.geojson", "ensemble.zarr", "forecast.zarr", "plots"}
    on_disk = filled / stores["forecast.zarr"].href
    assert stores["forecast.zarr"].kind == "zarr"
    assert stores["forecast.zarr"].bytes == sum(
        file.stat().st_size for file in on_disk.rglob("*") if file.is_file()
    )


def test_every_document_is_valid_against_its_checked_in_schema(filled: Path) -> None:
    files = {
        "index": filled / "index.json",
        "pointer": filled / "latest.json",
        "manifest": filled / "cycles/20261123T00Z/run-0/manifest.json",
    }
    for name, path in files.items():
        schema = json.loads((schema_directory() / f"{name}.schema.json").read_text())
        jsonschema.validate(json.loads(path.read_text()), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"cycle": 1}, schema)


@pytest.mark.parametrize("name", schemas())
def test_checked_in_schema_is_what_the_code_makes(name: str) -> None:
    assert (schema_directory() / name).read_text() == schemas()[name]


def test_it_can_be_made_again_to_the_byte(filled: Path) -> None:
    root = open_root(filled)
    before = {info.key: root.read(info.key) for info in root.objects("")}
    root.delete([INDEX, *(info.key for info in root.objects("stac"))])
    update_catalog(root, rebuild=True)
    assert {info.key: root.read(info.key) for info in root.objects("")} == before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 1, "cycles": 3}'])
def test_a_damaged_index_is_told_and_repaired(filled: Path, content: bytes) -> None:
    root = open_root(filled)
    good = root.read(INDEX)
    root.write(INDEX, content, cache=MUTABLE)
    with pytest.raises(PublishError, match="not a valid Index"):
        read_index(root)
    update_catalog(root)
    assert root.read(INDEX) == good


def test_an_index_of_a_newer_version_is_left_alone(filled: Path) -> None:
    root = open_root(filled)
    root.write(INDEX, b'{"schema_version": 99}', cache=MUTABLE)
    with pytest.raises(PublishError, match="newer mosaic-ops"):
        update_catalog(root)
    assert root.read(INDEX) == b'{"schema_version": 99}'


def test_a_run_that_cannot_be_trusted_is_left_out(filled: Path) -> None:
    (filled / "cycles/20261122T18Z/run-1/manifest.json").write_text("{}")
    (filled / "cycles/20261123T00Z/current.json").write_text("{}")
    (filled / "cycles/not-a-cycle").mkdir()
    assert build_index(open_root(filled)) == Index(latest=None)


def test_an_update_reuses_what_it_knows(filled: Path) -> None:
    root = open_root(filled)
    known = {entry.manifest_sha256: entry for entry in read_index(root).cycles}
    (filled / "cycles/20261122T18Z/run-1/manifest.json").unlink()
    assert len(build_index(root, known).cycles) == 2
    assert len(build_index(root).cycles) == 1


def test_what_retention_took_is_not_available(filled: Path) -> None:
    root = open_root(filled)
    (_, manifest), _ = cycle_manifests(root)
    later = tiny.NOON.replace(hour=20)
    note = Pruned(run_id=manifest.run_id, announced={"forecast.zarr": later})
    write_pruned(root, manifest, note)
    entry = update_catalog(root, rebuild=True).cycles[1]
    assert {s.name for s in entry.stores if not s.available} == {"forecast.zarr"}
    assert entry.modified_at == later
    assert entry.available_at == tiny.NOON
    item = json.loads((filled / "stac/items/2026-11-22T18Z.json").read_text())
    assert "forecast.zarr" not in item["assets"]


def test_every_asset_is_an_object_or_a_store(tmp_path: Path) -> None:
    """Figures and atlas are folders: what lies in them are the assets."""
    staged, root = tiny.stage(tmp_path / "staged"), tmp_path / "root"
    for key in ("figures/z500.png", "figures/tracks.svg", "atlas/atlas.json", "atlas/t.webp"):
        (staged / key).parent.mkdir(exist_ok=True)
        (staged / key).write_bytes(b"{}")
    publish(staged, root, cycle=tiny.CYCLE, run_id="run-0")
    items = root / "stac" / "items"
    path = items / f"{tiny.CYCLE.label}.json"
    assets = json.loads(path.read_text())["assets"]
    for name, asset in assets.items():
        there = items / asset["href"]
        assert (there / "zarr.json").is_file() if name.endswith(".zarr") else there.is_file()
    kinds = {name: (asset["type"], *asset["roles"]) for name, asset in assets.items()}
    assert kinds.pop("figures/z500.png") == ("image/png", "overview")
    assert kinds.pop("figures/tracks.svg") == ("image/svg+xml", "overview")
    assert kinds.pop("atlas/atlas.json") == ("application/json", "data")
    assert set(kinds) == {"cyclones.geojson", "ensemble.zarr", "forecast.zarr"}
    ((_, manifest),) = cycle_manifests(open_root(root))
    write_pruned(
        open_root(root), manifest, Pruned(run_id="run-0", announced={"figures": tiny.NOON})
    )
    update_catalog(open_root(root), rebuild=True)
    left = json.loads(path.read_text())["assets"]
    assert set(left) == {*kinds, "atlas/atlas.json"}


def test_stac_is_read_by_pystac_and_valid(filled: Path) -> None:
    """Against the core schemas, which pystac brings; those of extensions are on the net."""
    catalog = pystac.Catalog.from_file(str(filled / "stac" / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert sorted(item.id for item in items) == ["2026-11-22T18Z", "2026-11-23T00Z"]
    for item in items:
        document = item.to_dict(transform_hrefs=False) | {"stac_extensions": []}
        pystac.validation.validate_dict(document)
        asset = Path(item.assets["forecast.zarr"].get_absolute_href() or "")
        assert (asset / "zarr.json").is_file()
        assert item.properties["forecast:horizon"] == "PT12H"
        assert Cycle.parse(item.id).datetime == item.datetime
    for child in catalog.get_children():
        document = child.to_dict(transform_hrefs=False) | {"stac_extensions": []}
        pystac.validation.validate_dict(document)


def _dimension(kind: dict[str, object], **fields: object) -> dict[str, object]:
    """Schema of a datacube dimension: its type, and bounds or values."""
    bounded = [{"required": ["extent"]}, {"required": ["values"]}]
    properties = {"type": kind, "extent": {"type": "array", "minItems": 2, "maxItems": 2},
                  "values": {"type": "array", "minItems": 1}} | fields  # fmt: skip
    return {"required": ["type", *fields], "anyOf": bounded, "properties": properties}


# What the datacube, forecast and zarr extensions ask of the fields that we use.
EXTENSION_FIELDS = {
    "required": ["properties", "assets"],
    "properties": {
        "properties": {
            "required": ["forecast:reference_datetime", "cube:dimensions", "cube:variables"],
            "properties": {
                "forecast:reference_datetime": {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:00:00Z$"},
                "forecast:horizon": {"pattern": r"^PT\d+H$"},
                "cube:dimensions": {
                    "required": ["latitude", "longitude", "level", "init_time", "lead_time"],
                    "properties": {
                        "latitude": _dimension({"const": "spatial"}, axis={"const": "y"}),
                        "longitude": _dimension({"const": "spatial"}, axis={"const": "x"}),
                        "level": _dimension({"const": "spatial"}, axis={"const": "z"}),
                        "init_time": _dimension({"const": "temporal"}),
                    },
                    "additionalProperties": _dimension({"not": {"enum": ["spatial", "temporal"]}}),
                },
                "cube:variables": {
                    "minProperties": 1,
                    "additionalProperties": {
                        "required": ["type", "dimensions", "unit"],
                        "properties": {
                            "type": {"enum": ["data", "auxiliary"]},
                            "dimensions": {"type": "array", "items": {"type": "string"}},
                            "unit": {"type": "string"},
                        },
                    },
                },
            },
        },
        "assets": {
            "required": ["forecast.zarr"],
            "properties": {
                "forecast.zarr": {
                    "required": ["zarr:node_type", "zarr:zarr_format", "zarr:consolidated"],
                    "properties": {
                        "zarr:node_type": {"enum": ["group", "array"]},
                        "zarr:zarr_format": {"enum": [2, 3]},
                        "zarr:consolidated": {"type": "boolean"},
                    },
                }
            },
        },
    },
}


def test_stac_items_have_the_fields_of_their_extensions(filled: Path) -> None:
    document = json.loads((filled / "stac/items/2026-11-23T00Z.json").read_text())
    jsonschema.validate(document, EXTENSION_FIELDS)
    dimensions = document["properties"]["cube:dimensions"]
    for variable in document["properties"]["cube:variables"].values():
        assert set(variable["dimensions"]) <= set(dimensions)
    for damage in (
        lambda item: item["properties"].pop("forecast:reference_datetime"),
        lambda item: item["properties"].update({"forecast:horizon": "240"}),
        lambda item: item["properties"]["cube:dimensions"]["latitude"].pop("extent"),
        lambda item: item["properties"]["cube:dimensions"]["level"].update(axis="y"),
        lambda item: item["properties"]["cube:variables"]["temperature"].pop("dimensions"),
        lambda item: item["assets"]["forecast.zarr"].pop("zarr:zarr_format"),
    ):
        bad = copy.deepcopy(document)
        damage(bad)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, EXTENSION_FIELDS)
