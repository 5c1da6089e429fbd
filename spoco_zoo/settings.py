"""Base of all settings: immutable, no unknown keys, from YAML and flags, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from spoco_zoo.errors import ConfigError
from spoco_zoo.wording import meant

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Config"]


class Config(BaseModel):
    """Base of all settings; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def build(cls, file: Path | None = None, **flags: Any) -> Self:
        """Settings from a YAML file, overridden by the flags that are not None.

        A flag that is a mapping overrides single entries of the file's mapping.

        Raises
        ------
        ConfigError
            If the file is no mapping, or a value breaks its rule.
        """
        values: dict[str, Any] = {}
        loaded: dict[str, Any] = {}
        if file is not None:
            from spoco_zoo.settings_file import read_settings

            loaded = read_settings(file)
            values.update(loaded)
        for key, value in flags.items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                values[key] = {**values[key], **value}
            elif value is not None:
                values[key] = value
        try:
            return cls.checked(values)
        except ConfigError as error:
            name = error.rule.partition("'")[2].partition("'")[0].partition(".")[0]
            if name not in loaded or flags.get(name) is not None:
                raise
            raise ConfigError(error.rule, f"{error.found} in {file}", error.remedy) from error

    @classmethod
    def checked(cls, values: Any) -> Self:
        """Validate plain values, with a one-line error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or cls.__name__
            if first["type"] == "extra_forbidden":
                rule, remedy = f"setting '{where}' must be one that there is", meant(cls, where)
                raise ConfigError(rule, f"{first['input']!r}"[:80], remedy) from error
            raise ConfigError(
                f"setting '{where}': {first['msg']}",
                f"{first['input']!r}"[:80],
                "See docs/configuration.md.",
            ) from error

    def fingerprint(self) -> str:
        """SHA-256 of the settings, equal for equal settings on any machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The settings as YAML, which `build` reads back."""
        import yaml

        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
