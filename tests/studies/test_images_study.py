"""The images study: what settings it refuses, its measures against plain computations, and a whole small run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from heldout.errors import ConfigError
from heldout.evidence import read_estimates
from heldout.runs import Run, execute
from heldout.statistics.intervals import t_interval
from heldout.studies.base import SMOKE
from heldout.studies.images import APART, LEAST, STUDY, SUMMARY, ImagesConfig, settings_from, train_name
from heldout.studies.images_estimates import EVERY, GAP, called, differences, estimates, gaps, gate, paired, site
from heldout.studies.images_measure import INITIAL, MEAN, POSITIONS, TRAINED, gather, loudness, table
from heldout.studies.images_page import _turn
from heldout.studies.images_train import answered, built
from heldout.tasks.images import Images

CONFIG, _ = STUDY.configure(SMOKE)
assert isinstance(CONFIG, ImagesConfig)
BUILT: dict[str, Any] = {"task": CONFIG.task(), "network": CONFIG.networks()["residual-8"], "seed": 100}


@pytest.fixture(scope="module")
def task() -> Images:
    return Images(settings_from(CONFIG.task()), seed=100, keep=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    manifest = {"config": CONFIG.model_dump(mode="json"), "not_judged": "smoke"}
    out = tmp_path_factory.mktemp("images") / "run"
    return execute("images", STUDY.steps(CONFIG, "smoke"), out=out, engine="inline", device="cpu", manifest=manifest)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depths": [9]}, "depths.0: Input should be 8, 10 or 18"),
        ({"depths": [8, 8]}, "name each once"),
        ({"colours": ["red", "gren"]}, "unknown colour 'gren'; nearest: green"),
        ({"outputs": ["shape"]}, "outputs must have colour and shape"),
        ({"held_out": 7}, "held_out must be 0, or 2 or more and a divisor"),
        ({"training_steps": 0}, "training_steps: Input should be greater than 0"),
        ({"widths": 8}, "unknown field 'widths'; nearest: width"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STUDY.configure("laptop", given)


def test_networks_of_a_seed_differ_in_the_connection_alone() -> None:
    for preset in STUDY.presets:
        config, _ = STUDY.configure(preset)
        assert isinstance(config, ImagesConfig)
        for depth in config.depths:
            plain, residual = (config.networks()[f"{kind}-{depth}"] for kind in ("plain", "residual"))
            assert plain | {"residual": True} == residual
        by_name = {step.name: step for step in STUDY.steps(config, "")}
        mine, its = (by_name[train_name(name, 1)].settings for name in list(config.networks())[:2])
        assert {k: v for k, v in mine.items() if k != "network"} == {k: v for k, v in its.items() if k != "network"}
    twin = built(BUILT | {"network": CONFIG.networks()["plain-8"]}).state_dict()
    assert all(torch.equal(twin[name], value) for name, value in built(BUILT).state_dict().items())


def test_moments_of_both_views_are_those_of_the_maps(task: Images) -> None:
    network = built(BUILT).eval()
    design = np.asarray(table(task, "val")["shape"], dtype=float)[:, None]
    found = gather(network, task, "val", design, "cpu")
    with torch.no_grad():
        maps = network.maps(task.splits["val"].items.take(np.arange(160)).inputs)
    for stage, own in enumerate(maps):
        rows = own.double().permute(0, 2, 3, 1).reshape(-1, own.shape[1])
        places = len(rows) // 160
        assert found[stage, POSITIONS].n == len(rows)
        assert found[stage, POSITIONS].variances == pytest.approx(rows.var(0, correction=0).numpy(), rel=1e-6)
        both = np.cov(np.repeat(design[:, 0], places), rows[:, 0], bias=True)[0, 1]
        assert found[stage, POSITIONS].bx[0, 0] == pytest.approx(both, rel=1e-6, abs=1e-12)
        means = own.double().mean((2, 3))
        assert found[stage, MEAN].variances == pytest.approx(means.var(0, correction=0).numpy(), rel=1e-5)
    only = gather(network, task, "val", design, "cpu", only=3)
    assert set(only) == {(3, POSITIONS), (3, MEAN)}
    assert np.array_equal(only[3, MEAN].xx, found[3, MEAN].xx)


def test_variance_explained_is_that_of_class_means_fitted_on_val(task: Images) -> None:
    network = built(BUILT).eval()
    values = {
        (v.split, v.stage, v.view, v.feature): v.value
        for v in loudness(network, task, TRAINED, draws=3, seed=0, device="cpu")
        if v.quantity == "variance_explained"
    }
    with torch.no_grad():
        x = {
            name: network.maps(task.splits[name].items.take(np.arange(160)).inputs)[-1].double().mean((2, 3)).numpy()
            for name in ("val", "test", "small")
        }
    for split in ("test", "small"):
        for i, feature in enumerate(("shape", "texture", "colour")):
            val, own = task.values["val"][:, i], task.values[split][:, i]
            means = np.stack([x["val"][val == k].mean(0) for k in range(val.max() + 1)])
            left, whole = ((x[split] - m) ** 2 for m in (means[own], x["val"].mean(0)))
            assert values[split, 3, MEAN, feature] == pytest.approx(1 - left.sum() / whole.sum(), abs=1e-5)
    assert {v[1] for v in values if v[0] == "test"} == {0, 1, 2, 3}
    assert {v[1] for v in values if v[0] == "turned"} == {3}
    initial = {v.split for v in loudness(network, task, INITIAL, draws=3, seed=0, device="cpu")}
    assert initial == {"test"}


def test_answers_are_the_networks_own(task: Images) -> None:
    network = built(BUILT).eval()
    right, losses = answered(network, task, "test", "cpu")
    batch = task.splits["test"].items.take(np.arange(160))
    assert batch.targets is not None
    with torch.no_grad():
        logits = network(batch.inputs).double()
    for f, own in enumerate((logits[:, :4], logits[:, 4:])):
        assert torch.equal(right[:, f], (own.argmax(1) == batch.targets[:, f]).double())
        loss = torch.nn.functional.cross_entropy(own, batch.targets[:, f], reduction="none")
        torch.testing.assert_close(losses[:, f], loss, rtol=1e-4, atol=1e-5)


def _values(loud: dict[str, dict[str, list[float]]], right: dict[str, list[float]] | None = None) -> pd.DataFrame:
    """Planted values: network -> feature -> variance explained by seed, and accuracies of plain-10 by seed."""
    place = {"when": TRAINED, "split": "test", "stage": 4, "view": MEAN, "quantity": "variance_explained"}
    rows = [
        place | {"network": n, "feature": f, "seed": s, "value": v}
        for n, by_feature in loud.items()
        for f, values in by_feature.items()
        for s, v in enumerate(values)
    ]
    for feature, values in (right or {}).items():
        answers = place | {"stage": -1, "view": "", "network": "plain-10", "feature": feature}
        rows += [answers | {"quantity": "accuracy", "seed": s, "value": v} for s, v in enumerate(values)]
        rows += [answers | {"quantity": "cross_entropy", "seed": s, "value": 0.01} for s in range(len(values))]
    return pd.DataFrame(rows)


LOUD = {
    "plain-10": {"colour": [0.5, 0.6, 0.55], "shape": [0.2, 0.3, 0.1], "texture": [0.0, 0.0, 0.0]},
    "residual-10": {"colour": [0.4, 0.3, 0.35], "shape": [0.3, 0.4, 0.45], "texture": [0.0, 0.0, 0.0]},
}


def test_gaps_and_differences_are_paired_by_seed() -> None:
    values = _values(LOUD)
    values = pd.concat([values, gaps(values)], ignore_index=True)
    values = pd.concat([values, differences(values)], ignore_index=True)
    found = {(e.network, e.quantity): e for e in estimates(values, 3)}
    plain, residual = np.array([0.3, 0.3, 0.45]), np.array([0.1, -0.1, -0.1])
    both = paired("plain-10")
    for network, expected in (("plain-10", plain), ("residual-10", residual), (both, plain - residual)):
        e = found[network, GAP]
        assert e.value == pytest.approx(expected.mean())
        assert (e.low, e.high) == pytest.approx(t_interval(expected))
        assert (e.seeds, e.n, e.site) == (3, 3, "stage 4, mean over positions")
    assert found[both, "variance_explained:colour"].value == pytest.approx(0.2)
    assert both == "plain-10 minus residual-10"
    assert called("plain-10", INITIAL) == "plain-10, untrained"
    assert [site(0, POSITIONS), site(-1, "")] == ["stem, each position", ""]


def test_what_a_seed_lacks_has_a_reason() -> None:
    values = _values({"plain-10": {"colour": [0.5, 0.6], "shape": [0.2]}})
    values = pd.concat([values, gaps(values)], ignore_index=True)
    found = {e.quantity: e for e in estimates(values, 2)}
    assert found["variance_explained:colour"].value == pytest.approx(0.55)
    for quantity in ("variance_explained:shape", GAP):
        assert np.isnan(found[quantity].value)
        assert found[quantity].reason == "not estimable in 1 of 2 seeds: the maps do not vary there"


@pytest.mark.parametrize(
    ("shape", "passed", "said"),
    [
        ([0.995, 0.992], True, "2 of 2 seeds; least accuracy 0.9920 (shape, seed 1)"),
        ([0.995, 0.98], False, "1 of 2 seeds"),
        ([0.94, 0.995], False, "outputs at most 0.0600 apart"),
    ],
)
def test_the_gate_needs_every_output_of_every_seed(shape: list[float], passed: bool, said: str) -> None:
    found = gate(_values(LOUD, {"shape": shape, "colour": [1.0, 1.0]}), "plain-10")
    assert found["passed"] is passed
    assert said in found["value"]
    assert (LEAST, APART) == (0.95, 0.01)


def test_a_whole_small_run(run: Run) -> None:
    folder = run.output(SUMMARY)
    found = read_estimates(folder / "estimates.parquet")
    assert found["reason"].eq("").equals(found["value"].notna())
    assert set(found["network"]) == {
        "plain-8",
        "residual-8",
        "plain-8, untrained",
        "residual-8, untrained",
        "plain-8 minus residual-8",
        "plain-8 minus residual-8, untrained",
    }
    here = found[(found["site"] == "stage 3, mean over positions") & (found["split"] == "test")]
    values = here.set_index(["network", "quantity"])["value"]
    gap = values["plain-8"]["variance_explained:colour"] - values["plain-8"]["variance_explained:shape"]
    assert values["plain-8"][GAP] == pytest.approx(gap)
    twins = values["plain-8"][GAP] - values["residual-8"][GAP]
    assert values["plain-8 minus residual-8"][GAP] == pytest.approx(twins)
    for feature in ("shape", "texture", "colour"):
        low, high = (values["plain-8"][f"band_{end}:{feature}"] for end in ("low", "high"))
        assert low <= values["plain-8"][f"variance_explained:{feature}"] <= high
    every = pd.read_parquet(folder / EVERY)
    assert not every.duplicated(["network", "seed", "when", "split", "stage", "view", "quantity", "feature"]).any()


def test_its_page_shows_every_part_and_judges_nothing(run: Run) -> None:
    page = STUDY.page(run)
    assert not page.judgements
    assert not page.edited
    assert page.summary[0].startswith("Exploratory: this study makes no claim")
    figures = {figure.id: figure for section in page.sections for figure in section.figures}
    assert list(figures) == ["pooling", "gap", "along", "positions", "beyond", "accuracy", "pictures", "training"]
    assert set(figures["gap"].data["network"]) >= {"plain-8 minus residual-8", "residual-8, untrained"}
    assert set(figures["beyond"].data["split"]) == {"test", "combinations", "turned", "small"}
    tables = {table.title: table for section in page.sections for table in section.tables}
    assert len(tables["The gap, seed by seed"].rows) == 2
    assert len(tables["What the networks answer"].rows) == 5 * 2 * 2
    assert [row[0] for row in tables["Splits"].rows] == ["train", "val", "test", "combinations", "turned", "small"]


def test_the_same_settings_give_the_same_numbers(run: Run, tmp_path: Path) -> None:
    name = train_name("plain-8", 1)
    step = next(s for s in STUDY.steps(CONFIG, "") if s.name == name)
    again = execute("images", [step], out=tmp_path / "again", engine="inline", device="cpu", manifest={})
    for file in ("weights.safetensors", "history.parquet"):
        assert (again.output(name) / file).read_bytes() == (run.output(name) / file).read_bytes()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "without the connections the difference is larger: 20.0 points [10.0, 30.0]."),
        (-0.5, -0.3, "without the connections the difference is smaller: -40.0 points [-50.0, -30.0]."),
        (-0.1, 0.3, "the difference moves by 10.0 points [-10.0, 30.0], which may be none."),
        (np.nan, np.nan, "the difference moves by 10.0 points, which may be none."),
    ],
)
def test_the_page_says_no_more_of_a_change_than_its_interval(low: float, high: float, said: str) -> None:
    value = 0.1 if np.isnan(low) else (low + high) / 2
    assert _turn(pd.Series({"value": value, "low": low, "high": high})) == said
