"""`mosaic-ops`: the same stage functions as the scheduled flows, with or without a server."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys

import click

from mosaic_core.contract.errors import DeviceError, InputError, MosaicOpsError

COMMANDS = {
    "demo": ("flows.cli.run", "demo", "A whole cycle on a made-up atmosphere; needs nothing."),
    "run": ("flows.cli.run", "run", "One forecast cycle, from the analysis to the published Zarr."),
    "settings": ("flows.cli.run", "settings", "Every setting, its value here and its meaning."),
    "model": ("flows.cli.model", "model", "Parity with reference cases, benchmarks."),
    "weights": ("flows.cli.model", "weights", "Fetch and check the published weights."),
    "ingest": ("flows.cli.ingest", "ingest", "Fetch, check and archive an analysis, or files."),
    "sources": ("flows.cli.ingest", "sources", "Where the analyses of a window come from."),
    "gate": ("flows.cli.ingest", "gate", "Judge an archived analysis or the fields of a file."),
    "regrid": ("flows.cli.ingest", "regrid", "A 0.25 degree GRIB file to NetCDF on 1.5 degrees."),
    "cyclones": ("flows.cli.products", "cyclones", "Nodes of tropical cyclones in any CF file."),
    "spectra": ("flows.cli.products", "spectra", "Kinetic-energy spectra of any CF file."),
    "products": ("flows.cli.products", "products", "The products of a stored forecast again."),
    "plot": ("flows.cli.products", "plot", "Figures of a run's stores, PNG or SVG."),
    "verify": ("flows.cli.scores", "verify", "Score forecasts against the analyses since then."),
    "scores": ("flows.cli.scores", "scores", "How good the forecasts of the last days were."),
    "view": ("flows.cli.view", "view", "The page of a published folder, in a browser."),
    "catalog": ("flows.cli.publishing", "catalog", "What is published, when it came, how whole."),
    "verify-store": ("flows.cli.publishing", "verify_store", "A published run, object by object."),
    "rebuild": ("flows.cli.publishing", "rebuild", "Members of an old cycle again, to the bit."),
    "retain": ("flows.cli.publishing", "retain", "Delete what is past its time, by the rules."),
    "templates": ("flows.cli.publishing", "templates", "The reviewed metadata of the stores."),
    "synthetic": ("flows.cli.synthetic", "synthetic", "The made-up atmosphere and its mirror."),
    "status": ("flows.cli.operations", "status", "Every cycle, stage by stage; how soon it came."),
    "reconcile": ("flows.cli.operations", "reconcile", "Finish crashed, late and missing cycles."),
    "backfill": ("flows.cli.operations", "backfill", "Many past cycles: the plan, then the runs."),
    "deploy": ("flows.cli.machines", "deploy", "Pools, queues and deployments in Prefect."),
    "server": ("flows.cli.machines", "server", "A Prefect server with the settings it needs."),
    "worker": ("flows.cli.machines", "worker", "A worker for a pool, after its canary."),
    "workers": ("flows.cli.machines", "workers", "Who serves each pool, and what waits there."),
    "alerts": ("flows.cli.operations", "alerts", "The alerts that hold; silence one for a while."),
    "deadman": ("flows.cli.operations", "deadman", "Is anything published? Needs no server."),
    "canary": ("flows.cli.machines", "canary", "Is this machine fit to run the model?"),
}
"""Command -> (module, attribute, short help). Modules load when their command is used."""


UNEXPECTED = 70  # EX_SOFTWARE
REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip
"""What the system answers when a path, not the program, is wrong. A file that is missing is not
here: a command says itself which of its inputs it misses."""
LOG_FORMAT = "MOSAIC_OPS_LOG_FORMAT"


class LazyGroup(click.Group):
    """Loads a command's module when it is needed, so that `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in COMMANDS])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mosaic-ops", message="%(package)s %(version)s")
@click.option("-v", "--verbose", count=True, help="Log more; twice for every detail.")
@click.option(
    "--log-format",
    envvar=LOG_FORMAT,
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="json: one line an event with its cycle, stage and run, on stderr.",
)
def cli(verbose: int, log_format: str) -> None:
    """Mosaic ensemble forecasts from ECMWF open data: fetch, check, run, publish."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    if log_format == "text":
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return
    from flows.logs import json_handler

    os.environ[LOG_FORMAT] = log_format  # the settings of the command follow
    logging.basicConfig(level=min(level, logging.INFO), handlers=[json_handler()])


def main() -> None:
    """Run the command; a known error is one message on stderr and its own exit code."""
    try:
        code = cli.main(standalone_mode=False)  # the exit code when a command asked for one
        sys.exit(code if type(code) is int else 0)
    except DeviceError as error:
        _tell(str(error))
        sys.stderr.flush()
        os._exit(error.exit_code)  # torch aborts while it gives back what a lost GPU held
    except MosaicOpsError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception as error:  # the last resort; -v shows where it comes from
        logging.getLogger("mosaic_ops").info("unexpected", exc_info=True)
        if refusal := _refusal(error):
            _tell(str(refusal))
            sys.exit(refusal.exit_code)
        _tell(
            f"unexpected {type(error).__name__}: {error}\n"
            "  remedy: this is a defect; run with -v and report what it says"
        )
        sys.exit(UNEXPECTED)


def _refusal(error: Exception) -> InputError | None:
    """What the system will not do with a file that somebody named, or None for anything else."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS or not error.filename:
        return None
    return InputError(
        f"cannot use this path: {error.strerror}",
        where=str(error.filename),
        remedy="name a path where this user may write and there is room, such as one in /tmp",
    )


def _tell(error: str) -> None:
    """An error for people, or as a line of the log for machines."""
    if os.environ.get(LOG_FORMAT) == "json":
        logging.getLogger("mosaic_ops").error(error)
    else:
        click.echo(f"error: {error}", err=True)


if __name__ == "__main__":
    main()
