"""`python -m tasks.nodes.controller`: judges the nodes, and with `--apply` acts on what it finds.

One look at everything there is, whenever a node or a stage's pod (of HEADRACE_NAMESPACE) changes and
at least every `resync_s`; every `relist_s` all is listed anew. Killed at any moment, the next one
goes on from the Nodes. Run one at a time (one replica, strategy Recreate): two would each have the
breaker's room.
"""

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.errors import InfraError, StageError
from components.preflight.thresholds import SKUS, load_thresholds
from components.redaction import redacted
from tasks.cluster.api import NODES, PODS, Api, connect, namespace_of
from tasks.cluster.watching import Watched
from tasks.config import load_settings
from tasks.nodes.acting import Controller
from tasks.nodes.calls import errors_typed
from tasks.nodes.kept import kept_node, kept_pod
from tasks.nodes.names import STAGE_LABEL
from tasks.nodes.policy import PATH, Policy, load_policy

LOG = logging.getLogger("headrace.nodes")
SETTLE_S = 0.5
"""Between two looks: a rush of changes is one look."""
RETRY_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.nodes.controller", description=__doc__)
    parser.add_argument("--apply", action="store_true", help="act; else only say what it would do")
    parser.add_argument("--selector", default="", help="only nodes with these labels; all if empty")
    parser.add_argument("--policy", type=Path, default=PATH, help=f"default {PATH}")
    parser.add_argument("--skus", type=Path, default=SKUS, help="the pre-check's thresholds")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Any moment is a good one to end at; but the first process of a container ignores a signal
    # that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        policy = load_policy(arguments.policy)
        skus = load_thresholds(arguments.skus).skus
        hours = {name: sku.dear_hours for name, sku in skus.items()}
        LOG.info("acts on nodes" if arguments.apply else "dry run: says what it would do, no more")
        namespace = load_settings().namespace
        apply, selector = arguments.apply, arguments.selector
        run(connect(), policy, hours, apply, selector, namespace, threading.Event())
    except StageError as error:
        print(redacted(error.line), file=sys.stderr)
        return error.exit_code
    return 0


def run(
    api: Api,
    policy: Policy,
    dear_hours: Mapping[str, float],
    apply: bool,
    selector: str,
    namespace: str,
    stop: threading.Event,
) -> None:
    """Until `stop`. Raises UserError for what waiting cannot mend: missing rights, a wrong address;
    InfraError if a watch has died, for what it has seen would be judged for ever.
    """
    changed = threading.Event()
    relist_s = policy.controller.relist_s
    controller = Controller(api, policy, dear_hours, apply)
    with (
        Watched(api, NODES, changed, relist_s, kept_node, labelSelector=selector) as nodes,
        Watched(
            api, namespace_of(PODS, namespace), changed, relist_s, kept_pod,
            labelSelector=STAGE_LABEL,
        ) as pods,
    ):  # fmt: skip
        while not stop.is_set():
            changed.wait(policy.controller.resync_s)
            changed.clear()
            refusal = nodes.refusal or pods.refusal
            if refusal is not None:
                with errors_typed("watching nodes and stage pods"):
                    raise refusal
            if not (nodes.is_kept and pods.is_kept):
                raise InfraError(
                    "the watch of nodes or of stage pods has died; its trace is above",
                    "start the controller again, as Kubernetes does",
                )
            if not (nodes.listed.is_set() and pods.listed.is_set()):
                continue
            began = time.monotonic()
            if _turn(controller, nodes, pods, stop):
                changed.set()
            # With thousands of nodes a look takes a second: it may not take a whole core.
            stop.wait(max(SETTLE_S, time.monotonic() - began))


def _turn(controller: Controller, nodes: Watched, pods: Watched, stop: threading.Event) -> bool:
    """Whether to look again at once. A server that is away is waited for."""
    try:
        with errors_typed("acting on the nodes"):
            return controller.turn([*nodes.objects().values()], [*pods.objects().values()])
    except InfraError as error:
        LOG.warning("%s", error.message)
        stop.wait(RETRY_S)
        return True


if __name__ == "__main__":
    sys.exit(main())
