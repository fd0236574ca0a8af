"""Members of an old cycle, computed again from the recipe that was published with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.progress import Reporter
from flows.provenance import code_version
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, ModelError, StoreError
from postprocess.objects.root import open_root
from postprocess.provenance import Provenance
from postprocess.recipe import Recipe, read_recipe, rebuild
from postprocess.rounding import mantissa_bits

if TYPE_CHECKING:
    from mosaic_core.forecaster import Forecaster


def rebuild_members(
    cycle: Cycle,
    root: str,
    weights: Path,
    members: str,
    output: Path,
    device: str,
    report: Reporter,
) -> str:
    """Write the members to the store `output`; one sentence on whether the bits are the same.

    ModelError when the weights are not those of the published run. StoreError when bits differ:
    the store is there then, and the error says on what the published ones were computed.
    """
    from mosaic_core.model.placement import refuse_days_on_a_cpu

    recipe = read_recipe(open_root(root), cycle)
    numbers = parse_members(members, recipe.numbers)
    recipe.spec(numbers)
    refuse_days_on_a_cpu(weights, recipe.provenance.model_variant, device)
    forecaster = _forecaster(recipe, numbers, weights, device)
    made = _made_now(recipe, forecaster)
    some = f"{len(numbers)} of {len(recipe.numbers)} members"
    with report.stage(f"{some} of {cycle}, {recipe.steps} steps") as advance:

        def stream() -> Iterator[ForecastStep]:
            for step in _stream(recipe, numbers, forecaster):
                yield step
                advance(step.step, recipe.steps, "")

        differing = rebuild(recipe, numbers, stream, output, made)
    if differing:
        raise _difference(recipe, made, f"{some}; {len(differing)} shards differ from those "
                          f"published, first {differing[0]}", output)  # fmt: skip
    return f"{output}: {some}, every bit as published"


def _made_now(recipe: Recipe, forecaster: Forecaster) -> Provenance:
    """The provenance of the rebuilt members: of the run that was, and what computes them now."""
    return replace(
        recipe.provenance,
        created=f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        code_version=code_version(),
        precision=forecaster.precision,
        device=forecaster.device_name,
        batch_size=forecaster.batch_size,
    )


def _difference(recipe: Recipe, made: Provenance, what: str, output: Path) -> StoreError:
    """How the published and the rebuilt members were made, side by side."""
    then = recipe.provenance
    return StoreError(
        f"{what} (computed on {made.device} with {made.code_version}, {made.precision}; published "
        f"from {then.device} with {then.code_version}, {then.precision})",
        where=str(output),
        remedy="remove it and run the command again on the device, and with the versions of the "
        "code and its libraries, of the published run",
    )


def parse_members(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """Members from '0,3,7-9' or 'all'; InputError for anything else."""
    if text == "all":
        return known
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"cannot read members {text!r}", remedy="write 0,3,7-9 or all")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(numbers))


def _forecaster(recipe: Recipe, numbers: tuple[int, ...], weights: Path, device: str) -> Forecaster:
    """The model, loaded as the recipe says; ModelError when its weights are others."""
    from mosaic_core.forecaster import Forecaster

    made = recipe.provenance
    forecaster = Forecaster.load(
        weights,
        made.model_variant,
        device=device,
        batch_size=made.batch_size,
        precision="int8" if made.precision == "int8" else "float16",
        members=len(numbers),
    )
    if forecaster.weights_sha256 != made.weights_sha256:
        raise ModelError(
            f"these weights are {forecaster.weights_sha256[:12]}, the cycle was made with "
            f"{made.weights_sha256[:12]}",
            where=str(weights),
            remedy="mosaic-ops weights fetch at the revision of that time",
        )
    return forecaster


def _stream(
    recipe: Recipe, numbers: tuple[int, ...], forecaster: Forecaster
) -> Iterator[ForecastStep]:
    return forecaster.forecast(
        recipe.initial_state,
        numbers=numbers,
        steps=recipe.steps,
        mantissa_bits=mantissa_bits(recipe.rounding),
    )
