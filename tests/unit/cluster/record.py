"""Records what a real Kubernetes with Kueue says of Jobs in each state: the data of the tests here.

    python -m k8s.devcluster exec python -m tests.unit.cluster.record [NAME...]

In a namespace of its own, on Jobs as tasks/cluster/manifest.py renders them, with a shell's line in
place of the pre-check and the stage. Names follow from the scenario's, so that a second recording
differs in instants and identifiers alone. About three minutes.
"""

import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tasks.cluster import api
from tasks.cluster.api import Refused, namespace_of
from tasks.cluster.manifest import Attempt, Place, load_template, render
from tasks.cluster.names import job_name
from tests.cluster import projects
from tests.resources import resources
from tests.unit.cluster.recordings import FOLDER, compact

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "recorded"
PROJECT = "0" * 8
REGISTRY_PORT = 5999
PATIENCE_S = 90.0
CHECKS = "/apis/kueue.x-k8s.io/v1beta2/admissionchecks"

Object = dict[str, Any]
Look = dict[str, Any]


class Cluster:
    """A namespace with a queue for one core, and the Jobs of one scenario at a time."""

    def __init__(self, folder: Path) -> None:
        self.api = api.connect()
        self.folder = folder

    def submit(
        self, label: str, stage: str, preflight: str = "true", image: str = projects.IMAGE,
        change: Callable[[Object], None] = lambda job: None, **changes: object,
    ) -> str:  # fmt: skip
        """Create a Job named by `label`; `stage` and `preflight` are lines for a shell."""
        key = hashlib.sha256(label.encode()).hexdigest()[:12]
        place = Place(
            NAMESPACE, image, "headrace", self.folder, self.folder, projects.UID, projects.UID,
            is_dev=False, project=PROJECT,
        )  # fmt: skip
        attempt = Attempt("pretrain", key, 1, self.folder, "")
        job, *_ = render(
            load_template(ROOT), attempt, resources(**({"grace_s": 5} | changes)), place
        )
        pod = job["spec"]["template"]["spec"]
        pod["initContainers"][0]["command"] = ["sh", "-c", preflight]
        pod["containers"][0]["command"] = ["sh", "-c", stage]
        pod["containers"][0]["workingDir"] = "/tmp"
        pod["initContainers"][0]["workingDir"] = "/tmp"
        change(job)
        self.api.create(namespace_of(api.JOBS, NAMESPACE), job)
        return job_name(PROJECT, "pretrain", key, 1)

    def look(self, name: str) -> Look:
        jobs, pods, workloads = (
            self.api.get(namespace_of(path, NAMESPACE))["items"]
            for path in (api.JOBS, api.PODS, api.WORKLOADS)
        )
        job = next((one for one in jobs if one["metadata"]["name"] == name), None)
        its = [
            one
            for one in pods
            if one["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name
        ]
        workload = next(
            (
                one
                for one in workloads
                if job
                and one["metadata"]["labels"].get("kueue.x-k8s.io/job-uid")
                == job["metadata"]["uid"]
            ),
            None,
        )
        return {"at": time.time(), "job": job, "pods": its, "workload": workload}

    def keep(
        self, recording: str, made_by: str, name: str, until: Callable[[Look], object]
    ) -> Look:
        """Look until `until` holds, and write what is seen then."""
        seen = self.wait(name, until, recording)
        write(recording, {"made_by": made_by, **compact(seen)})
        return seen

    def wait(self, name: str, until: Callable[[Look], object], why: str = "") -> Look:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen = self.look(name)
            with suppress(KeyError, IndexError, TypeError):
                if until(seen):
                    return seen
            time.sleep(0.05)
        raise TimeoutError(f"{why or name}: {json.dumps(compact(seen))}")

    def pod(self, name: str) -> str:
        return str(self.look(name)["pods"][0]["metadata"]["name"])

    def patch(self, path: str, name: str, body: Object) -> None:
        self.api.patch(namespace_of(path, NAMESPACE, name), body)

    def clear(self) -> None:
        projects.kubectl(
            "delete", "pods", "--all", "-n", NAMESPACE, "--force", "--grace-period=0", check=False
        )
        projects.kubectl("delete", "jobs", "--all", "-n", NAMESPACE, "--cascade=foreground")


def write(recording: str, document: Object) -> None:
    """A line for each object: short, and readable in a diff."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            rows = ",".join(f"\n  {json.dumps(one)}" for one in value)
            lines.append(f' "{key}": [{rows}]')
        else:
            lines.append(f' "{key}": {json.dumps(value)}')
    (FOLDER / f"{recording}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(recording, flush=True)


def phase_is(*wanted: str) -> Callable[[Look], bool]:
    return lambda seen: sorted(pod["status"]["phase"] for pod in seen["pods"]) == sorted(wanted)


def is_live(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Pending", "Running")


def ended(seen: Look) -> bool:
    conditions = seen["job"]["status"].get("conditions") or []
    return any(one["type"] in ("Complete", "Failed") for one in conditions)


def evicted(seen: Look) -> bool:
    conditions = seen["workload"]["status"]["conditions"]
    return any(one["type"] == "Evicted" and one["status"] == "True" for one in conditions)


def reserved(workload: Object) -> bool:
    conditions = (workload.get("status") or {}).get("conditions") or []
    return any(one["type"] == "QuotaReserved" and one["status"] == "True" for one in conditions)


def waits_for(reason: str, containers: str = "containerStatuses") -> Callable[[Look], bool]:
    return lambda seen: (
        seen["pods"][0]["status"][containers][0]["state"]["waiting"]["reason"] == reason
    )


def absent_registry() -> ThreadingHTTPServer:
    """A registry without any image: it knows the protocol, and answers 404."""

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/v2/"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", REGISTRY_PORT), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main(wanted: list[str]) -> None:
    from tests.unit.cluster import failing_scenarios, scenarios

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        projects.apply(projects.namespace(NAMESPACE))
        projects.apply(projects.queues(NAMESPACE, cpu="1"))
        projects.apply(projects.volume(Path(folder), NAMESPACE))
        registry = absent_registry()
        cluster = Cluster(Path(folder))
        try:
            for name, scenario in (scenarios.SCENARIOS | failing_scenarios.SCENARIOS).items():
                if not wanted or name in wanted:
                    scenario(cluster)
                    cluster.clear()
        finally:
            registry.shutdown()
            with suppress(Refused):
                cluster.clear()
            projects.kubectl("delete", "namespace", NAMESPACE)
            for kind in ("clusterqueue", "resourceflavor", "admissioncheck"):
                projects.kubectl("delete", kind, NAMESPACE, "--ignore-not-found")
            projects.kubectl("delete", "persistentvolume", f"headrace-{NAMESPACE}")


if __name__ == "__main__":
    main(sys.argv[1:])
