"""`python -m tasks.pod STAGE RUN_DIR`: what runs where the work is, on a laptop or in a container.

Knows the stage and its folders, and neither Prefect nor DVC nor Kubernetes.

With `--share INDEX/NUM` it is one of NUM on one volume. Index 0 runs the stage, and how it ends is
how the stage ends; the others compute pieces for it, and may come late, die or never come. They wait
for it as long as it takes: whoever started them ends them when it has ended.
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

from components.contract import ON_MANY_MACHINES, STAGES, LeaderLeft, Share, Sink, StageIO
from components.errors import InfraError, StageError, UserError, disk_error
from components.metrics import JsonLinesSink, QuietSink
from components.pool import in_each_worker
from components.redaction import redact_output, redacted
from components.section import Section
from components.train import stop
from tasks import outcome
from tasks.outcome import Outcome
from tasks.process import die_with_parent
from tasks.publish import remove

Request = dict[str, object]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.pod", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--share", type=_place, default=(0, 1), metavar="INDEX/NUM")
    arguments = parser.parse_args()
    if "RANK" in os.environ:  # the parent is torchrun, which does not ask for it
        die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, _on_sigterm)
    rank = int(os.environ.get("RANK", "0"))
    stage, run_dir = arguments.stage, arguments.run_dir
    index, num = arguments.share
    share = Share(index, num, run_dir / "work" / "share") if num > 1 else None
    request = json.loads((run_dir / "request.json").read_text(encoding="utf-8"))
    redact_output()
    in_each_worker(redact_output)  # they write to the same log
    if share is not None and share.index:
        return assist_stage(stage, run_dir, request, share)
    started_at, started = time.time(), time.monotonic()
    kind, code, message, hint = "ok", 0, "", ""
    try:
        run_stage(stage, run_dir, request, rank, share)
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


def run_stage(
    stage: str, run_dir: Path, request: Request, rank: int, share: Share | None = None
) -> None:
    """Run one stage, check its contract and write its report. Rank 0 alone writes for people."""
    module = importlib.import_module(f"components.{stage}.stage")
    params, io = _asked(stage, run_dir, request, share)
    if share is not None:  # a leader that was killed left half an output
        for folder in (io.out, io.reports):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        share.folder.mkdir(parents=True, exist_ok=True)
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
    if share is not None:
        with suppress(OSError):  # it does no harm
            remove(share.folder)


def assist_stage(stage: str, run_dir: Path, request: Request, share: Share) -> int:
    """Compute pieces for the pod that runs the stage; returns the exit code.

    It ends when all pieces are there. What goes wrong here is told in this pod's log alone: the other
    computes what is missing, or meets the same and says so. A pod that was stopped may be started
    again, so that is no success.
    """
    if stage not in ON_MANY_MACHINES:
        return 0
    sink = JsonLinesSink(Path(os.devnull), f"{stage} {share.index}/{share.num}")
    try:
        from components.sharing import await_leader

        module = importlib.import_module(f"components.{stage}.stage")
        params, io = _asked(stage, run_dir, request, share)
        while True:
            sink.info("waits for the leader")
            await_leader(share)
            with suppress(LeaderLeft):
                module.assist(params, io, share, sink)
                return 0
    except Exception as raised:  # noqa: BLE001  whatever it is, another pod speaks for the stage
        if stop.is_requested():
            return InfraError.exit_code
        with suppress(OSError):
            traceback.print_exc()
        sink.info(f"leaves its pieces to the others: {type(raised).__name__}: {raised}")
        return 0


def _asked(
    stage: str, run_dir: Path, request: Request, share: Share | None
) -> tuple[Section, StageIO]:
    """The params that a request states, and the folders that belong to it."""
    from components.params import PARAMS_OF

    values = request["params"]
    assert isinstance(values, dict)
    root = Path.cwd()
    io = StageIO(
        inputs={name: root / "artifacts" / name for name in request["inputs"]},  # type: ignore[attr-defined]
        out=run_dir / "out",
        work=run_dir / "work",
        reports=run_dir / "reports",
        cache=Path(str(request["cache"])),
        seed=int(values["seed"]),
        # A container's own: its launcher's machine may have more cores, or fewer.
        num_workers=int(os.environ.get("HEADRACE_NUM_WORKERS") or request["num_workers"]),  # type: ignore[call-overload]
        share=share,
    )
    return PARAMS_OF[stage].model_validate_json(json.dumps(values[stage])), io


def _place(text: str) -> tuple[int, int]:
    index, num = (int(part) for part in text.split("/"))
    if not 0 <= index < num:
        raise ValueError(text)
    return index, num


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """A training loop checkpoints and stops by itself; anything else stops here."""
    stop.request()
    if not stop.is_watched():
        raise InfraError("stopped by SIGTERM", "run it again")


if __name__ == "__main__":
    sys.exit(main())
