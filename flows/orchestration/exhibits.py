"""What a finished cycle shows on its page, as markdown: pictures, times, verdicts."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from flows import stages
from flows.figures import FIGURE_NAMES, FIGURES
from flows.forecast import Outcome
from flows.receipts import receipts_of
from flows.settings import Settings
from flows.watch.gate import gate_verdicts
from flows.watch.waterfall import waterfall_markdown
from ingest.gate.plot import draw_verdict
from ingest.gate.verdict import GateRefusal, Verdict
from ingest.gate.verdict import Outcome as GateOutcome
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError
from postprocess.manifest import Manifest
from postprocess.objects.root import open_root
from postprocess.publish import published_cycle

OVERVIEW = "overview"


@dataclass(frozen=True)
class Frame:
    """How large a picture may be: it takes the first of the widths that keeps to the limit."""

    widths: tuple[int, ...]
    limit_bytes: int


WHOLE = Frame((900, 720, 540, 360), 140_000)
"""A third more as base64; the row of Prefect's database stays under 200 kB."""

THUMBNAIL = Frame((315, 270, 240), 30_000)
"""Two stand side by side on the page; four and the text of the overview stay under it too."""


@dataclass(frozen=True)
class Exhibit:
    """One piece of markdown: `key` is lower case with dashes, `title` for people."""

    key: str
    title: str
    text: str


def exhibits_of(outcome: Outcome, settings: Settings) -> Iterator[Exhibit]:
    """All of a published cycle at a glance; of one that this run made, also what the gate said of
    its analysis, and of an older one that it did not simply pass, and every figure."""
    cycle = outcome.cycle
    manifest = published_cycle(settings.published, cycle)
    if manifest is None:
        return
    history = stages.history(cycle, settings)
    judged = gate_verdicts(reversed(history), settings.fills, settings.archive)
    figures = dict(_figures(manifest, settings.published))
    yield overview(outcome, manifest, judged, figures, settings)
    if outcome.made:
        for valid, verdict in judged.items():
            hours = round((cycle.datetime - valid.datetime).total_seconds() / 3600)
            if hours == 0 or verdict.outcome is not GateOutcome.PASS:
                key = f"gate-{hours}-h-before" if hours else "gate"
                yield verdict_card(key, f"analysis of {valid}", verdict)
        for name, content in figures.items():
            yield Exhibit(key_of(name), f"{name} {cycle}", picture(name, content, WHOLE))


def exhibits_of_failure(
    cycle: Cycle, settings: Settings, error: MosaicOpsError
) -> Iterator[Exhibit]:
    """How far a cycle came and why no farther; what the gate said when it refused."""
    receipts = receipts_of(cycle, settings.receipts)
    if receipts:
        yield Exhibit(OVERVIEW, f"{cycle}: {error.what}", waterfall_markdown(cycle, receipts))
    if isinstance(error, GateRefusal):
        yield verdict_card("gate", error.where, error.verdict)


def overview(
    outcome: Outcome,
    manifest: Manifest,
    judged: Mapping[Cycle, Verdict],
    figures: Mapping[str, bytes],
    settings: Settings,
) -> Exhibit:
    """What is published, when each stage was done, the gate, the figures small, how to open it."""
    cycle = outcome.cycle
    said = ", ".join(f"{valid} {verdict.outcome.value}" for valid, verdict in judged.items())
    parts = (
        _headline(outcome, manifest),
        _links(settings.public_address.rstrip("/"), manifest) if settings.public_address else "",
        waterfall_markdown(cycle, receipts_of(cycle, settings.receipts)),
        f"Gate: {said}" if said else "",
        _in_pairs(figures),
        _how_to_open(outcome),
        _sizes(manifest),
    )
    text = "\n\n".join(part.strip() for part in parts if part)
    return Exhibit(OVERVIEW, f"{cycle} at a glance", text)


def _figures(manifest: Manifest, published: str) -> Iterator[tuple[str, bytes]]:
    """The pictures of a publication, in the order of their table."""
    root, keys = open_root(published), {record.key for record in manifest.objects}
    for name in FIGURE_NAMES:
        if (key := f"{FIGURES}/{name}") in keys:
            yield PurePosixPath(name).stem.replace("_", " "), root.read(f"{manifest.path}/{key}")


def verdict_card(key: str, subject: str, verdict: Verdict) -> Exhibit:
    """A verdict as a table and a picture."""
    title = f"Gate: {subject}: {verdict.outcome.value}"
    drawn = picture(title, draw_verdict(verdict, subject), WHOLE)
    return Exhibit(key, title, f"{verdict_table(verdict)}\n\n{drawn}")


def verdict_table(verdict: Verdict) -> str:
    """For each check its worst value, with what it is held against."""
    lines = [
        "| check | verdict | of | value | refused at | why there |",
        "|---|---|---|--:|--:|---|",
    ]
    lines += [
        f"| {f.check} | {f.outcome.value} | {f.subject} | {f.value:.4g} | {f.limit:.4g} "
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


def _in_pairs(figures: Mapping[str, bytes]) -> str:
    """Two small pictures a line, each below its name."""
    named = list(figures.items())
    lines = []
    for place in range(0, len(named), 2):
        pair = named[place : place + 2]
        small = [picture(name, content, THUMBNAIL) for name, content in pair]
        lines += [" | ".join(name for name, _ in pair), " | ".join(small)]
    return "\n".join([*lines[:1], "---|---", *lines[1:]]) if lines else ""


def _headline(outcome: Outcome, manifest: Manifest) -> str:
    return (
        f"**{outcome.cycle}**: {_members(manifest)} to {manifest.lead_hours} h, "
        f"{_megabytes(manifest.bytes)} in `{outcome.address}`"
    )


def _members(manifest: Manifest) -> str:
    """How many there are; when some were quarantined, how many of them are healthy."""
    healthy = f"{manifest.healthy_members} healthy of " if manifest.sick_members else ""
    return f"{healthy}{manifest.members} members"


def _links(readers: str, manifest: Manifest) -> str:
    """The cycle on the forecaster's page, and the manifest of its files."""
    maps = f"{readers}/index.html#cycle={manifest.cycle}"
    return f"[maps and time series]({maps}), [files]({readers}/{manifest.path}/manifest.json)"


def _how_to_open(outcome: Outcome) -> str:
    return (
        f"```python\nimport xarray as xr\n\nrun = '{outcome.address}'\n"
        "forecast = xr.open_zarr(f'{run}/forecast.zarr')\n```"
    )


def _sizes(manifest: Manifest) -> str:
    """A line for each store."""
    sizes: Counter[str] = Counter()
    for record in manifest.objects:
        sizes[record.key.partition("/")[0]] += record.size
    rows = [f"| `{name}` | {_megabytes(size)} |" for name, size in sorted(sizes.items())]
    return "\n".join(["| in it | size |", "|---|--:|", *rows])


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def picture(name: str, content: bytes, frame: Frame) -> str:
    """A PNG as a data address: the only form that both of Prefect's interfaces draw."""
    if len(content) > frame.limit_bytes:
        content = _smaller(content, frame)
    encoded = base64.b64encode(content).decode()
    return f"![{name}](data:image/png;base64,{encoded})"


def _smaller(content: bytes, frame: Frame) -> bytes:
    """The picture with a palette of 128 colours, as wide as the frame allows."""
    from PIL import Image  # comes with matplotlib

    image = Image.open(io.BytesIO(content)).convert("RGB")
    for width in frame.widths:
        image.thumbnail((width, width))
        out = io.BytesIO()
        image.quantize(128).save(out, format="PNG", optimize=True)
        if out.tell() <= frame.limit_bytes:
            break
    return out.getvalue()
