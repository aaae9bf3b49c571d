"""Write the golden files: plans and mixed batches as the first version of kmix that had them drew them.

The README promises that a seed and a step give the same plan in every later version of the same major version. If
`tests/test_golden.py` fails, fix the code, not the files. This command writes the files of a new mixer, which are not
there yet, and refuses to replace those of the major version it runs under.

    PYTHONPATH=. python tests/golden/write.py

It uses only public names of kmix, so it runs under any version. The files must hold on every processor and framework,
although their `log`, `exp` and `cos` differ in the last bits. Each draw is therefore computed again in float64, and a
case is accepted only if

- eight units in the last place of the terms of the logit of `lam` move `lam` by less than 1e-5, and `lam` in float32 is
  within 5e-7 of `lam` in float64;
- the side of a box, moved by as much and by another 1e-4 pixels, is rounded to the same pixels.

If a step fails these checks, the case uses the next step that passes.
"""

import itertools
import json
import pathlib
import sys

import keras
import numpy as np

import kmix

HERE = pathlib.Path(__file__).parent
PLANS, BATCHES, ARRAYS = HERE / "plans.json", HERE / "batches.json", HERE / "batches.npz"
# Of what came after 0.1.0. Shares may differ in their last bits, and are compared within 1e-5.
AUDIO, MOSAIC, GROUPS = HERE / "audio_mix.json", HERE / "mosaic.json", HERE / "groups.json"
# Of a mixer that came after 0.1.0. It compares uniforms with numbers, so that its plans are exact.
COPY_PASTE = HERE / "copy_paste.json"

SEEDS, STEPS, ALPHAS = (0, 1, 2**32 - 1), (0, 77, 2**31 + 3), (0.01, 0.2, 0.5, 1.0, 8.0)
SHAPES = ((16,), (12, 20), (4, 6, 9))
STREAMS = {"MixUp": 0, "CutMix": 16, "EmbeddingMixup": 32}
ULPS = 8
AT = ("input", "hidden", "top")


def layer_of(spec):
    """The layer for a description `[class name, arguments]`, in the names of 0.1.0, the version of the files."""
    name, arguments = spec[0], dict(spec[1])
    if "layers" in arguments:
        arguments["layers"] = [layer_of(inner) for inner in arguments["layers"]]
        arguments["probabilities"] = arguments.pop("weights", None)
    if "within" in arguments:
        arguments["pairing"] = kmix.pairing.RandomPairs(within=arguments.pop("within"))
    if arguments.pop("labels", "dense") == "pair":
        arguments["target"] = kmix.targets.LabelPairs(arguments.pop("num_classes"))
    return getattr(kmix, name)(**arguments)


def trainer_of(spec, arguments):
    """A `MixTrainer` of a small model whose layers are named as in `AT`."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
    return kmix.MixTrainer(model, mixer=layer_of(spec), places=arguments.get("at"), seed=arguments.get("seed"))


# The same draws in float64, from the formulas.


def hashed(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)


def uniforms(seed, step, stream, n, replica):
    """Row `s` holds the uniforms of stream `stream + s`."""
    k0 = hashed(step & 0xFFFFFFFF ^ hashed(seed))
    k1 = hashed(seed ^ hashed((k0 + 0x9E3779B9) & 0xFFFFFFFF))
    rows = [
        [hashed(hashed(((stream + s + (replica << 16)) * 0x9E3779B9 + k1) & 0xFFFFFFFF) ^ hashed((i + k0) & 0xFFFFFFFF))
         for i in range(n)]
        for s in range(9)
    ]  # fmt: skip
    return ((np.array(rows) >> 9) + 0.5) * 2.0**-23


def is_stable(spec, seed, step, batch_size, spatial_shape, replica, plan):
    """Whether the plan of a layer with one alpha does not depend on the last bits of float32."""
    name, arguments = spec
    alpha, u = arguments["alpha"], uniforms(seed, step, STREAMS[name], batch_size, replica)
    if arguments.get("per") == "batch":
        u = np.repeat(u[:, :1], batch_size, axis=1)
    if alpha == 0:
        return True
    log_radius = 2 / (2 * alpha + 1) * np.log(u[0])
    radius, rest = np.sqrt(-np.expm1(log_radius)), np.exp(log_radius)
    cosine = radius * np.cos(np.pi * u[1])
    # 1 - |r| without cancellation: 1 - r^2 = rest + (radius sin)^2.
    small = (rest + np.square(radius * np.sin(np.pi * u[1]))) / (1 + np.abs(cosine))
    polar = np.sign(cosine) * np.log((1 + np.abs(cosine)) / small)
    boost = np.log(u[2] / u[3]) / alpha
    slack = ULPS * 2.0**-23 * (np.abs(polar) + np.abs(boost) + 1)
    with np.errstate(over="ignore"):
        low, lam, high = (1 / (1 + np.exp(-(polar + boost + change))) for change in (-slack, 0, slack))
    mixed = u[4] < arguments.get("rate", 1.0)
    if (high - low)[mixed].max(initial=0) > 1e-5:
        return False
    if name != "CutMix":
        np.testing.assert_allclose(plan.lam, np.where(mixed, lam, 1.0), atol=1e-6)
        return bool(np.abs(plan.lam - np.where(mixed, lam, 1.0)).max() < 5e-7)
    axes = len(spatial_shape)
    for axis, size in enumerate(spatial_shape):
        centre = np.floor(u[6 + axis] * size)
        # By design, a lam that vanishes in float32 cuts the whole image on every framework.
        whole = high < 2.0**-26
        sides = [(1 - np.where(mixed, share, 1)) ** (1 / axes) * (1 + 1e-6) * size for share in (low, lam, high)]
        halves = [
            np.floor(np.maximum(np.where(whole, size, side + change), 0)) // 2
            for side, change in zip(sides, (1e-4, 0, -1e-4), strict=True)
        ]
        if (halves[0] != halves[2]).any():
            return False
        # The reference agrees with what kmix drew.
        np.testing.assert_array_equal(plan.box[:, axis], np.maximum(centre - halves[1], 0))
        np.testing.assert_array_equal(plan.box[:, axis + axes], np.minimum(centre + halves[1], size))
    return True


def leaf_of(spec, seed, step):
    """The layer with one alpha that a choice draws in a step, and the seed that the layer draws from."""
    while "layers" in spec[1]:
        choice = (
            int(layer_of(spec).plan(step, 1, spatial_shape=SHAPES[1]).choice)
            if seed is None
            else chosen(spec, seed, step)
        )
        spec = spec[1]["layers"][choice]
    return spec, spec[1]["seed"] if seed is None else seed


def chosen(spec, seed, step):
    """The branch that a choice draws if a trainer sets the seed of all draws."""
    return int(layer_of([spec[0], {**spec[1], "seed": seed}]).plan(step, 1, spatial_shape=SHAPES[1]).choice)


def case_of(spec, step, batch_size, spatial_shape=None, replica=0, trainer=None):
    """The plan of the first stable step from `step` on, as JSON values."""
    drawer = layer_of(spec) if trainer is None else trainer_of(spec, trainer)
    for step in range(step, step + 100):  # noqa: B020, the first that is stable
        plan = drawer.plan(step, batch_size, replica, spatial_shape=spatial_shape)
        leaf, seed = leaf_of(spec, (trainer or {}).get("seed"), step)
        if is_stable(leaf, seed, step, batch_size, spatial_shape, replica, plan):
            break
    else:
        raise ValueError(f"No stable step for {spec}.")
    case = {"layer": spec, "step": step, "batch_size": batch_size, "spatial_shape": spatial_shape, "replica": replica}
    case["trainer"] = trainer
    # The shortest decimal that gives the same float32.
    lam = [float(str(np.float32(share))) for share in plan.lam]
    integers = {name: getattr(plan, name) for name in ("permutation", "box", "choice", "place")}
    drawn = {name: None if value is None else np.asarray(value).tolist() for name, value in integers.items()}
    return {**case, "lam": lam, **drawn}


def plans():
    """Every combination of seed, step and alpha; every one of per, rate, batch size and replica; choices; trainers."""
    for name in STREAMS:
        shapes = SHAPES if name == "CutMix" else (None,)
        for seed, step, alpha, shape in itertools.product(SEEDS, STEPS, ALPHAS, shapes):
            yield case_of([name, {"alpha": alpha, "seed": seed}], step, 4, shape)
        for per, rate, size, replica in itertools.product(("sample", "batch"), (0.0, 0.4, 1.0), (1, 7), (0, 1)):
            spec = [name, {"alpha": 0.7, "per": per, "rate": rate, "seed": 12345}]
            yield case_of(spec, 9, size, None if name != "CutMix" else SHAPES[(size + replica) % 3], replica)
        yield case_of([name, {"alpha": 0.0, "seed": 8}], 3, 4, None if name != "CutMix" else (5, 5))
        yield case_of([name, {"alpha": 1.0, "seed": 8}], 1000, 64, None if name != "CutMix" else (32, 32))
    for step, replica in itertools.product(range(0, 24, 2), (0, 1)):
        yield case_of(choice(seed=5), step, 3, SHAPES[1], replica)
        yield case_of(
            ["RandomChoice", {"layers": [choice(seed=5), mixup(2.0)], "seed": 5}], step, 3, SHAPES[1], replica
        )
    for step, replica in itertools.product(range(0, 24, 2), (0, 1)):
        for spec in (mixup(0.7), ["EmbeddingMixup", {"alpha": 2.0, "seed": 3}]):
            yield case_of(spec, step, 3, None, replica, {"at": AT})
        yield case_of(mixup(0.7), step, 3, None, replica, {"at": AT, "seed": 99})
        yield case_of(choice(seed=5), step, 3, SHAPES[1], replica, {"seed": 99})


def audio_plans():
    """Plans of AudioMix: numbers of sources, ratios, alphas, steps, `per`, `rate`, groups and small batches."""
    shares = [{"alpha": alpha, "num_sources": sources} for alpha in (0.5, 1.0, 1e9) for sources in (2, 3, (1, 5), 8)]
    ratios = [{"snr": [-5, 15], "num_sources": sources} for sources in (2, (1, 4), 8)]
    others = [{"per": "batch", "num_sources": (2, 4)}, {"rate": 0.4, "num_sources": 3}, {"lam_at_least_half": True}]
    for arguments, seed, step in itertools.product(shares + ratios + others, SEEDS[1:], STEPS):
        yield audio_case({**arguments, "seed": seed}, step, 7)
    for size, replica in itertools.product((1, 2, 64), (0, 1)):
        yield audio_case({"num_sources": 4, "seed": 12345}, 9, size, replica)


def audio_case(arguments, step, batch_size, replica=0):
    """The plan of a step as JSON values."""
    return later_case(["AudioMix", arguments], step, batch_size, {"replica": replica})


def mosaic_plans():
    """Plans of Mosaic: seeds, steps, sizes, `rate`, small batches and replicas."""
    for seed, step, shape in itertools.product(SEEDS, STEPS, (SHAPES[1], (33, 8))):
        yield later_case(mosaic(seed=seed), step, 5, {"spatial_shape": shape})
    for rate, size, replica in itertools.product((0.0, 0.4), (1, 2, 7), (0, 1)):
        yield later_case(mosaic(rate=rate, seed=7), 9, size, {"spatial_shape": (6, 6), "replica": replica})


def group_plans():
    """Plans within groups: of whole batches, of their parts, and with a last group that is not full."""
    for step, within, (first_row, size) in itertools.product(STEPS, (2, 4), ((None, 16), (8, 4), (8, 7), (2**20, 6))):
        rows = {} if first_row is None else {"first_row": first_row}
        yield later_case(mixup(1.0, within=within), step, size, rows)
        yield later_case(mixup(0.5, within=within, per="batch", rate=0.7), step, size, rows)
        yield later_case(mosaic(within=within, seed=7), step, size, {**rows, "spatial_shape": (6, 9)})
        yield later_case(["AudioMix", {"num_sources": (1, 3), "within": within, "seed": 7}], step, size, rows)


def later_case(spec, step, batch_size, settings):
    """The plan of a step as JSON values; `settings` are more arguments of `plan`."""
    plan = layer_of(spec).plan(step, batch_size, **settings)
    region = {} if plan.region is None else plan.region._asdict()
    drawn = {name: getattr(plan, name) for name in ("permutation", "partners", "lam", "shares")} | region
    drawn = {name: _decimals(np.asarray(value)) for name, value in drawn.items() if value is not None}
    return {"layer": spec, "step": step, "batch_size": batch_size, "settings": settings, **drawn}


def _decimals(array):
    """Integers, or the shortest decimals that give the same float32."""
    if array.ndim > 1:
        return [_decimals(row) for row in array]
    return array.tolist() if array.dtype.kind == "i" else [float(str(np.float32(value))) for value in array]


def copy_paste_plans():
    """Plans of CopyPaste: seeds, steps, rates, small batches and replicas."""
    for seed, step, rate in itertools.product(SEEDS, STEPS, (0.0, 0.4, 1.0)):
        yield copy_paste_case({"rate": rate, "seed": seed}, step, 4)
    for size, share, replica in itertools.product((1, 7), (0.1, 1.0), (0, 1)):
        yield copy_paste_case({"instance_rate": share, "seed": 12345}, 9, size, replica)


def copy_paste_case(arguments, step, batch_size, replica=0):
    """The plan of a step as JSON values: a bit for each object."""
    plan = kmix.CopyPaste(**arguments).plan(step, batch_size, replica)
    case = {"layer": ["CopyPaste", arguments], "step": step, "batch_size": batch_size, "replica": replica}
    chosen = [row.tobytes().hex() for row in np.packbits(plan.region.chosen, axis=1)]
    return {**case, "lam": plan.lam.tolist(), "permutation": plan.permutation.tolist(), "chosen": chosen}


def mixup(alpha, **arguments):
    return ["MixUp", {"alpha": alpha, "seed": 5, **arguments}]


def mosaic(**arguments):
    return ["Mosaic", {"data_format": "channels_last", **arguments}]


def cutmix(alpha=1.0, **arguments):
    return ["CutMix", {"alpha": alpha, "data_format": "channels_last", "seed": 5, **arguments}]


def choice(seed, **arguments):
    layers = [mixup(0.7, **arguments), cutmix(**arguments)]
    return ["RandomChoice", {"layers": layers, "weights": [1, 2], "seed": seed}]


def batches():
    """Name, layer and batch: each kind of input, of labels and of weights."""
    generator = np.random.default_rng(0)
    real = lambda *shape: generator.normal(size=shape).astype("float32")
    pixels = lambda *shape: generator.integers(0, 256, shape, "uint8")
    ids = lambda classes=3: generator.integers(0, classes, 6)
    soft = lambda: generator.dirichlet(np.ones(3), 6).astype("float32")
    weights = lambda: generator.uniform(0.2, 3, 6).astype("float32")
    yield "features", mixup(0.7, num_classes=3), (real(6, 5), ids(), weights())
    yield "one lam for the batch", mixup(0.2, per="batch"), (real(6, 5), soft())
    yield "some samples", mixup(0.7, rate=0.5, num_classes=3), (real(6, 5), ids())
    yield "pixels", mixup(1.0, num_classes=3), (pixels(6, 4, 5, 3), ids())
    yield "pairs", mixup(1.0, num_classes=20, labels="pair"), (real(6, 5), ids(20), weights())
    yield "regression", mixup(1.0), (real(6, 5), real(6), weights())
    yield "several labels", mixup(1.0), (real(6, 5), generator.integers(0, 2, (6, 4)))
    yield "a dictionary", mixup(1.0, num_classes=3), {"images": pixels(6, 3, 3, 1), "labels": ids()}
    several = {"a": ids(), "b": ids()}
    yield "several outputs", mixup(1.0, num_classes=3), (real(6, 5), several, {"a": weights(), "b": weights()})
    yield "embeddings", ["EmbeddingMixup", {"alpha": 0.5, "num_classes": 3, "seed": 5}], (
        {"mask": generator.uniform(size=(6, 4)) < 0.5, "tokens": real(6, 4, 3)}, ids(), weights(),
    )  # fmt: skip
    yield "boxes of pixels", cutmix(num_classes=3), (pixels(6, 8, 6, 3), ids(), weights())
    yield "channels first", cutmix(data_format="channels_first"), (real(6, 2, 6, 7), soft())
    yield "sequences", cutmix(num_classes=20, labels="pair"), (real(6, 9, 2), ids(20), weights())
    yield "volumes", cutmix(per="batch", num_classes=3), (real(6, 3, 4, 5, 1), ids())
    for dtype, make in (("float32", real), ("uint8", pixels)):
        for step in range(3):
            yield f"a choice of {dtype}, {step}", choice(5, num_classes=3), (make(6, 6, 5, 2), ids(), weights())


def mixed(name, spec, batch, number):
    """The batch after a stable step, with its arrays in a dictionary of their own."""
    x = keras.tree.flatten(batch["images"] if isinstance(batch, dict) else batch[0])[0]
    first = "channels_first" in spec[1].values()
    shape = x.shape[2:] if first else x.shape[1:-1] or None
    step = case_of(spec, number, 6, shape)["step"]
    arrays = {}

    def stored(prefix, structure):
        leaves = keras.tree.flatten(structure)
        keys = [f"{name}/{prefix}{i}" for i in range(len(leaves))]
        arrays.update(zip(keys, leaves, strict=True))
        return keras.tree.pack_sequence_as(structure, keys)

    expected = layer_of(spec).at_step(step, batch)
    case = {"name": name, "layer": spec, "step": step, "batch": stored("in", batch), "mixed": stored("out", expected)}
    return case, arrays


def write(path, cases):
    """One case per line, without entries that are None."""
    cases = ({key: value for key, value in case.items() if value is not None} for case in cases)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(f'{{"version": "{kmix.__version__}", "cases": [\n{lines}\n]}}\n')


def main():
    later = {AUDIO: audio_plans, MOSAIC: mosaic_plans, GROUPS: group_plans, COPY_PASTE: copy_paste_plans}
    new = [path for path in later if not path.exists()]
    for path in new:
        write(path, later[path]())
        print(f"wrote {path}")
    if new:
        return
    if PLANS.exists():
        version = json.loads(PLANS.read_text())["version"]
        if version.split(".")[0] == kmix.__version__.split(".")[0]:
            sys.exit(f"{PLANS} is of version {version}: what that drew must not change before the next major version.")
    write(PLANS, plans())
    cases, arrays = zip(*(mixed(*case, number) for number, case in enumerate(batches())), strict=True)
    write(BATCHES, cases)
    np.savez_compressed(ARRAYS, **{key: array for part in arrays for key, array in part.items()})


if __name__ == "__main__":
    main()
