"""A list kept up to date over whatever a server and the way to it can do."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tasks.cluster import watching
from tasks.cluster.api import PAGE, Object
from tasks.cluster.watching import Watched
from tests.unit.cluster.servers import (
    Answer,
    Server,
    api_at,
    bookmark,
    cut,
    event,
    hold,
    lists,
    lists_page,
    refuses,
    says,
    serving,
    status,
    streams,
    thing,
)

PATIENCE_S = 5.0


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSES_S", (0.001,))


@contextmanager
def watched(*script: Answer) -> Iterator[tuple[Server, Watched]]:
    with serving(*script) as (server, api):
        with Watched(api, "/things", threading.Event(), labelSelector="x=y") as found:
            yield server, found
            server.released.set()
        ended(found)


def ended(found: Watched) -> None:
    found._thread.join(PATIENCE_S)
    assert not found._thread.is_alive()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def versions(found: Watched) -> dict[str, str]:
    return {name: one["metadata"]["resourceVersion"] for name, one in found.objects().items()}


def asked(server: Server) -> list[str]:
    """The version each watch began at; `list` for a list."""
    for _, path, query, _ in server.asked:
        assert (path, query["labelSelector"]) == ("/things", "x=y")
    return [query.get("resourceVersion", "list") for _, _, query, _ in server.asked]


def test_what_is_there_is_listed_and_what_changes_is_seen() -> None:
    changes = [
        event("ADDED", thing("c", 3)), event("MODIFIED", thing("a", 4)),
        event("DELETED", thing("b", 5)),
    ]  # fmt: skip
    script = [lists(2, thing("a"), thing("b")), streams(*changes, end=hold)]
    with watched(*script) as (server, found):
        assert found.listed.wait(PATIENCE_S)
        until(lambda: versions(found) == {"a": "4", "c": "3"})
        assert asked(server) == ["list", "2"]
        assert found.away_since is None


def test_each_change_wakes_whoever_waits() -> None:
    go_on = threading.Event()

    def after_a_while(to: object) -> None:
        go_on.wait(PATIENCE_S)
        text = event("ADDED", thing("b", 3))
        to.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")  # type: ignore[attr-defined]
        hold(to)  # type: ignore[arg-type]

    changed = threading.Event()
    script = [lists(2, thing("a")), streams(end=after_a_while)]
    with serving(*script) as (server, api), Watched(api, "/things", changed) as found:
        assert changed.wait(PATIENCE_S)
        assert list(found.objects()) == ["a"]
        changed.clear()
        go_on.set()
        assert changed.wait(PATIENCE_S)
        assert list(found.objects()) == ["a", "b"]
        server.released.set()


def test_a_watch_that_ends_goes_on_where_it_stopped_by_events_and_bookmarks() -> None:
    first = streams(event("ADDED", thing("b", 3)), bookmark(9))
    with watched(lists(2, thing("a")), first, streams(event("ADDED", thing("c", 10)))) as (
        server,
        found,
    ):
        assert server.is_over.wait(PATIENCE_S)
        assert asked(server) == ["list", "2", "9", "10"]
        assert versions(found) == {"a": "1", "b": "3", "c": "10"}


def test_the_list_is_asked_for_again_after_its_time_though_no_watch_has_failed() -> None:
    def later(to: object) -> None:
        time.sleep(0.2)
        text = bookmark(9)
        to.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n0\r\n\r\n")  # type: ignore[attr-defined]

    script = [lists(2, thing("a")), streams(end=later), lists(9, thing("missed"))]
    with serving(*script) as (server, api):
        with Watched(api, "/things", threading.Event(), 0.1) as found:
            until(lambda: versions(found) == {"missed": "1"})
            server.released.set()
        ended(found)
        assert not found.is_kept


def test_a_long_list_comes_in_pages_and_is_watched_from_its_one_version() -> None:
    script = [lists_page(2, "b..", thing("a"), thing("b")), lists_page(2, "", thing("c"))]
    with watched(*script) as (server, found):
        assert server.is_over.wait(PATIENCE_S)
        assert list(found.objects()) == ["a", "b", "c"]
        assert asked(server) == ["list", "list", "2"]
        first, second = (query for _, _, query, _ in server.asked[:2])
        assert (first["limit"], second["limit"]) == (str(PAGE), str(PAGE))
        assert (first.get("continue"), second["continue"]) == (None, "b..")


def test_a_list_whose_version_goes_between_two_pages_is_begun_anew() -> None:
    first = lists_page(2, "b..", thing("a"), thing("gone"))
    with watched(first, refuses(410, "Expired"), lists(9, thing("a", 8))) as (server, found):
        assert server.is_over.wait(PATIENCE_S)
        assert asked(server) == ["list", "list", "list", "9"]
        assert "continue" not in server.asked[2][2]
        assert versions(found) == {"a": "8"}
        assert found.refusal is None


def test_of_what_is_listed_and_of_what_changes_only_what_is_to_be_kept_is() -> None:
    def name_only(one: Object) -> Object:
        return {"name": one["metadata"]["name"]}

    script = [lists(2, thing("a", big="x")), streams(event("ADDED", thing("b", 3, big="y")))]
    with serving(*script) as (server, api):
        with Watched(api, "/things", threading.Event(), math.inf, name_only) as found:
            assert server.is_over.wait(PATIENCE_S)
            assert found.objects() == {"a": {"name": "a"}, "b": {"name": "b"}}
            assert server.asked[2][2]["resourceVersion"] == "3"
            server.released.set()
        ended(found)


@pytest.mark.parametrize(
    "broken",
    [
        streams(event("ERROR", status(410, "Expired", "too old resource version: 2 (7)"))),
        refuses(410, "Expired", "too old resource version: 2 (7)"),
        streams(event("MODIFIED", thing("a", 3)), end=cut),
        streams(event("MODIFIED", thing("a", 3))[:30]),
        streams(event("MODIFIED", thing("a", 3))[:30], end=cut),
        streams(),
        cut,
        refuses(500, "InternalError"),
        refuses(503, "ServiceUnavailable", "apiserver is shutting down"),
        says(b"<html>a proxy</html>"),
        streams(b'{"no": "event"}\n'),
        streams(b"[]\n"),
    ],
)
def test_whatever_ends_a_watch_the_list_is_asked_for_again_and_what_is_gone_is_gone(
    broken: Answer,
) -> None:
    with watched(lists(2, thing("a"), thing("b")), broken, lists(8, thing("b", 7))) as (
        server,
        found,
    ):
        assert server.is_over.wait(PATIENCE_S)
        assert asked(server) == ["list", "2", "list", "8"]
        assert versions(found) == {"b": "7"}
        assert found.away_since is None
        assert found.refusal is None


@pytest.mark.parametrize("broken", [cut, refuses(503, "x"), says(b"{}"), says(b"null"), says(b"")])
def test_a_server_that_is_away_at_first_is_asked_again(broken: Answer) -> None:
    with watched(broken, broken, lists(2, thing("a"))) as (server, found):
        assert found.listed.wait(PATIENCE_S)
        until(found.objects)
        assert asked(server)[:3] == ["list"] * 3


def test_a_server_that_is_away_is_known_to_be_until_it_answers() -> None:
    with serving(lists(2, thing("a"))) as (server, _):
        port = server.port
        with Watched(api_at(port), "/things", threading.Event()) as found:
            assert server.is_over.wait(PATIENCE_S)
            before = time.monotonic()
            server.stop()
            until(lambda: found.away_since is not None)
            since = found.away_since
            assert since is not None
            assert since >= before
            assert list(found.objects()) == ["a"]
            time.sleep(0.02)
            assert found.away_since == since  # the first time counts
            with serving(lists(3, thing("b", 3)), port=port) as (again, _):
                until(lambda: versions(found) == {"b": "3"})
                assert again.is_over.wait(PATIENCE_S)
                assert found.away_since is None


@pytest.mark.parametrize(
    ("code", "reason"), [(403, "Forbidden"), (401, "Unauthorized"), (404, "NotFound")]
)
def test_a_no_ends_it_and_is_kept_for_whoever_waits(code: int, reason: str) -> None:
    changed = threading.Event()
    with serving(refuses(code, reason)) as (server, api), Watched(api, "/things", changed) as found:
        assert found.listed.wait(PATIENCE_S)
        ended(found)
        assert changed.is_set()
        assert found.refusal is not None
        assert (found.refusal.status, found.refusal.reason) == (code, reason)
        assert len(server.asked) == 1


def test_a_no_to_what_was_allowed_before_is_asked_again() -> None:
    """A server that has just started does not know all rights at once."""
    forbidden = streams(event("ERROR", status(403, "Forbidden")))
    answers = [lists(2, thing("a")), forbidden, refuses(403, "Forbidden"), lists(3, thing("b"))]
    with watched(*answers) as (_, found):
        until(lambda: "b" in found.objects())
        assert found.refusal is None
        assert found.away_since is None


def test_a_no_within_a_watch_ends_it_too() -> None:
    invalid = streams(event("ERROR", status(400, "BadRequest")))
    with watched(lists(2, thing("a")), invalid) as (_, found):
        until(lambda: found.refusal)
        ended(found)


def test_watches_that_end_at_once_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy that ends every answer: one list and one watch for each pause."""
    monkeypatch.setattr(watching, "PAUSES_S", (0.0, 0.05))
    never = [lists(2, thing("a")), streams()] * 100
    began = time.monotonic()
    with watched(*never) as (server, _):
        until(lambda: len(server.asked) >= 8)
        assert time.monotonic() - began >= 3 * 0.05


def test_versions_that_are_always_too_old_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSES_S", (0.0, 0.05))
    began = time.monotonic()
    with watched(*[lists(2, thing("a")), refuses(410, "Expired")] * 100) as (server, _):
        until(lambda: len(server.asked) >= 8)
        assert time.monotonic() - began >= 3 * 0.05


def test_after_the_body_the_thread_ends_with_its_watch() -> None:
    with serving(lists(2, thing("a")), streams(end=hold)) as (server, api):
        with Watched(api, "/things", threading.Event()) as found:
            assert found.listed.wait(PATIENCE_S)
            until(lambda: len(server.asked) == 2)
        server.released.set()
        ended(found)
        assert len(server.asked) == 2


def test_after_the_body_a_server_that_is_away_is_not_asked_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "PAUSES_S", (60.0,))
    with serving() as (_, api):
        pass
    with Watched(api, "/things", threading.Event()) as found:
        until(lambda: found.away_since)
    ended(found)
