"""A user's network: from a function of theirs, or from a local Hugging Face directory.

Nothing is downloaded, nothing is unpickled, and no code that lies beside weights is run. A function that is named by
``package.module:function`` is imported and called: naming it is asking for it to be run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heldout.errors import CheckpointError, ConfigError, HeldoutError, NetworkError, choices, unknown

HEADS = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "none": "AutoModel",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules that lie in `folder` can be imported inside this context, before those installed under the same name."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)


def import_function(target: str, folder: Path, *, field: str) -> Callable[..., Any]:
    """The callable that ``package.module:function`` names, looked for in `folder` first.

    A module that was imported from another folder under the same name is not taken for it. Raises `ConfigError` that
    names `field`.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{field}: {target!r} is not of the form package.module:function")
    with importable(folder):
        _forget_foreign(module_name, folder, field=field)
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            near = sorted(p.stem for p in folder.glob("*.py"))
            what = (
                f"there is no module {module_name!r}; {choices(module_name, near)}"
                if error.name and module_name.split(".")[0] == error.name.split(".")[0]
                else f"importing {module_name!r} failed: {error}"
            )
            raise ConfigError(f"{field}: {what} (looked in {folder} first)") from error
        except HeldoutError:
            raise
        except Exception as error:
            raise ConfigError(f"{field}: importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ConfigError(f"{field}: {unknown(f'function in {module_name}', name, known)}")
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., Any], arguments: Mapping[str, Any], folder: Path, *, field: str) -> Any:
    """``function(**arguments)``; what it raises becomes a `ConfigError` that names `field`. Imports that it makes while
    it runs find the modules of `folder`."""
    try:
        with importable(folder):
            return function(**arguments)
    except HeldoutError:
        raise
    except Exception as error:
        named = ", ".join(arguments) or "no arguments"
        raise ConfigError(f"{field}: the function failed ({named}): {type(error).__name__}: {error}") from error


def from_function(target: str, arguments: Mapping[str, Any], folder: Path, *, field: str = "network.from") -> nn.Module:
    """The module that a function returns, in eval mode."""
    network = call(import_function(target, folder, field=field), arguments, folder, field=field)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{field}: {target} returned a {type(network).__name__}; a torch.nn.Module is needed")
    return network.eval()


def from_huggingface(
    path: Path, *, head: str, dtype: str | None = None, field: str = "network.huggingface"
) -> nn.Module:
    """A model saved by ``save_pretrained`` into a local directory; its weights must be safetensors and fill it whole.

    `head` is a key of `HEADS`. Raises `ConfigError` where the extra ``hf`` is missing, `CheckpointError` where the
    directory, its configuration or its weights are.
    """
    if head not in HEADS:
        raise ConfigError(f"{field}: {unknown('head', head, HEADS)}")
    check_directory(path, field=field)
    transformers = _transformers(field)
    kind = getattr(transformers, HEADS[head])
    given: dict[str, Any] = {"dtype": DTYPES[dtype]} if dtype else {}
    with _quiet(transformers):
        try:
            network, found = kind.from_pretrained(
                str(path.resolve()),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **given,
            )
        except Exception as error:  # whatever reading a configuration or building a model met
            raise CheckpointError(
                f"{field}: {path} cannot be loaded as {kind.__name__}: {_first_line(error)}"
            ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{field}: {path} lacks {len(missing)} weights of {type(network).__name__}, for example {missing[0]}: they "
            f"would be random. It was saved with another head than {head!r}; choose from {', '.join(HEADS)}"
        )
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{field}: {path} gave a {type(network).__name__}, not a torch.nn.Module")
    return network.eval()


def check_directory(path: Path, *, field: str) -> None:
    """Raise `CheckpointError` unless `path` holds a configuration and safetensors."""
    if not path.is_dir():
        near = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
        raise CheckpointError(
            f"{field}: there is no directory {path}; {choices(path.name, near)}. Only local directories are read"
        )
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{field}: {path} has no config.json; name a directory that save_pretrained has written")
    if not any(path.glob("*.safetensors")):
        pickled = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".h5", ".ckpt"))
        why = (
            f"{', '.join(pickled)} would need unpickling, which is not done here; load it where you trust it and call "
            "save_pretrained, which writes safetensors"
            if pickled
            else "save the model with save_pretrained, weights included"
        )
        raise CheckpointError(f"{field}: {path} has no weights in safetensors; {why}")


def _transformers(field: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ConfigError(
            f"{field}: transformers is not installed; install the extra: pip install 'heldout[hf]'"
        ) from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and no advice while weights load; what matters is raised."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _forget_foreign(module_name: str, folder: Path, *, field: str) -> None:
    """Drop an imported module of another folder where `folder` has one of the same name; an installed one stays."""
    top = module_name.split(".")[0]
    here = [p for p in (folder / f"{top}.py", folder / top / "__init__.py") if p.is_file()]
    known = sys.modules.get(top)
    there = Path(getattr(known, "__file__", None) or "").resolve()
    if not here or known is None or there == here[0].resolve():
        return
    if any(there.is_relative_to(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix)):
        raise ConfigError(f"{field}: {here[0]} has the name of a module that is installed ({there}); rename yours")
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[name]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
