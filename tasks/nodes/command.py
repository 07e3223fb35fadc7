"""`headrace nodes`: states, reasons and history, and a person's two words to the controller."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from components.errors import NodeUnhealthy, UserError
from tasks.nodes.instants import rfc3339
from tasks.nodes.names import REPAIRED_ANNOTATION, RESET_ANNOTATION

if TYPE_CHECKING:
    from tasks.cluster.api import Api
    from tasks.nodes.listing import Row

WIDTH = 200
"""Of what is piped: a node a line."""
RESETTABLE = ("retired", "suspect")
REPAIRABLE = ("quarantined", "draining", "repairing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument("--history", default="", metavar="NODE", help="what happened to one node")
    parser.add_argument("--selector", default="", help="only nodes with these labels")
    verbs = parser.add_subparsers(dest="nodes_verb", metavar="VERB")
    reset = verbs.add_parser(
        "reset", help="take a retired node back for repair, or a suspicion back"
    )
    reset.add_argument("node")
    reset.add_argument("--why", required=True, help="for the record")
    repaired = verbs.add_parser("repaired", help="report a repair; checks and probation follow")
    repaired.add_argument("node")


def main(arguments: argparse.Namespace) -> int:
    """0; 69 if the breaker holds a node back, for then somebody must look."""
    from tasks.cluster.api import connect
    from tasks.nodes.calls import errors_typed

    api = connect()
    match arguments.nodes_verb:
        case "reset":
            with errors_typed(f"resetting {arguments.node}"):
                return reset(api, arguments.node, arguments.why)
        case "repaired":
            with errors_typed(f"reporting the repair of {arguments.node}"):
                return repaired(api, arguments.node)
        case _:
            with errors_typed("listing nodes"):
                return show(api, arguments)


def show(api: "Api", arguments: argparse.Namespace) -> int:
    from tasks.config import load_settings
    from tasks.nodes import calls
    from tasks.nodes.listing import rows

    nodes = calls.list_nodes(api, arguments.selector)
    pods = calls.list_stage_pods(api, load_settings().namespace)
    listed = rows(nodes, pods, int(time.time()))
    if arguments.history:
        listed = [_named(listed, arguments.history)]
    if arguments.json:
        print(json.dumps([row.as_json() for row in listed], indent=1))
    else:
        _print(listed, bool(arguments.history))
    held = [row.node for row in listed if row.held_by_breaker]
    if not held:
        return 0
    print(
        f"the breaker holds {', '.join(held)}: too many nodes of a pool failed at once; "
        "is it the nodes, or a check?",
        file=sys.stderr,
    )
    return NodeUnhealthy.exit_code


def reset(api: "Api", name: str, why: str) -> int:
    """Leave the request on the Node; the controller answers it."""
    why = " ".join(why.split())
    if not why:
        raise UserError("--why is empty", "say in a few words what was found or mended")
    _request(api, name, RESETTABLE, RESET_ANNOTATION, f"{rfc3339(time.time())} {why}")
    print(f"{name}: the reset is asked for; the controller answers within its next look")
    return 0


def repaired(api: "Api", name: str) -> int:
    """The same for a repair."""
    _request(api, name, REPAIRABLE, REPAIRED_ANNOTATION, rfc3339(time.time()))
    print(f"{name}: the repair is reported; checks follow, then probation")
    return 0


def _request(api: "Api", name: str, states: tuple[str, ...], annotation: str, value: str) -> None:
    from tasks.nodes import calls
    from tasks.nodes.record import record_of

    meta = calls.read_node(api, name)["metadata"]
    record = record_of(meta.get("labels") or {}, meta.get("annotations") or {}, int(time.time()))
    if record.state not in states:
        raise UserError(
            f"{name} is {record.state}; this is for nodes that are {' or '.join(states)}",
            f"see `headrace nodes --history {name}`",
        )
    calls.patch_node(api, name, {"metadata": {"annotations": {annotation: value}}})


def _named(listed: "list[Row]", name: str) -> "Row":
    for row in listed:
        if row.node == name:
            return row
    raise UserError(f"there is no node {name}", "`headrace nodes` lists those there are")


def _print(listed: "list[Row]", with_history: bool) -> None:
    from rich.console import Console

    from tasks.nodes.listing import history_lines, table

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table(listed))
    if with_history:
        for line in history_lines(listed[0]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
