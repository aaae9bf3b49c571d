// The plan explorer: reads the controls, draws the plan of kmixPlan, and keeps the state in the address.
(function () {
  "use strict";

  const root = document.getElementById("explorer");
  if (!root || !globalThis.kmixPlan) return;
  const { plan: drawPlan, python } = globalThis.kmixPlan;

  const SIZE = 64; // Pixels of a small picture, and the spatial_shape of the plan.
  const STEPS = 200; // How many steps the histogram of lam counts.
  const LARGEST_WORD = 2 ** 32 - 1;
  const ALPHAS = [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 2, 5, 10];
  const DEFAULT_ALPHA = { MixUp: 0.2, CutMix: 1, Mosaic: 1, EmbeddingMixup: 0.2, RandomChoice: 0.4 };
  const DEFAULTS = { mixer: "MixUp", seed: 2730, step: 0, alpha: 0.2, batch: 6, rate: 1, per: "sample", half: 0, replica: 0 };
  const LIMITS = {
    seed: [0, LARGEST_WORD], step: [0, LARGEST_WORD], alpha: [0, 1000], batch: [1, 12], rate: [0, 1], replica: [0, 65535],
  };
  // One sample of each class. All colours stand out against white and against the dark ground.
  const CLASSES = [
    ["disc", "#2f7ed8"], ["star", "#d9730d"], ["ring", "#1f9468"], ["square", "#c2509a"],
    ["moon", "#a07f00"], ["cross", "#d6453d"], ["diamond", "#7d5bd6"], ["waves", "#16899f"],
    ["stripes", "#9a6a43"], ["dots", "#66798e"], ["triangle", "#5d921b"], ["hexagon", "#b0486b"],
  ];

  const field = (name) => root.querySelector(`[name="${name}"]`);
  const slider = (name) => root.querySelector(`[data-for="${name}"]`);
  const byId = (id) => document.getElementById(`explorer-${id}`);

  // Pictures of the page's own: arrays of RGBA, `SIZE` by `SIZE`.

  function canvas() {
    const made = document.createElement("canvas");
    made.width = made.height = SIZE;
    return made;
  }

  function tint(colour, share) {
    const part = (at) => parseInt(colour.slice(at, at + 2), 16);
    return `rgb(${[1, 3, 5].map((at) => Math.round(255 + (part(at) - 255) * share)).join(" ")})`;
  }

  function polygon(pen, points) {
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x, y));
    pen.closePath();
    pen.fill();
  }

  const around = (corners, radius, turn = -Math.PI / 2) => Array.from({ length: corners }, (_, i) => {
    const r = Array.isArray(radius) ? radius[i % radius.length] : radius;
    const angle = turn + (2 * Math.PI * i) / corners;
    return [SIZE / 2 + r * Math.cos(angle), SIZE / 2 + r * Math.sin(angle)];
  });

  function circle(pen, x, y, radius, style) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    if (style) pen.fillStyle = style;
    pen.fill();
  }

  const SHAPES = {
    disc: (pen) => circle(pen, 32, 32, 21),
    star: (pen) => polygon(pen, around(10, [25, 11])),
    ring: (pen, ground) => { circle(pen, 32, 32, 23); circle(pen, 32, 32, 12, ground); },
    square: (pen) => pen.fillRect(13, 13, 38, 38),
    moon: (pen, ground) => { circle(pen, 30, 32, 22); circle(pen, 41, 27, 18, ground); },
    cross: (pen) => { pen.fillRect(25, 9, 14, 46); pen.fillRect(9, 25, 46, 14); },
    diamond: (pen) => polygon(pen, [[32, 6], [54, 32], [32, 58], [10, 32]]),
    waves: (pen) => {
      for (let y = 9; y < 66; y += 15) {
        pen.beginPath();
        for (let x = -2; x <= 66; x += 2) pen.lineTo(x, y + 4 * Math.sin(x / 5));
        pen.stroke();
      }
    },
    stripes: (pen) => { for (let x = -64; x < 64; x += 18) polygon(pen, [[x, 64], [x + 9, 64], [x + 73, 0], [x + 64, 0]]); },
    dots: (pen) => { for (let y = 11; y < 64; y += 21) for (let x = 11; x < 64; x += 21) circle(pen, x, y, 7); },
    triangle: (pen) => polygon(pen, [[32, 9], [56, 53], [8, 53]]),
    hexagon: (pen) => polygon(pen, around(6, 24)),
  };

  function picture(index) {
    const [name, colour] = CLASSES[index];
    const pen = canvas().getContext("2d", { willReadFrequently: true });
    const ground = tint(colour, 0.28);
    pen.fillStyle = ground;
    pen.fillRect(0, 0, SIZE, SIZE);
    pen.fillStyle = pen.strokeStyle = colour;
    pen.lineWidth = 7;
    SHAPES[name](pen, ground);
    return pen.getImageData(0, 0, SIZE, SIZE).data;
  }

  // For EmbeddingMixup: 16 tokens from left to right, 8 dimensions from top to bottom; padding is 0.
  const TOKENS = 16, DIMENSIONS = 8;
  const lengthOf = (index) => 7 + ((index * 7) % 10);

  function embedding(index) {
    const colour = CLASSES[index][1];
    const pen = canvas().getContext("2d", { willReadFrequently: true });
    const wide = SIZE / TOKENS, high = SIZE / DIMENSIONS;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIZE, SIZE);
    for (let token = 0; token < lengthOf(index); token += 1) {
      for (let row = 0; row < DIMENSIONS; row += 1) {
        const noise = Math.sin((token + 1) * 12.9898 + (row + 1) * 78.233 + (index + 1) * 37.719) * 43758.5453;
        pen.fillStyle = tint(colour, 0.15 + 0.85 * (noise - Math.floor(noise)));
        pen.fillRect(token * wide, row * high, wide, high);
      }
    }
    return pen.getImageData(0, 0, SIZE, SIZE).data;
  }

  // What a plan makes of the pictures, pixel by pixel.

  function blend(pictures, plan, i) {
    const own = pictures[i], partner = pictures[plan.permutation[i]], lam = plan.lam[i];
    return own.map((value, at) => Math.round(lam * value + (1 - lam) * partner[at]));
  }

  function paste(target, source, [y0, x0, y1, x1], [dy, dx] = [0, 0]) {
    for (let y = y0; y < y1; y += 1) {
      const from = ((y - dy) * SIZE + x0 - dx) * 4;
      target.set(source.subarray(from, from + (x1 - x0) * 4), (y * SIZE + x0) * 4);
    }
    return target;
  }

  // Where the plan pastes: [source, window, shift] for each part.
  function windows(plan, i) {
    if (plan.lam[i] === 1) return [];
    if (plan.box) return [[plan.permutation[i], plan.box[i], [0, 0]]];
    if (!plan.partners) return [];
    return plan.window[i].map((window, tile) => [tile ? plan.partners[tile - 1][i] : i, window, plan.shift[i][tile]]);
  }

  function mix(pictures, plan, i) {
    if (!plan.box && !plan.partners) return blend(pictures, plan, i);
    return windows(plan, i).reduce((target, [source, window, shift]) => paste(target, pictures[source], window, shift),
      pictures[i].slice());
  }

  // The label of sample i: [[class, weight], ...], its own class first. Classes without weight are left out.
  function label(plan, i) {
    const parts = plan.partners
      ? [[i, plan.shares[0][i]], ...plan.partners.map((row, k) => [row[i], plan.shares[k + 1][i]])]
      : [[i, plan.lam[i]], [plan.permutation[i], 1 - plan.lam[i]]];
    const weights = new Map();
    parts.forEach(([source, share]) => weights.set(source, (weights.get(source) || 0) + share));
    return [...weights].filter(([, weight]) => weight > 0);
  }

  const isOwnPartner = (plan, i) => !plan.partners && plan.permutation[i] === i;

  function address(pixels, tokens) {
    const made = canvas(), pen = made.getContext("2d");
    pen.putImageData(new ImageData(pixels, SIZE, SIZE), 0, 0);
    if (tokens !== undefined && tokens < TOKENS) {
      // Padding is hatched.
      const start = (tokens * SIZE) / TOKENS;
      pen.beginPath();
      pen.rect(start, 0, SIZE - start, SIZE);
      pen.clip();
      pen.fillStyle = "#f4f4f6";
      pen.fillRect(0, 0, SIZE, SIZE);
      pen.strokeStyle = "#8b8f99";
      pen.lineWidth = 1;
      for (let x = -SIZE; x < SIZE; x += 7) {
        pen.beginPath();
        pen.moveTo(x, SIZE);
        pen.lineTo(x + SIZE, 0);
        pen.stroke();
      }
    }
    return made.toDataURL();
  }

  const samples = { picture: CLASSES.map((_, i) => picture(i)), embedding: CLASSES.map((_, i) => embedding(i)) };

  // State: what the controls show, and the address.

  let state = { ...DEFAULTS };

  function read(name, text) {
    if (name === "mixer") return text in DEFAULT_ALPHA ? text : undefined;
    if (name === "per") return text === "batch" || text === "sample" ? text : undefined;
    if (name === "half") return text === "1" ? 1 : 0;
    const [low, high] = LIMITS[name], value = Number(text);
    const whole = name === "alpha" || name === "rate" || Number.isInteger(value);
    return text.trim() !== "" && whole && low <= value && value <= high ? value : undefined;
  }

  function fromAddress() {
    const query = new URLSearchParams(location.search), given = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS)) {
      const value = query.has(name) ? read(name, query.get(name)) : undefined;
      if (value !== undefined) given[name] = value;
      else if (name === "alpha") given.alpha = DEFAULT_ALPHA[given.mixer];
    }
    return given;
  }

  let waiting = null;
  // Browsers limit how often an address may change, so a slider that is dragged writes it when it rests.
  function toAddressSoon() {
    clearTimeout(waiting);
    waiting = setTimeout(toAddress, 100);
  }

  function toAddress() {
    clearTimeout(waiting);
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      if (value !== (name === "alpha" ? DEFAULT_ALPHA[state.mixer] : DEFAULTS[name])) query.set(name, value);
    }
    const text = query.toString();
    try {
      history.replaceState(null, "", location.pathname + (text && "?" + text) + location.hash);
    } catch {
      // Some browsers refuse in pages opened from a file. The explorer works without.
    }
  }

  const nearest = (alpha) => ALPHAS.reduce((best, each, i) => (Math.abs(each - alpha) < Math.abs(ALPHAS[best] - alpha) ? i : best), 0);

  function showControls() {
    for (const name of Object.keys(DEFAULTS)) {
      const control = field(name);
      if (control.type === "checkbox") control.checked = Boolean(state[name]);
      else if (document.activeElement !== control || read(name, control.value) !== state[name]) {
        if (name === "rate" && ![...control.options].some((option) => Number(option.value) === state.rate)) {
          control.add(new Option(state.rate, state.rate));
        }
        control.value = state[name];
      }
      control.removeAttribute("aria-invalid");
    }
    slider("step").value = Math.min(state.step, 99);
    slider("alpha").value = nearest(state.alpha);
    slider("alpha").setAttribute("aria-valuetext", String(ALPHAS[nearest(state.alpha)]));
    root.querySelector("output").textContent = state.batch;
    const withoutLam = state.mixer === "Mosaic";
    for (const control of [field("alpha"), slider("alpha"), field("per"), field("half")]) control.disabled = withoutLam;
    byId("error").textContent = "";
  }

  // The layer and the call, in the names of kmix.

  function layerOf({ mixer, seed, alpha, rate, per, half }) {
    const base = { seed, ...(rate < 1 && { rate }) };
    const all = { ...base, alpha, ...(per !== "sample" && { per }), ...(half && { lam_at_least_half: true }) };
    if (mixer === "RandomChoice") return [mixer, { seed, layers: [["MixUp", all], ["CutMix", all], ["Mosaic", base]] }];
    return [mixer, mixer === "Mosaic" ? base : all];
  }

  function callOf({ mixer, step, batch, replica }) {
    const blends = mixer === "MixUp" || mixer === "EmbeddingMixup";
    return { step, batch_size: batch, replica, ...(!blends && { spatial_shape: [SIZE, SIZE] }) };
  }

  // Drawing.

  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const round = (x) => Math.round(x * 10) / 10;
  // Two digits, but never 0.00 or 1.00 for a number that is not exactly that.
  function short(x) {
    if (x === 0 || x === 1) return String(x);
    return x > 0.995 ? "> 0.99" : x < 0.005 ? "< 0.01" : x.toFixed(2);
  }

  const nameOf = (i) => (state.mixer === "EmbeddingMixup" ? `class ${"ABCDEFGHIJKL"[i]}` : CLASSES[i][0]);
  const colourOf = (i) => CLASSES[i][1];

  function arrow(from, to, colour, share, thick) {
    const [x0, y0] = from, [x1, y1] = to;
    const width = 1.2 + thick * share, head = 5 + width * 0.9, bend = (x1 - x0) * 0.45;
    const line = `M${x0} ${round(y0)}C${round(x0 + bend)} ${round(y0)} ${round(x1 - bend)} ${round(y1)} ${round(x1 - head)} ${round(y1)}`;
    const tip = `${round(x1 - head)},${round(y1 - head * 0.62)} ${x1},${round(y1)} ${round(x1 - head)},${round(y1 + head * 0.62)}`;
    return svg("g", {},
      svg("path", { d: line, fill: "none", stroke: colour, "stroke-width": round(width), "stroke-opacity": 0.75 }),
      svg("polygon", { points: tip, fill: colour }));
  }

  function outline(window, x, y, scale, colour) {
    const [y0, x0, y1, x1] = window.map((edge) => edge * scale);
    if (y1 <= y0 || x1 <= x0) return "";
    const place = { x: round(x + x0), y: round(y + y0), width: round(x1 - x0), height: round(y1 - y0), fill: "none" };
    return svg("g", {}, svg("rect", { ...place, stroke: "#fff", "stroke-width": 3 }),
      svg("rect", { ...place, stroke: colour, "stroke-width": 1.5 }));
  }

  const ruler = canvas().getContext("2d");

  // Texts, each with the number of its class, laid out in lines: [[text, class, x], ...] for each line.
  function inLines(texts, width, font) {
    ruler.font = `${font}px ${getComputedStyle(byId("plan")).fontFamily}`;
    const lines = [[]];
    let x = 0;
    for (const [content, source] of texts) {
      const wide = 12 + ruler.measureText(content).width;
      if (x > 0 && x + wide > width) {
        lines.push([]);
        x = 0;
      }
      lines[lines.length - 1].push([content, source, x]);
      x += wide + 14;
    }
    return lines;
  }

  function drawBatch(plan, width) {
    const narrow = width < 560, size = state.batch;
    const thumb = narrow ? 46 : 72, gap = narrow ? 22 : 16, top = 30, pitch = thumb + gap;
    const start = narrow ? 14 : 74;
    const arrows = narrow ? Math.max(44, Math.round(width * 0.18)) : Math.min(210, Math.round(width * 0.21));
    const second = start + thumb + arrows, bars = second + thumb + (narrow ? 12 : 24), long = Math.max(40, width - bars - 1);
    const height = top + size * pitch - gap + 4;
    const isText = state.mixer === "EmbeddingMixup";
    const pictures = samples[isText ? "embedding" : "picture"];
    const rowOf = (i) => top + i * pitch;
    const font = narrow ? 12 : 13;
    const text = (x, y, content, attributes = {}) => svg("text", { x: round(x), y: round(y), "font-size": font, ...attributes }, content);
    const image = (x, y, href) => [
      svg("image", { x, y, width: thumb, height: thumb, href }),
      svg("rect", { x, y, width: thumb, height: thumb, class: "frame" }),
    ];

    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "explorer-summary" });
    drawing.append(
      text(start + thumb / 2, 14, "Batch", { class: "strong", "text-anchor": "middle" }),
      text(second + thumb / 2, 14, "Mixed", { class: "strong", "text-anchor": "middle" }),
      text(bars, 14, narrow ? "Label weights" : "lam and label weights", { class: "strong" }));
    for (let i = 0; i < size; i += 1) {
      const y = rowOf(i);
      drawing.append(...image(start, y, address(pictures[i], isText ? lengthOf(i) : undefined)));
      if (narrow) drawing.append(text(start - 5, y + thumb / 2 + 4, i, { "text-anchor": "end" }));
      else {
        drawing.append(text(start - 10, y + thumb / 2 - 3, `sample ${i}`, { "text-anchor": "end", class: "muted", "font-size": 12 }),
          text(start - 10, y + thumb / 2 + 14, nameOf(i), { "text-anchor": "end" }));
      }
    }
    for (let i = 0; i < size; i += 1) {
      const y = rowOf(i), middle = y + thumb / 2, weights = label(plan, i);
      const row = svg("g", { class: "sample" });
      const tokens = isText
        ? Math.max(...weights.map(([source]) => lengthOf(source)))
        : undefined;
      // Arrows end below each other, in the order of their beginnings, so that they cross less.
      const ends = [...weights].sort((a, b) => a[0] - b[0]);
      ends.forEach(([source, share], place) => {
        const end = middle + (place - (ends.length - 1) / 2) * Math.min(18, thumb / ends.length);
        row.append(arrow([start + thumb + 4, rowOf(source) + thumb / 2], [second - 4, end], colourOf(source), share, narrow ? 4 : 8));
      });
      row.append(...image(second, y, address(mix(pictures, plan, i), tokens)));
      windows(plan, i).forEach(([source, window]) => row.append(outline(window, second, y, thumb / SIZE, colourOf(source))));

      const barHeight = narrow ? 12 : 16, barTop = narrow ? y + 13 : y + 24;
      let left = bars;
      row.append(text(bars, barTop - (narrow ? 4 : 7), `lam ${short(plan.lam[i])}`, { class: "strong" }));
      const remark = plan.lam[i] === 1 ? "not mixed" : isOwnPartner(plan, i) ? "its own partner" : "";
      const after = bars + (plan.lam[i] === 1 ? 42 : 66);
      if (remark) row.append(text(after, barTop - (narrow ? 4 : 7), remark, { class: "muted" }));
      row.append(svg("rect", { x: bars, y: barTop, width: long, height: barHeight, class: "rest" }));
      weights.forEach(([source, share]) => {
        row.append(svg("rect", { x: round(left), y: barTop, width: round(share * long), height: barHeight, fill: colourOf(source) }));
        left += share * long;
      });
      const named = weights.map(([source, share]) => [`${narrow && !isText ? `${source} ` : ""}${nameOf(source)} ${short(share)}`, source]);
      let lines = inLines(named, long, font);
      // Numbers of samples alone need less room.
      if (lines.length > 2) lines = inLines(weights.map(([source, share]) => [`${source}: ${short(share)}`, source]), long, font);
      lines.forEach((line, k) => line.forEach(([content, source, x]) => {
        const at = barTop + barHeight + (narrow ? 13 : 17) + k * (narrow ? 14 : 17);
        row.append(svg("rect", { x: round(bars + x), y: round(at - 8), width: 8, height: 8, fill: colourOf(source) }),
          text(bars + x + 12, at, content));
      }));
      drawing.append(row);
    }
    return drawing;
  }

  function drawMany(layer, at, plan, width) {
    const bins = width < 560 ? 20 : 40, counts = Array(bins).fill(0);
    let sum = 0, ones = 0, total = 0;
    for (let k = 0; k < STEPS; k += 1) {
      for (const lam of drawPlan(layer, { ...at, step: (at.step + k) % 2 ** 32 }).lam) {
        counts[Math.min(bins - 1, Math.floor(lam * bins))] += 1;
        sum += lam;
        ones += lam === 1;
        total += 1;
      }
    }
    const high = 110, top = 18, foot = 44, height = top + high + foot, largest = Math.max(...counts);
    const wide = (width - 2) / bins;
    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "explorer-many-title explorer-mean" });
    counts.forEach((count, i) => {
      const tall = (count / largest) * high;
      drawing.append(svg("rect", { x: round(1 + i * wide), y: round(top + high - tall), width: round(wide - 1.5), height: round(tall), class: "count" }));
    });
    drawing.append(svg("line", { x1: 0, x2: width, y1: top + high + 0.5, y2: top + high + 0.5, class: "axis" }));
    plan.lam.forEach((lam, i) => {
      const x = 1 + lam * (width - 2), y = top + high + 3;
      drawing.append(svg("polygon", { points: `${round(x)},${y} ${round(x - 5)},${y + 9} ${round(x + 5)},${y + 9}`, fill: colourOf(i) }));
    });
    [[0, "start"], [0.5, "middle"], [1, "end"]].forEach(([value, anchor]) => drawing.append(
      svg("text", { x: value * width, y: top + high + 29, "text-anchor": anchor, "font-size": 13 }, String(value))));
    const tallest = counts.indexOf(largest);
    drawing.append(svg("text", {
      x: Math.min(width, Math.max(0, (tallest + 0.5) * wide)), y: top - 5, "font-size": 13, class: "muted",
      "text-anchor": tallest < bins / 4 ? "start" : tallest > (3 * bins) / 4 ? "end" : "middle",
    }, `${((100 * largest) / total).toFixed(0)} %`));
    byId("mean").textContent = `From step ${at.step} on, the mean lam of ${total} samples is ${(sum / total).toFixed(2)}. ` +
      `${ones === 1 ? "One of them has" : `${ones || "None"} of them have`} a lam of exactly 1. The triangles are the samples of the ` +
      "picture above.";
    return drawing;
  }

  // The shortest decimal that gives the same float32, as NumPy prints it.
  function exact(x) {
    for (let digits = 1; digits < 9; digits += 1) {
      const text = x.toPrecision(digits);
      if (Math.fround(Number(text)) === Math.fround(x)) return String(Number(text));
    }
    return String(Number(x.toPrecision(9)));
  }

  function fillTable(plan) {
    const head = ["sample", "lam", plan.partners ? "partners" : "partner"], rows = [];
    if (plan.partners) head.push("shares of the partners", "centre (y, x)");
    if (plan.box) head.push("box (y0, x0, y1, x1)");
    plan.lam.forEach((lam, i) => {
      const row = [i, exact(lam)];
      if (plan.partners) {
        row.push(plan.partners.map((each) => each[i]).join(", "), plan.shares.slice(1).map((each) => exact(each[i])).join(", "),
          plan.window[i][0].slice(2).join(", "));
      } else row.push(plan.permutation[i]);
      if (plan.box) row.push(plan.box[i].join(", "));
      rows.push(row);
    });
    const line = (tag, cells) => {
      const row = document.createElement("tr");
      cells.forEach((content) => {
        const cell = document.createElement(tag);
        cell.textContent = content;
        if (tag === "th") cell.scope = "col";
        row.append(cell);
      });
      return row;
    };
    byId("table").replaceChildren(line("th", head), ...rows.map((row) => line("td", row)));
  }

  function summary(layer, plan) {
    const mixed = plan.lam.filter((_, i) => label(plan, i).some(([source]) => source !== i)).length;
    const kind = plan.choice === undefined ? state.mixer : layer[1].layers[plan.choice][0];
    const drew = plan.choice === undefined ? "" : `RandomChoice drew ${kind}, its layer ${plan.choice}. `;
    const own = plan.lam.filter((lam, i) => lam < 1 && isOwnPartner(plan, i)).length;
    const notes = {
      CutMix: "The outline is the box. ",
      Mosaic: "A Mosaic has no alpha: its centre is random. ",
      EmbeddingMixup: "Columns are tokens, and hatched ones are padding. ",
    };
    const alone = own === 0 ? "" : own === 1 ? "One sample is its own partner. " : `${own} samples are their own partners. `;
    return `Step ${state.step} mixes ${mixed} of ${plan.lam.length} samples. ${drew}${notes[kind] || ""}${alone}`;
  }

  let drawnWidth = 0;

  function draw() {
    const layer = layerOf(state), at = callOf(state), plan = drawPlan(layer, at);
    const width = Math.floor(byId("plan").clientWidth);
    drawnWidth = width;
    if (width < 50) return;
    byId("summary").textContent = summary(layer, plan);
    byId("plan").replaceChildren(drawBatch(plan, width));
    byId("code").textContent = `import kmix\n\n${python(layer, at)}\nprint(plan.lam)`;
    fillTable(plan);
    byId("many").replaceChildren(drawMany(layer, at, plan, width));
  }

  function set(change) {
    const before = state;
    state = { ...state, ...change };
    // A new mixer begins with its own default, unless alpha was chosen.
    if (change.mixer && before.alpha === DEFAULT_ALPHA[before.mixer]) state.alpha = DEFAULT_ALPHA[change.mixer];
    showControls();
    draw();
    toAddressSoon();
  }

  // Events.

  const form = root.querySelector("form");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    if (target.dataset.for === "step") set({ step: Number(target.value) });
    else if (target.dataset.for === "alpha") set({ alpha: ALPHAS[target.value] });
    else if (target.name) {
      const value = read(target.name, target.type === "checkbox" ? String(Number(target.checked)) : target.value);
      if (value !== undefined) return set({ [target.name]: value });
      const [low, high] = LIMITS[target.name];
      target.setAttribute("aria-invalid", "true");
      const name = root.querySelector(`label[for="${target.id}"]`).textContent;
      byId("error").textContent = `${name} must be ${target.name === "alpha" ? "a number" : "an integer"} from ${low} to ${high}.`;
    }
    return undefined;
  });

  let timer = null;
  const playButton = root.querySelector('[data-action="play"]');
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => set({ step: (state.step + 1) % 2 ** 32 }), 1000) : null;
    playButton.textContent = on ? "Stop" : "Play";
    playButton.setAttribute("aria-pressed", String(on));
    // Else a screen reader would read every step.
    byId("summary").setAttribute("aria-live", on ? "off" : "polite");
  }

  async function copy(button) {
    const code = byId("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      // Without the right to write to the clipboard, the code is selected, ready to be copied.
      getSelection().selectAllChildren(code);
      if (!document.execCommand("copy")) return;
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  root.addEventListener("click", ({ target }) => {
    const action = target.closest("button")?.dataset.action;
    if (action === "seed") set({ seed: Math.floor(Math.random() * 2 ** 32) });
    if (action === "play") play(timer === null);
    if (action === "copy") copy(target);
    if (action === "reset") { play(false); set({ ...DEFAULTS }); }
  });

  function restore() {
    state = fromAddress();
    if (state.per !== "sample" || state.half || state.replica) root.querySelector(".explorer-more").open = true;
    showControls();
    draw();
  }

  root.hidden = false;
  restore();
  addEventListener("popstate", restore);
  addEventListener("pagehide", toAddress);
  // Browsers fill in forms when one comes back to a page.
  addEventListener("pageshow", showControls);
  new ResizeObserver(() => {
    if (Math.floor(byId("plan").clientWidth) !== drawnWidth) draw();
  }).observe(byId("plan"));
})();
