"""Asking an API server: what is an answer, what a no, and what only means that it is away."""

import threading
from pathlib import Path

import pytest

from components.errors import InfraError, StageError, UserError
from tasks.cluster import api
from tasks.cluster.api import (
    Away,
    Object,
    Refused,
    connect,
    namespace_of,
    patiently,
    refusals_typed,
)
from tests.unit.cluster.servers import (
    Answer,
    Handler,
    api_at,
    bookmark,
    cut,
    event,
    kubeconfig,
    refuses,
    says,
    serving,
    status,
    streams,
    thing,
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAUSES_S", (0.001,))


def test_objects_are_got_made_changed_and_deleted_as_the_protocol_has_it() -> None:
    with serving(says(thing("a")), says(thing("a")), says(thing("a")), says({})) as (server, of):
        assert of.get("/things/a", labelSelector="x=y") == thing("a")
        of.create("/things", thing("a"))
        of.patch("/things/a", {"spec": {"x": None}})
        of.delete("/things/a", foreground=True)
    assert server.asked == [
        ("GET", "/things/a", {"labelSelector": "x=y"}, None),
        ("POST", "/things", {}, thing("a")),
        ("PATCH", "/things/a", {}, {"spec": {"x": None}}),
        ("DELETE", "/things/a", {}, {"propagationPolicy": "Foreground"}),
    ]


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (refuses(404, "NotFound", "jobs.batch a not found"), 404, "jobs.batch a not found"),
        (refuses(403, "Forbidden", "may not\nlist jobs"), 403, "may not"),
        (refuses(409, "AlreadyExists"), 409, "AlreadyExists"),
        (says(b"", 401), 401, "HTTP status 401"),  # a proxy in between
        (says(b"null", 403), 403, "HTTP status 403"),
        (says(b'{"code": "x", "message": 7}', 400), 400, "7"),
        (says(b"404 page not found\n", 404), 404, "404 page not found"),
        (says(b"", 302), 302, "HTTP status 302"),
    ],
)
def test_a_no_is_told_with_its_code_and_its_first_line(
    answer: Answer, code: int, message: str
) -> None:
    with serving(answer) as (_, of), pytest.raises(Refused) as caught:
        of.get("/things")
    assert (caught.value.status, caught.value.message) == (code, message)


@pytest.mark.parametrize(
    "answer",
    [
        refuses(500, "InternalError", 'failed calling webhook "mjob.kb.io": connection refused'),
        refuses(503, "ServiceUnavailable"),
        refuses(429, "TooManyRequests"),
        says(b"", 502),
        says(b"<html>sign in</html>"),
        says(b"null"),
        says(b"[]"),
        cut,
        streams(b'{"metadata"', end=cut),
    ],
)
def test_trouble_of_the_server_or_on_the_way_to_it_means_later(answer: Answer) -> None:
    with serving(answer) as (_, of), pytest.raises(Away) as caught:
        of.get("/things")
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "TIMEOUT_S", (0.05, 0.05))
    with serving() as (_, of), pytest.raises(Away, match="timed out"):
        of.get("/things")


def test_a_server_that_is_not_there_is_away_in_the_same_words_each_time() -> None:
    with serving() as (server, of):
        pass
    said = set()
    for _ in range(2):
        with pytest.raises(Away, match=f"port={server.port}.*Connection refused") as caught:
            of.get("/things")
        said.add(str(caught.value))
    assert len(said) == 1


def test_what_is_deleted_already_is_no_error_and_any_other_no_is() -> None:
    with serving(refuses(404, "NotFound"), refuses(403, "Forbidden")) as (_, of):
        of.delete("/things/a")
        with pytest.raises(Refused):
            of.delete("/things/a")


def test_events_are_told_as_they_come_however_they_are_cut_into_pieces() -> None:
    text = event("ADDED", thing("a", 2)) + event("DELETED", thing("a", 3)) + bookmark(4)
    for size in (1, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        with serving(streams(*pieces)) as (server, of):
            found = [
                (one["type"], one["object"]["metadata"]["resourceVersion"])
                for one in of.watch("/things", resourceVersion="1")
            ]
        assert found == [("ADDED", "2"), ("DELETED", "3"), ("BOOKMARK", "4")]
    assert server.asked[0][2] == {
        "resourceVersion": "1", "watch": "true", "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
    }  # fmt: skip


@pytest.mark.parametrize("end", [cut, None])
def test_half_a_line_is_no_event(end: Answer | None) -> None:
    whole, half = event("ADDED", thing("a", 2)), event("ADDED", thing("b", 3))[:20]
    found: list[Object] = []
    with serving(streams(whole, half, end=end)) as (_, of):
        try:
            found.extend(of.watch("/things"))
        except Away:
            assert end is cut
    assert [one["object"]["metadata"]["name"] for one in found] == ["a"]


def test_an_event_that_came_before_the_connection_dropped_is_told() -> None:
    found: list[Object] = []
    with serving(streams(event("ADDED", thing("a", 2)), end=cut)) as (_, of):
        watch = of.watch("/things")
        found.append(next(watch))
        with pytest.raises(Away):
            next(watch)
    assert [one["type"] for one in found] == ["ADDED"]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (status(410, "Expired", "too old resource version"), Refused),
        (status(403, "Forbidden"), Refused),
        (status(500, "InternalError"), Away),
        (status(504, "Timeout"), Away),
    ],
)
def test_an_error_within_a_watch_is_as_one_of_a_request(
    told: Object, kind: type[Exception]
) -> None:
    with serving(streams(event("ERROR", told))) as (_, of), pytest.raises(kind) as caught:
        list(of.watch("/things"))
    assert str(caught.value) == (told["message"] or told["reason"])


def test_a_watch_that_is_left_gives_its_connection_back() -> None:
    closed = threading.Event()

    def until_closed(to: Handler) -> None:
        to.connection.settimeout(5)
        if to.connection.recv(1) == b"":
            closed.set()

    with serving(streams(event("ADDED", thing("a", 2)), end=until_closed)) as (_, of):
        watch = of.watch("/things")
        next(watch)
        watch.close()
        assert closed.wait(5)


def test_a_question_is_asked_again_until_the_server_answers_and_its_trouble_is_told_once() -> None:
    away = refuses(503, "ServiceUnavailable", "starting up")
    said: list[str] = []
    with serving(away, away, away, says(thing("a"))) as (server, of):
        assert patiently(lambda: of.get("/things/a"), 60, said.append) == thing("a")
    assert said == ["Kubernetes does not answer, asking again: starting up"]
    assert len(server.asked) == 4


def test_a_no_is_not_asked_again() -> None:
    with serving(refuses(403, "Forbidden")) as (server, of), pytest.raises(Refused):
        patiently(lambda: of.get("/things/a"), 60, print)
    assert len(server.asked) == 1


def test_a_server_that_stays_away_ends_the_patience() -> None:
    with serving() as (_, of):
        pass
    with pytest.raises(InfraError, match=r"Kubernetes does not answer: .*refused") as caught:
        patiently(lambda: of.get("/things/a"), 0.01, lambda line: None)
    assert "kubectl version" in caught.value.hint


def test_whoever_waits_can_be_called_away() -> None:
    def pause(seconds: float) -> None:
        raise InfraError("called away")

    with serving(refuses(503, "x")) as (_, of), pytest.raises(InfraError, match="called away"):
        patiently(lambda: of.get("/things/a"), 60, lambda line: None, pause)


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (Refused(403, "Forbidden", "may not"), UserError, "Kubernetes refuses: may not"),
        (
            Refused(403, "Forbidden", "exceeded quota: a"),
            InfraError,
            "Kubernetes refuses: exceeded quota: a",
        ),
        (Refused(401, "Unauthorized", "old"), InfraError, "Kubernetes refuses: old"),
        (Refused(404, "NotFound", "no namespace"), UserError, "Kubernetes refuses: no namespace"),
        (Refused(422, "Invalid", "wrong"), UserError, "Kubernetes refuses: wrong"),
        (Refused(400, "BadRequest", "wrong"), UserError, "Kubernetes refuses: wrong"),
        (Away("gone"), InfraError, "Kubernetes does not answer: gone"),
    ],
)
def test_what_nobody_expected_becomes_an_error_that_says_who_must_act(
    raised: Exception, kind: type[StageError], words: str
) -> None:
    with pytest.raises(StageError) as caught, refusals_typed():
        raise raised
    assert type(caught.value) is kind
    assert caught.value.message == words
    assert caught.value.hint


def test_paths_are_filled_in() -> None:
    assert namespace_of(api.JOBS, "n") == "/apis/batch/v1/namespaces/n/jobs"
    assert namespace_of(api.PODS, "n", "p") == "/api/v1/namespaces/n/pods/p"


@pytest.mark.parametrize("paths", ["{}", "/absent:{}"])
def test_access_is_by_kubeconfig_which_may_name_several_files(
    paths: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: dict[str, str] = {}

    def note(to: Handler) -> None:
        headers.update({name.lower(): value for name, value in to.headers.items()})
        says(thing("a"))(to)

    with serving(note) as (server, _):
        path = kubeconfig(tmp_path / "config", server.port)
        monkeypatch.setenv("KUBECONFIG", paths.format(path))
        assert connect().get("/things/a") == thing("a")
    assert headers["authorization"] == "Bearer secret"
    assert headers["user-agent"] == "headrace"


@pytest.mark.parametrize("text", ["{", "[]", "", "a: b", None])
def test_a_kubeconfig_that_is_none_is_the_users_affair(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(UserError, match="no access to Kubernetes: ") as caught:
        connect()
    assert "\n" not in caught.value.message
    assert "HEADRACE_LAUNCHER=local" in caught.value.hint


def test_without_any_access_nothing_is_printed_into_what_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="no access to Kubernetes"):
        connect()
    assert capsys.readouterr().out == ""


def test_an_api_of_a_port_asks_that_port() -> None:
    with serving(says(thing("a"))) as (server, _):
        assert api_at(server.port).get("/x") == thing("a")
