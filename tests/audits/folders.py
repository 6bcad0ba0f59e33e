"""A user's folder: a module of theirs, data, and a spec, in a temporary place."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

MINE = '''
"""Networks and data as a user writes them: no name of heldout's in it."""
import torch
from torch import nn


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def mlp(seed=0, outputs=3):
    return seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs)), seed)


def cnn():
    return seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(9, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 9)

    def forward(self, tokens):
        return self.head(self.lstm(self.embed(tokens))[0])


def lstm():
    return seeded(Lstm)


class Theirs(nn.Module):
    """Sequence first, padding by key_padding_mask: somebody else's conventions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, src, src_key_padding_mask):
        states = self.encoder(self.embed(src), src_key_padding_mask=src_key_padding_mask)
        data = (~src_key_padding_mask).T[..., None]
        return self.head((states * data).sum(0) / data.sum(0))


class ItemsFirst(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, src, src_key_padding_mask):
        return self.inner(src.T, src_key_padding_mask)


def theirs():
    return seeded(lambda: ItemsFirst(Theirs()))


def points(seed, shift=0.0, n=40):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + shift
    return {"inputs": x, "targets": (x.sum(1) > 0).long()}


def numbers(seed, n=40):
    x = points(seed, n=n)["inputs"]
    return {"inputs": x, "targets": x[:, :2]}


def images(seed, n=24):
    x = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % 3


class Fails(nn.Module):
    """Works until an item beyond 2 comes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        if (x > 8).any():
            raise RuntimeError("the flux capacitor is empty")
        return self.body(x)


def fails():
    return seeded(Fails)


class Overflows(nn.Module):
    """Its hidden layer is infinite for items far away."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        h = self.body(x)
        self.head(h)
        return self.head(torch.where(x.amax(1, keepdim=True) > 8, torch.inf * torch.ones_like(h), h))


def overflows():
    return seeded(Overflows)


def positions_first():
    layer = lambda: nn.TransformerEncoderLayer(4, 2, 8)
    return seeded(lambda: nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False))


def square(seed):
    """As many items as positions: (B, T, D) and (T, B, D) have one shape."""
    x = torch.randn(5, 5, 4, generator=torch.Generator().manual_seed(seed))
    return {"inputs": x, "targets": (x.sum(2) > 0).long()}


def unseeded():
    return nn.Sequential(nn.Linear(4, 3))


def wrong_shape():
    return nn.Sequential(nn.Linear(4, 3), nn.Flatten(0))


def halve(rows, mask):
    return rows / 2


def same(rows, mask):
    return rows.clone()


def scaled(by):
    return lambda rows, mask: rows * by


def narrow(rows, mask):
    return rows[..., :1]


def encoder():
    return seeded(lambda: nn.Linear(8, 16))


def decoder():
    return seeded(lambda: nn.Linear(16, 8))


class LastDigit(nn.Module):
    """Adds the last digits of pairs (B, 2) of whole numbers: scores of the answers 0 to 18."""

    def forward(self, pairs):
        return -((pairs % 10).sum(1, keepdim=True) - torch.arange(19)).abs().float()


def adder():
    return LastDigit()


def pairs(seed, below=100, n=160):
    return {"inputs": torch.randint(0, below, (n, 2), generator=torch.Generator().manual_seed(seed))}


def answers(network, batch):
    a, b = batch.inputs.T
    return a, b, network(batch.inputs).argmax(1)


def letter(label):
    return "abcdefghijk"[label]
'''

POINTS = {
    "fit": {"role": "fit", "function": "mine:points", "arguments": {"seed": 1}},
    "id": {"role": "test", "function": "mine:points", "arguments": {"seed": 2}},
    "far": {
        "role": "test",
        "function": "mine:points",
        "arguments": {"seed": 3, "shift": 1.0},
        "note": "shifted by one",
    },
}


def base(**changed: Any) -> dict[str, Any]:
    """A spec that works, with some of its fields replaced."""
    spec = {
        "name": "mine",
        "network": {"from": "mine:mlp"},
        "splits": POINTS,
        "sites": ["1"],
        "families": {"svd": [2, 8]},
        "null_draws": 2,
        "worst": 3,
        "device": "cpu",
    }
    return {k: v for k, v in {**spec, **changed}.items() if v is not None}


def write(folder: Path, spec: dict[str, Any]) -> Path:
    """The folder with the module and the spec; the spec's path."""
    (folder / "mine.py").write_text(MINE)
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def sequences(n: int, *, seed: int, low: int = 3, high: int = 8, below: int = 9) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, below, size=rng.integers(low, high)).tolist() for _ in range(n)]


def write_sequences(folder: Path, *, names: tuple[str, ...] = ("fit", "id", "far"), n: int = 20) -> None:
    """One JSON-lines file a split: tokens of many lengths, a label, an id and a group."""
    for seed, name in enumerate(names):
        rows = sequences(n, seed=seed)
        lines = [
            json.dumps({"tokens": t, "label": len(t) % 3, "id": f"{name}-{i}", "group": f"g{i // 2}"})
            for i, t in enumerate(rows)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def sequence_splits(argument: str, **more: Any) -> dict[str, Any]:
    roles = {"fit": "fit", "id": "test", "far": "test"}
    return {
        name: {"role": role, "file": f"{name}.jsonl", "inputs": {argument: "tokens"}, "keys": "id", **more}
        for name, role in roles.items()
    }


def save_hugging_face(kind: str, folder: Path) -> Path:
    """A small model saved as its author would save it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    import torch

    small = {
        "vocab_size": 9,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "max_position_embeddings": 16,
    }
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        if kind == "gpt2":
            made = transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    vocab_size=9, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
                )
            )
        elif kind == "llama":
            config = transformers.LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=2)
            made = transformers.LlamaForCausalLM(config)
        else:
            config = transformers.BertConfig(**small, num_attention_heads=2, num_labels=3)
            made = transformers.BertForSequenceClassification(config)
        with torch.no_grad():
            for weight in made.parameters():  # drawn so small that nothing would depend on the tokens
                weight.mul_(8 if weight.ndim > 1 else 1)
        made.save_pretrained(folder / kind)
    return folder / kind
