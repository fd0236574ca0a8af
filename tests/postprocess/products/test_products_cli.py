"""The commands on products, through the entry point, with their exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.cli.main import main
from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.schema import channels_to_dataset

DATA = Path(__file__).parents[2] / "data"
MSL = DATA / "era5_msl_2p5_20251201_40steps.nc"
WINDS = DATA / "era5_uv850_2025120100_2.5x2.5.nc"
INIT = np.datetime64("2026-08-20T00", "ns")


@pytest.fixture
def run(monkeypatch, capsys):
    """`mosaic-ops` with arguments: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mosaic-ops", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> Path:
    """A stored forecast: two members, three leads of the made-up atmosphere."""
    atmosphere = Atmosphere.model(5)
    times = [[INIT + np.timedelta64(360 * k + 9 * k * m, "m") for k in range(3)] for m in (0, 1)]
    array = np.stack([[atmosphere.fields(time) for time in row] for row in times])[None]
    leads = (6 * np.arange(3)).astype("timedelta64[h]").astype("timedelta64[ns]")
    leading = {"init_time": np.array([INIT]), "number": np.arange(2), "lead_time": leads}
    path = tmp_path_factory.mktemp("run") / "forecast.zarr"
    channels_to_dataset(array, leading).to_zarr(path, consolidated=False)
    return path


@pytest.fixture(scope="module")
def made(forecast) -> Path:
    from postprocess.products.remake import remake_products

    folder = forecast.parent / "products"
    remake_products(forecast, folder)
    return folder


def test_nodes_to_csv(run, tmp_path):
    out = tmp_path / "nodes.csv"
    code, said, _ = run(
        "cyclones", "nodes", MSL, "--closed-contour", "msl,200,5.5,0", "--out", out
    )  # fmt: skip
    table = pd.read_csv(out)
    expected = pd.read_csv(DATA / "te_detectnodes_era5_msl_2p5.csv")
    assert code == 0
    assert "1377 nodes" in said
    assert list(table.columns) == ["time_index", "longitude", "latitude", "value"]
    keys = ["time_index", "longitude", "latitude"]
    np.testing.assert_array_equal(table[keys], expected[keys])


def test_nodes_with_more_contours_merging_and_limits(run, tmp_path):
    out = tmp_path / "nodes.csv"
    code, _, _ = run(
        "cyclones", "nodes", MSL, "--closed-contour", "msl,200,5.5,0", "--closed-contour",
        "msl,400,8,2.6", "--merge-dist", "6", "--max-abs-lat", "60", "--out", out,
    )  # fmt: skip
    table = pd.read_csv(out)
    assert code == 0
    assert 0 < len(table) < 1377
    assert table.latitude.abs().max() <= 60


def test_spectra_to_netcdf(run, tmp_path):
    out = tmp_path / "spectra.nc"
    code, _, _ = run(
        "spectra", WINDS, "--u", "u", "--v", "v", "--row-order", "south-north", "--out", out
    )  # fmt: skip
    assert code == 0
    with xr.open_dataset(out, engine="netcdf4") as found:
        assert found.degree.values.tolist() == list(range(72))
        assert found.ke_rot.attrs["units"] == "m2 s-2"
        assert found.ke_rot.sum() > 10 * found.ke_div.sum()


def test_mislabelled_rows_are_an_error_with_a_remedy(run, tmp_path):
    out = tmp_path / "spectra.nc"
    code, _, err = run("spectra", WINDS, "--u", "u", "--v", "v", "--out", out)
    assert code == 4
    assert "rows run against their latitude labels" in err
    assert "remedy:" in err
    assert "Traceback" not in err
    assert not out.exists()


def test_products_of_a_store(run, forecast, tmp_path):
    code, said, err = run("products", forecast, "--only", "spectra,cyclones", "--out", tmp_path)
    assert code == 0
    assert "lead 3 of 3" in err
    written = said.split()
    assert str(tmp_path / "spectra.zarr") in written
    assert all(Path(path).exists() for path in written)
    assert not (tmp_path / "ensemble.zarr").exists()


def test_unknown_product_is_an_error(run, forecast, tmp_path):
    code, _, err = run("products", forecast, "--only", "spectrum", "--out", tmp_path)
    assert code == 2
    assert "no such products: spectrum" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("map", "ensemble.zarr", "--variable", "geopotential_mean", "--select", "level=500",
         "--select", "lead_time=12"),
        ("map", "../forecast.zarr", "--variable", "2m_temperature", "--select", "number=1",
         "--select", "lead_time=6", "--banner", "not weather"),
        ("spaghetti", "../forecast.zarr", "--variable", "geopotential", "--value", "552",
         "--select", "level=500", "--select", "lead_time=12"),
        ("spectrum", "spectra.zarr", "--lead", "12", "--level", "500"),
        ("meteogram", "meteograms.zarr", "--station", "Manila"),
        ("tracks", "tracks.parquet"),
        ("strike", "cyclone_probability.zarr"),
        ("strike", "cyclone_probability.zarr", "--variable", "activity_probability_in_window",
         "--select", "window=0"),
    ],
)  # fmt: skip
def test_plots(run, made, tmp_path, arguments):
    kind, file, *options = arguments
    code, _, err = run("plot", kind, made / file, *options, "--out", tmp_path / "figure.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_members_that_the_store_calls_sick_are_left_out_from_their_lead_on(forecast, tmp_path):
    from postprocess.plots.open import members_of

    store = tmp_path / "forecast.zarr"
    with xr.open_zarr(forecast, chunks=None, consolidated=False) as whole:
        told = whole[["2m_temperature"]].assign_attrs(member_health=["member 1: noise at +12 h"])
        told.to_zarr(store, consolidated=False)
    for lead, numbers, said in ((6, [0, 1], "2 members"), (12, [0], "1 of 2 members")):
        with members_of(store, "2m_temperature", [f"lead_time={lead}"]) as (field, stamp, hours):
            assert hours == lead
            assert field.number.values.tolist() == numbers
            assert stamp.source == f"Mosaic, {said}"


def test_plume_of_the_first_system(run, made, tmp_path):
    with xr.open_zarr(made / "plumes.zarr", chunks=None, consolidated=True) as plumes:
        system = str(plumes.system.values[0])
    code, _, _ = run(
        "plot", "plume", made / "plumes.zarr", "--system", system, "--out", tmp_path / "a.svg"
    )
    assert code == 0
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("map", "ensemble.zarr", "--variable", "height"), "no variable 'height'"),
        (("map", "ensemble.zarr", "--variable", "2m_temperature_mean"), "a map needs"),
        (("map", "ensemble.zarr", "--variable", "2m_temperature_mean", "--select",
          "lead_time=100"), "lead_time has no value 100"),
        (("meteogram", "meteograms.zarr", "--station", "Atlantis"), "no station 'Atlantis'"),
        (("tracks", "health.csv"), "track_id: missing"),
    ],
)  # fmt: skip
def test_plot_errors_name_the_remedy(run, made, tmp_path, arguments, said):
    kind, file, *options = arguments
    code, _, err = run("plot", kind, made / file, *options, "--out", tmp_path / "figure.png")
    assert code in (2, 4)
    assert said in err
    assert not (tmp_path / "figure.png").exists()


def test_many_stores_in_processes(run, forecast, tmp_path):
    code, said, _ = run(
        "products", forecast, forecast, "--only", "spectra", "--out", tmp_path
    )  # fmt: skip
    assert code == 2
    shutil.copytree(forecast, tmp_path / "other" / "forecast.zarr")
    other = tmp_path / "other" / "forecast.zarr"
    code, said, _ = run("products", forecast, other, "--only", "spectra")
    assert code == 0
    assert said.split() == [
        str(store.parent / "products" / "spectra.zarr") for store in (forecast, other)
    ]


def test_one_store_on_a_distributed_scheduler(run, forecast, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        code, said, _ = run(
            "products", forecast, "--only", "scalar_spectra", "--out", tmp_path, "--scheduler",
            cluster.scheduler_address,
        )  # fmt: skip
    assert code == 0
    assert said.strip() == str(tmp_path / "20260820T00Z" / "scalar_spectra.zarr")
    assert Path(said.strip()).exists()
