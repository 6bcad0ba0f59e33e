"""The simplifications of the matrix: at a row's site, and of its last attention where there is one.

`HEADLINE` and what stands beside it are audited with noise of the same damage. The others are a line of a table each: rank
chosen by the same rule, agreement and loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from heldout.activations.edits import Edit
from heldout.errors import ConfigError, ProxyError
from heldout.networks.encoder_decoder import CrossAttention
from heldout.networks.transformer import Attention
from heldout.proxies.attention import attention_edits
from heldout.proxies.fit import Family, fit_edits
from heldout.studies.matrix_material import Material
from heldout.tasks.base import Split

HEADLINE = "pca"
AUDITED = (HEADLINE, "ib", "haar")
SITE = ("svd", "kmeans", "mean")  # more of them at the site
ATTENTION = ("svd", "weights", "kmeans", "onehot", "topk", "mean")  # of queries and keys, of weights, of patterns
PLAIN = ("mean", "onehot")  # have no size
WORDS = {
    "pca": "principal components",
    "ib": "interaction basis",
    "haar": "random subspace",
    "svd": "singular vectors, not centred",
    "kmeans": "clusters",
    "mean": "mean",
    "weights": "weights-only SVD",
    "onehot": "one-hot pattern",
    "topk": "largest entries of the pattern",
}
PROBES = {"probes": "full", "draws": 4}  # as the interaction basis is shown beside dyck and code
SAMPLE = 4000  # rows that are clustered, and positions that derivatives are taken on
Made = tuple[list[Edit], dict[str, str]]  # edits, and family -> why there are none


def sizes(ranks: Sequence[int], width: int) -> tuple[int, ...]:
    """Those of `ranks` below the width, and the width."""
    return (*(rank for rank in ranks if rank < width), width)


def audited(m: Material, network: nn.Module, fit: Split, ranks: Sequence[int]) -> Made:
    """Those that have a null, fitted on `fit`."""

    def at_site(families: Sequence[Family]) -> list[Edit]:
        return fit_edits(network, fit, [m.site], families, sample=SAMPLE, batch_size=m.batch_size, device=m.device)

    return each_family([Family(n, tuple(ranks), options=PROBES if n == "ib" else {}) for n in AUDITED], at_site)


def beside(m: Material, network: nn.Module, fit: Split, ranks: Sequence[int], width: int) -> Made:
    """The other families at the site (of a `width`), and those of the last attention."""

    def at_site(families: Sequence[Family]) -> list[Edit]:
        return fit_edits(network, fit, [m.site], families, sample=SAMPLE, batch_size=m.batch_size, device=m.device)

    edits, missing = each_family([family(name, sizes(ranks, width)) for name in SITE], at_site)
    found = last_attention(network)
    if found is None:
        return edits, missing
    path, module = found

    def at_attention(families: Sequence[Family]) -> list[Edit]:
        return attention_edits(
            network,
            fit,
            path,
            families,
            heads=module.heads,
            sample=SAMPLE,
            batch_size=m.batch_size,
            device=m.device,
        )

    of_head = sizes(ranks, module.query.out_features // module.heads)
    more, without = each_family([family(name, of_head) for name in ATTENTION], at_attention)
    return edits + more, missing | {f"{name} of {path}": why for name, why in without.items()}


def family(name: str, parameters: tuple[int, ...]) -> Family:
    return Family(name, () if name in PLAIN else parameters)


def each_family(families: Sequence[Family], fit: Callable[[Sequence[Family]], list[Edit]]) -> Made:
    """What `fit` makes of all families, in one pass if it can; else of each that can be fitted, and why others cannot."""
    try:
        return fit(families), {}
    except (ProxyError, ConfigError):  # the latter where one derivative would not fit into memory
        edits, missing = [], {}
        for one in families:
            try:
                edits += fit([one])
            except (ProxyError, ConfigError) as error:
                missing[one.name] = str(error)
        return edits, missing


def last_attention(network: nn.Module) -> tuple[str, Attention | CrossAttention] | None:
    """Path and module of the attention that runs last (in an encoder-decoder, what the decoder reads the sequence with)."""
    found = [(name, part) for name, part in network.named_modules() if isinstance(part, Attention | CrossAttention)]
    return found[-1] if found else None
