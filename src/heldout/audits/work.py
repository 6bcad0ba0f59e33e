"""What the steps of an audit do. Each finds the parts of the spec that it reads in its settings, as ``parts``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from heldout.audits.parts import (
    AnyReading,
    Decode,
    Families,
    Features,
    Network,
    Rule,
    ScoringSpec,
    Similarity,
    SplitSpec,
)
from heldout.errors import HeldoutError, NetworkError
from heldout.runs import StepContext

if TYPE_CHECKING:
    from heldout.activations.edits import Edit
    from heldout.analyses.faithfulness import Subject
    from heldout.tasks.base import Split

TASK = "audit"
MARGIN_BINS = 10  # of the network's margin, equally filled on the reference
SEED_IT = "seed what it draws (torch.manual_seed), or save the weights and name them (weights)"
READINGS: TypeAdapter[tuple[AnyReading, ...]] = TypeAdapter(tuple[AnyReading, ...])


def check_splits(ctx: StepContext) -> None:
    """Load every split, and refuse what overlaps."""
    from heldout.audits.labelled import read_table
    from heldout.audits.material import load_splits
    from heldout.tasks.targets import has_targets

    s = ctx.settings
    parsed = {n: SplitSpec.model_validate(v) for n, v in s["parts"]["splits"].items()}
    if any(spec.activations for spec in parsed.values()):
        sizes = {n: len(next(iter(read_table(n, v, Path(s["folder"])).values()))) for n, v in parsed.items()}
        rows = [
            {"name": n, "role": v.role, "items": sizes[n], "note": v.note, "targets": False} for n, v in parsed.items()
        ]
        (ctx.out / "splits.json").write_text(json.dumps(rows))
        return
    splits = load_splits(parsed, Path(s["folder"]), kind=s["parts"]["scoring"]["kind"])
    rows = [
        {"name": n, "role": x.role, "items": len(x), "note": s["notes"][n], "targets": has_targets(x)}
        for n, x in splits.items()
    ]
    (ctx.out / "splits.json").write_text(json.dumps(rows))


def fit_readings(ctx: StepContext) -> None:
    """Calibrate the scoring, fit, and check that items do not depend on their batch and an identity edit changes nothing."""
    from heldout.activations.replay import Replay
    from heldout.analyses.alone import check_items_alone
    from heldout.analyses.faithfulness import identity_check, margin_edges
    from heldout.analyses.outputs import calibrated, calibration
    from heldout.audits.fitted import fit, fitted_edits
    from heldout.audits.material import weights_digest
    from heldout.training.checkpoints import write_tensors

    s = ctx.settings
    subject, readings, size = _subject(ctx), _readings(ctx), s["batch_size"]
    reference = _split(ctx, s["reference"])
    with _named(s["reference"]):
        scoring = calibrated(subject.scoring, subject.network, reference, batch_size=size, device=subject.device)
    subject = replace(subject, scoring=scoring)
    with _named(s["reference"]):
        check_items_alone(subject, reference)
    write_tensors(
        ctx.out / "calibration.safetensors", calibration(scoring), {"weights": weights_digest(subject.network)}
    )
    sites = {site: Families.model_validate(f) for site, f in s["parts"]["sites"].items()}
    split = _split(ctx, s["fit_on"]) if s["fit_on"] else None
    with _named(s["fit_on"] or s["reference"]):
        fit(subject, split, sites, readings, ctx.out, seed=s["seed"], batch_size=size)
    edits = fitted_edits(ctx.out, readings, Path(s["folder"]), device=subject.device)
    places = sorted({place for edit in edits for place in edit.functions})
    with _named(s["reference"]):
        check = identity_check(subject, reference, Replay(subject.network, places), batch_size=size)
        edges = margin_edges(subject, reference, bins=MARGIN_BINS, batch_size=size)
    (ctx.out / "identity.json").write_text(json.dumps(asdict(check)))
    (ctx.out / "margins.json").write_text(json.dumps(edges.tolist()))


def score_split(ctx: StepContext) -> None:
    """Every edit on one split: score parts, and how often each kept the network's prediction."""
    import numpy as np

    from heldout.analyses.faithfulness import faithfulness
    from heldout.analyses.tables import Folder

    s = ctx.settings
    subject, edits, split = _subject(ctx), _edits(ctx), _split(ctx, s["split"])
    edges = np.array(json.loads((ctx.inputs["fit"] / "margins.json").read_text()))

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, s["split"])

    with _named(s["split"]), Folder(ctx.out) as sink:
        outcome = faithfulness(
            subject, [split], edits, sink, margin_edges=edges, batch_size=s["batch_size"], progress=progress
        )
    (ctx.out / "agreement.json").write_text(json.dumps([a[s["split"]] for a in outcome.agreement]))


def match_nulls(ctx: StepContext) -> None:
    """Choose, and for each choice calibrate noise that agrees as often on the reference."""
    from heldout.analyses.damage import matched_damage
    from heldout.audits.choice import choices_of

    s = ctx.settings
    subject, edits, reference = _subject(ctx), _edits(ctx), _split(ctx, s["reference"])
    agreement = json.loads((ctx.inputs["score"] / "agreement.json").read_text()) if "score" in ctx.inputs else None
    own = [r.name for r in _readings(ctx)]
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
    from heldout.analyses.disagreements import largest_disagreements
    from heldout.analyses.faithfulness import faithfulness
    from heldout.analyses.tables import Folder
    from heldout.audits.decoding import decoder
    from heldout.audits.worst import written

    s = ctx.settings
    subject, split, size = _subject(ctx), _split(ctx, s["split"]), s["batch_size"]
    looked = _looked(ctx)
    draws: list[Edit] = []
    for number, (row, edit) in enumerate(looked):
        mixed = np.random.SeedSequence([s["seed"], number, *s["split"].encode()]).generate_state(1)[0]
        draws += [noise(edit, scale=row["scale"], seed=int(mixed), draw=d) for d in range(s["null_draws"])]

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, f"nulls on {s['split']}")

    given = s["parts"]["decode"]
    decode = decoder(None if given is None else Decode.model_validate(given), Path(s["folder"]))
    with _named(s["split"]):
        with Folder(ctx.out) as sink:
            faithfulness(subject, [split], draws, sink, batch_size=size, progress=progress)
        edits = [edit for _, edit in looked]
        found = largest_disagreements(subject, split, edits, n=s["worst"], batch_size=size)
        rows = [
            written(d, edit.origin, split, kind=subject.scoring.kind, decode=decode)
            for edit, own in zip(edits, found, strict=True)
            for d in own
        ]
    (ctx.out / "worst.json").write_text(json.dumps(rows))


def score_oracle(ctx: StepContext) -> None:
    """What was chosen, fitted on one half of a test split and scored on the other, and swapped."""
    from heldout.analyses.audit import swapped_halves
    from heldout.analyses.faithfulness import faithfulness
    from heldout.analyses.tables import Folder
    from heldout.audits.fitted import oracle_edits
    from heldout.errors import ProxyError, SplitError

    s = ctx.settings
    subject, split, size = _subject(ctx), _split(ctx, s["split"]), s["batch_size"]
    sites = {site: Families.model_validate(f) for site, f in s["parts"]["sites"].items()}
    chosen, reason = [edit.origin for _, edit in _looked(ctx)], ""
    with _named(s["split"]), Folder(ctx.out) as sink:
        try:
            halves = [
                (on, oracle_edits(subject, fitted, sites, chosen, seed=s["seed"], batch_size=size))
                for fitted, on in swapped_halves(split)
            ]
        except (ProxyError, SplitError) as error:  # a half that is too small for the chosen size; all else stands
            halves, reason = [], str(error)
        for on, edits in halves:
            if edits:
                faithfulness(subject, [on], edits, sink, batch_size=size)
    (ctx.out / "oracle.json").write_text(json.dumps({"split": s["split"], "reason": reason}))


def warn_early(ctx: StepContext) -> None:
    """How well each score tells, within one split, where the edits that are looked at will disagree."""
    import numpy as np

    from heldout.analyses.warning import WARNINGS, auroc_estimates, fit_distances, warn
    from heldout.evidence import write_estimates

    s = ctx.settings
    subject, split, size = _subject(ctx), _split(ctx, s["split"]), s["batch_size"]
    looked, distances, rows = _looked(ctx), {}, []
    if s["fit_on"]:
        places = {place for _, edit in looked for place in edit.functions}
        with _named(s["fit_on"]):
            distances = fit_distances(subject, _split(ctx, s["fit_on"]), sorted(places), batch_size=size)
    for number, (row, edit) in enumerate(looked):
        ctx.progress(number, len(looked), f"early warning on {s['split']}")
        with _named(s["split"]):
            warned = warn(subject, split, edit, distances, batch_size=size)
        where = {"network": s["name"], "seed": s["run"], "split": s["split"], "site": row["site"], "edit": row["name"]}
        where |= {"parameter": row["parameter"]}
        rng = np.random.default_rng([s["seed"], number, *s["split"].encode()])
        rows += auroc_estimates(warned, where=where, rng=rng)
    write_estimates(ctx.out / WARNINGS, rows)


def find_rule(ctx: StepContext) -> None:
    """The rule behind the network's answers to one split: what was found, and every answer beside it."""
    from heldout.audits.material import weights_digest
    from heldout.audits.rule import discovered, record

    s = ctx.settings
    subject, split = _subject(ctx), _split(ctx, s["split"])
    spec = Rule.model_validate(s["parts"]["rule"])
    with _named(s["split"]):
        found = discovered(
            subject, split, spec, Path(s["folder"]), seed=s["seed"], batch_size=s["batch_size"], progress=ctx.progress
        )
    (ctx.out / "answers.csv").write_text(found.answers().to_csv(index=False), encoding="utf-8")
    kept = {"weights": weights_digest(subject.network), **record(found)}
    (ctx.out / "rule.json").write_text(json.dumps(kept, allow_nan=False))


def measure_features(ctx: StepContext) -> None:
    """Which labels activations carry loudly on one split, which quietly, and which matter."""
    from heldout.analyses.outputs import calibrated
    from heldout.audits.features import FIGURES, WARNINGS, Answering, Place, measure
    from heldout.audits.labelled import Rows, rows_of, rows_of_files
    from heldout.audits.material import weights_digest
    from heldout.evidence import write_estimates

    s = ctx.settings
    spec, size, folder = Features.model_validate(s["parts"]["features"]), s["batch_size"], Path(s["folder"])
    answering, digest = None, ""
    if s["parts"]["network"] is None:
        given = {n: SplitSpec.model_validate(v) for n, v in s["parts"]["splits"].items()}
        fit, test = (rows_of_files(n, given[n], spec, folder) for n in (s["fit_on"], s["split"]))
    else:
        subject, splits = _subject(ctx), {n: _split(ctx, n) for n in (s["fit_on"], s["split"])}
        with _named(s["reference"]):
            reference = _split(ctx, s["reference"])
            scoring = calibrated(subject.scoring, subject.network, reference, batch_size=size, device=subject.device)
        subject = replace(subject, scoring=scoring)
        digest = weights_digest(subject.network)
        rows: list[Rows] = []
        for n in (s["fit_on"], s["split"]):
            ctx.progress(len(rows), 3, f"activations on {n}")
            with _named(n):
                rows.append(rows_of(subject, splits[n], spec, folder, seed=s["seed"], batch_size=size))
        fit, test = rows
        answering = Answering(subject, splits[s["split"]], s["fit_on"], size)
    place = Place(s["name"], s["run"], s["split"])
    with _named(s["split"]):
        found, warnings = measure(fit, test, spec, place, seed=s["seed"], answering=answering, progress=ctx.progress)
    write_estimates(ctx.out / FIGURES, found)
    rows_behind = {s["fit_on"]: len(fit.unit), s["split"]: len(test.unit)}
    kept = {"weights": digest, "warnings": warnings, "rows": rows_behind, "units": len(set(test.unit.tolist()))}
    (ctx.out / WARNINGS).write_text(json.dumps(kept))


def compare_networks(ctx: StepContext) -> None:
    """How alike all networks are on one split."""
    from heldout.analyses.faithfulness import Subject
    from heldout.audits.alike import CAUTIONS, FIGURES, Rows, measure, rows_of, rows_of_files
    from heldout.audits.material import load_network, make_scoring
    from heldout.audits.spec import ACTIVATIONS
    from heldout.evidence import write_estimates

    s = ctx.settings
    spec, folder, name = Similarity.model_validate(s["parts"]["similarity"]), Path(s["folder"]), s["split"]
    networks = {n: Network.model_validate(v) for n, v in s["parts"]["networks"].items()}
    scoring = ScoringSpec.model_validate(s["parts"]["scoring"])
    rows: dict[str, list[Rows]] = {}
    with _named(name):
        if not networks:
            given = SplitSpec.model_validate(s["parts"]["splits"][name])
            rows[ACTIVATIONS] = [rows_of_files(name, given, spec, spec.every_site, folder, seed=s["seed"])]
        else:
            split = _split(ctx, name)
            for n, network in networks.items():
                wanted = _own_sites(spec, list(networks), n)
                for run in range(len(network.sources)):
                    ctx.progress(0, 1, f"activations of {n}, run {run}")
                    field = "network" if n == "network" else f"networks.{n}"
                    loaded = load_network(network, run, folder, kind=scoring.kind, field=field).to(ctx.device)
                    subject = Subject(loaded, TASK, n, run, scoring=make_scoring(scoring), device=ctx.device)
                    found = rows_of(subject, split, wanted, spec, seed=s["seed"], batch_size=s["batch_size"])
                    rows.setdefault(n, []).append(found)
        figures, cautions = measure(rows, spec, name, seed=s["seed"], progress=ctx.progress)
    write_estimates(ctx.out / FIGURES, figures)
    (ctx.out / CAUTIONS).write_text(json.dumps(cautions))


def _own_sites(spec: Similarity, networks: list[str], name: str) -> tuple[str, ...]:
    """The sites at which one network is read: with two networks, the first of a pair belongs to the first of them alone."""
    if len(networks) != 2:
        return spec.every_site
    return tuple(dict.fromkeys(pair[networks.index(name)] for pair in spec.places))


def summarise(ctx: StepContext) -> None:
    """Everything that the page is made of: estimates with intervals, identity checks, choices, disagreements."""
    from heldout.audits.summary import write_summary

    write_summary(ctx)


def _subject(ctx: StepContext) -> Subject:
    """The network of a step, with its scoring as calibrated in the fit step, where that is an input."""
    from heldout.analyses.faithfulness import Subject
    from heldout.analyses.outputs import restored
    from heldout.audits.material import load_network, make_scoring, weights_digest
    from heldout.training.checkpoints import read_tensors

    s = ctx.settings
    spec = ScoringSpec.model_validate(s["parts"]["scoring"])
    field = "network" if s["name"] == "network" else f"networks.{s['name']}"
    given = Network.model_validate(s["parts"]["network"])
    network = load_network(given, 0, Path(s["folder"]), kind=spec.kind, field=field)
    scoring = make_scoring(spec)
    if "fit" in ctx.inputs:
        tensors, record = read_tensors(ctx.inputs["fit"] / "calibration.safetensors")
        scoring = restored(scoring, tensors)
        if record["weights"] != weights_digest(network):
            raise NetworkError(
                f"{field}: {given.from_} returned other weights than when its readings were fitted; {SEED_IT}"
            )
    return Subject(network.to(ctx.device), TASK, s["name"], s["run"], scoring=scoring, device=ctx.device)


def _edits(ctx: StepContext) -> list[Edit]:
    """Every edit that was fitted or read, in `fitted_edits`' order."""
    from heldout.audits.fitted import fitted_edits

    return fitted_edits(ctx.inputs["fit"], _readings(ctx), Path(ctx.settings["folder"]), device=ctx.device)


def _looked(ctx: StepContext) -> list[tuple[dict[str, Any], Edit]]:
    """Each choice's row with its edit."""
    edits = _edits(ctx)
    rows = json.loads((ctx.inputs["match"] / "chosen.json").read_text())
    return [(row, edits[row["edit"]]) for row in rows]


def _readings(ctx: StepContext) -> tuple[AnyReading, ...]:
    return READINGS.validate_python(ctx.settings["parts"]["readings"])


def _split(ctx: StepContext, name: str) -> Split:
    from heldout.audits.material import load_split

    s = ctx.settings
    spec = SplitSpec.model_validate(s["parts"]["splits"][name])
    return load_split(name, spec, Path(s["folder"]), kind=s["parts"]["scoring"]["kind"])


@contextmanager
def _named(split: str) -> Iterator[None]:
    """Errors raised inside name the split."""
    try:
        yield
    except HeldoutError as error:
        if f"split {split!r}" in str(error):
            raise
        raise type(error)(f"on split {split!r}: {error}") from error
