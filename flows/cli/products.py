"""Commands on products: `products`, `cyclones`, `spectra`, `plot`."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.argument("file", type=click.Path(path_type=Path))
_SELECT = click.option(
    "--select", multiple=True, metavar="DIM=VALUE", help="One value of a dimension; repeatable."
)


@click.group()
def cyclones() -> None:
    """Tropical cyclones: nodes in any file."""


@cyclones.command()
@_FILE
@click.option(
    "--closed-contour",
    "contours",
    multiple=True,
    required=True,
    metavar="FIELD,DELTA,DISTANCE[,SEARCH]",
    help="FIELD must rise by DELTA (fall, if negative) within DISTANCE degrees of its extremum "
    "within SEARCH degrees of the node; repeatable. FIELD is NAME, NAME(500hPa) or _DIFF(A,B).",
)
@click.option("--search", default=None, help="Field searched; default: that of the first contour.")
@click.option("--maxima", is_flag=True, help="Search maxima instead of minima.")
@click.option(
    "--merge-dist", default=0.0, show_default=True, help="Degrees within which the deeper wins."
)
@click.option("--max-abs-lat", default=90.0, show_default=True, help="Highest latitude, degrees.")
@click.option("--regional", is_flag=True, help="The longitudes are not a whole circle.")
@_SELECT
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV to write.")
def nodes(
    file: Path,
    contours: tuple[str, ...],
    search: str | None,
    maxima: bool,
    merge_dist: float,
    max_abs_lat: float,
    regional: bool,
    select: tuple[str, ...],
    out: Path,
) -> None:
    """Candidate nodes as TempestExtremes' DetectNodes gives them, from any NetCDF or Zarr FILE."""
    from mosaic_core.contract.files import write_atomic
    from postprocess.products.cyclones.files import ContourRequest, nodes_table
    from postprocess.products.grids import open_any, selected

    with open_any(file) as dataset:
        table = nodes_table(
            selected(dataset, select, where=str(file)),
            [ContourRequest.parse(text) for text in contours],
            search=search,
            maxima=maxima,
            merge_distance=merge_dist,
            max_abs_latitude=max_abs_lat,
            regional=regional,
            where=str(file),
        )
    write_atomic(out, table.to_csv(index=False, lineterminator="\n").encode())
    click.echo(f"{len(table)} nodes -> {out}")


@click.command()
@_FILE
@click.option("--u", "u_name", required=True, metavar="NAME", help="Eastward wind, m s-1.")
@click.option("--v", "v_name", required=True, metavar="NAME", help="Northward wind, m s-1.")
@click.option("--lmax", type=int, default=None, help="Highest degree; default: all the grid holds.")
@click.option(
    "--row-order",
    type=click.Choice(["labels", "north-south", "south-north"]),
    default="labels",
    show_default=True,
    help="State the true order of the rows where the latitude labels are wrong.",
)
@_SELECT
@click.option("--out", required=True, type=click.Path(path_type=Path), help="NetCDF to write.")
def spectra(
    file: Path,
    u_name: str,
    v_name: str,
    lmax: int | None,
    row_order: str,
    select: tuple[str, ...],
    out: Path,
) -> None:
    """Rotational and divergent kinetic energy per degree of the winds in FILE.

    FILE is NetCDF or Zarr on a regular latitude-longitude grid with both poles.
    """
    from postprocess.products.grids import open_any, selected, write_netcdf
    from postprocess.products.spectra.files import wind_spectra

    with open_any(file) as dataset:
        result = wind_spectra(
            selected(dataset, select, where=str(file)),
            u_name,
            v_name,
            lmax=lmax,
            row_order=row_order,  # type: ignore[arg-type]
            where=str(file),
        )
        write_netcdf(result, out)
    click.echo(f"ke_rot, ke_div {dict(result.sizes)} -> {out}")


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--only", default=None, metavar="NAME[,NAME]", help="Some of the products; default: all."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder; default: products beside each store. With many stores, one folder for each.",
)
@click.option(
    "--statics",
    type=click.Path(path_type=Path),
    default=None,
    help="static_vars.npz of a weights bundle: its land-sea mask keeps births off land.",
)
@click.option(
    "--tracks",
    "track_file",
    type=click.Path(path_type=Path),
    default=None,
    help="ECMWF's tf BUFR file of the same cycle: storms keep their official names (one store).",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=None,
    help="TOML file with settings: stations, events and levels are those of its [products].",
)
@click.option("--keep-sick", is_flag=True, help="Report sick members but keep them in.")
@click.option(
    "--scheduler", default=None, metavar="ADDRESS", help="Dask scheduler for many stores."
)
def products(
    stores: tuple[Path, ...],
    only: str | None,
    out: Path | None,
    statics: Path | None,
    track_file: Path | None,
    config: Path | None,
    keep_sick: bool,
    scheduler: str | None,
) -> None:
    """Make the products of stored forecasts (forecast.zarr) again, to the bit.

    Many stores run in parallel under Dask.
    """
    from flows.settings import load_settings
    from postprocess.products.remake import RemakeOptions, remake_many, remake_products
    from postprocess.products.suite import PRODUCTS

    names = PRODUCTS if only is None else tuple(part.strip() for part in only.split(","))
    settings = load_settings(config)
    options = RemakeOptions(
        names, statics, track_file, not keep_sick, settings.products, settings.minimum_members
    )
    if len(stores) == 1 and scheduler is None:
        paths = remake_products(
            stores[0],
            out or stores[0].parent / "products",
            options,
            progress=lambda step, steps: click.echo(f"lead {step + 1} of {steps}", err=True),
        )
    else:
        paths = remake_many(stores, options, out=out, scheduler=scheduler)
    for path in paths:
        click.echo(str(path))


_BANNER = click.option("--banner", default="", help="Warning drawn across the figure.")
_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="PNG or SVG to write."
)


@click.group()
def plot() -> None:
    """Figures of a run's stores, PNG or SVG."""


@plot.command("map")
@_FILE
@click.option("--variable", required=True, metavar="NAME", help="For example geopotential_mean.")
@_SELECT
@click.option("--centre", default=0.0, help="Longitude in the middle.")
@_BANNER
@_OUT
def map_command(
    file: Path, variable: str, select: tuple[str, ...], centre: float, banner: str, out: Path
) -> None:
    """A map of any variable of any store: --select level=500 --select lead_time=24."""
    from postprocess.plots.maps import map_figure
    from postprocess.plots.open import field_of
    from postprocess.plots.style import save

    with field_of(file, variable, select, banner) as (field, stamp, lead_hours):
        save(map_figure(field, stamp, lead_hours=lead_hours, centre=centre), out)
    click.echo(str(out))


@plot.command()
@_FILE
@click.option("--variable", required=True, metavar="NAME", help="For example geopotential.")
@click.option("--value", required=True, type=float, help="Contour, in the unit of the figure.")
@_SELECT
@_BANNER
@_OUT
def spaghetti(
    file: Path, variable: str, value: float, select: tuple[str, ...], banner: str, out: Path
) -> None:
    """One contour of every healthy member of forecast.zarr."""
    from postprocess.plots.maps import spaghetti_figure
    from postprocess.plots.open import members_of
    from postprocess.plots.style import save

    with members_of(file, variable, select, banner) as (field, stamp, lead_hours):
        save(spaghetti_figure(field, stamp, value=value, lead_hours=lead_hours), out)
    click.echo(str(out))


@plot.command()
@_FILE
@click.option("--lead", "lead_hours", required=True, type=int, help="Hours.")
@click.option("--level", type=int, default=None, help="hPa; without it the 10 m wind.")
@_BANNER
@_OUT
def spectrum(file: Path, lead_hours: int, level: int | None, banner: str, out: Path) -> None:
    """Spectra of spectra.zarr against the analysis."""
    from postprocess.plots.open import opened
    from postprocess.plots.spectrum import spectrum_figure
    from postprocess.plots.style import save

    with opened(file, banner) as (dataset, stamp):
        save(spectrum_figure(dataset, stamp, lead_hours=lead_hours, level=level), out)
    click.echo(str(out))


@plot.command()
@_FILE
@click.option("--station", required=True, help="Name of a station in meteograms.zarr.")
@_BANNER
@_OUT
def meteogram(file: Path, station: str, banner: str, out: Path) -> None:
    """Quantile bands at one station of meteograms.zarr."""
    from postprocess.plots.open import opened
    from postprocess.plots.series import meteogram_figure
    from postprocess.plots.style import save

    with opened(file, banner) as (dataset, stamp):
        save(meteogram_figure(dataset, stamp, station=station), out)
    click.echo(str(out))


@plot.command()
@_FILE
@_BANNER
@_OUT
def tracks(file: Path, banner: str, out: Path) -> None:
    """Tracks of tracks.parquet or tracks.csv."""
    from postprocess.plots.open import tracks_of
    from postprocess.plots.style import save
    from postprocess.plots.tracks import tracks_figure

    table, stamp = tracks_of(file, banner)
    save(tracks_figure(table, stamp), out)
    click.echo(str(out))


@plot.command()
@_FILE
@click.option("--variable", default="strike_probability", show_default=True)
@_SELECT
@_BANNER
@_OUT
def strike(file: Path, variable: str, select: tuple[str, ...], banner: str, out: Path) -> None:
    """A map of cyclone_probability.zarr; --select window=48 for a window."""
    from postprocess.plots.open import field_of
    from postprocess.plots.style import save
    from postprocess.plots.tracks import strike_figure

    with field_of(file, variable, select, banner) as (field, stamp, _):
        save(strike_figure(field, stamp), out)
    click.echo(str(out))


@plot.command()
@_FILE
@click.option("--system", required=True, help="Id of a system, for example 70W.")
@_BANNER
@_OUT
def plume(file: Path, system: str, banner: str, out: Path) -> None:
    """Pressure and wind of one system of plumes.zarr."""
    from postprocess.plots.open import opened
    from postprocess.plots.style import save
    from postprocess.plots.tracks import plume_figure
    from postprocess.products.grids import selected

    with opened(file, banner) as (dataset, stamp):
        own = selected(dataset, [f"system={system}"], where=str(file))
        save(plume_figure(own, stamp), out)
    click.echo(str(out))
