"""Personal data: what is found, what is left alone."""

import pytest
from datatrove.pipeline.formatters import PIIFormatter
from hypothesis import given
from hypothesis import strategies as st

from components.clean.pii import replace_pii

PLACEHOLDERS = {"email": "[EMAIL]", "phone": "[PHONE]", "ipv4": "[IP]", "key": "[KEY]"}
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----"


def replaced(text: str, region: str | None = "US") -> str:
    return replace_pii(text, PLACEHOLDERS, region)[0]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+lists@mail.example.co.uk.", "Write to [EMAIL]."),
        ("ssh root@8.8.8.8 now", "ssh root@[IP] now"),
        ("from 8.8.8.8, 1.1.1.1.", "from [IP], [IP]."),
        ("http://203.0.114.7:8080/x", "http://[IP]:8080/x"),
        ("Call (202) 456-1111 today", "Call [PHONE] today"),
        ("Call 1-800-275-2273.", "Call [PHONE]."),
        ("tel:202-456-1111", "tel:[PHONE]"),
        ("+44 20 7946 0958 or +12024561111", "[PHONE] or [PHONE]"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key [KEY] here"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [KEY]",
        ),
        (f'export AWS_SECRET_ACCESS_KEY="{AWS_SECRET}"', 'export AWS_SECRET_ACCESS_KEY="[KEY]"'),
        (f"AWS_SECRET_ACCESS_KEY={AWS_SECRET}\n", "AWS_SECRET_ACCESS_KEY=[KEY]\n"),
        (f'"SecretAccessKey": "{AWS_SECRET}",', '"SecretAccessKey": "[KEY]",'),
        (f'{{\\"SecretAccessKey\\": \\"{AWS_SECRET}\\"}}', '{\\"SecretAccessKey\\": \\"[KEY]\\"}'),
        (f":secret_key => '{AWS_SECRET}'", ":secret_key => '[KEY]'"),
        (
            f"<SecretAccessKey>{AWS_SECRET}</SecretAccessKey>",
            "<SecretAccessKey>[KEY]</SecretAccessKey>",
        ),
        (f"before\n{PRIVATE_KEY}\nafter", "before\n[KEY]\nafter"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE, and cut off", "[KEY]"),
        ("Authorization: Bearer abcDEF123456._-abcDEF123456", "Authorization: Bearer [KEY]"),
        ("ghp_" + "a1B2" * 9, "[KEY]"),
        ("AIza" + "x" * 35, "[KEY]"),
        (f"github_pat_{'1aB' * 7}x_{'Ab9' * 19}xy!", "[KEY]!"),
        ("glpat-" + "aB3_-" * 4 + ".", "[KEY]."),
        ("glpat-" + "aB3_-" * 6 + ".01.0a1b2c3d4", "[KEY]"),
        ("OPENAI_API_KEY=sk-" + "aB3d" * 12, "OPENAI_API_KEY=[KEY]"),
        ("sk-proj-" + "aB3_-" * 20, "[KEY]"),
        ("sk-ant-api03-" + "aB3_-" * 18, "[KEY]"),
        ("sk-or-v1-" + "0a1b" * 16, "[KEY]"),
        ("(sk_live_4eC39HqLyjWDarjtT1zdp7dc)", "([KEY])"),
        ("rk_test_4eC39HqLyjWDarjtT1zdp7dc", "[KEY]"),
        ("xoxb-123456789012-abcdefABCDEF", "[KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "[KEY]"),
    ],
)
def test_it_is_replaced(text: str, clean: str) -> None:
    assert replaced(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1, 192.168.0.1, 127.0.0.1, 169.254.169.254 and 224.0.0.1 are not public",
        "192.0.2.44 is reserved for documentation",
        "version 1.2.3.4.5 or v1.2.3.4x",
        "999.1.1.1 and 08.08.08.08",
        "account 123456789012, arn:aws:iam::123456789012:role/x",
        "2012-10-17, 2012-10-17T00:00:00Z, 31/12/2016 and 14:22:58.761000-07:00",
        "ports 51678-51680, up to 2147483647, or (2147483647)",
        "id 12345678-1234-1234-1234-123456789012",
        "range 1000-2000000",
        "AKIA and Bearer of bad news, a secret key: none",
        "icon@2x, user@localhost, @mention, a @ b",
        "sk-SK-Standard-A, sk-learn-compatible-estimators-2024-edition, task-0123456789abcdefghij",
        "AWS_SECRET_ACCESS_KEY=<your key>, SecretAccessKey (string, required), pk_live_0123456789abcdef",
        "github_pat_ and glpat- and sk_live_ are prefixes, gh_pages is a branch",
        "x" * 65 + "@example.org",  # 64 are the most that a mailbox may have
    ],
)
def test_it_is_left_alone(text: str) -> None:
    assert replace_pii(text, PLACEHOLDERS, "US") == (text, {})


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "run",
    [
        *("Zm9v/+", "a-", "a.", "a@", "a@b.", "a@-", "eyJ-", "sk-", "-----END A "),
        *("1 2", "1.2.", "AKIA", "secret key ", "bearer ", "xoxb"),
    ],
)
def test_a_run_of_a_megabyte_takes_time_that_is_linear(run: str) -> None:
    # In quadratic time each of them takes minutes to hours.
    text = run * (1_000_000 // len(run)) + " \nkey AKIAIOSFODNN7EXAMPLE a@example.org"
    clean = text.replace("AKIAIOSFODNN7EXAMPLE a@example.org", "[KEY] [EMAIL]")
    assert replaced(text) == clean


def test_a_national_number_counts_only_in_its_country() -> None:
    assert (
        replaced("Ruf 030 901820 an", "DE") == "Ruf [PHONE] an"
        or replaced("Ruf 030 90 18 20 an", "DE") == "Ruf [PHONE] an"
    )
    assert replaced("(202) 456-1111", None) == "(202) 456-1111"
    assert replaced("+1 202 456 1111", None) == "[PHONE]"


def test_each_kind_is_counted_and_replaced_only_if_it_has_a_placeholder() -> None:
    text = "a@example.org b@example.org 8.8.8.8 +12024561111 AKIAIOSFODNN7EXAMPLE"
    _, counts = replace_pii(text, PLACEHOLDERS, None)
    assert counts == {"email": 2, "ipv4": 1, "phone": 1, "key": 1}
    clean, counts = replace_pii(text, {"ipv4": "[IP]"}, None)
    assert clean == text.replace("8.8.8.8", "[IP]")
    assert counts == {"ipv4": 1}


PIECE = st.sampled_from(
    [
        "a@example.org",
        "8.8.8.8",
        "10.1.2.3",
        "+44 20 7946 0958",
        "AKIAIOSFODNN7EXAMPLE",
        PRIVATE_KEY,
        *("[EMAIL]", "the", "1.2", "2012-10-17", "\n", "x@y", "Bearer", "12345678"),
    ]
)


@given(st.lists(PIECE, max_size=8).map(" ".join) | st.text("a@.1- +[]", max_size=40))
def test_doing_it_twice_changes_nothing_more(text: str) -> None:
    once = replaced(text)
    assert replace_pii(once, PLACEHOLDERS, "US") == (once, {})


@given(st.lists(PIECE, max_size=8).map(" ".join))
def test_addresses_are_those_that_datatrove_finds(text: str) -> None:
    kinds = {"email": "email@example.com", "ipv4": "22.214.171.124"}
    formatter = PIIFormatter(email_replacement=kinds["email"], ip_replacement=kinds["ipv4"])
    assert replace_pii(text, kinds, None)[0] == formatter.format(text)
