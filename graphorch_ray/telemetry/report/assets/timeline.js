// The timeline: attempts as bars on canvas, and below them the slots in use.
"use strict";

const AXIS = 26; // height of the time axis
const EDGE = 12; // room at the right
const LABEL = 11; // font size on the canvas
const CLOSEST = 20; // microseconds: as close as one can zoom
const PATTERNED = ["failed", "timeout", "infrastructure", "cancelled"];

class Timeline {
  /**
   * @param {HTMLElement} scroller Holds the canvas of the rows, and scrolls.
   * @param {HTMLCanvasElement} slots Shows slots in use over time.
   * @param {object} data What the page holds.
   * @param {(index: number) => void} onChoose Called with the attempt that was chosen.
   */
  constructor(scroller, slots, data, onChoose) {
    this.scroller = scroller;
    this.canvas = scroller.querySelector("canvas");
    this.stretch = scroller.querySelector(".stretch");
    this.slots = slots;
    this.data = data;
    this.all = data.attempts;
    this.count = this.all.queued.length;
    this.onChoose = onChoose;
    this.by = "worker";
    this.onlyCritical = false;
    this.onlyTrouble = false;
    this.node = null; // only this node's attempts
    this.chosen = -1;
    this.full = Math.max(1, data.seconds * 1e6);
    this.from = 0;
    this.to = this.full;
    const begun = [...this.all.started.keys()].filter((i) => this.all.started[i] >= 0);
    this.busy = countOver(begun.map((i) => [this.all.started[i], this.all.ended[i]]));
    this.waiting = countOver(
      [...this.all.queued.keys()].map((i) => [
        this.all.queued[i],
        this.all.started[i] >= 0 ? this.all.started[i] : this.all.ended[i],
      ]),
    );
    this.inOrder = [...this.all.queued.keys()].sort(
      (one, other) => this.begins(one) - this.begins(other) || one - other,
    );
    this.arrange();
    this.listen();
  }

  begins(index) {
    return firstDrawn(this.all, index, "worker");
  }

  // --- what is shown ---------------------------------------------------------------------------

  isShown(index) {
    const all = this.all;
    return (
      (!this.onlyCritical || all.critical[index] === 1) &&
      (!this.onlyTrouble || this.outcome(index) !== "ok") &&
      (this.node === null || all.node[index] === this.node || all.owner[index] === this.node)
    );
  }

  outcome(index) {
    return this.data.outcomes[this.all.outcome[index]];
  }

  /** Makes the rows anew after a change of what is shown. */
  arrange() {
    const { rows, height } = makeRows(this.data, this.by, (index) => this.isShown(index));
    this.rows = rows;
    this.tops = rows.map((row) => row.y);
    this.height = AXIS + height + GAP;
    this.stretch.style.height = `${this.height}px`;
    this.redraw();
  }

  show(options) {
    Object.assign(this, options);
    this.arrange();
  }

  /** Zooms about a time, by a factor below 1 to come closer. */
  zoom(factor, about = (this.from + this.to) / 2) {
    const width = Math.min(this.full, Math.max(CLOSEST, (this.to - this.from) * factor));
    const share = (about - this.from) / (this.to - this.from);
    this.look(about - share * width, width);
  }

  move(share) {
    this.look(this.from + share * (this.to - this.from), this.to - this.from);
  }

  look(from, width) {
    this.from = Math.max(0, Math.min(from, this.full - width));
    this.to = this.from + width;
    this.redraw();
  }

  choose(index, { reveal = false } = {}) {
    this.chosen = index;
    if (reveal) this.reveal(index);
    this.redraw();
    this.onChoose(index);
  }

  /** Goes to the shown attempt that begins next, or before. */
  step(forward) {
    const order = this.inOrder.filter((index) => this.isShown(index));
    if (!order.length) return;
    const at = order.indexOf(this.chosen);
    const next = at < 0 ? (forward ? 0 : order.length - 1) : at + (forward ? 1 : -1);
    if (next >= 0 && next < order.length) this.choose(order[next], { reveal: true });
  }

  reveal(index) {
    const width = this.to - this.from;
    const begins = firstDrawn(this.all, index, this.by);
    if (this.all.ended[index] < this.from || begins > this.to) {
      this.look((begins + this.all.ended[index] - width) / 2, width);
    }
    const row = this.rows.find((r) => r.tracks.some((track) => track.includes(index)));
    if (!row) return;
    const top = this.scroller.scrollTop;
    const room = this.scroller.clientHeight - AXIS;
    if (row.y < top || row.y + row.height > top + room) {
      this.scroller.scrollTop = row.y - room / 2 + row.height / 2;
    }
  }

  // --- hands and keys --------------------------------------------------------------------------

  listen() {
    this.scroller.addEventListener("scroll", () => this.redraw());
    new ResizeObserver(() => this.redraw()).observe(this.scroller);
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(query).addEventListener("change", () => this.redraw());
    }
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.zoom(Math.exp(event.deltaY * 0.002), this.timeAt(event.offsetX));
      },
      { passive: false },
    );
    let grabbed = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      grabbed = { x: event.clientX, from: this.from, moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!grabbed) {
        const over = this.attemptAt(event.offsetX, event.offsetY);
        this.canvas.title = over < 0 ? "" : this.short(over);
        return;
      }
      const shift = event.clientX - grabbed.x;
      if (Math.abs(shift) > 3) grabbed.moved = true;
      if (!grabbed.moved) return;
      this.canvas.classList.add("dragging");
      const width = this.to - this.from;
      this.look(grabbed.from - (shift / this.plot()) * width, width);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      this.canvas.classList.remove("dragging");
      if (grabbed && !grabbed.moved) {
        const index = this.attemptAt(event.offsetX, event.offsetY);
        if (index >= 0) this.choose(index);
      }
      grabbed = null;
    });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      "+": () => this.zoom(0.6),
      "=": () => this.zoom(0.6),
      "-": () => this.zoom(1 / 0.6),
      0: () => this.look(0, this.full),
      Home: () => this.look(0, this.to - this.from),
      End: () => this.look(this.full, this.to - this.from),
      ArrowLeft: () => this.move(-0.15),
      ArrowRight: () => this.move(0.15),
      n: () => this.step(true),
      p: () => this.step(false),
    };
    const act = acts[event.key] ?? acts[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // --- places ----------------------------------------------------------------------------------

  plot() {
    return Math.max(1, this.width - this.gutter - EDGE);
  }

  xOf(time) {
    return this.gutter + ((time - this.from) / (this.to - this.from)) * this.plot();
  }

  timeAt(x) {
    return this.from + ((x - this.gutter) / this.plot()) * (this.to - this.from);
  }

  attemptAt(x, y) {
    if (y < AXIS || x < this.gutter) return -1;
    const inRows = y - AXIS + this.scroller.scrollTop;
    const row = this.rows[lastNotAbove(this.tops, inRows)];
    if (!row) return -1;
    const track = row.tracks[Math.floor((inRows - row.y - GAP / 2) / row.bar)];
    if (!track) return -1;
    const slack = (2 / this.plot()) * (this.to - this.from);
    const time = this.timeAt(x);
    let best = -1;
    for (const index of track) {
      if (firstDrawn(this.all, index, this.by) - slack > time) break;
      if (this.all.ended[index] + slack >= time) best = index;
    }
    return best;
  }

  // --- drawing ---------------------------------------------------------------------------------

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  draw() {
    this.width = this.scroller.clientWidth;
    const height = Math.min(this.height, this.scroller.clientHeight || this.height);
    const context = sized(this.canvas, this.width, height);
    const colours = readColours();
    context.font = `${LABEL}px system-ui, sans-serif`;
    const widest = Math.max(40, ...this.rows.slice(0, 400).map((r) => context.measureText(r.label).width));
    this.gutter = Math.min(widest + 20, this.width * 0.28);
    this.patterns = new Map(
      PATTERNED.map((name) => [name, hatched(context, name, colours[name], colours.paper)]),
    );
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, this.width, height);
    this.drawBands(context, colours, height);
    context.save();
    context.beginPath();
    context.rect(0, AXIS, this.width, height - AXIS);
    context.clip();
    const top = this.scroller.scrollTop;
    const first = Math.max(0, lastNotAbove(this.tops, top));
    for (let at = first; at < this.rows.length && this.rows[at].y < top + height; at++) {
      this.drawRow(context, colours, this.rows[at], AXIS + this.rows[at].y - top);
    }
    context.restore();
    if (!this.rows.length) {
      context.fillStyle = colours.quiet;
      context.fillText("No attempt is like that.", this.gutter, AXIS + GAP + LABEL);
    }
    this.drawAxis(context, colours);
    this.drawSlots(colours);
  }

  drawBands(context, colours, height) {
    context.textAlign = "left";
    for (const [at, [, start, end]] of this.data.supersteps.entries()) {
      const left = Math.max(this.gutter, this.xOf(start));
      const right = Math.min(this.width - EDGE, this.xOf(end));
      if (right <= left || at % 2) continue;
      context.fillStyle = colours.band;
      context.fillRect(left, 0, right - left, height);
    }
  }

  drawRow(context, colours, row, y) {
    context.fillStyle = colours.text;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(cut(context, row.label, this.gutter - 14), this.gutter - 8, y + row.height / 2);
    context.fillStyle = colours.line;
    context.fillRect(0, y + row.height - 0.5, this.width, 0.5);
    context.save();
    context.beginPath();
    context.rect(this.gutter, y, this.plot() + 2, row.height);
    context.clip();
    for (const [at, track] of row.tracks.entries()) {
      this.drawTrack(context, colours, track, y + GAP / 2 + at * row.bar, Math.max(0.5, row.bar - (row.bar > 3 ? 1 : 0)));
    }
    context.restore();
  }

  drawTrack(context, colours, track, y, height) {
    const all = this.all;
    const right = this.gutter + this.plot();
    let merged = null; // bars thinner than a pixel, drawn as one block
    const flush = () => {
      if (!merged) return;
      context.fillStyle = colours.ok;
      context.fillRect(merged.from, y, Math.max(1, merged.to - merged.from), height);
      merged = null;
    };
    let last = -1;
    for (const index of track) {
      const before = last;
      last = index;
      const x1 = this.xOf(all.ended[index]);
      if (x1 < this.gutter) continue;
      if (firstDrawn(all, index, this.by) > this.to && this.xOf(all.queued[index]) > right) break;
      const known = all.started[index] >= 0;
      const x0 = this.xOf(known ? all.started[index] : all.queued[index]);
      const outcome = this.outcome(index);
      const plain = outcome === "ok" && !all.critical[index] && index !== this.chosen;
      if (plain && known && x1 - x0 < 1.5) {
        if (merged && x0 <= merged.to + 1) merged.to = x1;
        else {
          flush();
          this.drawWait(context, colours, index, before, x0, y, height);
          merged = { from: x0, to: x1 };
        }
        continue;
      }
      flush();
      this.drawWait(context, colours, index, before, x0, y, height);
      const width = Math.max(1, x1 - x0 - (x1 - x0 > 4 ? 0.75 : 0)); // neighbours stay apart
      context.fillStyle = outcome === "ok" ? colours.ok : (this.patterns.get(outcome) ?? colours.cancelled);
      if (known) context.fillRect(x0, y, width, height);
      else {
        context.globalAlpha = 0.55;
        context.fillRect(x0, y + height * 0.25, width, height * 0.5);
        context.globalAlpha = 1;
      }
      this.drawMarks(context, colours, index, outcome, x0, y, width, height);
    }
    flush();
  }

  /** The time an attempt waited: a thin line up to its bar; dotted where it waited to be retried. */
  drawWait(context, colours, index, last, x0, y, height) {
    const all = this.all;
    const floor = last >= 0 ? this.xOf(all.ended[last]) : -Infinity;
    const queued = Math.max(floor, this.xOf(all.queued[index]));
    if (x0 - queued > 1) {
      context.fillStyle = index === this.chosen ? colours.text : colours.waiting;
      context.fillRect(queued, y + height * 0.4, x0 - queued, Math.max(1, height * 0.2));
    }
    const same =
      last >= 0 &&
      all.execution[last] === all.execution[index] &&
      all.superstep[last] === all.superstep[index];
    if (same && queued - floor > 2) {
      context.fillStyle = colours.failed;
      for (let x = floor + 2; x < queued - 1; x += 5) context.fillRect(x, y + height * 0.45, 2, 2);
    }
  }

  drawMarks(context, colours, index, outcome, x0, y, width, height) {
    const all = this.all;
    if (outcome !== "ok" && width > 3 && height > 4) {
      context.strokeStyle = colours[outcome] ?? colours.cancelled;
      context.lineWidth = 1;
      context.strokeRect(x0 + 0.5, y + 0.5, width - 1, height - 1);
    }
    if (all.critical[index]) {
      context.fillStyle = colours.critical;
      context.fillRect(x0, y + height - Math.min(3, height), Math.max(width, 2), Math.min(3, height));
    }
    if ((all.retry[index] || all.rerun[index]) && width > 7 && height > 6) {
      context.fillStyle = colours.text;
      context.beginPath();
      context.moveTo(x0, y);
      context.lineTo(x0 + 6, y);
      context.lineTo(x0, y + 6);
      context.fill();
    }
    if (index === this.chosen) {
      context.strokeStyle = colours.text;
      context.lineWidth = 2;
      context.strokeRect(x0 - 1, y - 1, width + 2, height + 2);
    }
    if (width > 36 && height > 9) {
      const name =
        this.by === "worker"
          ? this.data.nodes[all.node[index]]
          : durationText(all.ended[index] - Math.max(all.started[index], all.queued[index]));
      const middle = y + (height - (all.critical[index] ? 3 : 0)) / 2 + 0.5;
      context.fillStyle = outcome === "ok" ? colours.inBar : colours.text;
      context.textAlign = "left";
      context.textBaseline = "middle";
      const text = cut(context, name, width - 12);
      if (outcome !== "ok") {
        context.fillStyle = colours.paper;
        context.fillRect(x0 + 6, y + 1.5, context.measureText(text).width + 4, height - 4);
        context.fillStyle = colours.text;
      }
      context.fillText(text, x0 + 8, middle);
    }
  }

  drawAxis(context, colours) {
    context.fillStyle = colours.quiet;
    context.textBaseline = "middle";
    context.textAlign = "center";
    for (const time of ticks(this.from, this.to, this.plot() / 90)) {
      const x = this.xOf(time);
      context.fillStyle = colours.line;
      context.fillRect(x, AXIS - 5, 1, 5);
      context.fillStyle = colours.quiet;
      if (x > this.gutter + 8) context.fillText(timeText(time, this.to - this.from), Math.min(x, this.width - 22), AXIS / 2);
    }
    context.fillStyle = colours.line;
    context.fillRect(0, AXIS - 0.5, this.width, 0.5);
    context.fillRect(this.gutter, 0, 0.5, context.canvas.clientHeight || 10000);
  }

  drawSlots(colours) {
    const height = this.slots.clientHeight;
    const context = sized(this.slots, this.slots.clientWidth, height);
    context.font = `${LABEL}px system-ui, sans-serif`;
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, this.width + 4, height);
    const most = Math.max(this.busy.most, this.data.slots || 0, 1);
    const floor = height - 6;
    const up = (count, scale) => floor - (count / scale) * (height - 22);
    const area = stepLine(this, this.busy, (count) => up(count, most));
    context.fillStyle = colours.ok;
    context.beginPath();
    context.moveTo(this.gutter, floor);
    for (const [x, y] of area) context.lineTo(x, y);
    context.lineTo(this.gutter + this.plot(), floor);
    context.fill();
    const peak = Math.max(this.waiting.most, 1);
    context.strokeStyle = colours.timeout;
    context.lineWidth = 1.5;
    context.setLineDash([5, 3]);
    context.beginPath();
    for (const [x, y] of stepLine(this, this.waiting, (count) => up(count, peak))) context.lineTo(x, y);
    context.stroke();
    context.setLineDash([]);
    if (this.data.slots) {
      context.fillStyle = colours.text;
      context.fillRect(this.gutter, up(this.data.slots, most), this.plot(), 1);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillStyle = colours.text;
    context.fillText(`${most} slots`, this.gutter - 8, up(most, most));
    context.fillText("0", this.gutter - 8, floor - 2);
    context.textAlign = "left";
  }

  // --- words -----------------------------------------------------------------------------------

  short(index) {
    const all = this.all;
    const begun = all.started[index] >= 0;
    const ran = begun ? durationText(all.ended[index] - all.started[index]) : "beginning not known";
    return `${this.data.nodes[all.node[index]]}: ${outcomeText(this.outcome(index))}, ${ran}`;
  }
}

// --- helpers -------------------------------------------------------------------------------------

/** Sizes a canvas for the screen's pixels and returns its context, in CSS pixels. */
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const across = Math.round(width * ratio);
  const down = Math.round(height * ratio);
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
  }
  if (canvas.id !== "slots") {
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = [
    ...["paper", "line", "text", "quiet", "band", "ok", "failed", "timeout"],
    ...["infrastructure", "cancelled", "waiting", "critical"],
  ];
  const colours = Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
  colours.inBar = colours.text;
  return colours;
}

/** A pattern of its own for each outcome, so that none is told by colour alone. */
function hatched(context, name, colour, paper) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.fillStyle = paper;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2.5;
  pen.beginPath();
  if (name === "failed" || name === "timeout") {
    const [a, b] = name === "failed" ? [0, 8] : [8, 0];
    for (const shift of [-8, 0, 8]) {
      pen.moveTo(shift - 2, a === 0 ? 10 : -2);
      pen.lineTo(shift + 10, b === 8 ? -2 : 10);
    }
    pen.stroke();
  } else if (name === "infrastructure") {
    pen.fillRect(1, 1, 3, 3);
    pen.fillRect(5, 5, 3, 3);
  } else {
    pen.lineWidth = 1;
    pen.strokeRect(-1, 3.5, 10, 1);
  }
  return context.createPattern(tile, "repeat");
}

/** Points of a line that steps, at most a few for each pixel; the highest of a pixel counts. */
function stepLine(view, { times, counts }, up) {
  const points = [];
  const right = view.gutter + view.plot();
  let at = lastNotAbove(times, view.from);
  let count = at < 0 ? 0 : counts[at];
  points.push([view.gutter, up(count)]);
  for (at++; at < times.length && times[at] <= view.to; ) {
    const pixel = Math.floor(view.xOf(times[at]));
    let highest = counts[at];
    points.push([pixel, up(count)]);
    while (at < times.length && times[at] <= view.to && Math.floor(view.xOf(times[at])) === pixel) {
      count = counts[at++];
      highest = Math.max(highest, count);
    }
    if (highest !== count) points.push([pixel, up(highest)], [pixel + 1, up(highest)]);
    points.push([Math.min(right, pixel + (highest !== count ? 1 : 0)), up(count)]);
  }
  points.push([right, up(count)]);
  return points;
}

/** Round times between two, about as many as asked for. */
function ticks(from, to, about) {
  const rough = (to - from) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) found.push(time);
  return found;
}

function timeText(micros, span) {
  if (span > 120e6) return `${Math.floor(micros / 60e6)}:${String(Math.round(micros / 1e6) % 60).padStart(2, "0")}`;
  if (span > 20e3) return `${+(micros / 1e6).toFixed(3)} s`;
  return `${+(micros / 1e3).toFixed(2)} ms`;
}

function durationText(micros) {
  if (micros >= 60e6) return `${Math.floor(micros / 60e6)} min ${Math.round((micros % 60e6) / 1e6)} s`;
  if (micros >= 1e6) return `${+(micros / 1e6).toPrecision(3)} s`;
  if (micros >= 1e3) return `${+(micros / 1e3).toPrecision(3)} ms`;
  return `${micros} µs`;
}

function sizeText(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB"]) {
    if (value < 1024) return `${+value.toPrecision(3)} ${unit}`;
    value /= 1024;
  }
  return `${+value.toPrecision(3)} GiB`;
}

function outcomeText(outcome) {
  const words = { timeout: "timed out", infrastructure: "lost with its worker" };
  return words[outcome] ?? outcome;
}

function cut(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let keep = Math.max(0, Math.floor((text.length * width) / context.measureText(text).width) - 1);
  while (keep > 0 && context.measureText(`${text.slice(0, keep)}…`).width > width) keep--;
  return keep > 0 ? `${text.slice(0, keep)}…` : "";
}
