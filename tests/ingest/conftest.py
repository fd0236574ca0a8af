"""A small feed: genuine 0.25 degree GRIB2 messages, their index, a mirror that misbehaves."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import eccodes
import numpy as np
import pytest

from ingest.gate.reference import Reference
from ingest.index import channel_key
from ingest.sources import Source, analysis_files
from ingest.synthetic.atmosphere import Atmosphere
from ingest.transfer import TransferPolicy
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.variables import CHANNELS, Channel

DATA = Path(__file__).parents[1] / "data"
LATITUDE = np.linspace(90.0, -90.0, 721)
LONGITUDE = 180.0 + 0.25 * np.arange(1440)


def made_values(channel: Channel, shift: float = 0.0) -> np.ndarray:
    """A field inside the channel's range that no flip, roll or neighbour leaves unnoticed."""
    middle, half = (channel.minimum + channel.maximum) / 2, (channel.maximum - channel.minimum) / 2
    rows = np.sin(np.deg2rad(LATITUDE))[:, None] * 0.3 + 0.1
    columns = np.where(np.cos(np.deg2rad(LONGITUDE - 40.0)) > 0, 0.2, -0.2)[None, :]
    return middle + half * (rows + columns + shift)


def encode(
    channel: Channel, param: str, values: np.ndarray, cycle: Cycle, *, step: int = 0,
    stream: str = "oper",
) -> bytes:  # fmt: skip
    """One message as ECMWF sends it: CCSDS, 12 bits, 90N->90S, first longitude 180."""
    surface = channel.level_hpa is None
    handle = eccodes.codes_grib_new_from_samples(
        "regular_ll_sfc_grib2" if surface else "regular_ll_pl_grib2"
    )
    keys = {
        "tablesVersion": 32, "centre": "ecmf", "setLocalDefinition": 1, "localDefinitionNumber": 1,
        "class": "od", "stream": stream, "type": "fc", "expver": "0001",
        "shapeOfTheEarth": 6, "Ni": 1440, "Nj": 721,
        "latitudeOfFirstGridPointInDegrees": 90.0, "longitudeOfFirstGridPointInDegrees": 180.0,
        "latitudeOfLastGridPointInDegrees": -90.0, "longitudeOfLastGridPointInDegrees": 179.75,
        "iDirectionIncrementInDegrees": 0.25, "jDirectionIncrementInDegrees": 0.25,
        "dataDate": int(f"{cycle.datetime:%Y%m%d}"), "dataTime": cycle.datetime.hour * 100,
        "step": step, "shortName": param,
    }  # fmt: skip
    if not surface:
        keys |= {"typeOfLevel": "isobaricInhPa", "level": channel.level_hpa}
    for name, value in keys.items():
        eccodes.codes_set(handle, name, value)
    eccodes.codes_set(handle, "bitsPerValue", 12)
    eccodes.codes_set(handle, "packingType", "grid_ccsds")
    eccodes.codes_set_values(handle, np.ascontiguousarray(values, np.float64).ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def redated(content: bytes, cycle: Cycle, *, step: int = 0, stream: str = "oper") -> bytes:
    """The same message for another cycle."""
    handle = eccodes.codes_new_from_message(content)
    eccodes.codes_set(handle, "dataDate", int(f"{cycle.datetime:%Y%m%d}"))
    eccodes.codes_set(handle, "dataTime", cycle.datetime.hour * 100)
    eccodes.codes_set(handle, "step", step)
    eccodes.codes_set(handle, "stream", stream)
    changed = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return changed


Row = dict[str, object]


@dataclass
class Upload:
    """The two objects of one step of a cycle, as lists that a test may spoil before serving."""

    cycle: Cycle
    step: int
    stream: str
    messages: list[bytes]
    rows: list[Row]

    def data(self) -> bytes:
        return b"".join(self.messages)

    def index(self) -> bytes:
        return b"".join(json.dumps(row).encode() + b"\n" for row in self.rows)

    def row(self, channel_name: str) -> Row:
        return self.rows[self.place(channel_name)]

    def place(self, channel_name: str) -> int:
        return next(i for i, row in enumerate(self.rows) if row["_channel"] == channel_name)

    def replace(self, channel_name: str, content: bytes) -> None:
        """Put another message in the place of one; the index follows."""
        self.messages[self.place(channel_name)] = content
        self.reindex()

    def reindex(self) -> None:
        offset = 0
        for row, content in zip(self.rows, self.messages, strict=True):
            row["_offset"], row["_length"] = offset, len(content)
            offset += len(content)


def _row(channel: Channel, param: str, cycle: Cycle, step: int, stream: str) -> Row:
    key = channel_key(channel, param)
    level = {} if key.level is None else {"levelist": str(key.level)}
    return {
        "domain": "g", "date": f"{cycle.datetime:%Y%m%d}", "time": f"{cycle.datetime:%H}00",
        "expver": "0001", "class": "od", "type": "fc", "stream": stream, "step": str(step),
        "levtype": key.levtype, "param": param, **level, "_channel": channel.name,
    }  # fmt: skip


@pytest.fixture(scope="session")
def messages() -> dict[str, bytes]:
    """Encoded messages of all 82 channels (geopotential as gh), dated 2026-04-04T00Z."""
    cycle = Cycle.parse("2026-04-04T00Z")
    made = {}
    for channel in CHANNELS:
        param = "gh" if channel.variable.name == "geopotential" else channel.variable.params[0]
        values = made_values(channel) / (9.80665 if param == "gh" else 1.0)
        made[channel.name] = encode(channel, param, values, cycle)
    return made


@pytest.fixture
def make_upload(messages: dict[str, bytes]) -> Callable[..., Upload]:
    """Uploads of any cycle: rows in a scrambled order, with fields nobody wants between."""

    def make(cycle: Cycle, *, step: int = 0) -> Upload:
        stream = analysis_files(cycle, Source("any", "http://any"), step=step).stream
        order = np.random.default_rng(7).permutation(len(CHANNELS))
        contents, rows = [], []
        for index in order:
            channel = CHANNELS[index]
            param = "gh" if channel.variable.name == "geopotential" else channel.variable.params[0]
            contents.append(redated(messages[channel.name], cycle, step=step, stream=stream))
            rows.append(_row(channel, param, cycle, step, stream))
        filler = redated(messages["2m_temperature"], cycle, step=step, stream=stream)
        contents.insert(5, filler)
        rows.insert(5, _row(CHANNELS[0], "2d", cycle, step, stream) | {"_channel": "filler"})
        upload = Upload(cycle, step, stream, contents, rows)
        upload.reindex()
        return upload

    return make


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what these tests are about."""


Answer = Callable[["Handler"], bool]


@dataclass
class MirrorServer:
    """A mirror on this host. `faults` maps a path ending to answers used up one by one."""

    root: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source("test", self.root)

    def fault(self, ending: str, *answers: Answer) -> None:
        """Use up `answers` on the requests whose 'METHOD path' ends so."""
        self.faults[ending] += answers

    def serve(self, upload: Upload) -> None:
        location = analysis_files(upload.cycle, self.source, step=upload.step)
        self.put(location.data_url, upload.data())
        self.put(location.index_url, upload.index())

    def put(self, url: str, content: bytes, etag: str = "v1") -> None:
        path = url.removeprefix(self.root)
        self.objects[path], self.etags[path] = content, f'"{etag}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: MirrorServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.mirror.requests.append((self.command, self.path, wanted))
        for ending, answers in self.mirror.faults.items():
            if answers and f"{self.command} {self.path}".endswith(ending) and answers.pop(0)(self):
                return
        content = self.mirror.objects.get(self.path)
        if content is None:
            self.reply(404, b"")
        elif wanted:
            self.reply_range(content, wanted)
        else:
            self.reply(200, content if body else b"", length=len(content))

    def reply_range(self, content: bytes, wanted: str) -> None:
        start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        if start >= len(content):
            self.reply(416, b"")
            return
        piece = content[start : end + 1]
        span = f"bytes {start}-{start + len(piece) - 1}/{len(content)}"
        self.reply(206, piece, headers={"Content-Range": span})

    def reply(
        self, status: int, content: bytes, *, length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if self.path in self.mirror.etags:
            self.send_header("ETag", self.mirror.etags[self.path])
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def status(code: int, **headers: str) -> Answer:
    """Answer with this status instead."""

    def answer(handler: Handler) -> bool:
        handler.reply(code, b"", headers={k.replace("_", "-"): v for k, v in headers.items()})
        return True

    return answer


def stall(seconds: float) -> Answer:
    """Say nothing for a while, then nothing useful."""

    def answer(handler: Handler) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return answer


def cut_after(count: int) -> Answer:
    """Promise the whole range, send `count` bytes, drop the connection."""

    def answer(handler: Handler) -> bool:
        content = handler.mirror.objects[handler.path]
        start, end = (int(n) for n in handler.headers["Range"].removeprefix("bytes=").split("-"))
        handler.send_response(206)
        handler.send_header("Content-Length", str(end + 1 - start))
        handler.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[start : start + min(count, end + 1 - start)])
        handler.close_connection = True
        return True

    return answer


def ignore_range(handler: Handler) -> bool:
    """Send the whole object where a range was asked for."""
    handler.reply(200, handler.mirror.objects[handler.path])
    return True


@dataclass(frozen=True)
class Answers:
    """The ways to misbehave."""

    status = staticmethod(status)
    stall = staticmethod(stall)
    cut_after = staticmethod(cut_after)
    ignore_range = staticmethod(ignore_range)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def mirror() -> Iterator[MirrorServer]:
    state = MirrorServer()
    handler = type("BoundHandler", (Handler,), {"mirror": state})
    server = _QuietServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.root = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def policy() -> TransferPolicy:
    """Short waits, so that a misbehaving mirror is met quickly."""
    return TransferPolicy(
        connect_seconds=1.0, read_seconds=0.4, total_seconds=20.0, attempts=4,
        backoff_seconds=0.01, backoff_limit_seconds=0.05,
    )  # fmt: skip


@pytest.fixture(scope="session")
def made_up_air() -> Atmosphere:
    return Atmosphere.model()


@pytest.fixture(scope="session")
def made_up_reference(made_up_air: Atmosphere) -> Reference:
    """Statistics as a model of this made-up atmosphere would carry them, unweighted."""
    days = ["2025-01-15T00Z", "2025-04-15T06Z", "2025-07-15T12Z", "2025-10-15T18Z"]
    year = np.stack([made_up_air.fields(Cycle.parse(day).init_time) for day in days])
    wide, ground = year.astype(np.float64), made_up_air.planet
    return Reference(
        wide.mean(axis=(0, 2, 3)), wide.std(axis=(0, 2, 3)),
        ground.geopotential_at_surface, ground.land_sea_mask,
    )  # fmt: skip


@pytest.fixture
def cycle() -> Cycle:
    return Cycle.parse("2026-11-23T00Z")
