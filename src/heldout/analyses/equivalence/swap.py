"""Causal swap: exchange x's and its partner's activations at some positions, and see whether the answers change.

Where h(x) is the partner and the spare positions are swapped, an unchanged answer says that nothing downstream of the
site depends on what the ignored tokens left *at those positions*; what they left elsewhere is not touched. Attention maps
cannot say that: a position may be attended to and carry nothing. As a positive control, pair x with another prompt and
swap the used positions: there answers must change, or the instrument is blind.

After the last block's output only the swapped positions' own predictions change, so that a swap of the prompt's earlier
positions there is without effect by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.tap import EditFunction
from heldout.analyses.equivalence.edited import checked
from heldout.analyses.equivalence.passes import Sequences, batch_of, check_positions, check_rows, forced


def swap(
    network: nn.Module,
    sequences: Sequences,
    partner: Tensor,
    sites: Sequence[str],
    positions: Sequence[int],
    *,
    batch_size: int = 512,
    device: str = "cpu",
) -> dict[str, dict[str, np.ndarray]]:
    """site -> measure -> (N,) float64, additive: x with the activations of `partner` (N, T) at `positions`.

    - ``changed``: 0 or 1, some step chooses another token than without the swap. Where each prompt's forced answer is the
      network's own greedy one, that is: its greedy answer changes.
    - ``kl``: KL(before || after), nats, mean over steps: what greedy decoding hides.
    - ``first_differs``: x and partner choose different first tokens without the swap; ``first_adopted``: and with it x
      chooses the partner's. Their ratio is how often the swap carries the answer over. Later steps read the answer
      so far, which is not swapped, and are left out of it.
    - ``partner_changed``, ``partner_kl``: the same for the partner with x's activations.

    Both directions come from one pass over x and partner together, each given the other's rows. Raises `SiteError` where
    an identity edit at the same sites changes the output.
    """
    other = sequences.partner(partner)
    check_positions(positions, sequences.fed)
    replay, _ = checked(network, sequences, sites, batch_size, device)
    found: dict[str, list[dict[str, Tensor]]] = {site: [] for site in sites}
    for cut in sequences.slices(batch_size):
        tokens = torch.cat([sequences.tokens[cut], other.tokens[cut]])
        batch = batch_of(tokens[:, : sequences.fed], cut.start, device)
        half = len(tokens) // 2
        before = forced(replay.record(batch).output, tokens, sequences.steps)
        for site in sites:
            exchange = {site: _exchange(positions, sequences.fed, site)}
            after = forced(replay.run(batch, exchange).output, tokens, sequences.steps)
            changed = (before.chosen != after.chosen).any(dim=1)
            kl = before.kl(after).mean(dim=1)
            mine, theirs = before.chosen[:half, 0], before.chosen[half:, 0]
            differs = mine != theirs
            found[site].append(
                {
                    "changed": changed[:half],
                    "kl": kl[:half],
                    "first_differs": differs,
                    "first_adopted": differs & (after.chosen[:half, 0] == theirs),
                    "partner_changed": changed[half:],
                    "partner_kl": kl[half:],
                }
            )
    return {
        site: {name: torch.cat([p[name].double().cpu() for p in parts]).numpy() for name in parts[0]}
        for site, parts in found.items()
    }


def _exchange(positions: Sequence[int], length: int, site: str) -> EditFunction:
    """The first half of a batch and the second give each other their rows at `positions`."""
    at = list(positions)

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        check_rows(rows, length, site)
        new = rows.clone()
        new[:, at] = rows.roll(len(rows) // 2, dims=0)[:, at]
        return new

    return function
