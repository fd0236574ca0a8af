"""The stores of the publishing tests, for this folder too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PUBLISH = Path(__file__).parent.parent / "publish"
_spec = importlib.util.spec_from_file_location("publish_fixtures", _PUBLISH / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
sys.modules["publish_fixtures"] = _fixtures
_spec.loader.exec_module(_fixtures)

s3, gcs, address = _fixtures.s3, _fixtures.gcs, _fixtures.address
