"""Personal data: what is found, what is left alone."""

import pytest
from datatrove.pipeline.formatters import PIIFormatter
from hypothesis import given
from hypothesis import strategies as st

from components.clean.pii import replace_pii

PLACEHOLDERS = {"email": "[EMAIL]", "phone": "[PHONE]", "ipv4": "[IP]", "key": "[KEY]"}
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
        (f"before\n{PRIVATE_KEY}\nafter", "before\n[KEY]\nafter"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE, and cut off", "[KEY]"),
        ("Authorization: Bearer abcDEF123456._-abcDEF123456", "Authorization: Bearer [KEY]"),
        ("ghp_" + "a1B2" * 9, "[KEY]"),
        ("AIza" + "x" * 35, "[KEY]"),
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
    ],
)
def test_it_is_left_alone(text: str) -> None:
    assert replace_pii(text, PLACEHOLDERS, "US") == (text, {})


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
