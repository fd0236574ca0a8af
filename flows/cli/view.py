"""The command that shows a published folder in a browser."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from flows.settings import load_settings


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def view(folder: Path | None, config: Path | None, port: int) -> None:
    """Serve a published FOLDER (by default that of the settings) to a browser on this machine."""
    from postprocess.objects.root import open_root
    from postprocess.viewer.serve import serving
    from postprocess.viewer.site import write_viewer

    root = folder or Path(load_settings(config).published)
    with serving(root, port) as server:
        write_viewer(open_root(root))
        click.echo(f"open http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
