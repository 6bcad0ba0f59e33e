"""Greedy decoding: batches with cached keys and values, against the textbook loop (one prompt, the whole prefix again).

    python benchmarks/decoding.py [--repeats 3] [--prompts 100]

Every side gives the same tokens, which is asserted. The sides run in turns on one compute thread; ratios are taken
within each turn. Nano on the padded layout of 3-digit addition (10 tokens, 6 follow) and mini on that of multiplication
(10, 10 follow).
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch

from heldout.networks.decoding import greedy
from heldout.networks.gpt import Size, mingpt
from heldout.training.seeds import initialised

CASES: tuple[tuple[Size, int, int], ...] = (("nano", 10, 6), ("mini", 10, 10))
SIDES = {
    "cached, batches of 1024": partial(greedy, batch_size=1024),
    "uncached, batches of 1024": partial(greedy, batch_size=1024, cached=False),
    "cached, one by one": partial(greedy, batch_size=1),
    "uncached, one by one": partial(greedy, batch_size=1, cached=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for size, length, steps in CASES:
        network = initialised(lambda s=size, n=length + steps: mingpt(10, s, max_length=n), 0).eval()  # type: ignore[misc]
        prompts = torch.randint(10, (args.prompts, length), generator=torch.Generator().manual_seed(0))
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(args.repeats):
            answers = []
            for side, decode in SIDES.items():
                start = time.process_time()
                answers.append(decode(network, prompts, steps))
                times[side].append((time.process_time() - start) / args.prompts)
            assert all(torch.equal(a, answers[0]) for a in answers)
        print(f"{size}, {length} tokens, {steps} follow, {args.prompts} prompts:")
        for side, each in times.items():
            ratios = sorted(slow / fast for slow, fast in zip(times["uncached, one by one"], each, strict=True))
            print(
                f"  {side:26s} {1e3 * statistics.median(each):8.3f} ms a prompt; the textbook loop takes "
                f"{statistics.median(ratios):.1f} times as long ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            )


if __name__ == "__main__":
    main()
