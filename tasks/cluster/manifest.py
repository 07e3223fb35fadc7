"""A stage's Job from `k8s/job.yaml`: plain values in, plain dicts out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.contract import ON_MANY_RANKS, Json
from tasks.claim import GANG, PLACES
from tasks.cluster.names import (
    ATTEMPT_LABEL,
    FLOW_RUN,
    KEY_LABEL,
    PRIORITY_LABEL,
    PROJECT_LABEL,
    QUEUE_LABEL,
    RUN_DIR,
    TIME_LIMIT_LABEL,
    job_name,
)
from tasks.cluster.seen import JOB_NAME_LABEL
from tasks.config import StageResources
from tasks.nodes.names import AT_RISK_TAINT, GPU_RESOURCE, PROBATION_TAINT, STAGE_LABEL

Object = dict[str, Any]
TEMPLATE = Path("k8s", "job.yaml")
GANG_TEMPLATE = Path("k8s", "gang.yaml")
"""In place of the other, for gangs alone, where a site has written one."""
DECIDED = ("cpu", "memory", "ephemeral-storage", GPU_RESOURCE)
"""What k8s/resources.yaml says of a container's resources; all others are the template's."""
RENDEZVOUS_PORT = 29500
CREDENTIALS = {"ingest": "ingest-credentials"}
"""Of stages that read what is outside: the Secret whose keys are variables of their process."""
OF_CREDENTIALS = ("HEADRACE_RATER_", "FSSPEC_")
"""How the names of such variables begin, as far as they are the same for all stores."""
MULTI_DAY_H = 24
"""A stage that may take so long stays away from nodes that are likely to fail."""


@dataclass(frozen=True)
class Place:
    """What a cluster has for stages: the image, and the volume that pods and launcher share."""

    namespace: str
    image: str
    claim: str
    mount: Path
    """Where pods have the volume: at the same path as here, so that a path means one thing."""
    root: Path
    """The project, or a workspace of it; below `mount`."""
    uid: int
    gid: int
    is_dev: bool
    """Whether pods take the code from the checkout in place of the image's."""
    project: str
    """See `project_of`."""


@dataclass(frozen=True)
class Attempt:
    stage: str
    key: str
    number: int
    run_dir: Path
    flow_run: str
    """The Prefect flow run that asked for it; empty if none did."""
    avoid_nodes: tuple[str, ...] = ()
    """That were sick in an earlier attempt."""


def is_gang(stage: str, resources: StageResources) -> bool:
    """Whether the stage's pods are one training, whose ranks talk to each other all the time."""
    return resources.num_nodes > 1 and stage in ON_MANY_RANKS


def load_template(root: Path, *, of_gang: bool = False) -> tuple[Object, Object]:
    """The Job and the Service of `k8s/job.yaml`, or of `k8s/gang.yaml` if there is one for a gang."""
    path = root / TEMPLATE
    if of_gang and (root / GANG_TEMPLATE).exists():
        path = root / GANG_TEMPLATE
    with path.open(encoding="utf-8") as file:
        job, service = YAML(typ="safe").load_all(file)
    return job, service


def render(
    template: tuple[Object, Object], attempt: Attempt, resources: StageResources, place: Place
) -> list[Object]:
    """The objects to create, in this order: the Job, and its Service if it has several pods."""
    job, service = map(_deep_copy, template)
    name = job_name(place.project, attempt.stage, attempt.key, attempt.number)
    labels = {
        PROJECT_LABEL: place.project,
        STAGE_LABEL: attempt.stage.replace("_", "-"),
        KEY_LABEL: attempt.key,
        ATTEMPT_LABEL: str(attempt.number),
    }
    metadata = {"name": name, "namespace": place.namespace}
    job["metadata"] |= metadata
    job["metadata"]["labels"] |= labels | {
        QUEUE_LABEL: resources.queue,
        PRIORITY_LABEL: resources.priority,
        TIME_LIMIT_LABEL: str(max(1, round(resources.time_limit_h * 3600))),
    }
    notes = {RUN_DIR: str(attempt.run_dir), FLOW_RUN: attempt.flow_run}
    if resources.is_elastic:
        notes |= {
            "kueue.x-k8s.io/job-min-parallelism": str(resources.min_nodes),
            "kueue.x-k8s.io/job-completions-equal-parallelism": "true",
        }
    _annotate(job["metadata"], notes)
    job["spec"] |= {"parallelism": resources.num_nodes, "completions": resources.num_nodes}
    _fill_pod(job["spec"]["template"], attempt, resources, place, name, labels)
    if resources.num_nodes == 1:
        return [job]
    service["metadata"] |= metadata
    service["metadata"]["labels"] |= labels
    service["spec"]["selector"] = {JOB_NAME_LABEL: name}
    return [job, service]


def left_behind(stage: str, environ: Mapping[str, str]) -> list[str]:
    """A line if this process has variables for the stage that its pod takes from a Secret alone."""
    secret = CREDENTIALS.get(stage)
    names = sorted(name for name in environ if name.startswith(OF_CREDENTIALS) and environ[name])
    if secret is None or not names:
        return []
    return [
        f"{', '.join(names)} of this process are not the pod's: it has what the Secret {secret} says "
        "of them, and without one the simulated crowd and public sources (docs/cluster.md)"
    ]


def operators_folder(run_dir: Path) -> Path:
    """Where the pods of a mounted checkout compile DeepSpeed's operators: in the project of the run."""
    return run_dir.parents[2] / ".headrace" / "operators"


def owned(service: Object, job: Object) -> Object:
    """The Service with the created Job as its owner: it goes when the Job goes."""
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "controller": True,
        "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
    }  # fmt: skip
    return service | {"metadata": service["metadata"] | {"ownerReferences": [owner]}}


def _fill_pod(
    template: Object, attempt: Attempt, resources: StageResources, place: Place, name: str,
    labels: Mapping[str, str],
) -> None:  # fmt: skip
    template["metadata"]["labels"] |= labels
    gang = is_gang(attempt.stage, resources)
    if gang and resources.gpus:
        topology = {"kueue.x-k8s.io/podset-preferred-topology": "topology.headrace.dev/rack"}
        _annotate(template["metadata"], topology)
    pod = template["spec"]
    pod["terminationGracePeriodSeconds"] = resources.grace_s
    pod["securityContext"] |= {"runAsUser": place.uid, "runAsGroup": place.gid}
    if resources.num_nodes > 1:
        pod["subdomain"] = name
    pod["tolerations"] += tolerations(resources)
    if attempt.avoid_nodes:
        _keep_away(pod, attempt.avoid_nodes)
    (volume,) = (one for one in pod["volumes"] if one["name"] == "project")
    volume["persistentVolumeClaim"]["claimName"] = place.claim
    for volume_name, size_gib in (
        ("shm", resources.shared_memory_gib),
        ("tmp", resources.scratch_gib),
    ):
        (volume,) = (one for one in pod["volumes"] if one["name"] == volume_name)
        volume["emptyDir"]["sizeLimit"] = _mebibytes(size_gib)
    (preflight,), (stage,) = pod["initContainers"], pod["containers"]
    preflight["command"] += ["--gpus", str(resources.gpus), "--shared", str(attempt.run_dir)]
    if gang:
        members = attempt.run_dir / PLACES / GANG
        preflight["command"] += ["--gang", "--members", str(members)]
    stage["command"] += [attempt.stage, str(attempt.run_dir)]
    if attempt.stage in CREDENTIALS:
        secret = {"name": CREDENTIALS[attempt.stage], "optional": True}
        stage["envFrom"] = [*stage.get("envFrom", []), {"secretRef": secret}]
    environment = _environment(attempt, resources, place, name, gang)
    for container in (preflight, stage):
        container["image"] = place.image
        container["workingDir"] = str(place.root)
        container["resources"] = _with(container.get("resources") or {}, _requests(resources))
        container["env"] += [{"name": k, "value": v} for k, v in environment.items()]
        (mount,) = (one for one in container["volumeMounts"] if one["name"] == "project")
        mount["mountPath"] = str(place.mount)


def _environment(
    attempt: Attempt, resources: StageResources, place: Place, name: str, gang: bool
) -> dict[str, str]:
    # One for each GPU, of a stage that spreads over them; another would run whole on each.
    num_ranks = resources.ranks_on_a_node if attempt.stage in ON_MANY_RANKS else 1
    values = {
        "HEADRACE_ATTEMPT": str(attempt.number),
        "PYTHONPATH": str(place.root) if place.is_dev else "/app",
        "HEADRACE_NUM_WORKERS": str(max(1, int(resources.cpu))),
        # The pod needs a moment of its own to say how it ended.
        "HEADRACE_GRACE_S": str(max(1, resources.grace_s - 5)),
        "HEADRACE_NUM_NODES": str(resources.num_nodes),
        "HEADRACE_NUM_RANKS": str(num_ranks),
        "OMP_NUM_THREADS": str(max(1, int(resources.cpu / num_ranks))),
    }
    if place.is_dev:  # an image has DeepSpeed's operators compiled
        values["TORCH_EXTENSIONS_DIR"] = str(operators_folder(attempt.run_dir))
    if gang:
        values |= {
            "HEADRACE_GANG": "1",
            "PET_NPROC_PER_NODE": str(num_ranks),
            "PET_MASTER_ADDR": f"{name}-0.{name}",
            "PET_MASTER_PORT": str(RENDEZVOUS_PORT),
        }
    return values


def _requests(resources: StageResources) -> Object:
    """Requests are limits, but for the processor: what is left over of it may be used."""
    limits = {
        "memory": _mebibytes(resources.memory_gib),
        "ephemeral-storage": _mebibytes(resources.disk_gib),
    }
    if resources.gpus:
        limits[GPU_RESOURCE] = str(resources.gpus)
    cpu = f"{max(1, round(resources.cpu * 1000))}m"
    return {"requests": {"cpu": cpu} | limits, "limits": limits}


def _with(template: Object, decided: Object) -> Object:
    """A container's resources: the template's, such as a network device, and those decided elsewhere."""
    merged = dict(template)
    for part, amounts in decided.items():
        own = template.get(part) or {}
        kept = {name: amount for name, amount in own.items() if name not in DECIDED}
        merged[part] = kept | amounts
    return merged


def _annotate(metadata: Object, notes: dict[str, str]) -> None:
    metadata["annotations"] = (metadata.get("annotations") or {}) | notes


def tolerations(resources: StageResources) -> list[Object]:
    """Of a stage's pods, beside those of every Job."""
    found = []
    if resources.gpus:
        found.append({"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"})
    if resources.priority == "background":  # what a node on probation is tried with
        found.append({"key": PROBATION_TAINT, "operator": "Exists", "effect": "NoSchedule"})
    if resources.time_limit_h <= MULTI_DAY_H:
        found.append({"key": AT_RISK_TAINT, "operator": "Exists", "effect": "NoSchedule"})
    return found


def _keep_away(pod: Object, nodes: Sequence[str]) -> None:
    """Narrow each of the template's terms, if it has some: a node has to meet one of them."""
    is_another = {
        "key": "kubernetes.io/hostname", "operator": "NotIn", "values": sorted(nodes),
    }  # fmt: skip
    rules = pod.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = rules.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.setdefault("nodeSelectorTerms", [{}]):
        term["matchExpressions"] = [*term.get("matchExpressions", []), is_another]


def _mebibytes(gib: float) -> str:
    return f"{max(1, round(gib * 1024))}Mi"  # 0 would be no limit


def _deep_copy(value: Json) -> Json:
    """YAML's anchors make one list of two; the copy has two."""
    return json.loads(json.dumps(value))
