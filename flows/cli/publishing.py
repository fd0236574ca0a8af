"""`mosaic-ops catalog`, `verify-store`, `retain`, `rebuild` and `templates`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from mosaic_core.contract.cycle import Cycle

_config = click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")


def _root(given: str | None, config: Path | None) -> str:
    """What was given, or the published root of the settings."""
    from flows.settings import load_settings

    return given or load_settings(config).published


@click.command()
@click.argument("root", required=False)
@_config
@click.option(
    "--rebuild", is_flag=True, help="Make the index and the pointers again from the runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print index.json as it is.")
def catalog(root: str | None, config: Path | None, rebuild: bool, as_json: bool) -> None:
    """What is published at ROOT, the newest cycle first.

    ROOT is a folder, s3:// or gs://, by default that of the settings.
    """
    from postprocess.catalog import read_index, update_catalog
    from postprocess.objects.root import open_existing, open_root
    from postprocess.repair import repair_pointers

    target = (open_existing if rebuild else open_root)(_root(root, config))
    if rebuild:
        repair_pointers(target)
    index = update_catalog(target, rebuild=True) if rebuild else read_index(target)
    if as_json:
        click.echo(index.to_bytes().decode(), nl=False)
        return
    if not index.cycles:
        click.echo(f"nothing is published at {target.address}")
    for entry in index.cycles:
        there = [store for store in entry.stores if store.available]
        mark = "*" if entry.cycle == index.latest else " "
        click.echo(
            f"{mark} {entry.cycle}  {entry.members} members  {entry.lead_hours:4d} h  "
            f"{sum(store.bytes for store in there) / 1e6:9.1f} MB  "
            f"since {entry.available_at:%Y-%m-%d %H:%MZ}  {' '.join(store.name for store in there)}"
        )


@click.command("verify-store")
@click.argument("address", required=False)
@_config
def verify_store(address: str | None, config: Path | None) -> None:
    """Read everything at ADDRESS and compare it with its manifest.

    ADDRESS is a root (by default that of the settings), a run's folder or a store in it. Every
    object that is not what it was is named; the exit code is then 7. Objects that the store does
    not give are named apart: where nothing is damaged the exit code is then 8.
    """
    from mosaic_core.contract.errors import StoreError
    from postprocess.objects.root import UnreachableError
    from postprocess.verify import verify_store as verify

    found = verify(_root(address, config))
    for fault in found.faults:
        click.echo(f"{fault.key}: {fault.problem}")
    damaged = sum(not fault.unread for fault in found.faults)
    unread = len(found.faults) - damaged
    told = f"{unread} could not be read" if unread else ""
    if damaged:
        are = "objects are" if damaged > 1 else "objects is"
        raise StoreError(
            f"{damaged} of {found.objects} {are} not what was published{told and f', {told}'}",
            where=found.address,
            remedy="publish the cycle again, or rebuild it from its recipe",
        )
    if unread:
        raise UnreachableError(
            f"{told} of {found.objects} objects, the others are as published",
            where=found.address,
            remedy="check the store and the permissions, then look again",
        )
    click.echo(f"{found.objects} objects, {found.bytes / 1e6:.1f} MB: all as published")


@click.command()
@click.argument("root", required=False)
@_config
@click.option(
    "--keep",
    multiple=True,
    metavar="KIND=RULE",
    help="What stays, over the settings: forecast=30d (days since the cycle or, if later, since it "
    "was published), points=40n (newest cycles), or both: 30d,40n. "
    "Repeatable; 'other' is every kind without a rule.",
)
@click.option(
    "--grace-hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Between the announcement that a store goes and its removal.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and how many bytes.")
def retain(
    root: str | None, config: Path | None, keep: tuple[str, ...], grace_hours: float, dry_run: bool
) -> None:
    """Remove what is past its time: fetched files, staged runs, receipts, published stores.

    With a ROOT (a folder, s3:// or gs://) only the stores published there. The newest cycle
    always stays, and so does whatever is being worked on.
    """
    from flows.settings import load_settings
    from flows.watch.retention import free_space, prune
    from postprocess.objects.root import open_existing
    from postprocess.retention_rules import parse_rules

    settings, grace = load_settings(config), timedelta(hours=grace_hours)
    rules = parse_rules([*settings.keep_published, *keep])
    if root is not None:
        open_existing(root)
        freed = prune(root, rules=rules, grace=grace, dry_run=dry_run)
    else:
        now = datetime.now(UTC)
        freed = free_space(settings, now, rules=rules, grace=grace, dry_run=dry_run)
    for line in freed.lines:
        click.echo(line)


@click.command()
@click.argument("cycle")
@click.option("--root", help="Where the cycle was published; by default that of the settings.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="By default those of the settings."
)
@click.option("--members", required=True, help="Members to rebuild, such as 0,3,7-9 or all.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="The store to make; by default CYCLE.zarr."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@_config
def rebuild(
    cycle: str,
    root: str | None,
    weights: Path | None,
    members: str,
    output: Path | None,
    device: str,
    config: Path | None,
) -> None:
    """Compute members of an old CYCLE again from its recipe: initial state, weights, noise keys.

    The bits are those that were published when the device is of the same kind (the attribute
    `device` of the published stores); whether they are is told by the digests in the manifest, and
    the exit code is 7 when they are not.
    """
    from rich.console import Console

    from flows.progress import BarReporter
    from flows.rebuild import rebuild_members
    from flows.settings import load_settings

    wanted = Cycle.parse(cycle)
    with BarReporter(Console()) as report:
        said = rebuild_members(
            wanted,
            _root(root, config),
            weights or load_settings(config).weights,
            members,
            output or Path(f"{wanted.id}.zarr"),
            device,
            report,
        )
    click.echo(said)


@click.command()
@click.option("--write", is_flag=True, help="Replace the checked-in files by what the code makes.")
def templates(write: bool) -> None:
    """Compare the checked-in store templates and JSON Schemas with the code, or write them."""
    from postprocess.catalog import schema_faults, write_schemas
    from postprocess.products.outlines import made_outlines, outline_faults
    from postprocess.structure import template_faults, write_outlines, write_templates

    if write:
        outlines = write_outlines(made_outlines())
        for path in [*write_templates(), outlines, *write_schemas()]:
            click.echo(str(path))
        return
    faults = [*template_faults(), *outline_faults(), *schema_faults()]
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo("templates and schemas are what the code makes")
