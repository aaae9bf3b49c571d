"""The three ways to mix in a training step, and what the layers of a model must agree on."""

import keras

from kmix import _checks
from kmix.batch import to_target
from kmix.layers import MixLayer
from kmix.layers.base import check_target
from kmix.layers.keras_masks import MixMask
from kmix.targets import Labels
from kmix.training import graph as graphs
from kmix.training.manifold import LAYER, Rebuilt

tree = keras.tree

# The methods of the training loop. A KerasHub task overrides `PREPROCESSING` to preprocess the data first.
PREPROCESSING = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
HUBS = ("keras_hub", "keras_nlp")
LOOP = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", *PREPROCESSING)


def leaves(layer):
    """The layers that draw with an alpha: those of a `RandomChoice`, or the layer itself."""
    if isinstance(layer, MixLayer) and layer._has_alpha:
        yield layer
    for inner in getattr(layer, "layers", ()):
        yield from leaves(inner)


def placed_layers(model):
    """The mixing layers inside a model, in the order of its layers, each once."""
    found: dict[MixLayer, None] = {}
    for layer in getattr(model, "layers", ()):
        inner = [layer] if isinstance(layer, MixLayer) else placed_layers(layer)
        found.update(dict.fromkeys(inner))
    return list(found)


def check_ways(model, mixer, places, placed):
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
    inside = placed if places is None else [mixer]
    for layer in inside:
        if not layer.fits_in_models:
            _checks.fail(
                "Inside a model only MixUp and EmbeddingMixup can mix.",
                f"{type(layer).__name__} ({layer.name})",
                f"Mix the inputs with it: `MixTrainer(model, kmix.{type(layer).__name__}(...))`.",
            )
    for setting in _ONE_PLAN:
        given = [layer for layer in inside if setting != "seed" or layer._seed_given]
        if len({repr(layer.get_config()[setting]) for layer in given}) > 1:
            _checks.fail(
                f"All mixing layers of a model mix with one plan, so they must agree on `{setting}`.",
                ", ".join(f"{layer.name}: {getattr(layer, setting)!r}" for layer in inside),
                "Give them the same settings.",
            )
    if mixer is None or mixer.input_mixing.blends:
        _check_reads_no_ids(model, mixer is not None, places)


# What shapes a plan.
_ONE_PLAN = ("alpha", "per", "rate", "pairing", "lam_at_least_half", "include_clean", "seed")


def agreed_target(num_classes, target, layers):
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


def _check_reads_no_ids(model, inputs, places):
    """Raise if a model reads something blended as ids: an average of two ids is the id of something else.

    Args:
        model: The model.
        inputs: Whether its inputs are blended: all, unless `places` are given. Else only its mixing layers blend.
        places: Names of layers, or None.
    """
    hint = "Mix after the Embedding layer: `places=[{!r}]`, or place a `kmix.EmbeddingMixup` in the model."
    graph = graphs.functional(model)
    if graph is None:
        first = model.layers[0] if isinstance(model, keras.Sequential) and model.layers else None
        if inputs and isinstance(first, keras.layers.Embedding):
            _checks.fail(_IDS, f"inputs of the Embedding layer {first.name!r}", hint.format(first.name))
        return
    blended = [inputs and (places is None or not {graphs.INPUT, each.name}.isdisjoint(places)) for each in graph.inputs]
    for tensor in graph.inputs if inputs and places is None else ():
        if "int" in tensor.dtype:
            _checks.fail(
                "Keras casts blended inputs back to the dtype of the model's input.",
                f"{tensor.name!r} of dtype {tensor.dtype}",
                f"Images: write `keras.Input(shape)`, of float32. Ids: {hint.format('embedding')}",
            )
    if _holds_embedding(graph):
        _follow_ids(graph, blended, hint)


_IDS = "Ids cannot be blended, of whatever dtype."


def _holds_embedding(graph):
    inner = [graphs.functional(layer) for layer in graph.layers if isinstance(layer, keras.Model)]
    return any(isinstance(layer, keras.layers.Embedding) for layer in graph.layers) or any(
        map(_holds_embedding, filter(None, inner))
    )


def _follow_ids(graph, blended, hint):
    """Whether each output of a graph is blended and may still hold ids, if these of its inputs are; raises if an
    Embedding reads it.
    """
    held = {}  # By identity, with the tensors, so that no other gets theirs.

    def call(layer, *args, **kwargs):
        reads = any(id(tensor) in held for tensor in graphs.inputs_of((args, kwargs)))
        if reads and isinstance(layer, keras.layers.Embedding):
            _checks.fail(_IDS, f"inputs of the Embedding layer {layer.name!r}", hint.format(layer.name))
        outputs = layer(*args, **kwargs)
        inner = graphs.functional(layer) if isinstance(layer, keras.Model) else None
        # What has weights computes something else than ids.
        flags = [isinstance(layer, MixLayer) or (reads and not getattr(layer, "weights", ()))] * len(
            tree.flatten(outputs)
        )
        if inner is not None:
            outer = graphs.given_to(inner, args[0] if args else kwargs["inputs"])
            flags = _follow_ids(inner, [id(tensor) in held for tensor in outer], hint)
        held.update({id(leaf): leaf for leaf, flag in zip(tree.flatten(outputs), flags, strict=True) if flag})
        return outputs

    inputs = graphs.new_inputs(graph)
    held.update({id(leaf): leaf for leaf, flag in zip(tree.flatten(inputs), blended, strict=True) if flag})
    return [id(tensor) in held for tensor in graphs.walk(graph, call, inputs).outputs]


def check_loop(model):
    """Raise if a model overrides part of the training loop, since a trainer runs its own."""
    definers = {name: next((cls for cls in type(model).__mro__ if name in vars(cls)), keras.Model) for name in LOOP}
    own = {name: cls for name, cls in definers.items() if cls not in keras.Model.__mro__ or name in vars(model)}
    preprocessor = getattr(model, "preprocessor", None)
    # A KerasHub task overrides these to preprocess.
    preprocesses = {name for name in PREPROCESSING if name in own and own[name].__module__.split(".")[0] in HUBS}
    if hasattr(model, "preprocessor") and preprocessor is None:
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


def check_sequence(model, placed):
    """Check whether mixing layers follow each other, as far as the graph of the model shows.

    Args:
        model: The model.
        placed: `placed_layers(model)`.

    Returns:
        The functional model to train, if masks from before a mixing layer must be united after it. None if the
        model itself can be trained.

    Raises:
        ValueError: if one mixing layer follows another.

    Warns:
        UserWarning: if the outputs also depend on tensors that pass no mixing layer.
    """
    if not placed or graphs.functional(model) is None:
        return None
    rebuilt = Placed(model, {}, graphs.Passed([LAYER]))
    if not rebuilt.every():
        graphs.warn_of_other_ways([layer.name for layer in placed])
    return rebuilt.network if rebuilt.changed else None


def _mixing(layer):
    """The mixing layers of a layer: the layer itself, or those inside it."""
    return [layer] if isinstance(layer, MixLayer) else placed_layers(layer)


class Placed(Rebuilt):
    """A model with mixing layers, rebuilt with each mask united after them.

    `some` holds the names of the mixing layers that a tensor has passed, for errors; `every` holds just `LAYER`.
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
        # A nested model that can be rebuilt checks by itself which of its inputs reach its mixing layers.
        if earlier and inside and graphs.functional(layer) is None:
            _checks.fail(
                "Two mixing layers in one branch would mix twice, but the labels are mixed only once.",
                f"{inside[0].name} after {earlier[0]}",
                "Remove one of them. To mix at one of several places, drawn for each step, write "
                '`MixTrainer(model, kmix.EmbeddingMixup(2.0), places=["layer1", "layer2"])`.',
            )
