// Plots what the report has beside its table.
"use strict";

const plots = JSON.parse(document.getElementById("data").textContent);
if (plots.length) {
  document.getElementById("plotted").hidden = false;
  const plot = new UsagePlot(document.getElementById("plot"));
  const units = document.querySelector("select[name=unit]");
  units.replaceChildren(...plots.map(({ unit }) => element("option", { value: unit }, words(unit))));
  const show = () => plot.show(plots[units.selectedIndex]);
  units.addEventListener("change", show);
  units.value = plots.some(({ unit }) => unit === "total_tokens") ? "total_tokens" : "events";
  show();
}
