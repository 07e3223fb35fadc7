"""The pre-check's thresholds without floors of speed: on a machine that tests keep busy none holds."""

from pathlib import Path

import yaml

from components.preflight.thresholds import SKUS

SPEEDS = ("disk_write_mb_per_s_min", "disk_read_mb_per_s_min", "memory_gb_per_s_min")
NEARLY_NONE = 0.001


def write_without(path: Path) -> Path:
    """Write components/preflight/skus.yaml without those of nodes that have no GPU; `path` itself."""
    body = yaml.safe_load(SKUS.read_text())
    body["default"]["node"] |= dict.fromkeys(SPEEDS, NEARLY_NONE)
    body["cpu"]["all_reduce"]["bus_gb_per_s_min"] = None
    path.write_text(yaml.safe_dump(body))
    return path
