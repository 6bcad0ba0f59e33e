"""Model recovery where the answer is known: content that differs, no signal at all, and a loud feature that misleads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd
import pytest
from planted_networks import Floats, balanced, network
from sklearn.linear_model import Ridge

from heldout.analyses.similarity.brains import Recording
from heldout.analyses.similarity.corrections import sweep
from heldout.analyses.similarity.equalise import equalise
from heldout.analyses.similarity.halves import Halves, cka, encoding, rsa, whole
from heldout.analyses.similarity.measures import MEASURES
from heldout.analyses.similarity.methods import Method, Stimuli, raw, standard_methods
from heldout.analyses.similarity.partial import (
    model_rdms,
    partial_rsa,
    similarity_without_labels,
    similarity_without_subspace,
)
from heldout.analyses.similarity.predictivity import PENALTIES
from heldout.analyses.similarity.rdm import rdm
from heldout.analyses.similarity.recovered import confusion, gains, ranked, rates
from heldout.analyses.similarity.recovery import recovery
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, EvidenceError, StatisticsError
from heldout.statistics.intervals import wilson

LABELS = balanced(50)
STIMULI = Stimuli.draw(LABELS, fit=100, test=100, seed=0)
FIT, TEST = STIMULI.fit, STIMULI.test


def family(sizes: Mapping[str, tuple[dict[str, float], ...]], **more: float) -> dict[str, list[Floats]]:
    """condition -> networks, one for each of its sizes; all of different directions and noise."""
    return {
        name: [network(LABELS, s, seed=100 * i + j, **more) for j, s in enumerate(of)]  # type: ignore[arg-type]
        for i, (name, of) in enumerate(sizes.items())
    }


def orthogonal() -> dict[str, list[Floats]]:
    """Four conditions of which each holds one or both of two features, equally loud, or neither."""
    one = {"easy": {"easy": 3.0}, "hard": {"hard": 3.0}, "both": {"easy": 3.0, "hard": 3.0}, "neither": {}}
    return family({name: (sizes,) * 3 for name, sizes in one.items()})


def misleading() -> dict[str, list[Floats]]:
    """Both features in every network of `both`, but in one the second is quiet and in the other the first."""
    return family(
        {
            "both": ({"easy": 4.0, "hard": 1.0}, {"easy": 1.5, "hard": 4.0}),
            "easy": ({"easy": 4.0},) * 2,
            "hard": ({"hard": 4.0},) * 2,
        },
        noise=0.2,
    )


@cache
def clear() -> pd.DataFrame:
    methods = standard_methods(STIMULI, loud=["easy"], distance="euclidean")
    named = {name: nets for name, nets in orthogonal().items() if name != "neither"}
    return recovery(named, STIMULI, methods, seed=0, draws=6, recording=Recording(neurons=60, noise=0.1))


def rate(scores: pd.DataFrame, measure: str, correction: str, truth: str = "*") -> float:
    found = rates(scores).set_index(["measure", "correction", "truth"])
    return float(found.loc[(measure, correction, truth), "rate"])


# -- halves ----------------------------------------------------------------------------------------------------------

X, Y = network(LABELS, {"easy": 3.0, "hard": 1.0}, seed=1), network(LABELS, {"easy": 1.0}, width=7, seed=2)


def joined(halves: Halves, x: Floats = X, y: Floats = Y) -> float:
    return halves.join(halves.of_model(x[FIT], x[TEST]), halves.of_brain(y[FIT], y[TEST]))


@pytest.mark.parametrize(
    ("halves", "name"),
    [
        (cka(), "cka"),
        (rsa(), "rsa"),
        (rsa(by="spearman"), "rsa-spearman"),
        (rsa("euclidean"), "rsa-euclidean"),
        (whole(MEASURES["procrustes"].of), "procrustes"),
    ],
)
def test_two_halves_make_the_measure(halves: Halves, name: str) -> None:
    assert joined(halves) == pytest.approx(MEASURES[name].of(X[TEST], Y[TEST]), rel=1e-10)


@pytest.mark.parametrize("by", ["pearson", "spearman"])
def test_two_halves_make_the_partial_correlation(by: str) -> None:
    models = model_rdms({"easy": LABELS["easy"][TEST]})
    expected = partial_rsa(rdm(X[TEST]), rdm(Y[TEST]), models, by)  # type: ignore[arg-type]
    assert joined(rsa(by=by, controls=models)) == pytest.approx(expected, rel=1e-10)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [14, 15, 16, 18, 25, 100])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_encoding_is_a_ridge_fitted_on_one_split_and_scored_on_the_other(rows: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    responses = X @ rng.normal(size=(12, 5)) + noise * rng.normal(size=(200, 5))
    x, y, new = X[FIT[:rows]], responses[FIT[:rows]], responses[TEST]
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    found, loss = [], []
    for share in PENALTIES:
        penalty = share * (singular**2).mean()
        model = Ridge(alpha=penalty, solver="svd").fit(x, y)
        freedom = rows - 1 - (singular**2 / (singular**2 + penalty)).sum()
        loss.append(((y - model.predict(x)) ** 2).sum() / freedom**2)
        found.append(1 - ((new - model.predict(X[TEST])) ** 2).sum() / ((new - y.mean(axis=0)) ** 2).sum())
    halves = encoding()
    score = halves.join(halves.of_model(x, X[TEST]), halves.of_brain(y, new))
    assert score == pytest.approx(found[int(np.argmin(loss))], rel=1e-9)


def test_encoding_of_a_linear_mixture_is_one_and_of_noise_about_zero() -> None:
    rng = np.random.default_rng(0)
    assert joined(encoding(), y=X @ rng.normal(size=(12, 9))) == pytest.approx(1, abs=1e-6)
    assert abs(joined(encoding(), y=rng.normal(size=(200, 9)))) < 0.1


def test_the_standard_methods_are_corrections_and_measures_put_together() -> None:
    easy, names, fit_labels = ["easy"], ("easy", "hard"), STIMULI.fit_labels
    splits = X[FIT], Y[FIT], fit_labels, X[TEST], Y[TEST]
    whitened = sweep(X[FIT], Y[FIT], X[TEST], Y[TEST], betas=(0.0, 0.5, 1.0))["similarity"]
    a, b = (equalise(Subspaces.fit(v[FIT], fit_labels), *names)(v[TEST]) for v in (X, Y))
    expected = {
        ("cka", "raw"): MEASURES["cka"].of(X[TEST], Y[TEST]),
        ("cka", "centred"): whitened[0],
        ("cka", "whitened-0.5"): whitened[1],
        ("cka", "whitened"): whitened[2],
        ("cka", "removed"): similarity_without_subspace(*splits, easy),
        ("cka", "partial"): similarity_without_labels(*splits, STIMULI.test_labels, easy),
        ("rsa", "partial"): partial_rsa(rdm(X[TEST]), rdm(Y[TEST]), model_rdms({"easy": LABELS["easy"][TEST]})),
        ("rsa", "removed"): similarity_without_subspace(*splits, easy, measure="rsa"),
        ("rsa", "equalised"): MEASURES["rsa"].of(a, b),
    }
    methods = {(m.measure, m.correction): m for m in standard_methods(STIMULI, loud=easy, betas=(0.0, 0.5, 1.0))}
    assert len(methods) == 3 * 7
    for key, value in expected.items():
        sides = [methods[key].correct(v[FIT], v[TEST]) for v in (X, Y)]
        halves = methods[key].halves
        score = halves.join(halves.of_model(*sides[0]), halves.of_brain(*sides[1]))
        assert score == pytest.approx(value, rel=1e-9), key


# -- brains ----------------------------------------------------------------------------------------------------------


def test_without_noise_a_brain_is_a_linear_mixture_and_noise_has_its_size() -> None:
    units = np.random.default_rng(0).normal(size=(4000, 6))
    quiet = Recording(neurons=40, noise=0).of(units, np.random.default_rng(1))
    assert np.linalg.matrix_rank(quiet) == 6
    loud = Recording(neurons=40, noise=2).of(units, np.random.default_rng(1))
    added = (loud - quiet).var(axis=0)
    assert added.mean() == pytest.approx(4 * quiet.var(axis=0).mean(), rel=0.02)
    np.testing.assert_allclose(added, added.mean(), rtol=0.15)
    nothing = Recording(neurons=40, noise=math.inf).of(units, np.random.default_rng(1))
    assert nothing.var() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(nothing.T, units.T)[:40, 40:]).max() < 0.1


@pytest.mark.parametrize("mixing", [1, 2, 5, None])
def test_each_neuron_mixes_so_many_units(mixing: int | None) -> None:
    mixture = Recording(neurons=300, noise=0, mixing=mixing).of(np.eye(6), np.random.default_rng(0))
    assert (np.count_nonzero(mixture, axis=0) == (mixing or 6)).all()
    assert (np.count_nonzero(mixture, axis=1) > 0).all()


def test_bad_recordings_are_refused() -> None:
    for bad in ({"neurons": 1}, {"noise": -1.0}, {"noise": math.nan}, {"mixing": 0}):
        with pytest.raises(ConfigError):
            Recording(**bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="7 units cannot feed"):
        Recording(mixing=7).of(np.eye(6), np.random.default_rng(0))
    with pytest.raises(StatisticsError, match="no recorded neuron responds"):
        Recording().of(np.zeros((9, 6)), np.random.default_rng(0))


# -- recovery --------------------------------------------------------------------------------------------------------


def test_different_content_is_always_told_apart() -> None:
    """Where every condition's content is loud, measures of geometry find it, raw and equalised. (With the correlation
    distance they do not: it sees the networks' means, which in these differ from seed to seed.)"""
    for measure in ("rsa", "cka"):
        for correction in ("raw", "equalised"):
            assert rate(clear(), measure, correction) == 1, (measure, correction)


def test_encoding_cannot_tell_a_truth_from_what_contains_it() -> None:
    """`both` predicts easy-only brains as well as `easy` does but for the noise, and brains of its own alone."""
    scores = clear()
    assert rate(scores, "encoding", "raw", "both") == 1
    some = ranked(scores).query("measure == 'encoding' and correction == 'raw' and truth != 'both'")
    assert (some["margin"].abs() < 0.05).all()
    assert set(some["chosen"]) <= {"easy", "both", "hard"}


def test_with_the_feature_held_constant_those_that_hold_no_other_are_lost() -> None:
    for correction in ("removed", "partial"):
        assert rate(clear(), "cka", correction, "easy") < 1
    found = ranked(clear()).query("measure == 'cka' and correction == 'removed' and truth == 'hard'")
    assert found["margin"].abs().max() < 0.1  # nor are `hard` and `both` told apart


def test_without_signal_it_is_chance() -> None:
    """Brains that hold nothing of their truth: over all truths alike, one in four, whatever each measure prefers."""
    methods = [m for m in standard_methods(STIMULI, loud=["easy"]) if m.correction in ("raw", "whitened")]
    found = recovery(orthogonal(), STIMULI, methods, seed=1, draws=75, recording=Recording(neurons=10, noise=math.inf))
    everything = rates(found).query("truth == '*'")
    assert (everything["n"] == 300).all()
    assert (everything["chance"] == 0.25).all()
    assert ((everything["rate"] - 0.25).abs() < 3.5 * np.sqrt(0.25 * 0.75 / 300)).all()


def test_the_loud_feature_makes_raw_similarity_wrong_and_equalising_right() -> None:
    """The brain's network and the other of its condition compute the same, one with the first feature loud, one with the
    second: raw, each is closer to the networks that hold its loud one alone."""
    methods = [
        m
        for m in standard_methods(STIMULI, loud=["easy"], betas=(0.0,), distance="euclidean")
        if m.measure != "encoding" and m.correction in ("raw", "centred", "equalised")
    ]
    scores = recovery(misleading(), STIMULI, methods, seed=0, draws=10, recording=Recording(neurons=100, noise=0.2))
    for measure in ("rsa", "cka"):
        assert rate(scores, measure, "raw", "both") == 0
        assert rate(scores, measure, "centred", "both") == 0
        assert rate(scores, measure, "equalised", "both") == 1
        assert rate(scores, measure, "raw", "easy") == rate(scores, measure, "equalised", "easy") == 1
    lost = confusion(scores).query("measure == 'cka' and correction == 'raw' and truth == 'both'").set_index("chosen")
    assert lost["count"].to_dict() == {"both": 0, "easy": 5, "hard": 5, "tie": 0, "undefined": 0}
    gained = gains(scores).query("measure == 'cka' and correction == 'equalised' and truth == 'both'").iloc[0]
    assert (gained["gained"], gained["lost"], gained["before"], gained["after"]) == (10, 0, 0, 1)
    assert gained["p"] == pytest.approx(2 * 0.5**10)


def test_brain_and_candidates_are_of_different_seeds_and_all_are_used() -> None:
    scores = clear()
    assert (scores["network"] != scores["candidate_network"]).all()
    assert set(scores["network"]) == set(scores["candidate_network"]) == {0, 1, 2}
    for _, group in scores.groupby(["truth", "draw"]):
        assert (group.groupby("candidate")["candidate_network"].nunique() == 1).all()
        assert group["network"].nunique() == 1


def test_scores_repeat_and_do_not_depend_on_the_other_methods_or_truths() -> None:
    methods = standard_methods(STIMULI, loud=["easy"])
    keys = ["measure", "correction", "truth", "draw", "candidate"]
    settings = {"seed": 3, "draws": 2, "recording": Recording(neurons=20)}
    all_of_it = recovery(orthogonal(), STIMULI, methods, **settings)  # type: ignore[arg-type]
    again = recovery(orthogonal(), STIMULI, methods, **settings)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(all_of_it, again, check_exact=True)
    some = recovery(orthogonal(), STIMULI, methods[4:6], truths=["hard"], **settings)  # type: ignore[arg-type]
    both = some.merge(all_of_it, on=keys, suffixes=("", "_all"))
    assert len(both) == len(some) == 2 * 2 * 4
    assert (both["score"] == both["score_all"]).all()
    other = recovery(orthogonal(), STIMULI, methods, **{**settings, "seed": 4})  # type: ignore[arg-type]
    assert not np.allclose(other["score"], all_of_it["score"])


def test_every_truth_and_draw_has_its_own_mixture_and_noise() -> None:
    nets = [network(LABELS, {"easy": 3.0}, seed=j) for j in range(2)]
    methods = [Method("cka", "raw", raw, cka())]
    scores = recovery({"a": nets, "twin": nets}, STIMULI, methods, seed=0, draws=4)
    assert (
        scores["score"].round(9).value_counts() == 2
    ).all()  # the two candidates are one network, and nothing else is
    assert scores["score"].round(9).nunique() == 2 * 4


def test_gains_count_the_brains_on_which_two_corrections_part() -> None:
    """Right before and after: 3, before alone: 1, after alone: 6, neither: 2."""
    before, after = [1] * 3 + [1] + [0] * 6 + [0] * 2, [1] * 3 + [0] + [1] * 6 + [0] * 2
    rows = [
        ("cka", correction, "a", 0, draw, candidate, 1, float((candidate == "a") == bool(right)), "")
        for correction, of in (("raw", before), ("new", after))
        for draw, right in enumerate(of)
        for candidate in ("a", "b")
    ]
    columns = ["measure", "correction", "truth", "network", "draw", "candidate", "candidate_network", "score", "reason"]
    found = gains(pd.DataFrame(rows, columns=columns))
    assert found["truth"].tolist() == ["*", "a"]
    for _, line in found.iterrows():
        assert (line["n"], line["gained"], line["lost"], line["correction"]) == (12, 6, 1, "new")
        assert (line["before"], line["after"]) == (4 / 12, 9 / 12)
        assert line["p"] == pytest.approx(2 * 8 / 2**7)


def test_test_stimuli_do_not_enter_any_fit() -> None:
    """What a method fits is the same when the test stimuli, and their labels where it may not use them, change."""
    for method in standard_methods(STIMULI, loud=["easy"]):
        fit, test = method.correct(X[FIT], X[TEST])
        if method.correction == "partial" and method.measure != "rsa":
            continue
        np.testing.assert_allclose(method.correct(X[FIT], X[TEST][:7])[0], fit, rtol=1e-12)
        np.testing.assert_allclose(method.correct(X[FIT], X[TEST][:7])[1], test[:7], rtol=1e-9, atol=1e-12)
    other = {name: np.where(np.isin(np.arange(200), TEST), 1 - v, v) for name, v in LABELS.items()}
    flipped = standard_methods(Stimuli(other, FIT, TEST), loud=["easy"])
    for a, b in zip(standard_methods(STIMULI, loud=["easy"]), flipped, strict=True):
        if a.correction != "partial":
            np.testing.assert_array_equal(a.correct(X[FIT], X[TEST])[1], b.correct(X[FIT], X[TEST])[1])


def test_a_tie_is_a_failure_and_so_is_a_score_that_is_undefined() -> None:
    same = network(LABELS, {"easy": 3.0}, seed=0)
    twins = {"a": [same, same], "b": [same, same], "c": [same[:, :1] * 0 + 1.0 + 0 * same, same]}
    methods = [Method("cka", "raw", raw, cka())]
    scores = recovery(
        twins, STIMULI, methods, seed=0, draws=2, truths=["a"], recording=Recording(neurons=20, noise=0.5)
    )
    chosen = ranked(scores).set_index("network")["chosen"]
    assert chosen.to_dict() == {0: "tie", 1: "undefined"}  # brain 0 meets network 1 of c, brain 1 the constant one
    found = rates(scores).query("truth == '*'").iloc[0]
    assert (found["right"], found["n"], found["ties"], found["undefined"]) == (0, 2, 1, 1)
    bad = scores[scores["score"].isna()]
    assert bad["reason"].str.contains("candidate: x is the same for every stimulus").all()
    assert (scores.dropna()["reason"] == "").all()


def test_rates_have_wilsons_interval_and_count_networks() -> None:
    found = rates(clear())
    some = found[(found["right"] > 0) & (found["right"] < found["n"])]
    assert len(some)
    low, high = wilson(some["right"], some["n"])
    np.testing.assert_allclose(some["low"], low)
    np.testing.assert_allclose(some["high"], high)
    sure = found[found["right"] == found["n"]]
    assert (sure["low"] < 1).all()
    assert (found["n"] == np.where(found["truth"] == "*", 18, 6)).all()
    assert (found["networks"] == np.where(found["truth"] == "*", 9, 3)).all()
    table = confusion(clear())
    assert (table.groupby(["measure", "correction", "truth"])["count"].sum() == 6).all()
    assert len(table) == 15 * 3 * 5


def test_bad_input_to_recovery_is_refused() -> None:
    networks, methods = orthogonal(), standard_methods(STIMULI, loud=["easy"])
    with pytest.raises(StatisticsError, match="differ in seed"):
        recovery({**networks, "easy": networks["easy"][:1]}, STIMULI, methods, seed=0)
    with pytest.raises(ConfigError, match="two or more conditions"):
        recovery({"easy": networks["easy"]}, STIMULI, methods, seed=0)
    with pytest.raises(StatisticsError, match="199 stimuli and there are labels of 200"):
        recovery({**networks, "hard": [x[1:] for x in networks["hard"]]}, STIMULI, methods, seed=0)
    with pytest.raises(ConfigError, match="condition"):
        recovery(networks, STIMULI, methods, seed=0, truths=["esay"])
    with pytest.raises(ConfigError, match="one draw"):
        recovery(networks, STIMULI, methods, seed=0, draws=0)
    with pytest.raises(ConfigError, match="share rows"):
        Stimuli(LABELS, np.arange(20), np.arange(19, 40))
    with pytest.raises(StatisticsError, match="needs 10 or more"):
        Stimuli(LABELS, np.arange(9), np.arange(19, 40))
    with pytest.raises(ConfigError, match="from 0 to 199"):
        Stimuli(LABELS, np.arange(20), np.arange(190, 210))
    with pytest.raises(StatisticsError, match="there are 200"):
        Stimuli.draw(LABELS, fit=150, test=60, seed=0)
    with pytest.raises(ConfigError, match="label"):
        standard_methods(STIMULI, loud=["eazy"])
    with pytest.raises(ConfigError, match="no loud features"):
        standard_methods(STIMULI, loud=[])
    flat = Stimuli({"easy": np.where(np.isin(np.arange(200), TEST), LABELS["easy"], 0)}, FIT, TEST)
    constant = standard_methods(flat, loud=["easy"])
    scores = recovery(networks, flat, constant, seed=0, draws=1, truths=["easy"])
    assert scores[scores["correction"] == "removed"]["reason"].str.contains("constant").all()
    with pytest.raises(EvidenceError, match="no scores of correction"):
        gains(clear(), before="rawest")
    with pytest.raises(EvidenceError, match="several recoveries are mixed"):
        ranked(pd.concat([clear(), clear()]))
    with pytest.raises(EvidenceError, match="columns score"):
        ranked(clear().drop(columns="score"))
