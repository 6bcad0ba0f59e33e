"""The hello-world: are simplified digit classifiers faithful on images that they were not fitted on?

Real data, two small networks, a minute. The claims are ours: no paper reports on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, PositiveInt, field_validator, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, known_once

if TYPE_CHECKING:
    from heldout.activations.edits import Edit
    from heldout.analyses.audit import Plan, Wanted
    from heldout.analyses.estimates import Estimand, Floats, View
    from heldout.analyses.faithfulness import Subject
    from heldout.figures.page import Page
    from heldout.statistics.verdict import Finding
    from heldout.studies.audited import Audited
    from heldout.tasks.base import Split

SHIFTS = ("rotated", "shifted", "noisy", "erased")
UNSEEN = "unseen_classes"
FAMILIES = ("svd", "kmeans")
# Site -> width, by network. Channels of the first CNN block are the features there, one row a place in the image.
SITES = {
    "mlp": {"hidden.0": 64, "hidden.1": 64},
    "cnn": {"blocks.0.pool@channels": 16, "gather": 128},
}
ACCURATE, REACHED, MATCHED = "networks accurate", "simplifications reach the threshold", "nulls match"  # gates
THRESHOLD, DELTA = 0.95, 0.02


class DigitsConfig(Config):
    """Settings of the digits study; every field can be given as ``--set field=value``."""

    networks: Annotated[tuple[Literal["mlp", "cnn"], ...], Field(min_length=1)] = ("mlp", "cnn")
    training_steps: PositiveInt = 400
    batch: PositiveInt = 128
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 64)
    clusters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 4, 8, 16, 32, 64, 128)
    kmeans_draws: PositiveInt = 5
    kmeans_sample: PositiveInt = 500
    haar_draws: PositiveInt = 20
    haar_ranks: tuple[PositiveInt, ...] = (2, 4, 8)
    null_draws: PositiveInt = 20
    rotation: FiniteFloat = 20.0
    shift: Annotated[int, Field(ge=0, le=7)] = 1
    noise: Annotated[FiniteFloat, Field(ge=0)] = 0.25
    left_out: Annotated[tuple[Annotated[int, Field(ge=0, le=9)], ...], Field(min_length=1, max_length=9)] = (8, 9)

    @field_validator("networks")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known_once("network", names, SITES)
        return names

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        """A rank that no site can take is a mistake, and so is a grid of which a site can take nothing."""
        widths = {site: width for network in self.networks for site, width in SITES[network].items()}
        widest, narrowest = max(widths, key=lambda s: widths[s]), min(widths, key=lambda s: widths[s])
        for field, ranks in (("ranks", self.ranks), ("haar_ranks", self.haar_ranks)):
            if too_large := [r for r in ranks if r > widths[widest]]:
                raise ValueError(
                    f"{field}: rank {too_large[0]} is above the width of every site; at most {widths[widest]} ({widest})"
                )
        if min(self.ranks) > widths[narrowest]:
            raise ValueError(f"ranks: site {narrowest} has width {widths[narrowest]}; give a rank that is not above it")
        if max(self.clusters) > self.kmeans_sample:
            raise ValueError(
                f"clusters: {max(self.clusters)} clusters of {self.kmeans_sample} points; "
                "give fewer clusters or a larger kmeans_sample"
            )
        return self


def claims() -> list[Claim]:
    gates = (ACCURATE, REACHED, MATCHED)
    scope = "digits; MLP and CNN, two sites each; SVD and k-means at the size that the rank rule chooses"
    null = "noise of the same agreement on id at the same site, 20 draws"
    return [
        Claim(
            id="H1",
            title="Simplifications lose more on changed images than equally damaging noise does",
            estimand="excess gap: gap of the simplification minus that of its null, mean over sites, SVD and k-means, and "
            "rotated, shifted, noisy and erased images; for the MLP and for the CNN",
            delta=DELTA,
            scope=scope,
            gates=gates,
            null=null,
            published="nothing published: ours",
            kind="conjunction",
        ),
        Claim(
            id="H2",
            title="Simplifications lose more on classes left out of their fit than equally damaging noise does",
            estimand="excess gap on unseen classes, mean over sites, SVD and k-means; for the MLP and for the CNN",
            delta=DELTA,
            scope=scope,
            gates=gates,
            null=null,
            published="nothing published: ours",
            kind="conjunction",
        ),
        Claim(
            id="H3",
            title="On unseen classes the subspace is wrong, not the rank too low",
            estimand="agreement on unseen classes of the same simplification fitted on their other half (oracle) minus "
            "that of the one fitted without them, mean over sites, SVD and k-means; for the MLP and for the CNN",
            delta=DELTA,
            scope=scope,
            gates=gates[:2],
            published="nothing published: ours",
            kind="conjunction",
        ),
    ]


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, DigitsConfig)
    task = _task(config)
    fit = {"ranks", "clusters", "kmeans_draws", "kmeans_sample", "haar_draws", "haar_ranks", "null_draws"}
    grid = {k: getattr(config, k) for k in sorted(fit)}
    train = {k: getattr(config, k) for k in ("training_steps", "batch", "learning_rate")}
    made, audits = [], {}
    for network in config.networks:
        for seed in config.seed_list():
            name = f"digits-train-{network}-s{seed}"
            audits[f"{network}-{seed}"] = f"digits-audit-{network}-s{seed}"
            own = {"network": network, "seed": seed, "task": task}
            made.append(Step(name, train_network, own | train, together=train_networks))
            made.append(Step(audits[f"{network}-{seed}"], audit_network, own | grid, {"weights": name}))
    settings = {"task": task, "networks": config.networks, "seeds": config.seed_list(), "not_judged": not_judged}
    made.append(Step("digits-judge", judge_claims, settings | grid, audits))
    return made


def train_network(ctx: StepContext) -> None:
    """One network, trained on every class."""
    train_networks([ctx])


def train_networks(contexts: Sequence[StepContext]) -> None:
    """One network a seed."""
    import torch

    from heldout.studies.side_by_side import trained
    from heldout.training.batching import shuffled
    from heldout.training.checkpoints import save_weights
    from heldout.training.losses import cross_entropy
    from heldout.training.settings import TrainSettings

    s, device = contexts[0].settings, contexts[0].device
    splits = task_splits(s["task"])

    def accuracies(net: torch.nn.Module) -> dict[str, float]:
        values = {}
        for name in ("train", "id", *SHIFTS, UNSEEN):
            batch = next(splits[name].batches(len(splits[name]))).to(device)
            assert batch.targets is not None
            values[f"{name}/accuracy"] = float((net(batch.inputs).argmax(-1) == batch.targets).float().mean())
        return values

    settings = TrainSettings(
        steps=s["training_steps"],
        learning_rate=s["learning_rate"],
        evaluate_every=max(1, s["training_steps"] // 20),
    )
    for ctx, network, history in trained(
        contexts,
        lambda: made_network(s["network"]),
        [shuffled(splits["train"], s["batch"], seed=ctx.settings["seed"]) for ctx in contexts],
        cross_entropy,
        settings=settings,
        evaluate=accuracies,
    ):
        save_weights(network, ctx.out / "weights.safetensors", {"network": s["network"], "seed": ctx.settings["seed"]})
        history.frame().to_parquet(ctx.out / "history.parquet", index=False)


def audit_network(ctx: StepContext) -> None:
    """One trained network: the grid, the choice, the nulls and the oracles."""
    from heldout.analyses.audit import audit
    from heldout.analyses.faithfulness import Subject
    from heldout.analyses.tables import Folder
    from heldout.studies.audited import AUDIT
    from heldout.training.checkpoints import load_weights

    s = ctx.settings
    network = network_of(s["network"], s["seed"])
    load_weights(network, ctx.inputs["weights"] / "weights.safetensors")
    subject = Subject(network.to(ctx.device).eval(), "digits", s["network"], s["seed"], device=ctx.device)

    def build(subject: Subject, split: Split, oracle: bool, wanted: Wanted | None) -> list[Edit]:
        return _edits(subject, split, s, oracle=oracle, wanted=wanted)

    with Folder(ctx.out) as sink:
        record = audit(subject, task_splits(s["task"]), _plan(s), build, sink, seed=s["seed"], progress=ctx.progress)
    (ctx.out / AUDIT).write_text(json.dumps(record, sort_keys=True))


def judge_claims(ctx: StepContext) -> None:
    """All audits: the table of estimates, and the claims judged."""
    import numpy as np

    from heldout.analyses.summary import summarise
    from heldout.studies.audited import Audited

    s = ctx.settings
    audited = Audited.read(
        {(n, seed): ctx.inputs[f"{n}-{seed}"] for n in s["networks"] for seed in s["seeds"]}, reference="id"
    )
    estimates = summarise(
        audited.scores,
        plan=_plan(s),
        chosen=audited.chosen,
        grid=lambda site: _grid(s, site),
        sites={n: tuple(SITES[n]) for n in s["networks"]},
        rng=np.random.default_rng(0),
    )
    audited.write(ctx.out, estimates, _findings(audited, s["networks"]), not_judged=s["not_judged"])


def _findings(audited: Audited, networks: Sequence[str]) -> list[Finding]:
    chosen = audited.chosen
    gates = {
        ACCURATE: audited.accuracy_gate(
            ACCURATE, "id", 0.95, site={n: next(iter(SITES[n])) for n in SITES}, edit="mean"
        ),
        REACHED: audited.reached_gate(REACHED, FAMILIES),
        MATCHED: audited.null_gate(MATCHED),
    }

    def excess(*splits: str) -> Estimand:
        return lambda view: _mean(chosen.excess(view, *p, split) for p in _places(view.network) for split in splits)

    def oracle_gain(view: View) -> Floats:
        return _mean(chosen.gap(view, *p, UNSEEN) - chosen.oracle_gap(view, *p, UNSEEN) for p in _places(view.network))

    estimands = {"H1": excess(*SHIFTS), "H2": excess(UNSEEN), "H3": oracle_gain}
    return [audited.finding(c, {n: (estimands[c.id], n) for n in networks}, gates) for c in claims()]


def _places(network: str) -> list[tuple[str, str]]:
    """The grid that claims average over: every site with every family."""
    return [(site, family) for site in SITES[network] for family in FAMILIES]


def _mean(values: Iterable[Floats]) -> Floats:
    import numpy as np

    return np.asarray(np.mean(list(values), axis=0))


def _task(config: DigitsConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include={"rotation", "shift", "noise", "left_out"})


def task_splits(task: Any) -> dict[str, Split]:
    """The splits that a step's setting ``task`` describes."""
    from heldout.tasks.digits import DigitsSettings, digits

    return digits(DigitsSettings(**{**task, "left_out": tuple(task["left_out"])}))


def network_of(name: str, seed: int) -> Any:
    """The untrained ``mlp`` or ``cnn`` of a seed."""
    from heldout.training.seeds import initialised

    return initialised(lambda: made_network(name), seed)


def made_network(name: str) -> Any:
    from heldout.networks.cnn import CNN
    from heldout.networks.mlp import MLP
    from heldout.tasks.digits import CLASSES, SHAPE

    return MLP((64, *SITES["mlp"].values(), CLASSES)) if name == "mlp" else CNN(SHAPE, CLASSES)


def _grid(s: Any, site: str) -> dict[str, tuple[float | None, ...]]:
    """Family -> parameters at one site: no rank reaches beyond its width."""
    width = next(sites[site] for sites in SITES.values() if site in sites)
    return {
        "svd": tuple(r for r in s["ranks"] if r <= width),
        "kmeans": tuple(s["clusters"]),
        "haar": tuple(r for r in s["haar_ranks"] if r <= width),
        "mean": (None,),
    }


def _draws(s: Any) -> dict[str, int]:
    return {"kmeans": s["kmeans_draws"], "haar": s["haar_draws"]}


def _plan(s: Any) -> Plan:
    from heldout.analyses.audit import Plan

    return Plan(
        reference="id",
        tests=(*SHIFTS, UNSEEN),
        also=("fit",),
        families=FAMILIES,
        oracles=FAMILIES,
        threshold=THRESHOLD,
        null_draws=s["null_draws"],
        batch_size=1024,
    )


def _edits(subject: Subject, split: Split, s: Any, *, oracle: bool, wanted: Wanted | None) -> list[Edit]:
    from heldout.proxies.fit import Family, fit_edits

    edits = []
    for site in SITES[subject.name]:
        families = []
        for family, parameters in _grid(s, site).items():
            kept = tuple(int(p) for p in parameters if p and (wanted is None or (site, family, p) in wanted))
            draws = _draws(s).get(family, 1) if wanted is None else 1
            if kept or (family == "mean" and wanted is None):
                families += [Family(family, kept, draw=d) for d in range(draws)]
        if families:
            edits += fit_edits(
                subject.network,
                split,
                [site],
                families,
                oracle=oracle,
                sample=s["kmeans_sample"],
                batch_size=1024,
                device=subject.device,
            )
    return edits


def page(run: Run) -> Page:
    from heldout.studies.simplify import Shown, simplification_page

    config = DigitsConfig(**run.manifest["config"])
    shown = Shown(
        title=STUDY.title,
        question="Are simplified digit classifiers faithful on images that they were not fitted on?",
        reference="id",
        families=FAMILIES,
        unit="images",
        judge="digits-judge",
        training={f"{n} {s}": f"digits-train-{n}-s{s}" for n in config.networks for s in config.seed_list()},
    )
    return simplification_page(run, shown, task_splits(_task(config)))


STUDY = Study(
    name="digits",
    title="Handwritten digits",
    summary="An MLP and a CNN on scikit-learn's digits, simplified at their hidden layers, in and out of distribution.",
    config=DigitsConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "training_steps": 60,
            "ranks": (2, 8),
            "clusters": (4, 16),
            "kmeans_draws": 1,
            "haar_draws": 2,
            "null_draws": 2,
        },
        "laptop": {},
        "paper": {"seeds": 10},
    },
    claims=claims,
    steps=steps,
    page=page,
)
