"""Near duplicates that are known beforehand: every pair compared, and a guide in two editions."""

from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from components.dedup.clusters import cluster
from components.dedup.minhash import band_keys, permutations, signatures
from components.dedup.params import DedupParams
from components.dedup.shingles import jaccard, shingle
from components.dedup.stage import run
from components.errors import InfraError, UserError
from components.ingest.debian import package_files
from components.ingest.extract import html_to_text
from components.metrics import QuietSink
from components.shards import read_table
from tests.builders import documentation, stage_io, write_corpus

SECTION = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text("utf-8"))["dedup"]
BANDS, ROWS = 14, 8


def test_clusters_of_real_text_are_those_of_comparing_every_pair() -> None:
    texts = documentation(["cloudfront", "sqs", "rds", "lex-models", "lexv2-models"])
    shingles = shingle(texts, 5)
    _, gram = np.unique(shingles.values, return_inverse=True)
    incidence = csr_array((np.ones(len(gram), np.int64), gram, shingles.first))
    shared = (incidence @ incidence.T).toarray()
    sizes = shingles.sizes
    similarity = shared / (sizes[:, None] + sizes[None, :] - shared)
    truth = connected_components(similarity >= 0.8, directed=False)[1]

    def similar(pairs: np.ndarray) -> np.ndarray:
        return similarity[pairs[:, 0], pairs[:, 1]] >= 0.8

    keys = band_keys(signatures(shingles, *permutations(BANDS * ROWS, 2402)), BANDS, ROWS)
    found = cluster(len(texts), list(keys.T), similar, max_neighbours=32)
    # Never too much: whoever shares a cluster is connected by true similarity.
    assert all(len(set(truth[found == label])) == 1 for label in np.unique(found))
    # Rarely too little: a pair of similarity 0.8 becomes a candidate with probability 0.92.
    one, other = np.nonzero(np.triu(similarity >= 0.8, 1))
    assert len(one) > 1000
    together = found[one] == found[other]
    assert together.mean() > 0.97
    assert together[similarity[one, other] >= 0.95].all()


def test_a_guide_in_two_editions_keeps_one_of_each_page(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Which edition a mirror has changes; of 82 pages in both 35 said the same, 64 nearly (0.8)."""
    editions = []
    try:
        for architecture in ("amd64", "arm64"):
            package = f"installation-guide-{architecture}"
            cache = tmp_path_factory.mktemp("packages")
            _, found = package_files(package, f"usr/share/doc/{package}/en/*.html", cache)
            editions.append({path.name: path for _, path in found})
    except (InfraError, UserError) as error:
        pytest.skip(f"the Debian mirror is out of reach: {error.message}")
    names = sorted(editions[0].keys() & editions[1].keys())
    texts = [
        html_to_text(edition[name].read_text("utf-8"), "resiliparse_all")
        for edition in editions
        for name in names
    ]
    num = len(names)
    shingles = shingle(texts, 5)
    sets = np.split(shingles.values, shingles.first[1:-1])
    similarity = np.array([jaccard(sets[n], sets[n + num]) for n in range(num)])
    is_same = np.array([texts[n] == texts[n + num] for n in range(num)])
    assert is_same.sum() >= 20
    assert (similarity >= 0.8).sum() >= 40

    ids = write_corpus(tmp_path / "clean", {"train": texts})["train"]
    changes = {"paragraphs": None, "decontamination": None}
    params = DedupParams.model_validate(SECTION | changes)
    run(params, stage_io(tmp_path / "run", {"clean": tmp_path / "clean"}), QuietSink())
    gone = {
        row["id"]: row["matched_id"]
        for row in read_table(tmp_path / "run" / "out" / "rejected").to_pylist()
    }
    cluster_of = [gone.get(name, name) for name in ids]
    together = np.array([cluster_of[n] == cluster_of[n + num] for n in range(num)])
    assert together[is_same].all()
    assert together[similarity >= 0.9].all()
    assert together[similarity >= 0.8].mean() > 0.9
    assert not together[similarity < 0.7].any()
