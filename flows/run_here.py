"""`headrace run`: the flow in this process, and what became of each stage as a table."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.contract import Json
from components.errors import ERROR_OF_KIND, StageError
from flows.form import Overrides
from flows.pipeline import pipeline
from tasks import config, flow_record


def run_here(
    root: Path, stages: Sequence[str], force: bool, pull: bool, overrides: Mapping[str, Json]
) -> int:
    """Run the flow, print the table, return the exit code of the first stage that failed."""
    started = time.monotonic()
    chosen = Overrides.of(overrides)
    state = pipeline(
        stages=list(stages),
        force=force,
        pull=pull,
        overrides=chosen,
        return_state=True,
    )
    record = flow_record.read(
        flow_record.record_path(config.home_root(root), str(state.state_details.flow_run_id))
    )
    error = state.result(raise_on_failure=False) if state.is_failed() else None
    code = error.exit_code if isinstance(error, StageError) else StageError.exit_code
    if record is None or not record.states:
        print(f"the flow ended before its first stage: {state.message}", file=sys.stderr)
        return code
    print()
    names = [name for name in (*record.stages, "register") if name in record.states]
    ends = [record.states[name] for name in names]
    for name, end in zip(names, ends, strict=True):
        line = (end["message"].splitlines() or [""])[0]
        print(f"{name:>14}  {end['name']:<10} {line[:160]}")
    print(f"{'all':>14}  {record.state.capitalize():<10} {time.monotonic() - started:.0f} s")
    results = Path(record.workspace) / "artifacts" / "evaluate" / "results.md"
    if record.state == "FINISHED" and results.exists():
        print(f"\n{results.read_text(encoding='utf-8')}")
    codes = [ERROR_OF_KIND[end["kind"]].exit_code for end in ends if end["kind"] in ERROR_OF_KIND]
    if not codes and not state.is_completed():
        print(state.message, file=sys.stderr)
        return code
    return codes[0] if codes else 0
