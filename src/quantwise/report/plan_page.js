"use strict";
// Nothing is computed here: each change asks the planner, and what it answers is shown.
const byId = (id) => document.getElementById(id);
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const WORDS = { yes: "fits", marginal: "may fit", no: "does not fit", unknown: "unknown" };
let options = null;
let asked = 0;

function size(bytes) {
  if (bytes === null || bytes === undefined) return "unknown";
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

function range(pair) {
  if (!pair) return "unknown";
  const [low, high] = pair.map((v) => (v >= 10 ? Math.round(v).toLocaleString("en") : v.toFixed(1)));
  return low === high ? low : `${low}–${high}`;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function chosenSettings() {
  return {
    context: options.contexts[byId("context").value],
    concurrency: options.concurrencies[byId("concurrency").value],
    gpu_layers: byId("gpu_layers").value,
    cache: byId("cache").value,
    runtime: byId("runtime").value,
    site: byId("site").value,
    scheme: byId("scheme").value,
  };
}

function showOutputs() {
  const now = chosenSettings();
  for (const name of ["context", "concurrency", "gpu_layers"]) {
    document.querySelector(`output[for=${name}]`).textContent = Number(now[name]).toLocaleString("en");
  }
}

// What the planner answers, or why it does not: numbers of other settings must not stay.
async function answerTo(path) {
  try {
    const reply = await fetch(path);
    return reply.ok ? await reply.json() : { error: `the planner refused: ${await reply.text()}` };
  } catch {
    return { error: "the planner does not answer: start quantwise plan --open again" };
  }
}

async function ask() {
  showOutputs();
  const number = ++asked;
  const answer = await answerTo(`plan?${new URLSearchParams(chosenSettings())}`);
  if (number === asked) show(answer);
}

function show(answer) {
  const headline = byId("headline");
  if (answer.error) {
    headline.textContent = answer.error;
    headline.className = "no";
    byId("candidates").replaceChildren();
    byId("more").replaceChildren();
    return;
  }
  byId("model").textContent = `${answer.model} · ${answer.runtime} at ${answer.site}`;
  headline.textContent = `${answer.candidate}: ${WORDS[answer.fits]}, ${size(answer.total_bytes)} of ${size(answer.limit_bytes)}`;
  headline.className = answer.fits;
  byId("candidates").replaceChildren(...answer.candidates.map((row) => line(row, answer)));
  byId("more").replaceChildren(...more(answer));
  document.body.dataset.answered = JSON.stringify(chosenSettings());
}

function line(row, answer) {
  const made = element("tr", undefined, row.candidate === answer.candidate ? "chosen" : "");
  made.dataset.total = row.total_bytes;
  made.dataset.candidate = row.candidate;
  made.append(
    element("td", row.scheme),
    element("td", row.bits_per_weight.toFixed(2), "number"),
    element("td", size(row.weights_bytes), "number"),
    element("td", size(row.kv_cache_bytes), "number"),
    element("td", size(row.total_bytes), "number"),
  );
  const cell = element("td"), bar = element("div", undefined, "bar");
  const limit = row.limit_bytes || row.total_bytes || row.total_bytes_at_least;
  const parts = { weights: row.weights_bytes, cache: row.kv_cache_bytes, compute: row.compute_bytes ? row.compute_bytes[1] : 0, overhead: row.overhead_bytes };
  for (const [name, bytes] of Object.entries(parts)) {
    const part = element("span", undefined, name);
    part.style.width = `${Math.min(100, (100 * bytes) / limit)}%`;
    part.style.flexShrink = 0;
    part.title = `${name} ${size(bytes)}`;
    bar.append(part);
  }
  cell.append(bar);
  made.append(cell, element("td", WORDS[row.fits], row.fits), element("td", row.fits === "no" ? "" : range(row.decode_tokens_per_s), "number"));
  return made;
}

function list(title, items) {
  if (!items.length) return [];
  const made = element("ul");
  made.append(...items.map((item) => element("li", item)));
  return [element("h2", title), made];
}

function offload(answer) {
  const told = answer.candidates.filter((row) => row.most_on_gpu)
    .map((row) => `${row.scheme}: ${row.most_on_gpu.gpu_layers} of ${row.most_on_gpu.of} layers fit on the GPU`);
  const host = answer.host;
  if (host) told.unshift(`${host.name || "the host"} holds ${size(host.bytes[1])}; ${size(answer.bus_bytes_per_token)} over the bus for a token`);
  return told;
}

function costs(cost) {
  const told = [];
  if (cost.decode_dollars_per_million_tokens) told.push(`a million tokens: ${range(cost.decode_dollars_per_million_tokens)} US dollars`);
  if (cost.decode_joules_per_token) told.push(`a token: at most ${range(cost.decode_joules_per_token)} J`);
  return told.length ? told : ["unknown"];
}

function more(answer) {
  const fixes = answer.candidates.flatMap((row) => row.fixes.map((fix) => `${row.scheme}: ${fix.what}`));
  const held = answer.concurrency;
  return [
    ...list("What would make it fit", fixes),
    ...list("Requests at a time", held ? [`${held.theoretical} have room beside ${answer.candidate}; promise ${held.promised}`] : []),
    ...list("The cache if", answer.what_if.map((one) => `${one.change}: ${size(one.kv_cache_bytes)}`)),
    ...list("Why", answer.failure ? [`${answer.failure.case}: quantwise advise --failure ${answer.failure.name}`] : []),
    ...list("Between GPU and processor", offload(answer)),
    ...list("Each of several GPUs", answer.devices ? answer.devices.stages.map((one) => `${one.layers} layers: ${size(one.total_bytes[1])}`) : []),
    ...list("Costs", costs(answer.cost)),
    ...list("Not planned", Object.entries(answer.refused).map(([name, why]) => `${name}: ${why}`)),
    ...list("Notes", answer.notes),
  ];
}

function fill(id, names, now) {
  byId(id).replaceChildren(...names.map((name) => {
    const made = element("option", name || "the usual ones");
    made.value = name;
    made.selected = name === now;
    return made;
  }));
}

async function start() {
  options = await (await fetch("options")).json();
  byId("context").max = options.contexts.length - 1;
  byId("context").value = options.contexts.indexOf(options.context);
  byId("concurrency").max = options.concurrencies.length - 1;
  byId("concurrency").value = options.concurrencies.indexOf(options.concurrency);
  byId("gpu_layers").max = options.layers;
  byId("gpu_layers").value = options.gpu_layers;
  fill("runtime", Object.keys(options.caches), options.runtime);
  fill("site", options.sites, options.site);
  const refill = () => {
    const runtime = byId("runtime").value;
    fill("cache", options.caches[runtime], options.cache);
    fill("scheme", ["", ...options.schemes[runtime]], options.scheme);
  };
  refill();
  byId("runtime").addEventListener("change", refill);
  byId("settings").addEventListener("input", ask);
  await ask();
}

start();
