"""Content types of published objects."""

from __future__ import annotations

from pathlib import PurePosixPath

_TYPES = {
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".webp": "image/webp",
    ".nc": "application/netcdf",
    ".parquet": "application/vnd.apache.parquet",
}


def content_type(key: str) -> str:
    """The Content-Type to serve an object under."""
    return _TYPES.get(PurePosixPath(key).suffix, "application/octet-stream")
