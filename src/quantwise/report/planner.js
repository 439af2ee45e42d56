"use strict";
// What both pages of the planner do: they ask it with the settings that are chosen, and write sizes as the command does.
const byId = (id) => document.getElementById(id);
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
let options = null;
let asked = 0;

function size(bytes) {
  if (bytes === null || bytes === undefined) return "unknown";
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
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

// Only the answer to what was asked last is shown.
async function askWith(path, settings, show) {
  const number = ++asked;
  const answer = await answerTo(`${path}?${new URLSearchParams(settings)}`);
  if (number !== asked) return;
  show(answer);
  if (!answer.error) document.body.dataset.answered = JSON.stringify(settings);
}

// A slider that stands for one of some values.
function slide(id, values, now) {
  byId(id).max = values.length - 1;
  byId(id).value = values.indexOf(now);
}

function told(id, text) {
  document.querySelector(`output[for=${id}]`).textContent = text;
}

function fill(id, names, now, nothing) {
  byId(id).replaceChildren(...names.map((name) => {
    const made = element("option", name || nothing);
    made.value = name;
    made.selected = name === now;
    return made;
  }));
}
