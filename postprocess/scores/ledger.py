"""Where the sums are kept: `scores/sums/VALID.parquet` below a published root, one a valid time.

An object holds every forecast that was scored against that analysis. It is replaced by
compare-and-swap, so two that score at once lose nothing, and a forecast is scored once.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import pandas as pd

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from postprocess.objects.root import MUTABLE, ObjectRoot
from postprocess.scores.table import COLUMNS, DIGESTS, empty, typed

FOLDER = "scores/sums"
_SUFFIX = ".parquet"
_TRIES = 30


def scored_times(root: ObjectRoot) -> list[Cycle]:
    """The analyses that something was scored against, oldest first."""
    names = (info.key.rsplit("/", 1)[-1] for info in root.objects(FOLDER))
    return sorted(Cycle.parse(name.removesuffix(_SUFFIX)) for name in names)


def read_scores(root: ObjectRoot, valid: Iterable[Cycle] | None = None) -> pd.DataFrame:
    """The kept sums (postprocess.scores.table.COLUMNS) of these analyses, of all by default."""
    wanted = scored_times(root) if valid is None else list(valid)
    found = {key: root.read_tagged(key) for key in map(_key, wanted)}
    tables = [_parsed(each.content, key, root) for key, each in found.items() if each]
    return typed(pd.concat(tables)) if tables else empty()


def scored_runs(root: ObjectRoot, valid: Cycle) -> dict[tuple[Cycle, str], dict[str, str]]:
    """The forecasts (cycle, run) scored against the analysis of `valid`, and with what: DIGESTS.

    A digest is '' where none was recorded.
    """
    table = read_scores(root, [valid]).drop_duplicates(["init_time", "run_id"])
    times = map(Cycle.from_datetime64, table["init_time"].to_numpy())
    columns = (table[name].fillna("") for name in DIGESTS)
    made_with = (dict(zip(DIGESTS, pair, strict=True)) for pair in zip(*columns, strict=True))
    return dict(zip(zip(times, table["run_id"], strict=True), made_with, strict=True))


def record(root: ObjectRoot, valid: Cycle, rows: pd.DataFrame) -> None:
    """Add the rows of newly scored forecasts; those of the same cycles are replaced.

    PublishError when others win every time.
    """
    key = _key(valid)
    for _ in range(_TRIES):
        found = root.read_tagged(key)
        content = _bytes(_merged(_parsed(found.content, key, root) if found else None, rows))
        if found and found.content == content:
            return
        if root.swap(key, content, expected=found.tag if found else None, cache=MUTABLE):
            return
    raise PublishError(
        f"lost the race for the scores {_TRIES} times",
        where=f"{root.address}/{key}",
        remedy="see who else scores here; then score again",
    )


def _merged(held: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    if held is None:
        return typed(rows)
    return typed(pd.concat([held[~held["init_time"].isin(rows["init_time"])], rows]))


def _key(valid: Cycle) -> str:
    return f"{FOLDER}/{valid.id}{_SUFFIX}"


def _bytes(table: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    table.to_parquet(content, engine="pyarrow", compression="zstd", index=False)
    return content.getvalue()


def _parsed(content: bytes, key: str, root: ObjectRoot) -> pd.DataFrame:
    where = f"{root.address}/{key}"
    remedy = "delete it, then score again: `mosaic-ops verify`"
    try:
        table = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise PublishError(f"not a table of scores: {error}", where=where, remedy=remedy) from None
    missing = set(COLUMNS) - set(table.columns)
    if sums := sorted(missing - set(DIGESTS)):  # the first tables had no digests
        raise PublishError(f"no column {', '.join(sums)}", where=where, remedy=remedy)
    return typed(table.assign(**dict.fromkeys(missing, None)))
