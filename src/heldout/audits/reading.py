"""Plain YAML as a mapping, or a `ConfigError`: what two readers could take for two things is refused."""

from __future__ import annotations

from typing import Any

import yaml

from heldout.errors import ConfigError
from heldout.studies.schema import LONGEST, short


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml ships no types
    """A safe loader that refuses a key that stands twice; YAML forbids it, PyYAML keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{short(key.value)} is given twice; give each once", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_plain(text: str, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds. Aliases and merge keys are followed."""
    try:
        raw = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError(f"{where} is no plain YAML: too deeply nested") from None
    except Exception as error:  # constructors have errors of their own: a date of month 13, a number without digits
        raise ConfigError(f"{where} is no plain YAML: {' '.join(str(error).split())[:LONGEST]}") from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{where} holds {type(raw).__name__}; a mapping with name, network, splits and sites is needed"
        )
    return raw
