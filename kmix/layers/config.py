"""The arguments of a layer in its config, in pickles and in copies."""

import keras


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


def rebuild(cls, arguments, count, held=None):
    """Unpickle or copy a layer. In a worker process it can mix at a given step, but not count."""
    layer = cls.from_config(arguments)
    layer.unpickle(count, held)
    return layer
