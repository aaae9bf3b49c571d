"""The three ways to mix in a training step, and what the layers of a model must agree on."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _checks
from kmix.layers import CopyPaste, MixLayer
from kmix.targets import InstanceMasks, Labels
from kmix.targets.argument import check_target, to_target
from kmix.training.manifold import check_reads_no_ids

# The methods of the training loop. A KerasHub task overrides `PREPROCESSING` to preprocess the data first.
PREPROCESSING = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
HUBS = ("keras_hub", "keras_nlp")
LOOP = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", *PREPROCESSING)


def parts(mixer: Any) -> list[Any]:
    """A mixing layer, and those inside it, as those of a `RandomChoice`, in a list."""
    return [mixer, *(part for inner in getattr(mixer, "layers", ()) for part in parts(inner))]


def check_ways(model: Any, mixer: Any, places: Sequence[str] | None, placed: Sequence[MixLayer]) -> None:
    """Raise unless exactly one of the three ways to mix is used, and the model and layers allow it.

    Args:
        model: The model to train.
        mixer: The layer that mixes the inputs, or mixes at the places; or None.
        places: Names of layers, or None.
        placed: `placed_layers(model)`.
    """
    if not isinstance(model, keras.Model):
        _checks.fail("`model` must be a Keras model.", f"a {type(model).__name__}", error=TypeError)
    if mixer is not None and not isinstance(mixer, MixLayer):
        _checks.fail("`mixer` must be a mixing layer of kmix.", f"a {type(mixer).__name__}", error=TypeError)
    check_loop(model)
    if mixer is None and not placed:
        _checks.fail(
            "A MixTrainer needs something that mixes.",
            "no `mixer` and a model without mixing layers",
            "Write `MixTrainer(model, kmix.MixUp(0.2))`, or place `kmix.EmbeddingMixup(0.2)` in the model.",
        )
    if placed and (mixer is not None or places is not None):
        given = "`places`" if mixer is None else "`mixer`"
        _checks.fail(
            "Mix in one way: with a `mixer`, or with the mixing layers inside the model.",
            f"{given} and a model with {', '.join(layer.name for layer in placed)}",
            f"Leave out {given}, or remove the layers from the model.",
        )
    if places is not None and (len(places) == 0 or len(set(places)) < len(places)):
        _checks.fail("`places` must hold names of layers, each once.", f"places={list(places)}")
    inside: Sequence[Any] = placed if places is None else [mixer]
    for layer in inside:
        if not layer.fits_in_models:
            _checks.fail(
                "Inside a model only MixUp and EmbeddingMixup can mix.",
                f"{type(layer).__name__} ({layer.name})",
                f"Mix the inputs with it: `MixTrainer(model, kmix.{type(layer).__name__}(...))`.",
            )
    for setting in _ONE_PLAN:
        compared = [layer for layer in inside if setting != "seed" or layer._seed_given]
        if len({repr(layer.get_config()[setting]) for layer in compared}) > 1:
            _checks.fail(
                f"All mixing layers of a model mix with one plan, so they must agree on `{setting}`.",
                ", ".join(f"{layer.name}: {getattr(layer, setting)!r}" for layer in inside),
                "Give them the same settings.",
            )
    if mixer is not None and mixer.input_mixing.blends and places is None:
        check_reads_no_ids(model)


# What shapes a plan.
_ONE_PLAN = ("alpha", "per", "rate", "pairing", "lam_at_least_half", "include_clean", "seed")


def agreed_target(num_classes: int | None, target: Any, layers: Sequence[MixLayer]) -> Any:
    """The target, or structure of targets, of a trainer and its mixing layers: the one that any of them was given.

    Args:
        num_classes, target: The arguments of the trainer.
        layers: The mixing layers.
    """
    given = [layer._target for layer in layers if layer.num_classes is not None or layer.target is not None]
    if num_classes is not None or target is not None:
        given.insert(0, check_target(to_target(target), num_classes, layers[0]._partners, "This mixer"))
    if any(each != given[0] for each in given):
        _checks.fail("The trainer and its mixing layers must agree on `num_classes` and `target`.", f"{given}")
    return given[0] if given else Labels()


def check_takes_arrays(mixer: MixLayer | None, target: Any) -> None:
    """Raise if a mixer or a target is for objects, which no loss of Keras compares with predictions."""
    of_objects = [each for each in keras.tree.flatten(target) if isinstance(each, InstanceMasks)]
    of_objects += [part for part in parts(mixer) if isinstance(part, CopyPaste)]
    if of_objects:
        _checks.fail(
            "A MixTrainer mixes labels that a loss compares with predictions, and the objects of images are none.",
            f"a {type(of_objects[0]).__name__}",
            "Mix in a `train_step` of your own, `layer.at_step(step, batch)`, or in the pipeline, `ds.map(layer)`.",
        )


def check_loop(model: keras.Model) -> None:
    """Raise if a model overrides part of the training loop, since a trainer runs its own."""
    definers = {name: next((cls for cls in type(model).__mro__ if name in vars(cls)), keras.Model) for name in LOOP}
    own = {name: cls for name, cls in definers.items() if cls not in keras.Model.__mro__ or name in vars(model)}
    # A KerasHub task overrides these to preprocess.
    preprocesses = {name for name in PREPROCESSING if name in own and own[name].__module__.split(".")[0] in HUBS}
    if getattr(model, "preprocessor", model) is None:
        own = {name: cls for name, cls in own.items() if name not in preprocesses}
    if own:
        hint = "Mix in the pipeline: `ds.map(kmix.MixUp(...))`, and fit the model itself."
        if preprocesses:
            hint += " Or also preprocess there: `ds.map(preprocessor)`, and `preprocessor=None` in the KerasHub task."
        _checks.fail(
            "A MixTrainer runs Keras' own training loop and would ignore the methods that a model overrides.",
            f"{type(model).__name__}, which overrides {', '.join(f'`{name}`' for name in own)}",
            hint,
            TypeError,
        )
