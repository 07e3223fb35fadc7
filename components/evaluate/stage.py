"""Measure the four models on what none of them has seen."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from components.contract import Report, Sink, StageIO
from components.evaluate.answers import Answer, greedy_answers, spread
from components.evaluate.baselines import (
    Figure,
    HeldOut,
    compressor_figures,
    ngram_figure,
    read_held_out,
)
from components.evaluate.figures import DIGITS, Figures, put, put_with_changes
from components.evaluate.items import NAME as ITEMS
from components.evaluate.items import (
    Values,
    document_ids,
    item_ids,
    item_values,
    question_ids,
)
from components.evaluate.lm_task import InMemoryModel, run_task, write_tasks
from components.evaluate.pages import draw_results, write_results, write_samples
from components.evaluate.params import EvaluateParams
from components.evaluate.preferences import (
    RatedPairs,
    ranked_right,
    read_pairs,
    reward_scores,
    share_with_error,
)
from components.evaluate.subjects import SUBJECTS, Subject, answer_rows, load_subject
from components.measure.bits import document_bits
from components.measure.choices import CHANCE, Item, read_items
from components.measure.choosing import Array, Correct
from components.measure.ratio import mean_with_error, ratio_with_error
from components.model.logprobs import response_logprobs
from components.preference.pairs import agreement

SPLIT = "test"
REFERENCE = "sft"
"""What an implicit reward is measured against: DPO's reference."""
REWARD_MODELS = {"reward_model": "model", "bradley_terry": "baseline"}


class Material(NamedTuple):
    """What every model is measured on."""

    held_out: HeldOut
    items: list[Item]
    rated: RatedPairs
    questions: list[str]


class Measured(NamedTuple):
    """One model's values: for each document, question, rated answer and prompt."""

    bits: Array
    correct: Correct
    logprobs: Array
    answers: list[Answer]


def run(params: EvaluateParams, io: StageIO, sink: Sink) -> Report:
    began_at = time.perf_counter()
    torch.set_num_threads(io.num_workers)
    material = read_material(params, io)
    write_tasks(io.work / "task", material.items)
    folders = {
        "base": io.inputs["pretrain"],
        "sft": io.inputs["sft"],
        "dpo": io.inputs["dpo"],
        "quantized": io.inputs["quantize"],
    }
    measured: dict[str, Measured] = {}
    other_task_form: Correct | None = None
    # The compressors and the n-gram model need one core each and no model.
    with ThreadPoolExecutor(1) as background:
        others = background.submit(baseline_figures, material.held_out, params, io)
        for done, subject in enumerate(SUBJECTS):
            sink.progress(done, len(SUBJECTS), "models measured", model=subject.name)
            model, tokenizer = load_subject(subject, folders[subject.name] / "model")
            measured[subject.name] = measure(subject, model, tokenizer, material, params, io)
            if not subject.chats:
                asked = InMemoryModel(model, tokenizer)
                other_task_form = run_task(asked, io.work / "task", "question")
        sink.progress(len(SUBJECTS), len(SUBJECTS), "models measured")
        baseline_bits = others.result()

    figures: Figures = {}
    in_bytes = partial(ratio_with_error, denominators=material.held_out.num_bytes)
    put_with_changes(figures, "bits_per_byte", {n: m.bits for n, m in measured.items()}, in_bytes)
    for name, value in baseline_bits.items():
        put(figures, "bits_per_byte", name, value)
    put_task_figures(figures, measured, other_task_form)
    put_preference_figures(figures, measured, material.rated, io)
    wins = put_judged_figures(figures, measured, material.questions, io)
    io.reports.mkdir(parents=True, exist_ok=True)
    values = every_item(material, measured, wins)
    (io.reports / ITEMS).write_text(json.dumps(values, sort_keys=True) + "\n", encoding="utf-8")

    counts = count(material)
    publish(figures, counts, measured, material, params, io)
    return counts | figures | {"elapsed_s": time.perf_counter() - began_at}


def read_material(params: EvaluateParams, io: StageIO) -> Material:
    dedup, tokenize = io.inputs["dedup"], io.inputs["tokenize"]
    items = read_items(dedup, SPLIT, params.task.rules, params.task.num_items, io.seed)
    rated = read_pairs(dedup, io.inputs["reward_model"], SPLIT, params.preference.num_prompts)
    held_out = read_held_out(tokenize, dedup, SPLIT, params.bits.max_tokens)
    questions = spread([item.question for item in items], params.judge.num_prompts)
    return Material(held_out, items, rated, questions)


def baseline_figures(held_out: HeldOut, params: EvaluateParams, io: StageIO) -> dict[str, Figure]:
    train = io.inputs["dedup"] / "documents" / "train"
    ngram = ngram_figure(held_out, io.inputs["tokenize"], params.ngram)
    name = f"kneser_ney_{params.ngram.order}gram"
    return {name: ngram, **compressor_figures(held_out, train, params.compressors)}


def measure(
    subject: Subject,
    model: Any,
    tokenizer: Any,
    material: Material,
    params: EvaluateParams,
    io: StageIO,
) -> Measured:
    ratings = material.rated.ratings
    rows = answer_rows(subject, tokenizer, ratings.prompts, ratings.responses)
    form = "chat" if subject.chats else "title"
    return Measured(
        bits=document_bits(
            model,
            material.held_out.documents,
            context=params.bits.context_tokens,
            stride=params.bits.stride_tokens,
        ),
        correct=run_task(InMemoryModel(model, tokenizer), io.work / "task", form),
        logprobs=response_logprobs(model, rows).double().numpy(),
        answers=greedy_answers(
            subject, model, tokenizer, material.questions, params.judge.max_new_tokens
        ),
    )


def put_task_figures(
    figures: Figures, measured: dict[str, Measured], other_form: Correct | None
) -> None:
    """Accuracy by each of lm-eval's rules; the base model's too when asked the plain question."""
    for name, rule in (
        ("task_accuracy", "mutual_information"),
        ("task_accuracy_normalised", "normalised"),
        ("task_accuracy_raw", "raw"),
    ):
        values = {model: getattr(one.correct, rule) for model, one in measured.items()}
        put_with_changes(figures, name, values, mean_with_error)
        if other_form is not None:
            put(figures, name, "base_plain_question", mean_with_error(getattr(other_form, rule)))


def put_preference_figures(
    figures: Figures, measured: dict[str, Measured], rated: RatedPairs, io: StageIO
) -> None:
    """The models' and the reward models' agreement with the crowd on held-out pairs."""
    share = partial(share_with_error, groups=rated.prompt_ids)
    right = {name: ranked_right(one.logprobs, rated) for name, one in measured.items()}
    put_with_changes(figures, "preference_accuracy", right, share)
    reference = measured[REFERENCE].logprobs
    gained = {
        name: ranked_right(measured[name].logprobs - reference, rated)
        for name in ("dpo", "quantized")
    }
    put_with_changes(figures, "implicit_reward_accuracy", gained, share)
    ranked = {
        name: ranked_right(
            reward_scores(
                io.inputs["reward_model"] / folder, rated.ratings.prompts, rated.ratings.responses
            ),
            rated,
        )
        for name, folder in REWARD_MODELS.items()
    }
    for name, values in ranked.items():
        put(figures, "reward_accuracy", name, share(values))
    gain = ranked["reward_model"] - ranked["bradley_terry"]
    put(figures, "reward_accuracy_change", "reward_model", share(gain))


def put_judged_figures(
    figures: Figures, measured: dict[str, Measured], questions: Sequence[str], io: StageIO
) -> dict[str, Array]:
    """What the reward models think of the greedy answers, and how often dpo's beat sft's.

    The latter is returned for each question, by the figure's name.
    """
    won: dict[str, Array] = {}
    texts = [answer.text for one in measured.values() for answer in one.answers]
    asked = [*questions] * len(measured)
    for name, folder in (("judged_reward", "model"), ("judged_reward_baseline", "baseline")):
        scores = reward_scores(io.inputs["reward_model"] / folder, asked, texts)
        by_model = dict(zip(measured, scores.reshape(len(measured), -1), strict=True))
        put_with_changes(figures, name, by_model, mean_with_error)
        wins = agreement(by_model["dpo"], by_model["sft"])
        won[name.replace("reward", "win_rate")] = wins
        put(figures, name.replace("reward", "win_rate"), "dpo_over_sft", mean_with_error(wins))
    ended = {
        name: np.array([float(answer.ended) for answer in one.answers])
        for name, one in measured.items()
    }
    put_with_changes(figures, "answer_ended", ended, mean_with_error)
    return won


def every_item(
    material: Material, measured: dict[str, Measured], won: dict[str, Array]
) -> dict[str, Values]:
    """What each model got for each item, by figure."""
    asked = question_ids(material.questions)
    bits = {name: one.bits for name, one in measured.items()}
    right = {name: one.correct.mutual_information for name, one in measured.items()}
    held_out = material.held_out
    return {
        "bits_per_byte": item_values(document_ids(held_out.texts), held_out.num_bytes, bits),
        "task_accuracy": item_values(item_ids(material.items), None, right),
    } | {name: item_values(asked, None, {"dpo_over_sft": wins}) for name, wins in won.items()}


def count(material: Material) -> dict[str, float]:
    same = sum(item.num_same_service for item in material.items)
    return {
        "num_documents": len(material.held_out.documents),
        "num_document_bytes": int(material.held_out.num_bytes.sum()),
        "num_task_items": len(material.items),
        "task_chance": CHANCE,
        "same_service_fraction": round(same / (3 * len(material.items)), DIGITS),
        "num_rated_prompts": len(set(material.rated.prompt_ids)),
        "num_rated_pairs": len(material.rated.pairs),
        "num_judged_prompts": len(material.questions),
    }


def publish(
    figures: Figures,
    counts: dict[str, float],
    measured: dict[str, Measured],
    material: Material,
    params: EvaluateParams,
    io: StageIO,
) -> None:
    notes = protocol(figures, counts, material, params)
    results = {"counts": counts, "figures": figures, "protocol": notes}
    text = json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False)
    (io.out / "results.json").write_text(text + "\n", encoding="utf-8")
    write_results(figures, notes, io.out / "results.md")
    draw_results(figures, CHANCE, io.out / "results.png")
    shown = spread(material.questions, params.judge.num_samples)
    places = [material.questions.index(question) for question in shown]
    write_samples(
        shown,
        {name: [one.answers[place] for place in places] for name, one in measured.items()},
        io.out / "samples.md",
    )
    for name in ("results.md", "results.png", "samples.md"):
        (io.reports / name).write_bytes((io.out / name).read_bytes())


def protocol(
    figures: Figures, counts: dict[str, float], material: Material, params: EvaluateParams
) -> list[str]:
    """How each figure came about; part of the results."""
    plain = figures["task_accuracy"]["base_plain_question"]
    win = figures["judged_win_rate"]["dpo_over_sft"]
    win_error = figures["judged_win_rate_se"]["dpo_over_sft"]
    raters = ", ".join(material.rated.ratings.raters)
    return [
        f"Bits per byte: {counts['num_documents']:,} test documents "
        f"({counts['num_document_bytes']:,} bytes), each coded by itself, its end included, in rows "
        f"of up to {params.bits.context_tokens} tokens that overlap by "
        f"{params.bits.context_tokens - params.bits.stride_tokens}.",
        f"Kneser-Ney: interpolated modified Kneser-Ney of order {params.ngram.order} over the same "
        f"tokens of at most {params.ngram.max_train_tokens:,} training tokens; it has read every "
        "training document once, which the base model need not have.",
        f"xz -{params.compressors.xz_preset}e and zstd -{params.compressors.zstd_level}: all test "
        "documents in one stream, nothing read before, so they learn from one document for the "
        "next. zstd_primed: each document by itself, with up to "
        f"{params.compressors.max_dictionary_mb} MB of training text as dictionary.",
        f"Task: {counts['num_task_items']:,} held-out operations, which of four held-out "
        "descriptions (first sentences) belongs to it; "
        f"{counts['same_service_fraction']:.0%} of the wrong ones are of the same service. Chance "
        f"is {counts['task_chance']:.0%}. Run by lm-eval: accuracy by log P(choice | question) - "
        "log P(choice) (acc_mutual_info), by log-likelihood for each character (acc_norm) and by "
        "log-likelihood (acc), which mostly tells how common a sentence is.",
        "Prompts: sft, dpo and quantized read the question in ChatML. base has never seen ChatML "
        "and reads the operation's title as a document begins, which is the form it was trained "
        f"on; asked the plain question it has {plain:.4f}.",
        f"Crowd's pairs: {counts['num_rated_pairs']:,} pairs of answers to "
        f"{counts['num_rated_prompts']:,} held-out prompts, rated by {raters}. Errors are for "
        "prompts as clusters. base reads the question as a document's first paragraph. A likelier "
        "answer is often just the shorter one; the gain over sft is free of that.",
        f"Reward of greedy answers: {counts['num_judged_prompts']:,} held-out questions. The judge "
        "is the reward model that dpo was trained on, so this is circular: it shows that dpo did "
        "what it was asked, not that people would agree. dpo's answer beats sft's in "
        f"{win:.1%} ± {win_error:.1%} of them (ties count half).",
    ]
