"""The generator of the plan explorer, `docs/_static/plan.js`, draws the plans of kmix."""

import json
import pathlib
import random

import numpy as np
import pytest
from golden.write import PLANS

import kmix

pytestmark = pytest.mark.alike
quickjs = pytest.importorskip("quickjs", reason="the tests of JavaScript need quickjs-ng", exc_type=ImportError)

SCRIPT = pathlib.Path(__file__).parent.parent / "docs" / "_static" / "plan.js"
INTEGERS = ("permutation", "partners", "box", "shift", "window", "choice", "place")
FRESH = 200
# Logarithms and the like differ in the last bit between NumPy and JavaScript; lam is exact where both round alike.
TOLERANCE = 2e-7


@pytest.fixture(scope="module")
def script():
    """A function of `kmixPlan` by name, on values of JSON."""
    context = quickjs.Context()
    context.eval(SCRIPT.read_text())

    def call(name, *arguments):
        given = ", ".join(map(json.dumps, arguments))
        return json.loads(context.eval(f"JSON.stringify(kmixPlan.{name}({given}))"))

    return call


def values_of(plan):
    """The arrays of a plan of kmix, in the names of the script."""
    named = plan._asdict()
    region = named.pop("region")
    named |= {} if region is None else region._asdict()
    return {name: value for name, value in named.items() if value is not None and name != "bijective"}


def assert_equal(drawn, expected, about):
    """Integers are equal; lam and the shares are equal but for the last bits."""
    assert drawn.keys() == expected.keys(), about
    for name, value in drawn.items():
        if name in INTEGERS:
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{about}: {name}")
        else:
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=TOLERANCE, err_msg=f"{about}: {name}")


# The golden plans.


def layer_for_script(spec):
    """The layer of a golden case `[name, arguments]` in the names of today."""
    name, arguments = spec[0], dict(spec[1])
    if "layers" in arguments:
        arguments["layers"] = [layer_for_script(inner) for inner in arguments["layers"]]
        arguments["probabilities"] = arguments.pop("weights", None)
    return [name, arguments]


def test_all_golden_plans(script):
    cases = json.loads(PLANS.read_text())["cases"]
    assert len(cases) == 447
    for case in cases:
        at = {name: case[name] for name in ("step", "batch_size", "replica", "spatial_shape") if name in case}
        trainer = case.get("trainer", {})
        at |= {"seed": trainer["seed"]} if "seed" in trainer else {}
        at |= {"places": len(trainer["at"])} if "at" in trainer else {}
        expected = {name: case[name] for name in ("lam", *INTEGERS) if name in case}
        assert_equal(script("plan", layer_for_script(case["layer"]), at), expected, case)


# Fresh plans.


def settings_of(name, draw):
    """Settings of a mixer, at random."""
    settings = {"seed": draw.choice([0, 1, 2**32 - 1, draw.randrange(2**32)])}
    settings |= {"rate": draw.choice([0.0, 0.3, 0.5, 0.9])} if draw.random() < 0.5 else {}
    if name == "Mosaic":
        return settings
    settings |= {"alpha": draw.choice([0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 8.0, 100.0])} if draw.random() < 0.9 else {}
    settings |= {"per": "batch"} if draw.random() < 0.3 else {}
    return settings | ({"lam_at_least_half": True} if draw.random() < 0.3 else {})


def layer_at_random(name, draw, depth=1):
    if name != "RandomChoice":
        return [name, settings_of(name, draw)]
    kinds = draw.choices(["MixUp", "CutMix", "Mosaic", *(["RandomChoice"] if depth < 3 else [])], k=draw.randint(1, 4))
    layers = [layer_at_random(kind, draw, depth + 1) for kind in kinds]
    weights = {"probabilities": [draw.choice([1, 2, 0.1, 0.7]) for _ in kinds]} if draw.random() < 0.5 else {}
    return [name, {"layers": layers, "seed": draw.randrange(2**32), **weights}]


def call_at_random(name, draw):
    step = draw.choice([0, 1, 2**31, 2**32 - 1, draw.randrange(1000), draw.randrange(2**32)])
    at = {"step": step, "batch_size": draw.choice([1, 2, 3, 8, 31])}
    at |= {"replica": draw.choice([1, 2, 65535])} if draw.random() < 0.3 else {}
    if name in ("MixUp", "EmbeddingMixup"):
        return at
    axes = draw.randint(1, 3) if name == "CutMix" else 2
    return at | {"spatial_shape": [draw.choice([1, 7, 32, 64, 224, draw.randint(1, 1000)]) for _ in range(axes)]}


def layer_of(spec):
    name, settings = spec[0], dict(spec[1])
    if "layers" in settings:
        settings["layers"] = [layer_of(inner) for inner in settings["layers"]]
    return getattr(kmix, name)(**settings)


@pytest.mark.fast("MixUp", "CutMix", "Mosaic")
@pytest.mark.parametrize("name", ["MixUp", "CutMix", "Mosaic", "EmbeddingMixup", "RandomChoice"])
def test_fresh_plans(script, name):
    draw = random.Random(name)
    for _ in range(FRESH):
        layer, at = layer_at_random(name, draw), call_at_random(name, draw)
        expected = values_of(layer_of(layer).plan(**at))
        drawn = script("plan", layer, at)
        assert_equal(drawn, expected, (layer, at))
        # What is left as it came, and what is replaced as a whole.
        for exact in (0.0, 1.0):
            np.testing.assert_array_equal(np.equal(drawn["lam"], exact), expected["lam"] == exact)


def test_a_step_counts_modulo_2_to_the_32(script):
    first, again = ({"step": step, "batch_size": 5} for step in (7, 2**32 + 7))
    layer = ["MixUp", {"seed": 1}]
    assert script("plan", layer, again) == script("plan", layer, first)
    assert script("plan", layer, first)["permutation"] == kmix.MixUp(seed=1).plan(**again).permutation.tolist()


# The code to copy.


@pytest.mark.parametrize("name", ["MixUp", "CutMix", "Mosaic", "EmbeddingMixup", "RandomChoice"])
def test_the_code_to_copy_draws_the_plan(script, name):
    draw = random.Random(f"code of {name}")
    for _ in range(20):
        layer, at = layer_at_random(name, draw), call_at_random(name, draw)
        code, names = script("python", layer, at), {"kmix": kmix}
        exec(compile(code, f"the code of {layer}", "exec"), names)
        assert_equal(script("plan", layer, at), values_of(names["plan"]), code)


def test_the_code_to_copy_is_short(script):
    code = script("python", ["CutMix", {"alpha": 1, "seed": 2, "rate": 1}], {"step": 0, "batch_size": 6, "replica": 0})
    assert code == "layer = kmix.CutMix(1.0, seed=2)\nplan = layer.plan(step=0, batch_size=6)"


def test_the_page_is_javascript():
    page = SCRIPT.with_name("explorer.js").read_text()
    # Without a page it returns at once.
    quickjs.Context().eval(f"globalThis.document = {{ getElementById: () => null }}; {page}")


def test_an_unknown_mixer_is_an_error(script):
    with pytest.raises(quickjs.JSException, match="kmix has no mixer Mixup"):
        script("plan", ["Mixup", {"seed": 1}], {"step": 0, "batch_size": 1})
