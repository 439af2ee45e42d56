"use strict";
// Nothing is computed here but where a point lies: each change asks the planner, and what it answers is shown.
const BOX = { left: 60, right: 850, top: 20, bottom: 370 };
// A colour and a shape for each model, so that neither is needed alone.
const SHAPES = [
  (x, y) => `M${x - 5},${y}a5,5 0 1,0 10,0a5,5 0 1,0 -10,0`,
  (x, y) => `M${x - 5},${y - 5}h10v10h-10z`,
  (x, y) => `M${x},${y - 6}l6,11h-12z`,
  (x, y) => `M${x},${y - 7}l6,7l-6,7l-6,-7z`,
];
const COLOURS = ["var(--weights)", "var(--cache)", "var(--compute)", "var(--no)"];

function drawn(name, settings, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chosenSettings() {
  return {
    memory: options.memories[byId("memory").value],
    concurrency: options.concurrencies[byId("concurrency").value],
    runtime: byId("runtime").value,
  };
}

async function ask() {
  const now = chosenSettings();
  told("memory", size(now.memory));
  told("concurrency", now.concurrency);
  await askWith("frontier", now, show);
}

function show(answer) {
  byId("headline").textContent = answer.error || `what fits into ${size(answer.limit_bytes)} in ${answer.runtime}`;
  byId("headline").className = answer.error ? "no" : "";
  const cache = byId("cache").value;
  const rows = (answer.frontier || []).filter((row) => row.on_frontier && (!cache || row.cache === cache));
  const models = answer.models || [];
  if (!answer.error) byId("model").textContent = models.join(", ");
  picture(rows, models);
  byId("host").hidden = !rows.some((row) => row.host_bytes);
  byId("rows").replaceChildren(...rows.map(line));
  byId("legend").replaceChildren(...models.map((model, place) => legend(model, place)));
}

function legend(model, place) {
  const made = element("span"), mark = drawn("svg", { viewBox: "0 0 16 16", width: 16, height: 16, class: "mark" });
  mark.append(drawn("path", { d: SHAPES[place % 4](8, 8), fill: COLOURS[place % 4] }));
  made.append(mark, ` ${model}  `);
  return made;
}

function line(row) {
  const made = element("tr");
  made.dataset.row = [row.model, row.scheme, row.cache, row.longest_context, row.total_bytes].join(" ");
  made.append(
    element("td", row.model),
    element("td", row.scheme),
    element("td", row.bits_per_weight.toFixed(2), "number"),
    element("td", row.cache),
    element("td", size(row.weights_bytes), "number"),
    element("td", row.longest_context.toLocaleString("en"), "number"),
    element("td", size(row.total_bytes), "number"),
    ...(row.host_bytes ? [element("td", size(row.host_bytes), "number")] : []),
  );
  return made;
}

function picture(rows, models) {
  const svg = byId("picture");
  svg.replaceChildren();
  if (!rows.length) return;
  const logs = rows.map((row) => Math.log2(row.longest_context));
  const least = Math.floor(Math.min(...logs)), most = Math.max(least + 1, Math.ceil(Math.max(...logs)));
  const x = (context) => BOX.left + ((Math.log2(context) - least) / (most - least)) * (BOX.right - BOX.left);
  const y = (bits) => BOX.bottom - (bits / 17) * (BOX.bottom - BOX.top);
  for (let power = least; power <= most; power += 1) {
    const at = x(2 ** power);
    svg.append(drawn("line", { x1: at, x2: at, y1: BOX.top, y2: BOX.bottom, class: "grid" }));
    svg.append(drawn("text", { x: at, y: BOX.bottom + 18, "text-anchor": "middle" }, (2 ** power).toLocaleString("en")));
  }
  for (const bits of [2, 4, 6, 8, 16]) {
    svg.append(drawn("line", { x1: BOX.left, x2: BOX.right, y1: y(bits), y2: y(bits), class: "grid" }));
    svg.append(drawn("text", { x: BOX.left - 8, y: y(bits) + 4, "text-anchor": "end" }, `${bits} bit`));
  }
  svg.append(drawn("text", { x: (BOX.left + BOX.right) / 2, y: BOX.bottom + 40, "text-anchor": "middle" }, "longest context, tokens"));
  // Models that meet in one point stand side by side.
  const apart = (place) => 13 * (place - (models.length - 1) / 2);
  for (const row of rows) {
    const place = models.indexOf(row.model);
    // A cache of fewer bits is drawn paler.
    const mark = drawn("path", {
      d: SHAPES[place % 4](x(row.longest_context) + apart(place), y(row.bits_per_weight)),
      fill: COLOURS[place % 4],
      "fill-opacity": row.cache_bits >= 16 ? 1 : row.cache_bits >= 8 ? 0.6 : 0.3,
      stroke: COLOURS[place % 4],
    });
    mark.append(drawn("title", {}, `${row.model} ${row.scheme}, cache ${row.cache}: ${row.longest_context.toLocaleString("en")} tokens, ${size(row.total_bytes)}`));
    svg.append(mark);
  }
}

async function start() {
  options = await (await fetch("options")).json();
  slide("memory", options.memories, options.memory);
  slide("concurrency", options.concurrencies, options.concurrency);
  fill("runtime", Object.keys(options.caches), options.runtime);
  const refill = () => fill("cache", ["", ...options.caches[byId("runtime").value]], "", "all types");
  refill();
  byId("runtime").addEventListener("change", refill);
  byId("settings").addEventListener("input", ask);
  await ask();
}

start();
