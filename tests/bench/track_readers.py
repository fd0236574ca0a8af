"""Tracks read back by independent readers: huracanpy (NetCDF) and atcf-data-parser (a-deck).

    python tests/bench/track_readers.py FOLDER

FOLDER holds tracks.nc, tracks.dat and tracks.csv of a run. Needs both packages (900 MB with
huracanpy's maps and units: give them an environment of their own). Compares every track with the
rows of the CSV file and writes tests/bench/results/track_readers.json.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import functools
import gzip
import http.server
import json
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path

import atcf_data_parser
import huracanpy
import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "track_readers.json"
PAIRS = {"latitude": "lat", "longitude": "lon", "mslp_pa": "mslp_pa", "wind_max_ms": "wind_max_ms"}


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Rows of the CSV file by track and lead."""
    with (folder / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    return sorted(rows, key=lambda row: (row["track_id"], int(row["lead_hours"])))


def netcdf(folder: Path) -> dict[str, float]:
    """Largest difference of each quantity over all points."""
    tracks, rows = huracanpy.load(str(folder / "tracks.nc")), rows_of(folder)
    assert tracks.track_id.values.tolist() == [row["track_id"] for row in rows]
    found = {
        f"netCDF {name}": float(
            np.abs(tracks[theirs].values - [float(row[name]) for row in rows]).max()
        )
        for name, theirs in PAIRS.items()
    }
    times = np.array([row["time"] for row in rows], dtype="datetime64[ns]")
    late = np.abs((tracks.time.values - times) / np.timedelta64(1, "s")).max()
    return {"points": float(len(rows)), **found, "netCDF seconds": float(late)}


def adeck(folder: Path) -> dict[str, float]:
    """Largest difference of the members' points: tenths of degrees, knots, hPa."""
    table = parsed(folder / "tracks.dat")
    members = table[table.TECH != "MOMN"]
    keys = ["system", "member", "lead"]
    theirs = pd.DataFrame({
        "system": members.CY.astype(int), "member": members.TECH.str[2:].astype(int),
        "lead": members.TAU.astype(int), "latitude": members["LATN/S"].map(degrees),
        "longitude": members["LONE/W"].map(degrees), "knots": members.VMAX.astype(float),
        "hpa": members.MSLP.astype(float), "basin": members.BASIN,
    }).sort_values([*keys, "longitude"])  # fmt: skip
    rows = pd.DataFrame(rows_of(folder))
    ours = pd.DataFrame({
        "system": rows.system_id.str[:2].astype(int), "member": rows.number.astype(int),
        "lead": rows.lead_hours.astype(int), "latitude": rows.latitude.astype(float),
        "longitude": (rows.longitude.astype(float) + 180) % 360 - 180,
        "knots": rows.wind_max_ms.astype(float) * 3600 / 1852,
        "hpa": rows.mslp_pa.astype(float) / 100,
    }).sort_values([*keys, "longitude"])  # fmt: skip
    assert (theirs[keys].values == ours[keys].values).all()
    return {
        f"a-deck {name}": float(np.abs(theirs[name].values - ours[name].values).max())
        for name in ("latitude", "longitude", "knots", "hpa")
    }


def degrees(text: str) -> float:
    """139N or 1169W."""
    return int(text[:-1]) / 10 * (-1 if text[-1] in "SW" else 1)


def parsed(path: Path) -> pd.DataFrame:
    """The a-deck as the parser reads it: zipped, from a server, by fixed columns."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "deck.dat.gz").write_bytes(gzip.compress(path.read_bytes()))
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=name)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}/deck.dat.gz"
            table = atcf_data_parser.get_dataframe(address)
            server.shutdown()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = {**netcdf(folder), **adeck(folder)}
    for name, value in found.items():
        print(f"{name:16s} {value:10.3g}")
    document = {
        "results": found, "versions": {
            name: version(name) for name in ("huracanpy", "atcf-data-parser", "xarray")
        },
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
