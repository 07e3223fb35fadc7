"""What the controller would do now, over all nodes: pure, from the API's JSON alone.

The breaker is here, for it looks at a pool: at most so many of its nodes are newly quarantined
within a window, counted from the records and from what this process has done itself, for a list of
the nodes may be older than its own last writes. A node that is counted needs no room a second time.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.nodes.effects import Effect
from tasks.nodes.machine import step
from tasks.nodes.marks import patch
from tasks.nodes.names import DEFAULT_POOL, POOL_LABEL
from tasks.nodes.observed import Observations, observe
from tasks.nodes.policy import Breaker, Policy
from tasks.nodes.record import Record, record_of

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """What is to be written of one node, and then done."""

    node: Json
    before: Record
    after: Record
    body: dict[str, Any] | None
    """The patch; None if the Node is as it should be."""
    effects: tuple[Effect, ...]

    @property
    def name(self) -> str:
        return _name(self.node)

    @property
    def quarantines(self) -> bool:
        return self.after.quarantines_at != self.before.quarantines_at


def pool_of(node: Json) -> str:
    return str((node["metadata"].get("labels") or {}).get(POOL_LABEL, DEFAULT_POOL))


def allowed(num_nodes: int, breaker: Breaker) -> int:
    return max(breaker.at_least, int(breaker.max_fraction * num_nodes + 1e-9))


def plan(
    nodes: Sequence[Json],
    pods: Iterable[Json],
    now: int,
    policy: Policy,
    dear_hours: Mapping[str, float],
    shadow: Mapping[str, Record],
    quarantined_at: Mapping[str, int],
) -> list[Change]:
    """One step of every node, fatal failures first, so that the breaker's room goes to them.

    `dear_hours`: how long passed dear checks hold, by SKU. `shadow`: records that stand for the
    nodes' own, by node; a dry run's. `quarantined_at`: by node, when it last was, as this process
    has written or read it since the list.
    """
    of_node: dict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        of_node[pod.get("spec", {}).get("nodeName", "")].append(pod)
    looks = [
        (
            node,
            _record(node, now, shadow),
            observe(node, of_node[_name(node)], now, policy, dear_hours),
        )
        for node in nodes
    ]
    counted = {
        _name(node)
        for node, record, _ in looks
        if max((*record.quarantines_at, quarantined_at.get(_name(node), 0)))
        > now - policy.breaker.window_s
    }
    rooms = _rooms(nodes, counted, policy.breaker)
    changes = []
    for node, before, seen in sorted(looks, key=_urgency):
        pool, is_counted = pool_of(node), _name(node) in counted
        may = is_counted or rooms[pool] > 0
        after, effects = step(before, replace(seen, may_quarantine=may), now, policy)
        change = Change(node, before, after, patch(node, after), effects)
        rooms[pool] -= change.quarantines and not is_counted
        if change.body is not None or after != before or effects:
            changes.append(change)
    return changes


def _rooms(nodes: Sequence[Json], counted: Collection[str], breaker: Breaker) -> Counter[str]:
    """How many nodes of each pool may still be quarantined now."""
    sizes = Counter(pool_of(node) for node in nodes)
    taken = Counter(pool_of(node) for node in nodes if _name(node) in counted)
    return Counter({pool: allowed(sizes[pool], breaker) - taken[pool] for pool in sizes})


def _urgency(look: tuple[Json, Record, Observations]) -> tuple[bool, int, str]:
    node, record, seen = look
    incidents = (*record.incidents, *(failure.incident for failure in seen.failures))
    is_fatal = any(incident.fatal for incident in incidents)
    return not is_fatal, min((incident.at for incident in incidents), default=0), _name(node)


def _record(node: Json, now: int, shadow: Mapping[str, Record]) -> Record:
    meta = node["metadata"]
    known = shadow.get(_name(node))
    return known or record_of(meta.get("labels") or {}, meta.get("annotations") or {}, now)


def _name(node: Json) -> str:
    return str(node["metadata"]["name"])
