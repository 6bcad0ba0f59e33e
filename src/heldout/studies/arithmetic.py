"""A transformer's wrong sums follow a rule. Xu et al., *It Ain't That Bad* (2023): find the rule, and test it.

Small transformers learn to add, multiply and reduce operands of at most, or of exactly, n digits. On longer operands they
are wrong nearly always, and wrong by a rule: they answer as if only the last n digits of each operand were there. This
module is the study's settings and steps; its claims are in `arithmetic_claims`, what the steps do is in `arithmetic_train`,
`arithmetic_answers`, `arithmetic_inside`, `arithmetic_repair` and `arithmetic_judge`, the page in `arithmetic_page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from heldout.runs import Run, Step, StepContext
from heldout.studies.arithmetic_claims import LAWS, PRODUCT, Law, claims, sum_name
from heldout.studies.base import SMOKE, Config, Study, departures
from heldout.training.settings import Precision

if TYPE_CHECKING:
    from heldout.figures.page import Page

Schedule = Literal["constant", "cosine"]
SETTLED = 0.999  # exact match from which a network has learnt its task
MODULAR_SHARE = 0.7  # of all ordered pairs, the most that a modular task is trained on
SCRATCH = "from_scratch"
METHODS = ("fine_tuning", "priming", SCRATCH)

Examples = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Digits = Annotated[int, Field(ge=1, le=30)]  # numbers of pairs are products of powers, which a float must hold
Modular = tuple[Annotated[int, Field(ge=2)], Digits]
Lengths = tuple[int, int]


@dataclass(frozen=True)
class Trained:
    """One kind of network: what it learns, and from how much. `name` is how it is called everywhere.

    Operands have at most, or exactly, `digits` digits in training and are written in `width` places. `pairs` are drawn
    from `share` of all unordered pairs; `test_pairs` for each pair of lengths come from the others. Training ends `settled`
    updates after the pairs that are set aside for it are right, and after `steps` at the latest.
    """

    name: str
    operation: Literal["add", "multiply", "mod_add"]
    law: Law
    digits: int
    width: int
    pairs: int
    steps: int
    test_pairs: int
    learning_rate: float
    dropout: float
    schedule: Schedule = "constant"
    settled: int | None = None
    share: float = 0.5
    modulus: int | None = None

    @property
    def trained(self) -> Lengths:
        """Both operands as long as the longest that were trained on."""
        return self.digits, self.digits

    @property
    def longer(self) -> tuple[Lengths, ...]:
        """At least one operand has a digit more than was ever seen."""
        n = self.digits
        return ((n + 1, n + 1), (n + 1, n), (n, n + 1))

    @property
    def farther(self) -> tuple[Lengths, ...]:
        """At least one has two digits more, where they can be written."""
        n = self.digits
        return ((n + 2, n + 2), (n + 2, n), (n, n + 2)) if n + 2 <= self.width else ()

    @property
    def shorter(self) -> tuple[Lengths, ...]:
        return tuple((m, m) for m in range(1, self.digits))

    @property
    def lengths(self) -> tuple[Lengths, ...]:
        """Every pair of operand lengths that is looked at, the trained one first."""
        return (self.trained, *self.longer, *self.farther, *self.shorter)


class ArithmeticConfig(Config):
    """Settings of the arithmetic study; every field can be given as ``--set field=value``.

    Sums have operands of `digits` digits in `width` places, products `product_digits` in `product_width`; `moduli` are pairs
    of modulus and digits, in `modular_spare` places more. `modular_pairs` is at most `MODULAR_SHARE` of all pairs.
    `test_pairs` are drawn for each pair of lengths, and `modular_test_pairs` for the modular tasks; where fewer exist, all
    are taken.

    Numbers of steps are the most that are made: at a constant rate, training ends `settled_steps` after `SETTLED` of the
    pairs that are set aside for it are right, at the first look at which they are right again.
    """

    size: Literal["nano", "micro", "mini"] = "nano"
    digits: Digits = 3
    width: PositiveInt = 5
    train_pairs: PositiveInt = 10_000
    training_steps: PositiveInt = 16_000
    settled_steps: PositiveInt = 2_000
    learning_rate: Rate = 5e-4
    dropout: Dropout = 0.1
    product_digits: Digits = 2
    product_width: PositiveInt = 4
    product_pairs: PositiveInt = 7_000
    product_steps: PositiveInt = 5_000
    product_learning_rate: Rate = 2e-3
    product_dropout: Dropout = 0.0
    moduli: tuple[Modular, ...] = ((100, 3), (150, 2))
    modular_spare: PositiveInt = 2
    modular_pairs: PositiveInt = 10_000
    modular_steps: PositiveInt = 40_000
    modular_schedule: Schedule = "constant"
    modular_learning_rate: Rate = 1e-3
    modular_dropout: Dropout = 0.1
    modular_test_pairs: PositiveInt = 5_000
    batch: PositiveInt = 64
    precision: Precision = "float32"
    test_pairs: PositiveInt = 2_000

    fit_pairs: PositiveInt = 2_000
    components: PositiveInt = 4
    random_draws: PositiveInt = 20
    null_draws: PositiveInt = 100
    repair_laws: tuple[Law, ...] = ("at_most",)
    repair_examples: Examples = (10, 50, 500)
    priming_steps: PositiveInt = 10_000
    fine_tuning_steps: PositiveInt = 1_000
    from_scratch_steps: PositiveInt = 10_000

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        for kind in ("", "product_"):
            n, w = getattr(self, f"{kind}digits"), getattr(self, f"{kind}width")
            if w <= n:
                raise ValueError(
                    f"{kind}width must be above {kind}digits ({n}), got {w}: longer operands need the room"
                )
        if len({modulus for modulus, _ in self.moduli}) < len(self.moduli):
            raise ValueError(f"moduli must differ, got {self.moduli}")
        if self.fit_pairs > self.train_pairs:
            raise ValueError(f"fit_pairs must be at most train_pairs ({self.train_pairs}), got {self.fit_pairs}")
        if max(self.repair_examples) > self.train_pairs:
            raise ValueError(f"repair_examples must be at most train_pairs ({self.train_pairs})")
        if list(self.repair_examples) != sorted(set(self.repair_examples)):
            raise ValueError(f"repair_examples must ascend, got {self.repair_examples}")
        return self

    def sums(self) -> list[Trained]:
        """Plain addition under each law, trained as the first paper trains it."""
        return [
            Trained(
                name=sum_name(law),
                operation="add",
                law=law,
                digits=self.digits,
                width=self.width,
                pairs=self.train_pairs,
                steps=self.training_steps,
                test_pairs=self.test_pairs,
                learning_rate=self.learning_rate,
                dropout=self.dropout,
                settled=self.settled_steps,
            )
            for law in LAWS
        ]

    def product(self) -> Trained:
        return Trained(
            name=PRODUCT,
            operation="multiply",
            law="at_most",
            digits=self.product_digits,
            width=self.product_width,
            pairs=self.product_pairs,
            steps=self.product_steps,
            test_pairs=self.test_pairs,
            learning_rate=self.product_learning_rate,
            dropout=self.product_dropout,
            schedule="cosine",
            share=0.8,
        )

    def modular(self) -> list[Trained]:
        """Addition modulo each of `moduli`; the follow-up lowers the rate along a cosine."""
        settled = self.settled_steps if self.modular_schedule == "constant" else None
        return [
            Trained(
                name=modular_name(modulus),
                operation="mod_add",
                law="at_most",
                digits=digits,
                width=digits + self.modular_spare,
                pairs=min(self.modular_pairs, int(MODULAR_SHARE * 100**digits)),
                steps=self.modular_steps,
                test_pairs=self.modular_test_pairs,
                learning_rate=self.modular_learning_rate,
                dropout=self.modular_dropout,
                schedule=self.modular_schedule,
                settled=settled,
                share=0.8,
                modulus=modulus,
            )
            for modulus, digits in self.moduli
        ]

    def networks(self) -> list[Trained]:
        return [*self.sums(), self.product(), *self.modular()]


def modular_name(modulus: int) -> str:
    return f"sum_mod_{modulus}"


def length_split(lengths: Lengths) -> str:
    """What the split of one pair of operand lengths is called."""
    return "len_{}_{}".format(*lengths)


_NETWORK = ("size", "batch")
_INSIDE = ("fit_pairs", "components", "random_draws", "null_draws")
_REPAIR = ("repair_examples", *(f"{method}_steps" for method in METHODS))


def steps(config: Config, not_judged: str) -> list[Step]:
    assert isinstance(config, ArithmeticConfig)
    plain = config.model_dump(mode="json")

    def fields(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: plain[name] for name in names}

    found: list[Step] = []
    judged: dict[str, str] = {}
    sums = {kind.name for kind in config.sums()}
    repaired = {sum_name(law) for law in config.repair_laws}
    for kind in config.networks():
        for seed in config.seed_list():
            own = fields(_NETWORK) | {"kind": asdict(kind), "seed": seed}
            name = {what: f"arithmetic-{what}-{kind.name}-s{seed}" for what in ("train", "answers", "inside", "repair")}
            weights = {"weights": name["train"]}
            training = own | departures(config, "precision")
            found.append(Step(name["train"], train_network, training, together=train_networks))
            found.append(Step(name["answers"], examine_answers, own | fields(("null_draws",)), weights))
            judged[f"answers-{kind.name}-{seed}"] = name["answers"]
            if kind.name in sums:
                found.append(Step(name["inside"], look_inside, own | fields(_INSIDE), weights))
                judged[f"inside-{kind.name}-{seed}"] = name["inside"]
            if kind.name in repaired:
                found.append(Step(name["repair"], repair_network, own | fields(_REPAIR), weights))
                judged[f"repair-{kind.name}-{seed}"] = name["repair"]
    settings = {"kinds": {k.name: asdict(k) for k in config.networks()}, "seeds": config.seed_list()}
    settings |= fields(("repair_examples", "repair_laws", "random_draws")) | {"not_judged": not_judged}
    # What takes longest comes first: it decides when the run ends.
    found.sort(key=lambda step: -_weight(step.settings) if not step.inputs else 0)
    return [*found, Step("arithmetic-judge", judge_claims, settings, judged)]


def _weight(settings: Mapping[str, Any]) -> int:
    return int(settings["kind"]["steps"])


# What the steps do is loaded when they run: listing and showing the study stay instant.


def train_network(ctx: StepContext) -> None:
    from heldout.studies import arithmetic_train

    arithmetic_train.train_network(ctx)


def train_networks(contexts: Sequence[StepContext]) -> None:
    from heldout.studies import arithmetic_train

    arithmetic_train.train_networks(contexts)


def examine_answers(ctx: StepContext) -> None:
    from heldout.studies import arithmetic_answers

    arithmetic_answers.examine_answers(ctx)


def look_inside(ctx: StepContext) -> None:
    from heldout.studies import arithmetic_inside

    arithmetic_inside.look_inside(ctx)


def repair_network(ctx: StepContext) -> None:
    from heldout.studies import arithmetic_repair

    arithmetic_repair.repair_network(ctx)


def judge_claims(ctx: StepContext) -> None:
    from heldout.studies import arithmetic_judge

    arithmetic_judge.judge_claims(ctx)


def page(run: Run) -> Page:
    from heldout.studies.arithmetic_page import arithmetic_page

    return arithmetic_page(run, ArithmeticConfig(**run.manifest["config"]), STUDY.title)


STUDY = Study(
    name="arithmetic",
    title="Longer sums",
    summary="Transformers on sums and products, wrong on longer operands: by which rule, and what repairs it?",
    config=ArithmeticConfig,
    presets={
        SMOKE: {
            "seeds": 2,
            "digits": 2,
            "width": 4,
            "train_pairs": 500,
            "training_steps": 15,
            "product_width": 3,
            "modular_spare": 1,
            "product_pairs": 500,
            "product_steps": 20,
            "moduli": ((5, 2),),
            "modular_pairs": 500,
            "modular_steps": 20,
            "modular_test_pairs": 50,
            "test_pairs": 40,
            "fit_pairs": 100,
            "random_draws": 1,
            "null_draws": 5,
            "repair_examples": (5,),
            "priming_steps": 10,
            "fine_tuning_steps": 10,
            "from_scratch_steps": 10,
        },
        "laptop": {},
        "paper": {
            "seeds": 10,
            "training_steps": 10_000,
            "product_digits": 3,
            "product_width": 5,
            "product_pairs": 50_000,
            "product_steps": 350_000,
            "size": "mini",
            "test_pairs": 10_000,
            "modular_test_pairs": 10_000,
            "moduli": tuple((modulus, 4) for modulus in (50, 51, 100, 101, 150, 151, 200, 201)),
            "modular_spare": 5,
            "modular_pairs": 100_000,
            "modular_schedule": "cosine",
            "modular_steps": 1_000_000,
            "priming_steps": 10_000,
            "repair_laws": LAWS,
        },
    },
    claims=claims,
    steps=steps,
    page=page,
)
