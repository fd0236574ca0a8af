"""What a finished cycle shows on its page, as markdown: pictures, times, verdicts."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flows import stages
from flows.forecast import Outcome
from flows.receipts import receipts_of
from flows.settings import Settings
from flows.watch.waterfall import waterfall_markdown
from ingest.archive import provenance
from ingest.gate.plot import draw_verdict
from ingest.gate.verdict import Verdict
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError
from postprocess.manifest import Manifest
from postprocess.objects.root import open_root
from postprocess.publish import published_cycle

PICTURE_WIDTHS = (900, 720, 540, 360)
PICTURE_LIMIT_BYTES = 140_000  # a third more as base64; the row stays under 200 kB


@dataclass(frozen=True)
class Exhibit:
    """One piece of markdown: `key` is lower case with dashes, `title` for people."""

    key: str
    title: str
    text: str


def exhibits_of(outcome: Outcome, settings: Settings) -> Iterator[Exhibit]:
    """The waterfall of the cycle, and every picture of its publication (small enough)."""
    receipts = receipts_of(outcome.cycle, settings.receipts)
    if receipts:
        text = waterfall_markdown(outcome.cycle, receipts)
        yield Exhibit("waterfall", f"Stages of {outcome.cycle}", text)
    if not outcome.made:
        return
    yield from verdicts(outcome.cycle, settings)
    manifest = published_cycle(settings.published, outcome.cycle)
    if manifest is None:
        return
    yield Exhibit("stores", f"Stores of {outcome.cycle}", store_card(outcome, manifest))
    root = open_root(settings.published)
    for record in manifest.objects:
        name = PurePosixPath(record.key)
        if name.suffix == ".png":
            title, content = name.stem.replace("_", " "), root.read(f"{manifest.path}/{record.key}")
            yield Exhibit(key_of(name.stem), f"{title} {outcome.cycle}", picture(title, content))


def verdicts(cycle: Cycle, settings: Settings) -> Iterator[Exhibit]:
    """What the gate said of each state that the cycle started from, the newest first."""
    records = archive_records(settings.fills) | archive_records(settings.archive)
    for valid in reversed(stages.history(cycle, settings)):
        hours = round((cycle.datetime - valid.datetime).total_seconds() / 3600)
        gate = records.get(valid.init_time, {}).get("gate")
        if gate is not None:
            key = f"gate-{hours}-h-before" if hours else "gate"
            yield verdict_card(key, f"analysis of {valid}", Verdict.from_record(gate))


def archive_records(archive: Path) -> dict[np.datetime64, dict[str, Any]]:
    """The record of each time in an archive; none when there is no archive."""
    try:
        return provenance(archive)
    except ArchiveError:
        return {}


def verdict_card(key: str, subject: str, verdict: Verdict) -> Exhibit:
    """A verdict as a table and a picture."""
    title = f"Gate: {subject}: {verdict.outcome.value}"
    drawn = picture(title, draw_verdict(verdict, subject))
    return Exhibit(key, title, f"{verdict_table(verdict)}\n\n{drawn}")


def verdict_table(verdict: Verdict) -> str:
    """For each check its worst value, with what it is held against."""
    lines = [
        "| check | of | value | refused at | verdict | why there |",
        "|---|---|--:|--:|---|---|",
    ]
    lines += [
        f"| {f.check} | {f.subject} | {f.value:.4g} | {f.limit:.4g} | {f.outcome.value} "
        f"| {f.reason} |"
        for f in verdict.worst_by_check()
    ]
    return "\n".join(lines)


def key_of(name: str) -> str:
    """A key that Prefect accepts: lower case letters, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


def as_list(lines: Sequence[str]) -> str:
    """A bullet for each line."""
    return "\n".join(f"- {line}" for line in lines)


def store_card(outcome: Outcome, manifest: Manifest) -> str:
    """Where the stores are, how large each is, and how to open them."""
    sizes: Counter[str] = Counter()
    for record in manifest.objects:
        sizes[record.key.partition("/")[0]] += record.size
    rows = [f"| `{name}` | {_megabytes(size)} |" for name, size in sorted(sizes.items())]
    return "\n".join(
        [
            f"**{outcome.cycle}**: {manifest.members} members to {manifest.lead_hours} h, "
            f"{_megabytes(manifest.bytes)} in `{outcome.address}`",
            "",
            f"```python\nimport xarray as xr\n\nrun = '{outcome.address}'",
            "forecast = xr.open_zarr(f'{run}/forecast.zarr')\n```",
            "",
            "| in it | size |",
            "|---|--:|",
            *rows,
        ]
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def picture(name: str, content: bytes) -> str:
    """A PNG as a data address: the only form that both of Prefect's interfaces draw."""
    if len(content) > PICTURE_LIMIT_BYTES:
        content = _smaller(content)
    encoded = base64.b64encode(content).decode()
    return f"![{name}](data:image/png;base64,{encoded})"


def _smaller(content: bytes) -> bytes:
    """The picture with a palette of 128 colours, as wide as the limit of a row allows."""
    from PIL import Image  # comes with matplotlib

    image = Image.open(io.BytesIO(content)).convert("RGB")
    for width in PICTURE_WIDTHS:
        image.thumbnail((width, width))
        out = io.BytesIO()
        image.quantize(128).save(out, format="PNG", optimize=True)
        if out.tell() <= PICTURE_LIMIT_BYTES:
            break
    return out.getvalue()
