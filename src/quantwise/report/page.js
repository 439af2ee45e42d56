"use strict";
// Two things only: sort tables by their headings, and filter the flips. Without this script the page shows everything.

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
      keyed.sort(([a], [b]) => compare(a, b, up));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function keyOf(cell) {
  if (!("sort" in cell.dataset)) return cell.textContent.trim();
  return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
}

// What is unknown stays at the end, whichever way one sorts.
function compare(a, b, up) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
  return up ? order : -order;
}

const form = document.getElementById("flip-filter");
if (form) {
  const flips = [...document.querySelectorAll("article.flip")];
  const status = document.getElementById("flip-count");
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const flip of flips) {
      const fits = ["task", "candidate", "direction"].every((key) => !wanted[key] || flip.dataset[key] === wanted[key]);
      flip.hidden = !fits;
      if (fits) shown += 1;
    }
    status.textContent = `${shown} of the ${flips.length} flips on this page`;
  };
  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

document.documentElement.dataset.ready = "yes";
