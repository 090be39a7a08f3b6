// Puts the page to work: reads its data and joins graph, timeline and tables.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = data.attempts;

  // --- details of the attempt that was chosen ----------------------------------------------------

  function describe(index) {
    const begun = all.started[index] >= 0;
    const lines = [
      `Superstep ${data.supersteps[all.superstep[index]][0]}` +
        (all.owner[index] !== all.node[index] ? `, stands in for ${data.nodes[all.owner[index]]}` : "") +
        (all.retry[index] ? `, retry ${all.retry[index]}` : "") +
        (all.rerun[index] ? `, run again ${all.rerun[index]} times after a lost worker` : "") +
        (all.critical[index] ? ", on the critical path" : ""),
      `At ${durationText(all.queued[index])}: ` +
        (begun
          ? `waited ${durationText(all.started[index] - all.queued[index])}, ran ${durationText(all.ended[index] - all.started[index])}`
          : `ended ${durationText(all.ended[index] - all.queued[index])} later; when it began is not known`) +
        `, on ${data.workers[all.worker[index]]}` +
        (all.batch[index] > 1 ? `, one of ${all.batch[index]} in a batch` : ""),
    ];
    const sizes = [];
    if (all.input[index] >= 0) sizes.push(`${sizeText(all.input[index])} in`);
    if (all.output[index] >= 0) sizes.push(`${sizeText(all.output[index])} out`);
    if (sizes.length) lines.push(sizes.join(", "));
    if (all.error[index]) lines.push(data.errors[all.error[index]]);
    const made = spans.count(index);
    if (made) lines.push(`${made} ${made === 1 ? "span" : "spans"} of its own code, below`);
    const title = document.createElement("p");
    const name = document.createElement("b");
    name.textContent = data.nodes[all.node[index]];
    title.append(name, ` ${outcomeText(data.outcomes[all.outcome[index]])}`);
    const text = document.createElement("p");
    text.textContent = lines.join("\n");
    byId("detail").replaceChildren(title, text);
    spans.show(index);
  }

  const spans = new Spans(byId("inside"), data);

  const timeline = new Timeline(byId("rows"), byId("slots"), data, describe);

  // --- controls of the timeline ------------------------------------------------------------------

  const acts = {
    in: () => timeline.zoom(0.6),
    out: () => timeline.zoom(1 / 0.6),
    all: () => timeline.look(0, timeline.full),
    next: () => timeline.step(true),
    previous: () => timeline.step(false),
    clear: () => showNode(null),
  };
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", acts[button.dataset.do]);
  }
  for (const radio of document.querySelectorAll("[name=rows]")) {
    radio.addEventListener("change", () => timeline.show({ by: radio.value }));
  }
  byId("only-critical").addEventListener("change", (event) => {
    timeline.show({ onlyCritical: event.target.checked });
  });
  byId("only-trouble").addEventListener("change", (event) => {
    timeline.show({ onlyTrouble: event.target.checked });
  });

  // --- one node, chosen in the graph or in the table ---------------------------------------------

  const boxes = [...document.querySelectorAll(".go-box[role=button]")];
  const rowOf = new Map([...document.querySelectorAll("#nodes-table tbody tr")].map((row) => [row.dataset.node, row]));
  let shown = null;

  function showNode(name) {
    shown = name === shown ? null : name;
    const number = data.nodes.indexOf(shown);
    timeline.show({ node: shown === null ? null : number });
    document.querySelector("[data-do=clear]").hidden = shown === null;
    for (const box of boxes) box.setAttribute("aria-pressed", String(box.dataset.node === shown));
    for (const [node, row] of rowOf) row.classList.toggle("chosen", node === shown);
    if (shown === null) return;
    const attempts = all.node.reduce((sum, n, i) => sum + (n === number || all.owner[i] === number ? 1 : 0), 0);
    byId("detail").replaceChildren();
    byId("inside").replaceChildren();
    const told = document.createElement("p");
    told.textContent = attempts
      ? `The timeline shows only ${shown}: ${attempts} attempts.`
      : `${shown} did not run.`;
    byId("detail").append(told);
  }

  for (const button of document.querySelectorAll(".pick")) {
    button.addEventListener("click", () => {
      showNode(button.dataset.node);
      if (shown !== null) byId("timeline").scrollIntoView({ block: "start" });
    });
  }
  boxes.forEach((box, at) => {
    box.setAttribute("tabindex", at === 0 ? "0" : "-1");
    box.setAttribute("aria-pressed", "false");
    box.addEventListener("click", () => showNode(box.dataset.node));
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter" || event.key === " ") showNode(box.dataset.node);
      else if (step && boxes[at + step]) {
        box.setAttribute("tabindex", "-1");
        boxes[at + step].setAttribute("tabindex", "0");
        boxes[at + step].focus();
      } else return;
      event.preventDefault();
    });
  });
  const picture = document.querySelector(".picture");
  const fit = byId("fit");
  fit.closest("p").hidden = picture.scrollWidth <= picture.clientWidth;
  fit.addEventListener("change", () => {
    picture.classList.toggle("fitted", fit.checked);
    centre();
  });
  const centre = () => {
    picture.scrollLeft = (picture.scrollWidth - picture.clientWidth) / 2;
  };
  centre();

  // --- tables, legend, links -----------------------------------------------------------------------

  for (const table of document.querySelectorAll("table")) sortable(table);
  findable(byId("nodes-table"), byId("find"), byId("found"));

  function swatch(draw) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    draw(sized(canvas, 26, 14), readColours());
    return canvas;
  }

  function drawLegend() {
    const entries = [["ok", (pen, c) => fill(pen, c.ok)]];
    for (const name of PATTERNED) {
      if (!all.outcome.includes(data.outcomes.indexOf(name))) continue;
      entries.push([
        outcomeText(name),
        (pen, c) => {
          fill(pen, hatched(pen, name, c[name], c.paper));
          pen.strokeStyle = c[name];
          pen.strokeRect(0.5, 1.5, 25, 11);
        },
      ]);
    }
    entries.push([
      "on the critical path",
      (pen, c) => {
        fill(pen, c.ok);
        pen.fillStyle = c.critical;
        pen.fillRect(0, 10, 26, 3);
      },
    ]);
    if (all.retry.some(Boolean) || all.rerun.some(Boolean)) {
      entries.push([
        "a retry",
        (pen, c) => {
          fill(pen, c.ok);
          pen.fillStyle = c.text;
          pen.beginPath();
          pen.moveTo(0, 1);
          pen.lineTo(7, 1);
          pen.lineTo(0, 8);
          pen.fill();
        },
      ]);
    }
    entries.push(["waiting", (pen, c) => {
      pen.fillStyle = c.waiting;
      pen.fillRect(0, 6, 26, 3);
    }]);
    byId("legend").replaceChildren(
      ...entries.map(([words, draw]) => {
        const entry = document.createElement("span");
        entry.append(swatch(draw), words);
        return entry;
      }),
    );
  }

  function fill(pen, style) {
    pen.fillStyle = style;
    pen.fillRect(0, 1, 26, 12);
  }

  drawLegend();
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", drawLegend);
  }
  byId("slots-text").textContent =
    `Filled: attempts that ran at one time, at most ${timeline.busy.most}` +
    (data.slots ? ` (the line: ${data.slots} slots). ` : ". ") +
    `Dashed: attempts that waited, at most ${timeline.waiting.most}, on a scale of its own.`;

  const nav = document.querySelector("nav");
  for (const section of document.querySelectorAll("main > section")) {
    const link = document.createElement("a");
    link.href = `#${section.id}`;
    link.textContent = section.querySelector("h2").firstChild.textContent.trim();
    nav.append(link);
  }

  window.graphorchReport = { data, timeline };
})();
