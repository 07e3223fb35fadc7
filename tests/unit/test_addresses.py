"""What of an address is shown."""

import pytest

from components.addresses import shown

WITH_SECRETS = [
    ("https://jane:pa%20ss@host/a.txt", "https://***@host/a.txt"),
    ("https://token@host:8000/v1", "https://***@host:8000/v1"),
    ("ftp://jane:p@ss@host", "ftp://***@host"),
    ("simplecache::https://jane:pw@host/a", "simplecache::https://***@host/a"),
    (
        "https://b.s3.amazonaws.com/a.gz?X-Amz-Credential=AKIA%2F1&X-Amz-Date=20260101&X-Amz-Signature=0f",
        "https://b.s3.amazonaws.com/a.gz?X-Amz-Credential=***&X-Amz-Date=20260101&X-Amz-Signature=***",
    ),
    (
        "https://b/a?AWSAccessKeyId=AK&Signature=s%3D&Expires=9#end",
        "https://b/a?AWSAccessKeyId=***&Signature=***&Expires=9#end",
    ),
    ("https://b.blob/a?sv=2024&sig=ab%2F=", "https://b.blob/a?sv=2024&sig=***"),
    ("https://h/a?access_token=t;api_key=k", "https://h/a?access_token=***;api_key=***"),
    (
        "Cannot connect to https://jane:pw@host/a, url='https://h/?token=t'",
        "Cannot connect to https://***@host/a, url='https://h/?token=***'",
    ),
]
WITHOUT_SECRETS = [
    *("https://example.org/a.jsonl.gz?version=2&keyword=pump", "s3://bucket/jane@host/a.txt"),
    *("github://owner:repository@v1.2/docs/*.md", "hf://datasets/owner/name@main/a.parquet"),
    *("data/a@b/*.txt?token=1", "botocore==1.43.117 */*", "memory://a/b?c"),
]


OF_URLLIB3 = [
    ("/v1?api_key=k&a=1 HTTP/1.1", "/v1?api_key=***&a=1 HTTP/1.1"),
    (
        "Max retries exceeded with url: /v1?token=t",
        "Max retries exceeded with url: /v1?token=***",
    ),
    ('"GET /v1?a=1&sig=s HTTP/1.1" 200', '"GET /v1?a=1&sig=*** HTTP/1.1" 200'),
]


@pytest.mark.parametrize(("address", "wanted"), [*WITH_SECRETS, *OF_URLLIB3])
def test_a_secret_is_hidden_and_the_rest_is_not(address: str, wanted: str) -> None:
    assert shown(address) == wanted
    assert shown(wanted) == wanted


@pytest.mark.parametrize("address", WITHOUT_SECRETS)
def test_an_address_without_a_secret_is_shown_as_it_is(address: str) -> None:
    assert shown(address) == address
