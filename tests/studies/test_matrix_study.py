"""The matrix: what it lists, what it shares, and that its cells say what the analyses behind them say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heldout.errors import ConfigError
from heldout.figures.grid_figure import FULL, Square, grid
from heldout.report.render import render
from heldout.runs import Run, execute
from heldout.runs.steps import check_steps, step_keys
from heldout.statistics.rule import mean_test
from heldout.statistics.verdict import Finding, Judgement, judge
from heldout.studies.audited import CLAIMS
from heldout.studies.base import SMOKE, find_study
from heldout.studies.matrix import STUDY, MatrixConfig, cells
from heldout.studies.matrix_activations import spread
from heldout.studies.matrix_claims import CLAIMED, claim_of, claims, step_names
from heldout.studies.matrix_columns import COLUMNS, registered, registration
from heldout.studies.matrix_evidence import Evidence
from heldout.studies.matrix_judge import evidence_of, finding_of
from heldout.studies.matrix_page import matrix_page
from heldout.studies.matrix_rows import ROWS, study_config, study_steps

LIGHT: dict[str, Any] = {"rows": ["digits", "features", "dyck", "arithmetic", "nuclear"]}  # no corpus is looked at
SMALL: dict[str, Any] = {
    "rows": ["digits", "similarity", "modular"],
    "columns": ["degeneracy", "removal", "rule", "geometry"],
}


def keys(steps: Any) -> dict[str, str]:
    return step_keys(check_steps(steps))


def test_networks_are_those_of_their_studies() -> None:
    config, _ = STUDY.configure(SMOKE)
    assert isinstance(config, MatrixConfig)
    own = keys(STUDY.steps(config, ""))
    for study in {row.study for row in ROWS.values()}:
        theirs = find_study(study)
        same = study_config(study, config.networks, config.seeds, config.first_seed)
        every = keys(theirs.steps(same, ""))
        shared = own.keys() & every.keys()
        assert any("-train" in name for name in shared)
        assert all(own[name] == every[name] for name in shared)
    assert len(cells(config)) == sum(name.startswith("matrix-") for name in own) - 1


def test_every_cell_has_an_estimand_or_a_reason_and_the_registration_sees_each_word() -> None:
    every = registered()
    assert len(every) == len(ROWS) * len(COLUMNS)
    assert all(bool(cell.get("absent")) != bool(cell.get("estimand")) for cell in every)
    assert all(cell["null"] and cell["unit"] for cell in every if "absent" not in cell)
    assert {(c["row"], c["column"]) for c in every if c.get("claim")} == set(CLAIMED)
    before = registration()
    column = COLUMNS["similarity"]
    object.__setattr__(column, "null", "another null")
    try:
        assert registration() != before
    finally:
        object.__setattr__(column, "null", "stimuli of one network permuted")
    assert registration() == before


def test_an_estimand_and_a_setting_change_the_cells_that_read_them_and_retrain_nothing() -> None:
    def changed(**given: Any) -> set[str]:
        one, other = (keys(STUDY.steps(STUDY.configure(SMOKE, LIGHT | g)[0], "")) for g in ({}, given))
        return {name for name in one if one[name] != other[name]}

    compared = changed(permutations=41)
    assert compared - {"matrix-judge"} == {
        f"matrix-{row}-{column}"
        for row in LIGHT["rows"]
        for column in ("features", "similarity", "geometry")
        if not COLUMNS[column].absent(row) and (row, column) not in CLAIMED
    }
    ranked = changed(ranks=[4])
    assert ranked - {"matrix-judge"} == {
        f"matrix-{row}-faithfulness" for row in LIGHT["rows"] if (row, "faithfulness") not in CLAIMED
    }


def test_claims_are_the_studies_own_and_none_is_made_here() -> None:
    for claimed, claim in zip(CLAIMED.values(), claims(), strict=True):
        assert claim in find_study(claimed.study).claims()
        names = step_names(claimed, [0, 1], study_steps(claimed.study, study_config(claimed.study, SMOKE, 2, 0)))
        assert len(names) >= len(claimed.steps)


@pytest.mark.parametrize(("field", "value"), [("rows", ["digit"]), ("columns", ["rules"]), ("rows", ["dyck", "dyck"])])
def test_unknown_and_repeated_names_are_refused(field: str, value: list[str]) -> None:
    with pytest.raises(ConfigError, match=field):
        STUDY.configure(SMOKE, {field: value})


def test_a_finding_survives_being_a_cell() -> None:
    cell = ("nuclear", "geometry")
    claim = claim_of(CLAIMED[cell])
    test = mean_test([0.3, 0.4, 0.5, 0.4, 0.3], unit_variance=0.0, n_clusters=None, delta=claim.delta)
    gates = tuple(_gate(name) for name in claim.gates)
    before = Finding(claim, {"": test}, gates)
    evidence = evidence_of(before)
    after = finding_of(*cell, Evidence(**json.loads(json.dumps(vars(evidence)))))
    assert judge([before]) == judge([after])
    assert judge([after])[0].verdict == "supported"
    assert (evidence.value, evidence.low, evidence.high) == (test.value, test.low, test.high)
    failed = Finding(claim, {"": test}, tuple(_gate(name, False) for name in claim.gates))
    assert judge([finding_of(*cell, evidence_of(failed))])[0].verdict == "not judged"
    without = evidence_of(Finding(claim, {}, gates, reason="no edge is needed"))
    assert without.reason == "no edge is needed"
    assert math.isnan(without.value)


def _gate(name: str, passed: bool = True) -> Any:
    from heldout.statistics.claims import Gate

    return Gate(name, passed, "as found")


def test_a_claim_of_several_parts_shows_the_one_that_decides_it() -> None:
    cell = ("similarity", "similarity")
    claim = claim_of(CLAIMED[cell])
    assert claim.kind == "existence"

    def part(values: list[float]) -> Any:
        return mean_test(values, unit_variance=1e-6, n_clusters=100, delta=claim.delta)

    parts = {"sgd": part([0.0, 0.01, 0.0, -0.01, 0.0]), "adam": part([0.2, 0.21, 0.19, 0.2, 0.2])}
    before = Finding(claim, parts, tuple(_gate(name) for name in claim.gates))
    evidence = evidence_of(before)
    assert evidence.value == pytest.approx(0.2)
    assert [table["title"] for table in evidence.tables] == ["Parts", "Gates"]
    assert "decided by adam" in evidence.tables[0]["caption"]
    assert judge([finding_of(*cell, evidence)]) == judge([before])


def test_effective_dimension_of_a_known_covariance() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 6))
    rows = np.linalg.qr(rows - rows.mean(axis=0))[0] * np.array([2.0, 2.0, 1.0, 0.0, 0.0, 0.0])  # centred, orthogonal
    value, width = spread(rows)
    assert width == 6
    assert value == pytest.approx(9**2 / (16 + 16 + 1), rel=1e-12)  # variances 4, 4, 1


# -- the figure --------------------------------------------------------------------------------------------------------


def test_a_square_is_coloured_only_where_its_interval_excludes_its_null() -> None:
    assert Square(0.5, 0.4, 0.6, 0.0).strength == pytest.approx(FULL)
    assert Square(0.5, 0.3, 0.7, 0.0).strength == pytest.approx(2.5)
    assert Square(-0.5, -0.7, -0.3, 0.0).strength == pytest.approx(-2.5)
    assert Square(0.1, -0.1, 0.3, 0.0).strength == 0
    assert Square(0.1, 0.0, 0.2, 0.0).strength == 0  # touches
    assert Square(1.0, 1.0, 1.0, 0.0).strength == 0  # no width
    assert Square(0.5, 0.4, 0.6, 0.0, few=True).strength == 0
    assert Square(1.0, math.nan, math.nan, 0.0).strength == 0
    assert Square(reason="makes no sense", absent=True).strength == 0


def test_the_grid_shows_values_hides_what_makes_no_sense_and_escapes() -> None:
    squares = {
        ("a<b", "x"): Square(0.5, 0.4, 0.6, 0.1, about="of this", verdict="supported", anchor="#section-3"),
        ("a<b", "y"): Square(reason="no such thing", absent=True),
    }
    figure = grid(squares, rows=["a<b"], columns=["x", "y"], id="g", title="t", limits="No more.")
    cells_, grey = figure.plot["data"]
    assert cells_["z"][0][1] is None
    assert grey["z"] == [[None, 0]]
    assert cells_["customdata"] == [["#section-3", ""]]
    text = [note["text"] for note in figure.plot["layout"]["annotations"]]
    assert text == ["<b>0.500</b><br>[0.400, 0.600]<br>null 0.100<br><i>supported</i>", "–"]
    assert "a&lt;b" in cells_["hovertext"][0][0]
    assert "no such thing" in grey["hovertext"][0][1]
    assert list(figure.data["reason"]) == ["", "no such thing"]


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config, _ = STUDY.configure(SMOKE, SMALL)
    return execute(
        "matrix",
        STUDY.steps(config, "the smoke preset is too small to judge anything"),
        out=tmp_path_factory.mktemp("runs") / "matrix",
        engine="inline",
        manifest={"config": config.model_dump(mode="json"), "not_judged": "smoke"},
        progress=None,
    )


def test_a_run_fills_its_page(run: Run) -> None:
    config = MatrixConfig(**run.manifest["config"])
    page = matrix_page(run, config, STUDY.title)
    here = cells(config)
    assert [s.id for s in page.sections[2:]] == [f"{row}-{column}" for row, column in here]
    assert [j.verdict for j in page.judgements] == ["not judged"]  # modular degeneracy; the others are not asked for
    figure = page.sections[0].figures[0]
    anchors = [a for line in figure.plot["data"][0]["customdata"] for a in line if a]
    assert anchors == [f"#section-{3 + i}" for i in range(len(here))]
    assert all(f'id="{anchor[1:]}"' in render(page) for anchor in anchors[-1:])
    absent = page.sections[0].tables[0]
    assert [row[:2] for row in absent.rows] == [
        (ROWS[row].title, COLUMNS[column].title) for row in ("digits", "similarity") for column in ("rule", "geometry")
    ]


def test_cells_say_what_their_analyses_say(run: Run) -> None:
    from heldout.analyses.similarity.measures import similarity
    from heldout.studies.matrix_activations import similarity as measure
    from heldout.studies.matrix_evidence import Asked
    from heldout.studies.matrix_load import material

    record = run.record("matrix-digits-degeneracy")
    settings = record["settings"]
    folders = {f"weights-{seed}": run.output(f"digits-train-mlp-s{seed}") for seed in (0, 1)}
    here = material("digits", settings["trained"], folders, [0, 1], "cpu")
    stimuli = here.stimuli["id"].first(settings["items"])
    one, other = (here.read(network, stimuli) for network in here.networks.trained)
    found = measure(here, Asked({"items": settings["items"], "permutations": 19}, Path()))
    assert found.value == pytest.approx(similarity(one, other), rel=1e-12)
    assert found.n == len(stimuli.split) == settings["items"]
    own = Evidence.read(Path(run.output("matrix-digits-degeneracy")))
    by_hand = [
        (spread(here.read(a, stimuli))[0] - spread(here.read(b, stimuli))[0]) / 64
        for a, b in zip(here.networks.trained, here.networks.untrained, strict=True)
    ]
    assert own.by_seed == pytest.approx(by_hand, rel=1e-12)


def test_the_removal_of_a_run_is_that_of_its_networks(run: Run) -> None:
    """Behind the second hidden layer of the digits' network stands the readout alone: by hand, the answers are the same."""
    import torch

    from heldout.analyses.features.labels import Coding
    from heldout.analyses.features.moments import moments_of
    from heldout.studies.matrix_faithfulness import some
    from heldout.studies.matrix_load import material
    from heldout.studies.matrix_removal import directions

    settings = run.record("matrix-digits-removal")["settings"]
    folders = {f"weights-{seed}": run.output(f"digits-train-mlp-s{seed}") for seed in (0, 1)}
    here = material("digits", settings["trained"], folders, [0, 1], "cpu")
    fit, test = here.stimuli["fit"].evenly(settings["items"]), some(here.splits["id"], settings["items"])
    coding = Coding.fit(fit.labels, fit.kinds)
    rows = Evidence.read(Path(run.output("matrix-digits-removal"))).tables[0]["rows"]
    batch = test.items.take(np.arange(len(test)))
    for network, row in zip(here.networks.trained, rows, strict=True):
        moments = moments_of(here.read(network, fit), coding.encode(fit.labels))
        basis, mean = directions(moments, coding.columns("digit")), moments.mean()[1]
        assert basis @ basis.T == pytest.approx(np.eye(7), abs=1e-9)  # of ten digits two are not fitted on
        with torch.no_grad():
            x = network.get_submodule("hidden")(batch.inputs.flatten(1)).double().numpy()
            left = torch.from_numpy(x - (x - mean) @ basis.T @ basis).float()
            right = [(network.get_submodule("readout")(v).argmax(-1) == batch.targets).double().mean()
                     for v in (torch.from_numpy(x).float(), left)]  # fmt: skip
        assert row[2:5] == [7, *(pytest.approx(float(r)) for r in right)]


@pytest.mark.slow
def test_the_whole_smoke_page(tmp_path: Path) -> None:
    config, _ = STUDY.configure(SMOKE)
    assert isinstance(config, MatrixConfig)
    found = execute(
        "matrix",
        STUDY.steps(config, "the smoke preset is too small to judge anything"),
        out=tmp_path / "matrix",
        engine="local",
        workers=2,
        manifest={"config": config.model_dump(mode="json"), "not_judged": "smoke"},
        progress=None,
    )
    page = matrix_page(found, config, STUDY.title)
    here = cells(config)
    assert [s.id for s in page.sections[2:]] == [f"{row}-{column}" for row, column in here]
    assert {j.verdict for j in page.judgements} == {"not judged"}
    assert len(page.judgements) == len(CLAIMED)
    evidence = {cell: Evidence.read(Path(found.output(f"matrix-{cell[0]}-{cell[1]}"))) for cell in here}
    assert {cell for cell, e in evidence.items() if e.reason} <= {
        ("similarity", "similarity"),  # smoke trains one of its claim's three configurations
        ("modular", "similarity"),  # three stimuli
        ("modular", "degeneracy"),  # answers that owe nothing to attention
    }
    assert all(math.isfinite(e.value) != bool(e.reason) for e in evidence.values())
    render(page)

    # A claim's cell is what the study itself finds, to the last digit.
    ours = {(CLAIMED[cell].study, j.id): j for cell, j in zip(CLAIMED, page.judgements, strict=True)}
    for name in dict.fromkeys(study for study, _ in ours):
        study = find_study(name)
        given = study_config(name, config.networks, config.seeds, config.first_seed)
        run = execute(name, study.steps(given, "smoke"), out=tmp_path / name, engine="local", workers=2, progress=None)
        for record in json.loads((run.output(f"{name}-judge") / CLAIMS).read_text()):
            theirs = Judgement.from_dict(record)
            if (name, theirs.id) in ours:
                mine = ours.pop((name, theirs.id))
                for field in ("value", "low", "high", "p"):
                    assert getattr(mine, field) == pytest.approx(getattr(theirs, field), rel=1e-12, nan_ok=True), (
                        theirs.id
                    )
                assert {(g.name, g.passed) for g in mine.gates} == {(g.name, g.passed) for g in theirs.gates}
    assert not ours
