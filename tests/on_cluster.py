"""`python -m tests.on_cluster`: the tests of tests/cluster on the cluster that
HEADRACE_TEST_KUBECONFIG names, as far as they leave that alone, else on this machine's development
cluster, started if need be.
"""

import os
import sys

from components.errors import StageError
from k8s.devcluster import cluster


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/cluster",
        "-p",
        "no:cacheprovider",
        "-rs",
        *sys.argv[1:],
    ]
    theirs = os.environ.get("HEADRACE_TEST_KUBECONFIG")
    try:
        if theirs:
            os.execve(command[0], command, os.environ | {"KUBECONFIG": theirs})
        cluster.up()
        cluster.execute(command)
    except StageError as error:
        print(error.line, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
