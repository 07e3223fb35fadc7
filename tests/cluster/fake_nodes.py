"""Fake nodes (kwok's) in a pool of their own, stage pods on them, and the programs that judge them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from components.preflight.live import Live
from components.preflight.readings import ClockReading, KernelLogReading, Readings
from components.preflight.report import Report, to_json
from components.preflight.thresholds import Thresholds, load_thresholds
from tasks.cluster.api import NODES, PODS, Api, Object, Refused, namespace_of
from tasks.nodes.instants import rfc3339
from tasks.nodes.names import HEALTH_ANNOTATION, OUR_TAINTS, POOL_LABEL, STAGE_LABEL, STATE_LABEL
from tasks.nodes.record import Record, from_json
from tests import floors
from tests.cluster.node_programs import RIGHTS, Started, grant, wait_for, write_kubeconfig

ROOT = Path(__file__).resolve().parents[2]
KWOK = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
"""Keeps everybody else's pods away."""


@dataclass(frozen=True)
class Pool:
    api: Api
    """The administrator's."""
    name: str
    folder: Path

    @property
    def selector(self) -> str:
        return f"{POOL_LABEL}={self.name}"

    def create_nodes(self, names: Sequence[str]) -> None:
        for name in names:
            self.api.create(NODES, node(name, self.name))
        wait_for(lambda: all(_is_ready(found) for found in self.nodes()), "ready nodes")

    def nodes(self) -> list[Object]:
        found = self.api.get(NODES, labelSelector=self.selector)["items"]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def node(self, name: str) -> Object:
        return self.api.get(f"{NODES}/{name}")

    def record(self, name: str) -> Record | None:
        text = (self.node(name)["metadata"].get("annotations") or {}).get(HEALTH_ANNOTATION)
        return from_json(text) if text else None

    def states(self) -> list[str]:
        return [item["metadata"]["labels"].get(STATE_LABEL, "") for item in self.nodes()]

    def state(self, name: str) -> str:
        return str(self.node(name)["metadata"]["labels"].get(STATE_LABEL, ""))

    def taints(self, name: str) -> list[tuple[str, str, str]]:
        """Headrace's own."""
        found = self.node(name)["spec"].get("taints") or []
        return [(t["key"], t["value"], t["effect"]) for t in found if t["key"] in OUR_TAINTS]

    def create_pod(self, name: str, node_name: str = "", **spec: Any) -> None:
        body = pod(name, self.name, node_name, **spec)
        self.api.create(namespace_of(PODS, self.name), body)

    def pod(self, name: str) -> Object | None:
        try:
            return self.api.get(namespace_of(PODS, self.name, name))
        except Refused:
            return None

    def end_preflight(self, name: str, exit_code: int, report: Report) -> None:
        """As a kubelet would say it."""
        wait_for(lambda: _is_running(self.pod(name)), f"the fake kubelet to start {name}")
        ended = {
            "exitCode": exit_code,
            "message": json.dumps(to_json(report)),
            "startedAt": rfc3339(report.at),
            "finishedAt": rfc3339(time.time()),
        }
        status = {
            "phase": "Failed" if exit_code else "Running",
            "initContainerStatuses": [
                {
                    "name": "preflight", "image": "none", "imageID": "", "restartCount": 0,
                    "ready": not exit_code, "state": {"terminated": ended},
                }
            ],
        }  # fmt: skip
        self.api.patch(f"{namespace_of(PODS, self.name, name)}/status", {"status": status})

    def events(self, reason: str) -> list[Object]:
        names = {item["metadata"]["name"] for item in self.nodes()}
        found = self.api.get(
            "/api/v1/namespaces/default/events",
            fieldSelector=f"involvedObject.kind=Node,reason={reason}",
        )["items"]
        return [event for event in found if event["involvedObject"]["name"] in names]

    def kubeconfig(self, role: str) -> Path:
        return self.folder / f"{role}.yaml"

    def policy(self, **changes: dict[str, Any]) -> Path:
        """k8s/nodes.yaml with other numbers; short times, for nobody waits a day in a test."""
        body = yaml.safe_load((ROOT / "k8s" / "nodes.yaml").read_text())
        body["controller"]["resync_s"] = 1
        for section, values in changes.items():
            body[section] |= values
        path = self.folder / "nodes.yaml"
        path.write_text(yaml.safe_dump(body))
        return path

    def thresholds(self) -> Thresholds:
        """The pre-check's, for an agent that measures this machine."""
        return load_thresholds(floors.write_without(self.folder / "skus.yaml"))

    @contextmanager
    def controller(self, policy: Path, *options: str) -> "Iterator[Started]":
        command = ["tasks.nodes.controller", "--selector", self.selector, "--policy", str(policy)]
        with self._started("controller", [*command, *options]) as started:
            yield started

    @contextmanager
    def agent(self, policy: Path, node_name: str) -> "Iterator[Started]":
        command = ["tasks.nodes.agent", "--policy", str(policy), "--local", str(self.folder)]
        extra = {"NODE_NAME": node_name, "NODE_IP": "127.0.0.1"}
        with self._started("agent", command, **extra) as started:
            yield started

    @contextmanager
    def _started(self, role: str, command: list[str], **extra: str) -> "Iterator[Started]":
        with (self.folder / f"{role}.log").open("a+") as log:
            started = Started(
                [sys.executable, "-m", *command], self.environment(role) | extra, log.name
            )
            started.start()
            try:
                yield started
            finally:
                started.kill()

    def environment(self, role: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(self.kubeconfig(role)),
            "HEADRACE_NAMESPACE": self.name,
        }

    def person(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`headrace nodes`, by its own function, for its entry in the command line is elsewhere."""
        program = (
            "import argparse, sys\n"
            "from components.errors import StageError\n"
            "from tasks.nodes.command import add_arguments, main\n"
            "parser = argparse.ArgumentParser()\n"
            "add_arguments(parser)\n"
            "try:\n"
            "    sys.exit(main(parser.parse_args()))\n"
            "except StageError as error:\n"
            "    sys.exit(error.line)\n"
        )
        return subprocess.run(
            [sys.executable, "-c", program, "--selector", self.selector, *words],
            env=self.environment("person"), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


def node(name: str, pool: str) -> Object:
    size = {"cpu": "8", "memory": "32Gi", "pods": "20"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {POOL_LABEL: pool, "kubernetes.io/hostname": name},
        },
        "spec": {"taints": [KWOK]},
        "status": {"allocatable": size, "capacity": size},
    }


def pod(name: str, pool: str, node_name: str, **spec: Any) -> Object:
    """Where `node_name` is empty the scheduler chooses a node of the pool. Without `labels` of its
    own it is a stage's.
    """
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"image": "dev.local/headrace:dev", "command": ["true"], "securityContext": closed}
    where = {"nodeName": node_name} if node_name else {"nodeSelector": {POOL_LABEL: pool}}
    labels = spec.pop("labels", {STAGE_LABEL: "pretrain"})
    tolerations = [{"key": KWOK["key"], "operator": "Exists"}, *spec.pop("tolerations", [])]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [{"name": "preflight", **container}],
            "containers": [{"name": "stage", **container}],
            "tolerations": tolerations,
            **where,
            **spec,
        },
    }


@contextmanager
def pool(api: Api, name: str, folder: Path) -> Iterator[Pool]:
    """A namespace, a selector's worth of nodes, and one account for each program; all gone after."""
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    made = Pool(api, name, folder)
    try:
        for role, rules in RIGHTS.items():
            grant(api, name, role, rules)
            write_kubeconfig(api, name, role, made.kubeconfig(role))
        accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
        wait_for(lambda: len(api.get(accounts)["items"]) == len(RIGHTS) + 1, "the pods' account")
        yield made
    finally:
        for found in made.nodes():
            api.delete(f"{NODES}/{found['metadata']['name']}")
        for role in RIGHTS:
            for kind in ("clusterrolebindings", "clusterroles"):
                api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{name}-{role}")
        api.delete(f"/api/v1/namespaces/{name}")


def _is_ready(found: Object) -> bool:
    conditions = found.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _is_running(found: Object | None) -> bool:
    return found is not None and found.get("status", {}).get("phase") == "Running"


class Healthy:
    """A source of readings of a well node without GPUs, at the present time; measures this machine."""

    def __init__(self, name: str) -> None:
        log, clock = KernelLogReading((), 1.0), ClockReading(True, 0.0)
        self._still = Readings(name, 0.0, (), None, (), (), clock, log, None, None)

    def read(self) -> Readings:
        return replace(self._still, at=time.time())

    def measure(self, readings: Readings, sku: object, checks: object) -> object:
        live = Live(readings.node, (Path("/tmp"),), ())
        return live.measure(readings, sku, checks)  # type: ignore[arg-type]
