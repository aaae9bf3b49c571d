"""Objects that hold settings: targets and pairing rules."""

import inspect
from typing import Any, Self

import keras

from kmix import _checks


class Settings:
    """An object that is its settings: the arguments of its constructor, kept as attributes of the same names.

    It is never changed, goes through JSON by Keras' serialization, and equals others of its class with equal settings.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            _checks.fail(
                f"A `{type(self).__name__}` is never changed, since several layers may hold it.",
                f"{name}={value!r}",
                f"Write `new = old.replace({name}=...)`.",
                AttributeError,
            )
        super().__setattr__(name, value)

    def get_config(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The object with these settings."""
        return cls(**deserialize(config))

    def replace(self, **settings: Any) -> Self:
        """A copy with other settings."""
        return type(self)(**{**self.get_config(), **settings})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        signature = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.get_config().items() if value != signature[name].default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def serialize(value: Any) -> Any:
    """An argument as JSON can hold it."""
    if isinstance(value, (list, tuple)):
        return [serialize(item) for item in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {str(key): serialize(item) for key, item in value.items()}
    has_config = callable(value) or isinstance(value, Settings)
    return keras.saving.serialize_keras_object(value) if has_config else value


def deserialize(value: Any) -> Any:
    """An argument from what `serialize` returned."""
    if isinstance(value, list):
        return [deserialize(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    return {key: deserialize(item) for key, item in value.items()} if isinstance(value, dict) else value
