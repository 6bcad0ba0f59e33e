"""Simplified models of real source code: do they stand in for their network on new packages and new languages?

After Friedman et al. (2023), *Interpretability Illusions in the Generalization of Simplified Models*, second half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.statistics.claims import Claim
from heldout.studies.base import SMOKE, Config, Study, departures
from heldout.training.settings import Precision

if TYPE_CHECKING:
    from heldout.figures.page import Page

NETWORK = "decoder"
PACKAGES = "python_packages"  # new text in the training language; every other test split is a new language
DATA, WEIGHTS = ("svd", "kmeans"), ("weights", "onehot")
FAMILIES = (*DATA, *WEIGHTS)
ALL = "all"  # the headline site: attention of every layer at once
LAYERS = "layers"
CORPUS = "code-corpus"
INTERACTION = "code-interaction"
THRESHOLD, DELTA = 0.95, 0.02
MARGIN_OVER_BIGRAM = 0.3  # nats a character by which a network must beat the bigram table on id
LEAST_INDUCTION = 0.2  # attention of the best head that G8, and G7 on repeated words, are judged from
GENERAL = 0.05  # how far below its accuracy on id a network may fall on a split and still generalise there

# gates
BEATS, INDUCES = "networks beat a bigram table", "a head does induction"
RISES = "agreement of {} rises with size"
REACHED = "{} keep .95 of the predictions on id_select and train_sample"
MATCH = "nulls of {} match"

Positive = Annotated[float, Field(gt=0)]


class CodeConfig(Config):
    """Settings of the code study; every field can be given as ``--set field=value``."""

    source: Literal["installed", "codesearchnet", "codesearchnet_hub", "folder"] = "installed"
    path: str = ""
    language: str = "java"
    globs: Mapping[str, tuple[str, ...]] = {}
    train_characters: PositiveInt = 9_000_000
    least_characters: Annotated[int, Field(ge=0)] = 20_000
    window: Annotated[int, Field(ge=8)] = 256
    windows: PositiveInt = 48
    units: PositiveInt = 24
    fit_windows: PositiveInt = 256

    layers: Annotated[int, Field(ge=1, le=1000)] = 2
    width: PositiveInt = 128
    heads: PositiveInt = 4
    # On seed 100 learned positions gave no induction head in 2750 steps (best score .002), sines did (.09).
    positions: Literal["learned", "sinusoidal"] = "sinusoidal"
    training_steps: PositiveInt = 2_400
    batch: PositiveInt = 8
    learning_rate: Positive = 2e-3
    warmup: Annotated[int, Field(ge=0)] = 50
    precision: Precision = "float32"

    sites: Annotated[tuple[str, ...], Field(min_length=1)] = (ALL,)
    ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (4, 8, 16, 20, 24, 28)
    clusters: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 64, 256)
    weight_ranks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (8, 16, 24, 28)
    haar_ranks: tuple[PositiveInt, ...] = (8, 24)
    haar_draws: PositiveInt = 3
    kmeans_draws: PositiveInt = 2
    kmeans_sample: PositiveInt = 4_000
    null_draws: PositiveInt = 5
    head_rank: PositiveInt = 2
    induction_heads: PositiveInt = 1
    random_draws: PositiveInt = 5
    stream_ranks: tuple[PositiveInt, ...] = (8, 16, 32, 64)  # those below the width; the width itself is always shown

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
        "code; character-level decoders of Python; keys, queries or patterns of every layer at once; each simplification at "
        "the size that the rank rule chooses; installed corpus"
    )
    gap = "excess gap from id (gap of the simplification minus that of its null), mean over"
    kinds = "excess gap from id on one kind of character minus that on another, either way (a part each), mean over"
    nothing = "arXiv 2312.03656 says so without a figure"
    ours = f"{nothing}; ours to ask of one family alone, in case the other keeps .95 at no size"
    reached = "each family that keeps .95 of the predictions on id_select in every seed"
    fitted, free = " and ".join(DATA), " and ".join(WEIGHTS)

    def claim(id: str, title: str, estimand: str, *gates: str, **more: Any) -> Claim:  # noqa: A002
        usual: dict[str, Any] = {"delta": DELTA, "scope": scope, "published": nothing}
        return Claim(id, title, estimand, gates=(BEATS, *gates), **{**usual, **more})

    def excess(id: str, title: str, estimand: str, families: str, *gates: str, **more: Any) -> Claim:  # noqa: A002
        """A claim on excess gaps of simplifications that are nearly the network in distribution, with nulls that match."""
        sizes = () if "onehot" in families else (RISES.format(families),)
        null = "noise of the same agreement on id at the same place"
        usual = (*sizes, REACHED.format(families), MATCH.format(families))
        return claim(id, title, estimand, *usual, *gates, null=null, **more)

    words = "starts of words against their fourth and later characters"
    repeated = "insides of repeated against insides of new words"
    return [
        excess(
            "G1",
            "Simplifications fitted on data lose faithfulness out of distribution",
            f"{gap} {{SVD, k-means}} x (new packages and new languages)",
            fitted,
        ),
        excess("G1-svd", "The same for SVD alone", f"{gap} new packages and new languages, SVD", "svd", published=ours),
        excess(
            "G2",
            "So do simplifications that do not depend on data",
            f"{gap} {{weights-only SVD, one-hot attention}} x (new packages and new languages)",
            free,
        ),
        excess(
            "G2-weights",
            "The same for weights-only SVD alone",
            f"{gap} new packages and new languages, weights-only SVD",
            "weights",
            published=ours,
        ),
        claim(
            "G3",
            "Simplifications can underestimate how well the network generalises",
            f"network accuracy minus proxy accuracy; a part for {reached} x each split on which every network's accuracy is "
            f"at most {GENERAL} below that on id",
            kind="existence",
        ),
        claim(
            "G4",
            "Simplifications can generalise better than the network",
            f"proxy accuracy minus network accuracy; a part for {reached} x each of new packages and new languages",
            kind="existence",
        ),
        excess(
            "G6",
            "Simplifications lose faithfulness on new languages",
            f"{gap} {{SVD, k-means}} x new languages",
            fitted,
        ),
        excess("G6-svd", "The same for SVD alone", f"{gap} new languages, SVD", "svd", published=ours),
        excess(
            "G7",
            "The gap differs between kinds of character",
            f"{kinds} {{SVD, k-means}} x new languages: {words}",
            fitted,
            kind="existence",
        ),
        excess(
            "G7-svd",
            "The same for SVD alone",
            f"{kinds} new languages, SVD: {words}",
            "svd",
            kind="existence",
            published=ours,
        ),
        excess(
            "G7-words",
            "The gap differs between repeated and new words",
            f"{kinds} new languages, SVD: {repeated}",
            "svd",
            INDUCES,
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


SHAPE = ("layers", "width", "heads", "positions", "window")
GRID = (
    *("sites", "ranks", "clusters", "weight_ranks", "haar_ranks", "haar_draws", "kmeans_draws", "kmeans_sample"),
    "null_draws",
)


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, CodeConfig)
    shape, grid = _some(config, *SHAPE), _some(config, *GRID)
    heads = _some(config, "head_rank", "induction_heads", "random_draws")
    made, streams = trained_steps(config), stream_steps(config)
    finished = {"corpus": CORPUS}
    for seed in config.seed_list():
        own = {"shape": shape, "seed": seed}
        inputs = {"corpus": CORPUS, "weights": weights(seed)}
        made.append(Step(f"code-audit-s{seed}", audit_network, own | grid, inputs))
        made.append(Step(f"code-heads-s{seed}", study_heads, own | heads, inputs))
        chosen = inputs | {"audit": f"code-audit-s{seed}"}
        made.append(Step(f"code-warn-s{seed}", warn_early, own | grid, chosen))
        finished |= {f"{part}-{seed}": f"code-{part}-s{seed}" for part in ("audit", "heads", "warn")}
    scored = {f"scores-{seed}": step.name for seed, step in zip(config.seed_list(), streams, strict=True)}
    made += [*streams, Step(INTERACTION, join_stream, _beside(config), {"corpus": CORPUS, **scored})]
    judged = {"shape": shape, "seeds": config.seed_list(), "not_judged": not_judged}
    made.append(Step("code-judge", judge_claims, judged | grid | heads, finished))
    return made


def trained_steps(config: CodeConfig) -> list[Step]:
    """The corpus, and a trained decoder for each seed. Another study that lists them shares what they made."""
    corpus = _some(config, "source", "path", "language", "globs", "train_characters", "least_characters", "window")
    corpus |= _some(config, "windows", "units", "fit_windows")
    train = _some(config, "training_steps", "batch", "learning_rate", "warmup") | departures(config, "precision")
    # What lies in the folders is part of what the corpus is: when a package changes, so does the step's key.
    made = [Step(CORPUS, make_corpus, corpus | {"fingerprint": _fingerprint(corpus)})]
    for seed in config.seed_list():
        own = {"shape": _some(config, *SHAPE), "seed": seed}
        made.append(Step(weights(seed), train_network, own | train, {"corpus": CORPUS}))
    return made


def stream_steps(config: CodeConfig) -> list[Step]:
    """One a seed: the interaction basis of the residual stream scored beside principal components."""
    return [
        Step(
            f"{INTERACTION}-s{seed}",
            score_stream,
            _beside(config) | {"seed": seed},
            {"corpus": CORPUS, "weights": weights(seed)},
        )
        for seed in config.seed_list()
    ]


def weights(seed: int) -> str:
    """The step that trains this seed's decoder."""
    return f"code-train-s{seed}"


def _beside(config: CodeConfig) -> dict[str, Any]:
    ranks = [*(r for r in config.stream_ranks if r < config.width), config.width]
    return {"shape": _some(config, *SHAPE), "stream_ranks": ranks}


def _some(config: CodeConfig, *names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


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


def score_stream(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.score_stream(ctx)


def join_stream(ctx: StepContext) -> None:
    from heldout.studies import code_audit

    code_audit.join_stream(ctx)


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
            "ranks": (2, 8),
            "clusters": (4,),
            "weight_ranks": (2, 8),
            "haar_ranks": (2,),
            "haar_draws": 1,
            "kmeans_draws": 1,
            "kmeans_sample": 200,
            "null_draws": 2,
            "random_draws": 2,
            "stream_ranks": (4,),
        },
        "demo": {
            "seeds": 1,
            "training_steps": 1_000,
            "windows": 32,
            "units": 16,
            "ranks": (8, 16, 24, 28),
            "clusters": (16, 64),
            "weight_ranks": (16, 24, 28),
            "haar_ranks": (8,),
            "haar_draws": 2,
            "kmeans_draws": 1,
            "kmeans_sample": 2_000,
            "null_draws": 3,
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
            "positions": "learned",
            "training_steps": 50_000,
            "batch": 64,
            "learning_rate": 5e-4,
            "warmup": 1_000,
            "sites": (LAYERS, ALL),
            "ranks": (1, 2, 4, 8, 16, 32, 48),
            "weight_ranks": (1, 2, 4, 8, 16, 32, 48),
            "haar_ranks": (2, 8, 32),
            "haar_draws": 20,
            "kmeans_draws": 5,
            "kmeans_sample": 20_000,
            "null_draws": 20,
            "random_draws": 20,
            "stream_ranks": (1, 2, 4, 8, 16, 32, 64, 128),
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
