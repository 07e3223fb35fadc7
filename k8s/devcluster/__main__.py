"""A real Kubernetes with Kueue on this machine, without a container engine, in a network of its own.

    python -m k8s.devcluster up | status | down | build
    python -m k8s.devcluster exec COMMAND...      run a command inside its network
    python -m k8s.devcluster restart|kill SERVER  start a dead one again, or kill -9 one

For development and tests; root, Linux. Builds its programs once, about a quarter of an hour.
"""

import argparse
import sys

from components.errors import StageError, UserError
from k8s.devcluster import cluster, network, processes
from k8s.devcluster.build import build


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.devcluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "status", "down", "build"):
        verbs.add_parser(verb)
    verbs.add_parser("exec").add_argument("command", nargs=argparse.REMAINDER)
    for verb in ("restart", "kill"):
        verbs.add_parser(verb).add_argument("server", choices=processes.ORDER)
    arguments = parser.parse_args()
    try:
        return _do(arguments)
    except StageError as error:
        print(error.line, file=sys.stderr)
        return error.exit_code


def _do(arguments: argparse.Namespace) -> int:
    if arguments.verb == "up":
        cluster.up()
    elif arguments.verb == "down":
        cluster.down()
    elif arguments.verb == "build":
        build()
    elif arguments.verb == "status":
        return _status()
    elif arguments.verb == "exec":
        if not arguments.command:
            raise UserError("which command?", "python -m k8s.devcluster exec kubectl get nodes")
        cluster.execute(arguments.command)
    elif arguments.verb == "kill":
        processes.kill(arguments.server)
    else:
        network.enter()
        processes.restart(arguments.server)
    return 0


def _status() -> int:
    rows = cluster.status()
    if not rows:
        print("the cluster is down; start it: make cluster-up")
        return 1
    for name, pid, memory_mib, cpu_s in rows:
        print(f"{name:25} {pid or 'DEAD':>8}  {memory_mib:5} MiB  {cpu_s:8.1f} s")
    print(f"{'in all':25} {'':8}  {sum(row[2] for row in rows):5} MiB")
    return 0 if all(row[1] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
