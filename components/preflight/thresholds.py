"""The thresholds of `skus.yaml` and the meanings of `xid.yaml`, typed.

A SKU is found by the name NVML gives a GPU, so a new one is a few lines of YAML and no code.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from components.errors import UserError
from components.section import Section, explain, read_yaml

HERE = Path(__file__).parent
SKUS = HERE / "skus.yaml"
XIDS = HERE / "xid.yaml"
CPU = "cpu"
DEFAULT = "default"

Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class NodeLimits(Section):
    """What holds for a node whatever its accelerator."""

    disk_used_fraction_max: Fraction
    disk_free_gib_min: Positive
    disk_test_mib: Annotated[int, Field(ge=1, le=4096)]
    disk_write_mb_per_s_min: Positive
    disk_read_mb_per_s_min: Positive
    clock_error_ms_max: Positive
    memory_pressure_percent_max: Annotated[float, Field(gt=0, le=100)]
    memory_gb_per_s_min: Positive
    infiniband_ports: Count | None
    """Ports that must be active; None: a port that is down is only a warning."""
    infiniband_gb_per_s_min: Positive | None
    """Gigabits per second of an active port."""
    xid_hours: Positive
    """How long an Xid counts that a restart of the node is not needed for; a repair ends it sooner."""


class GpuLimits(Section):
    """What holds for each GPU."""

    ecc: bool
    """Error correction must be on."""
    nvlinks: Count | None
    temperature_margin_c: Annotated[int, Field(ge=0, le=50)]
    """A warning this far below where the GPU slows itself down."""
    memory_used_gib_max: Positive | None
    """Before a stage begins that has the GPU for itself; None: pods share it."""
    memory_gb_per_s_min: Positive | None
    matmul_tflops_min: Positive | None
    matmul_size: Annotated[int, Field(ge=256, le=16384, multiple_of=256)]
    burn_s: Annotated[float, Field(gt=0, le=600)]


class AllReduceLimits(Section):
    """What holds for the sum over ranks."""

    mib: Annotated[int, Field(ge=1, le=4096)]
    rounds: Annotated[int, Field(ge=1, le=1000)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)]
    """For all of it: a peer's image may still be on its way when this pod begins."""
    bus_gb_per_s_min: Positive | None
    """Between nodes; None: whatever the network gives."""
    node_bus_gb_per_s_min: Positive | None
    """Between the GPUs of one node."""
    skew_ms_max: Positive


class Sku(Section):
    """All thresholds of one kind of node. `name` is its key."""

    name: str
    matches: list[str]
    """Parts of NVML's device name, whole words; the longest match among all SKUs wins."""
    dear_hours: Positive
    """How long dear checks that passed are not repeated."""
    node: NodeLimits
    gpu: GpuLimits
    all_reduce: AllReduceLimits


Action = Literal["ignore", "restart_app", "reset_gpu", "restart_node", "replace", "workflow"]


class Xid(Section):
    """What an Xid asks for."""

    action: Action
    fatal: bool
    meaning: str


@dataclass(frozen=True)
class Thresholds:
    """Both tables. The Xids are parsed at the first Xid: most nodes have none to judge."""

    skus: Mapping[str, Sku]
    xid_file: Path = XIDS

    @cached_property
    def xids(self) -> Mapping[int, Xid]:
        return load_xids(self.xid_file)

    def sku_of(self, gpu_names: tuple[str, ...]) -> Sku:
        """The SKU of a node with these GPUs: `cpu` for none, `default` for one nobody described."""
        if not gpu_names:
            return self.skus[CPU]
        found = [
            (len(part), sku)
            for sku in self.skus.values()
            for part in sku.matches
            if all(names_device(part, name) for name in gpu_names)
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else self.skus[DEFAULT]

    def knows(self, kind: str) -> bool:
        """Whether this names GPUs that are described here, by a key or by words of NVML's name."""
        return any(
            kind == sku.name or names_device(kind, part)
            for sku in self.skus.values()
            for part in sku.matches
        )


def names_device(part: str, device_name: str) -> bool:
    """In whole words, whatever their case: labels are often in lower case."""
    found = re.search(rf"(?<!\w){re.escape(part)}(?!\w)", device_name, re.IGNORECASE)
    return found is not None


def load_thresholds(skus: Path = SKUS, xids: Path = XIDS) -> Thresholds:
    """Raises UserError with the key at fault."""
    body = read_yaml(skus)
    if not isinstance(body, dict) or not {DEFAULT, CPU} <= body.keys():
        raise UserError(f"{skus}: needs the keys {DEFAULT} and {CPU}", "see the file's head")
    return Thresholds({name: _sku(skus, name, body) for name in body}, xids)


def _sku(path: Path, name: str, body: dict[str, Any]) -> Sku:
    try:
        return Sku.model_validate({**_over(body[DEFAULT], body[name] or {}), "name": name})
    except ValidationError as error:
        raise UserError(f"{path}: {name}.{explain(error)[0]}", "mend the file") from error


def _over(below: Any, above: Any) -> Any:
    """`above` where it speaks, `below` where it is silent, key by key."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _over(below.get(key), value) for key, value in above.items()}


def load_xids(path: Path) -> Mapping[int, Xid]:
    """Raises UserError with the number at fault."""
    table: dict[int, Xid] = {}
    for number, row in read_yaml(path).items():
        try:
            table[number] = Xid.model_validate(row)
        except ValidationError as error:
            raise UserError(f"{path}: {number}.{explain(error)[0]}", "mend the file") from error
    return table
