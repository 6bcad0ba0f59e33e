"""Are simplified transformers faithful out of distribution? Friedman et al., on nested brackets.

A small transformer learns Dyck-(k, m). Its attention is simplified (SVD, clusters, truncated weights, one-hot) and the
simplified network is compared with it on unseen structures and unseen depths. This module is the study's settings,
steps and claims; what the steps do is in `dyck_audit`, `dyck_components` and `dyck_judge`, the page in `dyck_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, departures
from heldout.training.settings import Precision

if TYPE_CHECKING:
    from heldout.figures.page import Page

NETWORK = "transformer"
INTERACTION = "dyck-interaction"
DATA, WEIGHTS = ("svd", "kmeans"), ("onehot", "weights")  # families that depend on data, and that do not
FAMILIES = (*DATA, *WEIGHTS)
STRUCTURES = ("unseen_structure_short", "unseen_structure_long")
DEPTH, MATCHED_LENGTH, SEEN = "unseen_depth", "unseen_depth_length_matched", "seen_structure"
OUT = (*STRUCTURES, DEPTH)  # what the paper calls out of distribution
TESTS = (SEEN, *OUT, MATCHED_LENGTH)
REACH = 10  # a closing bracket is scored when its opening one is so many tokens back
THRESHOLD, DELTA = 0.95, 0.02
LEAST_ERRORS = 50  # network errors below which error consistency is not judged

# gates
ACCURATE = "networks generalise"
RISES = "agreement of {} rises with size"
REACHED = "{} keep .95 of the predictions on train"
MATCH = "nulls of {} match"

Size = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class DyckConfig(Config):
    """Settings of the dyck study; every field can be given as ``--set field=value``.

    The task: `brackets` (k) types at most `depth` (m) deep; unseen depths come from the language of depth `deeper`;
    sentences have at most `cap` tokens. `sentences` and `scored` are the least of each test split; analyses beside the
    headline look at `side_sentences` of them, at the sizes `side_sizes`. Training is in `precision`. Each seed's `batches`
    are bucketed by length on their own; ``aligned``, those of one step have one shape for all seeds, which can then be
    trained as one computation.
    """

    brackets: PositiveInt = 20
    depth: PositiveInt = 10
    deeper: PositiveInt = 20
    cap: Annotated[int, Field(ge=4)] = 256
    structure: Literal["sentence", "component"] = "sentence"
    train_sentences: PositiveInt = 200_000
    sentences: PositiveInt = 2_000
    scored: Annotated[int, Field(ge=0)] = 5_000
    width: PositiveInt = 64
    heads: PositiveInt = 1
    layers: Annotated[int, Field(ge=2)] = 2
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    norm: Literal["pre", "post", "none"] = "pre"
    training_steps: PositiveInt = 3_000
    warmup: Annotated[int, Field(ge=0)] = 200
    batch: PositiveInt = 8_000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    precision: Precision = "float32"
    batches: Literal["own", "aligned"] = "own"
    fit_sentences: PositiveInt = 1_000
    basis: Literal["joint", "separate"] = "joint"
    centred: bool = False
    ranks: Size = (1, 2, 4, 8, 16, 32, 64)
    clusters: Size = (2, 4, 8, 16, 32, 64)
    kmeans_draws: PositiveInt = 5
    kmeans_restarts: PositiveInt = 3
    kmeans_sample: PositiveInt = 10_000
    top_k: tuple[PositiveInt, ...] = (2, 4)
    haar_ranks: tuple[PositiveInt, ...] = (8, 16)
    haar_draws: PositiveInt = 20
    null_draws: PositiveInt = 20
    side_sentences: PositiveInt = 500
    side_sizes: Size = (4, 16, 32)
    targets: tuple[Literal["value", "residual", "mlp"], ...] = ("value", "residual", "mlp")
    addback_ranks: tuple[PositiveInt, ...] = (4, 8, 16)

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.deeper < self.depth + 2:
            raise ValueError(
                f"deeper (m') must be at least depth + 2 = {self.depth + 2}, got {self.deeper}: only brackets whose pair is "
                f"{REACH} or more tokens apart are scored, and a pair at the deepest level closes at once, so none beyond "
                f"depth {self.depth} would ever be scored"
            )
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and {self.heads} heads")
        if self.batch <= self.cap:
            raise ValueError(f"batch must hold the longest sentence and its start, {self.cap + 1}; got {self.batch}")
        if self.warmup > self.training_steps:
            raise ValueError(f"warmup must be at most training_steps ({self.training_steps}), got {self.warmup}")
        if self.train_sentences < self.fit_sentences + self.sentences:
            raise ValueError(
                f"train_sentences must be at least fit_sentences + sentences ({self.fit_sentences + self.sentences}), got "
                f"{self.train_sentences}"
            )
        head = self.width // self.heads
        for field in ("ranks", "haar_ranks", "side_sizes", "addback_ranks"):
            if too_large := [r for r in getattr(self, field) if r > head]:
                raise ValueError(f"{field}: rank {too_large[0]} is above the width of a head; at most {head}")
        if max(self.clusters) > self.kmeans_sample:
            raise ValueError(
                f"clusters: {max(self.clusters)} clusters of {self.kmeans_sample} rows; raise kmeans_sample"
            )
        return self


_TASK = {"brackets", "depth", "deeper", "cap", "structure", "train_sentences", "sentences", "scored", "fit_sentences"}
_NETWORK = {"width", "heads", "layers", "positions", "norm"}
_TRAINING = {"training_steps", "warmup", "batch", "learning_rate"}
_YOUNGER = ("precision", "batches")
_FIT = {"basis", "centred", "kmeans_restarts", "kmeans_sample"}
_GRID = {"ranks", "clusters", "kmeans_draws", "top_k", "haar_ranks", "haar_draws", "null_draws"}
_SIDE = {"side_sentences", "side_sizes", "targets", "addback_ranks"}


def step_settings(config: DyckConfig) -> dict[str, Any]:
    """The configuration as the steps have it: the task's and the network's fields together."""
    plain = config.model_dump(mode="json")
    return {**plain, "task": {k: plain[k] for k in sorted(_TASK)}, "network": {k: plain[k] for k in sorted(_NETWORK)}}


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, DyckConfig)

    every = step_settings(config)

    def fields(names: set[str]) -> dict[str, Any]:
        return {name: every[name] for name in sorted(names)}

    shared = fields({"task", "network"})
    seeds = config.seed_list()
    training = shared | fields(_TRAINING) | departures(config, *_YOUNGER)
    together = train_networks if config.batches == "aligned" else None
    trains = [Step(f"dyck-train-s{s}", train_network, training | {"seed": s}, together=together) for s in seeds]
    audits: list[Step] = []
    parts: list[Step] = []
    judged: dict[str, str] = {}
    for i, seed in enumerate(seeds):
        name = {kind: f"dyck-{kind}-s{seed}" for kind in ("train", "audit", "components")}
        own = shared | fields(_FIT | _GRID) | {"seed": seed}
        audits.append(Step(name["audit"], audit_network, own, {"weights": name["train"]}))
        inputs = {"weights": name["train"], "audit": name["audit"]}
        if len(seeds) > 1:
            inputs["other"] = trains[(i + 1) % len(seeds)].name
        parts.append(Step(name["components"], examine_components, own | fields(_SIDE), inputs))
        judged |= {f"audit-{seed}": name["audit"], f"components-{seed}": name["components"]}
    settings = shared | fields(_GRID | _SIDE) | {"seeds": seeds, "not_judged": not_judged}
    beside = _interaction(config, shared | fields({"side_sentences"}))
    return [*trains, *audits, *parts, *beside, Step("dyck-judge", judge_claims, settings, judged)]


def _interaction(config: DyckConfig, shared: dict[str, Any]) -> list[Step]:
    """The interaction basis of the residual stream, one step a network and one that joins them; no claim reads it."""
    own = shared | {"stream_ranks": [*(r for r in config.ranks if r < config.width), config.width]}
    found = [
        Step(f"{INTERACTION}-s{s}", score_stream, own | {"seed": s}, {"weights": f"dyck-train-s{s}"})
        for s in config.seed_list()
    ]
    return [*found, Step(INTERACTION, join_stream, own, {f"scores-{i}": step.name for i, step in enumerate(found)})]


# What the steps do is loaded when they run: listing and showing the study stay instant.


def train_network(ctx: StepContext) -> None:
    from heldout.studies import dyck_audit

    dyck_audit.train_network(ctx)


def train_networks(contexts: Sequence[StepContext]) -> None:
    from heldout.studies import dyck_audit

    dyck_audit.train_networks(contexts)


def audit_network(ctx: StepContext) -> None:
    from heldout.studies import dyck_audit

    dyck_audit.audit_network(ctx)


def examine_components(ctx: StepContext) -> None:
    from heldout.studies import dyck_components

    dyck_components.examine_components(ctx)


def score_stream(ctx: StepContext) -> None:
    from heldout.studies import dyck_components

    dyck_components.score_stream(ctx)


def join_stream(ctx: StepContext) -> None:
    from heldout.studies import dyck_components

    dyck_components.join_stream(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import dyck_judge

    dyck_judge.judge_claims(ctx)


def claims() -> list[Claim]:
    scope = (
        "Dyck-(20,10), second layer's attention; each simplification at the size that the rank rule chooses; out of "
        "distribution: unseen structures of at most and of more than 32 tokens, unseen depth"
    )
    null = "noise of the same agreement on id at the same place, 20 draws"
    paper = "arXiv 2312.03656"
    svd, data, plain = "svd", "svd and kmeans", "onehot and weights"
    gap = "excess gap from id (gap of the simplification minus that of its null), mean over"
    said = f"{paper}: said without a figure in its abstract"
    return [
        Claim(
            id="G1",
            title="Simplifications fitted on training data are less faithful out of distribution",
            estimand=f"{gap} {{SVD, k-means}} x splits",
            gates=(ACCURATE, RISES.format(data), REACHED.format(data), MATCH.format(data)),
            null=null,
            published=said,
            delta=DELTA,
            scope=scope,
        ),
        Claim(
            id="G1-svd",
            title="The same for SVD alone",
            estimand=f"{gap} splits, SVD",
            gates=(ACCURATE, RISES.format(svd), REACHED.format(svd), MATCH.format(svd)),
            null=null,
            published=f"{said}; ours to ask of SVD alone, since k-means kept .95 at no size on the tuning seed",
            delta=DELTA,
            scope=scope,
        ),
        Claim(
            id="G2",
            title="So are simplifications that do not depend on data",
            estimand=f"{gap} {{one-hot attention, weights-only SVD}} x splits",
            gates=(ACCURATE, REACHED.format(plain), MATCH.format(plain)),
            null=null,
            published=said,
            delta=DELTA,
            scope=scope,
        ),
        Claim(
            id="G3",
            title="A simplification can fail where its network generalises",
            estimand="network accuracy minus proxy accuracy; a part for each family x unseen-structure split on which every "
            "network has accuracy .9 and the family keeps .95 of the predictions on the select split",
            gates=(ACCURATE,),
            published=f"{paper}: 'underestimates', no figure known",
            kind="existence",
            delta=DELTA,
            scope=scope,
        ),
        Claim(
            id="G4",
            title="A simplification can generalise better than its network",
            estimand="proxy accuracy minus network accuracy on unseen depth; a part for each family that keeps .95 of the "
            "predictions on the select split",
            gates=(ACCURATE,),
            published=f"{paper}: some simplifications 'generalise better', no figure known",
            kind="existence",
            delta=DELTA,
            scope=scope,
        ),
        Claim(
            id="G5",
            title="Errors of network and simplification overlap less beyond the depth seen in training",
            estimand="kappa of errors up to depth 10 minus beyond it, on unseen depth, SVD",
            gates=(ACCURATE, REACHED.format("svd")),
            published=f"{paper}: error patterns diverge at depths greater than ten, no figure known",
            delta=DELTA,
            scope=scope,
        ),
    ]


def page(run: Run) -> Page:
    from heldout.studies.dyck_page import dyck_page

    return dyck_page(run, DyckConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="dyck",
    title="Nested brackets",
    summary="A transformer on Dyck-(20,10), its attention simplified, on unseen structures and unseen depths.",
    config=DyckConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "brackets": 8,
            "depth": 5,
            "deeper": 9,
            "cap": 100,
            "train_sentences": 2_000,
            "sentences": 40,
            "scored": 100,
            "fit_sentences": 100,
            "width": 32,
            "training_steps": 50,
            "warmup": 20,
            "batch": 1_000,
            "ranks": (2, 8, 32),
            "clusters": (4,),
            "kmeans_draws": 1,
            "kmeans_sample": 500,
            "top_k": (2,),
            "haar_ranks": (8,),
            "haar_draws": 2,
            "null_draws": 2,
            "side_sentences": 40,
            "side_sizes": (8,),
            "targets": ("value",),
            "addback_ranks": (8,),
        },
        "laptop": {},
        "paper": {
            "seeds": 10,
            "batches": "aligned",
            "cap": 512,
            "training_steps": 50_000,
            "warmup": 1_000,
            "learning_rate": 1e-3,
            "kmeans_restarts": 10,
            "clusters": (2, 4, 8, 16, 32, 64, 128, 256, 512),
            "top_k": (2, 4, 8),
            "side_sentences": 2_000,
            "side_sizes": (1, 2, 4, 8, 16, 32, 64),
            "haar_ranks": (1, 2, 4, 8, 16, 32, 64),
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
