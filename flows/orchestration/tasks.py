"""The stages as Prefect tasks, and what a run shows in Prefect's interface.

Prefect orders, retries and displays; what is done stands in the receipts and the stores. Nothing
is cached or persisted by Prefect: every stage recognises its own finished work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import MissingContextError, PrefectException
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run, task_run

from flows.logs import json_handler
from flows.progress import Advance, LogReporter, Reporter
from mosaic_core.contract.errors import MosaicOpsError, NotYetAvailable, SourceError
from postprocess.objects.root import RefusedError, UnreachableError

_log = logging.getLogger("mosaic_ops")

NETWORK_DELAYS = (30.0, 60.0, 120.0, 300.0)
"""Pauses between attempts of a stage that talks to a mirror, seconds."""

PROGRESS_SECONDS = 1.0  # between two updates of a progress artifact
MARKDOWN_LIMIT_BYTES = 200_000  # rows live in Prefect's database


@dataclass(frozen=True)
class Policy:
    """How a stage runs as a task: its attempts and the seconds after which it is given up.

    A timeout interrupts Python code only; the worker's own limit (systemd, Kubernetes) ends a
    process that hangs in a system call.
    """

    title: str
    retry_delays: tuple[float, ...] = ()
    timeout_seconds: float | None = None


POLICIES = {
    "wait": Policy("wait for", NETWORK_DELAYS),  # ends at the deadline of the settings
    "fetch": Policy("fetch", NETWORK_DELAYS, timeout_seconds=3600),
    "archive": Policy("archive", timeout_seconds=1800),
    "fill": Policy("fill", NETWORK_DELAYS, timeout_seconds=3600),
    "initial_state": Policy("initial state", timeout_seconds=600),
    # A CUDA error stays with its process: a rollout is tried again by a new run, not in this one.
    "rollout": Policy("rollout", timeout_seconds=5 * 3600),
    "publish": Policy("publish", (10.0, 60.0), timeout_seconds=3600),
}


def is_transient(error: BaseException) -> bool:
    """Whether trying again in a minute can help.

    A source or a store that failed and a broken connection can recover; damaged data, a deadline
    that has passed, a store that refuses and any other error of ours cannot.
    """
    if isinstance(error, NotYetAvailable | RefusedError):
        return False
    if isinstance(error, MosaicOpsError):
        return isinstance(error, SourceError | UnreachableError)
    return isinstance(error, OSError | httpx.TransportError)


def as_task(stage: Callable[..., Any], *arguments: Any) -> Any:
    """Call a stage as a task named after its cycle: the `run` to hand to forecast_cycle."""
    return _task(stage, *arguments)()


@dataclass
class LastStage:
    """Calls stages with `run`; `name` is that of the last one."""

    run: Callable[..., Any]
    name: str = ""

    def __call__(self, stage: Callable[..., Any], *arguments: Any) -> Any:
        """What the stage returns."""
        self.name = stage.__name__
        return self.run(stage, *arguments)


def _task(stage: Callable[..., Any], *arguments: Any) -> Task[[], Any]:
    """The arguments stay in a closure, where Prefect neither hashes nor stores them."""
    policy = POLICIES.get(stage.__name__, Policy(stage.__name__.replace("_", " ")))
    return Task(
        lambda: stage(*arguments),
        name=stage.__name__,
        task_run_name=f"{policy.title} {arguments[0]}",
        description=(stage.__doc__ or "").partition("\n")[0],
        retries=len(policy.retry_delays),
        retry_delay_seconds=list(policy.retry_delays) or None,
        retry_jitter_factor=0.3 if policy.retry_delays else None,
        retry_condition_fn=_is_worth_a_retry,
        timeout_seconds=policy.timeout_seconds,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _is_worth_a_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result(raise_on_failure=True)
    except BaseException as error:  # noqa: BLE001 - the state holds whatever the stage raised
        return is_transient(error)
    return False


class PrefectReporter:
    """Facts become log lines of the run, progress a bar in its Artifacts tab.

    `echo` shows the same on a terminal. A server that does not answer costs the display, never
    the stage.
    """

    def __init__(self, echo: Reporter | None = None) -> None:
        self._echo = echo or LogReporter()

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Announce a stage in the run's log; its bar appears with the first advance."""
        started = time.monotonic()
        bar = _ProgressBar(title)
        with self._echo.stage(title) as echo:

            def advance(done: int, total: int, note: str) -> None:
                echo(done, total, note)
                bar.advance(done, total, note)

            yield advance
        bar.finish()
        _run_log(f"{title}: done in {time.monotonic() - started:.1f} s")

    def say(self, fact: str) -> None:
        """One line in the run's log."""
        self._echo.say(fact)
        _run_log(fact)


class _ProgressBar:
    """A progress artifact that is moved at most once a second, from any thread."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._flow_run, self._task_run = _id(flow_run.id), _id(task_run.id)
        self._artifact: UUID | None = None
        self._due = 0.0

    def advance(self, done: int, total: int, note: str) -> None:
        """Show `done` of `total`; `note` goes beside it."""
        if time.monotonic() < self._due and done < total:
            return
        self._due = time.monotonic() + PROGRESS_SECONDS
        percent = 100.0 * done / total if total else 0.0
        self._show(percent, f"{self._title}: {done} of {total} {note}".rstrip())

    def finish(self) -> None:
        """Fill the bar, if there is one."""
        if self._artifact is not None:
            self._show(100.0, f"{self._title}: done")

    def _show(self, percent: float, description: str) -> None:
        with tolerant("progress bar") as client:
            if self._artifact is not None:
                update = ArtifactUpdate(data=percent, description=description)
                client.update_artifact(self._artifact, update)
                return
            new = ArtifactCreate(
                type="progress",
                data=percent,
                description=description,
                flow_run_id=self._flow_run,
                task_run_id=self._task_run,
            )
            self._artifact = client.create_artifact(new).id


def post_markdown(key: str, description: str, text: str) -> None:
    """Put markdown on the page of the run in progress.

    `key` (lower case, digits, dashes) collects the versions on one page. Larger texts than the
    database should hold are refused with a warning, not cut.
    """
    if len(text.encode()) > MARKDOWN_LIMIT_BYTES:
        _log.warning("artifact %s is larger than %d bytes: left out", key, MARKDOWN_LIMIT_BYTES)
        return
    new = ArtifactCreate(
        key=key,
        type="markdown",
        description=description,
        data=text,
        flow_run_id=_id(flow_run.id),
        task_run_id=_id(task_run.id),
    )
    with tolerant(f"artifact {key}") as client:
        client.create_artifact(new)


def name_run(name: str, tags: Sequence[str]) -> None:
    """Name the run in progress and add tags to those it has."""
    if run := _id(flow_run.id):
        with tolerant(f"name {name!r}") as client:
            client.update_flow_run(run, name=name, tags=sorted({*(flow_run.tags or ()), *tags}))


@contextmanager
def tolerant(what: str) -> Iterator[SyncPrefectClient]:
    """A client for displays: what the server does not take is logged and left out."""
    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, PrefectException, MosaicOpsError, OSError) as error:
        _log.warning("%s not shown in Prefect: %s", what, error)


def quieten_console() -> None:
    """Leave the terminal to our own reporter; Prefect's run logs still go to the server."""
    for _, handler in _consoles():
        handler.setLevel(logging.WARNING)


def log_as_json() -> None:
    """Lines of JSON instead of Prefect's on the terminal of a run, which is the worker's log."""
    for logger, handler in _consoles():
        logger.removeHandler(handler)
        logger.addHandler(json_handler())


def _consoles() -> list[tuple[logging.Logger, logging.Handler]]:
    """Run logs reach the terminal through the root logger, Prefect's own through its own."""
    loggers = (logging.getLogger(), logging.getLogger("prefect"))
    return [
        (logger, handler)
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, PrefectConsoleHandler)
    ]


def _tells_a_fact(record: logging.LogRecord) -> bool:
    """False for the line that Prefect adds after a task that went well: the stage's says more."""
    return record.levelno > logging.INFO or not str(record.msg).startswith("Finished in state")


def keep_to_the_story() -> None:
    """One line per fact in the log of a run."""
    logging.getLogger("prefect.task_runs").addFilter(_tells_a_fact)


def _run_log(fact: str) -> None:
    try:
        get_run_logger().info(fact)
    except MissingContextError:  # a thread of the stage, or no run at all
        _log.debug("outside a Prefect run: %s", fact)


def _id(text: str | None) -> UUID | None:
    return UUID(str(text)) if text else None
