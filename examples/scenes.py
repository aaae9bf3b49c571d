"""Small scenes with discs, squares and triangles on cluttered ground, each with its mask and its boxes.

    images, masks, boxes, labels = scenes.generate(number, seed)

The scenes are deterministic: the same seed gives the same ones. `segmentation.py`, `detection.py` and
`instance_paste.py` train on them.
"""

import numpy as np

NAMES = ("disc", "square", "triangle")
SIZE, MOST = 40, 3  # pixels a side, objects in a scene
VISIBLE = 0.5  # the share of an object that must show; a scene is drawn anew until all do


def generate(number, seed):
    """Scenes of 1 to MOST objects, which may hide one another.

    Returns images `(n, SIZE, SIZE, 3)` in [0, 1]; masks `(n, SIZE, SIZE)` of ids, 0 for the ground and else one more
    than the label; boxes `(n, MOST, 4)` around what shows of each object, as x0, y0, x1, y1 in pixels; and their labels
    `(n, MOST)`. Boxes and labels are padded with -1.
    """
    rng = np.random.default_rng(seed)
    images, masks, boxes, labels, _ = zip(*(scene(rng) for _ in range(number)), strict=True)
    return np.stack(images), np.stack(masks), np.stack(boxes), np.stack(labels)


def instances(number, seed):
    """The objects of the scenes that `generate` returns: `(n, MOST, SIZE, SIZE)`, where each of them shows."""
    rng = np.random.default_rng(seed)
    return np.stack([scene(rng)[-1] for _ in range(number)])


def scene(rng):
    """One image with its mask, boxes, labels, and what shows of each object."""
    while True:
        image, owner = ground(rng), np.full((SIZE, SIZE), -1)
        labels, areas = rng.integers(len(NAMES), size=rng.integers(1, MOST + 1)), []
        for number, label in enumerate(labels):
            inside = shape_of(NAMES[label], rng)
            areas.append(inside.sum())
            paint(image, inside, NAMES[label], rng)
            owner[inside] = number
        for _ in range(rng.integers(2)):  # a bar in front of everything, of no class
            inside = bar(rng, 1)
            paint(image, inside, rng.choice(NAMES), rng)
            owner[inside] = -1
        shows = np.array([(owner == number).sum() for number in range(len(labels))])
        if (shows >= VISIBLE * np.array(areas)).all():
            break
    boxes, padded = np.full((MOST, 4), -1.0, "float32"), np.full(MOST, -1.0, "float32")
    boxes[: len(labels)] = [extent(owner == number) for number in range(len(labels))]
    padded[: len(labels)] = labels
    mask = np.append(labels + 1, 0)[owner]  # owner -1 is the last entry
    image = np.clip(image + rng.normal(0, 0.04, image.shape), 0, 1)
    visible = owner == np.arange(MOST)[:, None, None]
    return image.astype("float32"), mask.astype("int32"), boxes, padded, visible


def extent(visible):
    """The box around the pixels that show."""
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def coordinates(rng, low, high, angle=np.pi):
    """Pixel coordinates around a random centre, turned by up to `angle`, in the plane as complex numbers."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y = rng.uniform(low, high, size=2)
    return (columns - x + 1j * (rows - y)) * np.exp(1j * rng.uniform(-angle, angle))


def shape_of(name, rng):
    """The pixels of an object, which lies in the scene with its centre at least."""
    z, radius = coordinates(rng, 6, SIZE - 6, angle=0.4), rng.uniform(6, 10)
    if name == "disc":
        return abs(z) < radius
    if name == "square":
        return np.maximum(abs(z.real), abs(z.imag)) < 0.85 * radius
    sides = [(z * np.exp(2j * np.pi * k / 3)).imag for k in range(3)]  # y points down, so that one of them is below
    return np.max(sides, axis=0) < 0.6 * radius


def bar(rng, width):
    z = coordinates(rng, 0, SIZE)
    return (abs(z.real) < width) & (abs(z.imag) < rng.uniform(8, 20))


def paint(image, inside, texture, rng):
    """Fill with a light and a dark colour: plainly, in checks or in stripes, as discs, squares and triangles are."""
    z = coordinates(rng, 0, SIZE) / rng.uniform(4, 6)
    first = {"disc": abs(z) > 0, "square": (z.real % 1 < 0.5) ^ (z.imag % 1 < 0.5), "triangle": z.real % 1 < 0.5}
    colors = rng.uniform(0.2, 1, size=3) * [[1.0], [rng.uniform(0.3, 0.7)]]
    image[inside] = colors[first[texture].astype(int)][inside]


def ground(rng):
    """Patches of pale colour, and over them bars and rings, which are of no class, but have the textures."""
    image = rng.uniform(0.3, 0.7) + rng.uniform(-0.1, 0.1, size=(5, 5, 3))
    image = image.repeat(SIZE // 5, axis=0).repeat(SIZE // 5, axis=1)
    for _ in range(rng.integers(1, 4)):
        paint(image, bar(rng, rng.uniform(1, 4)), rng.choice(NAMES), rng)
    for _ in range(rng.integers(2)):
        radius = rng.uniform(5, 9)
        paint(image, abs(abs(coordinates(rng, 0, SIZE)) - radius) < 1.5, rng.choice(NAMES), rng)
    return image
