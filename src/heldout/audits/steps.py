"""The steps of an audit. Each reads what it needs of the spec, so that a change recomputes what depends on it, and each
split is a step of its own, so that a network that fails on one keeps what was computed on the others.

splits -> fit (one a network and run) -> score (one a split) -> match (the nulls) -> null (one a test split) -> summary
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from heldout.audits.sources import digests
from heldout.audits.spec import AnyReading, Families, Network, ScoringSpec, Spec, SplitSpec
from heldout.errors import HeldoutError
from heldout.runs import Step, StepContext

if TYPE_CHECKING:
    from heldout.activations.edits import Edit
    from heldout.analyses.faithfulness import Subject
    from heldout.tasks.base import Split

SUMMARY = "audit-summary"
TASK = "audit"
READINGS: TypeAdapter[tuple[AnyReading, ...]] = TypeAdapter(tuple[AnyReading, ...])


def steps(spec: Spec, folder: Path) -> list[Step]:
    """The steps of a spec whose paths are relative to `folder`."""
    shared = {"folder": str(folder.resolve()), "scoring": _plain(spec.scoring), "batch_size": spec.batch_size}
    given = {n: {"spec": _plain(s), "digests": digests(s, folder)} for n, s in spec.splits.items()}
    made = [Step("audit-splits", check_splits, {**shared, "splits": given})]
    every: dict[str, str] = {"splits": "audit-splits"}
    reference, tests = spec.tests[0], spec.tests
    scored = [*tests, *([spec.select] if spec.select else [])]
    for name, network in spec.every_network.items():
        for run in range(len(network.sources)):
            who = f"{_slug(name)}-r{run}"
            own: dict[str, Any] = {
                **shared,
                "network": _plain(network),
                "network_digests": digests(network, folder),
                "name": name,
                "run": run,
                "sites": {site: _plain(f) for site, f in spec.site_families.items()},
                "readings": [_plain(r) for r in spec.readings],
                "readings_digests": [digests(r, folder) for r in spec.readings],
                "seed": spec.seed,
            }
            fit, match = f"audit-fit-{who}", f"audit-match-{who}"
            on = {"fit_on": spec.fit_split if spec.needs_fit else "", "reference": reference}
            needed = {n: given[n] for n in on.values() if n}
            made.append(Step(fit, fit_readings, {**own, **on, "splits": needed}, {"splits": "audit-splits"}))
            score = {s: f"audit-score-{who}-{_slug(s)}" for s in scored}
            made += [
                Step(score[s], score_split, {**own, "split": s, "splits": {s: given[s]}}, {"fit": fit}) for s in scored
            ]
            chosen = {"select": spec.select or "", "threshold": spec.threshold, "reference": reference}
            inputs = {"fit": fit, **({"select": score[spec.select]} if spec.select else {})}
            made.append(Step(match, match_nulls, {**own, **chosen, "splits": {reference: given[reference]}}, inputs))
            nulls = {
                "null_draws": spec.null_draws,
                "worst": spec.worst,
                "decode": _plain(spec.decode) if spec.decode else None,
            }
            nulls["decode_digests"] = digests(spec.decode, folder)
            for s in tests:
                null = f"audit-null-{who}-{_slug(s)}"
                made.append(
                    Step(
                        null,
                        score_null,
                        {**own, **nulls, "split": s, "splits": {s: given[s]}},
                        {"fit": fit, "match": match},
                    )
                )
                every[f"null-{who}-{s}"] = null
            every |= {f"score-{who}-{s}": step for s, step in score.items()}
            every |= {f"fit-{who}": fit, f"match-{who}": match}
    runs = {n: len(k.sources) for n, k in spec.every_network.items()}
    settings = {
        "runs": runs,
        "tests": list(tests),
        "scored": scored,
        "select": spec.select or "",
        "kind": spec.scoring.kind,
    }
    return [*made, Step(SUMMARY, summarise, {**settings, "seed": spec.seed}, every)]


def check_splits(ctx: StepContext) -> None:
    """Load every split, and refuse what overlaps."""
    from heldout.audits.material import load_splits

    s = ctx.settings
    parsed = {n: SplitSpec.model_validate(v["spec"]) for n, v in s["splits"].items()}
    splits = load_splits(parsed, Path(s["folder"]), kind=s["scoring"]["kind"])
    rows = [{"name": n, "role": x.role, "items": len(x), "note": x.note} for n, x in splits.items()]
    (ctx.out / "splits.json").write_text(json.dumps(rows))


def fit_readings(ctx: StepContext) -> None:
    """Calibrate the scoring, fit, and check that an identity edit changes nothing."""
    from heldout.activations.replay import Replay
    from heldout.analyses.faithfulness import identity_check
    from heldout.analyses.outputs import calibrated, calibration
    from heldout.audits.fitted import fit, fitted_edits
    from heldout.training.checkpoints import write_tensors

    s = ctx.settings
    subject, readings, folder = _subject(ctx, None), _readings(s), Path(s["folder"])
    size, reference = s["batch_size"], _split(s, s["reference"])
    with _named(s["reference"]):
        scoring = calibrated(subject.scoring, subject.network, reference, batch_size=size, device=subject.device)
    subject = replace(subject, scoring=scoring)
    write_tensors(ctx.out / "calibration.safetensors", calibration(scoring), {})
    sites = {site: Families.model_validate(f) for site, f in s["sites"].items()}
    split = _split(s, s["fit_on"]) if s["fit_on"] else None
    with _named(s["fit_on"] or s["reference"]):
        fit(subject, split, sites, readings, ctx.out, seed=s["seed"], batch_size=size)
    edits = fitted_edits(ctx.out, readings, folder, device=subject.device)
    places = sorted({place for edit in edits for place in edit.functions})
    with _named(s["reference"]):
        check = identity_check(subject, reference, Replay(subject.network, places), batch_size=size)
    (ctx.out / "identity.json").write_text(json.dumps({**vars(check), "sites": list(check.sites)}))


def score_split(ctx: StepContext) -> None:
    """Every edit on one split: score parts, and how often each kept the network's prediction."""
    from heldout.analyses.faithfulness import faithfulness
    from heldout.analyses.tables import Folder

    s = ctx.settings
    subject, edits = _subject(ctx, ctx.inputs["fit"]), _edits(ctx)
    split = _split(s, s["split"])

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, s["split"])

    with _named(s["split"]), Folder(ctx.out) as sink:
        outcome = faithfulness(subject, [split], edits, sink, batch_size=s["batch_size"], progress=progress)
    (ctx.out / "agreement.json").write_text(json.dumps([a[s["split"]] for a in outcome.agreement]))


def match_nulls(ctx: StepContext) -> None:
    """Choose, and for each choice calibrate noise that agrees as often on the reference."""
    from heldout.analyses.damage import matched_damage
    from heldout.audits.choice import choices_of

    s = ctx.settings
    subject, edits, reference = _subject(ctx, ctx.inputs["fit"]), _edits(ctx), _split(s, s["reference"])
    agreement = json.loads((ctx.inputs["select"] / "agreement.json").read_text()) if s["select"] else None
    own = [r["name"] for r in s["readings"]]
    rows = []
    chosen = choices_of(edits, agreement, readings=own, threshold=s["threshold"])
    for number, row in enumerate(chosen):
        edit = edits[row["edit"]]
        ctx.progress(number, len(chosen), f"null of {edit.origin.label}")
        with _named(s["reference"]):
            m = matched_damage(subject, reference, edit, seed=s["seed"] + number, draws=1, batch_size=s["batch_size"])
        found = {"scale": m.scale, "target": m.target, "null_agreement": m.agreement, "reason": m.reason}
        rows.append({**row, **found})
    (ctx.out / "chosen.json").write_text(json.dumps(rows))


def score_null(ctx: StepContext) -> None:
    """The nulls of every choice on one test split, and its largest disagreements."""
    import numpy as np

    from heldout.analyses.damage import noise
    from heldout.analyses.faithfulness import faithfulness
    from heldout.analyses.tables import Folder
    from heldout.audits.decoding import decoder
    from heldout.audits.spec import Decode
    from heldout.audits.worst import largest_disagreements

    s = ctx.settings
    subject, edits, split = _subject(ctx, ctx.inputs["fit"]), _edits(ctx), _split(s, s["split"])
    chosen = json.loads((ctx.inputs["match"] / "chosen.json").read_text())
    draws: list[Edit] = []
    for number, row in enumerate(chosen):
        mixed = np.random.SeedSequence([s["seed"], number, *s["split"].encode()]).generate_state(1)[0]
        draws += [
            noise(edits[row["edit"]], scale=row["scale"], seed=int(mixed), draw=d) for d in range(s["null_draws"])
        ]

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, f"nulls on {s['split']}")

    with _named(s["split"]):
        with Folder(ctx.out) as sink:
            faithfulness(subject, [split], draws, sink, batch_size=s["batch_size"], progress=progress)
        decode = Decode.model_validate(s["decode"]) if s["decode"] else None
        rows = largest_disagreements(
            subject,
            split,
            [edits[row["edit"]] for row in chosen],
            n=s["worst"],
            decode=decoder(decode, Path(s["folder"])),
            batch_size=s["batch_size"],
        )
    (ctx.out / "worst.json").write_text(json.dumps(rows))


def summarise(ctx: StepContext) -> None:
    """Everything that the page is made of: estimates with intervals, identity checks, choices, disagreements."""
    from heldout.audits.summary import write_summary

    write_summary(ctx)


def read_parts(ctx: StepContext, kind: str, name: str) -> Iterator[tuple[tuple[str, int], str, Path]]:
    """((network, run), split, folder) of every input of a kind, whose file `name` is asked for."""
    for network, runs in ctx.settings["runs"].items():
        for run in range(runs):
            who = f"{_slug(network)}-r{run}"
            keys = [""] if kind in ("fit", "match") else ctx.settings["scored" if kind == "score" else "tests"]
            for split in keys:
                key = f"{kind}-{who}-{split}" if split else f"{kind}-{who}"
                yield (network, run), split, ctx.inputs[key] / name


def _subject(ctx: StepContext, fitted: Path | None) -> Subject:
    """The network of a step, with its scoring as calibrated in the fit step's folder (None: not yet)."""
    from heldout.analyses.faithfulness import Subject
    from heldout.analyses.outputs import restored
    from heldout.audits.material import load_network, make_scoring
    from heldout.training.checkpoints import read_tensors

    s = ctx.settings
    spec = ScoringSpec.model_validate(s["scoring"])
    field = "network" if s["name"] == "network" else f"networks.{s['name']}"
    network = load_network(
        Network.model_validate(s["network"]), s["run"], Path(s["folder"]), kind=spec.kind, field=field
    )
    scoring = make_scoring(spec)
    if fitted is not None:
        scoring = restored(scoring, read_tensors(fitted / "calibration.safetensors")[0])
    return Subject(network.to(ctx.device), TASK, s["name"], s["run"], scoring=scoring, device=ctx.device)


def _edits(ctx: StepContext) -> list[Edit]:
    from heldout.audits.fitted import fitted_edits

    s = ctx.settings
    return fitted_edits(ctx.inputs["fit"], _readings(s), Path(s["folder"]), device=ctx.device)


def _readings(s: Mapping[str, Any]) -> tuple[AnyReading, ...]:
    return READINGS.validate_python(s["readings"])


def _split(s: Mapping[str, Any], name: str) -> Split:
    from heldout.audits.material import load_split

    spec = SplitSpec.model_validate(s["splits"][name]["spec"])
    return load_split(name, spec, Path(s["folder"]), kind=s["scoring"]["kind"])


@contextmanager
def _named(split: str) -> Iterator[None]:
    """Errors raised inside name the split."""
    try:
        yield
    except HeldoutError as error:
        if f"split {split!r}" in str(error):
            raise
        raise type(error)(f"on split {split!r}: {error}") from error


def _plain(part: Any) -> dict[str, Any]:
    """A part of a spec as it would be written."""
    found: dict[str, Any] = part.model_dump(mode="json", by_alias=True)
    return found


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
