"""Small networks of every kind that the sites must serve, each with a batch and what is known of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heldout.networks.cnn import CNN
from heldout.networks.mlp import MLP
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch


@dataclass(frozen=True)
class Case:
    """A network in eval mode, one batch of it, and the modules in which attention is computed.

    `attention_tolerance` is the difference that replacing query, key or value by a copy may make: zero where the
    network's own kernel runs on the copies. `in_place`: inputs that their module changes for others to see, so that even a
    copy there is a change.
    """

    network: nn.Module
    batch: Batch
    attention: tuple[str, ...] = ()
    attention_tolerance: float = 0.0
    in_place: tuple[str, ...] = ()


class Lstm(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=batch_first)
        self.readout = nn.Linear(5, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        states, (hidden, _) = self.lstm(x if self.batch_first else x.transpose(0, 1))
        states = states if self.batch_first else states.transpose(0, 1)
        return self.readout(states) + hidden.mean() + self.readout(hidden[-1])[:, None]


class Twice(nn.Module):
    """One activation module and one linear map, both called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.act(self.middle(self.act(self.first(x))))))


class Tied(nn.Module):
    """The same module under two paths, and a readout whose weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.a = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.b = self.a
        self.readout = nn.Linear(6, 9, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.b(self.a(self.embed(tokens))))


class InPlaceCnn(nn.Module):
    """In-place ReLU, whose result is used; and an in-place function whose result is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3))
        self.clip = nn.Hardtanh(-0.1, 0.1, inplace=True)
        self.readout = nn.Linear(3 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        self.clip(x)
        x += 0.5
        return self.readout(x.flatten(1))


class Mha(nn.Module):
    """nn.MultiheadAttention as a user calls it."""

    def __init__(self, *, need_weights: bool, kdim: int | None = None, batch_first: bool = True) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kdim, vdim=kdim)
        self.readout = nn.Linear(8, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor, memory: Tensor | None = None, **masks: Tensor) -> Tensor:
        memory = x if memory is None else memory
        out, weights = self.attn(x, memory, memory, need_weights=self.need_weights, **masks)
        assert (weights is not None) == self.need_weights
        return self.readout(out if weights is None else out + weights.mean())


class Packed(nn.Module):
    """Outputs inside outputs: a mapping that holds a tuple and a tensor."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor, *, shift: Tensor) -> dict[str, Any]:
            return {"pair": (self.linear(x), [x * 2]), "shifted": x + shift}

    def __init__(self) -> None:
        super().__init__()
        self.inner = Packed.Inner()
        self.largest = Largest()

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x, shift=torch.ones(4))
        top = self.largest(out["shifted"])
        return (
            out["pair"][0] + 10 * out["pair"][1][0] + 100 * out["shifted"] + top.values[..., None] + top.indices.sum()
        )


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.max(dim=-1)  # a torch.return_types tuple


class Grouped(nn.Module):
    """Grouped queries, an additive mask, and a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = draw(x.shape[1], x.shape[1], seed=5)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3, enable_gqa=True)
        return self.out(y.transpose(1, 2).flatten(2))


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(*shape: int, below: int = 9, seed: int = 1) -> Tensor:
    return torch.randint(1, below, shape, generator=torch.Generator().manual_seed(seed))


def padding(lengths: tuple[int, ...] = (6, 4, 3)) -> Tensor:
    """(B, T) bool, True on data."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def batch(inputs: Any, n: int = 3, **given: Any) -> Batch:
    return Batch(inputs, torch.arange(n), **given)


def _transformer(causal: bool = True, heads: int = 2) -> Transformer:
    return Transformer(9, width=8, layers=2, heads=heads, max_length=12, causal=causal)


def _hugging_face(kind: str, implementation: str) -> Case:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    common = {"vocab_size": 9, "attn_implementation": implementation}
    small = {**common, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "max_position_embeddings": 16}
    mask = padding()
    inputs = {"input_ids": tokens(3, 6), "attention_mask": mask.long()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on configurations, which is none of our concern
        if kind == "gpt2":
            config = transformers.GPT2Config(
                **common, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
            )
            network, owners = transformers.GPT2LMHeadModel(config), ("transformer.h.0.attn", "transformer.h.1.attn")
        elif kind == "llama":
            config = transformers.LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=2)
            network = transformers.LlamaForCausalLM(config)
            owners = ("model.layers.0.self_attn", "model.layers.1.self_attn")
        else:
            config = transformers.BertConfig(**small, num_attention_heads=2)
            network = transformers.BertModel(config)
            owners = ("encoder.layer.0.attention.self", "encoder.layer.1.attention.self")
    with torch.no_grad():
        for weight in network.parameters():  # drawn so small that attention would hardly depend on them
            weight.mul_(10 if weight.ndim > 1 else 1)
    # Under eager the kernel is another one while sites inside attention are used.
    return Case(network, batch(inputs, mask=mask), owners, 0.0 if implementation == "sdpa" else 1e-6)


def _encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


ZOO: dict[str, Callable[[], Case]] = {
    "mlp": lambda: Case(MLP((6, 5, 5, 3)), batch(draw(3, 6))),
    "cnn": lambda: Case(CNN((1, 8, 8), 4, channels=(3, 5)), batch(draw(3, 1, 8, 8))),
    "cnn in place": lambda: Case(InPlaceCnn(), batch(draw(3, 2, 8, 8)), in_place=("clip:input@flat",)),
    "lstm": lambda: Case(Lstm(batch_first=True), batch(draw(3, 4, 6))),
    "lstm time first": lambda: Case(Lstm(batch_first=False), batch(draw(3, 4, 6))),
    "twice": lambda: Case(Twice(), batch(draw(3, 6))),
    "tied": lambda: Case(Tied(), batch(tokens(3, 6), mask=padding())),
    "packed": lambda: Case(Packed(), batch(draw(3, 4))),
    "grouped": lambda: Case(Grouped(), batch(draw(3, 6, 8), mask=padding()), (".",)),
    "transformer": lambda: Case(
        _transformer(), batch(tokens(3, 6), mask=padding()), ("blocks.0.attn", "blocks.1.attn")
    ),
    "transformer at": lambda: Case(
        _transformer(),
        batch((tokens(3, 6), torch.tensor([[1, 5], [0, 3], [2, 1]]))),
        ("blocks.0.attn", "blocks.1.attn"),
    ),
    "mha": lambda: Case(Mha(need_weights=False), batch(draw(3, 6, 8)), ("attn",), 1e-6),
    "mha weights": lambda: Case(Mha(need_weights=True), batch(draw(3, 6, 8)), ("attn",), 1e-6),
    "mha padding": lambda: Case(
        Mha(need_weights=False),
        batch({"x": draw(3, 6, 8), "key_padding_mask": ~padding()}, mask=padding()),
        ("attn",),
        1e-6,
    ),
    "mha bool mask": lambda: Case(
        Mha(need_weights=True),
        batch({"x": draw(3, 6, 8), "attn_mask": torch.ones(6, 6, dtype=torch.bool).triu(1)}),
        ("attn",),
        1e-6,
    ),
    "mha float masks": lambda: Case(
        Mha(need_weights=False),
        batch({"x": draw(3, 6, 8), "attn_mask": draw(6, 6, 6), "key_padding_mask": (~padding()) * -9.0}),
        ("attn",),
        1e-6,
    ),
    "mha other memory": lambda: Case(
        Mha(need_weights=False, kdim=5), batch((draw(3, 6, 8), draw(3, 4, 5))), ("attn",), 1e-6
    ),
    "mha unbatched": lambda: Case(Mha(need_weights=True), batch(draw(3, 8)), ("attn",), 1e-6),
    "encoder layer": lambda: Case(
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), batch(draw(3, 6, 8)), ("self_attn",), 1e-6
    ),
    "encoder": lambda: Case(
        _encoder(),
        batch({"src": draw(3, 6, 8), "src_key_padding_mask": ~padding()}, mask=padding()),
        ("layers.0.self_attn", "layers.1.self_attn"),
        1e-6,
    ),
    **{
        f"{kind} {implementation}": lambda kind=kind, implementation=implementation: _hugging_face(kind, implementation)
        for kind in ("gpt2", "llama", "bert")
        for implementation in ("sdpa", "eager")
    },
}


def build(name: str) -> Case:
    """The case with weights drawn from a seed of its own, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        case = ZOO[name]()
    case.network.eval()
    return case


def plain(case: Case) -> list[Tensor]:
    """The network's output with nothing of ours around it, except that PyTorch's fast path is off."""
    args, kwargs = case.batch.arguments()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return tensors(case.network(*args, **kwargs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in an output, in order; caches and other opaque things are passed over."""
    return [tensor for _, tensor in leaves(value)]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}[{key}]")
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}[{i}]")


def module_sites(case: Case) -> list[str]:
    """Every output and first input of every call of every module, found with plain hooks, as site strings."""
    found: list[tuple[nn.Module, str, Tensor]] = []
    handles = []
    for module in case.network.modules():

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            found.extend((module, select, tensor) for select, tensor in leaves(output))
            found.append((module, ":input", args[0] if args else next(iter(kwargs.values()))))

        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        plain(case)
    finally:
        for handle in handles:
            handle.remove()
    names = {module: name or "." for name, module in case.network.named_modules()}
    calls: dict[tuple[nn.Module, str], int] = {}
    entries: list[tuple[nn.Module, str, Tensor, int]] = []
    for module, place, tensor in found:
        call = calls.get((module, place), 0)
        calls[module, place] = call + 1
        entries.append((module, place, tensor, call))
    return [
        names[m] + (f"#{call}" if calls[m, place] > 1 else "") + place + ("@flat" if tensor.ndim > 3 else "")
        for m, place, tensor, call in entries
        if isinstance(tensor, Tensor)
    ]
