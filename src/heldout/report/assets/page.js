"use strict";

// A figure carries two arrangements of its panels, as patches with dotted keys: for a wide page and for a telephone.
const NARROW = 600; // pixels
const PAPER = 680; // the width of a printed page

const plots = []; // functions of a width

function arrange(layout, patch) {
  for (const [key, value] of Object.entries(patch)) {
    const path = key.split(".");
    const last = path.pop();
    let target = layout;
    for (const part of path) target = target[part] = target[part] || {};
    target[last] = value;
  }
}

async function draw(div) {
  const { data, layout } = JSON.parse(div.nextElementSibling.textContent);
  const meta = layout.meta || {};
  const patch = (width) => ({ width, ...meta[width < NARROW ? "narrow" : "wide"] });
  let drawn = div.clientWidth;
  arrange(layout, patch(drawn));
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
  const fit = (width) => {
    if (!width || width === drawn) return;
    drawn = width;
    Plotly.relayout(div, patch(width));
    div.style.height = `${div.layout.height}px`;
  };
  new ResizeObserver(() => fit(div.clientWidth)).observe(div);
  plots.push((width) => fit(width || div.clientWidth));
}

(async () => {
  for (const div of document.querySelectorAll(".plot")) {
    try {
      await draw(div);
    } catch (error) {
      console.error(error);
      div.textContent = "This figure could not be drawn. Its numbers stand below.";
    }
  }
  document.documentElement.dataset.drawn = "true";
})();

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.open-in-print")) details.open = true;
  for (const fit of plots) fit(PAPER);
});
window.addEventListener("afterprint", () => {
  for (const fit of plots) fit();
});
