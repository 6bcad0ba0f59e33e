"use strict";

// Figures are drawn when they come near the window, and the others one by one while the browser has nothing else to do:
// a page can be read before its figures are there, and can be printed whole.
//
// A figure carries two arrangements of its panels, as patches with dotted keys: for a wide page and for a telephone.
const NARROW = 600; // pixels
const PAPER = 680; // the width of a printed page
const AHEAD = "100% 0px"; // how far beyond the window a figure is near: one window, above and below

const waiting = new Set(document.querySelectorAll(".plot")); // in the order of the page
const plots = []; // functions of a width
let library; // of figures, once it is asked for
let unfinished = waiting.size;

// The library stands in the page compressed; the page's policy lets it run by the hash of its text.
async function load() {
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
}

function arrange(layout, patch) {
  for (const [key, value] of Object.entries(patch)) {
    const path = key.split(".");
    const last = path.pop();
    let target = layout;
    for (const part of path) target = target[part] = target[part] || {};
    target[last] = value;
  }
}

const patch = (layout, width) => ({ width, ...layout.meta?.[width < NARROW ? "narrow" : "wide"] });

function read(div, width) {
  const figure = JSON.parse(div.nextElementSibling.textContent);
  arrange(figure.layout, patch(figure.layout, width));
  return figure;
}

async function draw(div, width) {
  const { data, layout } = read(div, width);
  let drawn = width;
  const fit = (next) => {
    if (!next || next === drawn) return;
    drawn = next;
    Plotly.relayout(div, patch(layout, next));
    div.style.height = `${div.layout.height}px`;
  };
  div.replaceChildren();
  div.style.height = `${layout.height}px`;
  await Plotly.newPlot(div, data, layout, {
    displaylogo: false,
    modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg", filename: div.dataset.file },
  });
  div.on("plotly_click", ({ points }) => {
    const to = points[0].customdata; // a place of this page, where the point has one
    if (typeof to === "string" && to.startsWith("#")) location.hash = to;
  });
  new ResizeObserver(() => fit(div.clientWidth)).observe(div);
  plots.push((next) => fit(next || div.clientWidth));
}

async function show(div, width) {
  if (!waiting.delete(div)) return;
  near.unobserve(div);
  try {
    if (!window.Plotly) await (library ??= load());
    await draw(div, width || div.clientWidth);
  } catch (error) {
    console.error(error);
    div.textContent = "This figure could not be drawn. Its numbers stand below.";
  }
  if (!--unfinished) document.documentElement.dataset.drawn = "true";
}

const near = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && show(entry.target)),
  { rootMargin: AHEAD },
);

const idle = window.requestIdleCallback || ((next) => setTimeout(next, 100));

function others() {
  const [next] = waiting;
  if (next) show(next).then(() => idle(others));
}

for (const div of waiting) {
  try {
    div.style.height = `${read(div, div.clientWidth).layout.height}px`; // so that nothing moves once it is drawn
  } catch {
    // a figure that cannot be read is reported when its turn to be drawn comes
  }
  near.observe(div);
}
if (waiting.size) idle(others);
else document.documentElement.dataset.drawn = "true";

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.open-in-print")) details.open = true;
  for (const fit of plots) fit(PAPER);
  for (const div of [...waiting]) show(div, PAPER);
});
window.addEventListener("afterprint", () => {
  for (const fit of plots) fit();
});
