"""Every layer keeps the contract of `contract.py`, and each of its checks fails for a mixer that breaks it."""

import contract
import keras
import numpy as np
import pytest
from contract import check_mixer
from helpers import at_step
from test_losses_metrics import gradient

import kmix
from kmix._backend import execution
from kmix.layers.training_step import TrainingStep, current_step, run_step
from kmix.mixing import mix_inputs
from kmix.pairing import RandomPairs, SimilarLabels
from kmix.targets import LabelPairs, Labels

N, CLASSES = 7, 5


def images(shape=(8, 6, 3), dtype="float32"):
    """Inputs, none like another."""
    generator = np.random.default_rng(3)
    values = generator.integers(0, 256, (N, *shape)) if dtype == "uint8" else generator.normal(size=(N, *shape))
    return values.astype(dtype)


def ids(classes=CLASSES):
    return np.random.default_rng(4).integers(0, classes, N)


def soft(classes=CLASSES):
    return np.random.default_rng(5).dirichlet(np.ones(classes), N).astype("float32")


def tags():
    return np.random.default_rng(8).integers(0, 2, (N, CLASSES))


def weights():
    return np.random.default_rng(6).uniform(0.2, 3.0, N).astype("float32")


def mixup(alpha=0.7, **settings):
    return kmix.MixUp(alpha, **{"seed": 11, "num_classes": CLASSES, **settings})


def cutmix(alpha=1.0, **settings):
    return kmix.CutMix(alpha, **{"seed": 12, "num_classes": CLASSES, "data_format": "channels_last", **settings})


def embedding(alpha=0.7, **settings):
    return kmix.EmbeddingMixup(alpha, **{"seed": 13, "num_classes": CLASSES, **settings})


def choice(layers, **settings):
    return kmix.RandomChoice(layers, **{"seed": 14, **settings})


@keras.saving.register_keras_serializable(package="contract")
def own_or_partner(y, plan):
    """The label of the partner where that has the larger share."""
    return (
        np.where(plan.lam < 0.5, y[np.asarray(plan.permutation)], y) if isinstance(y, np.ndarray) else chosen(y, plan)
    )


def chosen(y, plan):
    import tensorflow as tf

    if tf.is_tensor(y):
        return tf.where(plan.lam < 0.5, tf.gather(y, plan.permutation), y)
    return keras.ops.where(plan.lam < 0.5, keras.ops.take(y, plan.permutation, axis=0), y)


def numbers():
    return np.random.default_rng(9).normal(size=N).astype("float32")


def several():
    """Labels of four kinds, by name."""
    numbers = np.arange(N, dtype="float32")
    return {"root": ids(), "vowel": ids(3)[:, None], "noise": soft(2), "code": numbers.astype("int32"), "near": numbers}


TARGETS = {"root": Labels(CLASSES), "vowel": Labels(3), "noise": "labels", "code": "keep", "near": own_or_partner}
DICTIONARY = {"images": images(), "labels": ids(), "sample_weight": weights(), "id": np.arange(N, dtype="int32")}
SEQUENCES = {"states": images((6, 4)), "mask": np.arange(6) < np.random.default_rng(7).integers(1, 6, (N, 1))}


def pairs(mixer, **settings):
    return mixer(target=LabelPairs(CLASSES), num_classes=None, **settings)


def numbered(mixer, **settings):
    """A mixer of a dictionary that holds the numbers of the samples."""
    return mixer(target={"id": "keep"}, **settings)


UNSELF = RandomPairs(allow_self=False)
LAYERS = {
    "MixUp": lambda: (mixup(), (images(), ids())),
    "MixUp of uint8, weighted": lambda: (mixup(), (images(dtype="uint8"), ids()[:, None], weights())),
    "MixUp of a table, soft labels": lambda: (mixup(num_classes=None), (images((4,)), soft(), weights())),
    "MixUp of nested inputs": lambda: (mixup(), ({"image": images(), "table": (images((4,)),)}, ids())),
    "MixUp by the batch, at times": lambda: (mixup(per="batch", rate=0.8, num_classes=None), (images(), soft())),
    "MixUp at times": lambda: (mixup(rate=0.5), (images(), ids(), weights())),
    "CutMix": lambda: (cutmix(), (images(), ids())),
    "CutMix of uint8, weighted": lambda: (cutmix(), (images(dtype="uint8"), ids(), weights())),
    "CutMix of channels first": lambda: (cutmix(data_format="channels_first"), (images((3, 6, 8)), ids())),
    "CutMix of sequences": lambda: (cutmix(), (images((12, 5)), soft())),
    "CutMix of volumes": lambda: (cutmix(per="batch", seed=4), (images((4, 5, 6, 2)), ids())),
    "EmbeddingMixup": lambda: (embedding(), (images((6, 4)), ids(), weights())),
    "EmbeddingMixup with masks": lambda: (embedding(), (SEQUENCES, ids())),
    "RandomChoice": lambda: (choice([mixup(), cutmix()]), (images(), ids(), weights())),
    "RandomChoice of uint8": lambda: (
        choice([cutmix(), mixup()], probabilities=[3, 1]),
        (images(dtype="uint8"), ids()),
    ),
    "RandomChoice of choices": lambda: (choice([choice([mixup(), cutmix()]), cutmix(seed=5)]), (images(), ids())),
    "pairs": lambda: (pairs(mixup), (images(), ids(), weights())),
    "pairs of CutMix": lambda: (pairs(cutmix), (images(), ids()[:, None])),
    "pairs of a choice": lambda: (choice([pairs(mixup), pairs(cutmix)]), (images(), ids())),
    "float16": lambda: (mixup(dtype="float16"), (images(), ids(), weights())),
    "mixed_bfloat16": lambda: (embedding(dtype="mixed_bfloat16"), (images((6, 4)), ids())),
    "several targets": lambda: (mixup(target=TARGETS, num_classes=None), (images(), several())),
    "several targets, CutMix": lambda: (
        cutmix(target=TARGETS, num_classes=None),
        (images(), several(), {"root": weights(), "noise": weights()}),
    ),
    "several labels": lambda: (
        mixup(target=[Labels(CLASSES), "labels"], num_classes=None),
        (images(), (ids(), soft(2)), weights()),
    ),
    "tags": lambda: (mixup(target="union", num_classes=None), (images(), tags(), weights())),
    "tags, CutMix": lambda: (cutmix(target="union", num_classes=None), (images(dtype="uint8"), tags())),
    "kept": lambda: (cutmix(target="keep", num_classes=None), (images(), images())),
    "class_weight": lambda: (
        mixup(target=Labels(CLASSES, class_weight={0: 0.5, 3: 4.0}), num_classes=None),
        (images(), ids()),
    ),
    "class_weight, weighted": lambda: (
        cutmix(target=Labels(CLASSES, class_weight={1: 3.0}), num_classes=None),
        (images(), ids(), weights()),
    ),
    "never with oneself": lambda: (mixup(pairing=UNSELF, lam_at_least_half=True), (images(), ids(), weights())),
    "never with oneself, CutMix": lambda: (
        cutmix(pairing=UNSELF, lam_at_least_half=True),
        (images(dtype="uint8"), ids()),
    ),
    "by label": lambda: (mixup(pairing="similar_labels", num_classes=None), (images(), numbers(), weights())),
    "by label, CutMix": lambda: (
        cutmix(pairing=SimilarLabels(0.2, label="near"), target=TARGETS, num_classes=None),
        (images(), several(), weights()),
    ),
    "by label, a choice": lambda: (
        choice([embedding(pairing=SimilarLabels(allow_self=False), num_classes=None), mixup(num_classes=None)]),
        (images((6, 4)), soft(), weights()),
    ),
    "a dictionary": lambda: (numbered(mixup), DICTIONARY),
    "a dictionary, CutMix": lambda: (numbered(cutmix), DICTIONARY),
}


@pytest.mark.in_turn
@pytest.mark.fast("MixUp of a table*")
@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_keeps_the_contract(name):
    check_mixer(*LAYERS[name]())


@pytest.mark.slow
@pytest.mark.xla
@pytest.mark.alike
@pytest.mark.parametrize("name", LAYERS)
def test_xla_mixes_alike(name):
    layer, batch = LAYERS[name]()
    contract.assert_alike(at_step("tfdata", layer, 3, batch), layer.at_step(3, batch))


# Mixers that break one promise each. They are registered, so that nothing else about them is wrong.


@keras.saving.register_keras_serializable(package="contract")
class LabelsTwice(kmix.MixUp):
    """Mixes the labels a second time, with the same plan."""

    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        once = super()._draw_and_mix(plan_xp, key, alphas, batch, *args)
        return super()._draw_and_mix(plan_xp, key, alphas, once, *args)._replace(inputs=once.inputs)


@keras.saving.register_keras_serializable(package="contract")
class InputsTwice(kmix.MixUp):
    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        once = super()._draw_and_mix(plan_xp, key, alphas, batch, *args)
        return once._replace(inputs=super()._draw_and_mix(plan_xp, key, alphas, once, *args).inputs)


@keras.saving.register_keras_serializable(package="contract")
class LabelsOfOthers(kmix.MixUp):
    """Labels by a plan of their own."""

    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        other = super()._draw_and_mix(plan_xp, key._replace(seed=99), alphas, batch, *args)
        return other._replace(inputs=super()._draw_and_mix(plan_xp, key, alphas, batch, *args).inputs)


@keras.saving.register_keras_serializable(package="contract")
class InPlace(kmix.MixUp):
    def _mix(self, key, batch, partner=None):
        mixed = super()._mix(key, batch, partner)
        if isinstance(batch[0], np.ndarray):
            batch[0][...] = mixed[0]
        return mixed


@keras.saving.register_keras_serializable(package="contract")
class NoRate(kmix.MixUp):
    def sample(self, *args, rate, **settings):
        return super().sample(*args, rate=1.0, **settings)


@keras.saving.register_keras_serializable(package="contract")
class NoPer(kmix.MixUp):
    def sample(self, *args, per, **settings):
        return super().sample(*args, per="sample", **settings)


@keras.saving.register_keras_serializable(package="contract")
class NoHalf(kmix.MixUp):
    def sample(self, *args, lam_at_least_half, **settings):
        return super().sample(*args, lam_at_least_half=False, **settings)


@keras.saving.register_keras_serializable(package="contract")
class StreamOfMixUp(kmix.CutMix):
    def sample(self, seed, step, alpha, size, *args, **settings):
        drawn = kmix.MixUp.sample(self, seed, step, alpha, size, *args, **settings)
        return super().sample(seed, step, alpha, size, *args, **settings)._replace(permutation=drawn.permutation)


@keras.saving.register_keras_serializable(package="contract")
class NoAlpha(kmix.MixUp):
    def sample(self, seed, step, alpha, *args, **settings):
        return super().sample(seed, step, 0.7, *args, **settings)


@keras.saving.register_keras_serializable(package="contract")
class Off(kmix.MixUp):
    """Mixes nothing, so that no promise about what is mixed means anything."""

    def sample(self, *args, rate, **settings):
        return super().sample(*args, rate=0.0, **settings)


@keras.saving.register_keras_serializable(package="contract")
class WrongShape(kmix.MixUp):
    def compute_output_spec(self, x, y=None, *args, **kwargs):
        x, _ = super().compute_output_spec(x, y, *args, **kwargs)
        return x, keras.KerasTensor(y.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="contract")
class WrongDtype(kmix.MixUp):
    def compute_output_spec(self, *args, **kwargs):
        x, y = super().compute_output_spec(*args, **kwargs)
        return x, keras.KerasTensor(y.shape, dtype="float16")


@keras.saving.register_keras_serializable(package="contract")
class DropsRate(kmix.MixUp):
    def get_config(self):
        return {name: value for name, value in super().get_config().items() if name != "rate"}


@keras.saving.register_keras_serializable(package="contract")
class DropsDtype(kmix.MixUp):
    def get_config(self):
        return {**super().get_config(), "dtype": "float32"}


@keras.saving.register_keras_serializable(package="contract")
class NoSeedInCopies(kmix.MixUp):
    def __reduce__(self):
        return type(self).from_config, ({**self.get_config(), "seed": 99},)


@keras.saving.register_keras_serializable(package="contract")
class CopiesForget(kmix.MixUp):
    """A copy counts from 0."""

    def __reduce__(self):
        return type(self).from_config, (self.get_config(),)


@keras.saving.register_keras_serializable(package="contract")
class HalfLabels(kmix.MixUp):
    def _mix(self, key, batch, partner=None):
        x, y, *others = super()._mix(key, batch, partner)
        return x, y.astype("float16"), *others


@keras.saving.register_keras_serializable(package="contract")
class WideInputs(kmix.MixUp):
    def _mix(self, key, batch, partner=None):
        x, *others = super()._mix(key, batch, partner)
        return x.astype("float64"), *others


@keras.saving.register_keras_serializable(package="contract")
class EagerInInference(kmix.MixUp):
    def __call__(self, *args, training=None):
        return super().__call__(*args)


@keras.saving.register_keras_serializable(package="contract")
class CountsInference(kmix.MixUp):
    def __call__(self, *args, training=None):
        if training is False:
            super().__call__(*args)
        return super().__call__(*args, training=training)


@keras.saving.register_keras_serializable(package="contract")
class SkipsSteps(kmix.MixUp):
    def __call__(self, *args, training=None):
        mixed = super().__call__(*args, training=training)
        if training is None:
            super().__call__(*args)
        return mixed


@keras.saving.register_keras_serializable(package="contract")
class SameSteps(kmix.MixUp):
    def sample(self, seed, step, *args, **settings):
        return super().sample(seed, step * 0, *args, **settings)


@keras.saving.register_keras_serializable(package="contract")
class UnlikePaths(kmix.MixUp):
    """Another plan on tensors than on NumPy arrays."""

    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        on_numpy = isinstance(batch.inputs, np.ndarray)
        key = key if on_numpy else key._replace(seed=99)
        return super()._draw_and_mix(plan_xp, key, alphas, batch, *args)


@keras.saving.register_keras_serializable(package="contract")
class UnlikeFused(kmix.MixUp):
    def sample(self, seed, *args, **settings):
        return super().sample(seed if execution._FUSES.get() else 99, *args, **settings)


@keras.saving.register_keras_serializable(package="contract")
class WrongShare(kmix.CutMix):
    """Labels by the lam that was drawn, not by the share of the pixels."""

    def sample(self, *args, **settings):
        plan = super().sample(*args, **settings)
        return plan._replace(lam=plan.lam * 0.9)


@keras.saving.register_keras_serializable(package="contract")
class OtherPlan(kmix.MixUp):
    """Mixes with partners from a second batch by another plan."""

    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        key = key._replace(step=key.step + int(batch.second))
        return super()._draw_and_mix(plan_xp, key, alphas, batch, *args)


@keras.saving.register_keras_serializable(package="contract")
class PartsDrawAlike(kmix.MixUp):
    """Each part of a batch draws what the first one draws."""

    def sample(self, *args, first_row=0, **settings):
        return super().sample(*args, **settings)


@keras.saving.register_keras_serializable(package="contract")
class CleanLast(kmix.MixUp):
    """The clean samples come behind the mixed ones."""

    def _draw_and_mix(self, plan_xp, key, alphas, batch, *args):
        mixed = super()._draw_and_mix(plan_xp, key, alphas, batch, *args)
        n = batch.size() * self.include_clean
        swapped = keras.tree.map_structure(lambda leaf: batch.xp.concat([leaf[n:], leaf[:n]]), mixed.arrays)
        return mixed.with_arrays(swapped)


BROKEN = [
    (UnlikePaths, contract.check_code_paths),
    (UnlikeFused, contract.check_code_paths),
    (DropsRate, contract.check_config),
    (DropsDtype, contract.check_config),
    (NoSeedInCopies, contract.check_copies),
    (CopiesForget, contract.check_copies),
    (WrongShape, contract.check_spec),
    (WrongDtype, contract.check_spec),
    (HalfLabels, contract.check_dtypes),
    (WideInputs, contract.check_dtypes),
    (InPlace, contract.check_inputs_stay),
    (NoRate, contract.check_off),
    (NoAlpha, contract.check_off),
    (Off, contract.check_off),
    (NoPer, contract.check_settings),
    (NoHalf, contract.check_settings),
    (StreamOfMixUp, contract.check_stream),
    (EagerInInference, contract.check_training),
    (CountsInference, contract.check_training),
    (SkipsSteps, contract.check_counter),
    (SameSteps, contract.check_counter),
    (LabelsTwice, contract.check_once),
    (LabelsTwice, contract.check_values),
    (InputsTwice, contract.check_values),
    (LabelsOfOthers, contract.check_values),
    (WrongShare, contract.check_shares),
    (CleanLast, contract.check_clean),
    (OtherPlan, contract.check_second_batch),
    (PartsDrawAlike, contract.check_groups),
]


@pytest.mark.parametrize(("broken", "promise"), BROKEN, ids=lambda part: part.__name__)
def test_a_broken_promise_is_noticed(broken, promise):
    settings = {"num_classes": CLASSES, "seed": 11, "rate": 0.9, "dtype": "float32"}
    sound = kmix.CutMix if issubclass(broken, kmix.CutMix) else kmix.MixUp
    if broken is DropsDtype:
        settings["dtype"] = "float16"
    batch = (images(), ids())
    promise(sound(0.7, **settings), batch)
    with pytest.raises(AssertionError):
        promise(broken(0.7, **settings), batch)


def test_every_promise_is_checked_and_has_a_mixer_that_breaks_it():
    checks = {name: check for name, check in vars(contract).items() if name.startswith("check_")}
    del checks["check_mixer"]
    assert {check.__name__ for _, check in BROKEN} == set(checks)
    called = {check.__name__ for check in contract.PROMISES} | {"check_values", "check_shares"}
    assert called == set(checks)


@pytest.mark.slow
def test_the_whole_contract_fails_with_one_of_its_promises():
    with pytest.raises(AssertionError):
        check_mixer(LabelsTwice(0.7, num_classes=CLASSES, seed=11), (images(), ids()))


def test_a_target_without_a_formula_is_named():
    layer = kmix.MixUp(0.7, target=contract.Counted(), seed=11)
    with pytest.raises(AssertionError, match="give the formula of Counted"):
        contract.check_values(layer, (images(), soft()))


# The contract between a trainer and what mixes inside its model, `kmix/layers/training_step.py`.


def test_a_step_misses_places_that_the_model_did_not_pass():
    """Whichever of them was drawn: the next step may draw the other."""
    plan = mixup().plan(0, N)._replace(place=np.int32(0))
    with pytest.raises(ValueError, match="the inputs were not"), run_step(TrainingStep(plan, places=2)):
        current_step().record(0)
    with run_step(TrainingStep(plan, places=2)):
        current_step().record(0)
        current_step().record(1)
    assert current_step() is None


def test_a_mask_alone_does_not_count_as_mixed():
    inputs = keras.Input((4,), dtype="bool", name="mask")
    model = keras.Model(inputs, keras.ops.cast(inputs, "float32"))
    trainer = kmix.MixTrainer(model, mixer=embedding(num_classes=None), places=["input"])
    plan = embedding().plan(0, N)._replace(place=np.int32(0))
    with pytest.raises(ValueError, match="the inputs were not"), run_step(TrainingStep(plan, places=1)):
        trainer(np.ones((N, 4), bool), training=True)


def test_the_gradient_of_a_plan_that_is_no_permutation():
    """Two samples have one partner, which gets a gradient from both."""
    lam = np.array([0.25, 0.75, 0.5], "float32")
    partners = np.array([2, 2, 0])
    plan = kmix.MixPlan(keras.ops.convert_to_tensor(lam), keras.ops.convert_to_tensor(partners))
    x, upstream = images((4,))[:3], images((4,))[3:6]
    loss = lambda upstream, x: keras.ops.sum(mix_inputs(x, plan) * upstream)
    ours = gradient(loss, keras.ops.convert_to_tensor(upstream), x)
    matrix = np.diag(lam.astype("float64"))
    matrix[np.arange(3), partners] += 1 - lam
    np.testing.assert_allclose(ours, matrix.T @ upstream, atol=1e-6)
