"""The all-reduce of a gang: where it meets, its ranks on this node, and what they found together."""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from components.errors import InfraError, UserError
from components.preflight.children import Ended, run_children
from components.preflight.readings import AllReduce
from components.preflight.report import CLOSED
from components.preflight.thresholds import AllReduceLimits

MIB = 2**20
SLACK_S = 30.0
"""For torch to be imported, beside the ranks' own patience."""
GANG_WAIT_S = 1800.0
"""For the other pods of a gang: images may have to be pulled, and a launcher to come back."""
LOOK_S = 0.2
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Gang:
    """This node among the nodes of its job."""

    num_nodes: int
    node_rank: int
    address: str
    """Of the node with rank 0."""
    port: int


@dataclass(frozen=True)
class RankFigure:
    """What one rank says. `lost`: a peer is missing; `fault`: the rank itself failed."""

    __pydantic_config__ = CLOSED

    bus_gb_per_s: float | None = None
    wrong: int = 0
    skew_ms: float | None = None
    lost: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Meeting:
    """Where a gang meets, before it is known how many they are: Kueue may admit fewer than asked.

    The launcher writes `members`, a JSON list of all pods' names in the order of their ranks, once
    it has seen them all; without such a file the environment says it. Beside it each pod leaves a
    note that it has come so far, for one that is made may have its image still to pull.
    """

    address: str
    port: int
    num_nodes: int | None
    node_rank: int | None
    members: Path | None = None
    pod: str = ""

    def gang(self, timeout_s: float) -> Gang | None:
        """None if the members were not all there within `timeout_s`.

        Raises InfraError if this one cannot say that it is.
        """
        if self.members is None:
            return Gang(self.num_nodes or 1, self.node_rank or 0, self.address, self.port)
        folder, deadline = self.members.parent, time.monotonic() + timeout_s
        try:
            _note(folder, self.pod).touch()
        except OSError as error:
            raise InfraError(f"{folder}: {error.strerror}", "is the shared volume well?") from error
        while True:
            names = _names(self.members)
            if self.pod in names and all(_note(folder, name).exists() for name in names):
                return Gang(len(names), names.index(self.pod), self.address, self.port)
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_S)


def _note(folder: Path, pod: str) -> Path:
    return folder / f"{pod}.waits"


def _names(path: Path) -> list[str]:
    """Of a file that may not be there yet, or be of the gang before."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return names if isinstance(names, list) else []


def meeting_of(environment: Mapping[str, str], members: Path | None = None) -> Meeting:
    """From the variables that torchrun reads too; number and rank from `members` where it is given.

    Raises UserError naming what is missing or wrong.
    """
    try:
        address = environment["PET_MASTER_ADDR"]
        port = int(environment["PET_MASTER_PORT"])
        if members is not None:
            return Meeting(address, port, None, None, members, environment["HEADRACE_POD"])
        num_nodes, rank = int(environment["PET_NNODES"]), int(environment["PET_NODE_RANK"])
    except KeyError as error:
        hint = "the Job's manifest sets it"
        raise UserError(f"--gang: {error.args[0]} is not set", hint) from error
    except ValueError as error:
        raise UserError(f"--gang: a PET_* variable is no number: {error}") from error
    if not 0 <= rank < num_nodes:
        raise UserError(f"--gang: PET_NODE_RANK {rank} of {num_nodes} nodes")
    return Meeting(address, port, num_nodes, rank)


def meet_and_sum(meeting: Meeting, num_gpus: int, limits: AllReduceLimits) -> AllReduce:
    """`all_reduce`, once all who take part are there; `limits` count from then on."""
    gang = meeting.gang(GANG_WAIT_S)
    if gang is None:
        return AllReduce(0, 0, None, 0, None, f"not all pods were there within {GANG_WAIT_S:g} s")
    return all_reduce(gang, num_gpus, limits)


def this_node_alone() -> Gang:
    """A gang of one node, whose GPUs meet at a free port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return Gang(1, 0, LOOPBACK, probe.getsockname()[1])


def all_reduce(gang: Gang, num_gpus: int, limits: AllReduceLimits) -> AllReduce:
    """One rank for each GPU over NCCL, or one for a node without over gloo.

    A rank alone, as of an elastic gang that got one pod of one GPU, has nobody to sum with: nothing
    is started.
    """
    local = max(1, num_gpus)
    num_ranks = gang.num_nodes * local
    if num_ranks < 2:
        return AllReduce(num_ranks, gang.num_nodes, None, 0, None)
    arguments = [
        [
            f"--rank={gang.node_rank * local + index}",
            f"--num_ranks={num_ranks}",
            f"--local_rank={index}",
            f"--address={gang.address}",
            f"--port={gang.port}",
            f"--backend={'nccl' if num_gpus else 'gloo'}",
            f"--num_bytes={limits.mib * MIB}",
            f"--rounds={limits.rounds}",
            f"--timeout_s={limits.timeout_s}",
        ]
        for index in range(local)
    ]
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
    ended = run_children(
        "components.preflight.rank", arguments, limits.timeout_s + SLACK_S, environment
    )
    return together([figure_of(each) for each in ended], num_ranks, gang.num_nodes)


def figure_of(ended: Ended) -> RankFigure:
    """A rank that was killed at the deadline waited for somebody; one that crashed failed itself."""
    if ended.line:
        try:
            return TypeAdapter(RankFigure).validate_json(ended.line)
        except ValidationError:
            return RankFigure(fault=f"a rank said {ended.line[:80]!r}")
    if ended.code is None:
        return RankFigure(lost="the others fell silent")
    return RankFigure(fault=f"a rank ended with {ended.code}: {ended.complaint[:200] or 'no word'}")


def together(figures: Sequence[RankFigure], num_ranks: int, num_nodes: int) -> AllReduce:
    """The slowest rank's speed, all ranks' wrong elements, and the first complaint of each kind."""
    speeds = [figure.bus_gb_per_s for figure in figures if figure.bus_gb_per_s is not None]
    return AllReduce(
        num_ranks,
        num_nodes,
        min(speeds) if len(speeds) == len(figures) else None,
        sum(figure.wrong for figure in figures),
        figures[0].skew_ms,
        next((figure.lost for figure in figures if figure.lost), None),
        next((figure.fault for figure in figures if figure.fault), None),
    )
