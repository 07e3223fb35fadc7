"""Doing what the plan says: patches, evictions and Events, or in a dry run the words for them."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from tasks.cluster.api import Api, Away, Object, Refused
from tasks.nodes import calls
from tasks.nodes.effects import Evict, Tell
from tasks.nodes.plan import Change, plan
from tasks.nodes.policy import Policy
from tasks.nodes.record import Record, record_of

LOG = logging.getLogger("headrace.nodes")
COMPONENT = "headrace-node-controller"
MAX_ROUNDS = 5
"""How often a node that changes under the controller's hands is read again in one turn."""


class Controller:
    """`turn` is one look at everything and what follows from it.

    What it remembers is a dry run's imagined records and the last quarantines that it has done or
    read: without them a dry run would say everything again, and a list that is older than its own
    last write would give the breaker's room away twice. A new process starts from a list that is
    newer than both.
    """

    def __init__(
        self,
        api: Api,
        policy: Policy,
        dear_hours: Mapping[str, float],
        apply: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._policy = policy
        self._dear_hours = dear_hours
        self._apply = apply
        self._clock = clock
        self._shadow: dict[str, Record] = {}
        self._quarantined_at: dict[str, int] = {}
        self._in_doubt: set[str] = set()
        """Nodes with a quarantine whose answer was lost: it may have been done."""
        self._evicted: set[str] = set()

    def turn(self, nodes: Sequence[Object], pods: Sequence[Object]) -> bool:
        """One step of each node. Whether another turn should follow at once.

        A node that has changed since it was listed is read and judged again, by itself: the others
        would take a second step on the same list of pods. Raises Refused for missing rights, and
        Away.
        """
        now = int(self._clock())
        latest = {str(node["metadata"]["name"]): node for node in nodes}
        for name in tuple(self._in_doubt):
            self._read_again(name, latest)
        due = set(latest)
        again = False
        for _ in range(MAX_ROUNDS):
            changes = [change for change in self._plan(latest, pods, now) if change.name in due]
            due = {change.name for change in changes if not self._done(change, now, latest)}
            again = again or any(
                change.after.state != change.before.state
                for change in changes
                if change.name not in due
            )
            if not due:
                return again
            for name in tuple(due):
                self._read_again(name, latest)
        return True

    def _read_again(self, name: str, latest: dict[str, Object]) -> None:
        """What the Node itself says is newer than any list and than what was thought to be written."""
        found = calls.find_node(self._api, name)
        latest.pop(name, None)
        self._quarantined_at.pop(name, None)
        if found is not None:
            latest[name] = found
            meta = found["metadata"]
            record = record_of(meta.get("labels") or {}, meta.get("annotations") or {}, 0)
            if record.quarantines_at:
                self._quarantined_at[name] = record.quarantines_at[-1]
        self._in_doubt.discard(name)

    def _plan(self, latest: Mapping[str, Object], pods: Sequence[Object], now: int) -> list[Change]:
        nodes = list(latest.values())
        policy, hours = self._policy, self._dear_hours
        return plan(nodes, pods, now, policy, hours, self._shadow, self._quarantined_at)

    def _done(self, change: Change, now: int, latest: dict[str, Object]) -> bool:
        """False if the node is not the one any more that was judged."""
        try:
            if not self._apply:
                self._shadow[change.name] = change.after
            elif change.body is not None:
                latest[change.name] = self._written(change, change.body, now)
            self._follow_up(change, now)
        except Refused as no:
            if no.status in (calls.CONFLICT, calls.GONE):
                return False
            if no.status in calls.NO_RIGHTS:
                raise
            # One node's trouble must not keep the others waiting; it is judged again by and by.
            LOG.warning("%s: %s (%s)", change.name, no.message, no.status)
        return True

    def _written(self, change: Change, body: Object, now: int) -> Object:
        """A quarantine takes the breaker's room unless the server says no: only then it is sure
        that nothing was written.
        """
        try:
            node = calls.patch_node(self._api, change.name, body)
        except Away:
            if change.quarantines:
                self._quarantined_at[change.name] = now
                self._in_doubt.add(change.name)
            raise
        if change.quarantines:
            self._quarantined_at[change.name] = now
        return node

    def _follow_up(self, change: Change, now: int) -> None:
        would = "" if self._apply else "dry run, would be: "
        for effect in change.effects:
            match effect:
                case Tell():
                    LOG.info("%s%s: %s: %s", would, change.name, effect.reason, effect.message)
                    event = Tell(effect.kind, effect.reason, would + effect.message)
                    calls.tell(self._api, dict(change.node), event, now, COMPONENT)
                case Evict():
                    self._evict(change.name, effect)

    def _evict(self, node: str, effect: Evict) -> None:
        pod = effect.pod
        if pod.uid not in self._evicted:
            would = "evicts" if self._apply else "dry run, would evict"
            LOG.info("%s: %s %s/%s", node, would, pod.namespace, pod.name)
            self._evicted.add(pod.uid)
        if not self._apply:
            return
        try:
            calls.evict(self._api, pod)
        except Away as away:  # a disruption budget, or the server: asked again at the next turn
            LOG.warning("%s/%s is not evicted yet: %s", pod.namespace, pod.name, away)
