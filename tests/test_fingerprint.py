"""Fingerprints of plans: equal where batches are mixed alike, different where anything that shapes them differs."""

import copy
import functools

import keras
import numpy as np
import pytest
import steps
from helpers import LAYERS, choice, cutmix, embedding, every_layer, mixup, raises

import kmix
from kmix import _backend
from kmix.pairing import DifferentLabels, RandomPairs, SimilarLabels
from kmix.plan.fingerprint import fingerprint
from kmix.schedules import Linear
from kmix.targets import Labels

# The same on every backend and machine. A new argument of a layer changes them, which the changelog tells.
KNOWN = {"MixUp": 821148138, "EmbeddingMixup": 221740903, "CutMix": 2279560742, "RandomChoice": 2344601340}
# Of a Mosaic in a trainer, by the size of its groups.
GROUPED = {4: 3096591110, 2: 122313092}


@pytest.mark.parametrize("name", LAYERS)
def test_fingerprints_are_the_same_everywhere(name):
    assert LAYERS[name]().fingerprint(3, 8) == KNOWN[name]


@every_layer
def test_what_a_fingerprint_does_not_hold(make):
    layer, expected = make(), make().fingerprint(5, 12)
    assert layer.fingerprint(5, 12) == expected
    assert copy.deepcopy(layer).fingerprint(5, 12) == expected
    assert type(layer).from_config(layer.get_config()).fingerprint(5, 12) == expected
    assert make(name="other", jit_compile=False).fingerprint(5, 12) == expected
    layer.at_step(0, (np.ones((4, 8, 8, 3), "float32"), np.eye(4, dtype="float32")))
    assert layer.fingerprint(5, 12) == expected


def varied():
    """Fingerprints of layers and steps of which no two mix alike."""
    yield from (mixup().fingerprint(step, 8) for step in range(3))
    yield mixup().fingerprint(0, 9)
    for settings in (
        {"seed": 4},
        {"alpha": 0.5},
        {"alpha": Linear(1.0, 0.0, 10)},
        {"alpha": Linear(1.0, 0.0, 11)},
        {"rate": 0.5},
        {"rate": Linear(1.0, 0.0, 10)},
        {"per": "batch"},
        {"lam_at_least_half": True},
        {"include_clean": True},
        {"num_classes": 3},
        {"num_classes": 4},
        {"target": Labels(3, class_weight={0: 2.0, 1: 1.0, 2: 1.0})},
        {"target": {"name": "keep", "b": "labels"}},
        {"target": {"a": "keep", "b": "labels"}},
        {"target": {"a": "labels", "b": "keep"}},
        {"pairing": RandomPairs(within=4)},
        {"pairing": RandomPairs(within=8)},
        {"pairing": RandomPairs(allow_self=False)},
        {"pairing": SimilarLabels(0.5)},
        {"pairing": SimilarLabels(0.6)},
        {"pairing": DifferentLabels()},
    ):
        yield mixup(**settings).fingerprint(0, 8)
    yield from (layer().fingerprint(0, 8) for layer in (embedding, cutmix, choice))
    yield kmix.CutMix(1.0, data_format="channels_last", axes=3, seed=5).fingerprint(0, 8)
    yield kmix.Mosaic(data_format="channels_last", seed=5).fingerprint(0, 8)
    for probabilities in (None, [1, 2], [Linear(1.0, 0.0, 5), 1]):
        yield kmix.RandomChoice([mixup(), cutmix()], probabilities, seed=3).fingerprint(0, 8)


def test_whatever_shapes_a_batch_changes_the_fingerprint():
    found = list(varied())
    assert len(set(found)) == len(found)
    assert all(type(number) is int and 0 <= number < 2**32 for number in found)


def test_an_alpha_that_is_set_changes_the_fingerprint():
    layer = mixup(alpha=0.25)
    expected = layer.fingerprint(0, 8)
    layer.alpha = 1
    assert layer.fingerprint(0, 8) == mixup(alpha=1.0).fingerprint(0, 8) != expected


def test_a_choice_by_targets_counts_without_its_partners():
    layer = kmix.RandomChoice([mixup(pairing=SimilarLabels(0.5)), mixup()], seed=1)
    drawn = [layer.plan(step, 8, targets=np.arange(8.0)).choice for step in range(20)]
    assert set(drawn) == {0, 1}
    assert len({layer.fingerprint(step, 8) for step in range(20)}) == 20


def test_functions_count_by_their_names():
    first, second = mixup(alpha=_one), mixup(alpha=_other)
    assert first.fingerprint(0, 8) == mixup(alpha=_one).fingerprint(0, 8) != second.fingerprint(0, 8)


def _one(step):
    return 1.0


def _other(step):
    return 1.0


def test_every_integer_counts():
    drawn = [fingerprint("a", *integers) for integers in ([0], [1], [0, 1], [1, 0], [np.arange(3)], [np.arange(4)])]
    assert len(set(drawn)) == 6
    assert fingerprint("a", 1, None) == fingerprint("a", np.int32(1)) == fingerprint("a", np.array([1], "uint8"))


@pytest.mark.parametrize(("step", "size", "name"), [(-1, 8, "step"), (0.5, 8, "step"), (0, 0, "batch_size")])
def test_steps_and_sizes_are_checked(step, size, name):
    for each in (mixup(), choice(), steps.trainer_of("mixer")):
        raises(functools.partial(each.fingerprint, step, size), name, errors=(ValueError, TypeError))


@pytest.mark.fast("places")
@pytest.mark.parametrize("way", steps.WAYS)
def test_trainers(way):
    make = functools.partial(steps.trainer_of, way)
    trainer = make(within=4)
    found = [trainer.fingerprint(step, 8) for step in range(4)]
    assert found == [make(within=4).fingerprint(step, 8) for step in range(4)]
    others = [make(within=2), make(alpha=0.5), make(within=4, include_clean=True)]
    found += [other.fingerprint(0, 8) for other in others]
    trainer.alpha = 0.6
    found.append(trainer.fingerprint(0, 8))
    assert len(set(found)) == len(found)


@pytest.mark.slow
def test_fingerprints_of_groups_are_the_same_on_every_backend():
    layer = kmix.Mosaic(data_format="channels_last", pairing=RandomPairs(within=4), seed=5)
    trainer = kmix.MixTrainer(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), layer)
    drawn = {4: trainer.fingerprint(1, 16), 2: kmix.MixTrainer(trainer.model, layer, within=2).fingerprint(1, 16)}
    assert drawn == GROUPED


def watched(every=1, **settings):
    return kmix.callbacks.Fingerprint(8, every=every, **settings)


@pytest.mark.fast("2")
@pytest.mark.parametrize("every", [1, 2])
def test_the_callback_logs_the_fingerprint_of_the_last_step_it_looked_at(every):
    x, y, _ = steps.batch(24)
    trainer = steps.trainer_of("mixer")
    settings = {"batch_size": 8, "verbose": 0, "callbacks": [watched(every)]}
    found = trainer.fit(x, y, epochs=2, **settings).history["fingerprint"]
    # Three steps an epoch: every second one is the first and the third.
    assert found == [trainer.fingerprint(step, 8) for step in (2, 5)]
    assert trainer.fit(x[:16], y[:16], **settings).history["fingerprint"] == [trainer.fingerprint(7 - every + 1, 8)]


def test_the_callback_with_a_layer_in_a_pipeline_counts_the_steps_of_the_optimizer():
    x, y, _ = steps.batch(16)
    layer, model = mixup(), keras.Sequential([keras.Input((5,)), keras.layers.Dense(steps.CLASSES)])
    model.compile("sgd", "mse")
    y = np.eye(steps.CLASSES, dtype="float32")[y]
    fit = functools.partial(model.fit, x, y, batch_size=8, epochs=2, verbose=0)
    found = fit(callbacks=[watched(mixer=layer)]).history["fingerprint"]
    assert found == [layer.fingerprint(step, 8) for step in (1, 3)]
    raises(lambda: fit(callbacks=[watched()]), "mixer=layer", errors=TypeError)


def test_processes_that_disagree_stop(monkeypatch):
    monkeypatch.setattr(_backend, "of_all_processes", lambda number: [number, number + 1])
    x, y, _ = steps.batch(8)
    trainer = steps.trainer_of("mixer")
    fit = lambda: trainer.fit(x, y, batch_size=8, verbose=0, callbacks=[watched()])
    raises(fit, f"{trainer.fingerprint(0, 8):08x}", "process 1", "seed", errors=ValueError)


@pytest.mark.parametrize(
    ("settings", "name", "error"),
    [
        ({"batch_size": 0}, "batch_size", ValueError),
        ({"batch_size": 8, "every": 0}, "every", ValueError),
        ({"batch_size": 8, "mixer": 3}, "mixing layer", TypeError),
    ],
)
def test_arguments_of_the_callback(settings, name, error):
    raises(lambda: kmix.callbacks.Fingerprint(**settings), name, errors=error)
