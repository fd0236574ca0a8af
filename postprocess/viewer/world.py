"""`page/world.json`: the coastlines and colours that the page draws with, as the figures have them.

Run as a program it writes the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from postprocess.plots.coastlines import coastlines

COLOURS = ("viridis", "cividis", "magma")
_STEPS = 64


def world() -> str:
    """Coastlines as lines of [longitude, latitude, ...] in hundredths of a degree, and colours."""
    points = coastlines()
    ends = np.flatnonzero(np.isnan(points[:, 0]))
    lines = [line[~np.isnan(line[:, 0])] for line in np.split(points, ends)]
    drawn = [np.rint(line * 100).astype(int).ravel().tolist() for line in lines if len(line) > 1]
    colours = {
        name: [to_hex(mpl.colormaps[name](value)) for value in np.linspace(0, 1, _STEPS)]
        for name in COLOURS
    }
    return json.dumps({"coastlines": drawn, "colours": colours}, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "page" / "world.json").write_text(world())
