"""Networks that a study has trained, and its splits with labels of every position, for specs of `heldout audit`.

    network: {from: "heldout.studies.trained:network", arguments: {run: runs/dyck-laptop, seed: 0}}
    splits:
      train: {role: fit, function: "heldout.studies.trained:split", arguments: {run: runs/dyck-laptop, name: train}}
    features: {sites: [blocks.1], labels: [depth, bracket], kinds: {depth: continuous, bracket: categorical}}

Labels are strata (B, T), -100 at positions that have none. A relative path of a run is taken from where the command runs. An
audit does not see that a run was made again under the same path: then use `--fresh '*'`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.errors import ConfigError, choices, unknown
from heldout.runs import Run
from heldout.tasks.base import Batch, Derived, Items, Split

NO_LABEL = -100
Labels = Callable[[Batch], dict[str, Tensor]]


def network(run: str, seed: int = 0, kind: str = "") -> nn.Module:
    """The network that training seed `seed` of a run gave; `kind` names one where a study trains several (sum_at_most).

    Raises `ConfigError` where the study's networks cannot be loaded so, or the run has none of that seed or kind.
    """
    found = Run.open(Path(run).expanduser())
    study, step = _study(found), _training(found, seed, kind)
    settings, folder = found.record(step)["settings"], found.output(step)
    if study == "dyck":
        from heldout.studies.dyck_audit import load_subject

        return load_subject(settings, folder, seed, "cpu").network
    from heldout.studies.arithmetic_train import load_network

    return load_network(settings, folder, "cpu")


def split(run: str, name: str, kind: str = "", items: int | None = None) -> Split:
    """A split of a run's task with the labels of each position; its first `items` alone, where given.

    - ``dyck``: `depth`, the brackets that are open after the token, and `bracket`, the type of the innermost one, which the
      next closing bracket must have.
    - ``arithmetic``: where the answer's digits are predicted, units left out: `digit`, the one that the operands' lowest n
      digits give, and `carry`, 0 or 1, what is carried into it. On operands of n digits these are the true ones.
    """
    found = Run.open(Path(run).expanduser())
    study = _study(found)
    settings = found.record(_training(found, None, kind))["settings"]
    if study == "dyck":
        from heldout.studies.dyck_audit import dyck

        task = dyck(settings["task"])
        splits, labels = task.splits, _brackets(settings["task"]["brackets"])
    else:
        from heldout.studies.arithmetic_train import kind_of, task_of

        sums = task_of(kind_of(settings))
        splits, labels = sums.splits, _sums(sums.settings.digits, sums.settings.width, sums.settings.base)
    if name not in splits:
        raise ConfigError(f"{run}: {unknown('split', name, splits)}")
    chosen = splits[name] if items is None else splits[name].subset(np.arange(min(items, len(splits[name]))))
    return replace(chosen, items=_Labelled(chosen.items, labels))


def _study(run: Run) -> str:
    name = str(run.manifest["study"])
    if name not in ("dyck", "arithmetic"):
        raise ConfigError(f"{run.path} is a run of {name!r}; {choices(name, ('dyck', 'arithmetic'))}")
    return name


def _training(run: Run, seed: int | None, kind: str) -> str:
    """The step that trained a network: of any seed where none is asked for."""
    trained = [step for step in run.steps() if "-train-" in step]
    start = f"{_study(run)}-train-{kind + '-' if kind else ''}s"
    found = [step for step in trained if step.startswith(start)]
    wanted = found[:1] if seed is None else [step for step in found if step == f"{start}{seed}"]
    if not wanted:
        raise ConfigError(f"{run.path}: {unknown('trained network', f'{start}{seed or 0}', trained)}")
    return wanted[0]


class _Labelled(Derived):
    """Items with more strata, made of each batch."""

    def __init__(self, items: Items, labels: Labels) -> None:
        super().__init__(items)
        self.labels = labels

    def take(self, index: np.ndarray) -> Batch:
        batch = self.items.take(index)
        return replace(batch, strata=self.labels(batch))


def _tokens(inputs: Any) -> Tensor:
    """(B, T) the tokens among a network's inputs."""
    given = inputs["tokens"] if isinstance(inputs, dict) else inputs
    assert isinstance(given, Tensor)
    return given


def _brackets(k: int) -> Labels:
    """Depth and innermost open type after each token of sentences in k types of bracket."""

    def labels(batch: Batch) -> dict[str, Tensor]:
        tokens = np.asarray(_tokens(batch.inputs))
        depth = np.cumsum((tokens < k).astype(np.int64) - ((tokens >= k) & (tokens < 2 * k)), axis=1)
        bracket = np.full(tokens.shape, NO_LABEL, dtype=np.int64)
        for i, row in enumerate(tokens.tolist()):
            stack: list[int] = []
            for t, token in enumerate(row):
                if token < k:
                    stack.append(token)
                elif token < 2 * k:
                    stack.pop()
                if stack:
                    bracket[i, t] = stack[-1]
        data = tokens < 2 * k  # the beginning and the end have no depth
        return {
            "depth": torch.from_numpy(np.where(data, depth, NO_LABEL)),
            "bracket": torch.from_numpy(np.where(data, bracket, NO_LABEL)),
        }

    return labels


def _sums(n: int, width: int, base: int) -> Labels:
    """Digit and carry of the sum of the operands' lowest n digits, where each but the units is predicted."""

    def labels(batch: Batch) -> dict[str, Tensor]:
        tokens = _tokens(batch.inputs)
        found = {name: torch.full(tokens.shape, NO_LABEL) for name in ("digit", "carry")}
        carry = torch.zeros(len(tokens), dtype=torch.int64)
        for i in range(n):
            total = tokens[:, width - 1 - i] + tokens[:, 2 * width - 1 - i] + carry
            if i:
                at = 2 * width - 1 + i  # the answer is written units first, behind the operands
                found["digit"][:, at], found["carry"][:, at] = total % base, carry
            carry = total // base
        return found

    return labels
