"""Cells of the matrix on networks whose answers, labels and embeddings are planted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.errors import ProxyError, StatisticsError
from heldout.networks.encoder_decoder import EncoderDecoder
from heldout.networks.mlp import MLP
from heldout.proxies.fit import Family
from heldout.studies.matrix_activations import features, similarity
from heldout.studies.matrix_answers import geometry, rule
from heldout.studies.matrix_evidence import Asked, Evidence
from heldout.studies.matrix_faithfulness import faithfulness
from heldout.studies.matrix_material import Material, Networks, Stimuli, halves
from heldout.studies.matrix_proxies import each_family, last_attention
from heldout.studies.matrix_removal import directions, removal
from heldout.tasks.modular import Modular, ModularSettings

P = 23
SETTINGS = {"permutations": 99, "items": 400, "strengths": (0.1,), "shuffles": 19, "null_draws": 3, "ranks": [4]}


class Planted(nn.Module):
    """Answers a + b modulo P (or noise that its seed fixes), shows the answer at `seen`, and has numbers on a circle (or
    anywhere)."""

    def __init__(self, *, right: bool, seed: int) -> None:
        super().__init__()
        self.embed = nn.Module()
        self.embed.embed = nn.Embedding(P + 1, 8)
        self.seen = nn.Identity()
        generator = torch.Generator().manual_seed(seed)
        self.guesses = torch.randint(P, (P, P), generator=generator)
        self.right = right
        with torch.no_grad():
            weights = torch.randn(P + 1, 8, generator=generator)
            if right:
                angles = 2 * math.pi * torch.arange(P) * (seed + 2) / P
                weights[:P] = 0.05 * weights[:P]
                weights[:P, :2] += torch.stack([angles.cos(), angles.sin()], dim=1)
            self.embed.embed.weight.copy_(weights)

    def forward(self, tokens: Tensor) -> Tensor:
        a, b = tokens[:, 0], tokens[:, 1]
        answers = (a + b) % P if self.right else self.guesses[a, b]
        out: Tensor = self.seen(F.one_hot(answers, P).float())
        return out


def planted(*, right: bool, seeds: int = 2) -> Material:
    task = Modular(ModularSettings(modulus=P, share=0.6, corner=4), seed=0)

    def stimuli(name: str) -> Stimuli:
        split = task.splits[name]
        batch = split.items.take(np.arange(len(split)))
        assert batch.targets is not None
        return Stimuli(split, None, {"sum": batch.targets.numpy()}, {"sum": "categorical"})

    return Material(
        row="modular",
        seeds=list(range(seeds)),
        networks=Networks(
            [Planted(right=right, seed=seed).eval() for seed in range(seeds)],
            [Planted(right=False, seed=100 + seed).eval() for seed in range(seeds)],
        ),
        site="seen",
        splits=task.splits,
        fit="train",
        select="select",
        shifted="corner",
        stimuli={"fit": stimuli("train"), "id": stimuli("id")},
    )


def asked(**more: Any) -> Asked:
    return Asked(SETTINGS | more, Path())


def test_the_rule_of_right_answers_is_found_and_guesses_have_none() -> None:
    right, guessed = (rule(planted(right=way), asked()) for way in (True, False))
    assert all(0.7 < value < 1 for value in right.by_seed)  # 1 minus the best of shuffles
    for row in right.tables[0]["rows"]:
        assert row[2] == 1
        assert row[4] == "yes"
    assert max(guessed.by_seed) < 0.1  # below 0: one rule held out, against the best of all on shuffles
    assert {row[4] for row in guessed.tables[0]["rows"]} == {"no"}


def test_labels_that_activations_are_explain_all_of_them_and_of_guesses_nothing() -> None:
    right, guessed = (features(planted(right=way), asked()) for way in (True, False))
    assert right.by_seed == pytest.approx((1.0, 1.0), abs=1e-9)
    assert right.null < 0.2
    assert right.tables[0]["rows"][0][2] == pytest.approx(1.0, abs=1e-9)
    assert max(guessed.by_seed) < 0.1  # below 0 by what the fit split's chance costs


def test_a_circle_is_found_where_there_is_one() -> None:
    right, guessed = (geometry(planted(right=way), asked()) for way in (True, False))
    assert min(right.by_seed) > 0.2
    assert max(row[3] for row in right.tables[0]["rows"]) == pytest.approx(0.01)  # of 99 permutations none is as round
    assert max(guessed.by_seed) < 0.2


def test_networks_that_answer_alike_are_alike_and_one_seed_has_no_other() -> None:
    right, guessed = (similarity(planted(right=way), asked()) for way in (True, False))
    assert right.value == pytest.approx(1.0)
    assert abs(guessed.value) < 0.1
    assert right.tables[0]["rows"][1][1] == pytest.approx(guessed.value, abs=0.2)  # guesses before training, too
    with pytest.raises(StatisticsError, match="one seed"):
        similarity(planted(right=True, seeds=1), asked())


def test_answers_that_pass_through_a_site_are_lost_with_the_directions_of_their_labels(tmp_path: Path) -> None:
    """At `seen` stands the answer's own axis, one of P. A quarter of P axes are removed: these answers go, while a random
    subspace of that rank leaves the largest entry where it is."""
    found = removal(planted(right=True), Asked(SETTINGS, tmp_path))
    rank = P // 4
    for row in found.tables[0]["rows"]:
        _, removed, size, before, without, random, _, difference = row
        assert (removed, size, before) == ("all labels", rank, 1.0)
        assert without < random
        assert difference == pytest.approx(random - without)
    assert found.value == pytest.approx(np.mean([row[-1] for row in found.tables[0]["rows"]]))
    assert found.low > 0
    assert all(check["difference"] == 0 for check in found.identity)


def test_directions_are_the_components_of_what_the_labels_predict() -> None:
    rng = np.random.default_rng(0)
    labels = {"a": np.arange(4000) % 2, "b": np.arange(4000) // 2 % 2}
    signal = np.zeros((4000, 12))
    signal[:, 3], signal[:, 7] = 5 * labels["a"], labels["b"]
    coding = Coding.fit(labels)
    moments = moments_of(signal + 1e-3 * rng.normal(size=signal.shape), coding.encode(labels))
    both = directions(moments, coding.columns("a", "b"))
    assert np.abs(both) == pytest.approx(np.eye(12)[[3, 7]], abs=1e-3)  # the larger effect first
    assert np.abs(directions(moments, coding.columns("b")))[0, 7] == pytest.approx(1, abs=1e-3)
    constant = moments_of(np.zeros((4000, 12)), coding.encode(labels))
    with pytest.raises(StatisticsError, match="do not vary"):
        directions(constant, coding.columns("a"))


def test_every_simplification_of_a_site_has_a_line_and_the_whole_width_changes_nothing(tmp_path: Path) -> None:
    found = faithfulness(planted(right=True), Asked(SETTINGS | {"ranks": [1]}, tmp_path))
    lines = {row[0]: row for row in found.tables[0]["rows"]}
    assert set(lines) == {
        *("principal components", "interaction basis", "random subspace"),
        *("singular vectors, not centred", "clusters", "mean"),
    }
    for name in ("principal components", "singular vectors, not centred", "clusters"):
        assert lines[name][4:6] == pytest.approx((1.0, 1.0))
    assert lines["mean"][2] == "none, none"
    assert lines["mean"][4] < 0.2
    assert lines["mean"][9:] == ["", "", ""]
    assert found.value == pytest.approx(lines["principal components"][9])


def test_a_family_that_cannot_be_fitted_leaves_its_reason_and_the_others() -> None:
    def fit(families: Any) -> list[Any]:
        if any(f.name == "kmeans" for f in families):
            raise ProxyError("too few rows")
        return [f.name for f in families]

    families = [Family("svd"), Family("kmeans"), Family("mean")]
    assert each_family(families, fit) == (["svd", "mean"], {"kmeans": "too few rows"})
    assert each_family(families[:1], fit) == (["svd"], {})


def test_the_last_attention_of_an_encoder_decoder_reads_the_sequence() -> None:
    found = last_attention(EncoderDecoder(5, 2, width=8, heads=2))
    assert found is not None
    assert found[0] == "decoder.1.cross"
    assert last_attention(MLP((3, 2))) is None


def test_halves_share_nothing_and_leave_nothing_out() -> None:
    split = planted(right=True).splits["id"]
    found = halves(split)
    assert sorted([*found["select"], *found["id"]]) == list(range(len(split)))


def test_stimuli_are_one_a_unit_in_order_and_evenly() -> None:
    every = planted(right=True).stimuli["id"]
    one = every.first(10**6)
    units = one.split.unit_ids()
    assert len(np.unique(units)) == len(units) == len(np.unique(every.split.unit_ids()))
    assert np.array_equal(one.first(5).labels["sum"], one.labels["sum"][:5])
    some = every.evenly(7)
    at = np.linspace(0, len(every.split) - 1, 7).astype(int)
    assert np.array_equal(some.labels["sum"], every.labels["sum"][at])


def test_evidence_survives_the_disk_with_what_is_not_there(tmp_path: Path) -> None:
    for evidence in (Evidence(reason="nothing varies"), Evidence(0.5, 0.4, 0.6, 0.0, 12, 2, (0.4, 0.6), "t")):
        evidence.write(tmp_path)
        again = Evidence.read(tmp_path)
        assert (again.reason, again.by_seed, again.n) == (evidence.reason, evidence.by_seed, evidence.n)
        assert again.value == evidence.value or (math.isnan(again.value) and math.isnan(evidence.value))
