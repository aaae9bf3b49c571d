"""This version draws what version 0.1.0 drew: `tests/golden/` holds plans and mixed batches of that version."""

import json

import keras
import numpy as np
import pytest
from golden.write import ARRAYS, AUDIO, BATCHES, COPY_PASTE, GROUPS, MOSAIC, PLANS, layer_of, trainer_of
from helpers import CODE_PATHS, at_step

INTEGERS = ("permutation", "box", "choice", "place")


def cases(path):
    return json.loads(path.read_text())["cases"]


def kinds(given):
    """The cases by kind of layer, with those of trainers apart."""
    groups = {}
    for case in given:
        groups.setdefault("MixTrainer" if "trainer" in case else case["layer"][0], []).append(case)
    return groups


@pytest.mark.fast("MixUp", "CutMix", "EmbeddingMixup", "RandomChoice")
@pytest.mark.parametrize("kind", ["MixUp", "CutMix", "EmbeddingMixup", "RandomChoice", "MixTrainer"])
def test_plans(kind):
    for case in kinds(cases(PLANS))[kind]:
        drawer = trainer_of(case["layer"], case["trainer"]) if "trainer" in case else layer_of(case["layer"])
        plan = drawer.plan(case["step"], case["batch_size"], case["replica"], spatial_shape=case.get("spatial_shape"))
        about = f"{case['layer']}, step {case['step']}"
        np.testing.assert_allclose(plan.lam, case["lam"], rtol=0, atol=1e-6, err_msg=about)
        assert plan.lam.dtype == "float32"
        for name in INTEGERS:
            drawn = getattr(plan, name)
            assert (drawn is None) == (name not in case), f"{about}: {name}"
            if drawn is not None:
                np.testing.assert_array_equal(drawn, case[name], err_msg=f"{about}: {name}")


def test_what_the_plans_cover():
    groups = kinds(cases(PLANS))
    assert {name: len(group) for name, group in groups.items()} == {
        "MixUp": 71,
        "CutMix": 161,
        "EmbeddingMixup": 71,
        "RandomChoice": 48,
        "MixTrainer": 96,
    }
    assert {case["choice"] for case in groups["RandomChoice"]} == {0, 1}
    assert {case["place"] for case in groups["MixTrainer"] if "place" in case} == {0, 1, 2}
    assert {len(case["spatial_shape"]) for case in groups["CutMix"]} == {1, 2, 3}


@pytest.mark.parametrize(
    ("path", "count"), [(AUDIO, 114), (MOSAIC, 30), (GROUPS, 96)], ids=["audio_mix", "mosaic", "groups"]
)
def test_plans_of_what_came_later(path, count):
    given = cases(path)
    assert len(given) == count
    for case in given:
        plan = layer_of(case["layer"]).plan(case["step"], case["batch_size"], **case["settings"])
        found = {**plan._asdict(), **({} if plan.region is None else plan.region._asdict())}
        for name in ("permutation", "partners", "lam", "shares", "shift", "window"):
            drawn = found.get(name)
            assert (drawn is None) == (name not in case), f"{case['layer']}: {name}"
            if drawn is not None:
                about, atol = f"{case['layer']}, step {case['step']}: {name}", 1e-5 * (drawn.dtype == "float32")
                np.testing.assert_allclose(drawn, case[name], rtol=0, atol=atol, err_msg=about)


def test_plans_of_copy_paste():
    for case in cases(COPY_PASTE):
        plan = layer_of(case["layer"]).plan(case["step"], case["batch_size"], case["replica"])
        np.testing.assert_array_equal(plan.lam, case["lam"])
        np.testing.assert_array_equal(plan.permutation, case["permutation"])
        assert [row.tobytes().hex() for row in np.packbits(plan.region.chosen, axis=1)] == case["chosen"]


@pytest.mark.fast("*numpy", "*native", "*uint8, 1-tfdata", "volumes*", "pairs*", "boxes*")
@pytest.mark.parametrize("path", CODE_PATHS)
@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases(BATCHES)])
def test_batches(case, path):
    with np.load(ARRAYS) as arrays:
        stored = lambda structure: keras.tree.map_structure(lambda key: arrays[key], structure)
        batch, expected = stored(case["batch"]), stored(case["mixed"])
    batch = tuple(batch) if isinstance(batch, list) else batch
    mixed = at_step(path, layer_of(case["layer"]), case["step"], batch)
    keras.tree.assert_same_structure(expected, list(mixed) if isinstance(mixed, tuple) else mixed)
    for ours, theirs in zip(keras.tree.flatten(mixed), keras.tree.flatten(expected), strict=True):
        assert ours.dtype == theirs.dtype
        # The error of a blend is the error of lam times the range of the values. Across libraries, lam may be off by
        # 1e-5 (8 units in the last place of its logit, see write.py).
        spread = float(np.ptp(theirs.astype("float64"))) if theirs.size else 0.0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=(2e-6 if path == "numpy" else 2e-5) * max(1.0, spread))
