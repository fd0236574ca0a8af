"""Products in threads: order, bounded memory, faults that reach the caller."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import ModelError
from postprocess.products.lanes import Lanes

SHAPE = (2, 1, 4, 3)


def step(number: int) -> ForecastStep:
    lead = np.timedelta64(6 * number, "h").astype("timedelta64[ns]")
    fields = np.full(SHAPE, number, np.float32)
    return ForecastStep(np.datetime64("2026-01-01", "ns"), number, lead, (0, 1), ("a",), fields)


def unchanged(given: ForecastStep) -> ForecastStep:
    return given


@pytest.fixture
def lanes():
    made: list[Lanes] = []

    def make(*arguments, **options) -> Lanes:
        made.append(Lanes(*arguments, **options))
        return made[0]

    yield make
    made[0].close()


def test_every_consumer_sees_every_step_in_order_as_it_was_given(lanes):
    seen: dict[str, list[float]] = {"a": [], "b": []}
    work = lanes(
        unchanged,
        {
            "a": [lambda s: seen["a"].append(s.fields.mean())],
            "b": [lambda s: seen["b"].append(s.fields.mean())],
        },
    )
    for number in range(40):
        given = step(number)
        work.feed(given)
        given.fields[:] = -1  # the producer uses its array again at once
    work.drain()
    assert seen == {"a": list(range(40)), "b": list(range(40))}


def test_the_caller_waits_while_two_copies_are_in_use(lanes):
    gate, begun = threading.Event(), threading.Event()

    def slow(_: ForecastStep) -> None:
        begun.set()
        gate.wait(30)

    work = lanes(unchanged, {"slow": [slow]})
    work.feed(step(0))
    work.feed(step(1))
    third = threading.Thread(target=work.feed, args=(step(2),))
    third.start()
    assert begun.wait(30)
    assert third.is_alive()
    gate.set()
    third.join(30)
    assert not third.is_alive()
    work.drain()


def test_memory_is_used_again(lanes):
    places = set()
    work = lanes(unchanged, {"a": [lambda s: places.add(s.fields.ctypes.data)]})
    for number in range(20):
        work.feed(step(number))
    work.drain()
    assert len(places) <= 2


@pytest.mark.parametrize("where", ["screen", "consumer"])
def test_a_fault_reaches_the_caller_and_stops_the_others(lanes, where):
    def broken(given: ForecastStep) -> ForecastStep:
        if given.step == 3:
            raise ModelError("too few members")
        return given

    seen: list[int] = []
    consumers = {"other": [lambda s: seen.append(s.step)]}
    if where == "consumer":
        consumers["broken"] = [broken]
    work = lanes(broken if where == "screen" else unchanged, consumers)
    with pytest.raises(ModelError, match="too few"):  # noqa: PT012 - which call raises is open
        for number in range(10):
            work.feed(step(number))
        work.drain()
    with pytest.raises(ModelError, match="too few"):
        work.feed(step(10))
    assert seen == list(range(len(seen)))
    assert len(seen) <= 6


def test_work_in_a_lane_comes_after_its_steps(lanes):
    seen: list[int] = []
    work = lanes(unchanged, {"a": [lambda s: seen.append(s.step)]})
    for number in range(5):
        work.feed(step(number))
    work.drain()
    assert work.run("a", lambda: list(seen)).result() == list(range(5))


def test_closing_drops_what_waits(lanes):
    gate = threading.Event()
    seen: list[int] = []

    def slow(given: ForecastStep) -> None:
        seen.append(given.step)
        gate.wait(30)

    work = lanes(unchanged, {"slow": [slow]})
    work.feed(step(0))
    work.feed(step(1))
    gate.set()
    work.close()
    assert seen[:1] == [0]
