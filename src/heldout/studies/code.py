"""Simplified models of real source code: do they stand in for their network on new packages and new languages?

After Friedman et al. (2023), *Interpretability Illusions in the Generalization of Simplified Models*, second half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study

if TYPE_CHECKING:
    from heldout.figures.page import Page

NETWORK = "decoder"
PACKAGES = "python_packages"  # new text in the training language; every other test split is a new language
DATA, WEIGHTS = ("svd", "kmeans"), ("weights", "onehot")
FAMILIES = (*DATA, *WEIGHTS)
ALL = "all"  # the headline site: attention of every layer at once
LAYERS = "layers"
CORPUS = "code-corpus"
THRESHOLD, DELTA = 0.95, 0.02
MARGIN_OVER_BIGRAM = 0.3  # nats a character by which a network must beat the bigram table on id
LEAST_INDUCTION = 0.2  # attention of the best head that G8, and repeated words in G7, are judged from
GENERAL = 0.05  # how far below its accuracy on id a network may fall on a split and still generalise there
BEATS, INDUCES = "networks beat a bigram table", "a head does induction"
# The mean of a claim is over those of its families that reach the threshold on the select split, for every seed.
REACHED, MATCH = "one of {} keeps .95 on id_select", "nulls of {} match"

Positive = Annotated[float, Field(gt=0)]


class CodeConfig(Config):
    """Settings of the code study; every field can be given as ``--set field=value``."""

    source: Literal["installed", "codesearchnet", "codesearchnet_hub", "folder"] = "installed"
    path: str = ""
    language: str = "java"
    globs: Mapping[str, tuple[str, ...]] = {}
    train_characters: PositiveInt = 9_000_000
    least_characters: Annotated[int, Field(ge=0)] = 20_000
    window: Annotated[int, Field(ge=8)] = 128
    windows: PositiveInt = 64
    units: PositiveInt = 24
    fit_windows: PositiveInt = 512

    layers: PositiveInt = 2
    width: PositiveInt = 128
    heads: PositiveInt = 4
    training_steps: PositiveInt = 3_000
    batch: PositiveInt = 16
    learning_rate: Positive = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 50

    sites: Annotated[tuple[str, ...], Field(min_length=1)] = (LAYERS, ALL)
    ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 24)
    clusters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (4, 16, 64, 256)
    weight_ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 4, 8, 16, 24)
    haar_ranks: tuple[PositiveInt, ...] = (4, 16)
    haar_draws: PositiveInt = 5
    kmeans_draws: PositiveInt = 2
    kmeans_sample: PositiveInt = 4_000
    null_draws: PositiveInt = 5
    head_rank: PositiveInt = 2
    induction_heads: PositiveInt = 2
    random_draws: PositiveInt = 5

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} is not a multiple of heads ({self.heads})")
        own = self.width // self.heads
        named = {"ranks": self.ranks, "weight_ranks": self.weight_ranks, "haar_ranks": self.haar_ranks}
        for field, ranks in {**named, "head_rank": (self.head_rank,)}.items():
            if too_large := [r for r in ranks if r > own]:
                raise ValueError(f"{field}: rank {too_large[0]} is above the width of a head ({own})")
        if max(self.clusters) > self.kmeans_sample:
            raise ValueError(f"clusters: {max(self.clusters)} clusters of {self.kmeans_sample} points")
        if 2 * self.induction_heads > self.heads * self.layers:
            raise ValueError(
                f"induction_heads: {self.induction_heads} cannot be set beside as many others of {self.heads * self.layers}"
            )
        if ALL not in self.sites:
            raise ValueError(f"sites: {ALL!r} must be among them, the site that the claims are about")
        known = {LAYERS, ALL, *(f"blocks.{i}.{part}" for i in range(self.layers) for part in ("mlp", "attn"))}
        if unknown := [s for s in self.sites if s not in known]:
            raise ValueError(f"sites: {unknown[0]!r} is not known; choose from {', '.join(sorted(known))}")
        return self


def claims() -> list[Claim]:
    scope = (
        "code; character-level decoders; keys, queries or patterns of every layer at once, at the size that the rank rule "
        "chooses; of each pair of simplifications those that keep .95 of the predictions on id_select, for every seed; "
        "installed corpus"
    )
    null = "noise at the same site with the same agreement on id"
    nothing = "existence only; no number is known"

    def claim(id: str, title: str, estimand: str, *gates: str, **more: Any) -> Claim:  # noqa: A002
        usual: dict[str, Any] = {"delta": DELTA, "scope": scope, "published": nothing}
        return Claim(id, title, estimand, gates=(BEATS, *gates), **{**usual, **more})

    data = (REACHED.format("svd and kmeans"), MATCH.format("svd and kmeans"))
    return [
        claim(
            "G1",
            "Simplifications fitted on data lose faithfulness out of distribution",
            "gap (agreement on id minus on the split) minus that of the null, mean over SVD and k-means and all "
            "out-of-distribution splits",
            *data,
            null=null,
        ),
        claim(
            "G2",
            "So do simplifications that do not depend on data",
            "the same, mean over weights-only SVD and one-hot attention",
            REACHED.format("weights and onehot"),
            MATCH.format("weights and onehot"),
            null=null,
        ),
        claim(
            "G3",
            "Simplifications can underestimate how well the network generalises",
            "accuracy of the network minus the simplification's, where the network's is within .05 of its accuracy on id; "
            "one part for each simplification and such split",
            kind="existence",
        ),
        claim(
            "G4",
            "Simplifications can generalise better than the network",
            "accuracy of the simplification minus the network's, one part for each simplification and out-of-distribution "
            "split",
            kind="existence",
        ),
        claim(
            "G6",
            "Simplifications lose faithfulness on new languages",
            "gap minus that of the null, mean over SVD and k-means and all new languages",
            *data,
            null=null,
        ),
        claim(
            "G7",
            "The gap differs between kinds of character",
            "gap on one kind minus gap on another, mean over SVD and k-means and new languages: starts against insides of "
            "words, and insides of repeated against new words where heads do induction; each either way",
            data[0],
            kind="existence",
        ),
        claim(
            "G8",
            "Simplifying induction heads costs more on repeated words than simplifying as many other heads",
            "agreement inside repeated words on id with random heads simplified minus with the heads of highest induction "
            "score simplified (SVD of keys and queries)",
            INDUCES,
            null="as many random other heads",
        ),
    ]


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, CodeConfig)

    def some(*names: str) -> dict[str, Any]:
        return {name: getattr(config, name) for name in names}

    corpus = some("source", "path", "language", "globs", "train_characters", "least_characters", "window")
    corpus |= some("windows", "units", "fit_windows")
    shape = some("layers", "width", "heads", "window")
    train = some("training_steps", "batch", "learning_rate", "warmup")
    grid = some(
        "sites", "ranks", "clusters", "weight_ranks", "haar_ranks", "haar_draws", "kmeans_draws", "kmeans_sample"
    )
    grid |= some("null_draws")
    heads = some("head_rank", "induction_heads", "random_draws")
    # What lies in the folders is part of what the corpus is: when a package changes, so does the step's key.
    made = [Step(CORPUS, make_corpus, corpus | {"fingerprint": _fingerprint(corpus)})]
    finished = {"corpus": CORPUS}
    for seed in config.seed_list():
        own = {"shape": shape, "seed": seed}
        weights = f"code-train-s{seed}"
        inputs = {"corpus": CORPUS, "weights": weights}
        made.append(Step(weights, train_network, own | train, {"corpus": CORPUS}))
        made.append(Step(f"code-audit-s{seed}", audit_network, own | grid, inputs))
        made.append(Step(f"code-heads-s{seed}", study_heads, own | heads, inputs))
        chosen = inputs | {"audit": f"code-audit-s{seed}"}
        made.append(Step(f"code-warn-s{seed}", warn_early, own | grid, chosen))
        finished |= {f"{part}-{seed}": f"code-{part}-s{seed}" for part in ("audit", "heads", "warn")}
    judged = {"shape": shape, "seeds": config.seed_list(), "not_judged": not_judged}
    made.append(Step("code-judge", judge_claims, judged | grid | heads, finished))
    return made


def make_corpus(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.make_corpus(ctx)


def train_network(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.train_network(ctx)


def audit_network(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.audit_network(ctx)


def study_heads(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.study_heads(ctx)


def warn_early(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.warn_early(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import code_judge

    code_judge.judge_claims(ctx)


def _fingerprint(corpus: Mapping[str, Any]) -> str:
    from heldout.tasks.code.corpora import fingerprint
    from heldout.tasks.code.settings import CodeSettings

    return fingerprint(CodeSettings(**corpus))


def page(run: Run) -> Page:
    from heldout.studies.code_page import code_page

    return code_page(run)


_SMALL = {"ranks": (4, 8, 16, 24), "clusters": (16, 64, 256), "weight_ranks": (8, 16, 24), "haar_ranks": (8,)}

STUDY = Study(
    name="code",
    title="Source code, one character at a time",
    summary="Decoders trained on Python's standard library, simplified in attention; new packages and new languages.",
    config=CodeConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "train_characters": 120_000,
            "windows": 24,
            "units": 12,
            "fit_windows": 32,
            "window": 64,
            "width": 32,
            "heads": 2,
            "training_steps": 30,
            "warmup": 5,
            "sites": (ALL,),
            "ranks": (2, 8),
            "clusters": (4,),
            "weight_ranks": (2, 8),
            "haar_ranks": (2,),
            "haar_draws": 1,
            "kmeans_draws": 1,
            "kmeans_sample": 200,
            "null_draws": 2,
            "random_draws": 2,
        },
        "demo": {
            "seeds": 1,
            "training_steps": 2_000,
            "windows": 48,
            "fit_windows": 256,
            "sites": (ALL,),
            "haar_draws": 2,
            "kmeans_draws": 1,
            "kmeans_sample": 2_000,
            "null_draws": 3,
            **_SMALL,
        },
        "laptop": {},
        "paper": {
            "seeds": 5,
            "source": "codesearchnet",
            "path": "codesearchnet",
            "train_characters": 200_000_000,
            "window": 256,
            "windows": 2_000,
            "units": 400,
            "fit_windows": 1_000,
            "layers": 4,
            "width": 256,
            "training_steps": 50_000,
            "batch": 64,
            "learning_rate": 5e-4,
            "warmup": 1_000,
            "ranks": (1, 2, 4, 8, 16, 32, 48),
            "weight_ranks": (1, 2, 4, 8, 16, 32, 48),
            "haar_ranks": (2, 8, 32),
            "haar_draws": 20,
            "kmeans_draws": 5,
            "kmeans_sample": 20_000,
            "null_draws": 20,
            "random_draws": 20,
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
