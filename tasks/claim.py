"""One pod at a time works on a run: who comes later takes the work away by renaming its folder.

A pod on a node that nobody can reach may go on for hours after its successor has begun. All paths
it knows lie below a folder of its own; once that has been renamed it can open, create and rename
nothing that its successor reads. No lock is needed that a network file system would have to keep.

    pods/holder.json   the pod that works, or worked last, and whether the run has its work back
    pods/<pod>/        its folder: request.json, out/, reports/, work/, metrics.jsonl, log.txt, ...
    out, work, ...     while it works, links into that folder, for whoever reads the run
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tasks import outcome

PLACES = "pods"
HOLDER = "holder.json"
BEFORE = "before.json"
"""In a pod's folder: from whom it took the work."""
READY = "ready"
GANG = "gang.json"
"""The pods of a gang, in order: written by the launcher, which alone sees all of them."""
FOLDERS = ("work", "out", "reports")
GROWING = ("metrics.jsonl", "log.txt")
"""What a successor goes on writing: it gets a copy, for the old pod may have it open."""
FILES = (*GROWING, "report.json")
LINKED = (*FOLDERS, *FILES)


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
        _set_holder(run, pod)
    source = _work_before(run, pod)
    if source is not None:
        source.rename(place / "work")
    for name in FOLDERS:
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


def settle(run: Path) -> None:
    """Give the run back what its pods worked on; the last one can write nothing of it any more.

    Interrupted at any point, it may be called again.
    """
    place = place_of(run)
    if place is None:
        return
    _set_holder(run, place.name, settled=True)
    for name in FOLDERS:
        if (run / name).is_symlink() and (place / name).is_dir():
            (run / name).unlink()
        if (place / name).is_dir() and not (run / name).exists():
            (place / name).rename(run / name)
    for name in FILES:
        if (run / name).is_symlink():
            part = run / f".{name}.settled"
            try:
                shutil.copyfile(run / name, part)
            except FileNotFoundError:  # it wrote none
                (run / name).unlink()
            else:
                os.replace(part, run / name)
    for name in FOLDERS:  # links whose folder a later pod has taken along
        if (run / name).is_symlink():
            (run / name).unlink()


def holder(run: Path) -> str:
    """The pod that works on `run`; empty if none does."""
    found = outcome.read_json(run / PLACES / HOLDER) or {}
    return "" if found.get("settled") else str(found.get("pod", ""))


def place_of(run: Path) -> Path | None:
    """The folder of the pod that works on `run` or worked last; None if none ever did."""
    name = (outcome.read_json(run / PLACES / HOLDER) or {}).get("pod")
    return run / PLACES / name if name else None


def _set_holder(run: Path, pod: str, *, settled: bool = False) -> None:
    outcome.write_json(run / PLACES / HOLDER, {"pod": pod, "settled": settled})


def _work_before(run: Path, pod: str) -> Path | None:
    """The folder with the work so far: the nearest predecessor's that is there; None if it is ours."""
    seen: set[str] = set()
    while pod and pod not in seen:
        seen.add(pod)
        if (run / PLACES / pod / "work").is_dir():
            return None if len(seen) == 1 else run / PLACES / pod / "work"
        pod = str(outcome.read_json(run / PLACES / pod / BEFORE) or "")
    own = (run / "work").resolve()
    return own if own.is_dir() else None


def _link(path: Path, target: Path) -> None:
    """Make `path` a link to `target` in place of whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    part = path.with_name(f".{path.name}.link")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    os.replace(part, path)
