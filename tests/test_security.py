"""What must not happen anywhere: code from data, paths from parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("flows", "ingest", "mosaic_core", "postprocess")
FORBIDDEN = {
    "eval", "exec", "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open",
    "dill.load", "dill.loads", "joblib.load", "yaml.load", "yaml.unsafe_load", "os.system",
    "read_pickle", "pd.read_pickle",
}  # fmt: skip
SAFE_ONLY_WITH = {"np.load": "allow_pickle", "torch.load": "weights_only"}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def unsafe(source: str) -> list[str]:
    """Calls that run code out of data, or might."""
    found = []
    for name, call in calls(source):
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in FORBIDDEN or (name.startswith("subprocess.") and "shell" in keywords):
            found.append(f"{name}, line {call.lineno}")
        if (guard := SAFE_ONLY_WITH.get(name)) and guard not in keywords:
            found.append(f"{name} without {guard}, line {call.lineno}")
        allowed = keywords.get("allow_pickle")
        if isinstance(allowed, ast.Constant) and allowed.value is not False:
            found.append(f"{name} with pickles, line {call.lineno}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_that_was_fetched_is_run(room: str) -> None:
    faults = {
        str(path.relative_to(ROOT)): found
        for path in sorted((ROOT / room).rglob("*.py"))
        if (found := unsafe(path.read_text()))
    }
    assert not faults


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(content)", "eval(text)", "np.load(path)", "np.load(path, allow_pickle=True)",
        "torch.load(path)", "yaml.load(text)", "subprocess.run(line, shell=True)",
    ],
)  # fmt: skip
def test_the_check_notices(line: str) -> None:
    assert unsafe(line)


def parameters() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Flow, parameter and schema of everything that can be typed into the interface."""
    file = ROOT / "deploy" / "prefect.yaml"
    for deployment in yaml.safe_load(file.read_text())["deployments"]:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(import_module(module), name)
        for parameter, schema in flow.parameters.properties.items():
            yield deployment["name"], parameter, schema


def bounded(schema: dict[str, Any]) -> bool:
    """Whether a value is a choice, a number within bounds, a switch, or text by a pattern."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return all(
        "enum" in kind
        or kind["type"] == "boolean"
        or (kind["type"] == "integer" and {"minimum", "maximum"} <= set(kind))
        or (kind["type"] == "string" and "pattern" in kind)
        for kind in kinds
    )


def test_no_parameter_of_the_interface_is_free_text() -> None:
    """So none can name a path, a command or an address."""
    found = list(parameters())
    assert len(found) > 10
    assert not [(flow, name) for flow, name, schema in found if not bounded(schema)]
    assert not bounded({"type": "string"})
    assert not bounded({"anyOf": [{"type": "string"}, {"type": "null"}]})
