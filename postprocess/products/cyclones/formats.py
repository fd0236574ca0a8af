"""Track tables in the forms that people read: Parquet, CSV, GeoJSON, CF NetCDF, ATCF a-deck."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.files import write_atomic
from postprocess.products.cyclones.adeck import adeck_text
from postprocess.products.cyclones.thresholds import INTENSITY_NOTE
from postprocess.products.cyclones.tracks import TRACK_COLUMNS, validate_tracks
from postprocess.products.grids import write_netcdf

_PER_TRACK = ("track_id", "system_id", "storm_id", "storm_name", "category", "basin", "number")
_UNITS = {
    "mslp_pa": ("Pa", "sea-level pressure at the sub-grid centre"),
    "mslp_grid_pa": ("Pa", "lowest sea-level pressure on the grid"),
    "wind_max_ms": ("m s-1", "strongest 10 m wind within 3 degrees"),
    "wind_max_latitude": ("degrees_north", "latitude of the strongest 10 m wind"),
    "wind_max_longitude": ("degrees_east", "longitude of the strongest 10 m wind"),
    "vorticity_850": ("s-1", "850 hPa relative vorticity, cyclonic positive"),
    "warm_core": ("1", "whether the core is warm"),
    "closed_contour": ("1", "whether the 200 Pa contour closes"),
    "lead_hours": ("h", "hours since the initial time"),
}


def write_tracks(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `table` into `folder` as tracks.parquet, .csv, .geojson, .nc and .dat (a-deck).

    An empty table gives valid files without tracks.
    """
    table = validate_tracks(table, where=str(folder))
    writers: Mapping[str, Callable[[Path], None]] = {
        "tracks.parquet": lambda path: write_atomic(path, _parquet(table)),
        "tracks.csv": lambda path: write_atomic(path, csv_text(table).encode()),
        "tracks.geojson": lambda path: write_atomic(path, _json(geojson(table))),
        "tracks.nc": lambda path: write_netcdf(ragged(table), path),
        "tracks.dat": lambda path: write_atomic(path, adeck_text(table).encode()),
    }
    for name, write in writers.items():
        write(folder / name)
    return [folder / name for name in writers]


def read_tracks(path: Path) -> pd.DataFrame:
    """Read a Parquet or CSV table back; DataError when it is not a table of tracks."""
    if not path.exists():
        raise InputError("no such file", where=str(path), remedy="check the path")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
        else:
            text = {name: "str" for name, kind in TRACK_COLUMNS.items() if kind == "str"}
            table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={})
        known = {name: kind for name, kind in TRACK_COLUMNS.items() if name in table}
        table = table.astype(known)
    except (ValueError, OSError) as error:
        raise DataError(
            f"not a table of tracks: {error}",
            where=str(path),
            remedy="give the tracks.parquet or tracks.csv of a cycle",
        ) from error
    return validate_tracks(table, where=str(path))


def csv_text(table: pd.DataFrame) -> str:
    """One row a point; floats with nine significant digits."""
    return table.to_csv(index=False, lineterminator="\n", float_format="%.9g")


def _parquet(table: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    table = table.copy(deep=False)
    table.attrs = {"comment": INTENSITY_NOTE}
    table.to_parquet(content, engine="pyarrow", index=False)
    return content.getvalue()


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def geojson(table: pd.DataFrame) -> dict[str, Any]:
    """Feature collection (RFC 7946): a line for every track, a point for every row.

    Longitudes are -180..180; lines are cut at the antimeridian; a track of one point has no line.
    """
    features: list[dict[str, Any]] = []
    for _, track in table.groupby("track_id", sort=True):
        track = track.sort_values("lead_hours")
        whole = {name: _plain(track[name].iloc[0]) for name in _PER_TRACK}
        if len(track) > 1:
            features.append(_feature(_line(track), whole))
        features += [
            _feature(
                {"type": "Point", "coordinates": _position(row["longitude"], row["latitude"])},
                {name: _plain(value) for name, value in row.items()},
            )
            for row in track.to_dict("records")
        ]
    return {"type": "FeatureCollection", "note": INTENSITY_NOTE, "features": features}


def _feature(geometry: dict[str, Any], properties: Mapping[Any, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": dict(properties)}


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, (np.generic, float)):
        number = value.item() if isinstance(value, np.generic) else value
        return round(number, 9) if isinstance(number, float) else number
    return value


def _position(longitude: float, latitude: float) -> list[float]:
    return [round((longitude + 180) % 360 - 180, 4), round(latitude, 4)]


def _line(track: pd.DataFrame) -> dict[str, Any]:
    points = [_position(x, y) for x, y in zip(track.longitude, track.latitude, strict=True)]
    parts: list[list[list[float]]] = [[points[0]]]
    for before, after in pairwise(points):
        if abs(after[0] - before[0]) > 180:
            edge = 180.0 if before[0] > 0 else -180.0
            span = after[0] + (360.0 if edge > 0 else -360.0) - before[0]
            latitude = before[1] + (after[1] - before[1]) * (edge - before[0]) / span
            parts[-1].append([edge, round(latitude, 4)])
            parts.append([[-edge, round(latitude, 4)]])
        parts[-1].append(after)
    if len(parts) == 1:
        return {"type": "LineString", "coordinates": parts[0]}
    return {"type": "MultiLineString", "coordinates": parts}


def ragged(table: pd.DataFrame) -> xr.Dataset:
    """CF trajectories as a contiguous ragged array: (trajectory) and (obs), joined by rowSize."""
    ordered = table.sort_values(["track_id", "lead_hours"], kind="stable")
    first = ordered.groupby("track_id", sort=True).first()
    counts = ordered.groupby("track_id", sort=True).size()
    dataset = xr.Dataset(
        attrs={
            "Conventions": "CF-1.12",
            "featureType": "trajectory",
            "title": "Tropical-cyclone tracks",
            "comment": INTENSITY_NOTE,
        }
    )
    dataset["rowSize"] = (
        "trajectory",
        counts.to_numpy(np.int32),
        {"long_name": "number of points of the track", "sample_dimension": "obs"},
    )
    for name in _PER_TRACK:
        source = counts.index if name == "track_id" else first[name]
        values = np.asarray(source, dtype=np.int32 if name == "number" else object)
        dataset[name] = ("trajectory", values, {"long_name": name.replace("_", " ")})
    dataset["track_id"].attrs["cf_role"] = "trajectory_id"
    dataset["number"].attrs["standard_name"] = "realization"
    return _with_points(dataset, ordered)


def _with_points(dataset: xr.Dataset, ordered: pd.DataFrame) -> xr.Dataset:
    dataset = dataset.assign_coords(
        time=("obs", ordered.time.to_numpy(), {"standard_name": "time"}),
        lat=("obs", ordered.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        lon=("obs", ordered.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    )
    for name, (units, long_name) in _UNITS.items():
        values = ordered[name].to_numpy()
        if values.dtype == bool:
            values = values.astype(np.int8)
        dataset[name] = ("obs", values, {"units": units, "long_name": long_name})
    dataset["lead_hours"].attrs["standard_name"] = "forecast_period"
    dataset.time.encoding = {"units": "hours since 1970-01-01 00:00:00", "dtype": "int64"}
    return dataset
