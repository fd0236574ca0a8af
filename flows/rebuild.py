"""Members of an old cycle, computed again from the recipe that was published with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.progress import Reporter
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, ModelError
from postprocess.objects.root import open_root
from postprocess.recipe import Recipe, read_recipe, rebuild
from postprocess.rounding import mantissa_bits


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

    ModelError when the weights are not those of the published run.
    """
    from mosaic_core.model.placement import refuse_days_on_a_cpu

    recipe = read_recipe(open_root(root), cycle)
    numbers = parse_members(members, recipe.numbers)
    recipe.spec(numbers)
    refuse_days_on_a_cpu(weights, recipe.provenance.model_variant, device)
    some = f"{len(numbers)} of {len(recipe.numbers)} members"
    with report.stage(f"{some} of {cycle}, {recipe.steps} steps") as advance:

        def stream() -> Iterator[ForecastStep]:
            for step in _stream(recipe, numbers, weights, device):
                yield step
                advance(step.step, recipe.steps, "")

        differing = rebuild(recipe, numbers, stream, output)
    if not differing:
        return f"{output}: {some}, every bit as published"
    return (
        f"{output}: {some}; {len(differing)} shards differ from those published, "
        f"first {differing[0]} (another kind of device, or other versions of its libraries)"
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


def _stream(
    recipe: Recipe, numbers: tuple[int, ...], weights: Path, device: str
) -> Iterator[ForecastStep]:
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
    return forecaster.forecast(
        recipe.initial_state,
        numbers=numbers,
        steps=recipe.steps,
        mantissa_bits=mantissa_bits(recipe.rounding),
    )
