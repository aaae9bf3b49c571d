"""Padding: masks of Keras and of the user are united, and what both partners share comes back exactly."""

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    BACKEND,
    CLASSES,
    assert_near,
    at_step,
    blending,
    data,
    embedding,
    every_path,
    fit,
    ids,
    mixup,
    on,
    one_hot,
    refused,
    tf,
    to_native,
    to_numpy,
    trainer_of,
)
from keras import ops

import kmix

TOKENS = np.array(
    [[4, 2, 7, 0, 0], [1, 9, 0, 0, 0], [3, 0, 0, 0, 0], [5, 6, 7, 8, 9], [2, 2, 0, 0, 0], [8, 0, 0, 0, 0]]
)


def text_layers():
    embed = keras.layers.Embedding(10, 4, mask_zero=True)
    embed.build((None, 5))
    return embed, keras.layers.GlobalAveragePooling1D()


def pooled(embed, plan):
    """The mean of the mixed embeddings over positions where one of the partners has a token."""
    table = np.asarray(to_numpy(embed.embeddings.value))
    mask = TOKENS != 0
    united = mask | (mask[plan.permutation] & (plan.lam < 1)[:, None])
    values = oracle.mixup(table[TOKENS], plan.lam, plan.permutation)
    return np.einsum("bt,btd->bd", united / united.sum(axis=1, keepdims=True), values)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_mask_is_united_at_a_step(rate):
    embed, pool = text_layers()
    for mixer in (embedding(num_classes=3, rate=rate), kmix.EmbeddingMixup(1.0, per="batch", num_classes=3, seed=8)):
        for step in (0, 3):
            x, y = mixer.at_step(step, (embed(to_native(TOKENS)), to_native(ids())))
            plan = mixer.plan(step, 6)
            assert_near((pool(x), y), (pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])))


def test_a_mask_is_united_in_an_eager_call():
    embed, pool = text_layers()
    mixer = embedding(num_classes=3)
    for step in range(2):
        x, _ = mixer(embed(to_native(TOKENS)), to_native(ids()))
        assert_near(pool(x), pooled(embed, mixer.plan(step, 6)))


def test_masks_with_weights_dictionaries_and_several_inputs():
    embed, pool = text_layers()
    mixer, w = embedding(num_classes=3), to_native(np.ones(6, "float32"))
    tokens, y, plan = to_native(TOKENS), to_native(ids()), embedding().plan(1, 6)
    assert_near(pool(mixer.at_step(1, (embed(tokens), y, w))[0]), pooled(embed, plan))
    assert_near(pool(mixer.at_step(1, {"images": embed(tokens), "labels": y})["images"]), pooled(embed, plan))
    other = text_layers()[0]
    vectors = to_native(data(6, (3,)))
    mixed = mixer.at_step(1, ({"a": embed(tokens), "b": other(tokens), "c": vectors}, y))[0]
    assert_near(pool(mixed["a"]), pooled(embed, plan))
    assert_near(pool(mixed["b"]), pooled(other, plan))
    assert_near(mixed["c"], oracle.mixup(data(6, (3,)), *plan[:2]))


@on("jax", why="jax.jit compiles JAX alone")
def test_a_mask_is_united_under_jit():
    import jax

    embed, pool = text_layers()
    mixer = embedding(num_classes=3)

    @jax.jit
    def run(step, tokens, y):
        x, y = mixer.at_step(step, (embed(tokens), y))
        return pool(x), y

    for step in (0, 3):
        plan = mixer.plan(step, 6)
        expected = pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])
        assert_near(run(step, TOKENS, ids()), expected)


@pytest.mark.slow
@on("tensorflow", why="a graph of TensorFlow runs its own layers alone")
@pytest.mark.xla
def test_a_mask_is_united_in_a_graph():
    embed, pool = text_layers()
    for counted in (True, False):
        mixer = embedding(num_classes=3)

        def run(step, batch, mixer=mixer, counted=counted):
            tokens, y = batch
            x, y = mixer(embed(tokens), y) if counted else mixer.at_step(step, (embed(tokens), y))
            return pool(x), y

        ds = tf.data.Dataset.from_tensors((TOKENS, ids())).repeat(3)
        for step, ours in enumerate(ds.enumerate().map(run)):
            plan = mixer.plan(step, 6)
            assert_near(ours, (pooled(embed, plan), oracle.mixup(oracle.one_hot(ids(), 3), *plan[:2])))


@on("tensorflow", why="JAX asks for a step, PyTorch runs eagerly")
def test_a_mask_is_united_in_a_training_step_of_ones_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed, self.pool = text_layers()
            self.mixer = embedding(num_classes=3)

        def call(self, tokens):
            return self.pool(self.embed(tokens))

        def train_step(self, data):
            tokens, y = data
            x, _ = self.mixer(self.embed(tokens), y)
            return {"sum": tf.reduce_sum(self.pool(x) ** 2)}

    model = Own()
    model.compile("sgd")
    logs = model.fit(tf.data.Dataset.from_tensors((TOKENS, ids())).repeat(2), verbose=0).history
    assert logs["sum"][0] == pytest.approx(np.sum(pooled(model.embed, model.mixer.plan(1, 6)) ** 2), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("mask", (data(6, (50,)) > 0.3).astype("int32"), ["bool", "EmbeddingMixup"]),
        ("mask", data(6, (50,)) > 0.3, ["bool", "EmbeddingMixup"]),
        ("attention_mask", (data(6, (50,)) > 0.3).astype("int64"), ["bool", "EmbeddingMixup"]),
        ("lengths", ids(6) + 40, ["length"]),
        ("lengths", (ids(6) + 40).astype("int32")[:, None], ["length"]),
    ],
)
def test_a_mask_of_integers_or_lengths_with_a_wave_are_refused(name, other, words):
    wave, good = data(6, (50,)), (data(6, (50,)), one_hot(ids()))
    for x in ({"wave": wave, name: other}, (wave, other)):
        refused(mixup(), (x, one_hot(ids())), *words, good=good)


def test_masks_of_integers_are_refused_by_embedding_mixup_too():
    mask = (data(6, (50,)) > 0.3).astype("int32")
    refused(embedding(), ({"wave": data(6, (50,)), "mask": mask}, one_hot(ids())), "bool")


@every_path
def test_boolean_masks_are_united(path):
    wave, mask, y = data(6, (50,)), data(6, (50,), 1) > 0.5, one_hot(ids())
    layer = embedding(rate=0.5)
    plan = layer.plan(0, 6)
    united = mask | (mask[plan.permutation] & (plan.lam < 1)[:, None])
    ours = at_step(path, layer, 0, ({"wave": wave, "mask": mask}, y))[0]
    np.testing.assert_array_equal(ours["mask"], united)
    assert_near(ours["wave"], oracle.mixup(wave, *plan[:2]))


class Pool(keras.layers.Layer):
    """The mean over the positions that count. The mask has the name that KerasHub uses."""

    def call(self, x, padding_mask=None, attention_mask=None):
        mask = ops.cast(padding_mask if attention_mask is None else attention_mask, "float32")[..., None]
        return ops.sum(x * mask, axis=1) / ops.sum(mask, axis=1)


def with_own_mask(form, mixing):
    keras.utils.set_random_seed(1)
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    inputs, mask = tokens, ops.not_equal(tokens, 0)
    if form == "input":
        mask = keras.Input((5,), dtype="bool", name="mask")
        inputs = [tokens, mask]
    if form == "integer":
        mask = ops.cast(mask, "int32")
    x = mixing(keras.layers.Embedding(10, 4, name="embed")(tokens))
    if form == "attention":
        pooled = Pool()(x, attention_mask=mask)
    elif form == "keras":
        pooled = keras.layers.GlobalAveragePooling1D()(x, mask=mask)
    else:
        pooled = Pool()(x, padding_mask=mask)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="top")(pooled))


def united_loss(trainer, y):
    """The loss of the first step with united masks."""
    table, kernel, bias = trainer.model.get_weights()
    plan, mask = trainer.plan(0, len(y)), TOKENS != 0
    mask = mask | mask[plan.permutation]
    x = oracle.mixup(table[TOKENS], *plan[:2])
    pooled = np.einsum("bt,btd->bd", mask / mask.sum(axis=1, keepdims=True), x)
    return oracle.crossentropy(oracle.mixup(one_hot(y), *plan[:2]), oracle.softmax(pooled @ kernel + bias)).mean()


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("form", ["attention", "keras", "integer", "input"])
def test_masks_of_the_user_in_a_trainer(form):
    y = ids()
    x = [TOKENS, TOKENS != 0] if form == "input" else TOKENS
    model = with_own_mask(form, embedding(name="mixing"))
    refusal = None
    try:
        trainer = trainer_of(model, placed=True)
        logged = fit(trainer, x, y)["loss"]
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        assert logged == pytest.approx(united_loss(trainer, y), rel=1e-4)
    else:
        assert "places=" in refusal


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("form", ["padding", "integer", "input"])
def test_masks_of_the_user_at_a_place(form):
    """The same with `places=`. An integer mask is read as `mask != 0`."""
    y = ids()
    x = [TOKENS, TOKENS != 0] if form == "input" else TOKENS
    trainer = trainer_of(with_own_mask(form, lambda tensor: tensor), mixer=embedding(), places=["embed"])
    assert fit(trainer, x, y)["loss"] == pytest.approx(united_loss(trainer, y), rel=1e-4)


SHARED = [-10.0, -99.0, -0.1, 0.3, 77.0, 1e30, 1e-30]


@pytest.mark.fast("*numpy", "*native", "mixup-float16-tfdata")
@pytest.mark.xla  # which may multiply and add at once
@every_path
@pytest.mark.parametrize(
    ("make", "dtype"),
    [(mixup, "float32"), (embedding, "float32"), (mixup, "float16"), (mixup, "float64"), (mixup, "uint8")],
)
def test_what_both_partners_share_comes_back_exactly(make, dtype, path):
    if (BACKEND, path, dtype) == ("jax", "native", "float64"):
        pytest.skip("JAX holds 32 bits")
    layer, values = make(dtype="float32" if dtype == "uint8" else dtype), np.array(SHARED)
    values = values[values == 77] if dtype == "uint8" else values[:-2] if dtype == "float16" else values
    x = (data(64, (3 + len(values), 2)) * 5).astype(dtype)
    x[:, 3:] = values[:, None]
    mixed = at_step(path, layer, 0, (x, one_hot(ids(64))))[0]
    np.testing.assert_array_equal(mixed[:, 3:], x[:, 3:].astype(mixed.dtype))
    expected = oracle.mixup(x[:, :3], *layer.plan(0, 64)[:2])
    assert_near(mixed[:, :3].astype("float64"), expected, atol=0.01 if dtype == "float16" else 1e-4)


@every_path
@blending
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_shared_infinities_come_back_too(value, make, path):
    """Logits are masked with this. The difference of two such values is NaN."""
    x = data(64, (5, 2))
    x[:, 2:] = value
    np.testing.assert_array_equal(at_step(path, make(), 0, (x, one_hot(ids(64))))[0][:, 2:], x[:, 2:])


@every_path
def test_ragged_padding_is_there_where_both_have_it(path):
    """Series of different lengths, as `Masking` reads them."""
    lengths = np.arange(32) % 7 + 1
    padded = np.arange(9) >= lengths[:, None]
    for value in (-10.0, -0.1):
        x = data(32, (9, 2)) * 5
        x[padded] = value
        mixed = at_step(path, mixup(), 0, (x, one_hot(ids(32))))[0]
        shared = padded & padded[mixup().plan(0, 32).permutation]
        assert (mixed[shared] == np.float32(value)).all()
        assert (mixed[~shared] != np.float32(value)).all()


@on("jax", why="jax.jit compiles JAX alone")
def test_shared_values_come_back_under_jit():
    import jax

    x = data(64, (9, 2))
    x[:, 5:] = -0.1
    mixed = jax.jit(lambda step, x, y: mixup().at_step(step, (x, y)))(2, x, one_hot(ids(64)))[0]
    assert (np.asarray(mixed)[:, 5:] == np.float32(-0.1)).all()


@every_path
@blending
def test_a_sample_that_is_kept_is_not_touched_by_its_partner(make, path):
    x = data(64, (5,))
    x[::3] = np.nan
    x[1::3, 2] = np.inf
    layer = make(rate=0.5)
    kept = layer.plan(0, 64).lam == 1
    assert kept.any()
    np.testing.assert_array_equal(at_step(path, layer, 0, (x, one_hot(ids(64))))[0][kept], x[kept])


@pytest.mark.slow
@pytest.mark.parametrize("value", [-10.0, -0.1])
def test_masking_behind_mixed_inputs(value):
    padded = np.arange(9) >= (np.arange(32) % 7 + 1)[:, None]
    x, y = data(32, (9, 2)), ids(32)
    x[padded] = value
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((9, 2)), keras.layers.Masking(value), keras.layers.GlobalAveragePooling1D()])
    model.add(keras.layers.Dense(CLASSES, "softmax"))
    # Small, so that no probability falls below what the loss clips.
    model.set_weights([weight / 10 for weight in model.get_weights()])
    trainer = trainer_of(model)
    logged, plan = fit(trainer, x, y)["loss"], trainer.plan(0, 32)
    counts = ~(padded & padded[plan.permutation])
    mixed = oracle.mixup(x, *plan[:2])
    pooled = np.einsum("bt,btd->bd", counts / counts.sum(axis=1, keepdims=True), mixed)
    kernel, bias = model.get_weights()
    p = oracle.softmax(pooled @ kernel + bias)
    assert logged == pytest.approx(oracle.crossentropy(oracle.mixup(one_hot(y), *plan[:2]), p).mean(), rel=1e-4)
