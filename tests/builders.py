"""What several tests build. Nothing here is faked: tables are written as the stages write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import category

import pyarrow as pa
from datatrove.utils.word_tokenizers import WordTokenizer

from components.clean.quality import num_sentences
from components.contract import StageIO
from components.schemas import CONVERSATIONS, DOCUMENTS, RATED_RESPONSES, SPLITS, content_id
from components.shards import write_shards
from components.words import APOSTROPHES, SCRIPTS_WITHOUT_SPACES


def documents_table(texts: Sequence[str]) -> pa.Table:
    """One document for each text, with an id of the text and its position."""
    return pa.Table.from_pylist(
        [
            {
                "id": content_id(text, str(position)),
                "text": text,
                "title": f"Document {position}",
                "url": f"https://example.org/{position}",
                "source": "test",
                "licence": "CC0-1.0",
            }
            for position, text in enumerate(texts)
        ],
        schema=DOCUMENTS,
    )


def conversation(document_id: str, question: str, answer: str) -> dict[str, object]:
    return {
        "id": content_id(document_id, question),
        "document_id": document_id,
        "rule": "test",
        "source": "test",
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
    }


def write_corpus(
    folder: Path,
    texts: Mapping[str, Sequence[str]],
    conversations: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
    rated_responses: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
    rows_per_shard: int = 1000,
) -> dict[str, list[str]]:
    """Tables as ingest publishes them; returns the documents' ids by split."""
    ids: dict[str, list[str]] = {}
    for split in SPLITS:
        table = documents_table(texts.get(split, ()))
        ids[split] = table["id"].to_pylist()
        write_shards(folder / "documents" / split, [table], DOCUMENTS, rows_per_shard)
        for name, rows, schema in (
            ("conversations", conversations, CONVERSATIONS),
            ("rated_responses", rated_responses, RATED_RESPONSES),
        ):
            of_split = pa.Table.from_pylist(list((rows or {}).get(split, ())), schema=schema)
            write_shards(folder / name / split, [of_split], schema, rows_per_shard)
    return ids


def stage_io(
    folder: Path, inputs: Mapping[str, Path], num_workers: int = 1, cache: Path | None = None
) -> StageIO:
    """Empty folders for one attempt under `folder`, and a cache: there, or another run's."""
    for name in ("out", "work", "reports"):
        (folder / name).mkdir(parents=True)
    return StageIO(
        inputs=inputs,
        out=folder / "out",
        work=folder / "work",
        reports=folder / "reports",
        cache=cache or folder / "cache",
        seed=2402,
        num_workers=num_workers,
    )


def documentation(services: Sequence[str]) -> list[str]:
    """Real text: the operations of some services, as ingest extracts them from botocore."""
    from importlib.metadata import version

    from components.ingest.api_models import data_folder, model_files, read_operations, render
    from components.ingest.extract import html_to_text

    data = data_folder(f"botocore=={version('botocore')}")
    return [
        html_to_text(render(operation), "resiliparse_main")
        for service in services
        for path in model_files(data, f"{service}/*")
        for operation in read_operations(path)
    ]


def plain_words(text: str) -> list[str]:
    """What `components.words` calls a word, one character after the other."""
    words: list[str] = []
    in_word = False
    for position, char in enumerate(text):
        inner = (
            ord(char) in APOSTROPHES
            and in_word
            and position + 1 < len(text)
            and _continues(text[position + 1])
        )
        if inner or _continues(char):
            if in_word:
                words[-1] += char
            else:
                words.append(char)
            in_word = True
        else:
            if not char.isspace():
                words.append(char)
            in_word = False
    return words


def _continues(char: str) -> bool:
    is_letter = char == "_" or char.isalnum() or category(char).startswith("M")
    return is_letter and not any(low <= ord(char) <= high for low, high in SCRIPTS_WITHOUT_SPACES)


class PlainWords(WordTokenizer):
    """Lets datatrove's filters see the words and sentences that ours see.

    Its own English tokenizer is spaCy's; what is compared are the rules, not the tokenizers.
    """

    def word_tokenize(self, text: str) -> list[str]:
        return plain_words(text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError("datatrove's filters ask for spans")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(number, number + 1) for number in range(num_sentences(text))]
