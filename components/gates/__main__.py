"""Try a contract by hand: `python -m components.gates CONTRACT OUT [--report R] [--page P]`."""

import argparse
import json
import sys
from pathlib import Path

from components.errors import StageError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m components.gates",
        description="Check a stage's output against its contract.",
    )
    parser.add_argument("contract", type=Path, help="components/<stage>/contract.yaml")
    parser.add_argument("out", type=Path, help="the stage's output, such as artifacts/dedup")
    parser.add_argument("--report", type=Path, help="the stage's report, a JSON file")
    parser.add_argument("--page", type=Path, help="where to write the result page, an HTML file")
    given = parser.parse_args(arguments)

    from components.gates.check import check_contract

    try:
        report = json.loads(given.report.read_text("utf-8")) if given.report else None
        if report is None:
            print("no --report given: the contract's report part, if any, is not checked")
        summary = check_contract(given.contract, given.out, report, given.page)
    except StageError as error:
        print(f"{error.message}\n  -> {error.hint}", file=sys.stderr)
        return error.exit_code
    except (OSError, json.JSONDecodeError) as error:
        print(f"{given.report}: {error}", file=sys.stderr)
        return 64
    for line in summary["warnings"]:
        print(f"warning: {line}")
    num_held = summary["num_expectations"] - summary["num_failed"]
    print(f"{num_held} of {summary['num_expectations']} expectations hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
