"""The three ways to mix in a training step, and what the layers of a model must agree on."""

import keras

from kmix import _checks
from kmix.layers.batch_layer import BatchLayer
from kmix.layers.keras_masks import MixMask
from kmix.layers.mix_layer import MixLayer
from kmix.training import graph as graphs
from kmix.training.manifold import LAYER, Rebuilt

# The methods of the training loop; a KerasHub task overrides the latter to preprocess what they get.
PREPROCESSING = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
HUBS = ("keras_hub", "keras_nlp")
LOOP = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", *PREPROCESSING)


def leaves(layer):
    """The layers that draw with an alpha: those of a `RandomChoice`, or the layer itself."""
    if isinstance(layer, MixLayer):
        yield layer
    for inner in getattr(layer, "layers", ()):
        yield from leaves(inner)


def placed_layers(model):
    """The mixing layers inside a model, in the order of its layers, each once."""
    found: dict[BatchLayer, None] = {}
    for layer in getattr(model, "layers", ()):
        inner = [layer] if isinstance(layer, BatchLayer) else placed_layers(layer)
        found.update(dict.fromkeys(inner))
    return list(found)


def check_ways(model, mix, at, placed):
    """Raise unless exactly one of the three ways to mix is taken, with a model and layers that can.

    Args:
        model: The model to train.
        mix: The layer that mixes the inputs, or at the places `at`; or None.
        at: Names of layers, or None.
        placed: `placed_layers(model)`.
    """
    if not isinstance(model, keras.Model):
        _checks.fail("`model` must be a Keras model.", f"a {type(model).__name__}", error=TypeError)
    if mix is not None and not isinstance(mix, BatchLayer):
        _checks.fail("`mix` must be a mixing layer of kmix.", f"a {type(mix).__name__}", error=TypeError)
    check_loop(model)
    if mix is None and not placed:
        _checks.fail(
            "A MixTrainer needs something that mixes.",
            "no `mix` and a model without mixing layers",
            "Write `MixTrainer(model, mix=kmix.MixUp(0.2))`, or place `kmix.EmbeddingMixup(0.2)` in the model.",
        )
    if placed and (mix is not None or at is not None):
        given = "`at`" if mix is None else "`mix`"
        _checks.fail(
            "Mix in one way: with `mix=`, or with the mixing layers inside the model.",
            f"{given} and a model with {', '.join(layer.name for layer in placed)}",
            f"Leave out {given}, or take the layers out of the model.",
        )
    if at is not None and (len(at) == 0 or len(set(at)) < len(at)):
        _checks.fail("`at` must hold names of layers, each once.", f"at={list(at)}")
    _check_layers(placed if at is None else [mix])


def _check_layers(layers):
    """Raise unless layers can mix behind layers of a model, and agree on the plan."""
    for layer in layers:
        if not layer.fits_in_models:
            _checks.fail(
                "Behind layers of a model only MixUp and EmbeddingMixup mix.",
                f"{type(layer).__name__} ({layer.name})",
                f"Mix the inputs with it: `MixTrainer(model, mix=kmix.{type(layer).__name__}(...))`.",
            )
    for setting in ("alpha", "per", "rate"):
        if len({repr(layer.get_config()[setting]) for layer in layers}) > 1:
            _checks.fail(
                f"All mixing layers of a model mix with one plan, so they must agree on `{setting}`.",
                ", ".join(f"{layer.name}: {getattr(layer, setting)!r}" for layer in layers),
                "Give them the same settings. The seed of the first one counts.",
            )


def check_loop(model):
    """Raise if a model overrides part of the training loop, which a trainer runs in its place."""
    definers = {name: next((cls for cls in type(model).__mro__ if name in vars(cls)), keras.Model) for name in LOOP}
    own = {name: cls for name, cls in definers.items() if cls not in keras.Model.__mro__ or name in vars(model)}
    preprocessor = getattr(model, "preprocessor", None)
    # What a KerasHub task overrides these for.
    preprocesses = {name for name in PREPROCESSING if name in own and own[name].__module__.split(".")[0] in HUBS}
    if hasattr(model, "preprocessor") and preprocessor is None:
        own = {name: cls for name, cls in own.items() if name not in preprocesses}
    if own:
        hint = "Mix in the pipeline: `ds.map(kmix.MixUp(...))`, and fit the model itself."
        if preprocesses:
            hint += " Or preprocess there, too: `ds.map(preprocessor)`, and `preprocessor=None` in the KerasHub task."
        _checks.fail(
            "A MixTrainer runs Keras' own training loop, which would leave out what a model overrides of it.",
            f"{type(model).__name__}, which overrides {', '.join(f'`{name}`' for name in own)}",
            hint,
            TypeError,
        )


def check_sequence(model, placed):
    """Check how mixing layers follow each other, as far as the graph of the model can tell.

    Args:
        model: The model.
        placed: `placed_layers(model)`.

    Returns:
        The functional model to train, where masks from before a mixing layer must be united behind it. None where
        the model itself does.

    Raises:
        ValueError: if one mixing layer follows another.

    Warns:
        UserWarning: if some of what the outputs are computed from passes no mixing layer.
    """
    if not placed or graphs.functional(model) is None:
        return None
    rebuilt = Placed(model, {}, graphs.Passed([LAYER]))
    if not rebuilt.every():
        graphs.warn_of_other_ways([layer.name for layer in placed])
    return rebuilt.network if rebuilt.changed else None


def _mixing(layer):
    """The mixing layers of what may be one or hold some."""
    return [layer] if isinstance(layer, BatchLayer) else placed_layers(layer)


class Placed(Rebuilt):
    """A model with mixing layers, with each mask united behind them.

    What a tensor has passed on some way are names of mixing layers, to tell them; on every way it is just `LAYER`.
    """

    def _mixes_within(self, layer):
        return bool(_mixing(layer))

    def _added_by(self, layer):
        inside = [layer] if isinstance(layer, MixMask) else _mixing(layer)
        return frozenset(inner.name for inner in inside), frozenset([LAYER] if inside else ())

    def _missing(self, through, mask):
        return (LAYER,) if through and not self.passed.some(mask) else ()

    def _check_once(self, layer, args, kwargs):
        earlier, inside = sorted(self.passed.some((args, kwargs))), _mixing(layer)
        # A nested model that can be rebuilt tells for itself which of its inputs meet its mixing layers.
        if earlier and inside and graphs.functional(layer) is None:
            _checks.fail(
                "Two mixing layers in one branch would mix twice, and the labels only once.",
                f"{inside[0].name} behind {earlier[0]}",
                "Take one of them out. To mix at one of several places, drawn anew for each step, write "
                '`MixTrainer(model, mix=kmix.EmbeddingMixup(2.0), at=["layer1", "layer2"])`.',
            )
