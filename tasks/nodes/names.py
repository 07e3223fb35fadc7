"""What the agent, the controller and the launcher call things on Nodes and pods."""

from typing import Literal, get_args

State = Literal[
    "healthy", "suspect", "quarantined", "draining", "repairing", "probation", "retired"
]
STATES: tuple[State, ...] = get_args(State)

STATE_LABEL = "headrace.dev/node-state"
POOL_LABEL = "headrace.dev/gpu-pool"
GPU_RESOURCE = "nvidia.com/gpu"
"""In a Node's capacity, and the key of the taint that keeps others off it."""
PRODUCT_LABEL = "nvidia.com/gpu.product"
REPLICAS_LABEL = "nvidia.com/gpu.replicas"
"""Both by NVIDIA's GPU feature discovery, where it runs: the kind, with `-MIG-` in it where each slice
counts as one, and how many pods may share one; `1` if they do not.
"""
DEFAULT_POOL = "cpu"
"""The pool of a node without POOL_LABEL."""
STAGE_LABEL = "headrace.dev/stage"
"""On every pod of a stage."""

UNHEALTHY_TAINT = "headrace.dev/unhealthy"
"""Nobody but the agent tolerates it. Its value is the check that failed."""
PROBATION_TAINT = "headrace.dev/probation"
"""Tolerated by stage Jobs of the lowest priority alone."""
AT_RISK_TAINT = "headrace.dev/at-risk"
"""Tolerated by stage Jobs with a short time limit."""
OUR_TAINTS = (UNHEALTHY_TAINT, PROBATION_TAINT, AT_RISK_TAINT)

HEALTH_ANNOTATION = "headrace.dev/node-health"
"""The controller's record."""
SAMPLES_ANNOTATION = "headrace.dev/node-samples"
"""The agent's latest report and its ring of samples."""
REPAIRED_ANNOTATION = "headrace.dev/repaired-at"
"""Set by a person or a repair hook. A value that was not there before reports a repair."""
RESET_ANNOTATION = "headrace.dev/reset"
"""Set by `headrace nodes reset`: an instant and why. A value not seen before is a request."""

CONDITION = "HeadraceHealthy"
PREFLIGHT_CONTAINER = "preflight"
