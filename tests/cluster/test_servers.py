"""The system's own pods on a real kubelet: restricted, with a read-only root, and yet they serve.

The images' programs are this machine's here. PostgreSQL's image has a start-up script of its own, which
is not here: what it does (initdb, then the files of one folder) is done in its place, and as user 1000,
for its own user is not in this cluster's image.
"""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.overlay import (
    UID,
    VOLUME,
    answer,
    apply_dev,
    ask,
    created,
    get,
    until,
)
from tests.manifests import ROOT, Object

SYSTEM = "headrace-system"
SERVERS = ("statefulset/postgres", "deployment/prefect", "deployment/mlflow", "deployment/flows")
PASSWORD = uuid.uuid4().hex
POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin)
echo "$POSTGRES_PASSWORD" > /tmp/password
test -s "$PGDATA/PG_VERSION" || {
  $bin/initdb -U postgres -A scram-sha-256 --pwfile=/tmp/password -D "$PGDATA"
  $bin/pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
  for file in /docker-entrypoint-initdb.d/*.sql; do
    PGPASSWORD=$POSTGRES_PASSWORD $bin/psql -U postgres -f "$file"
  done
  $bin/pg_ctl -D "$PGDATA" -m fast -w stop
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
}
exec $bin/postgres -D "$PGDATA" -c listen_addresses='*'
"""

pytestmark = pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    reason="no PostgreSQL: apt-get install postgresql",
)


def disk(folder: Path) -> Object:
    """For the claim that the StatefulSet makes."""
    return {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": f"servers-{uuid.uuid4().hex[:8]}"},
        "spec": {
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": SYSTEM, "name": "data-postgres-0"},
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }  # fmt: skip


def passwords() -> Object:
    names = ("POSTGRES_PASSWORD", "PREFECT_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD")
    return {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "headrace", "namespace": SYSTEM},
        "stringData": dict.fromkeys((*names, "PREFECT_API_PASSWORD"), PASSWORD),
    }  # fmt: skip


@contextmanager
def project() -> Iterator[None]:
    """A clone of this checkout where the flow server looks for it; one with changes is left alone."""
    folder = str(VOLUME / "project")
    was_there = Path(folder).exists()
    as_owner = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "env", "HOME=/tmp"]
    git = [*as_owner, "git", "-c", "safe.directory=*", "-C", folder]
    if not was_there:
        subprocess.run([*as_owner, "git", "init", "-q", "-b", "main", folder], check=True)
    changed = subprocess.run(
        [*git, "status", "--porcelain"], check=True, capture_output=True
    ).stdout
    assert not changed, f"{folder} has changes that this test would lose"
    bundle = subprocess.run(["git", "-C", str(ROOT), "bundle", "create", "-q", "-", "HEAD"],
                            check=True, capture_output=True).stdout  # fmt: skip
    subprocess.run(
        ["install", "-m", "644", "/dev/stdin", f"{folder}/.git/head"], input=bundle, check=True
    )
    subprocess.run([*git, "fetch", "-q", ".git/head", "HEAD"], check=True)
    subprocess.run([*git, "checkout", "-q", "--detach", "FETCH_HEAD"], check=True)
    try:
        yield
    finally:
        if not was_there:
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def system() -> Iterator[None]:
    apply_dev()
    data = VOLUME.parent / f"headrace-postgres-{uuid.uuid4().hex[:8]}"
    data.mkdir(mode=0o700)
    os.chown(data, UID, UID)
    start = [
        {"op": "add", "path": "/spec/template/spec/containers/0/command",
         "value": ["sh", "-ceu", POSTGRES]},
        *({"op": "replace", "path": f"/spec/template/spec/securityContext/{name}", "value": UID}
          for name in ("runAsUser", "runAsGroup", "fsGroup")),
    ]  # fmt: skip
    try:
        with project(), created(disk(data), passwords()):
            patch = json.dumps(start)
            ask("patch", "statefulset", "postgres", "-n", SYSTEM, "--type=json", "-p", patch)
            ask("scale", "-n", SYSTEM, "--replicas=1", "statefulset/postgres")
            ask("scale", "-n", SYSTEM, "--replicas=1", "deployment", "prefect", "mlflow", "flows")
            try:
                yield
            finally:
                apply_dev()  # back to none, and to the manifest's own PostgreSQL
                ask("wait", "pod", "--all", "-n", SYSTEM, "--for=delete", "--timeout=120s")
                ask("delete", "pvc", "data-postgres-0", "-n", SYSTEM)
    finally:
        shutil.rmtree(data, ignore_errors=True)


@pytest.mark.timeout(900)
def test_the_servers_serve_and_the_flows_are_there_to_be_started(system: None) -> None:
    for what in SERVERS:
        ask("rollout", "status", what, "-n", SYSTEM, "--timeout=300s")
    restarts = {
        pod["metadata"]["labels"]["app.kubernetes.io/name"]: sum(
            one["restartCount"] for one in pod["status"]["containerStatuses"]
        )
        for pod in get("pods", "-n", SYSTEM)["items"]
    }
    assert set(restarts) == {"postgres", "prefect", "mlflow", "flows"}
    assert restarts["postgres"] == 0
    assert in_flows(DEPLOYMENTS).split() == ["one-stage", "pipeline", "promote", "rollback"]
    assert in_flows(MLFLOW) == "0"
    assert in_flows(WITHOUT_PASSWORD) == "401"
    assert in_flows(CAN_I) == "yes no"
    # With DVC, below a root that is read-only, in the project on the volume.
    plan = ask(
        "exec",
        "-n",
        SYSTEM,
        "deploy/flows",
        "-c",
        "flows",
        "--",
        "python",
        "-m",
        "tasks.cli",
        "plan",
    )
    assert "of 10 stages to run" in plan


def in_flows(script: str) -> str:
    return until(
        "the flow server answers",
        lambda: answer(
            "exec", "-n", SYSTEM, "deploy/flows", "-c", "flows", "--", "python", "-c", script
        ),
    )


DEPLOYMENTS = """
import asyncio
from prefect.client.orchestration import get_client
async def names():
    async with get_client() as client:
        return sorted(one.name for one in await client.read_deployments())
print(*asyncio.run(names()))
"""
MLFLOW = """
from mlflow import MlflowClient
print(len(MlflowClient().search_registered_models()))
"""
WITHOUT_PASSWORD = """
import urllib.request, urllib.error
try:
    urllib.request.urlopen(urllib.request.Request("http://prefect:4200/api/flows/count", method="POST"))
except urllib.error.HTTPError as error:
    print(error.code)
"""
CAN_I = """
from kubernetes import client, config
config.load_incluster_config()
def may(verb, resource):
    attributes = client.V1ResourceAttributes(namespace="headrace", group="", resource=resource, verb=verb)
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    review = client.AuthorizationV1Api().create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(spec=spec))
    return "yes" if review.status.allowed else "no"
print(may("list", "pods"), may("list", "secrets"))
"""
