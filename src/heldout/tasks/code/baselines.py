"""How well a network predicts that only counts: the loss of unigram and bigram tables, nats a character."""

from __future__ import annotations

import numpy as np

from heldout.tasks.code.vocabulary import PAD, SIZE, shifted
from heldout.tasks.code.windows import Windows


def count_pairs(train: Windows) -> np.ndarray:
    """(V, V) how often each character (column) follows each (row) in the training windows; BOS begins each."""
    before, after = shifted(train.targets), train.targets
    data = after != PAD
    pairs = np.bincount(before[data].astype(np.int64) * SIZE + after[data], minlength=SIZE * SIZE)
    return pairs.reshape(SIZE, SIZE)


def baseline_losses(pairs: np.ndarray, test: Windows) -> dict[str, float]:
    """``unigram`` and ``bigram``: mean loss on `test` of tables with one count added everywhere, nats a character."""
    before, after = shifted(test.targets), test.targets
    data = after != PAD
    single = pairs.sum(axis=0) + 1.0
    double = pairs + 1.0
    unigram = -np.log(single / single.sum())[after[data]]
    bigram = -np.log(double / double.sum(axis=1, keepdims=True))[before[data], after[data]]
    return {"unigram": float(unigram.mean()), "bigram": float(bigram.mean())}
