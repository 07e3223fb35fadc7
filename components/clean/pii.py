"""Personal data and secrets, replaced by placeholders.

E-mail addresses and public IPv4 addresses as in datatrove's PIIFormatter (FineWeb), telephone
numbers by Google's metadata, and the forms of credentials that providers publish. Each pattern runs
only on texts that hold a sign of it, for most texts have none, and in time that is linear in the
text: a crawl holds megabytes of base64 in one run.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address

from phonenumbers import Leniency, PhoneNumberMatcher

from components.clean.params import PiiKind

# The local part has at most 64 octets (RFC 5321, 4.5.3.1.1): nothing further is looked at.
EMAIL = re.compile(
    r"\b(?=[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}+@)"
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])"
)
# Neither the tail of a longer number nor a version with five parts.
IPV4 = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?\w)")
IPV4_SIGN = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")
# Not the seconds of a time, either.
PHONE = re.compile(
    r"(?<![\w.+/=-])(?<!\d:)(?:\+\d|\(\d|\d)[\d ().\-\u00a0/]{5,22}\d(?![\w.=/-]*\w)"
)
PHONE_SIGN = re.compile(r"\d[ ().\-\u00a0/]{1,2}\d{2,4}[ .\-\u00a0/]?\d{2}|\+\d{7}")
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 7, 15  # E.164 allows 15
DIGITS = re.compile(r"\d+")
DATE = re.compile(r"(?:19|20)\d\d[-/.]\d\d[-/.]\d\d|\d\d[-/.]\d\d[-/.](?:19|20)\d\d")

# As a variable, a key of JSON or of a mapping, or an element of XML; 40 characters of base64.
AWS_SECRET = re.compile(
    r"""(?:[Ss]ecret|SECRET)[_ -]?(?:(?:[Aa]ccess|ACCESS)[_ -]?)?(?:[Kk]ey|KEY)"""
    r"""\\?["']?\s*(?:[:=]>?|>)\s*\\?["']?(?P<secret>[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=]))"""
)
# What stands in every credential of the form, and the form.
KEYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("AKIA", re.compile(r"\bAKIA[A-Z0-9]{16}\b")),
    ("ASIA", re.compile(r"\bASIA[A-Z0-9]{16}\b")),
    ("ecret", AWS_SECRET),
    ("SECRET", AWS_SECRET),
    (
        "PRIVATE KEY-----",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
    ),
    ("earer ", re.compile(r"\b[Bb]earer\s+(?P<secret>[A-Za-z0-9._~+/-]{20,}=*)")),
    ("eyJ", re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    ("gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b")),
    ("github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{36,}")),
    ("glpat-", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9]+)*")),
    # Anthropic, OpenAI, OpenRouter. `sk-SK` is Slovak, so a prefix that is known or one long word.
    (
        "sk-",
        re.compile(
            r"(?<![\w-])sk-(?=[A-Za-z0-9_-]*[0-9])(?:(?:proj|svcacct|admin|ant-[a-z]+[0-9]+|or-v[0-9])-"
            r"[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,}(?![\w-]))"
        ),
    ),
    ("k_live_", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}")),  # Stripe
    ("k_test_", re.compile(r"\b[rs]k_test_[A-Za-z0-9]{16,}")),
    ("AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("xox", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}")),
)

Replaced = Counter[str]


def replace_pii(
    text: str, placeholders: Mapping[PiiKind, str], phone_region: str | None
) -> tuple[str, Replaced]:
    """The text with each kind in `placeholders` replaced, and how many of each kind there were.

    Kinds: `key`, `email`, `ipv4` (only addresses that are reachable from everywhere), `phone`
    (national numbers count as numbers of `phone_region`; with None only international ones do).
    Doing it twice changes nothing more, as long as no placeholder looks like what it stands for.
    """
    replaced: Replaced = Counter()
    for kind, replace in _REPLACERS.items():
        if kind in placeholders:
            text, count = replace(text, placeholders[kind], phone_region)
            if count:
                replaced[kind] = count
    return text, replaced


def _replace_keys(text: str, placeholder: str, _: str | None) -> tuple[str, int]:
    total = 0
    for sign, pattern in KEYS:
        if sign in text:
            text, count = pattern.subn(lambda match: _without_secret(match, placeholder), text)
            total += count
    return text, total


def _without_secret(match: re.Match[str], placeholder: str) -> str:
    """The match with its group `secret`, or all of it, replaced."""
    if "secret" not in match.re.groupindex:
        return placeholder
    start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
    whole = match.group()
    return whole[:start] + placeholder + whole[end:]


def _replace_emails(text: str, placeholder: str, _: str | None) -> tuple[str, int]:
    if "@" not in text:
        return text, 0
    return EMAIL.subn(lambda _: placeholder, text)


def _replace_ipv4(text: str, placeholder: str, _: str | None) -> tuple[str, int]:
    if not IPV4_SIGN.search(text):
        return text, 0
    return _replace_if(IPV4, text, placeholder, _is_public)


def _is_public(address: str) -> bool:
    try:
        parsed = IPv4Address(address)
    except AddressValueError:  # a part above 255, or with a leading zero
        return False
    return parsed.is_global and not parsed.is_multicast


def _replace_phones(text: str, placeholder: str, region: str | None) -> tuple[str, int]:
    if not PHONE_SIGN.search(text):
        return text, 0
    return _replace_if(PHONE, text, placeholder, lambda found: _is_phone(found, region))


def _is_phone(found: str, region: str | None) -> bool:
    groups = DIGITS.findall(found)
    if not MIN_PHONE_DIGITS <= sum(map(len, groups)) <= MAX_PHONE_DIGITS or DATE.search(found):
        return False
    # Fewer groups without a plus are far more often an identifier, a range or a limit.
    if not found.startswith("+") and len(groups) < 3:
        return False
    matches = PhoneNumberMatcher(found, region, leniency=Leniency.VALID, max_tries=4)
    return any(len(match.raw_string) >= len(found) - 1 for match in matches)


def _replace_if(
    pattern: re.Pattern[str], text: str, placeholder: str, holds: Callable[[str], bool]
) -> tuple[str, int]:
    count = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal count
        if not holds(match.group()):
            return match.group()
        count += 1
        return placeholder

    return pattern.sub(replacement, text), count


# Keys first: a private key's lines may look like anything.
_REPLACERS: dict[PiiKind, Callable[[str, str, str | None], tuple[str, int]]] = {
    "key": _replace_keys,
    "email": _replace_emails,
    "ipv4": _replace_ipv4,
    "phone": _replace_phones,
}
