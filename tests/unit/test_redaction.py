import io

from components.redaction import RedactedStream, redacted

ENVIRON = {
    "HF_TOKEN": "hf_abcdef",
    "AWS_SECRET_ACCESS_KEY": "abc/def+ghi",
    "AWS_SESSION_TOKEN": "abc/def+ghi-longer",
    "MLFLOW_TRACKING_URI": "https://jane:pa%20ssword@mlflow.example",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "TOKENIZERS_PARALLELISM": "parallel",
    "API_KEY": "short",
    "HOME": "/home/jane",
}


def test_secrets_of_the_environment_are_hidden_wherever_they_stand() -> None:
    assert redacted("hf_abcdef, abc/def+ghi-longer and abc/def+ghi", ENVIRON) == "***, *** and ***"
    assert redacted("user jane, password pa ssword or pa%20ssword", ENVIRON) == (
        "user jane, password *** or ***"
    )


def test_secrets_of_addresses_are_hidden_whosever_they_are() -> None:
    assert redacted("at https://a:b@host/c?sig=d", {}) == "at https://***@host/c?sig=***"


def test_what_is_no_secret_stays() -> None:
    text = "parallel, short, /tmp/agent, /home/jane"
    assert redacted(text, ENVIRON) == text


def test_a_stream_hides_what_is_printed_to_it() -> None:
    inner = io.StringIO()
    print("at https://a:b@host/c", file=RedactedStream(inner))  # type: ignore[arg-type]
    assert inner.getvalue() == "at https://***@host/c\n"
