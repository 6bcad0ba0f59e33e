"""The conditions of the features study, as data: what is learned, by which network, how, in which order.

A `Condition` is one way of training; its seeds are trained side by side by `features_training.train_condition`. An
experiment is a set of conditions that are compared, and most share the headline condition. Defaults are this project's
own (the paper's sizes and rates are not known); section 9 of `hermann2020` is the one published set-up here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from heldout.errors import ConfigError, unknown
from heldout.networks.mlp import ACTIVATIONS, NORMS, VARIANCES, Activation, Initialisation, Norm
from heldout.tasks.features import PRESETS, FeaturesSettings, hermann2020
from heldout.training.settings import OPTIMIZERS, Optimizer

Order = Literal["shared", "own"]
EASY, HARD = 0, 1  # the places of the two features in a pair
FULL_BATCH = 0


@dataclass(frozen=True)
class Phase:
    """`steps` updates on the labels of the features numbered in `trains` (None: all); with `interleaved`, on one of
    them at a time, in turns."""

    steps: int
    trains: tuple[int, ...] | None = None
    interleaved: bool = False


@dataclass(frozen=True)
class Condition:
    """One way of training.

    - `task`: features, rows, prevalence, predictivity. `hidden`: widths of the hidden layers.
    - `activation`, `init`, `gain`, `norm`, `dropout`: see `heldout.networks.mlp.MLP`.
    - `optimizer`, `learning_rate`, `momentum`, `weight_decay`: see `TrainSettings`; the rate is constant, nothing is
      clipped. `batch`: rows an update; `FULL_BATCH` takes them all.
    - `phases`: what is trained when; none leaves the networks as they are initialised. The optimiser goes on through
      all of them.
    - `smoothing`: of labels; `flip`: chance that a bit of a training row is flipped, drawn anew at each update.
    - `looks`: accuracies are taken at so many logarithmically spaced updates, and at the end of each phase;
      `trajectory` keeps the weights there too.
    """

    name: str
    note: str
    task: FeaturesSettings = PRESETS["default"]
    hidden: tuple[int, ...] = (256, 128, 64, 64)
    activation: Activation = "relu"
    init: Initialisation = "torch"
    gain: float = 1.0
    norm: Norm | None = None
    dropout: float = 0.0
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch: int = 256
    phases: tuple[Phase, ...] = (Phase(5000),)
    smoothing: float = 0.0
    flip: float = 0.0
    looks: int = 20
    trajectory: bool = False

    def __post_init__(self) -> None:
        for kind, given, valid in (
            ("activation", self.activation, ACTIVATIONS),
            ("init", self.init, VARIANCES),
            ("norm", self.norm or "layer", NORMS),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if given not in valid:
                raise ConfigError(f"condition {self.name!r}: {unknown(kind, str(given), valid)}")
        outputs = 1 if self.task.outputs == "label" else len(self.task.features)
        trained = [f for phase in self.phases for f in phase.trains or ()]
        rules = {
            "hidden": (len(self.hidden) > 0 and min(self.hidden) >= 1, "one positive width a layer, at least one"),
            "batch": (
                0 <= self.batch <= self.task.train,
                f"from 1 to the rows of train ({self.task.train}), or 0 for all",
            ),
            "phases": (
                all(p.steps >= 1 and p.trains != () for p in self.phases) and all(0 <= f < outputs for f in trained),
                f"phases of 1 or more steps that train outputs 0 to {outputs - 1}",
            ),
            "smoothing": (0 <= self.smoothing < 1, "from 0 to below 1"),
            "flip": (0 <= self.flip < 0.5, "from 0 to below .5"),
            "looks": (self.looks >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ConfigError(f"condition {self.name!r}: {name} must be {rule}, got {getattr(self, name)!r}")

    @property
    def steps(self) -> int:
        """Updates in all phases together."""
        return sum(phase.steps for phase in self.phases)

    def record(self) -> dict[str, Any]:
        """Every setting as JSON holds it, but the note: what a step's key is made of."""
        plain = asdict(self)
        del plain["note"]
        return plain

    def shortened(self, share: float, **task: Any) -> Condition:
        """The same with `share` of every phase's steps and other settings of the task: for smoke runs."""
        phases = tuple(replace(p, steps=max(1, round(p.steps * share))) for p in self.phases)
        smaller = replace(self.task, **task)
        return replace(self, phases=phases, task=smaller, batch=min(self.batch, smaller.train))


def layers(depth: int, width: float = 1.0) -> tuple[int, ...]:
    """Hidden widths of `depth` layers: 256, 128 and then 64, the last always 64, so that what is measured there has
    one size; all times `width`."""
    before = (256, 128, *[64] * depth)[: depth - 1]
    return tuple(round(w * width) for w in (*before, 64))


def pair(hard: str, easy: str = "bit", **task: Any) -> FeaturesSettings:
    """An easy and a hard feature, each of its own half of 32 bits."""
    return FeaturesSettings(features=(easy, hard), **task)


def equal(share: float, rarity: str, feature: str = "bit") -> FeaturesSettings:
    """Two features of one kind, the first of them present in `share` of train."""
    return FeaturesSettings(features=(feature, feature), prevalence=(share, 1.0), rarity=rarity)  # type: ignore[arg-type]


def slow(hard: str) -> dict[str, Any]:
    """More updates for what SGD learns late."""
    return {"phases": (Phase(12_000),)} if hard == "parity:3" else {}


ADAM: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-3, "phases": (Phase(2500),)}
MOMENTUM: dict[str, Any] = {"momentum": 0.9, "learning_rate": 0.05}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": MOMENTUM,
    "adam": ADAM,
    "adamw-.01": ADAM | {"optimizer": "adamw", "weight_decay": 0.01},
    "adamw-.1": ADAM | {"optimizer": "adamw", "weight_decay": 0.1},
    "rmsprop": ADAM | {"optimizer": "rmsprop"},
}
DROPOUTS = (0.1, 0.25, 0.5)
SHARES = (0.1, 0.25, 0.5)
FIRST = 5000  # updates of pre-training
DEEP = 8000  # updates of each depth

HEADLINE = Condition("headline", "bit and parity:2 together, SGD", looks=50, trajectory=True)
ADAM_XOR = Condition("adam", "bit and parity:2 together, Adam", **ADAM)
XORS = pair("xor_of_xors")

_CONDITIONS = [
    HEADLINE,
    ADAM_XOR,
    Condition("momentum", "bit and parity:2 together, SGD with momentum", **MOMENTUM),
    # E2: one feature alone, and no training
    Condition("easy-only", "trained on the easy feature alone", phases=(Phase(5000, (EASY,)),)),
    Condition("hard-only", "trained on the hard feature alone", phases=(Phase(5000, (HARD,)),)),
    Condition("untrained", "as initialised", phases=(), looks=0),
    Condition(
        "adam-easy-only", "trained on the easy feature alone, Adam", **ADAM | {"phases": (Phase(2500, (EASY,)),)}
    ),
    Condition(
        "adam-hard-only", "trained on the hard feature alone, Adam", **ADAM | {"phases": (Phase(2500, (HARD,)),)}
    ),
    # E3: bit beside features of growing complexity, and all of them in one network
    *(
        Condition(f"{prefix}{hard.replace(':', '')}", f"bit and {hard} together{note}", pair(hard), **slow(hard) | how)
        for prefix, note, how in (("", "", {}), ("adam-", ", Adam", ADAM))
        for hard in ("majority:5", "parity:3", "xor_of_xors", "lookup:4")
    ),
    Condition(
        "graded",
        "six features of growing complexity in one network",
        FeaturesSettings(
            features=("bit", "majority:5", "parity:2", "parity:3", "xor_of_xors", "lookup:4"),
            domains=(5, 5, 5, 5, 6, 6),
        ),
    ),
    # E4: order of learning
    Condition("hard-first", "the hard feature, then both", phases=(Phase(FIRST, (HARD,)), Phase(5000))),
    Condition("easy-first", "the easy feature, then both", phases=(Phase(FIRST, (EASY,)), Phase(5000))),
    Condition("interleaved", "the features in turns", phases=(Phase(10_000, interleaved=True),)),
    Condition(
        "momentum-hard-first",
        "the hard feature, then both, momentum",
        **MOMENTUM,
        phases=(Phase(FIRST, (HARD,)), Phase(5000)),
    ),
    Condition(
        "adam-hard-first",
        "the hard feature, then both, Adam",
        **ADAM | {"phases": (Phase(2500, (HARD,)), Phase(2500))},
    ),
    Condition(
        "adam-xor_of_xors-hard-first",
        "xor_of_xors, then it and bit, Adam",
        XORS,
        **ADAM | {"phases": (Phase(2500, (HARD,)), Phase(2500))},
    ),
    # E6: how often a feature is there to be learned; "equal" is the control for all three ways
    Condition("equal", "two bits, both always present", equal(1.0, "mask")),
    *(
        Condition(
            f"rare-{rarity}-{share:g}", f"two bits, the first present in {share:g}: {rarity}", equal(share, rarity)
        )
        for rarity in ("mask", "constant", "base_rate")
        for share in SHARES
    ),
    Condition("equal-xor", "two exclusive ors", equal(1.0, "mask", "parity:2")),
    *(
        Condition(
            f"rare-xor-{share:g}",
            f"two exclusive ors, {share:g} of the first labelled",
            equal(share, "mask", "parity:2"),
        )
        for share in SHARES
    ),
    Condition("easy-labelled-0.25", "a quarter of the easy feature labelled", pair("parity:2", prevalence=(0.25, 1.0))),
    Condition("hard-labelled-0.25", "a quarter of the hard feature labelled", pair("parity:2", prevalence=(1.0, 0.25))),
    # E7: more classes, more features
    *(
        Condition(f"classes-{2**j}", f"features of {2**j} classes each", pair(f"xor_word:{j}", f"word:{j}"))
        for j in (2, 3, 4)  # two classes are the headline
    ),
    *(
        Condition(
            f"features-{2 * n}",
            f"{n} bits and {n} exclusive ors",
            FeaturesSettings(features=("bit",) * n + ("parity:2",) * n),
        )
        for n in (2, 4, 8)
    ),
    # E8: optimiser and dropout
    *(
        Condition(name, f"bit and parity:2, {name}", **OPTIMISERS[name])
        for name in ("adamw-.01", "adamw-.1", "rmsprop")
    ),
    *(
        Condition(f"{name}-dropout-{p:g}", f"bit and parity:2, {name}, dropout {p:g}", dropout=p, **how)
        for name, how in OPTIMISERS.items()
        for p in DROPOUTS
    ),
    # E9: depth and width
    *(
        Condition(f"depth-{d}", f"{d} hidden layers, {DEEP} updates", hidden=layers(d), phases=(Phase(DEEP),))
        for d in (2, 3, 4, 6, 8)  # deep networks learn late; all make as many updates
    ),
    *(Condition(f"width-{w:g}", f"layers {w:g} times as wide", hidden=layers(4, w)) for w in (0.25, 0.5, 2, 4)),
    # E10: the rest
    *(Condition(a, f"activation {a}", activation=a) for a in ("leaky_relu", "gelu", "tanh")),
    *(Condition(f"init-{i}", f"initial weights {i}", init=i) for i in ("zero_bias", "lecun", "he")),
    *(Condition(f"gain-{g:g}", f"initial weights times {g:g}", gain=g) for g in (0.25, 0.5, 2)),
    *(Condition(f"norm-{n}", f"{n} normalisation", norm=n) for n in ("layer", "batch")),
    *(Condition(f"decay-{w:g}", f"weight decay {w:g}", weight_decay=w) for w in (1e-4, 1e-3)),
    *(Condition(f"batch-{b}", f"batches of {b}", batch=b) for b in (64, 1024)),
    Condition("smoothing-0.1", "labels smoothed by .1", smoothing=0.1),
    *(Condition(f"flip-{p:g}", f"input bits flipped with probability {p:g}", flip=p) for p in (0.05, 0.2)),
    Condition("overlap-xor", "the easy bit is also read by the exclusive or", pair("parity:2", reads=((0,), (0, 1)))),
    *(
        Condition(
            f"overlap-{n}",
            f"majority:9 and match:4 share {n} bits",
            pair("match:4", "majority:9", reads=(tuple(range(9)), tuple(range(9 - n, 17 - n)))),
        )
        for n in (0, 4, 8)
    ),
    Condition("coding-signed", "bits enter as -1 and 1", pair("parity:2", coding="signed")),
    Condition("rows-65536", "eight times the rows", pair("parity:2", train=65_536)),
    # The set-up of Hermann & Lampinen 2020
    *(
        Condition(
            f"hermann2020-{easy:g}",
            f"Hermann & Lampinen 2020, easy feature predictive at {easy:g}",
            hermann2020(easy),
            activation="leaky_relu",
            learning_rate=1e-3,
            batch=FULL_BATCH,
            phases=(Phase(5000),),
        )
        for easy in (0.5, 0.7, 0.8, 0.9, 1.0)
    ),
]

CONDITIONS: dict[str, Condition] = {c.name: c for c in _CONDITIONS}


def _named(*starts: str) -> tuple[str, ...]:
    return tuple(name for name in CONDITIONS if name.startswith(starts))


DROPPED = tuple(f"{name}-dropout-{p:g}" for name in OPTIMISERS for p in DROPOUTS)

# Experiment -> what is compared in it. The first condition is the one the others are compared with.
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "E1": ("headline", "adam", "momentum"),
    "E2": ("headline", "easy-only", "hard-only", "untrained", "adam", "adam-easy-only", "adam-hard-only"),
    "E3": ("headline", "majority5", "parity3", "xor_of_xors", "lookup4", "graded", "adam", *_named("adam-maj", "adam-par"),
           "adam-xor_of_xors", "adam-lookup4"),
    "E4": ("headline", "hard-first", "easy-first", "interleaved", "momentum", "momentum-hard-first", "adam",
           "adam-hard-first", "adam-xor_of_xors", "adam-xor_of_xors-hard-first"),
    "E5": ("headline", "adam", "xor_of_xors", "adam-xor_of_xors"),
    "E6": ("equal", *_named("rare-mask", "rare-constant", "rare-base_rate"), "equal-xor", *_named("rare-xor"), "headline",
           "easy-labelled-0.25", "hard-labelled-0.25"),
    "E7": ("headline", *_named("classes-", "features-")),
    "E8": ("headline", *(name for name in OPTIMISERS if name != "sgd"), *DROPPED),
    "E9": ("headline", *_named("depth-", "width-")),
    "E10": ("headline", "leaky_relu", "gelu", "tanh", *_named("init-", "gain-", "norm-", "decay-", "batch-", "smoothing-",
            "flip-", "overlap-", "coding-", "rows-")),
    "E13": ("headline",),
    "E14": ("headline", "adam"),
    "E15": ("headline", "adam", "adam-xor_of_xors"),
    "E17": ("headline", "adam", *_named("hermann2020")),
}  # fmt: skip

# What two cores train within the laptop's time; every claim's comparison is in it.
LAPTOP: tuple[str, ...] = (
    "headline", "adam", "easy-only", "hard-only", "untrained",
    "majority5", "parity3", "adam-xor_of_xors", "lookup4",
    "hard-first", "easy-first",
    "equal", "rare-mask-0.1", "rare-mask-0.25", "rare-mask-0.5", "rare-constant-0.25",
    "easy-labelled-0.25",
    "adam-dropout-0.1", "adam-dropout-0.25", "adam-dropout-0.5",
    "depth-2", "depth-3", "depth-4", "depth-6", "width-0.5", "width-2",
    "tanh", "init-lecun", "norm-layer", "momentum",
)  # fmt: skip
FULL: tuple[str, ...] = tuple(CONDITIONS)


def find_condition(name: str) -> Condition:
    """The condition called `name`; a `ConfigError` with the nearest names where there is none."""
    if name not in CONDITIONS:
        raise ConfigError(f"features: {unknown('condition', name, CONDITIONS)}")
    return CONDITIONS[name]


def experiments_of(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Experiment -> which of its conditions are among `names`, in order; those left with fewer than its first are out."""
    chosen = set(names)
    found = {e: tuple(n for n in conditions if n in chosen) for e, conditions in EXPERIMENTS.items()}
    return {e: conditions for e, conditions in found.items() if EXPERIMENTS[e][0] in conditions}
