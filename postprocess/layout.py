"""The metadata documents of our Zarr v3 stores: dims, chunks, shards, codecs, attributes.

Every function returns plain JSON values. A size may be the name of a dimension instead of a
number: that is how the checked-in templates are made (postprocess/templates).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import COORDINATE_ATTRIBUTES, field_dims, variable_attributes
from mosaic_core.contract.variables import CHANNELS, LEVELS, VARIABLES, Variable, channel
from postprocess.rounding import ALGORITHM, IMPLEMENTATION, keep_bits
from postprocess.shards import CODECS, PLAIN_CODECS

Size = int | str
Document = dict[str, Any]

LEADING_DIMS = ("init_time", "number", "lead_time")
EPOCH = "1970-01-01T00:00:00"
QUANTIZATION = "quantization_info"

# 121 = 11 x 11 rows and 240 = 20 x 12 columns: 220 equal tiles, each about 500 kB raw for 24
# members and 41 leads, about 0.1 MB stored.
POINT_TILE = (11, 12)

# What a meteogram shows: the surface, and one headline field per process and height.
POINT_CHANNELS = (
    "2m_temperature",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "mean_sea_level_pressure",
    "geopotential_500",
    "temperature_850",
    "specific_humidity_700",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
    "vertical_velocity_500",
)


@dataclass(frozen=True)
class Sizes:
    """Lengths of the dims that differ from run to run."""

    number: Size
    lead_time: Size

    def of(self, dim: str) -> Size:
        """Length of any dim of a forecast store."""
        fixed: dict[str, Size] = {
            "init_time": 1,
            "level": len(LEVELS),
            "latitude": len(LATITUDE),
            "longitude": len(LONGITUDE),
        }
        return {"number": self.number, "lead_time": self.lead_time, **fixed}[dim]


def chunk_name(*indices: int) -> str:
    """File name of a stored object in its array's folder. With dots: no folders per shard."""
    return ".".join(("c", *map(str, indices)))


def array_document(
    dims: Sequence[str],
    shape: Sequence[Size],
    attributes: Mapping[str, Any],
    *,
    data_type: str,
    fill_value: Any,
    codecs: Sequence[Document],
    chunk: Sequence[Size],
) -> Document:
    """zarr.json of one array; `chunk` is the extent of one stored object."""
    return {
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": list(codecs),
        "attributes": dict(attributes),
        "dimension_names": list(dims),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def sharded(inner: Sequence[Size]) -> Document:
    """The codec that packs chunks of shape `inner` into one object, index at the end."""
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(inner),
            "codecs": CODECS,
            "index_codecs": PLAIN_CODECS,
            "index_location": "end",
        },
    }


def group_document(attributes: Mapping[str, Any], arrays: Mapping[str, Document]) -> Document:
    """Root zarr.json with the metadata of every array consolidated into it."""
    return {
        "attributes": dict(attributes),
        "zarr_format": 3,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(arrays),
        },
        "node_type": "group",
    }


def arrays_of(group: Document) -> dict[str, Document]:
    """The consolidated array documents of a root zarr.json."""
    metadata: dict[str, Document] = group["consolidated_metadata"]["metadata"]
    return metadata


def forecast_document(sizes: Sizes, rounding: str, attributes: Mapping[str, Any]) -> Document:
    """Root document of a forecast store: one map per chunk; one member, variable and level per
    shard, all leads of it."""
    fields = {variable.name: _map_array(variable, sizes, rounding) for variable in VARIABLES}
    return group_document(
        _with_coordinates(attributes, rounding),
        {**fields, **_coordinate_arrays(sizes, rounding, with_level=True)},
    )


def points_document(sizes: Sizes, rounding: str, attributes: Mapping[str, Any]) -> Document:
    """Root document of a point store: all members and leads of a tile per chunk; one channel
    per shard."""
    fields = {name: _tile_array(name, sizes, rounding) for name in POINT_CHANNELS}
    return group_document(
        _with_coordinates(attributes, rounding),
        {**fields, **_coordinate_arrays(sizes, rounding, with_level=False)},
    )


def _map_array(variable: Variable, sizes: Sizes, rounding: str) -> Document:
    dims = field_dims(variable, LEADING_DIMS)
    one = [1] * (len(dims) - 2)
    grid = [len(LATITUDE), len(LONGITUDE)]
    shard: list[Size] = [1, 1, sizes.lead_time, *one[3:], *grid]
    attributes = {**variable_attributes(variable), **_quantization(variable, rounding)}
    return _field(dims, sizes, attributes, inner=[*one, *grid], outer=shard)


def _tile_array(name: str, sizes: Sizes, rounding: str) -> Document:
    entry = channel(name)
    dims = (*LEADING_DIMS, "latitude", "longitude")
    attributes: dict[str, Any] = {
        **variable_attributes(entry.variable),
        **quantization_attributes([keep_bits(entry, rounding)]),
    }
    if entry.level_hpa is not None:
        attributes["level_hpa"] = entry.level_hpa
    extent: list[Size] = [1, sizes.number, sizes.lead_time]
    whole = [*extent, len(LATITUDE), len(LONGITUDE)]
    return _field(dims, sizes, attributes, inner=[*extent, *POINT_TILE], outer=whole)


def _field(
    dims: Sequence[str],
    sizes: Sizes,
    attributes: Mapping[str, Any],
    *,
    inner: Sequence[Size],
    outer: Sequence[Size],
) -> Document:
    shape = [sizes.of(dim) for dim in dims]
    return array_document(
        dims, shape, attributes, data_type="float32", fill_value="NaN",
        codecs=[sharded(inner)], chunk=outer,
    )  # fmt: skip


def _quantization(variable: Variable, rounding: str) -> Document:
    return quantization_attributes(
        [keep_bits(entry, rounding) for entry in CHANNELS if entry.variable == variable]
    )


def quantization_attributes(bits: Sequence[int | None]) -> Document:
    """How a variable with these mantissa bits (by level) was rounded, {} if it was not.

    CF wants one number of significant bits, the least; where levels differ, all follow."""
    kept = [count for count in bits if count is not None]
    if not kept:
        return {}
    told: Document = {"quantization": QUANTIZATION, "quantization_nsb": min(kept)}
    return told if len(set(kept)) == 1 else {**told, "quantization_nsb_by_level": kept}


def _with_coordinates(attributes: Mapping[str, Any], rounding: str) -> Document:
    """CF has no group attribute for this; xarray reads it to tell coordinates from data."""
    names = "valid_time" if rounding == "none" else f"valid_time {QUANTIZATION}"
    return {**attributes, "coordinates": names}


def _coordinate_arrays(sizes: Sizes, rounding: str, *, with_level: bool) -> dict[str, Document]:
    hours = {"units": "hours", "dtype": "timedelta64[ns]"}
    since = {"units": f"hours since {EPOCH}", "calendar": "proleptic_gregorian"}
    arrays = {
        "init_time": _coordinate("init_time", ("init_time",), sizes, "int64", since),
        "number": _coordinate("number", ("number",), sizes, "int64"),
        "lead_time": _coordinate("lead_time", ("lead_time",), sizes, "int64", hours),
        "valid_time": _coordinate("valid_time", ("init_time", "lead_time"), sizes, "int64", since),
        "latitude": _coordinate("latitude", ("latitude",), sizes, "float64"),
        "longitude": _coordinate("longitude", ("longitude",), sizes, "float64"),
    }
    if with_level:
        arrays["level"] = _coordinate("level", ("level",), sizes, "int64")
    if rounding != "none":
        arrays[QUANTIZATION] = quantization_array()
    return arrays


def _coordinate(
    name: str,
    dims: tuple[str, ...],
    sizes: Sizes,
    data_type: str,
    extra: Mapping[str, str] | None = None,
) -> Document:
    shape = [sizes.of(dim) for dim in dims]
    attributes = {**COORDINATE_ATTRIBUTES[name], **(extra or {})}
    fill = 0 if data_type == "int64" else 0.0
    return array_document(
        dims, shape, attributes, data_type=data_type, fill_value=fill, codecs=PLAIN_CODECS,
        chunk=shape,
    )  # fmt: skip


def quantization_array() -> Document:
    """The scalar that carries how the data variables were rounded (CF section 8.4)."""
    attributes = {
        "long_name": "how the data variables were rounded before compression",
        "algorithm": ALGORITHM,
        "implementation": IMPLEMENTATION,
    }
    return array_document(
        (), (), attributes, data_type="int32", fill_value=0, codecs=PLAIN_CODECS, chunk=()
    )
