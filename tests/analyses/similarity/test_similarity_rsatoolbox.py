"""RDMs, comparators, ceilings and the dual bootstrap give rsatoolbox's numbers, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.compare import Comparator, compare
from heldout.analyses.similarity.dual import Draws, combined, of_counts, variances
from heldout.analyses.similarity.noise import noise_ceiling
from heldout.analyses.similarity.rdm import crossnobis, rdm

THEIRS: dict[Comparator, str] = {"pearson": "corr", "spearman": "spearman", "kendall": "tau-a", "cosine": "cosine"}


@pytest.fixture(autouse=True)
def their_warnings() -> Iterator[None]:
    """What they warn of (averaged ranks, their own deprecated calls) is no failure of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def toolbox() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rsatoolbox", reason="rsatoolbox is not installed")


def activations(n: int, s: int) -> tuple[Floats, list[Floats]]:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 6))
    return x, [x + rng.normal(size=(n, 6)) for _ in range(s)]


def test_distances(toolbox: Any) -> None:
    x, repeats = activations(25, 3)

    def theirs(method: str) -> Floats:
        return toolbox.rdm.calc_rdm(toolbox.data.Dataset(x), method=method).dissimilarities[0]

    np.testing.assert_allclose(rdm(x), theirs("correlation"), atol=1e-12)
    # What it calls Euclidean is the mean over units of squared differences.
    np.testing.assert_allclose(rdm(x, "squared_euclidean") / 6, theirs("euclidean"), atol=1e-12)
    data = toolbox.data.Dataset(
        np.concatenate(repeats),
        obs_descriptors={"stimulus": np.tile(np.arange(25), 3), "run": np.repeat([0, 1, 2], 25)},
    )
    found = toolbox.rdm.calc_rdm(data, method="crossnobis", descriptor="stimulus", cv_descriptor="run")
    np.testing.assert_allclose(crossnobis(repeats), found.dissimilarities[0], atol=1e-12)


@pytest.mark.parametrize("by", THEIRS)
def test_comparators_and_ceilings(toolbox: Any, by: Comparator) -> None:
    x, ys = activations(12, 5)
    a, b = np.round(rdm(x), 1), np.stack([rdm(y) for y in ys])  # with ties
    rdms = toolbox.rdm.RDMs
    theirs = toolbox.rdm.compare(rdms(a[None]), rdms(b), method=THEIRS[by])
    np.testing.assert_allclose([[compare(a, r, by) for r in b]], theirs, atol=1e-12)
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling

    np.testing.assert_allclose(noise_ceiling(b, by), boot_noise_ceiling(rdms(b), method=THEIRS[by]), atol=1e-12)


@pytest.mark.parametrize("by", THEIRS)
def test_dual_bootstrap(toolbox: Any, by: Comparator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the very samples it draws: every value, every ceiling, the variance and the degrees of freedom."""
    from rsatoolbox.inference import evaluate

    x, ys = activations(12, 5)
    a, b = rdm(x), np.stack([rdm(y) for y in ys])
    drawn = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        sample = their_sample(*args, **kwargs)
        drawn.append(sample[1:])
        return sample

    their_sample = evaluate.bootstrap_sample
    monkeypatch.setattr(evaluate, "bootstrap_sample", recorded)
    np.random.seed(0)  # noqa: NPY002 - theirs draws from the global generator
    model = toolbox.model.ModelFixed("model", a)
    theirs = toolbox.inference.eval_dual_bootstrap(model, toolbox.rdm.RDMs(b), method=THEIRS[by], N=20)
    stimuli, of_b = (
        np.stack([np.bincount(sample[k], minlength=size) for sample in drawn]).astype(float)
        for k, size in ((1, 12), (0, 5))
    )
    ours = of_counts(a[None], b, by, stimuli, np.ones((20, 1)), of_b, ceilings=True)
    assert isinstance(ours, Draws)
    np.testing.assert_allclose(ours.values, theirs.evaluations[:, 0, 0, 0], atol=1e-12)
    if by in ("pearson", "cosine"):
        several = (of_b > 0).sum(axis=1) > 1  # from a draw of one subject they leave nobody out, and get 1
        np.testing.assert_allclose(ours.lower[several], theirs.noise_ceiling[0][several, 0], atol=1e-12)
        np.testing.assert_allclose(ours.upper, theirs.noise_ceiling[1][:, 0], atol=1e-12)
    assert combined(variances(ours.values), subjects=5, stimuli=12) == pytest.approx(theirs.model_var[0], rel=1e-9)
    assert theirs.dof == 4
