"""The README's Python runs as it stands, on a network of somebody else's."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

README = Path(__file__).resolve().parents[1] / "README.md"


class Sentiment(nn.Module):
    """A transformer encoder written by somebody else's conventions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.embed(tokens)).mean(dim=1))
        return out


def test_the_ten_lines_run():
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Sentiment()
    names: dict[str, object] = {"network": network}
    for name in ("train", "test", "new"):
        names[f"x_{name}"] = torch.randint(0, 20, (60, 7), generator=generator)
        names[f"y_{name}"] = torch.randint(0, 3, (60,), generator=generator)
    lines = code[1].strip().splitlines()
    assert len([line for line in lines if line.strip()]) <= 11
    exec(compile("\n".join(lines), str(README), "exec"), names)
    result = names["result"]
    assert result["same_prediction", "id"].n == 60
    assert len(result.worst("shifted", 20)) == 20
    assert "shifted" in str(result)


def test_the_commands_exist():
    """Every `make` target and `heldout` command that the README names is there."""
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", text)):
        if target not in ("it",):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    from heldout.cli import app

    known = {c.name or c.callback.__name__.rstrip("_") for c in app.registered_commands}
    assert set(re.findall(r"heldout (list|show|run|report|compare|doctor|audit|rule)\b", text)) <= known


def test_what_make_demo_runs_is_what_it_says():
    """The command beside "what make demo runs" is the Makefile's, of a study and preset that are there."""
    makefile = (README.parent / "Makefile").read_text()
    demo = re.search(r"^demo:.*\n\t\$\(BIN\)/(.+)$", makefile, re.MULTILINE)
    told = re.search(r"^\.venv/bin/(.+?) +# what make demo runs$", README.read_text(), re.MULTILINE)
    assert demo is not None
    assert told is not None
    assert demo[1] == told[1]
    from heldout.studies.base import find_study

    words = demo[1].split()
    assert words[:2] == ["heldout", "run"]
    assert words[words.index("--preset") + 1] in find_study(words[2]).presets
