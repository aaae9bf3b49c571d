"""Bad calls of everything public: each must raise a ValueError or TypeError that names the argument.

    KERAS_BACKEND=jax python tests/fuzz.py                     # all bad calls
    KERAS_BACKEND=jax python tests/fuzz.py --only CutMix        # those of what is named so

A call is a good one in which one argument is bad. What is bad for an argument follows from its kind: a number, an
integer, one of some words, and so on.
"""

import argparse
import atexit
import collections
import inspect
import json
import pathlib
import shutil
import sys
import tempfile
import warnings
import zipfile

import h5py
import keras
import numpy as np
from helpers import to_native

import kmix

HUGE, NAN = 10**400, float("nan")
X, IDS = np.random.default_rng(0).random((4, 6, 6, 3), "float32"), np.array([0, 1, 2, 1])
SOFT = np.eye(3, dtype="float32")[IDS]


class Foreign:
    """An object that is nothing that kmix knows."""

    def __repr__(self):
        return "Foreign()"


THING = Foreign()
ODD = [THING, Foreign, {1, 2}, b"bytes", 1j, np.array("a"), np.array([1.5, 2.5]), object, np.bool_(True)]
KINDS = {
    "number": ["x", "0.2", [0.1], (), {}, NAN, float("inf"), -1, -0.5, HUGE, float, None, *ODD],
    "integer": ["x", "3", [3], (), {}, 1.5, NAN, float("inf"), -1, HUGE, int, None, np.float32(2.0), *ODD],
    "flag": ["yes", 1, 0, 2.0, None, [], {}, bool, NAN, *ODD],
    "word": ["nonsense", "", 3, 1.5, [], {}, True, str, NAN, None, *ODD],
    "words": ["", 3, 1.5, [3], [None], {}, True, str, NAN, *ODD[:-1]],
    "thing": ["nonsense", 3, 1.5, [], True, NAN, *ODD],
    "numbers": ["x", 3, [], ["a"], [NAN], [None], {}, float, [-1, 2], [[1]], *ODD[:6]],
    "function": ["x", 3, 1.5, [], {}, True, NAN, *ODD[2:7]],
}
MAY_BE_NONE = {"num_classes", "seed", "name", "target", "places", "within", "probabilities", "snr", "constant_power"}
# The kind of an argument, by its name.
ARGUMENTS = {
    name: kind
    for kind, names in {
        "number": "alpha rate instance_rate value init_value end_value power bandwidth label_smoothing min_visibility",
        "integer": "seed num_classes batch_size step replica num_bins max_boxes every transition_steps "
        "transition_begin first count num_sources",
        "flag": "lam_at_least_half include_clean jit_compile allow_self mix_losses from_logits equal_levels "
        "constant_power nan_is_missing any_shape",
        "word": "per pairing data_format unit format within",
        "words": "inputs_key places keep",
        "numbers": "probabilities values boundaries snr spatial_shape",
        "thing": "owner mixer model layers target keypoints class_weight schedules",
        "function": "schedule",
    }.items()
    for name in names.split()
}
# Bad in general, and fine for these.
FINE = {
    "name": ["nonsense", "x", "", None],
    "owner": ["nonsense"],
    "target": [[], {}],
    "inputs_key": [""],
    "keep": [""],
    "snr": [[-1, 2]],
    "schedules": [np.array([1.5, 2.5])],
    "within": [3],
}


def small_model():
    return keras.Sequential(
        [keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )


def good():
    """A good call of each public callable: `name: (callable, arguments)`."""
    p, plan, mixup = kmix.pairing, kmix.plan, kmix.MixUp(0.2, num_classes=3, seed=1)
    s, t = kmix.schedules, kmix.targets
    trainer = kmix.MixTrainer(small_model(), mixup)
    calls = {
        cls.__name__: (cls, {})
        for cls in (kmix.MixUp, kmix.CutMix, kmix.EmbeddingMixup, kmix.Mosaic, kmix.AudioMix, kmix.CopyPaste)
    }
    calls |= {
        "RandomChoice": (kmix.RandomChoice, {"layers": [mixup, kmix.CutMix(num_classes=3)]}),
        "MixTrainer": (kmix.MixTrainer, {"model": small_model(), "mixer": kmix.MixUp(0.2)}),
        "Labels": (t.Labels, {"num_classes": 3}),
        "LabelPairs": (t.LabelPairs, {"num_classes": 5}),
        "SegmentationMasks": (t.SegmentationMasks, {"num_classes": 3}),
        "BoundingBoxes": (t.BoundingBoxes, {"format": "xyxy"}),
        "InstanceMasks": (t.InstanceMasks, {}),
        "Keypoints": (t.Keypoints, {}),
        "RandomPairs": (p.RandomPairs, {}),
        "SimilarLabels": (p.SimilarLabels, {"bandwidth": 1.0}),
        "DifferentLabels": (p.DifferentLabels, {}),
        "SameLabels": (p.SameLabels, {}),
        "sample_mixup": (plan.sample_mixup, {"seed": 1, "step": 0, "alpha": 0.2, "batch_size": 4}),
        "sample_cutmix": (
            plan.sample_cutmix,
            {"seed": 1, "step": 0, "alpha": 0.2, "batch_size": 4, "spatial_shape": (6, 6)},
        ),
        "sample_mosaic": (plan.sample_mosaic, {"seed": 1, "step": 0, "batch_size": 4, "spatial_shape": (6, 6)}),
        "reserve": (plan.reserve, {"owner": "fuzz", "first": 8000, "count": 16}),
        "plan": (mixup.plan, {"step": 0, "batch_size": 4}),
        "trainer.plan": (trainer.plan, {"step": 0, "batch_size": 4}),
        "fingerprint": (mixup.fingerprint, {"step": 0, "batch_size": 4}),
        "Numbering": (kmix.data.Numbering, {}),
        "AlphaScheduler": (kmix.callbacks.AlphaScheduler, {"layers": mixup, "schedule": s.Constant(0.1)}),
        "Fingerprint": (kmix.callbacks.Fingerprint, {"batch_size": 4}),
        "SoftLabelCrossentropy": (kmix.losses.SoftLabelCrossentropy, {}),
        "ExpectedCalibrationError": (kmix.metrics.ExpectedCalibrationError, {}),
        "Constant": (s.Constant, {"value": 0.1}),
        "Linear": (s.Linear, {"init_value": 0.1, "end_value": 0.0, "transition_steps": 5}),
        "Cosine": (s.Cosine, {"init_value": 0.1, "end_value": 0.0, "transition_steps": 5}),
        "Polynomial": (s.Polynomial, {"init_value": 0.1, "end_value": 0.0, "transition_steps": 5}),
        "Piecewise": (s.Piecewise, {"values": [0.1, 0.2], "boundaries": [5]}),
        "Join": (s.Join, {"schedules": [0.1, 0.2], "boundaries": [5]}),
    }
    return calls


def bad_arguments():
    """`(name, function, argument, what is bad)` for every argument of a known kind."""
    for name, (function, arguments) in good().items():
        for parameter in inspect.signature(function).parameters.values():
            argument = parameter.name
            for bad in bad_values(parameter):
                yield f"{name}({argument}=)", function, arguments | {argument: bad}, argument


def bad_values(parameter):
    """What is bad for a parameter of a known kind."""
    name, default = parameter.name, parameter.default
    for bad in KINDS.get(ARGUMENTS.get(name, ""), []):
        may_be_none = bad is None and (name in MAY_BE_NONE or default is None)
        is_default = default is bad or (isinstance(bad, int) and default == bad)
        if not may_be_none and not is_default and repr(bad) not in map(repr, FINE.get(name, [])):
            yield bad


# Batches.

BAD_X = [None, "images", 3, [], {}, X[:3], X[0, 0, 0, 0], X.astype("complex64"), X.astype(object), X.astype(str), THING]
BAD_Y = [None, "labels", 3, [], {}, IDS[:3], np.array(1), SOFT.astype("complex64"), IDS.astype(object), IDS.astype(str)]
BAD_Y += [THING, IDS - 1, IDS + 5, SOFT[:, :2], np.full(4, HUGE, object), IDS.astype("float32"), IDS[:, None, None]]
BAD_W = ["weights", 3, [], {}, np.ones(3, "float32"), np.ones((4, 2)), np.ones(4, complex), THING, np.ones(4, str)]
RAGGED = [[1.0], [1.0, 2.0]]
for values in (BAD_X, BAD_Y, BAD_W):
    values.append(RAGGED)


def bad_batches():
    """`(name, function, arguments, word)` for batches with one bad part."""
    mixers = {
        "MixUp": kmix.MixUp(0.2, num_classes=3, seed=1),
        "CutMix": kmix.CutMix(1.0, num_classes=3, data_format="channels_last", seed=1),
        "EmbeddingMixup": kmix.EmbeddingMixup(0.2, num_classes=3, seed=1),
        "Mosaic": kmix.Mosaic(num_classes=3, data_format="channels_last", seed=1),
        "RandomChoice": kmix.RandomChoice([kmix.MixUp(num_classes=3), kmix.CutMix(num_classes=3)], seed=1),
    }
    for name, mixer in mixers.items():
        for convert in (lambda array: array, native):
            for way in ("call", "at_step"):
                for part, values in (("x", BAD_X), ("y", BAD_Y), ("sample_weight", BAD_W)):
                    for bad in values:
                        if name in ("CutMix", "Mosaic") and part == "x" and getattr(bad, "dtype", X.dtype).kind in "cU":
                            continue  # anything can be pasted
                        batch = {"x": X, "y": IDS, "sample_weight": np.ones(4, "float32")} | {part: bad}
                        batch = tuple(convert(each) for each in batch.values())
                        call = mixer if way == "call" else lambda *batch, mixer=mixer: mixer.at_step(0, batch)
                        text = f"{name} {way}({part}={describe(bad)})"
                        yield text, lambda call=call, batch=batch: call(*batch), {}, ""


# What was saved, and came back otherwise.


def bad_configs():
    """`(name, function, arguments, word)` for configs with one bad value, an unknown key, or none that is needed."""
    for name, (cls, arguments) in good().items():
        if not hasattr(cls, "from_config"):
            continue
        config = cls(**arguments).get_config()
        for key in config:
            for bad in filter(is_json, bad_values(inspect.signature(cls).parameters[key])):
                yield f"{name}.from_config({key}=)", cls.from_config, {"config": config | {key: bad}}, key
        yield f"{name}.from_config(+)", cls.from_config, {"config": config | {"alhpa": 1}}, "alhpa"


def is_json(value):
    """Whether a file of JSON can hold a value, in which a number stays one."""
    return value is None or (isinstance(value, (str, int, float, list, dict)) and value == value)


def bad_states():
    """`(name, function, arguments, word)` for states of a numbering."""
    load = kmix.data.Numbering().load_state_dict
    whole = [None, 3, "x", [], {}, {"step": 1}, {"version": 1}, {"version": 2, "step": 1}, {"version": None, "step": 1}]
    for state in whole:
        yield f"load_state_dict({state})", load, {"state": state}, "step"
    for bad in KINDS["integer"]:
        yield f"load_state_dict(step={bad!r})", load, {"state": {"version": 1, "step": bad}}, "step"


def bad_schedules():
    """`(name, function, arguments, word)` for functions of a user that give no alpha."""
    for bad in KINDS["number"]:
        schedule = lambda step, bad=bad: bad
        for cls in (kmix.MixUp, kmix.CutMix, kmix.EmbeddingMixup):
            mixer = cls(alpha=schedule, num_classes=3)
            yield f"{cls.__name__}(schedule)", lambda mixer=mixer: mixer.at_step(0, (X, IDS)), {}, "schedule"
        layer = kmix.MixUp(0.2, num_classes=3)
        callback = kmix.callbacks.AlphaScheduler(layer, schedule)
        callback.set_params({"steps": 3})
        yield "AlphaScheduler(schedule)", lambda callback=callback: callback.on_epoch_begin(0), {}, "alpha"


BAD_ARRAYS = ["abc", -1, 2**40, 1.5, NAN, float("inf"), [1, 2], [[0.5]], None]


def bad_files():
    """`(name, function, arguments, word)` for files of a trainer that are cut short or hold something else."""
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    saved = trained()
    for save, name in ((saved.save_weights, "trainer.weights.h5"), (saved.save, "trainer.keras")):
        save(folder / name)
        content = (folder / name).read_bytes()
        for size in (0, 1, 100, len(content) // 2, len(content) - 10):
            path = folder / f"{size}-{name}"
            path.write_bytes(content[:size])
            yield loads(path)
        other = folder / f"text-{name}"
        other.write_text("no such file")
        yield loads(other)
    for place, fine in {"step": [], "alpha/0": [1.5], "built_with": [], "optimizer/2": [None]}.items():
        for i, bad in enumerate(BAD_ARRAYS):
            if bad in fine:
                continue
            path = folder / f"{place.replace('/', '-')}-{i}.weights.h5"
            shutil.copy(folder / "trainer.weights.h5", path)
            with h5py.File(path, "a") as file:
                del file["kmix"][place]
                if bad is not None:
                    file["kmix"][place] = bad
            yield loads(path)
    with zipfile.ZipFile(folder / "trainer.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    lambda_layer = keras.saving.serialize_keras_object(keras.layers.Lambda(lambda x: x))
    configs = {
        "list": [],
        "empty": {},
        "mixer": config | {"config": config["config"] | {"mixer": None}},
        "places": config | {"config": config["config"] | {"places": 3}},
        "lambda": config | {"config": config["config"] | {"model": lambda_layer}},
    }
    for name, bad in configs.items():
        path = folder / f"{name}.keras"
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in files.items():
                if each != "config.json":
                    archive.writestr(each, content)
                else:
                    archive.writestr(each, json.dumps(bad))
        yield f"load_model({path.name})", lambda path=path: keras.saving.load_model(path), {}, ""


def trained():
    """A trainer of one step."""
    trainer = kmix.MixTrainer(small_model(), kmix.MixUp(0.2))
    trainer.compile("adam", kmix.losses.SoftLabelCrossentropy(), run_eagerly=True)
    trainer.train_on_batch(X, IDS)
    return trainer


def loads(path):
    """A call that loads a bad file, and must leave the trainer as it was."""
    trainer = trained()

    def load():
        before = [keras.ops.convert_to_numpy(each) for each in trainer.variables]
        try:
            trainer.load_weights(path)
        finally:
            for variable, value in zip(trainer.variables, before, strict=True):
                np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value, err_msg="changed")

    return f"load_weights({path.name})", load, {}, ""


def describe(value):
    """A bad part of a batch, in a few words."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def native(array):
    """A tensor of the backend, where it can hold the array."""
    numeric = isinstance(array, np.ndarray) and array.dtype.kind in "fiub"
    return to_native(array) if numeric else array


def show(arguments):
    """What the arguments are, in one line."""
    return " ".join(f"{name}={value!r}" for name, value in arguments.items()).replace("\n", "")[:160]


def verdict_of(function, arguments, word):
    """What a bad call does: `(verdict, text)`, where all but "clear" are faults."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except (ValueError, TypeError) as error:
        is_clear = word in str(error) and type(error) in (ValueError, TypeError) and len(str(error)) > 20
        return "clear" if is_clear else "unclear", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "other error", f"{type(error).__name__}: {error}"
    return "returned", ""


def run(only=""):
    """Make all bad calls, or those whose name holds `only`: how often each verdict was, and a line for each fault."""
    counts, faults = collections.Counter(), []
    for make in (bad_arguments, bad_batches, bad_configs, bad_states, bad_schedules, bad_files):
        for name, function, arguments, word in make():
            if only not in name:
                continue
            verdict, text = verdict_of(function, arguments, word)
            counts[verdict] += 1
            if verdict != "clear":
                faults.append(f"{verdict}: {name}: {show(arguments)}: {text[:160]}")
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the name")
    counts, faults = run(parser.parse_args().only)
    print(*faults, f"{keras.backend.backend()}: {counts.total()} bad calls: {dict(counts)}", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
