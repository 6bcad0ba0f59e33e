"""Centroids against NumPy, and spectra of circles whose energies are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.equivalence.spectrum import fourier_energy, spectrum
from heldout.errors import StatisticsError


def rows(n: int = 500, classes: int = 7, width: int = 5, *, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64) + torch.sin(labels.double())[:, None]
    return x + shift, labels


def accumulated(x: torch.Tensor, labels: torch.Tensor, classes: int, chunk: int) -> Centroids:
    found = Centroids(classes)
    for start in range(0, len(x), chunk):
        found.update(x[start : start + chunk], labels[start : start + chunk])
    return found


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_streamed_centroids_are_those_of_all_rows(shift: float) -> None:
    x, labels = rows(shift=shift)
    found = accumulated(x, labels, 8, chunk=13)  # class 7 is empty
    for c in range(7):
        mine = x[labels == c]
        assert found.counts[c] == len(mine)
        torch.testing.assert_close(found.means[c], mine.mean(0), rtol=1e-12, atol=1e-12)
        assert float(found.within[c]) == pytest.approx(float((mine - mine.mean(0)).square().sum()), rel=1e-8)
    torch.testing.assert_close(found.grand_mean, x.mean(0), rtol=1e-12, atol=1e-12)
    total = float((x - x.mean(0)).square().sum())
    between = sum(float((labels == c).sum() * (x[labels == c].mean(0) - x.mean(0)).square().sum()) for c in range(7))
    assert found.between_share == pytest.approx(between / total, rel=1e-7)
    assert (found.deviations[7] == 0).all()


def test_shards_merge_to_one_stream() -> None:
    x, labels = rows()
    whole, left, right = (accumulated(x[s], labels[s], 7, 50) for s in (slice(None), slice(200), slice(200, None)))
    left.merge(right)
    left.merge(Centroids(7))
    torch.testing.assert_close(left.means, whole.means)
    torch.testing.assert_close(left.within, whole.within)
    assert torch.equal(left.counts, whole.counts)


def test_shares_without_structure() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(100, 4)))
    raw, adjusted = [], []
    for _ in range(150):
        found = Centroids(10)
        found.update(x, torch.from_numpy(rng.permutation(np.arange(100) % 10)))
        raw.append(found.between_share)
        adjusted.append(found.adjusted_share)
    assert np.mean(raw) == pytest.approx(9 / 99, abs=0.01)  # exactly (C - 1) / (N - 1) in expectation
    assert abs(np.mean(adjusted)) < 0.01
    # the ratio of unbiased variances: within classes over all
    unbiased = float(found.within.sum()) / 90 / (x.var(dim=0).sum())
    assert found.adjusted_share == pytest.approx(1 - float(unbiased), rel=1e-9)
    alone = Centroids(2)
    alone.update(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))
    assert np.isnan(alone.between_share)


def circle(m: int, k: int, radius: float = 1.0) -> np.ndarray:
    angle = 2 * np.pi * k * np.arange(m) / m
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("m", [2, 5, 7, 10, 12])
def test_a_circle_of_frequency_k_has_all_its_energy_at_k(m: int) -> None:
    for k in range(1, m // 2 + 1):
        energy = fourier_energy(circle(m, k) + 100)
        assert energy / energy.sum() == pytest.approx(np.eye(m // 2)[k - 1], abs=1e-12)


@pytest.mark.parametrize("m", [2, 3, 9, 10])
def test_parseval_and_agreement_with_the_definition(m: int) -> None:
    means = np.random.default_rng(m).normal(size=(m, 6)) + 5
    energy = fourier_energy(means)
    assert energy.sum() == pytest.approx(m * ((means - means.mean(0)) ** 2).sum(), rel=1e-12)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(1, m), np.arange(m)) / m)
    power = (np.abs(turns @ means) ** 2).sum(1)  # k = 1 ... m - 1
    folded = [sum(power[k - 1] for k in {j, m - j}) for j in range(1, m // 2 + 1)]
    assert energy == pytest.approx(np.array(folded), rel=1e-9)


def test_two_harmonics_share_their_energy_as_their_radii_squared() -> None:
    found = Centroids(10)
    means = np.concatenate([circle(10, 1, 1.0), circle(10, 2, np.sqrt(2))], axis=1)
    labels = torch.arange(10).repeat(3)
    found.update(torch.from_numpy(means)[labels], labels)
    result = spectrum(found)
    assert result.energy == pytest.approx([1 / 3, 2 / 3, 0, 0, 0], abs=1e-12)
    assert result.corrected == pytest.approx(result.energy, abs=1e-12)
    assert result.noise == pytest.approx(0, abs=1e-12)
    assert result.leading(2) == pytest.approx(1)
    assert result.n == 3
    assert result.frequencies.tolist() == [1, 2, 3, 4, 5]


def test_the_correction_takes_sampling_error_away() -> None:
    rng = np.random.default_rng(1)
    truth = np.concatenate([circle(10, 1), np.zeros((10, 18))], axis=1)
    raw, corrected, noise = [], [], []
    for _ in range(80):
        labels = np.arange(60) % 10
        x = truth[labels] + 0.5 * rng.normal(size=(60, 20))
        found = Centroids(10)
        found.update(torch.from_numpy(x), torch.from_numpy(labels))
        result = spectrum(found)
        assert result.energy.sum() == pytest.approx(1)
        assert result.corrected.sum() == pytest.approx(1)
        raw.append(result.energy)
        corrected.append(result.corrected)
        noise.append(result.noise)
    # error per centroid 20 * .25 / 6; energies k < 5: 20 error, scatter m * 10 of the circle, (m - 1) * 10 of noise
    error = 20 * 0.25 / 6
    assert np.mean(noise) == pytest.approx(90 * error / (100 + 90 * error), abs=0.02)
    assert np.mean(raw, axis=0)[3] == pytest.approx(20 * error / (100 + 90 * error), abs=0.01)
    assert np.mean(corrected, axis=0) == pytest.approx([1, 0, 0, 0, 0], abs=0.03)


def test_bad_classes_are_named() -> None:
    with pytest.raises(StatisticsError, match="two classes"):
        Centroids(1)
    found = Centroids(3)
    with pytest.raises(StatisticsError, match="no activations"):
        _ = found.means
    with pytest.raises(StatisticsError, match="0 to 2 are expected"):
        found.update(torch.zeros(2, 4), torch.tensor([0, 3]))
    found.update(torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(StatisticsError, match="every class needs 2"):
        spectrum(found)
    found.update(torch.zeros(4, 4), torch.tensor([0, 1, 2, 2]))
    with pytest.raises(StatisticsError, match="coincide"):
        spectrum(found)
    with pytest.raises(StatisticsError, match="cannot join"):
        found.update(torch.zeros(1, 5), torch.tensor([0]))
    with pytest.raises(StatisticsError, match="two centroids"):
        fourier_energy(np.zeros((1, 4)))
