"""One pod at a time works on a run: who comes later takes the work away by renaming its folder.

A pod on a node that nobody can reach may go on for hours after its successor has begun. All paths
it knows lie below a folder of its own; once that has been renamed it can open, create and rename
nothing that its successor reads. No lock is needed that a network file system would have to keep.

    pods/holder        the name of the pod that works, or worked last
    pods/<pod>/        its folder: request.json, out/, reports/, work/, metrics.jsonl, log.txt, ...
    out, work, ...     links into that folder, for whoever reads the run
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tasks import outcome

PLACES = "pods"
HOLDER = "holder.json"
BEFORE = "before.json"
READY = "ready"
GANG = "gang.json"
"""The pods of a gang, in order: written by the launcher, which alone sees all of them."""
LINKED = ("out", "reports", "report.json", "work", "metrics.jsonl", "log.txt")
GROWING = ("metrics.jsonl", "log.txt")
"""What a successor goes on writing: it gets a copy, for the old pod may have it open."""
SETTLED = (*GROWING, "report.json")


def claim(run: Path, pod: str) -> Path:
    """Make `pod` the one that works on `run`, and return its folder, with all earlier work in it.

    Interrupted at any point, the next claim finds the work: by the notes of who took it from whom.
    """
    place = run / PLACES / pod
    if holder(run) == pod and (place / READY).exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    before = holder(run)
    if before != pod:
        outcome.write_json(place / BEFORE, before)
        outcome.write_json(run / PLACES / HOLDER, pod)
    source = _work_before(run, pod)
    if source is not None:
        source.rename(place / "work")
    for name in ("out", "reports", "work"):
        (place / name).mkdir(exist_ok=True)
    for name in GROWING:
        with suppress(FileNotFoundError):
            shutil.copyfile(run / name, place / name)
    shutil.copyfile(run / "request.json", place / "request.json")
    for name in LINKED:
        _link(run / name, Path(PLACES, pod, name))
    (place / READY).touch()
    for other in (run / PLACES).iterdir():
        if other.is_dir() and other != place:
            shutil.rmtree(other, ignore_errors=True)
    return place


def holder(run: Path) -> str:
    """The pod that works on `run`, or worked last; empty if none ever did."""
    return str(outcome.read_json(run / PLACES / HOLDER) or "")


def place_of(run: Path) -> Path | None:
    """The holder's folder; None if no pod ever worked on `run`."""
    name = holder(run)
    return run / PLACES / name if name else None


def settle(run: Path) -> None:
    """Make what outlives the pods' folders, figures and logs, the run's own again."""
    for name in SETTLED:
        path = run / name
        if path.is_symlink():
            part = path.with_name(f".{name}.settled")
            try:
                shutil.copyfile(path, part)
            except FileNotFoundError:
                path.unlink()
            else:
                os.replace(part, path)


def _work_before(run: Path, pod: str) -> Path | None:
    """The folder with the work so far: the nearest predecessor's that is there; None if it is ours."""
    seen: set[str] = set()
    while pod and pod not in seen:
        seen.add(pod)
        if (run / PLACES / pod / "work").is_dir():
            return None if len(seen) == 1 else run / PLACES / pod / "work"
        pod = str(outcome.read_json(run / PLACES / pod / BEFORE) or "")
    own = run / "work"
    return own if own.is_dir() and not own.is_symlink() else None


def _link(path: Path, target: Path) -> None:
    """Make `path` a link to `target` in place of whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    part = path.with_name(f".{path.name}.link")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    os.replace(part, path)
