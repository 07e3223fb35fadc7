"""`python -m tasks.pod STAGE RUN_DIR`: what runs where the work is, on a laptop or in a container.

Knows the stage and its folders, and neither Prefect nor DVC nor Kubernetes.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

from components.contract import STAGES, Sink, StageIO
from components.errors import InfraError, StageError, UserError, disk_error
from components.metrics import JsonLinesSink, QuietSink
from components.redaction import RedactedStream, redacted
from components.train import stop
from tasks import outcome
from tasks.outcome import Outcome
from tasks.process import die_with_parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.pod", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    if "RANK" in os.environ:  # the parent is torchrun, which does not ask for it
        die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, _on_sigterm)
    rank = int(os.environ.get("RANK", "0"))
    stage, run_dir = arguments.stage, arguments.run_dir
    request = json.loads((run_dir / "request.json").read_text(encoding="utf-8"))
    sys.stdout = cast("TextIO", RedactedStream(sys.stdout))
    sys.stderr = cast("TextIO", RedactedStream(sys.stderr))
    started_at, started = time.time(), time.monotonic()
    kind, code, message, hint = "ok", 0, "", ""
    try:
        run_stage(stage, run_dir, request, rank)
    except Exception as raised:  # noqa: BLE001  the one place: whatever nobody expected is a bug
        error = _typed(raised, stage, run_dir)
        kind, code, message, hint = error.kind, error.exit_code, error.message, error.hint
    if rank == 0 or code:
        ended = Outcome(
            stage, request["key"], kind, code, redacted(message), redacted(hint),
            os.uname().nodename, request["attempt"], started_at, time.monotonic() - started, 0.0,
        )  # fmt: skip
        with suppress(OSError):  # a full disk; whoever watches sees the exit code
            outcome.write_first(run_dir, ended)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # else Python tries again when it ends, and exits with a code of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _typed(error: Exception, stage: str, run_dir: Path) -> StageError:
    """The error that says who must act."""
    if isinstance(error, StageError):
        return error
    # Torch's, without importing torch for it.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return UserError(f"{stage} ran out of memory", "make the model or the batch smaller")
    refused = disk_error(error, run_dir)
    if refused is not None:
        # Half an output is worth nothing, and may be what leaves no room to say so.
        shutil.rmtree(run_dir / "out", ignore_errors=True)
        return refused
    with suppress(OSError):
        traceback.print_exc()
    first = (str(error).splitlines() or [""])[0]
    kind = InfraError if _is_of_the_network(error) else StageError
    return kind(f"{type(error).__name__}: {first}", f"the trace is in {run_dir / 'log.txt'}")


def _is_of_the_network(error: Exception) -> bool:
    """NCCL, gloo and the store of a group of ranks, again without importing torch: its error types,
    or a plain RuntimeError that names the transport. A rank that fails first takes the others along.
    """
    return any(kind.__name__ == "DistError" for kind in type(error).__mro__) or (
        isinstance(error, RuntimeError) and ("NCCL" in str(error) or "gloo/transport" in str(error))
    )


def run_stage(stage: str, run_dir: Path, request: dict[str, object], rank: int) -> None:
    """Run one stage, check its contract and write its report. Rank 0 alone writes for people."""
    from components.params import PARAMS_OF

    module = importlib.import_module(f"components.{stage}.stage")
    values = request["params"]
    assert isinstance(values, dict)
    params = PARAMS_OF[stage].model_validate_json(json.dumps(values[stage]))
    root = Path.cwd()
    io = StageIO(
        inputs={name: root / "artifacts" / name for name in request["inputs"]},  # type: ignore[attr-defined]
        out=run_dir / "out",
        work=run_dir / "work",
        reports=run_dir / "reports",
        cache=Path(str(request["cache"])),
        seed=int(values["seed"]),
        num_workers=int(request["num_workers"]),  # type: ignore[call-overload]
    )
    sink: Sink = JsonLinesSink(run_dir / "metrics.jsonl", stage) if rank == 0 else QuietSink()
    started = time.monotonic()
    report = module.run(params, io, sink)
    if rank:
        return
    report["elapsed_s"] = round(time.monotonic() - started, 2)
    contract = Path(str(module.__file__)).parent / "contract.yaml"
    if contract.exists():
        from components.gates.check import check_contract

        sink.info("checking what it publishes against its contract")
        report["contract"] = check_contract(contract, io.out, report, io.reports / "contract.html")
    outcome.write_json(run_dir / "report.json", report)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """A training loop checkpoints and stops by itself; anything else stops here."""
    stop.request()
    if not stop.is_watched():
        raise InfraError("stopped by SIGTERM", "run it again")


if __name__ == "__main__":
    sys.exit(main())
