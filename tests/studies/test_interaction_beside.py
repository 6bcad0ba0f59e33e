"""The interaction basis beside the claims of the dyck and code studies: what it is fitted on, and that no claim reads it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from heldout.activations.sections import Sections
from heldout.analyses.faithfulness import Subject
from heldout.evidence import read_estimates
from heldout.networks.transformer import Transformer
from heldout.proxies.bases import global_bases
from heldout.runs.steps import and_dependents, check_steps
from heldout.studies.base import SMOKE, find_study
from heldout.studies.interaction import score_stream, stream, stream_edits, stream_section, write_stream_estimates
from heldout.tasks.base import Rectangular, Split

SITES = stream(2)


def network(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(9, width=8, layers=2, heads=2, max_length=7).eval()


def split(name: str, role: Any, seed: int, *, garbage: int = 0) -> Split:
    """Sequences of many lengths; `garbage` fills what the mask leaves out."""
    draw = torch.Generator().manual_seed(seed)
    tokens, lengths = torch.randint(0, 9, (24, 6), generator=draw), torch.randint(2, 7, (24,), generator=draw)
    mask = torch.arange(6) < lengths[:, None]
    return Split(name, role, Rectangular(torch.where(mask, tokens, garbage), tokens.roll(-1, 1), mask=mask))


def test_it_is_the_basis_of_the_stream_to_the_logits_and_sees_no_padding() -> None:
    subject = Subject(network())
    fit, other = split("fit", "fit", 0), split("fit", "fit", 0, garbage=5)
    edits = stream_edits(subject, fit, SITES, (3, 8), batch_size=8)
    assert [(e.origin.site, e.origin.label) for e in edits] == [
        (site, label) for site in SITES for label in ("ib-3", "ib-8", "pca-3", "pca-8")
    ]
    exact = global_bases(Sections(subject.network, [SITES[1], "."]), fit, batch_size=8)[SITES[1]]
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    by_hand = exact.at(3).reconstruct(rows)
    found = edits[4].functions[SITES[1]](rows, None)
    assert float((found - by_hand).norm() / by_hand.norm()) < 0.1  # random mixtures of outputs, not each of them
    assert torch.equal(edits[1].functions[SITES[0]](rows, None), rows)
    for a, b in zip(edits, stream_edits(subject, other, SITES, (3, 8), batch_size=24), strict=True):
        ((site, f),), (g,) = a.functions.items(), b.functions.values()
        torch.testing.assert_close(f(rows, None), g(rows, None), rtol=1e-4, atol=1e-4, msg=site)


def test_estimates_are_over_all_networks(tmp_path: Path) -> None:
    asked = {"sites": SITES, "stream_ranks": (2, 8)}
    tests, folders = [split("id", "test", 1), split("far", "test", 2)], []
    for seed in range(2):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        subject = Subject(network(seed), "task", "decoder", seed)
        score_stream(folders[-1], subject, split("fit", "fit", 0), tests, asked, batch_size=8)
    write_stream_estimates(tmp_path, folders, ("id", "far"), asked)
    found = read_estimates(tmp_path / "estimates.parquet")
    assert len(found) == 2 * 2 * 2 * 2 * 3  # sites, families, ranks, splits, quantities
    assert set(found["seeds"]) == {2}
    same = found[found["quantity"] == "same_prediction"]
    assert (same.loc[(same["parameter"] == 8) & (same["edit"] == "ib"), "value"] == 1.0).all()
    assert same["value"].min() < 1.0


@pytest.mark.parametrize("name", ["dyck", "code"])
def test_no_claim_and_nothing_else_reads_it(name: str) -> None:
    study = find_study(name)
    config, _ = study.configure(SMOKE)
    steps = check_steps(study.steps(config, ""))
    own = {s.name for s in steps if s.name.startswith(f"{name}-interaction")}
    assert f"{name}-interaction" in own
    assert and_dependents(steps, own) == own
    ranks = next(s for s in steps if s.name == f"{name}-interaction").settings["stream_ranks"]
    assert ranks[-1] == config.model_dump()["width"]
    assert ranks == sorted(set(ranks))


def test_a_run_from_before_has_no_such_section() -> None:
    run: Any = SimpleNamespace(steps=lambda: ("dyck-judge",))
    assert stream_section(run, "dyck-interaction", "sentences") == ()
