"""A Dockerfile as a list of instructions: what our own needs of the format, and nothing more."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    verb: str
    """In capitals."""
    text: str
    """What follows it, its lines joined as the format joins them."""

    @property
    def flags(self) -> dict[str, str]:
        """`--from=source` as {"from": "source"}."""
        return dict(re.findall(r"(?:^| )--(\w+)=(\S+)", self.text))

    @property
    def words(self) -> list[str]:
        """Without flags; of the JSON form its elements."""
        if self.text.startswith("["):
            return list(json.loads(self.text))
        return [word for word in shlex.split(self.text) if not word.startswith("--")]


@dataclass(frozen=True)
class Stage:
    name: str
    parent: str
    """Another stage's name, or an image's."""
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, verb: str) -> list[Instruction]:
        return [one for one in self.instructions if one.verb == verb]


def instructions(text: str) -> list[Instruction]:
    """Comments and empty lines are left out, also between the lines of one instruction."""
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        verb, _, rest = line.strip().partition(" ")
        found.append(Instruction(verb.upper(), rest.strip()))
    return found


def stages(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """The global arguments with their defaults, and the stages in their order."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for one in instructions(path.read_text(encoding="utf-8")):
        if one.verb == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", one.text).groups()  # type: ignore[union-attr]
            found.append(Stage(name, expanded(parent, arguments)))
        elif found:
            found[-1].instructions.append(one)
        else:
            arguments |= dict([assignment(one.text)])
    return arguments, found


def assignment(text: str) -> tuple[str, str]:
    """`NAME=value`, or `NAME` alone with an empty value."""
    name, _, value = text.partition("=")
    return name, value.strip('"')


def expanded(text: str, values: dict[str, str]) -> str:
    """With ${NAME} and $NAME of `values` filled in; other names as they are."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: values.get(m[1] or m[2], m[0]), text)


def assignments(one: Instruction, values: dict[str, str]) -> dict[str, str]:
    """Of an ENV or a LABEL."""
    return dict(assignment(word) for word in shlex.split(expanded(one.text, values)))
