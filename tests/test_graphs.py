"""Graphs that a MixTrainer rebuilds (masks, nested models, warnings), and models that it refuses."""

import contextlib
import re
import warnings

import keras
import numpy as np
import oracle
import pytest
from keras import ops

import kmix
from kmix.layers.training_step import TrainingStep, current_step, run_step
from kmix.mixing.padding_masks import mix_masks
from kmix.training import graph, manifold

# Padding on both sides and in between, so that the union has more positions than each mask.
IDS = np.array([[1, 2, 3, 0, 0], [0, 0, 0, 4, 9], [5, 0, 7, 0, 0], [0, 2, 0, 1, 0], [3, 8, 0, 0, 5], [0, 0, 0, 0, 6]])
MASK = IDS != 0


@keras.saving.register_keras_serializable("test")
class Pool(keras.layers.Layer):
    """The mean over a mask of any form."""

    def call(self, x, padding_mask):
        weight = ops.expand_dims(ops.cast(padding_mask, x.dtype), -1)
        return ops.sum(x * weight, axis=1) / ops.sum(weight, axis=1)


def embed(name="embed"):
    return keras.layers.Embedding(10, 4, name=name)


def mixup():
    return kmix.EmbeddingMixup(1.0, seed=5, name="mixup")


def token_ids():
    return keras.Input((5,), dtype="int32", name="ids")


# How a mask reaches the pooling of the tokens. Each function takes ids and mixed tokens.
def keyword(ids, tokens):
    return Pool()(tokens, padding_mask=ops.not_equal(ids, 0))


def position(ids, tokens):
    return Pool()(tokens, ops.not_equal(ids, 0))


def integers(ids, tokens):
    return Pool()(tokens, padding_mask=ops.cast(ops.not_equal(ids, 0), "int32"))


def floats(ids, tokens):
    return Pool()(tokens, padding_mask=ops.cast(ops.not_equal(ids, 0), "float32"))


def by_hand(ids, tokens):
    counts = ops.expand_dims(ops.cast(ops.not_equal(ids, 0), "float32"), -1)
    return ops.sum(tokens * counts, axis=1) / ops.sum(counts, axis=1)


def twice(ids, tokens):
    mask = ops.not_equal(ids, 0)
    states = keras.layers.MultiHeadAttention(1, 4, name="attention")(tokens, tokens, attention_mask=mask[:, None, :])
    return Pool()(tokens, padding_mask=mask) + 0.0 * Pool()(states, padding_mask=mask)


def nested(ids, tokens):
    inner_ids, inner = token_ids(), keras.Input((5, 4), name="x")
    body = keras.Model({"ids": inner_ids, "x": inner}, position(inner_ids, inner), name="body")
    return body({"ids": ids, "x": tokens})


def nested_mask(ids, tokens):
    mask, inner = keras.Input((5,), dtype="int32", name="padding_mask"), keras.Input((5, 4), name="x")
    pooled = Pool()(inner, padding_mask=mask)
    body = keras.Model({"padding_mask": mask, "x": inner}, pooled, name="body")
    return body({"padding_mask": ops.cast(ops.not_equal(ids, 0), "int32"), "x": tokens})


FORMS = [keyword, position, integers, floats, by_hand, twice, nested, nested_mask]


def trained(trainer, inputs, plan):
    """What the model computes in a training step with this plan."""
    with run_step(TrainingStep(plan, places=len(trainer.places or ()))):
        return ops.convert_to_numpy(trainer(inputs, training=True))


def expected(table, plan):
    """The mean of mixed tokens over the union of the masks, in plain NumPy."""
    tokens = oracle.mixup(table[IDS], plan.lam, plan.permutation)
    united = MASK | (MASK[plan.permutation] & (plan.lam < 1)[:, None])
    return (tokens * united[..., None]).sum(axis=1) / united.sum(axis=1, keepdims=True)


@pytest.mark.in_turn
@pytest.mark.fast("placed-*")
@pytest.mark.parametrize("pool", FORMS)
@pytest.mark.parametrize("way", ["placed", "places", "placed within", "places within"])
def test_masks_from_before_the_mixing_are_united(pool, way):
    ids = token_ids()
    if way.endswith("within"):
        tokens = keras.Sequential([token_ids(), embed(), *([mixup()] if "placed" in way else [])], name="tokens")(ids)
    else:
        tokens = embed()(ids)
        tokens = mixup()(tokens) if way == "placed" else tokens
    if way == "places within":
        ids_, tokens_ = token_ids(), embed()
        whole = keras.Model(ids_, pool(ids_, tokens_(ids_)), name="whole")
        model = keras.Model(ids, whole(ids))
    else:
        model = keras.Model(ids, pool(ids, tokens))
    table = model.get_weights()[0]
    places = {"places": ["embed"], "places within": ["whole/embed"]}.get(way)
    trainer = kmix.MixTrainer(model, **({"mixer": mixup(), "places": places} if places else {}))
    plan = mixup().plan(0, 6)._replace(place=0 if places else None)
    np.testing.assert_allclose(trained(trainer, IDS, plan), expected(table, plan), atol=1e-5)
    own = (table[IDS] * MASK[..., None]).sum(axis=1) / MASK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trainer.predict(IDS, verbose=0), own, atol=1e-5)
    assert not np.allclose(expected(table, plan), own, atol=1e-2)


def test_a_placed_layer_unites_masks_in_fit():
    ids = token_ids()
    model = keras.Model(ids, keyword(ids, mixup()(embed()(ids))))
    trainer = kmix.MixTrainer(model)
    trainer.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.random.default_rng(0).uniform(size=(6, 4)).astype("float32")
    loss = trainer.fit(IDS, y, batch_size=6, shuffle=False, verbose=0).history["loss"][0]
    plan = trainer.plan(0, 6)
    errors = (expected(model.get_weights()[0], plan) - oracle.mixup(y, plan.lam, plan.permutation)) ** 2
    assert loss == pytest.approx(errors.mean(), rel=1e-4)


def rebuilt(model):
    return manifold.check_sequence(model, manifold.placed_layers(model))


def test_masks_that_keras_carries_are_united_once():
    ids = token_ids()
    tokens = keras.layers.Embedding(9, 4, mask_zero=True)(ids)
    first = keras.layers.LSTM(3, return_sequences=True)(mixup()(tokens))
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(first))
    assert rebuilt(model) is None


def test_masks_that_have_nothing_to_do_with_the_mixing_stay():
    ids, causal = token_ids(), keras.Input(batch_shape=(1, 5, 5), dtype="bool", name="causal")
    tokens = mixup()(embed()(ids))
    attention = keras.layers.MultiHeadAttention(1, 4, name="attention")
    triangle = np.tril(np.ones((1, 5, 5), bool))
    models = {
        "constant": (ids, attention(tokens, tokens, attention_mask=triangle)),
        "of no samples": ([ids, causal], attention(tokens, tokens, attention_mask=causal)),
        "before": (ids, mixup()(Pool()(embed()(ids), ops.not_equal(ids, 0)))),
    }
    for name, (inputs, outputs) in models.items():
        assert rebuilt(keras.Model(inputs, outputs)) is None, name
    branch = Pool()(embed("other")(ids), ops.not_equal(ids, 0))
    with pytest.warns(UserWarning, match="mixup"):
        assert rebuilt(keras.Model(ids, [tokens, branch])) is None
    assert rebuilt(keras.Model(ids, keyword(ids, tokens))) is not None


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_masks_of_numbers_are_united_in_their_own_dtype(dtype):
    seen = []

    class Watched(Pool):
        def call(self, x, padding_mask):
            seen.append((keras.backend.standardize_dtype(padding_mask.dtype), padding_mask))
            return super().call(x, padding_mask)

    x, mask = keras.Input((5, 4), name="x"), keras.Input((5,), dtype=dtype, name="mask")
    hidden = keras.layers.Identity(name="hidden")(x)
    model = keras.Model([x, mask], Watched()(hidden, padding_mask=mask))
    trainer = kmix.MixTrainer(model, mixer=mixup(), places=["hidden"])
    plan = mixup().plan(0, 6)._replace(place=0, lam=np.array([0.2, 0.4, 1, 0.7, 1, 0.5], "float32"))
    data = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    result = trained(trainer, [data, MASK.astype(dtype)], plan)
    united = MASK | (MASK[plan.permutation] & (plan.lam < 1)[:, None])
    mixed = oracle.mixup(data, plan.lam, plan.permutation)
    np.testing.assert_allclose(result, (mixed * united[..., None]).sum(1) / united.sum(1, keepdims=True), atol=1e-5)
    assert seen[-1][0] == dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(seen[-1][1]), united.astype(dtype))
    elsewhere = trained(trainer, [data, MASK.astype(dtype)], plan._replace(place=1))
    np.testing.assert_allclose(elsewhere, trainer.predict([data, MASK.astype(dtype)], verbose=0), atol=1e-5)


def test_masks_that_are_added_to_scores_are_united():
    plan = kmix.MixPlan(lam=np.array([0.75, 1.0, 0.5], "float32"), permutation=np.array([1, 2, 1]))
    mask = np.array([[0, -1e9], [-1e9, 0], [-1e9, -1e9]], "float32")
    expected = np.array([[0, 0], [-1e9, 0], [-1e9, 0]], "float32")
    np.testing.assert_array_equal(mix_masks(mask, plan), expected)


def test_a_mask_is_united_once_for_all_layers_and_does_not_count_as_mixed():
    ids = token_ids()
    tokens, mask = mixup()(embed()(ids)), ops.not_equal(ids, 0)
    network = rebuilt(keras.Model(ids, Pool()(tokens, padding_mask=mask) + Pool()(tokens, padding_mask=mask)))
    assert sum(isinstance(layer, manifold.MaskPlace) for layer in network.layers) == 1
    plan = mixup().plan(0, 6)._replace(place=0)
    for place, x, counts in (
        (manifold.MaskPlace([0]), MASK.astype("int32"), False),
        (manifold.Place([0]), MASK, False),
        (manifold.Place([0]), MASK.astype("float32"), True),
    ):
        with contextlib.suppress(ValueError), run_step(TrainingStep(plan, places=1)):
            step = current_step()
            place(ops.convert_to_tensor(x), training=True)
        assert step.has_mixed() == counts


def test_floats_in_a_dictionary_are_data():
    ids, weights, inner = token_ids(), keras.Input((5,), name="soft_mask"), keras.Input((5, 4), name="x")
    body = keras.Model({"x": inner, "soft_mask": weights}, Pool()(inner, weights), name="body")
    model = keras.Model([ids, weights], body({"x": embed()(ids), "soft_mask": weights}))
    with pytest.warns(UserWarning, match="'embed'"):
        trainer = kmix.MixTrainer(model, mixer=mixup(), places=["embed"])
    plan, own = mixup().plan(0, 6)._replace(place=0), MASK.astype("float32")[..., None]
    tokens = oracle.mixup(model.get_weights()[0][IDS], plan.lam, plan.permutation)
    pooled = (tokens * own).sum(axis=1) / own.sum(axis=1)
    np.testing.assert_allclose(trained(trainer, [IDS, own[..., 0]], plan), pooled, atol=1e-5)


def bert(output):
    """A backbone as KerasHub builds it: an int32 mask in a dictionary, two outputs, one of them pooled."""
    inputs = {
        "token_ids": keras.Input((5,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((5,), dtype="int32", name="padding_mask"),
    }
    tokens = keras.layers.Dropout(0.0, name="embeddings_dropout")(embed()(inputs["token_ids"]))
    attention = keras.layers.MultiHeadAttention(1, 4, name="attention")
    states = attention(tokens, tokens, attention_mask=ops.expand_dims(inputs["padding_mask"], 1))
    pooled = keras.layers.Dense(4, name="pooled_dense", activation="tanh")(states[:, 0, :])
    backbone = keras.Model(inputs, {"sequence_output": states, "pooled_output": pooled}, name="bert_backbone")
    outer = {name: keras.Input(t.shape[1:], dtype=t.dtype, name=name) for name, t in inputs.items()}
    return keras.Model(outer, keras.layers.Dense(2, name="logits")(backbone(outer)[output]))


def test_a_mask_of_integers_inside_a_nested_model():
    model = bert("sequence_output")
    trainer = kmix.MixTrainer(model, mixer=mixup(), places=["bert_backbone/embeddings_dropout"])
    plan = mixup().plan(0, 6)._replace(place=0)
    x = {"token_ids": IDS, "padding_mask": MASK.astype("int32")}
    backbone, united = model.get_layer("bert_backbone"), MASK | MASK[plan.permutation]
    tokens = oracle.mixup(backbone.get_layer("embed").get_weights()[0][IDS], plan.lam, plan.permutation).astype(
        "float32"
    )
    states = backbone.get_layer("attention")(tokens, tokens, attention_mask=united[:, None, :])
    logits = ops.convert_to_numpy(model.get_layer("logits")(states))
    np.testing.assert_allclose(trained(trainer, x, plan), logits, atol=1e-5)


def test_a_nested_model_may_be_called_twice():
    ids, more = token_ids(), keras.Input((5,), dtype="int32", name="more")
    inner_ids, inner = token_ids(), keras.Input((5, 4), name="x")
    body = keras.Model([inner_ids, inner], position(inner_ids, inner), name="body")
    tokens = embed()
    model = keras.Model([ids, more], body([ids, mixup()(tokens(ids))]) + body([more, tokens(more)]))
    with pytest.warns(UserWarning, match="mixup"):
        trainer = kmix.MixTrainer(model)
    plan, table = mixup().plan(0, 6), model.get_weights()[0]
    own = (table[IDS] * MASK[..., None]).sum(axis=1) / MASK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trained(trainer, [IDS, IDS], plan), expected(table, plan) + own, atol=1e-5)


def test_the_names_of_later_models_stay():
    def number():
        return int(re.sub("[^0-9]", "", "0" + keras.Model(inputs, inputs + 1).name))

    inputs = keras.Input((4,))
    model, first = keras.Model(inputs, keras.layers.Dense(4, name="hidden")(inputs)), number()
    kmix.MixTrainer(model, mixer=mixup(), places=["hidden"])
    assert number() == first + 1


def test_an_output_of_a_nested_model_that_is_not_used_is_not_warned_of():
    for place in ("pooled_dense", "embeddings_dropout"):
        kmix.MixTrainer(bert("pooled_output"), mixer=mixup(), places=[f"bert_backbone/{place}"])
    with pytest.warns(UserWarning, match="passes 'bert_backbone/pooled_dense'"):
        kmix.MixTrainer(bert("sequence_output"), mixer=mixup(), places=["bert_backbone/pooled_dense"])


def test_only_what_meets_a_mixing_layer_of_a_nested_model_mixes_twice():
    def model(x, y):
        a, b = keras.Input((4,)), keras.Input((4,))
        inner = keras.Model([a, b], [kmix.EmbeddingMixup(name="inner")(a), b], name="body")
        return keras.Model([x, y], keras.layers.Concatenate()(inner([x, kmix.EmbeddingMixup(name="outer")(y)])))

    kmix.MixTrainer(model(keras.Input((4,)), keras.Input((4,))))
    a, outer = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(a, kmix.EmbeddingMixup(name="inner")(a), name="body")
    with pytest.raises(ValueError, match=r"one branch.*inner after outer"):
        kmix.MixTrainer(keras.Model(outer, inner(kmix.EmbeddingMixup(name="outer")(outer))))


def test_a_warning_names_the_line_of_the_user():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inputs + keras.layers.Dense(4, name="branch")(inputs))
    mixing = lambda: keras.Model(inputs, keras.layers.Concatenate()([mixup()(inputs), inputs]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = keras.saving.serialize_keras_object(kmix.MixTrainer(mixing()))
    for make in (
        lambda: kmix.MixTrainer(model, mixer=mixup(), places=["branch"]),
        lambda: kmix.MixTrainer(mixing()),
        lambda: keras.saving.deserialize_keras_object(config),  # which calls kmix from inside Keras
    ):
        with pytest.warns(UserWarning, match="what takes another path is not mixed") as caught:
            make()
        assert (caught[0].filename, caught[0].lineno) == (__file__, make.__code__.co_firstlineno)


# A user's own training loop.


class Distiller(keras.Model):
    def __init__(self):
        super().__init__()
        self.top = keras.layers.Dense(3)

    def build(self, shape):
        self.top.build(shape)

    def call(self, x):
        return self.top(x)


class Named:
    """A mixin that has nothing to do with training."""

    def describe(self):
        return self.name


class Quiet:
    def fit(self, *args, **kwargs):
        return super().fit(*args, verbose=0, **kwargs)


METHODS = ["train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "evaluate", "predict"]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_overrides_its_training_loop_is_refused(method):
    own = type("Own", (Distiller,), {method: lambda self, *args, **kwargs: None})
    pipeline = re.escape("Mix in the pipeline: `ds.map(kmix.MixUp(...))`")
    for model in (own(), type("Child", (own,), {})()):
        with pytest.raises(TypeError, match=f"{type(model).__name__}, which overrides `{method}`. {pipeline}"):
            kmix.MixTrainer(model, mixer=kmix.MixUp())


def test_other_models_of_the_user_are_accepted():
    functional_ = type("Own", (keras.Model,), {"describe": Named.describe})
    inputs = keras.Input((4,))
    for model in (
        Distiller(),
        type("Mixed", (Named, Distiller), {})(),
        functional_(inputs, keras.layers.Dense(3)(inputs)),
        keras.Sequential([inputs, keras.layers.Dense(3)]),
    ):
        kmix.MixTrainer(model, mixer=kmix.MixUp())


def test_overrides_of_mixins_of_an_instance_and_of_keras_count():
    with pytest.raises(TypeError, match="overrides `fit`"):
        kmix.MixTrainer(type("Loud", (Quiet, Distiller), {})(), mixer=kmix.MixUp())
    model = Distiller()
    model.compute_loss = lambda *args, **kwargs: 0.0
    with pytest.raises(TypeError, match="overrides `compute_loss`"):
        kmix.MixTrainer(model, mixer=kmix.MixUp())
    if hasattr(keras, "distillation"):
        distiller = keras.distillation.Distiller(
            Distiller(), Distiller(), keras.distillation.LogitsDistillation(temperature=2.0)
        )
        with pytest.raises(TypeError, match="Distiller, which overrides `compute_loss`"):
            kmix.MixTrainer(distiller, mixer=kmix.MixUp())


def task(preprocessor, **methods):
    """A model like KerasHub's tasks: its `fit`, `evaluate` and `predict` preprocess their data."""
    hub = {"__module__": "keras_hub.src.utils.pipeline_model"}
    pipeline = {name: lambda self, *args, **kwargs: None for name in ("fit", "evaluate", "predict", "train_on_batch")}
    base = type("PipelineModel", (Distiller,), {**pipeline, **hub})
    model = type("Task", (base,), {**methods, **hub})()
    model.preprocessor = preprocessor
    return model


def test_tasks_of_kerashub_need_their_preprocessor_in_the_pipeline():
    hint = re.escape("`ds.map(preprocessor)`, and `preprocessor=None`")
    with pytest.raises(TypeError, match=f"`fit`, `evaluate`, `predict`.*{hint}"):
        kmix.MixTrainer(task(keras.layers.Rescaling(1 / 255)), mixer=kmix.MixUp())
    kmix.MixTrainer(task(None), mixer=kmix.MixUp())
    with pytest.raises(TypeError, match=r"overrides `compute_loss`\. Mix"):
        kmix.MixTrainer(task(None, compute_loss=lambda self, *args: 0.0), mixer=kmix.MixUp())
    other = type("Own", (type(task(None)),), {"fit": lambda self, *args: None})()
    other.preprocessor = None
    with pytest.raises(TypeError, match="overrides `fit`"):
        kmix.MixTrainer(other, mixer=kmix.MixUp())


# Walks.


def test_what_a_call_gives_to_the_inputs_of_a_model():
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    listed, named = keras.Model([b, a], a + b), keras.Model({"b": b, "a": a}, a + b)
    for model in (listed, named):
        assert graph.given_to(model, ["first", "second"]) == ["first", "second"]
    assert graph.given_to(listed, {"a": 1, "b": 2}) == [2, 1]
    assert graph.given_to(named, {"b": 1, "a": 2, "more": 3}) == [2, 1]
    assert graph.given_to(listed, [1, 2, 3]) == [[1, 2, 3]] * 2


def test_names():
    body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")], name="body")
    model = keras.Sequential([keras.Input((4,), name="x"), body, keras.layers.Dense(2, name="top")])
    assert [name for name, _ in graph.named_layers(model)] == ["x", "body", "body/hidden", "top"]
