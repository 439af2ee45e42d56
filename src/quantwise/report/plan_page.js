"use strict";
// Nothing is computed here: each change asks the planner, and what it answers is shown.
const WORDS = { yes: "fits", marginal: "may fit", no: "does not fit", unknown: "unknown" };

function range(pair) {
  if (!pair) return "unknown";
  const [low, high] = pair.map((v) => (v >= 10 ? Math.round(v).toLocaleString("en") : v.toFixed(1)));
  return low === high ? low : `${low}–${high}`;
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

async function ask() {
  const now = chosenSettings();
  byId("gpu_layers").disabled = now.runtime !== "llamacpp" || options.processors.includes(now.site);
  for (const name of ["context", "concurrency", "gpu_layers"]) told(name, Number(now[name]).toLocaleString("en"));
  await askWith("plan", now, show);
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
  headline.textContent = answer.headline;
  headline.className = answer.fits;
  byId("candidates").replaceChildren(...answer.candidates.map((row) => line(row, answer)));
  byId("more").replaceChildren(...more(answer));
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
  const lines = answer.candidates.filter((row) => row.most_on_gpu)
    .map(({ scheme, most_on_gpu: most }) => {
      const ways = most.gpu_layers ? [`${most.gpu_layers} of ${most.of}`] : [];
      if (most.experts_on_cpu) ways.push(`all, with --experts-on-cpu ${most.experts_on_cpu}`);
      return `${scheme}: ${ways.join(" or ")} layers fit on the GPU`;
    });
  const host = answer.host;
  if (host) lines.unshift(`${host.name || "the host"} holds ${size(host.bytes[1])}; ${size(answer.bus_bytes_per_token)} over the bus for a token`);
  return lines;
}

function fewerBits(found) {
  return found && found.gains.length ? [`with ${found.candidate} ${found.gains.join("; ")}`] : [];
}

function costs(cost) {
  const lines = [];
  if (cost.decode_dollars_per_million_tokens) lines.push(`a million tokens: ${range(cost.decode_dollars_per_million_tokens)} US dollars`);
  if (cost.decode_joules_per_token) lines.push(`a token: at most ${range(cost.decode_joules_per_token)} J`);
  return lines.length ? lines : ["unknown"];
}

function refused(answer) {
  return Object.entries(answer.refused).map(([name, why]) => {
    const instead = answer.refused_fixes[name].map((fix) => fix.what);
    return `${name}: ${why}${instead.length ? `; instead: ${instead.join(" or ")}` : ""}`;
  });
}

function more(answer) {
  const fixes = answer.candidates.flatMap((row) => row.fixes.map((fix) => `${row.scheme}: ${fix.what}`));
  const held = answer.concurrency;
  return [
    ...list("What would make it fit", fixes),
    ...list("Requests at a time", held ? [`${held.theoretical} have room beside ${answer.candidate}; promise ${held.promised}`] : []),
    ...list("Faster with fewer bits", fewerBits(answer.fewer_bits)),
    ...list("The cache if", answer.what_if.map((one) => `${one.change}: ${size(one.kv_cache_bytes)}`)),
    ...list("Why", answer.failure ? [`${answer.failure.case}: quantwise advise --failure ${answer.failure.name}`] : []),
    ...list("Between GPU and processor", offload(answer)),
    ...list("Each of several GPUs", answer.devices ? answer.devices.stages.map((one) => `${one.layers} layers: ${size(one.total_bytes[1])}`) : []),
    ...list("Costs", costs(answer.cost)),
    ...list("Not planned", refused(answer)),
    ...list("Notes", answer.notes),
  ];
}

async function start() {
  options = await (await fetch("options")).json();
  slide("context", options.contexts, options.context);
  slide("concurrency", options.concurrencies, options.concurrency);
  byId("gpu_layers").max = options.layers;
  byId("gpu_layers").value = options.gpu_layers;
  fill("runtime", Object.keys(options.caches), options.runtime);
  fill("site", options.sites, options.site);
  const refill = () => {
    const runtime = byId("runtime").value;
    fill("cache", options.caches[runtime], options.cache);
    fill("scheme", ["", ...options.schemes[runtime]], options.scheme, "the usual ones");
  };
  refill();
  byId("runtime").addEventListener("change", refill);
  byId("settings").addEventListener("input", ask);
  await ask();
}

start();
