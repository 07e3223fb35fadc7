"""This machine (HEADRACE_* variables) and where and how fast a stage runs (k8s/resources.yaml).

Neither may change a result, so neither is part of a stage's key.
"""

import json
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.contract import ON_MANY_MACHINES, ON_MANY_RANKS, STAGES, Json
from components.errors import UserError
from components.section import Section, explain, read_yaml

FLOW_RUN = "HEADRACE_FLOW_RUN"
"""The Prefect flow run that asked for a stage; empty if nobody did."""
DVC_REMOTE = "HEADRACE_DVC_REMOTE"
"""The address of the DVC remote, in place of the one in DVC's files."""

Launcher = Literal["local", "kubernetes"]
Priority = Literal["production", "research", "background"]


class Settings(BaseSettings):
    """Read from HEADRACE_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore", frozen=True)

    launcher: Launcher = Field("local", description="where stages run")
    num_workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        description="processes or threads of a stage; never changes a result",
    )
    grace_s: float = Field(60, gt=0, description="from SIGTERM to SIGKILL, for a last checkpoint")
    namespace: str = Field("headrace", description="of the cluster: where stages' Jobs are")
    image: str = Field("", description="of the stages' pods; its tag is the git commit it is of")
    dev: bool = Field(False, description="pods take the code from this checkout, not the image's")
    claim: str = Field("headrace", description="the volume that pods and this machine share")
    volume: Path = Field(Path("/headrace"), description="where it is mounted, here and in pods")
    autoscales: bool = Field(
        False,
        description="nodes come when a Job asks for them: none needs to be there that fits it",
    )
    patience_s: float = Field(
        600, gt=0, description="how long a Kubernetes that does not answer is asked again"
    )
    pull_patience_s: float = Field(
        120, gt=0, description="how long a registry that does not give an image is asked again"
    )
    place_patience_s: float = Field(
        900,
        gt=0,
        description="how long a pod that was admitted may wait for its node or its volume",
    )
    lost_s: float = Field(
        60,
        gt=0,
        description="how long over its grace period a pod may take to end on a silent node",
    )
    keep_s: float = Field(
        1800, gt=0, description="how long a Job whose flow has ended waits for one that adopts it"
    )
    host: str = Field("127.0.0.1", description="where the console's servers listen")
    prefect_port: int = Field(4200, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)


class StageResources(Section):
    """See k8s/resources.yaml; all but the first two are a cluster's."""

    num_ranks: int = Field(ge=1, le=4096, description="processes of a training stage on a node")
    retries: int = Field(ge=0, le=100)
    num_nodes: int = Field(ge=1, le=4096)
    min_nodes: int = Field(ge=1, le=4096)
    queue: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    priority: Priority
    gpus: int = Field(ge=0, le=64)
    cpu: float = Field(gt=0, le=1024)
    memory_gib: float = Field(gt=0, le=65536)
    shared_memory_gib: float = Field(gt=0, le=65536)
    scratch_gib: float = Field(gt=0, le=65536)
    time_limit_h: float = Field(gt=0, le=24 * 365)
    grace_s: int = Field(ge=1, le=3600)

    @model_validator(mode="after")
    def _fits(self) -> "StageResources":
        if self.min_nodes > self.num_nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is above num_nodes {self.num_nodes}")
        if self.shared_memory_gib > self.memory_gib:
            raise ValueError(
                f"shared_memory_gib {self.shared_memory_gib:g} is above memory_gib {self.memory_gib:g}"
            )
        return self

    @property
    def disk_gib(self) -> float:
        """What a pod asks of its node's disk: its scratch, and room for its logs."""
        return self.scratch_gib + 1

    @property
    def is_elastic(self) -> bool:
        return self.min_nodes < self.num_nodes

    @property
    def ranks_on_a_node(self) -> int:
        """On a cluster: one for each GPU, or `num_ranks` without any."""
        return self.gpus or self.num_ranks


class Resources(Section):
    default: StageResources
    stages: dict[str, StageResources]
    """Whole: what a stage leaves out is the default's."""

    def of(self, stage: str) -> StageResources:
        return self.stages.get(stage, self.default)


def load_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"HEADRACE_{line.upper().split(':')[0]}:{line.split(':', 1)[1]}"
            for line in explain(error)
        ]
        raise UserError("\n".join(lines)) from error


def load_resources(root: Path) -> Resources:
    path = root / "k8s" / "resources.yaml"
    try:
        resources = Resources.model_validate_json(json.dumps(_with_default(read_yaml(path))))
    except ValidationError as error:
        raise UserError(
            "\n".join(f"k8s/resources.yaml: {line}" for line in explain(error))
        ) from error
    for stage in STAGES:
        num_ranks = resources.of(stage).num_ranks
        if num_ranks > 1 and stage not in ON_MANY_RANKS:
            key = f"stages.{stage}" if stage in resources.stages else "default"
            raise UserError(
                f"k8s/resources.yaml: {key}.num_ranks is {num_ranks}, but {stage} runs on 1 rank; "
                f"only {' and '.join(ON_MANY_RANKS)} run on several",
                f"set {key}.num_ranks to 1, and more under stages.pretrain or stages.sft",
            )
        num_nodes = resources.of(stage).num_nodes
        if num_nodes > 1 and stage not in (*ON_MANY_RANKS, *ON_MANY_MACHINES):
            key = f"stages.{stage}" if stage in resources.stages else "default"
            raise UserError(
                f"k8s/resources.yaml: {key}.num_nodes is {num_nodes}, but {stage} runs on 1 node; "
                f"only {', '.join((*ON_MANY_MACHINES, *ON_MANY_RANKS))} run on several",
                f"set {key}.num_nodes to 1",
            )
    return resources


def _with_default(document: Json) -> Json:
    """Each stage's section filled up from the default's; a document of another shape as it is."""
    if not isinstance(document, dict) or not isinstance(document.get("default"), dict):
        return document
    stages = document.get("stages")
    if not isinstance(stages, dict) or not all(isinstance(one, dict) for one in stages.values()):
        return document
    default = document["default"]
    return document | {"stages": {name: default | own for name, own in stages.items()}}


ON_CLUSTER = Path(".headrace", "on-cluster")
"""Touched in the project by each flow run whose stages are Jobs: somebody must look after them."""

EXPERIMENTS = Path(".headrace", "experiments")
"""Where the workspaces of flow runs with params of their own lie."""


def home_root(root: Path) -> Path:
    """The project a workspace belongs to: experiments run in copies below it, DVC's own and ours."""
    parts = root.resolve().parts
    for below in ((".dvc", "tmp", "exps"), EXPERIMENTS.parts):
        for index in range(len(parts) - len(below) + 1):
            if parts[index : index + len(below)] == below:
                return Path(*parts[:index])
    return root.resolve()


def artifact_location(root: Path) -> str | None:
    """Where a new MLflow experiment keeps its files: beside the default database; else the server decides."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return (home_root(root) / "mlruns").as_uri() if uri.startswith("sqlite:") else None


def set_environment_defaults(environ: MutableMapping[str, str], root: Path) -> None:
    """Keep every tool's state inside the project and its telemetry off, unless the user says otherwise.

    To be called before Prefect is imported, which reads the environment then.
    """
    _take_password_from_prefects_address(environ)
    state = home_root(root) / ".headrace"
    defaults = {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_UI_API_URL": "/api",  # by whatever name and port the page was opened
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine takes its time
        "MLFLOW_TRACKING_URI": f"sqlite:///{home_root(root) / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # anyone may register a version
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # of each run, with its password
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 are over four minutes without a word
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name, value in defaults.items():
        environ.setdefault(name, value)
    state.mkdir(exist_ok=True)  # Prefect makes its own folder, but no parents


def _take_password_from_prefects_address(environ: MutableMapping[str, str]) -> None:
    """Give user and password in the variable that Prefect has for them.

    What it says of a call that failed has the address in it, and Prefect keeps that as a flow run's
    state and log.
    """
    address = environ.get("PREFECT_API_URL", "")
    found = re.match(r"\w+://([^/?#\s]*)@", address)
    if found:
        environ["PREFECT_API_AUTH_STRING"] = unquote(found[1])
        environ["PREFECT_API_URL"] = without_password(address)


def with_defaults(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    """`set_environment_defaults` on a copy, for a process that is to be started."""
    copy = dict(environ)
    set_environment_defaults(copy, root)
    return copy


def without_password(text: str) -> str:
    """An address, or a text with addresses in it, with their users and passwords left out."""
    return re.sub(r"://[^/?#\s]*@", "://", text)
