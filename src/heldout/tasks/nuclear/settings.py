"""What the task is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heldout.errors import ConfigError, unknown
from heldout.tasks.nuclear.energies import TARGETS
from heldout.tasks.rows import check_shares

Kind = Literal["random", "extrapolation", "vintage"]
KINDS: tuple[Kind, ...] = ("random", "extrapolation", "vintage")
Leaks = Literal["remove", "keep"]
LEAKS: tuple[Leaks, ...] = ("remove", "keep")


@dataclass(frozen=True)
class NuclearSettings:
    """Settings of the task.

    - `targets`: names in `TARGETS`; with more than one, a network is told which by a last token.
    - `per_nucleon`: binding energies (and the control ``semf``) in keV per nucleon, not in all.
    - `kind` of split: see `Nuclear`. `train`, `select`: shares of the nuclei; the rest is ``id``.
    - `vintage`: the evaluation that is trained on; `newer`: for kind ``vintage``, the one whose new nuclei are tested on
      (default: the latest there is).
    - `edge`: for kind ``extrapolation``, how many isotopes at each end of a chain are held out.
    - `above_z`, `above_n`: only nuclei with *more* protons and neutrons than that. 7 is the usual cut (Z, N >= 8).
    - `include_estimated`: also values that the evaluators estimated. A derived energy is measured where its parts are.
    - `leaks`: with several energies as targets, training rows whose energy involves a held-out nucleus would give that one's
      mass away: ``remove`` them, or ``keep`` them, as the literature does.
    """

    targets: tuple[str, ...] = ("binding",)
    per_nucleon: bool = True
    kind: Kind = "random"
    train: float = 0.8
    select: float = 0.1
    vintage: int = 2020
    newer: int | None = None
    edge: int = 1
    above_z: int = 7
    above_n: int = 7
    include_estimated: bool = False
    leaks: Leaks = "remove"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"nuclear: {unknown('kind of split', str(self.kind), KINDS)}")
        if self.leaks not in LEAKS:
            raise ConfigError(f"nuclear: {unknown('way with leaks', str(self.leaks), LEAKS)}")
        if not self.targets:
            raise ConfigError(f"nuclear: give at least one target: {', '.join(TARGETS)}")
        for target in self.targets:
            if target not in TARGETS:
                raise ConfigError(f"nuclear: {unknown('target', target, TARGETS)}")
        if len(set(self.targets)) < len(self.targets):
            raise ConfigError(f"nuclear: every target once, got {', '.join(self.targets)}")
        check_shares("nuclear", self.train, self.select)
        if self.edge < 1:
            raise ConfigError(f"nuclear: edge must be at least 1 isotope, got {self.edge}")
        if self.above_z < 0 or self.above_n < 0:
            raise ConfigError(f"nuclear: above_z and above_n must be at least 0, got {self.above_z} and {self.above_n}")
        if self.kind == "vintage" and self.include_estimated:
            raise ConfigError(
                "nuclear: kind 'vintage' tests on what the old evaluation did not measure, and often estimated: it takes "
                "include_estimated=False"
            )
        if self.newer is not None and self.kind != "vintage":
            raise ConfigError(f"nuclear: newer={self.newer} is for kind 'vintage'; this is kind {self.kind!r}")
        if self.newer is not None and self.newer <= self.vintage:
            raise ConfigError(
                f"nuclear: newer must be later than the vintage trained on ({self.vintage}), got {self.newer}"
            )
