"""Discovery over the full grammar, against evaluating the true operation once on the same pairs.

    python benchmarks/rules.py [--repeats 7] [--pairs 10000] [--scaling]

What "evaluating once" costs depends on where one starts, so there are four baselines: from the operands and answers as a
user has them (lists of Python ints, or int64 arrays) to the number of exact matches by the same exact digit arithmetic;
the operation alone on digits that are already there; and plain int64. Discovery starts from the lists or the arrays and
does all that `heldout.discover_rule` does: the race, 199 shuffles, both halves, separation, mixture. The sides run in
turns on one compute thread; ratios of processor time are taken within each turn. `--scaling` goes on to 1 000 000 pairs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from heldout.analyses.equivalence.discovery import discover_rule
from heldout.analyses.equivalence.grammar import Hypothesis
from heldout.analyses.equivalence.intake import read_table

CASES: tuple[tuple[str, int, int | None], ...] = (
    ("add", 4, None),
    ("add", 8, None),
    ("multiply", 4, None),
    ("mod_add", 6, 150),
    ("add", 30, None),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--scaling", action="store_true")
    args = parser.parse_args()
    for operation, width, modulus in CASES:
        compare(operation, width, modulus, args.pairs, args.repeats)
    if args.scaling:
        scale(args.repeats)


def compare(operation: str, width: int, modulus: int | None, n: int, repeats: int) -> None:
    lists = planted(operation, width, modulus, n)
    truth = Hypothesis("multiply" if operation.endswith("multiply") else "add", modulus=modulus)
    table = read_table(*lists, 10)
    sides: dict[str, Callable[[], Any]] = {
        "discovery from lists": lambda: discover_rule(*lists, operation=operation, modulus=modulus),
        "once, from lists": lambda: read_table(*lists, 10).exact(truth).sum(),
        "once, digits to digits": lambda: truth.predict(table.a, table.b, 10),
    }
    if width <= 9:
        arrays = [np.array(x) for x in lists]
        a, b, y = arrays
        sides["discovery from arrays"] = lambda: discover_rule(*arrays, operation=operation, modulus=modulus)
        sides["once, from arrays"] = lambda: read_table(*arrays, 10).exact(truth).sum()
        sides["once, plain int64"] = lambda: ((a * b if truth.combine == "multiply" else a + b) == y).sum()
    for side in sides.values():  # the grammar is laid out once a process and width
        side()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(timed(side))
    found = discover_rule(*lists, operation=operation, modulus=modulus)
    print(
        f"{operation}, {width} digits, {n} pairs, {found.tried} hypotheses: {found.names[0] if found.found else None}"
    )
    for name, each in times.items():
        line = f"  {name:24s} {1e3 * statistics.median(each):9.3f} ms"
        start = "arrays" if name.endswith(("arrays", "int64")) else "lists"
        if name.startswith("once"):
            ratios = sorted(x / y for x, y in zip(times[f"discovery from {start}"], each, strict=True))
            line += f"; discovery from {start} takes {statistics.median(ratios):.0f} times as long"
            line += f" ({ratios[0]:.0f} to {ratios[-1]:.0f})"
        print(line, flush=True)


def scale(repeats: int) -> None:
    print("add, 4 digits, from arrays:")
    for n in (1_000, 10_000, 100_000, 1_000_000):
        arrays = [np.array(x) for x in planted("add", 4, None, n)]
        each = [timed(lambda x=arrays: discover_rule(*x)) for _ in range(repeats if n < 10**6 else 3)]  # type: ignore[misc]
        once = [timed(lambda x=arrays: read_table(*x, 10).exact(Hypothesis("add")).sum()) for _ in range(3)]  # type: ignore[misc]
        ratio = statistics.median(each) / statistics.median(once)
        print(
            f"  {n:9d} pairs {1e3 * statistics.median(each):10.1f} ms ({1e3 * min(each):.1f} to {1e3 * max(each):.1f}), "
            f"{1e6 * statistics.median(each) / n:7.2f} us a pair, {ratio:.0f} times the true operation once",
            flush=True,
        )


def planted(operation: str, width: int, modulus: int | None, n: int) -> tuple[list[int], list[int], list[int]]:
    """Operands of up to `width` digits and answers by their lower digits; of ten answers one is another pair's."""
    rng = random.Random(0)
    high, low = 10**width, 10 ** (width - 1)
    a, b = ([rng.randrange(high) for _ in range(n)] for _ in range(2))
    combine = int.__mul__ if operation.endswith("multiply") else int.__add__
    answers = [combine(x % low, y % low) for x, y in zip(a, b, strict=True)]
    if modulus is not None:
        answers = [y % modulus for y in answers]
    return a, b, [rng.choice(answers) if rng.random() < 0.1 else y for y in answers]


def timed(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
