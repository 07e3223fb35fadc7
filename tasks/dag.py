"""What dvc.yaml says: the stages, what each depends on, and so the edges. The only reader of the DAG."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.section import read_yaml

ARTIFACTS = "artifacts"
REPORTS = "reports"


@dataclass(frozen=True)
class StageSpec:
    """One stage of dvc.yaml."""

    name: str
    deps: tuple[str, ...]
    """Paths from the root: code and published folders."""
    params: tuple[str, ...]
    """Keys of params.yaml."""
    inputs: tuple[str, ...]
    """Names of the stages whose artifacts are among the deps."""

    @property
    def code(self) -> tuple[str, ...]:
        """The deps that no stage makes."""
        return tuple(dep for dep in self.deps if not dep.startswith(f"{ARTIFACTS}/"))


def read_dag(root: Path) -> dict[str, StageSpec]:
    """The stages of `root/dvc.yaml`, in an order in which each follows what it depends on."""
    stages = (read_yaml(root / "dvc.yaml") or {}).get("stages", {})
    specs = {name: _spec(name, body) for name, body in stages.items()}
    for spec in specs.values():
        for name in spec.inputs:
            if name not in specs:
                raise UserError(f"dvc.yaml: {spec.name} depends on {name}, which is no stage")
    return {name: specs[name] for name in topological_order(specs)}


def _spec(name: str, body: Mapping[str, list[str]]) -> StageSpec:
    deps = tuple(body.get("deps", ()))
    inputs = tuple(
        dict.fromkeys(
            Path(dep).parts[1]
            for dep in deps
            if len(Path(dep).parts) > 1 and Path(dep).parts[0] == ARTIFACTS
        )
    )
    return StageSpec(name, deps, tuple(body.get("params", ())), inputs)


def topological_order(specs: Mapping[str, StageSpec]) -> list[str]:
    """Names so that each follows its inputs; ties in the file's order. Raises UserError on a cycle."""
    order: list[str] = []
    while len(order) < len(specs):
        ready = [
            name
            for name, spec in specs.items()
            if name not in order and all(parent in order for parent in spec.inputs)
        ]
        if not ready:
            raise UserError(f"dvc.yaml: a cycle among {', '.join(sorted(set(specs) - set(order)))}")
        order.append(ready[0])
    return order


def select(specs: Mapping[str, StageSpec], names: tuple[str, ...]) -> list[str]:
    """`names` in the DAG's order; all stages if empty. Raises UserError for an unknown name."""
    for name in names:
        if name not in specs:
            raise UserError(f"no stage {json.dumps(name)}", f"one of: {', '.join(specs)}")
    return [name for name in specs if not names or name in names]
