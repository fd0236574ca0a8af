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
