"""`headrace`: the pipeline from the command line."""

import argparse
import os
import sys
import time
from pathlib import Path

from components.contract import STAGES
from components.errors import ERROR_OF_KIND, StageError
from tasks import config, flow_record


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="headrace", description="From raw text to a registered language model."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser(
        "run", help="run what has changed, in the order of dvc.yaml, and register the model"
    )
    run.add_argument("stages", nargs="*", metavar="STAGE", help=f"only these: {', '.join(STAGES)}")
    run.add_argument("--force", action="store_true", help="run also what has not changed")
    run.add_argument("--pull", action="store_true", help="take what it can from the DVC remote")
    ask = verbs.add_parser("generate", help="print a registered model's answer to a prompt")
    ask.add_argument("uri", help="models:/headrace/<version>")
    ask.add_argument("prompt")
    ask.add_argument("--max-new-tokens", type=int, default=128)
    ask.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    ask.add_argument("--weights", choices=("model", "quantized"), default="model")
    arguments = parser.parse_args()
    root = Path.cwd()
    config.set_environment_defaults(os.environ, root)
    try:
        if arguments.verb == "run":
            return run_pipeline(root, tuple(arguments.stages), arguments.force, arguments.pull)
        from tasks.registry import generate

        how = {
            "max_new_tokens": arguments.max_new_tokens,
            "temperature": arguments.temperature,
            "weights": arguments.weights,
        }
        print(generate(arguments.uri, [arguments.prompt], **how)[0])
    except StageError as error:
        print(f"{error.kind} error: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    return 0


def run_pipeline(root: Path, stages: tuple[str, ...], force: bool, pull: bool) -> int:
    """Run the flow here, without a server of its own, and print what became of each stage."""
    from components.params import load_params

    load_params(root / "params.yaml")  # before Prefect, which takes seconds to start
    from flows.pipeline import pipeline

    started = time.monotonic()
    state = pipeline(stages=stages, force=force, pull=pull, return_state=True)
    record = flow_record.read(root, str(state.state_details.flow_run_id))
    if record is None:
        print(f"the flow ended before its first stage: {state.message}", file=sys.stderr)
        return StageError.exit_code
    print()
    names = [name for name in (*record.stages, "register") if name in record.states]
    ends = [record.states[name] for name in names]
    for name, end in zip(names, ends, strict=True):
        print(f"{name:>14}  {end['name']:<10} {' '.join(end['message'].split())[:160]}")
    print(f"{'all':>14}  {record.state.capitalize():<10} {time.monotonic() - started:.0f} s")
    results = root / "artifacts" / "evaluate" / "results.md"
    if record.state == "FINISHED" and results.exists():
        print(f"\n{results.read_text(encoding='utf-8')}")
    codes = [ERROR_OF_KIND[end["kind"]].exit_code for end in ends if end["kind"] in ERROR_OF_KIND]
    return codes[0] if codes else 0


if __name__ == "__main__":
    sys.exit(main())
