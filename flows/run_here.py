"""`headrace run`: the flow in this process, and what became of each stage as a table."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from components.contract import Json
from components.errors import ERROR_OF_KIND, InfraError, StageError
from flows import dead_flows
from flows.form import Overrides, Where
from flows.pipeline import pipeline
from tasks import config, flow_record

NUM_RETRIES = 3
"""Of a call to Prefect's server, within 14 seconds; its own five are a minute for each."""

TELL_S = 10.0
"""What is not told within it the next run tells."""


def run_here(
    root: Path, stages: Sequence[str], force: bool, pull: bool, launcher: Where,
    overrides: Mapping[str, Json],
) -> int:  # fmt: skip
    """Run the flow, print the table, return the exit code of the first stage that failed.

    Does not return if Prefect's server went away meanwhile, but ends the process with that code.
    """
    started, home = time.monotonic(), config.home_root(root)
    parameters: dict[str, Any] = {
        "stages": list(stages), "force": force, "pull": pull, "launcher": launcher,
    }  # fmt: skip
    is_served = bool(PREFECT_API_URL.value())
    if not is_served:
        from flows.temporary_server import start_server  # half as long as all else we import

        start_server()
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: NUM_RETRIES}):
            if is_served:
                _tell_dead(home)
            state = pipeline(**parameters, overrides=Overrides.of(overrides), return_state=True)
    except httpx.HTTPError as away:
        print(f"Prefect's server went away ({away}); how the run ended:", file=sys.stderr)
        record = flow_record.own(home)
        code = _show_end(record, started) if record else InfraError.exit_code
        sys.stdout.flush()
        os._exit(code)  # else Prefect tries for minutes to send each of its events
    record = flow_record.own(home)
    code = _show_end(record, started) if record and record.states else 0
    if code or state.is_completed():
        return code
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageError):
        raise error
    if record and record.state == "FINISHED":  # Prefect's server was away as it ended
        return 0
    print(f"the flow ended before its first stage: {state.message}", file=sys.stderr)
    return StageError.exit_code


def _tell_dead(home: Path) -> None:
    """Tell a server, which may have nobody here who looks all the time, what was killed before us."""
    with suppress(Exception):  # of a server that is away the flow itself tells
        asyncio.run(asyncio.wait_for(dead_flows.tell(home, set()), TELL_S))


def _show_end(record: flow_record.FlowRecord, started: float) -> int:
    """Print the table, and the results if all ended well; return the exit code."""
    print()
    names = [name for name in (*record.stages, "register") if name in record.states]
    ends = [record.states[name] for name in names]
    for name, end in zip(names, ends, strict=True):
        line = (end["message"].splitlines() or [""])[0]
        print(f"{name:>14}  {end['name']:<10} {line[:160]}")
    print(f"{'all':>14}  {record.state.capitalize():<10} {time.monotonic() - started:.0f} s")
    results = Path(record.workspace) / "artifacts" / "evaluate" / "results.md"
    if record.state == "FINISHED" and "evaluate" in names and results.exists():
        table, _, _ = results.read_text(encoding="utf-8").partition("\n## ")
        print(f"\n{table}\nMore: artifacts/evaluate/results.md and results.png")
    codes = [ERROR_OF_KIND[end["kind"]].exit_code for end in ends if end["kind"] in ERROR_OF_KIND]
    return codes[0] if codes else 0
