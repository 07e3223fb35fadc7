"""The node's stamp: until when its dear checks need not be repeated.

A pod has no right to read its node, so it asks the node agent beside it, which has. The node
controller writes the stamp, from the report in a pod's termination message.
"""

import http.client
import json
import time
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from components.preflight.machine import within
from components.preflight.report import Finding, Report

AGENT_PORT = 9464
TIMEOUT_S = 2.0
MAX_BYTES = 4096
VOUCHED_FOR = ("disk_speed", "memory_bandwidth", "matmul")
"""What a stamp stands for. Not `all_reduce`: it is about several nodes."""


@dataclass(frozen=True)
class Stamp:
    """What the node agent said; a newer agent may say more."""

    dear_ok_until: float | None = None
    """Unix seconds; None: no stamp."""
    agent_commit: str | None = None
    fault: str | None = None
    """Why nobody answered."""


def ask_stamp(node_ip: str, port: int = AGENT_PORT, timeout_s: float = TIMEOUT_S) -> Stamp:
    """`GET /stamp` of the agent on this node; never raises, never takes longer than `timeout_s`."""
    stamp = within(timeout_s, lambda: _ask(node_ip, port, timeout_s))
    return stamp or Stamp(fault=f"no answer in {timeout_s:g} s")


def _ask(node_ip: str, port: int, timeout_s: float) -> Stamp:
    connection = http.client.HTTPConnection(node_ip, port, timeout=timeout_s)
    try:
        connection.request("GET", "/stamp")
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES)
        if answer.status != http.HTTPStatus.OK:
            return Stamp(fault=f"HTTP {answer.status}")
        told = TypeAdapter(Stamp).validate_json(body)
        return Stamp(told.dear_ok_until, told.agent_commit)
    except (OSError, http.client.HTTPException) as error:
        return Stamp(fault=str(error) or type(error).__name__)
    except ValidationError:
        return Stamp(fault=f"no stamp in {json.dumps(body[:40].decode(errors='replace'))}")
    finally:
        connection.close()


def holds(stamp: Stamp, now: float, hours: float) -> bool:
    """Whether dear checks can be left out. A stamp that outlasts any that a controller would give
    (`hours` from now) was given by another clock, and counts for nothing.
    """
    until = stamp.dear_ok_until
    return until is not None and now < until <= now + hours * 3600


def stamp_finding(stamp: Stamp, trusted: bool) -> Finding:
    """Why the dear checks are made, or not."""
    if stamp.fault is not None:
        message = f"the node agent does not answer ({stamp.fault}): dear checks are made"
        return Finding("stamp", "skipped", message)
    if stamp.dear_ok_until is None:
        return Finding("stamp", "ok", "the node has no stamp: dear checks are made")
    until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(stamp.dear_ok_until))
    rest = "dear checks are not repeated" if trusted else "it does not count, dear checks are made"
    message = f"the node's stamp says {until} UTC: {rest}"
    return Finding("stamp", "ok", message, value=stamp.dear_ok_until)


def dear_until(report: Report, hours: float, num_gpus: int) -> float | None:
    """Until when this report vouches for its node, in Unix seconds; None: it does not.

    It does if all that a stamp stands for was measured and passed, on all `num_gpus` GPUs that the
    node has, and nothing at all failed. A pod with some of them, or none, says nothing of the others.
    """
    if report.num_gpus_measured < num_gpus:
        return None
    passed = {found.check for found in report.findings if found.status in ("ok", "warn")}
    failed = any(found.status == "fail" for found in report.findings)
    doubtful = any(
        found.check in VOUCHED_FOR and found.status not in ("ok", "warn")
        for found in report.findings
    )
    if failed or doubtful or not passed.issuperset(VOUCHED_FOR):
        return None
    return report.at + hours * 3600
