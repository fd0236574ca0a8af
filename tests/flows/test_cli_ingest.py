from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flows.cli.ingest import gate, ingest, sources
from ingest.archive import append_analysis
from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError, DataError, InputError
from mosaic_core.contract.schema import channels_to_dataset

DATA = Path(__file__).parents[1] / "data"
T2M = str(DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2")


def run(command, *words: str):
    return CliRunner().invoke(command, list(words), catch_exceptions=False)


def test_a_plan_tells_stretches_bytes_and_holes() -> None:
    done = run(sources, "plan", "2023-01-10T00Z", "2024-12-01T00Z")
    lines = done.output.splitlines()
    assert lines[0].startswith(
        "2023-01-10T00Z to 2023-01-10T18Z, 4 cycles: wb2-hres, wb2-era5, 9.5 MB"
    )
    assert "NOT AVAILABLE" in lines[1]
    assert any("unproven" in line for line in lines)
    assert lines[-1].endswith("GB from the first source of each")


def test_the_fields_of_a_file_are_judged(tmp_path: Path) -> None:
    done = run(gate, T2M, "--data-root", str(tmp_path), "--plot", str(tmp_path / "v.png"))
    assert "verdict: pass" in done.output
    assert "unchecked" in done.output
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["verdict.txt", "verdict"])
def test_a_figure_that_cannot_be_drawn_is_refused_before_the_judgement(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="figures are PNG or SVG"):
        run(gate, "absent.grib2", "--data-root", str(tmp_path), "--plot", str(tmp_path / name))


def test_a_refusal_is_an_error_of_its_own(tmp_path: Path) -> None:
    cycle = Cycle.parse("2026-11-23T00Z")
    flat = channels_to_dataset(np.zeros((1, 82, 121, 240), np.float32), {"time": [cycle.init_time]})
    append_analysis(tmp_path / "analyses.zarr", flat)
    with pytest.raises(DataError, match="the gate refuses") as caught:
        run(gate, "2026-11-23T00Z", "--data-root", str(tmp_path))
    assert caught.value.exit_code == 4


def test_what_is_neither_file_nor_cycle_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a cycle"):
        run(gate, "yesterday", "--data-root", str(tmp_path))
    with pytest.raises(ArchiveError, match="no archive"):
        run(gate, "2026-11-23T00Z", "--data-root", str(tmp_path))


def test_files_without_the_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="81 of 82 fields"):
        run(ingest, "files", T2M, "--data-root", str(tmp_path))


def test_ingest_takes_a_cycle_by_default(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read 'tomorrow' as a cycle"):
        run(ingest, "tomorrow", "--data-root", str(tmp_path))
    with pytest.raises(InputError, match="unknown source 'gopher'"):
        run(ingest, "2026-11-23T00Z", "--source", "gopher", "--data-root", str(tmp_path))
    assert "cycle" in run(ingest, "--help").output


def test_a_correction_says_how_scores_follow(tmp_path: Path) -> None:
    """From a store of the made-up atmosphere: the gate would refuse anything else."""
    cycle, address = Cycle.parse("2026-11-23T00Z"), str(tmp_path / "a.zarr")
    fields = Atmosphere.model().fields(cycle.init_time)
    made = channels_to_dataset(fields[None], {"time": [cycle.init_time]})
    made.drop_vars("provenance", errors="ignore").to_zarr(address, zarr_format=2, consolidated=True)
    words = (cycle.label, "--source", address, "--data-root", str(tmp_path))
    assert "archived 2026-11-23T00Z" in run(ingest, *words).output
    assert "nothing done" in run(ingest, *words).output
    corrected = run(ingest, *words, "--correct", "a bad mirror").output
    assert corrected.endswith("mosaic-ops verify --since 2026-11-23T00Z\n")
