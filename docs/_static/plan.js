// The plans of kmix in plain JavaScript: the same numbers as `layer.plan(...)` in Python.
//
//     kmixPlan.plan(["MixUp", { alpha: 0.2, seed: 1 }], { step: 0, batch_size: 4 })
//
// Layers, settings and results have the names that they have in Python. tests/test_plan_js.py compares the results with
// those of kmix. The file needs no page: any JavaScript engine runs it.
(function () {
  "use strict";

  const f32 = Math.fround;
  const STREAMS = { MixUp: 0, CutMix: 16, EmbeddingMixup: 32, RandomChoice: 48, MixTrainer: 64, Mosaic: 80 };
  const DEFAULT_ALPHA = { MixUp: 0.2, CutMix: 1, EmbeddingMixup: 0.2 };
  // Rows of the streams of a mixer with lam: four for lam, one for `rate`, one for the partners, then the boxes.
  const LAM_ROWS = 4, RATE = 4, PARTNERS = 5, OWN = 6;
  const GOLDEN = 0x9e3779b9;

  // Words: 32 bits, without a sign. JavaScript's bitwise operations return signed ones, so `>>> 0` follows them.

  const add = (a, b) => (a + b) >>> 0;
  const xor = (a, b) => (a ^ b) >>> 0;

  function hash(word) {
    word = Math.imul(word ^ (word >>> 16), 0x7feb352d);
    word = Math.imul(word ^ (word >>> 15), 0x846ca68b);
    return xor(word, word >>> 16);
  }

  function key(seed, step) {
    const k0 = hash(xor(step % 2 ** 32, hash(seed)));
    return [k0, hash(xor(seed, hash(add(k0, GOLDEN))))];
  }

  // `streams` rows of `n` random words.
  function bits(seed, step, first, streams, n, replica) {
    const [k0, k1] = key(seed, step);
    return Array.from({ length: streams }, (_, row) => {
      const salt = hash(add(Math.imul(row + first + replica * 0x10000, GOLDEN), k1));
      return Array.from({ length: n }, (_, position) => hash(xor(salt, hash(add(position, k0)))));
    });
  }

  // A word to a float32 strictly inside (0, 1). All operations are exact.
  const uniform = (word) => ((word >>> 9) + 0.5) * 2 ** -23;

  // Beta(alpha, alpha) from four uniforms, each operation rounded to float32 as in Python. What remains is the last
  // bit of logarithms, exponentials, sines and cosines, which differs between processors as well.
  function symmetricBeta([u0, u1, u2, u3], given) {
    given = f32(given);
    if (!(given > 0)) return given === 0 ? 1 : NaN;
    const alpha = Math.max(given, f32(1e-30));
    const logRadius = f32(f32(2 / f32(f32(2 * alpha) + 1)) * f32(Math.log(u0)));
    const radius = f32(Math.sqrt(f32(-Math.expm1(logRadius))));
    const half = f32(f32(0.5 * Math.PI) * u1);
    const rest = f32(f32(Math.exp(logRadius)) / f32(1 + radius));
    const above = f32(rest + f32(f32(2 * radius) * f32(f32(Math.cos(half)) ** 2)));
    const below = f32(rest + f32(f32(2 * radius) * f32(f32(Math.sin(half)) ** 2)));
    const boost = f32(f32(Math.log(f32(u2 / u3))) / alpha);
    const logit = f32(f32(Math.log(f32(above / below))) + boost);
    return f32(1 / f32(1 + f32(Math.exp(-logit))));
  }

  // Words never tie within a stream, so the order is unique.
  const argsort = (words) => words.map((_, i) => i).sort((a, b) => words[a] - words[b]);

  function drawLam(settings, stream, at, own) {
    const { per = "sample", rate = 1, lam_at_least_half: atLeastHalf = false } = settings;
    const words = bits(settings.seed, at.step, stream, OWN + own, at.batch_size, at.replica);
    // With per="batch", the draw of the first sample applies to all.
    const u = words.map((row) => row.map((word, i) => uniform(per === "batch" ? row[0] : word)));
    const lam = u[0].map((_, i) => {
      if (!(u[RATE][i] < f32(rate)) && rate !== 1) return 1;
      const drawn = symmetricBeta(u.slice(0, LAM_ROWS).map((row) => row[i]), settings.alpha);
      return atLeastHalf ? Math.max(drawn, f32(1 - drawn)) : drawn;
    });
    return { lam, permutation: argsort(words[PARTNERS]), centres: u.slice(OWN) };
  }

  function drawMixup(settings, stream, at) {
    const { lam, permutation } = drawLam(settings, stream, at, 0);
    return { lam, permutation };
  }

  // Boxes with 1 - lam of the area around uniform centres, clipped at the borders; lam is the share of the pixels kept.
  function drawCutmix(settings, at) {
    const sizes = at.spatial_shape;
    const { lam, permutation, centres } = drawLam(settings, STREAMS.CutMix, at, sizes.length);
    const drawn = lam.map((share, i) => {
      if (Number.isNaN(share)) return { box: sizes.concat(sizes).fill(0), kept: NaN };
      const edge = f32(f32(Math.pow(f32(1 - share), f32(1 / sizes.length))) * f32(1 + 1e-6));
      const starts = [], stops = [];
      let removed = 1;
      sizes.forEach((size, axis) => {
        const centre = Math.floor(f32(centres[axis][i] * size));
        const half = Math.floor(Math.floor(f32(edge * size)) / 2);
        starts.push(Math.max(centre - half, 0));
        stops.push(Math.min(centre + half, size));
        removed = f32(removed * f32((stops[axis] - starts[axis]) / size));
      });
      return { box: starts.concat(stops), kept: f32(1 - removed) };
    });
    return { lam: drawn.map((each) => each.kept), permutation, box: drawn.map((each) => each.box) };
  }

  // Four images around a centre in the middle half of each axis: top left the sample, then its partners, row by row.
  function drawMosaic(settings, at) {
    const [height, width] = at.spatial_shape;
    const { rate = 1 } = settings;
    const words = bits(settings.seed, at.step, STREAMS.Mosaic, 6, at.batch_size, at.replica);
    const partners = words.slice(3).map(argsort);
    const centre = (word, size) => Math.floor(f32(f32(f32(0.25 + f32(0.5 * uniform(word))) * size) + 0.5));
    const tiles = words[0].map((_, i) => {
      const mixed = rate === 1 || uniform(words[2][i]) < f32(rate);
      const row = mixed ? centre(words[0][i], height) : height;
      const column = mixed ? centre(words[1][i], width) : width;
      const rows = [[row - height, 0, row], [row, row, height]];
      const columns = [[column - width, 0, column], [column, column, width]];
      return rows.flatMap((y) => columns.map((x) => ({
        shift: [y[0], x[0]],
        window: [y[1], x[1], y[2], x[2]],
        share: f32(((y[2] - y[1]) * (x[2] - x[1])) / (height * width)),
      })));
    });
    const shares = [0, 1, 2, 3].map((tile) => tiles.map((each) => each[tile].share));
    return {
      lam: shares[0],
      permutation: partners[0],
      partners,
      shares,
      shift: tiles.map((each) => each.map((tile) => tile.shift)),
      window: tiles.map((each) => each.map((tile) => tile.window)),
    };
  }

  // The index of one of several branches, with probabilities in this proportion.
  function drawChoice(seed, step, probabilities, stream) {
    const u = uniform(bits(seed, step, stream, 1, 1, 0)[0][0]);
    const total = probabilities.reduce((sum, each) => sum + each, 0);
    let below = 0, index = 0;
    for (const probability of probabilities.slice(0, -1)) {
      below += probability;
      index += u > f32(below / total) ? 1 : 0;
    }
    return index;
  }

  function depthOf([name, settings]) {
    return name === "RandomChoice" ? 1 + Math.max(...settings.layers.map(depthOf)) : 0;
  }

  function draw([name, given], at) {
    const seed = at.seed === undefined ? given.seed : at.seed;
    const settings = { alpha: DEFAULT_ALPHA[name], ...given, seed };
    if (name === "MixUp" || name === "EmbeddingMixup") return drawMixup(settings, STREAMS[name], at);
    if (name === "CutMix") return drawCutmix(settings, at);
    if (name === "Mosaic") return drawMosaic(settings, at);
    if (name !== "RandomChoice") throw new TypeError(`kmix has no mixer ${name}.`);
    const { layers, probabilities } = settings;
    const parts = probabilities || layers.map(() => 1);
    const sum = parts.reduce((total, each) => total + each, 0);
    const scaled = parts.map((each) => each / sum);
    const choice = drawChoice(seed, at.step, scaled, STREAMS.RandomChoice + depthOf([name, settings]) - 1);
    return { ...draw(layers[choice], at), choice };
  }

  /**
   * The plan of one step.
   *
   * @param layer - [name, settings]; a RandomChoice has `layers` and `probabilities` among its settings.
   * @param at - `step` and `batch_size`; `replica` (0 by default); `spatial_shape`, which CutMix and Mosaic need;
   *     `seed` and `places`, as a MixTrainer sets them: its own seed, and the number of its places.
   * @returns What a plan has in Python, as arrays of numbers. The region of a Mosaic is `shift` and `window`.
   */
  function plan(layer, at) {
    const drawn = draw(layer, { replica: 0, ...at });
    if (!at.places) return drawn;
    const seed = at.seed === undefined ? layer[1].seed : at.seed;
    const even = Array.from({ length: at.places }, () => 1);
    return { ...drawn, place: drawChoice(seed, at.step, even, STREAMS.MixTrainer) };
  }

  // The same plan in Python.

  const number = (x) => (Number.isInteger(x) && Math.abs(x) < 1e16 ? x + ".0" : String(x));

  function construct([name, settings], indent) {
    const { seed, alpha, per, rate, lam_at_least_half: atLeastHalf, layers, probabilities } = settings;
    const inner = indent + "    ";
    const own = layers
      ? [`[\n${layers.map((each) => `${inner}${construct(each, inner)},\n`).join("")}${indent}]`]
      : alpha === undefined ? [] : [number(alpha)];
    if (probabilities) own.push(`probabilities=[${probabilities.map(number).join(", ")}]`);
    if (per !== undefined && per !== "sample") own.push(`per="${per}"`);
    if (rate !== undefined && rate !== 1) own.push(`rate=${number(rate)}`);
    if (atLeastHalf) own.push("lam_at_least_half=True");
    own.push(`seed=${seed}`);
    return `kmix.${name}(${own.join(", ")})`;
  }

  /** The line of Python that draws this plan. */
  function python(layer, at) {
    const given = [`step=${at.step}`, `batch_size=${at.batch_size}`];
    if (at.replica) given.push(`replica=${at.replica}`);
    if (at.spatial_shape) given.push(`spatial_shape=(${at.spatial_shape.join(", ")}${at.spatial_shape[1] ? "" : ","})`);
    const first = `layer = ${construct(layer, "")}`;
    let call = `plan = layer.plan(${given.join(", ")})`;
    if (call.length > 79) call = `plan = layer.plan(\n    ${given.join(", ")}\n)`;
    return `${first}\n${call}`;
  }

  globalThis.kmixPlan = { plan, python };
})();
