"""What Kueue did, from every version of every Workload in the server's order; and what it may not do."""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from tasks.cluster import api
from tasks.cluster.api import Api, Away, Object, namespace_of

NO_FLAVOR = ""
KUEUE_LAG_S = 1.0
"""Kueue decides by what it knew: room that was there for so long it must have known of."""


@dataclass(frozen=True)
class Version:
    """One state of one Workload."""

    at_s: float
    """Unix seconds, of its arrival here."""
    name: str
    uid: str
    team: str
    priority: int
    num_nodes: int
    num_held: int
    """Of them, still counted in its quota: pods of a gang that have ended give theirs back."""
    flavor: str
    """Of the quota it holds; NO_FLAVOR if none."""
    reserved_at: float
    """When Kueue gave it (Unix, whole seconds): it is written later, on a busy server by seconds."""
    hosts: tuple[str, ...]
    must_share_rack: bool
    preempted: tuple[str, str, float] | None
    """Why, the UID of the Workload that wanted the room, and when Kueue said so (Unix, whole seconds)."""
    is_finished: bool
    is_deleted: bool
    num_bytes: int
    """Of the event on the wire, about."""

    @property
    def is_waiting(self) -> bool:
        return not (self.flavor or self.is_finished or self.is_deleted)


@dataclass(frozen=True)
class Preemption:
    at_s: float
    reason: str
    preemptor: Version
    victim: Version
    """As it was before."""
    free_nodes: Mapping[str, int]
    """Of each flavor, free all the time from KUEUE_LAG_S before Kueue said so to the end of that second."""


def version_of(event: Object, at_s: float) -> Version:
    one = event["object"]
    (pods,) = one["spec"]["podSets"]
    status = one.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    holds = "QuotaReserved" in conditions and "Finished" not in conditions
    assigned = (status.get("admission") or {}).get("podSetAssignments") or [{}]
    topology = pods.get("topologyRequest") or {}
    ended = sum(int(part["count"]) for part in status.get("reclaimablePods") or [])
    return Version(
        at_s, one["metadata"]["name"], one["metadata"]["uid"], one["spec"]["queueName"],
        int(one["spec"].get("priority") or 0), int(pods["count"]), int(pods["count"]) - ended,
        assigned[0]["flavors"]["nvidia.com/gpu"] if holds else NO_FLAVOR,
        _said_at(conditions["QuotaReserved"]) if holds else 0.0,
        tuple(_hosts(assigned[0].get("topologyAssignment"))) if holds else (),
        "required" in topology,
        _preempted(conditions.get("Preempted")),
        "Finished" in conditions, event["type"] == "DELETED",
        len(json.dumps(event, separators=(",", ":"))),
    )  # fmt: skip


def _preempted(condition: Object | None) -> tuple[str, str, float] | None:
    if condition is None:
        return None
    by = re.search(r"UID: ([0-9a-f-]+)", condition["message"])
    return condition["reason"], by[1] if by else "", _said_at(condition)


def _said_at(condition: Object) -> float:
    text = condition["lastTransitionTime"].replace("Z", "+00:00")
    return datetime.fromisoformat(text).timestamp()


def _hosts(topology: Object | None) -> Iterator[str]:
    for piece in (topology or {}).get("slices", []):
        level: Any = piece["valuesPerLevel"][-1]
        if "universal" in level:
            yield level["universal"]
            continue
        found = level["individual"]
        for root in found["roots"]:
            yield f"{found.get('prefix', '')}{root}{found.get('suffix', '')}"


class History:
    """Filled by a watch of its own while the body of `recorded` runs."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.newest: dict[str, Version] = {}

    def add(self, event: Object) -> None:
        seen = version_of(event, time.time())
        self.versions.append(seen)
        self.newest[seen.name] = seen

    def num_finished(self) -> int:
        return sum(one.is_finished for one in list(self.newest.values()))


@contextmanager
def recorded(server: Api, namespace: str) -> Iterator[History]:
    """Of a namespace that has no Workload yet."""
    history, stopped = History(), threading.Event()
    path = namespace_of(api.WORKLOADS, namespace)
    version = str(server.get(path)["metadata"]["resourceVersion"])

    def follow() -> None:
        nonlocal version
        while not stopped.is_set():
            try:
                for event in server.watch(path, resourceVersion=version):
                    version = str(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] != "BOOKMARK":
                        history.add(event)
                    if stopped.is_set():
                        return
            except Away:
                time.sleep(0.2)

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield history
    finally:
        stopped.set()


def used_nodes(
    versions: Sequence[Version], key: str, size: str = "num_nodes"
) -> Iterator[tuple[float, dict[str, int]]]:
    """After each version: instant, and nodes held by each value of the field `key` (team, flavor).

    `size`: num_nodes, for all that Kueue placed; num_held, for what it still counts in quotas.
    """
    now: dict[str, Version] = {}
    used: dict[str, int] = {}
    for one in versions:
        for held, sign in ((now.get(one.name), -1), (one, 1)):
            if held and held.flavor and not held.is_deleted:
                value = str(getattr(held, key))
                used[value] = used.get(value, 0) + sign * int(getattr(held, size))
        now[one.name] = one
        yield one.at_s, {value: many for value, many in used.items() if many}


@dataclass(frozen=True)
class Hold:
    """A Workload's nodes, from when Kueue gave them until it was written that they are free."""

    name: str
    flavor: str
    num_nodes: int
    from_at: float
    until_at: float


def holds_of(versions: Sequence[Version]) -> list[Hold]:
    found = []
    now: dict[str, Version] = {}
    for one in versions:
        held = now.get(one.name)
        is_held = bool(one.flavor) and not one.is_deleted
        if held and not (is_held and held.reserved_at == one.reserved_at):
            del now[one.name]
            found.append(_hold(held, one.at_s))
        if is_held:
            now.setdefault(one.name, one)
    return found + [_hold(one, float("inf")) for one in now.values()]


def _hold(one: Version, until_at: float) -> Hold:
    return Hold(one.name, one.flavor, one.num_nodes, one.reserved_at, until_at)


def least_free(
    held: Sequence[Hold], capacity: Mapping[str, int], from_at: float, until_at: float
) -> dict[str, int]:
    """Nodes of each flavor that are free at every instant of a span."""
    instants = [from_at, *(one.from_at for one in held if from_at < one.from_at <= until_at)]
    most = dict.fromkeys(capacity, 0)
    for instant in instants:
        used = dict.fromkeys(capacity, 0)
        for one in held:
            if one.from_at <= instant < one.until_at:
                used[one.flavor] += one.num_nodes
        most = {flavor: max(most[flavor], used[flavor]) for flavor in capacity}
    return {flavor: many - most[flavor] for flavor, many in capacity.items()}


def preemptions(versions: Sequence[Version], capacity: Mapping[str, int]) -> list[Preemption]:
    """`capacity`: nodes of each flavor."""
    found: list[Preemption] = []
    now: dict[str, Version] = {}
    by_uid: dict[str, Version] = {}
    holds = holds_of(versions)
    for one in versions:
        before = now.get(one.name)
        if one.preempted and before and one.preempted != before.preempted:
            reason, uid, said_at = one.preempted
            taker = by_uid[uid]
            others = [hold for hold in holds if hold.name != taker.name]
            free = least_free(others, capacity, said_at - KUEUE_LAG_S, said_at + 1)
            found.append(Preemption(one.at_s, reason, taker, before, free))
        now[one.name] = by_uid[one.uid] = one
    return found


def wrong(found: Sequence[Preemption]) -> list[str]:
    """Why each preemption that should not have been is wrong. Empty if all are right.

    In one's own queue the higher priority takes; another team's work goes only where the cohort's
    shares say so, whatever its priority (k8s/queues/cluster-queues.yaml). Nobody is stopped while his
    flavor has room for the preemptor; one that needs a whole rack is judged by priority alone.
    """
    why = []
    for one in found:
        taker, victim = one.preemptor, one.victim
        name = f"{victim.name} for {taker.name} ({one.reason})"
        if (taker.team == victim.team) != (one.reason == "InClusterQueue"):
            why.append(f"{name}: the teams are {victim.team} and {taker.team}")
        if taker.team == victim.team and taker.priority <= victim.priority:
            why.append(f"{name}: priorities {victim.priority} and {taker.priority}")
        room = one.free_nodes.get(victim.flavor, 0)
        if room >= taker.num_nodes and not taker.must_share_rack:
            why.append(f"{name}: {room} nodes were free, {taker.num_nodes} needed")
    return why


def passed_over(found: Sequence[Preemption]) -> list[Preemption]:
    """Those in which another flavor had room for the preemptor.

    Kueue 0.18 chooses the flavor by quota, looks for nodes only then, and where there are none stops
    somebody there (flavorassigner.go, `updateModeForTASRequests`): the next flavor is not tried.
    Quota and nodes part when pods of a gang have ended, which give back the one and not the other.
    """
    return [
        one
        for one in found
        if max(one.free_nodes.values()) >= one.preemptor.num_nodes
        and not one.preemptor.must_share_rack
    ]


def overbooked(versions: Sequence[Version], capacity: Mapping[str, int]) -> list[str]:
    """Flavors of which more was held than there is, at any moment."""
    steps = used_nodes(versions, "flavor", "num_held")
    return sorted({name for _, used in steps for name in used if used[name] > capacity[name]})


def split_gangs(
    versions: Sequence[Version], rack_of: Mapping[str, str]
) -> tuple[set[str], int, int]:
    """Those that had to share a rack and did not; of the gangs that only prefer it: in one rack, all."""
    placed = {(one.name, one.hosts): one for one in versions if len(one.hosts) > 1}
    is_split = {key: len({rack_of[host] for host in key[1]}) > 1 for key in placed}
    required = {key[0] for key, one in placed.items() if one.must_share_rack and is_split[key]}
    preferring = [key for key, one in placed.items() if not one.must_share_rack]
    return required, sum(not is_split[key] for key in preferring), len(preferring)


def shares(versions: Sequence[Version], num_nodes: int) -> tuple[dict[str, float], float]:
    """Each team's part of the held nodes while all was held and all teams waited; and those seconds."""
    total: dict[str, float] = {}
    now: dict[str, Version] = {}
    teams = {one.team for one in versions}
    lasted_s = 0.0
    has_been_full = False
    steps = list(zip(versions, used_nodes(versions, "team"), strict=True))
    for (one, (at_s, used)), (_, (next_s, _)) in pairwise(steps):
        now[one.name] = one
        has_been_full |= sum(used.values()) >= num_nodes
        waiting = {held.team for held in now.values() if held.is_waiting}
        if has_been_full and waiting == teams:
            lasted_s += next_s - at_s
            for team, many in used.items():
                total[team] = total.get(team, 0.0) + many * (next_s - at_s)
    held = sum(total.values())
    return {team: many / held for team, many in sorted(total.items())}, lasted_s


def first_fill(versions: Sequence[Version], num_nodes: int) -> tuple[float, int]:
    """When every node was held for the first time (NaN if never), and how many had been admitted."""
    admitted: set[str] = set()
    for one, (at_s, used) in zip(versions, used_nodes(versions, "team"), strict=True):
        if one.flavor:
            admitted.add(one.name)
        if sum(used.values()) >= num_nodes:
            return at_s, len(admitted)
    return float("nan"), len(admitted)
