"""From labels and tokens to what a person reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from heldout.audits.parts import Decode
from heldout.audits.sources import resolve
from heldout.errors import ConfigError
from heldout.networks.load import _quiet, _transformers, call, import_function

Decoder = Callable[[int], str]


def decoder(spec: Decode | None, folder: Path) -> Decoder | None:
    """A function from a class or token to text, None where the spec names none."""
    if spec is None:
        return None
    if spec.names is not None:
        path = resolve(folder, spec.names, field="decode.names")
        names = path.read_text(encoding="utf-8").splitlines()
        return lambda label: names[label] if 0 <= label < len(names) else str(label)
    if spec.function is not None:
        function, field = import_function(spec.function, folder, field="decode.function"), "decode.function"
        return lambda label: str(call(lambda: function(label), {}, folder, field=field))
    assert spec.tokenizer is not None
    return _tokenizer(resolve(folder, spec.tokenizer, field="decode.tokenizer"))


def _tokenizer(path: Path) -> Decoder:
    transformers: Any = _transformers("decode.tokenizer")
    with _quiet(transformers):
        try:
            found = transformers.AutoTokenizer.from_pretrained(
                str(path.resolve()), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise ConfigError(f"decode.tokenizer: {path} holds no tokenizer: {str(error).splitlines()[0]}") from error
    return lambda label: str(found.decode([label]))
