"""How a benchmark says where it ran, and keeps its result."""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("vit_tf", "tensorflow", "keras", "tf-models-official", "numpy")


def describe_machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": model, "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter."""
    return {"python": sys.version.split()[0], **{p: metadata.version(p) for p in _PACKAGES}}


def write_result(name: str, ratios: dict[str, float], runs: Any) -> Path:
    """Writes `benchmarks/results/<name>.json` and returns its path."""
    path = _path(name)
    path.parent.mkdir(exist_ok=True)
    result = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "ratios": ratios,
        "runs": runs,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def read_result(name: str) -> dict[str, Any]:
    """Returns what `write_result` wrote here with these versions, or nothing."""
    path = _path(name)
    found = json.loads(path.read_text()) if path.exists() else {}
    here = {"machine": describe_machine(), "versions": describe_versions()}
    return found if here.items() <= found.items() else {}


def _path(name: str) -> Path:
    return Path(__file__).parent / "results" / f"{name}.json"
