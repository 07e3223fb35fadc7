"""By what a stage's Job is found, and whose it is: its name, its labels and its notes."""

import hashlib
import os
from pathlib import Path
from typing import Any

from tasks.config import home_root

Object = dict[str, Any]
PROJECT_LABEL = "headrace.dev/project"
KEY_LABEL = "headrace.dev/key"
ATTEMPT_LABEL = "headrace.dev/attempt"
FLOW_RUN = "headrace.dev/flow-run"
RUN_DIR = "headrace.dev/run-dir"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
TIME_LIMIT_LABEL = "kueue.x-k8s.io/max-exec-time-seconds"


def project_of(root: Path, claim: str) -> str:
    """Eight digits for the project that `root` belongs to: its folder on the volume of `claim`.

    Two checkouts may ask for the same key, and have a run of it each: so each has a Job of it. An
    experiment's worktree works on its project's runs, and shares the Job as it does the run.
    """
    return hashlib.sha256(os.fsencode(f"{claim}:{home_root(root)}")).hexdigest()[:8]


def job_name(project: str, stage: str, key: str, number: int) -> str:
    """The same for the same attempt: who asks second finds the first one's Job."""
    return f"{stage.replace('_', '-')}-{project}-{key}-a{number}"


def is_of(job: Object, project: str, run_dir: Path) -> bool:
    """Whether a Job of the run's key works on this run; one without a project is known by its folder."""
    found = (job["metadata"].get("labels") or {}).get(PROJECT_LABEL)
    return found == project if found else run_dir_of(job) == str(run_dir)


def run_dir_of(job: Object) -> str:
    """The folder of the run that the Job works on; empty if it does not say."""
    return str((job["metadata"].get("annotations") or {}).get(RUN_DIR, ""))
