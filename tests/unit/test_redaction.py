import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.redaction import RedactedStream, redact_output, redacted

ENVIRON = {
    "HF_TOKEN": "hf_abcdef",
    "AWS_SECRET_ACCESS_KEY": "abc/def+ghi",
    "AWS_SESSION_TOKEN": "abc/def+ghi-longer",
    "MLFLOW_TRACKING_URI": "https://jane:pa%20ssword@mlflow.example",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "TOKENIZERS_PARALLELISM": "parallel",
    "API_KEY": "short",
    "HOME": "/home/jane",
    "PGPASSWORD": "pg-planted",
    "S3_SECRET": "/begins+with/a/slash",
    "TLS_KEY": "/etc/passwd",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=jane;AccountKey=azure/key==;EndpointSuffix=x",
    "FSSPEC_HTTPS": '{"client_kwargs": {"headers": {"Authorization": "Bearer bear-er"}}, "x": "plainly"}',
    "PREFECT_API_AUTH_STRING": "jane:prefect-pw",
    "MIRRORS": "first,https://jane:mirror-pw@m.example",
}


def test_secrets_of_the_environment_are_hidden_wherever_they_stand() -> None:
    assert redacted("hf_abcdef, abc/def+ghi-longer and abc/def+ghi", ENVIRON) == "***, *** and ***"
    assert redacted("user jane, password pa ssword or pa%20ssword", ENVIRON) == (
        "user jane, password *** or ***"
    )


def test_secrets_that_stand_inside_a_value_are_hidden_and_what_is_beside_them_is_not() -> None:
    assert redacted("/begins+with/a/slash", ENVIRON) == "***"
    parts = (
        "pg-planted azure/key== {'Authorization': 'Bearer bear-er'} bear-er mirror-pw prefect-pw"
    )
    assert redacted(parts, ENVIRON) == "*** *** {'Authorization': '***'} *** *** ***"
    assert redacted(ENVIRON["AZURE_STORAGE_CONNECTION_STRING"], ENVIRON) == "***"
    assert redacted("plainly Bearer first EndpointSuffix=x", ENVIRON) == (
        "plainly Bearer first EndpointSuffix=x"
    )


def test_secrets_of_addresses_are_hidden_whosever_they_are() -> None:
    assert redacted("at https://a:b@host/c?sig=d", {}) == "at https://***@host/c?sig=***"


def test_what_is_no_secret_stays() -> None:
    text = "parallel, short, /tmp/agent, /home/jane, /etc/passwd, /var/run/token"
    assert redacted(text, ENVIRON) == text


def test_a_stream_hides_what_is_printed_to_it() -> None:
    inner = io.StringIO()
    print("at https://a:b@host/c", file=RedactedStream(inner))  # type: ignore[arg-type]
    RedactedStream(inner).writelines(["and https://d:e@host/f"])  # type: ignore[arg-type]
    assert inner.getvalue() == "at https://***@host/c\nand https://***@host/f"


def test_a_secret_that_is_coloured_is_hidden_and_no_colour_runs_on() -> None:
    inner = io.StringIO()
    stream = RedactedStream(inner)  # type: ignore[arg-type]
    stream.write("\x1b[94mhttps://a:b\x1b[0m@host/c?token=\x1b[1md\x1b[0m \x1b[32mgreen\x1b[0m\n")
    stream.write("\x1b[32mgreen\x1b[0m")
    assert inner.getvalue() == "https://***@host/c?token=*** green\n\x1b[32mgreen\x1b[0m"


def test_output_that_is_asked_twice_to_hide_secrets_hides_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = io.StringIO()
    monkeypatch.setattr(sys, "stdout", inner)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    redact_output()
    first = sys.stdout
    redact_output()
    assert sys.stdout is first
    print("at https://a:b@host/c")
    assert inner.getvalue() == "at https://***@host/c\n"


def test_a_worker_that_is_asked_to_hides_what_it_prints() -> None:
    program = "from components.pool import in_each_worker, map_ordered; "
    program += "from components.redaction import redact_output; in_each_worker(redact_output); "
    program += "list(map_ordered(print, ['the token is hf_abcdef'] * 2, 2))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], text=True, check=True,
        capture_output=True, env=os.environ | {"HF_TOKEN": "hf_abcdef"},
    )  # fmt: skip
    assert done.stdout == "the token is ***\n" * 2
