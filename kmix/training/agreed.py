"""Settings on which a trainer and its mixing layers must agree."""

from kmix import _checks
from kmix.targets import target as kinds
from kmix.targets.spread import check_num_classes


def agreed(setting, value, layers):
    """The value of a setting of the trainer or its mixing layers; None if none of them has one.

    Args:
        setting: `"num_classes"`, `"labels"`, `"target"` or `"class_weight"`.
        value: The value of the trainer, or None.
        layers: The mixing layers.
    """
    value = check_num_classes(value) if setting == "num_classes" else value
    given = [getattr(layer, setting) for layer in layers]
    if setting == "labels" and value is not None:
        return value
    given = [each for each in [value, *given] if each is not None]
    if any(each != given[0] for each in given):
        _checks.fail(f"The trainer and its mixing layers must agree on `{setting}`.", f"{given}")
    return given[0] if given else None


def agreed_arguments(given, layers):
    """The arguments that kinds of targets add: of the trainer or its mixing layers, where one is not the default."""
    agreed = {}
    for name, default in kinds.arguments().items():
        values = [value for value in (given[name], *(getattr(layer, name) for layer in layers)) if value != default]
        if any(value != values[0] for value in values):
            _checks.fail(f"The trainer and its mixing layers must agree on `{name}`.", f"{values}")
        agreed[name] = values[0] if values else default
    return agreed
