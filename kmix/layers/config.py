"""The arguments of a layer in its config, in pickles and in copies."""

import copy

import keras

from kmix import _backend
from kmix.targets import target as kinds


def serialize(value):
    """An argument as JSON can hold it."""
    if isinstance(value, (list, tuple)):
        return [serialize(item) for item in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {str(key): serialize(item) for key, item in value.items()}
    return keras.saving.serialize_keras_object(value) if callable(value) else value


def deserialize(value):
    """An argument from what `serialize` returned."""
    if isinstance(value, list):
        return [deserialize(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    return {key: deserialize(item) for key, item in value.items()} if isinstance(value, dict) else value


def plain(value):
    """A setting as plain lists and dictionaries: Keras makes its own of attributes, which cannot be pickled."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _rebuild(cls, arguments, count, held=None, process=None):
    """Unpickle or copy a layer. In a worker process it can mix at a given step, but not count."""
    layer = cls.from_config(arguments)
    layer.unpickle(count, held, process)
    return layer


class Configured(keras.layers.Layer):
    """The config, pickles and copies of a layer: its arguments, and how many calls it has counted."""

    passthrough: tuple[str, ...]

    @property
    def target_arguments(self):
        """The arguments that kinds of targets add, by name."""
        return {name: getattr(self, name, default) for name, default in kinds.arguments().items()}

    def arguments(self):
        """The config with objects (schedules, layers, functions) as they are."""
        own = ("num_classes", "labels", "target", "class_weight", "keep_clean", "seed")
        defaults = kinds.arguments()
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in own},
            **{name: value for name, value in self.target_arguments.items() if value != defaults[name]},
            "passthrough": list(self.passthrough),
        }

    def get_config(self):
        return {name: serialize(value) for name, value in self.arguments().items()}

    @classmethod
    def from_config(cls, config):
        return super().from_config({name: deserialize(value) for name, value in config.items()})

    def pickled(self):
        """What a pickle holds besides the arguments, for `unpickle`."""
        return

    def unpickle(self, count, held, process):
        """Count on from `count`, in `process` alone, and take over what `pickled` returned in another process."""
        self._counter = _backend.Counter(count, copied=True, process=process)

    def __reduce__(self):
        held = (self._counter.count(), self.pickled(), self._counter.process)
        return _rebuild, (type(self), plain(self.arguments()), *held)

    def __copy__(self):
        return _rebuild(type(self), plain(self.arguments()), self._counter.count())

    def __deepcopy__(self, memo):
        return _rebuild(type(self), plain(copy.deepcopy(self.arguments(), memo)), self._counter.count())
