"""What the nuclear study needs of its nuclei, looked at before anything is trained.

Later steps would refuse the same, one by one, when most networks are there already.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from heldout.analyses.geometry.library import SPARE
from heldout.analyses.geometry.partial_null import MIN_GROUPS
from heldout.errors import ConfigError
from heldout.proxies.helix_fit import FEWEST
from heldout.runs import StepContext
from heldout.studies.nuclear_measure import blocks
from heldout.studies.nuclear_train import Settings, Trained, task_of
from heldout.tasks.nuclear import Nuclear
from heldout.tasks.nuclear.formulas import BW2

COUNTS = "counts.json"
WORDS = {"z": "protons", "n": "neutrons"}


def check_data(ctx: StepContext) -> None:
    """Raise `ConfigError` where the settings leave too few nuclei for what is to be read; write what there is.

    Reads the data's settings, `blocks_of`, and `networks` for whether any is trained by vintage.
    """
    s = ctx.settings
    task = task_of(s, Trained())
    counts: dict[str, Any] = {"groups": enough_groups(task, s), "nuclei": enough_nuclei(task, s)}
    kinds = {Trained.named(name).vintage for name in s["networks"]}
    counts["tokens"] = [enough_tokens(task_of(s, Trained(vintage=vintage)), s) for vintage in sorted(kinds)]
    (ctx.out / COUNTS).write_text(json.dumps(counts))


def enough_groups(task: Nuclear, s: Settings) -> int:
    """Groups of `blocks_of` isotopic chains on ``id``, which the null of components and terms moves."""
    held = task.splits["id"]
    chains = len(np.unique(held.unit_ids()))
    found = len(np.unique(blocks(held, s["blocks_of"])))
    if found < MIN_GROUPS:
        most = max((of for of in range(1, chains + 1) if -(-chains // of) >= MIN_GROUPS), default=0)
        accepted = f"blocks_of at most {most}, or lower" if most else "lower"
        raise ConfigError(
            f"{where(s)}, blocks_of={s['blocks_of']}: the nuclei of split 'id' are of {chains} isotopic chains, {found} "
            f"groups of {s['blocks_of']}, and the null of components and terms (N2) moves at least {MIN_GROUPS}; give "
            f"{accepted} above_z and above_n"
        )
    return found


def enough_nuclei(task: Nuclear, s: Settings) -> int:
    """Nuclei on ``id``, over which components are correlated with terms."""
    found, needed = len(task.splits["id"]), len(BW2.terms) + SPARE
    if found < needed:
        raise ConfigError(
            f"{where(s)}: {found} nuclei in split 'id', and {len(BW2.terms)} terms are told apart on at least {needed}; "
            "lower above_z and above_n, or train and select"
        )
    return found


def enough_tokens(task: Nuclear, s: Settings) -> dict[str, int]:
    """Different numbers of protons and of neutrons among training nuclei, which a helix is fitted to."""
    found = {column: len(tokens) for column, tokens in task.tokens.items()}
    for column, count in found.items():
        if count < FEWEST:
            raise ConfigError(
                f"{where(s)}: training nuclei of {task.nuclides.name} have {count} different numbers of {WORDS[column]}, "
                f"and a helix is fitted to at least {FEWEST}; lower above_{column}"
            )
    return found


def where(s: Settings) -> str:
    return f"study 'nuclear', above_z={s['above_z']}, above_n={s['above_n']}"
