"""Messages and index rows against real ones and against ecCodes."""

from __future__ import annotations

import json
from pathlib import Path

import eccodes
import numpy as np
import pytest

from ingest.index import parse_index
from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.decoys import decoys
from ingest.synthetic.grib import (
    Encoder,
    GribFile,
    GridLabel,
    Identity,
    Label,
    label_of,
    model_messages,
)
from ingest.synthetic.tree import MirrorFile
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.variables import CHANNELS, channel

REAL = Path(__file__).parents[1] / "data"
REAL_INDEX = REAL / "ecmwf_ifs_oper_20260730_12z_72h.index"
MIDNIGHT = Identity(Cycle.parse("2026-04-04T00Z"), "oper")


def first_message(path: Path) -> bytes:
    with path.open("rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
        content = bytes(eccodes.codes_get_message(handle))
        eccodes.codes_release(handle)
    return content


def keys(content: bytes, *names: str) -> list[str]:
    handle = eccodes.codes_new_from_message(content)
    try:
        return [eccodes.codes_get_string(handle, name) for name in names]
    finally:
        eccodes.codes_release(handle)


def values(content: bytes) -> np.ndarray:
    handle = eccodes.codes_new_from_message(content)
    try:
        return eccodes.codes_get_values(handle)
    finally:
        eccodes.codes_release(handle)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("2t", Label("2t", "sfc")),
        ("q150", Label("q", "pl", 150)),
        ("lsm", Label("lsm", "sfc")),
    ],
)
def test_headers_are_those_of_real_messages(name: str, label: Label):
    real = first_message(REAL / f"ifs_oper_20260404_00z_0h_{name}_0p25_ccsds.grib2")
    field = values(real).reshape(721, 1440)
    with Encoder(MIDNIGHT) as encoder:
        ours = encoder.encode(label, field.astype(np.float32))
    before_data = 179  # sections 0 to 5 but for the packing; 8..16 is the length of the message
    reference = slice(155, 163)  # reference value and scale factors differ with float32 rounding
    for part in (slice(0, 8), slice(16, reference.start), slice(reference.stop, before_data)):
        assert ours[part] == real[part], part
    assert keys(ours, "md5Section3") == ["265781b4edc06425746b46a5775244eb"]
    step = 2.0 ** int(keys(real, "binaryScaleFactor")[0])
    np.testing.assert_allclose(values(ours), values(real), atol=1.01 * step)
    assert abs(len(ours) - len(real)) < 0.02 * len(real)


def test_every_channel_round_trips(coarse_file: MirrorFile, coarse_atmosphere: Atmosphere):
    fields = coarse_atmosphere.fields(coarse_file.cycle.init_time)
    content = coarse_file.data.read_bytes()
    rows = {row.key: row for row in parse_index(coarse_file.index.read_bytes(), "index")}
    for wanted, field in zip(CHANNELS, fields, strict=True):
        label = label_of(wanted)
        row = next(
            r for k, r in rows.items()
            if (k.param, k.levtype, k.level) == (label.param, label.levtype, label.level)
        )  # fmt: skip
        message = content[row.offset : row.end]
        assert keys(message, "shortName", "levtype", "class", "type", "stream", "step") == [
            label.param, label.levtype, "od", "fc", "oper", "0",
        ]  # fmt: skip
        if label.level is not None:
            assert keys(message, "level") == [str(label.level)]
        assert keys(message, "dataDate", "dataTime") == ["20261123", "0600"]
        quantum = np.ptp(field) / 2 ** (label.bits - 1)
        np.testing.assert_allclose(values(message).reshape(field.shape), field, atol=quantum)


def test_index_rows_read_like_real_ones(coarse_file: MirrorFile):
    real = [json.loads(line) for line in REAL_INDEX.read_text().splitlines()]
    orders = {tuple(row) for row in real}
    content = coarse_file.data.read_bytes()
    end = 0
    for line in coarse_file.index.read_text().splitlines():
        row = json.loads(line)
        assert tuple(row) in orders
        assert row["_offset"] == end
        end += row["_length"]
        message = content[row["_offset"] : end]
        assert message[:4] == b"GRIB"
        assert message[-4:] == b"7777"
        assert int.from_bytes(message[8:16], "big") == row["_length"]
        assert keys(message, "shortName", "levtype") == [row["param"], row["levtype"]]
    assert end == len(content)
    assert line.startswith('{"domain": "g", "date": "20261123", "time": "0600", "expver": "0001"')


def test_accumulations_are_constant_and_tiny():
    with Encoder(MIDNIGHT) as encoder:
        message = encoder.encode(
            Label("tp", "sfc", accumulated=True), np.zeros((721, 1440), np.float32)
        )
    assert len(message) == 224
    assert keys(message, "shortName", "bitsPerValue", "stepType") == ["tp", "0", "accum"]


def test_soil_has_its_own_level_type(coarse_atmosphere: Atmosphere):
    fields = coarse_atmosphere.fields(MIDNIGHT.cycle.init_time)
    made = list(decoys("full", fields, coarse_atmosphere.planet))
    soil = [label for label, _ in made if label.levtype == "sol"]
    assert {label.level for label in soil} == {1, 2, 3, 4}
    names = {(label.param, label.levtype) for label, _ in made}
    assert {("gh", "pl"), ("vo", "pl"), ("d", "pl"), ("r", "pl"), ("z", "sfc")} <= names
    assert not list(decoys("none", fields, coarse_atmosphere.planet))
    wanted = {label for label, _ in model_messages(fields)}
    assert not wanted & {label for label, _ in made}
    with Encoder(MIDNIGHT, GridLabel(61, 120)) as encoder:
        for label, field in made:
            message = encoder.encode(label, field)
            assert keys(message, "shortName", "levtype") == [label.param, label.levtype]


def test_older_eras_carry_height():
    height = dict(model_messages(np.full((82, 3, 4), 98.0665, np.float32), "gh"))
    np.testing.assert_allclose(height[Label("gh", "pl", 500)], 10.0)
    assert label_of(channel("geopotential_500"), "gh") == Label("gh", "pl", 500)


def test_step_and_stream_are_in_header_and_row():
    identity = Identity(Cycle.parse("2025-01-01T06Z"), "scda", step=6)
    file = GribFile(identity)
    with Encoder(identity, GridLabel(7, 12)) as encoder:
        file.add(Label("t", "pl", 500), encoder.encode(Label("t", "pl", 500), np.eye(7, 12)))
    assert keys(bytes(file.content), "stream", "step") == ["scda", "6"]
    row = json.loads(file.index())
    assert (row["stream"], row["step"], row["levelist"]) == ("scda", "6", "500")
