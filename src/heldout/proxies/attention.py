"""Simplified attention: low-rank and clustered keys and queries, truncated weights, one-hot and top-k patterns.

Every edit is of one attention module and all its heads. Its `Origin.site` is the module's path; the places that it
replaces are the keys of `Edit.functions`. Shapes: B batch, H heads, Q queries, T keys, d width of a head, D of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import Accumulator, capture
from heldout.activations.edits import Edit, Reconstructs, rowwise
from heldout.activations.sites import Site, module_at
from heldout.activations.tap import EditFunction, Tap
from heldout.errors import ConfigError, ProxyError, unknown
from heldout.evidence import Origin
from heldout.proxies.clusters import KMeans
from heldout.proxies.controls import Mean, RandomSubspace
from heldout.proxies.fit import Family
from heldout.proxies.svd import SVD
from heldout.tasks.base import Batch, Split, require_fit

Basis = Literal["joint", "separate"]
BASES: tuple[Basis, ...] = ("joint", "separate")
OPERANDS = ("query", "key")
FITTED = ("svd", "kmeans", "haar", "mean")  # learn from activations
PLAIN = ("weights", "onehot", "topk")  # do not


@dataclass(frozen=True)
class Captured:
    """What one pass over a split keeps of an attention module: for each operand and head its moments and samples."""

    moments: Mapping[tuple[str, int], Moments]
    samples: Mapping[tuple[str, int, int], Reservoir]  # operand, head, draw

    def joint(self, head: int) -> Moments:
        """The moments of the head's queries and keys stacked."""
        both = Moments()
        for operand in OPERANDS:
            both.merge(self.moments[operand, head])
        return both


def attention_edits(
    network: nn.Module,
    split: Split,
    module: str,
    families: Sequence[Family],
    *,
    heads: int,
    basis: Basis = "joint",
    centred: bool = False,
    oracle: bool = False,
    sample: int = 20_000,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
) -> list[Edit]:
    """Edits of the keys and queries (or the pattern) of `module`, one for each family and parameter.

    ``svd``: projection on a basis of each head's stacked queries and keys (``joint``) or of each (``separate``), about
    the mean where `centred`. ``kmeans``: each query and key becomes the nearest centroid of its own code book.
    ``haar``: one random subspace for both. ``mean``: both their mean. ``weights``: see `truncated_weights`. ``onehot``,
    ``topk``: see `keep_largest`. The first four are fitted on every position of `split`, in one pass; the others do not
    depend on data and have no fit split.

    Raises `SplitError` where the split may not be fitted on, `ProxyError` where a size does not fit or, for
    ``weights``, queries or keys are changed between their projections and the product.
    """
    for family in families:
        if family.name not in (*FITTED, *PLAIN):
            raise ConfigError(unknown("simplification of attention", family.name, (*FITTED, *PLAIN)))
    if basis not in BASES:
        raise ConfigError(unknown("basis", str(basis), BASES))
    fitted = [f for f in families if f.name in FITTED]
    if fitted and not oracle:
        require_fit(split, ", ".join(dict.fromkeys(f.name for f in fitted)))
    edits = []
    if fitted:
        draws = sorted({f.draw for f in fitted if f.name == "kmeans"})
        seen = capture_operands(
            network,
            split,
            module,
            heads=heads,
            draws=draws,
            sample=sample,
            seed=seed,
            batch_size=batch_size,
            device=device,
        )
        for family in fitted:
            settings = {"basis": basis, "centred": centred} if family.name == "svd" else dict(family.options)
            for parameter in family.parameters or (None,):
                proxies = _fitted(family, parameter, seen, heads, basis, centred)
                functions = {place(module, *where): rowwise(proxy) for where, proxy in proxies.items()}
                origin = Origin(family.name, module, split.name, parameter, oracle, settings)
                edits.append(Edit(functions, origin))
    for family in families:
        if family.name == "onehot":
            edits.append(keep_largest(module, 1, heads=heads, name="onehot", parameter=None))
        elif family.name == "topk":
            edits += [keep_largest(module, k, heads=heads) for k in family.parameters]
        elif family.name == "weights" and family.parameters:
            check_operands(network, split, module, heads=heads, device=device)
            edits += [truncated_weights(network, module, rank, heads=heads) for rank in family.parameters]
    return edits


def place(module: str, part: str, head: int) -> str:
    """The site of one head's ``query``, ``key``, ``value`` or ``pattern``."""
    return f"{module}@attn.{part}[{head}]"


def capture_operands(
    network: nn.Module,
    split: Split,
    module: str,
    *,
    heads: int,
    draws: Sequence[int] = (),
    sample: int = 20_000,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
) -> Captured:
    """Moments of every head's queries and keys over `split`, and for each of `draws` a uniform sample of `sample` rows."""
    each = [(operand, head) for operand in OPERANDS for head in range(heads)]
    moments = {where: Moments() for where in each}
    samples = {(*where, d): Reservoir(sample, seed=seed, shard=d) for where in each for d in draws}
    wanted: dict[str, list[Accumulator]] = {
        place(module, *where): [moments[where], *(samples[(*where, d)] for d in draws)] for where in each
    }
    capture(network, split, wanted, batch_size=batch_size, device=device)
    return Captured(moments, samples)


def _fitted(
    family: Family, parameter: int | None, seen: Captured, heads: int, basis: Basis, centred: bool
) -> dict[tuple[str, int], Reconstructs]:
    """The proxies of one family and parameter, by (operand, head)."""
    found: dict[tuple[str, int], Reconstructs] = {}
    for head in range(heads):
        for operand in OPERANDS:
            own = seen.moments[operand, head]
            if family.name == "mean":
                found[operand, head] = Mean().fit_moments(own)
                continue
            assert parameter is not None
            if family.name == "svd":
                moments = seen.joint(head) if basis == "joint" else own
                found[operand, head] = SVD(parameter, centred=centred).fit_moments(moments)
            elif family.name == "haar":  # one seed for both operands: one subspace
                found[operand, head] = RandomSubspace(parameter, seed=family.draw * heads + head).fit_moments(own)
            else:
                rows = seen.samples[operand, head, family.draw].rows
                found[operand, head] = KMeans(parameter, seed=family.draw, **family.options).fit(rows)
    return found


def keep_largest(
    module: str, k: int, *, heads: int, name: str = "topk", parameter: float | Literal["k"] | None = "k"
) -> Edit:
    """Each row of the attention pattern keeps its `k` largest entries, rescaled to sum to one; k = 1 is one-hot attention.

    Among equal entries the one of the smallest position is kept. Softmax can make scores equal that differ by rounding.
    """
    if k < 1:
        raise ProxyError(f"{name}: at least one position must be kept, got {k}")

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        left, kept = rows.clone(), torch.zeros_like(rows)
        for _ in range(min(k, rows.shape[-1])):
            best = left.argmax(dim=-1, keepdim=True)  # the first of equal ones
            kept.scatter_(-1, best, rows.gather(-1, best))
            left.scatter_(-1, best, -1.0)
        total = kept.sum(dim=-1, keepdim=True)
        return torch.where(total > 0, kept / total.clamp(min=torch.finfo(rows.dtype).tiny), rows)

    functions: dict[str, EditFunction] = {place(module, "pattern", head): function for head in range(heads)}
    return Edit(functions, Origin(name, module, parameter=k if parameter == "k" else parameter))


def truncated_weights(
    network: nn.Module, module: str, rank: int, *, heads: int, projections: tuple[str, str] = ("query", "key")
) -> Edit:
    """Attention whose bilinear form W_q^T W_k is cut to its best approximation of `rank`, biases exact; no data is used.

    With q = W_q x + b_q, k = W_k x + b_k (W: d x D of one head) the score of query i and key j is, up to its scale,

        x_i M x_j + x_i W_q^T b_k + b_q^T W_k x_j + b_q^T b_k,    M = W_q^T W_k,

    and M_r, the truncated SVD of M, takes the place of M. From W_q^T = Q_q R_q, W_k^T = Q_k R_k (QR) and
    R_q R_k^T = U S V^T follows M_r = Q_q U_r U_r^T R_q R_k^T Q_k^T = W_q^T P W_k with P = R_q^+ U_r U_r^T R_q (d x d), so no
    D x D matrix is ever decomposed. Only the query is replaced, by q' = P^T (q - b_q) + b_q: its product with k_j is the
    truncated score plus x_i W_q^T (P - 1) b_k, which does not depend on j, so that softmax ignores it.

    `projections` names the module's linear maps to queries and keys. Exact only where the product takes their outputs as
    they are: see `check_operands`.
    """
    owner = module_at(network, Site.parse(module))
    (w_q, b_q), (w_k, _) = (_by_head(owner, name, module, heads) for name in projections)
    functions: dict[str, EditFunction] = {}
    for head in range(heads):
        if not 1 <= rank <= w_q.shape[1]:
            raise ProxyError(f"weights-only SVD: rank {rank} at {module}, whose heads have width {w_q.shape[1]}")
        r_q, r_k = torch.linalg.qr(w_q[head].T).R, torch.linalg.qr(w_k[head].T).R
        left = torch.linalg.svd(r_q @ r_k.T).U[:, :rank]
        p = torch.linalg.pinv(r_q, rtol=1e-10) @ left @ (left.T @ r_q)
        functions[place(module, "query", head)] = _affine(p, b_q[head])
    return Edit(functions, Origin("weights", module, parameter=rank))


def _affine(p: Tensor, bias: Tensor) -> EditFunction:
    """q -> P^T (q - b) + b, row by row."""

    def function(rows: Tensor, mask: Tensor | None) -> Tensor:
        b = bias.to(rows)
        return (rows - b) @ p.to(rows) + b

    return function


def _by_head(owner: nn.Module, name: str, module: str, heads: int) -> tuple[Tensor, Tensor]:
    """Weights (H, d, D) and biases (H, d) of one projection, float64."""
    linear = getattr(owner, name, None)
    if not isinstance(linear, nn.Linear):
        raise ProxyError(f"weights-only SVD: {module} has no linear map {name!r}; name its projections")
    weight = linear.weight.detach().double().cpu()
    bias = torch.zeros(weight.shape[0]) if linear.bias is None else linear.bias.detach().cpu()
    return weight.view(heads, -1, weight.shape[1]), bias.double().view(heads, -1)


def check_operands(
    network: nn.Module,
    split: Split,
    module: str,
    *,
    heads: int,
    projections: tuple[str, str] = ("query", "key"),
    device: str = "cpu",
) -> None:
    """Raise `ProxyError` where queries or keys do not enter the product as their projections gave them.

    Rotary positions and norms of queries and keys do that, and then W_q^T W_k is not the form that attention uses.
    """
    batch: Batch = split.items.take(split.batch_indices(1)[0]).to(device)
    inside = "" if module == "." else f"{module}."
    pairs = [(f"{inside}{name}", f"{module}@attn.{part}") for name, part in zip(projections, OPERANDS, strict=True)]
    with Tap(network, read=[site for pair in pairs for site in pair]) as tap:
        reading = tap(batch)
    for projection, operand in pairs:
        given = reading[projection]
        given = given.view(*given.shape[:2], heads, -1).transpose(1, 2)
        if not torch.allclose(given, reading[operand], rtol=1e-4, atol=1e-5):
            raise ProxyError(
                f"weights-only SVD: {operand} differs from what {projection} returns (rotary positions, a norm or a scale "
                "in between), so that W_q^T W_k is not the form that attention uses; use svd of the activations instead"
            )


def both_modules(edits: Sequence[Edit], more: Sequence[Edit]) -> list[Edit]:
    """Edits of two modules joined where family and parameter are the same, under both modules' names."""
    found = []
    for a in edits:
        for b in more:
            if (a.origin.name, a.origin.parameter) == (b.origin.name, b.origin.parameter):
                joined = a.then(b)
                found.append(replace(joined, origin=replace(joined.origin, site=f"{a.origin.site} + {b.origin.site}")))
    return found


def single_directions(seen: Captured, module: str, rank: int, *, heads: int, fit_split: str) -> list[tuple[int, Edit]]:
    """(component, edit): the joint basis cut at `rank` with one further component added back, of every head at once."""
    bases = [SVD().fit_moments(seen.joint(head)) for head in range(heads)]
    assert bases[0].components_ is not None
    found = []
    for component in range(rank, len(bases[0].components_)):
        kept = [*range(rank), component]
        functions = {
            place(module, operand, head): rowwise(bases[head].keeping(kept))
            for operand in OPERANDS
            for head in range(heads)
        }
        origin = Origin(f"svd+{component}", module, fit_split, rank)
        found.append((component, Edit(functions, origin)))
    return found
