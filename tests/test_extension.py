"""A target, mixers and pairing rules from outside kmix: 40 lines each, public names alone, on every code path."""

import ast
import inspect
import pathlib

import keras
import numpy as np
import outside
import pytest
from contract import check_mixer
from helpers import CODE_PATHS, at_step, tf
from oracle import mixup, one_hot
from outside import Angles, NextSample, RowMix, Rows, SameClass, Strong

import kmix
from kmix.targets import Labels

CLASSES, N = 5, 7


CODE = pathlib.Path(outside.__file__).read_text()


def lines(code):
    """The number of lines that are not blank."""
    return sum(bool(line.strip()) for line in code.splitlines())


def private(code):
    """Names of kmix that are not public, and attributes that are private, in some code."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kmix"):
            found.append(f"from {node.module}")
        if not isinstance(node, ast.Attribute):
            continue
        # A named tuple's own methods have an underscore to keep clear of its fields.
        if node.attr.startswith("_") and node.attr not in ("_replace", "_asdict", "_fields", "_make"):
            found.append(node.attr)
        path = ast.unparse(node).split(".")
        if path[0] == "kmix" and all(part.isidentifier() for part in path):
            owner = kmix
            for part in path[1:]:
                found += [] if part in getattr(owner, "__all__", [part]) else [".".join(path)]
                owner = getattr(owner, part, None)
    return found


@pytest.mark.parametrize(
    "code",
    [(Angles,), (Rows, RowMix), (Strong,), (NextSample,), (SameClass,)],
    ids=lambda code: code[-1].__name__,
)
def test_forty_public_lines(code):
    header = CODE[: CODE.index("@")]
    assert 9 < lines(header + "".join(map(inspect.getsource, code))) <= 40
    assert private(CODE) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("kmix._checks.fail('')", ["_checks", "kmix._checks.fail", "kmix._checks"]),
        ("layer._alpha", ["_alpha"]),
        ("kmix.plan.streams.check(0, 1)", ["kmix.plan.streams.check", "kmix.plan.streams"]),
        ("from kmix.layers.base import MixLayer", ["from kmix.layers.base"]),
        ("kmix.layers.MixLayer, plan._replace(lam=0)", []),
    ],
)
def test_the_test_of_public_names_can_fail(code, found):
    assert sorted(private(code)) == sorted(found)


def images(dtype="float32"):
    values = np.random.default_rng(0).integers(0, 256, (N, 8, 6, 3))
    return values.astype(dtype) if dtype == "uint8" else (values / 255).astype(dtype)


def ids():
    return np.random.default_rng(1).integers(0, CLASSES, N)


def angles(shape=(N,)):
    return np.random.default_rng(2).uniform(0, 360, shape).astype("float32")


def along_the_circle(y, plan):
    """The mixed angle by complex numbers: turned from that of the sample towards that of the partner."""
    partner = y[plan.permutation].astype("float64")
    turn = np.angle(np.exp(1j * np.deg2rad(partner - y)), deg=True)
    return (y + (1 - plan.lam.reshape((-1,) + (1,) * (y.ndim - 1))) * turn) % 360


FORMULAS = {Angles: along_the_circle}
WEIGHTS = np.linspace(0.5, 2.0, N).astype("float32")
MIXERS = {
    "RowMix": lambda: (RowMix(1.0, num_classes=CLASSES, seed=1), (images(), ids(), WEIGHTS)),
    "RowMix of uint8, by the batch": lambda: (
        RowMix(1.0, per="batch", num_classes=CLASSES, seed=2),
        (images("uint8"), ids()),
    ),
    "Strong": lambda: (Strong(1.0, target=Labels(CLASSES, class_weight={1: 2.0}), seed=3), (images(), ids())),
    "a choice of both": lambda: (
        kmix.RandomChoice([RowMix(seed=1, num_classes=CLASSES), Strong(seed=3, num_classes=CLASSES)], seed=4),
        (images(), ids(), WEIGHTS),
    ),
    "a choice with one of kmix": lambda: (
        kmix.RandomChoice([RowMix(seed=1, target=Angles()), kmix.MixUp(1.0, seed=3, target=Angles())], seed=6),
        (images(), angles()),
    ),
    "the target in CutMix": lambda: (
        kmix.CutMix(1.0, target=Angles(), seed=5, data_format="channels_last"),
        (images(), angles(), WEIGHTS),
    ),
    "the target and labels": lambda: (
        kmix.MixUp(1.0, target={"way": Angles(), "kind": Labels(CLASSES)}, seed=6),
        (images(), {"way": angles((N, 2)), "kind": ids()}),
    ),
    "the target in the mixer": lambda: (RowMix(1.0, target=Angles(), seed=7), (images(), angles())),
    "partners by a rule": lambda: (
        kmix.MixUp(1.0, num_classes=CLASSES, pairing=NextSample(), seed=8),
        (images(), ids(), WEIGHTS),
    ),
    "partners by a score": lambda: (
        RowMix(1.0, num_classes=2, pairing=SameClass(allow_self=False), seed=9),
        (images(), ids() % 2, WEIGHTS),
    ),
    "partners by a score, a choice": lambda: (
        kmix.RandomChoice(
            [
                kmix.CutMix(num_classes=2, pairing=SameClass(), seed=1, data_format="channels_last"),
                Strong(num_classes=2, pairing=NextSample(), seed=3),
            ],
            seed=4,
        ),
        (images(), ids() % 2),
    ),
}


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_what_comes_from_outside_keeps_the_contract(name):
    layer, batch = MIXERS[name]()
    check_mixer(layer, batch, FORMULAS)


@pytest.mark.fast("numpy", "native")
@pytest.mark.parametrize("path", CODE_PATHS)
def test_partners_are_those_of_the_rule(path):
    """The mixed one-hot rows show who was mixed with whom."""
    eye = np.eye(N, dtype="float32")
    following = at_step(path, kmix.MixUp(1.0, pairing=NextSample(), seed=1), 2, (images(), eye))[1]
    for i, row in enumerate(following):
        assert set(np.flatnonzero(row)) == {i, (i + 1) % N}
    classes = np.array([0, 1, 0, 1, 1, 2, 1])
    target = {"labels": Labels(3), "row": "labels"}
    layer = kmix.MixUp(1.0, target=target, pairing=SameClass(allow_self=False), seed=1)
    rows = np.concatenate(
        [at_step(path, layer, step, (images(), {"labels": classes, "row": eye}))[1]["row"] for step in range(4)]
    )
    for i, row in enumerate(rows):
        others = set(np.flatnonzero(row)) - {i % N}
        assert {classes[j] for j in others} <= {classes[i % N]}
        # The only sample of its class has no partner.
        assert len(others) == (classes[i % N] < 2)
    assert len({tuple(np.flatnonzero(row)) for row in rows}) > N


@pytest.mark.parametrize("path", CODE_PATHS)
def test_a_dictionary_holds_the_target_under_a_key(path):
    layer = RowMix(1.0, num_classes=CLASSES, target={"way": Angles()}, seed=1)
    batch = {"images": images(), "labels": ids(), "way": angles()}
    mixed = at_step(path, layer, 2, batch)
    plan = layer.plan(2, N, spatial_shape=(8, 6))
    rows = np.arange(8)[None, :, None, None] < np.asarray(plan.region.first)[:, None, None, None]
    np.testing.assert_array_equal(mixed["images"], np.where(rows, batch["images"], batch["images"][plan.permutation]))
    np.testing.assert_allclose(
        mixed["labels"], mixup(one_hot(batch["labels"], CLASSES), plan.lam, plan.permutation), atol=1e-5
    )
    np.testing.assert_allclose(mixed["way"], along_the_circle(batch["way"], plan), atol=1e-3)


def test_a_data_set_in_parallel_of_sizes_that_are_not_known():
    signature = (tf.TensorSpec((None, None, None, 3), "float32"), tf.TensorSpec((None,), "int64"))
    data = tf.data.Dataset.from_generator(lambda: iter([(images(), ids())] * 4), output_signature=signature)
    layer = RowMix(1.0, num_classes=CLASSES, seed=1)
    for step, (x, y) in enumerate(data.enumerate().map(layer.at_step, num_parallel_calls=3)):
        expected = layer.at_step(step, (images(), ids()))
        np.testing.assert_array_equal(x, expected[0])
        np.testing.assert_allclose(y, expected[1], atol=1e-5)


def network(outputs, place=None, **settings):
    """A small model, with a mixing layer in it or not, the same one each time."""
    inputs = keras.Input((8, 6, 3))
    layers = [keras.layers.Flatten(), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(outputs, **settings)]
    tensor = inputs
    for layer in [*([place] if place else []), *layers]:
        tensor = layer(tensor)
    model = keras.Model(inputs, tensor)
    generator = np.random.default_rng(5)
    model.set_weights([generator.normal(scale=0.1, size=weight.shape) for weight in model.get_weights()])
    return model


def trained(model, loss, *batches):
    """The weights after a step of gradient descent on each of the batches."""
    model.compile(keras.optimizers.SGD(0.1), loss)
    for batch in batches:
        model.fit(*batch, batch_size=N, shuffle=False, verbose=0)
    return model.get_weights()


TRAINERS = {
    "the mixer": lambda: (RowMix(1.0, num_classes=CLASSES, seed=1), {}, ids()),
    "a choice": lambda: (
        kmix.RandomChoice([RowMix(seed=1, num_classes=CLASSES), Strong(seed=3, num_classes=CLASSES)], seed=4),
        {},
        ids(),
    ),
    "the target": lambda: (kmix.MixUp(1.0, seed=1), {"target": Angles()}, angles((N, 1))),
    "the target under a paste": lambda: (kmix.CutMix(1.0, seed=1, target=Angles()), {}, angles((N, 1))),
    "the rule": lambda: (kmix.MixUp(1.0, num_classes=CLASSES, pairing=NextSample(), seed=1), {}, ids()),
    "the score": lambda: (kmix.MixUp(1.0, num_classes=CLASSES, pairing=SameClass(), seed=1), {}, ids()),
}


@pytest.mark.in_turn
@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_a_training_step_is_one_on_the_mixed_batch(name):
    mixer, settings, y = TRAINERS[name]()
    loss = "mse" if "target" in name else kmix.losses.SoftLabelCrossentropy(from_logits=True)
    columns = 1 if "target" in name else CLASSES
    # A model that regresses angles in degrees learns in small steps.
    scale = 360 if "target" in name else 1
    model, plain = network(columns), network(columns)
    trainer = kmix.MixTrainer(model, mixer, **settings)
    trained(trainer, loss, *[(images(), y)] * 3)
    layer = kmix.MixUp(1.0, seed=1, target=Angles()) if settings else mixer
    expected = trained(plain, loss, *[layer.at_step(step, (images(), y)) for step in range(3)])
    for ours, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4 * scale)
    unmixed = trained(network(columns), loss, *[(images(), y)] * 3)
    assert max(np.abs(one - other).max() for one, other in zip(unmixed, expected, strict=True)) > 1e-3


@pytest.mark.slow
def test_a_mixer_placed_in_a_model_mixes_in_the_training_step():
    layer = Strong(1.0, seed=3, num_classes=CLASSES)
    model, plain = network(CLASSES, place=layer), network(CLASSES)
    loss = kmix.losses.SoftLabelCrossentropy(from_logits=True)
    trained(kmix.MixTrainer(model), loss, *[(images(), ids())] * 2)
    expected = trained(plain, loss, *[layer.at_step(step, (images(), ids())) for step in range(2)])
    for ours, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-5)


def test_streams_that_were_not_reserved_are_refused():
    class Wild(RowMix):
        stream = 9000

    with pytest.raises(ValueError, match=r"kmix\.plan\.reserve"):
        Wild(1.0, num_classes=CLASSES, seed=1)(images(), ids())


def test_a_target_that_does_not_mix_is_told_so():
    class Nothing(kmix.targets.Target):
        """Lacks `mix`."""

    with pytest.raises(NotImplementedError, match="Nothing must implement `mix`"):
        kmix.MixUp(1.0, target=Nothing())(images(), angles())


def test_a_rule_without_partners_and_score_is_told_so():
    class Nobody(kmix.pairing.Pairing):
        """Lacks both."""

    with pytest.raises(NotImplementedError, match="Nobody must implement `partners` or `score`"):
        kmix.MixUp(1.0, num_classes=CLASSES, pairing=Nobody())(images(), ids())


def test_partners_may_read_the_targets():
    class Opposite(kmix.pairing.Pairing):
        """The largest value mixes with the smallest."""

        needs_targets = True

        def partners(self, xp, words, key, targets):
            order = xp.argsort(xp.asarray(targets["labels"]))
            return xp.take(order[::-1], xp.argsort(order))

    layer, y = kmix.MixUp(1.0, pairing=Opposite(), seed=1), angles()
    plan = layer.plan(0, N, targets=y)
    np.testing.assert_array_equal(np.argsort(np.argsort(y))[plan.permutation], N - 1 - np.argsort(np.argsort(y)))
    np.testing.assert_allclose(layer(images(), y)[1], mixup(y, plan.lam, plan.permutation), rtol=1e-5)


def test_a_target_of_one_partner_is_refused_where_there_are_three():
    with pytest.raises(ValueError, match=r"3 partners.*Angles"):
        kmix.Mosaic(target=Angles())
    with pytest.raises(ValueError, match=r"3 partners.*Angles"):
        kmix.Mosaic(target={"way": Angles(), "kind": Labels(CLASSES)})
