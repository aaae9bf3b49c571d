"""Spoken digits of a speaker never heard before: where to mix, and what of it.

    python examples/audio_digits.py                      # downloads Free Spoken Digits, prints a table, draws a picture
    python examples/audio_digits.py --data recordings.tar.gz    # reads a local copy of the archive
    python examples/audio_digits.py --quick              # two speakers, one epoch: only to check that it runs
    KERAS_BACKEND=jax python examples/audio_digits.py    # or torch

MixUp of waves is two speakers at once. So is AudioMix, which brings them to one level, or the second one to a
signal-to-noise ratio from 0 to 20 dB. MixUp of log-mel spectrograms fades one picture into another, and CutMix along
time alone says one digit in the middle of another. In a checkout, run `pip install ".[tensorflow,examples]"`.
"""

import argparse
import hashlib
import io
import os
import re
import tarfile
import time
import wave

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

import kmix

# Free Spoken Digit Dataset by Zohar Jackson and others, CC BY-SA 4.0. GitHub may pack an archive anew, so the sum is
# that of the names and bytes of the recordings.
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
SHA256 = "45a9b976ba3397a2fd5c70a9f2e43c34f442a3a6be47392ecfc41174b678f37e"
RATE, LENGTH, STRIDE, MELS, CLASSES = 8000, 4864, 128, 32, 10  # 0.6 s; 9 % of the recordings are longer

# On takes 20 to 39 of each digit, 30 epochs were chosen from 10, 20 and 30, and alpha from 0.4 and 1 by the NLL of the
# two methods that mix spectrograms. Nothing was chosen for AudioMix, which takes that alpha, too. The runs here use
# takes 0 to 19, of the same speakers. A seed sets the initial weights, the order and the mixing. The speaker of a test
# neither selects nor stops anything in its run.
TAKES, BATCH_SIZE, LEARNING_RATE, ALPHA = 20, 50, 2e-3, 0.4
METHODS = {
    "none": "#666666",
    "MixUp, waves": "#0072b2",
    "AudioMix, one level": "#e69f00",
    "AudioMix, 0 to 20 dB": "#cc79a7",
    "MixUp, spectrograms": "#009e73",
    "CutMix, time": "#d55e00",
}
MARKERS = dict(zip(METHODS, "osP*D^", strict=True))
WAVES = list(METHODS)[1:4]  # those that mix waves
PAIR = (6, 8)  # the digits in the picture
SCORES = ("error (%)", "NLL (nats)", "ECE (%)")


def load_recordings(path, takes):
    """Waves `(n, LENGTH)`, digits `(n,)` and speakers `(n,)` of some takes of each digit by each speaker."""
    try:
        path = path or keras.utils.get_file("free_spoken_digits.tar.gz", URL)
    except Exception as error:  # Keras raises nothing narrower
        raise SystemExit(f"{error}\nWithout a network connection, pass a copy: --data recordings.tar.gz") from None
    with tarfile.open(path) as archive:
        members = {os.path.basename(member.name): member for member in archive if member.name.endswith(".wav")}
        recordings = {name: archive.extractfile(members[name]).read() for name in sorted(members)}
    digest = hashlib.sha256()
    for name, recording in recordings.items():
        digest.update(name.encode() + recording)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"{path} does not hold the recordings of version 1.0.10.")
    waves, digits, speakers = [], [], []
    for name, recording in recordings.items():
        digit, speaker, take = re.fullmatch(r"(\d)_(\w+)_(\d+)\.wav", name).groups()
        if int(take) in takes:
            waves.append(read_wave(recording))
            digits.append(int(digit))
            speakers.append(speaker)
    return np.stack(waves), np.array(digits), np.array(speakers)


def read_wave(recording):
    """The middle LENGTH samples of a recording, or all of it between zeros, with a peak of 1."""
    with wave.open(io.BytesIO(recording)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype("float32")
    excess = len(samples) - LENGTH
    samples = samples[excess // 2 :][:LENGTH] if excess > 0 else samples
    left = max(0, -excess) // 2
    return np.pad(samples, (left, LENGTH - left - len(samples))) / np.abs(samples).max()


def log_mel():
    """Waves `(B, LENGTH)` to spectrograms `(B, MELS, frames)` in units of 20 dB."""
    spectrogram = layers.MelSpectrogram(
        fft_length=256,
        sequence_stride=STRIDE,
        sequence_length=256,
        sampling_rate=RATE,
        num_mel_bins=MELS,
        min_freq=60,
        min_power=1e-3,
        top_db=200,  # a smaller one would cut off below the loudest recording of the batch
    )
    return keras.Sequential([keras.Input((LENGTH,)), spectrogram, layers.Rescaling(0.05)])


def spectrograms_of(waves):
    """Spectrograms as NumPy arrays."""
    return keras.ops.convert_to_numpy(log_mel()(waves))


def network(shape):
    """Spectrograms in, probabilities out."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Reshape((*shape, 1)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def mixing_of(method, **settings):
    """The mixing layer of a method."""
    if method == "AudioMix, one level":
        return kmix.AudioMix(ALPHA, equal_levels=True, num_classes=CLASSES, seed=0, **settings)
    if method == "AudioMix, 0 to 20 dB":
        return kmix.AudioMix(snr=(0, 20), num_classes=CLASSES, seed=0, **settings)
    if method.startswith("MixUp"):
        return kmix.MixUp(ALPHA, num_classes=CLASSES, seed=0, **settings)
    # Spectrograms (B, MELS, frames) are cut along time alone: a box spans all frequencies.
    return kmix.CutMix(ALPHA, num_classes=CLASSES, axes=2, seed=0, **settings)


def compiled_trainer(method, shape):
    """A network that reads spectrograms, what to fit, compiled once for all runs, and its state before training."""
    model = network(shape)
    whole = keras.Sequential([log_mel(), model]) if method in WAVES else model
    trainer = whole if method == "none" else kmix.MixTrainer(whole, mixing_of(method))
    trainer.compile(keras.optimizers.Adam(LEARNING_RATE), kmix.losses.SoftLabelCrossentropy())
    trainer.optimizer.build(model.trainable_variables)
    return model, trainer, trainer.get_state_tree(value_format="numpy_array")


def train(model, trainer, untrained, x, y, run, epochs):
    """Train anew: the same initial weights and order for every method."""
    trainer.set_state_tree(untrained)
    keras.utils.set_random_seed(run)
    model.set_weights(network(model.input_shape[1:]).get_weights())
    if isinstance(trainer, kmix.MixTrainer):
        trainer.step.assign(1_000_000 * run)  # the number of a step decides how it is mixed
    trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)


def evaluate(model, x, y):
    """The scores on recordings that are not mixed."""
    probabilities = model.predict(x, batch_size=len(x), verbose=0)
    error = np.mean(probabilities.argmax(axis=-1) != y)
    nll = -np.mean(np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-7)))
    return 100 * error, nll, 100 * float(kmix.metrics.ExpectedCalibrationError()(y, probabilities))


def train_all(console, data, speakers, seeds, epochs):
    """Leave out one speaker after the other. Returns {method: scores (speakers, 3), mean over the seeds}."""
    waves, digits, speaker = data
    spectrograms = spectrograms_of(waves)
    scores = {}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(METHODS) * len(speakers) * seeds)
        for method in METHODS:
            model, *compiled = compiled_trainer(method, spectrograms.shape[1:])
            scores[method] = np.zeros((len(speakers), seeds, len(SCORES)))
            for i, held_out in enumerate(speakers):
                test = speaker == held_out
                x = (waves if method in WAVES else spectrograms)[~test]
                for seed in range(seeds):
                    progress.update(task, description=f"{method:20} without {held_out:8} seed {seed}")
                    train(model, *compiled, x, digits[~test], seeds * i + seed, epochs)
                    scores[method][i, seed] = evaluate(model, spectrograms[test], digits[test])
                    progress.advance(task)
    return {method: values.mean(axis=1) for method, values in scores.items()}


def print_tables(console, scores, seeds, epochs):
    """The scores, and what mixing changes, speaker by speaker."""
    speakers, decimals = len(scores["none"]), (1, 2, 1)
    table = Table("method", *SCORES, caption="mean ± standard deviation over the speakers")
    table.title = f"{speakers} speakers, each held out once, {seeds} seed(s), {epochs} epochs"
    changes = Table("minus none", *SCORES, caption="mean over the speakers ± half of its 95 % interval")
    quantile = stats.t.ppf(0.975, speakers - 1)
    for method, values in scores.items():
        columns = list(zip(values.T, (values - scores["none"]).T, decimals, strict=True))
        table.add_row(method, *(f"{v.mean():.{d}f} ± {v.std(ddof=1):.{d}f}" for v, _, d in columns))
        if method != "none":
            cells = (f"{c.mean():+.{d}f} ± {quantile * stats.sem(c):.{d}f}" for _, c, d in columns)
            changes.add_row(method, *cells)
    console.print(table, changes)


def draw(data, scores, speakers, path):
    """Two recordings, mixed in all ways, and the scores speaker by speaker."""
    figure = Figure(figsize=(18, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.35])
    panels = top.subplots(1, 1 + len(METHODS), sharey=True)
    draw_mixed(top, panels, data)
    for column, (ax, name) in enumerate(zip(bottom.subplots(1, len(SCORES)), SCORES, strict=True)):
        for place, (method, values) in enumerate(scores.items()):
            shifts = np.linspace(-0.2, 0.2, len(speakers))
            style = {"color": METHODS[method], "marker": MARKERS[method], "linestyle": ""}
            ax.plot(place + shifts, values[:, column], alpha=0.7, **style)
            ax.hlines(values[:, column].mean(), place - 0.35, place + 0.35, color="black", lw=2)
        ax.set_xticks(range(len(scores)), [method.replace(", ", ",\n") for method in scores])
        ax.set(title=name, ylim=(0, 1.08 * max(values[:, column].max() for values in scores.values())))
        ax.grid(axis="y", alpha=0.3)
    bottom.suptitle(f"Held-out speakers, from the left: {', '.join(speakers)}. Line: mean. Lower is better.")
    figure.savefig(path, dpi=100)


def near_half(layer, frames):
    """The step that gives the first of two recordings a weight near 1/2, and a box, if any, well inside."""

    def distance(step):
        plan = layer.plan(step, 2, spatial_shape=(MELS, frames))
        inside = plan.box is None or (plan.box[0, 1] > frames // 5 and plan.box[0, 3] < frames - frames // 5)
        return abs(float(plan.lam[0]) - 0.5) + (not inside)

    return min(range(300), key=distance)


def draw_mixed(figure, panels, data):
    """Spectrograms of two recordings, and of their mixtures with a weight near 1/2."""
    waves, digits, _ = data
    pair = [int(np.flatnonzero(digits == digit)[0]) for digit in PAIR]
    spectrograms = spectrograms_of(waves[pair])
    pictures = {f"{name}: “{digit}”": image for name, digit, image in zip("ab", PAIR, spectrograms, strict=True)}
    frames = spectrograms.shape[2]
    for method in list(METHODS)[1:]:
        layer = mixing_of(method, pairing=kmix.pairing.RandomPairs(allow_self=False))
        step, are_waves = near_half(layer, frames), method in WAVES
        mixed, y = layer.at_step(step, (waves[pair] if are_waves else spectrograms, digits[pair]))
        title = f"{method}\n{y[0, PAIR[0]]:.2f} a + {y[0, PAIR[1]]:.2f} b"
        pictures[title] = (spectrograms_of(mixed) if are_waves else mixed)[0]
    seconds = LENGTH / RATE
    for ax, (title, picture) in zip(panels, pictures.items(), strict=True):
        extent = (0, seconds, 0, MELS)
        image = ax.imshow(20 * picture, "gray_r", origin="lower", aspect="auto", extent=extent, vmin=-30, vmax=35)
        ax.set(title=title, xlabel="seconds")
    for edge in layer.plan(step, 2, spatial_shape=(MELS, frames)).box[0, 1::2]:  # of the last method, the one that cuts
        panels[-1].axvline(edge / frames * seconds, color=METHODS["CutMix, time"], linestyle="--", lw=2)
    panels[0].set_ylabel("mel bin")
    figure.colorbar(image, ax=panels, label="dB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an archive of the recordings (default: download it)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds for each speaker (default: 1)")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of each run (default: 30)")
    parser.add_argument("--output", default="audio_digits.png", help="the picture (default: audio_digits.png)")
    parser.add_argument("--quick", action="store_true", help="2 speakers, 1 seed, 1 epoch, 2 takes")
    options = parser.parse_args()
    seeds, epochs, takes = (1, 1, 2) if options.quick else (options.seeds, options.epochs, TAKES)

    console, start = Console(), time.time()
    data = load_recordings(options.data, range(takes))
    speakers = sorted(set(data[2]))[: 2 if options.quick else None]
    scores = train_all(console, data, speakers, seeds, epochs)
    print_tables(console, scores, seeds, epochs)
    draw(data, scores, speakers, options.output)
    console.print(f"{time.time() - start:.0f} s on {keras.backend.backend()}. The picture: {options.output}")


if __name__ == "__main__":
    main()
