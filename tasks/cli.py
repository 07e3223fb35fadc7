"""`headrace`: everything from the command line."""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from components.addresses import with_secrets
from components.contract import STAGES, Json
from components.errors import DataError, StageError, UserError, disk_faults_typed
from components.redaction import redact_output
from tasks import config, console, surroundings
from tasks.dag import read_dag, select

ENDED_BY_SIGNAL = 128
"""With the signal's number, what a shell says of such a command."""
Handler = Callable[[argparse.Namespace, Path], int]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="headrace",
        description="From raw text to a promoted language model.",
        epilog="`headrace VERB --help` says more. Run it in the project's folder.",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, handler: Handler, summary: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}."
        )
        added.set_defaults(handler=handler)
        return added

    run = verb("run", _run, "run what has changed, and what depends on it; register the model")
    run.add_argument("stages", nargs="*", metavar="STAGE", help=f"only these: {', '.join(STAGES)}")
    _add_how(run)
    planned = verb(
        "plan", _plan, "say which stages would run and why, which are cached, how long it took"
    )
    planned.add_argument("--json", action="store_true", help="all reasons, for programs")
    one = verb("stage", _run, "run one stage, if it has changed")
    one.add_argument("stages", nargs=1, metavar="STAGE", choices=STAGES)
    _add_how(one)
    ask = verb("generate", _generate, "print a registered model's answer to a prompt")
    ask.add_argument("uri", help="models:/headrace/<version>")
    ask.add_argument("prompt")
    ask.add_argument("--max-new-tokens", type=_at_least_1, default=128)
    ask.add_argument("--temperature", type=_not_negative, default=0.0, help="0 is greedy")
    ask.add_argument("--weights", choices=("model", "quantized"), default="model")
    verb("models", _models, "list the registered versions and the record of promotions")
    up = verb(
        "promote", _promote, "take a version through the gates of gates.yaml and make it champion"
    )
    up.add_argument("version", nargs="?", default="", help="the newest if left out")
    up.add_argument("--override", default="", metavar="REASON", help="move it although gates fail")
    back = verb("rollback", _rollback, "make the champion before the present one champion again")
    back.add_argument("reason", help="for the record")
    repro = verb(
        "reproduce", _reproduce, "compute a registered version again and compare the digests"
    )
    repro.add_argument("uri", help="models:/headrace/<version> or models:/headrace@champion")
    repro.add_argument(
        "--from", dest="first", choices=STAGES, default=STAGES[0], metavar="STAGE",
        help="take what lies before it by digest, and compute from there; all ten if left out",
    )  # fmt: skip
    repro.add_argument(
        "--tolerance", type=_not_negative, default=1.0, metavar="SE",
        help="standard errors that a figure may move where floats differ (default 1)",
    )  # fmt: skip
    accept = verb(
        "accept", _accept, "record a stage's changed code without a run; see `make accept`"
    )
    accept.add_argument("stage", choices=STAGES)
    accept.add_argument(
        "--check", action="store_true", help="only say whether nothing but code has changed"
    )
    queue = verb(
        "queue", _queue, "list the stages on the cluster: where they are, what waits and why"
    )
    queue.add_argument("--all", action="store_true", help="those that have ended too")
    queue.add_argument("--json", action="store_true", help="for programs")
    from tasks.nodes.command import add_arguments

    add_arguments(
        verb("nodes", _nodes, "list the cluster's nodes: which are sick, why, since when")
    )
    verb("up", _up, "start the console: Prefect, MLflow, and the flows to start from Prefect's UI")
    verb("status", _status, "say what of the console runs, and where")
    verb("down", _down, "stop the console")
    return top


def _at_least_1(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return number


def _add_how(run: argparse.ArgumentParser) -> None:
    run.add_argument("--force", action="store_true", help="run also what has not changed")
    run.add_argument(
        "--launcher", choices=("default", *get_args(config.Launcher)), default="default",
        help="where stages run; the default is HEADRACE_LAUNCHER, or local",
    )  # fmt: skip
    run.add_argument("--pull", action="store_true", help="take what it can from the DVC remote")
    run.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="KEY=VALUE",
        help="another value for this run alone, which makes it a DVC experiment; may be repeated",
    )  # fmt: skip


def main() -> int:
    redact_output()
    arguments = parser().parse_args()
    handler: Handler = arguments.handler
    try:
        with disk_faults_typed(Path.cwd()):
            code = handler(arguments, Path.cwd())
            sys.stdout.flush()
            return code
    except StageError as error:
        print(f"{error.kind} error: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was finished", file=sys.stderr)
        return ENDED_BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # whoever read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again
        return ENDED_BY_SIGNAL + signal.SIGPIPE


def _environment(root: Path) -> None:
    """This process's: the console's servers if they run, and a default for all that is not given."""
    for name, value in console.urls(console.started(root)).items():
        os.environ.setdefault(name, value)
    config.set_environment_defaults(os.environ, root)


def _run(arguments: argparse.Namespace, root: Path) -> int:
    from components.params import load_params

    # What is wrong is said before Prefect starts, which takes seconds.
    load_params(root / "params.yaml")
    config.load_settings()
    config.load_resources(root)
    select(read_dag(root), tuple(arguments.stages))
    overrides = _overrides(arguments.set_param)
    _environment(root)
    surroundings.require(root, os.environ)
    from flows.run_here import run_here

    return run_here(
        root, arguments.stages, arguments.force, arguments.pull, arguments.launcher, overrides
    )


def _nodes(arguments: argparse.Namespace, root: Path) -> int:
    from tasks.nodes.command import main as nodes

    return nodes(arguments)


def _queue(arguments: argparse.Namespace, root: Path) -> int:
    from tasks.cluster import queue

    return queue.show(config.load_settings(), as_json=arguments.json, with_ended=arguments.all)


def _plan(arguments: argparse.Namespace, root: Path) -> int:
    from tasks.plan import plan, table, unwatched_sources

    config.set_environment_defaults(os.environ, root)
    planned = plan(root)
    as_json = json.dumps([asdict(item) for item in planned], indent=1)
    print(as_json if arguments.json else "\n".join([table(planned), *unwatched_sources(root)]))
    return 0


def _overrides(settings: list[str]) -> dict[str, Json]:
    from components.section import parse_yaml

    found = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise UserError(f"-S {setting}: no value", "write -S dpo.beta=0.2")
        found[key] = parse_yaml(value, f"-S {key}")
        if list(with_secrets(found[key])):
            raise UserError(f"-S {key}: an address with a password or a key in it", "leave it out")
    return found


def _generate(arguments: argparse.Namespace, root: Path) -> int:
    _environment(root)
    from tasks.registry import generate

    how = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "weights": arguments.weights,
    }
    print(generate(arguments.uri, [arguments.prompt], **how)[0])
    return 0


def _models(arguments: argparse.Namespace, root: Path) -> int:
    _environment(root)
    from tasks.promotion import models

    print(models(root))
    return 0


def _promote(arguments: argparse.Namespace, root: Path) -> int:
    _environment(root)
    from tasks.promotion import promote

    promotion = promote(root, arguments.version, arguments.override)
    print(promotion.text)
    return 0 if promotion.moved else UserError.exit_code


def _rollback(arguments: argparse.Namespace, root: Path) -> int:
    _environment(root)
    from tasks.promotion import rollback

    entry = rollback(arguments.reason)
    print(f"version {entry.after} is champion again, after {entry.before}: {entry.why}")
    return 0


def _reproduce(arguments: argparse.Namespace, root: Path) -> int:
    _environment(root)
    from tasks.reproduce import reproduce

    done = reproduce(root, arguments.uri, arguments.first, arguments.tolerance)
    print(done.text)
    return 0 if not done.verdict.startswith("different") else DataError.exit_code


def _accept(arguments: argparse.Namespace, root: Path) -> int:
    from tasks.dvc import accept, require_code_alone

    require_code_alone(root, arguments.stage)
    if not arguments.check:
        accept(root, arguments.stage)
    return 0


def _up(arguments: argparse.Namespace, root: Path) -> int:
    given = dict(os.environ)
    _print_status(console.up(root, config.load_settings(), given), given)
    return 0


def _status(arguments: argparse.Namespace, root: Path) -> int:
    items = console.started(root)
    _print_status(items, os.environ)
    return 0 if items and all(item.is_running for item in items) else 1


def _down(arguments: argparse.Namespace, root: Path) -> int:
    stopped = console.down(root)
    print(
        "\n".join(f"{item.name} stopped (process {item.pid})" for item in stopped) or "nothing ran"
    )
    return 0


def _print_status(
    items: list[console.Started], environ: "os._Environ[str] | dict[str, str]"
) -> None:
    for item in items:
        state = f"runs as process {item.pid}" if item.is_running else "has died: `headrace up`"
        print(f"{item.name:>12}  {state:<24}  {item.url}".rstrip())
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        if name in environ:
            print(f"{name} from the environment: {config.without_password(environ[name])}")
    if not items:
        print("nothing runs: `headrace up`")


if __name__ == "__main__":
    sys.exit(main())
