"""The pre-check's thresholds without floors of speed: on a machine that tests keep busy none holds."""

from pathlib import Path

import yaml

SPEEDS = ("disk_write_mb_per_s_min", "disk_read_mb_per_s_min", "memory_gb_per_s_min")
NEARLY_NONE = 0.001


def take_away(skus: Path) -> None:
    """Change a copy of components/preflight/skus.yaml, for nodes without GPUs."""
    body = yaml.safe_load(skus.read_text())
    body["default"]["node"] |= dict.fromkeys(SPEEDS, NEARLY_NONE)
    body["cpu"]["all_reduce"]["bus_gb_per_s_min"] = None
    skus.write_text(yaml.safe_dump(body))
