"""Speed and error of the fused attention kernel at the three levels, random lists.

    python tests/bench/rollout_attention.py

Prints a table and writes tests/bench/results/rollout_attention.json. Needs a CUDA GPU.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

from flows.provenance import code_version
from mosaic_core.attention.kernels import attention
from mosaic_core.attention.kernels.attention import Scratch, Sizes
from mosaic_core.model.config import LevelConfig, builtin_config
from mosaic_core.model.fast_cost import level_attention

RESULTS = Path(__file__).parent / "results"
MEMBERS = 4
RUNS = 5


def measure(level: LevelConfig) -> dict[str, Any]:
    """Milliseconds of one layer and member, and TFLOP/s, the median of 5 runs of 0.3 s."""
    heads, kv_heads, blocks = level.num_heads, level.kv_heads, level.tokens // 128
    parts = [heads * 64, kv_heads * 64, kv_heads * 64, 3 * heads]
    width = -(-sum(parts) // 64) * 64
    rows = torch.randn(MEMBERS, level.tokens, width, device="cuda", dtype=torch.float16)
    q, k, v, gates = rows[..., : sum(parts)].split(parts, dim=-1)
    v = v.to(attention.value_type(v.device, v.dtype))
    q, k, v = (x.unflatten(-1, (-1, 64)) for x in (q, k, v))
    gates = gates.unflatten(-1, (heads, 3))
    sizes = Sizes(level.local_block, level.sparse_block, level.selected_blocks)
    scratch = Scratch.empty(MEMBERS, blocks, (heads, kv_heads, 64), level.selected_blocks, q)
    scores = torch.rand(MEMBERS, kv_heads, blocks, blocks, device="cuda")
    scratch.selection.copy_(scores.topk(level.selected_blocks).indices.sort().values)
    scratch.block_out.normal_()
    out = torch.empty_like(q, memory_format=torch.contiguous_format)

    def work() -> None:
        attention.fused_attention(q, k, v, gates, scratch, sizes, out=out)

    ms = sorted(_time(work) for _ in range(RUNS))[RUNS // 2] / MEMBERS
    return {
        "nside": level.nside,
        "ms_per_member_and_layer": round(ms, 3),
        "tflops": round(level_attention(level) / ms / 1e9, 1),
    }


def _time(work: Callable[[], None], seconds: float = 0.3) -> float:
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    count = max(3, int(seconds * 1e3 / start.elapsed_time(end)))
    start.record()
    for _ in range(count):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default="", help="of the code; by default asked of git")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    levels = [measure(level) for level in builtin_config("era5").levels]
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": chosen.commit or code_version(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "levels": levels,
    }
    print(f"{report['device']}, torch {report['torch']}, triton {report['triton']}")
    for level in levels:
        ms, rate = level["ms_per_member_and_layer"], level["tflops"]
        print(f"nside {level['nside']:3}  {ms:7.3f} ms  {rate:6.1f} TFLOP/s")
    path = chosen.results / "rollout_attention.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
