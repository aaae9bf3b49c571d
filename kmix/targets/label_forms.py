"""The old place of `kmix.label_forms.resolve`, for `kmix.training.outputs` alone."""

from kmix.label_forms import resolve as settle_labels  # noqa: F401
