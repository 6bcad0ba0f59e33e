"""How readable one network's features are: what a linear probe decodes, beyond a control task, and how few bits it takes.

The control of a feature is a random label of the patterns of `CONTROL_BITS` bits, those that the feature reads first: a
function of the same inputs that nothing was trained on. A probe that reads it as well reads the inputs, not a feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heldout.analyses.features.codelength import CodeLength, code_length
from heldout.analyses.features.decode import Decoded, decode
from heldout.studies.features_measured import Measured, Measuring, Value, or_reason

READ = ("headline", "adam", "easy-only", "hard-only", "untrained")  # probes cost two seconds a network
CONTROL_BITS = 4
OF_INPUTS = "_inputs:"  # in the names of what is read of the inputs


def readable(m: Measured) -> Iterator[Value]:
    """Of each feature, on the first `probe_rows` of test: ``decoded`` (accuracy), ``decoded_control``, ``selectivity``,
    ``decoded_majority``; ``code_saved`` (1 - bits / uniform), ``code_saved_control``, ``compression`` (uniform / bits).

    The same quantities end in ``_inputs`` where the network's inputs are read instead of its penultimate layer.
    """
    n = m.here.s["probe_rows"]
    x = m.x["test"][:n].double().numpy()
    for name in m.names:
        yield from or_reason("decoded", [name], partial(read, m.here, x, name, m.seed))


def readable_inputs(here: Measuring) -> list[Value]:
    """The same of the inputs, which do not depend on the network."""
    x = here.test.inputs[: here.s["probe_rows"]].double().numpy()
    found: list[Value] = []
    for name in here.task.names:
        found += or_reason("decoded", [name], partial(read, here, x, name, here.s["data_seed"]))
    return [v._replace(quantity=v.quantity.replace(":", OF_INPUTS, 1)) for v in found]


def read(here: Measuring, x: ArrayLike, name: str, seed: int) -> Iterator[Value]:
    """What probes read of one feature from x (n, D), activations of the first n rows of test."""
    n = len(np.asarray(x))
    labels, types = here.test.table[name][:n], control_types(here, name)[:n]
    decoded: Decoded = decode(x, labels, seed=seed, types=types, strengths=here.s["probe_strengths"])
    sent: CodeLength = code_length(x, labels, seed=seed, types=types)
    yield Value(f"decoded:{name}", decoded.accuracy.value)
    yield Value(f"decoded_control:{name}", decoded.control.value)
    yield Value(f"selectivity:{name}", decoded.selectivity.value)
    yield Value(f"decoded_majority:{name}", decoded.majority)
    yield Value(f"code_saved:{name}", 1 - sent.bits / sent.uniform)
    yield Value(f"code_saved_control:{name}", 1 - sent.control / sent.uniform)
    yield Value(f"compression:{name}", sent.compression)


def control_types(here: Measuring, name: str) -> NDArray[np.int64]:
    """(N,) the pattern that each test row shows in the bits that the feature reads and, up to `CONTROL_BITS`, in bits
    after them that no feature reads."""
    planted = here.task.planted
    own = next(p.bits for p in planted if p.name == name)
    taken = {b for p in planted for b in p.bits}
    spare = [b for b in range(max(own) + 1, here.test.bits.shape[1]) if b not in taken]
    chosen = [*own, *spare[: max(0, CONTROL_BITS - len(own))]]
    return np.asarray(here.test.bits[:, chosen].astype(np.int64) @ (1 << np.arange(len(chosen))))
