// Plots usage over time, for the page and for the report; what is plotted can be read without seeing it, too.
"use strict";

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const MONEY = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
const COST = "cost in USD";
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// Makes an element. Children that are text stay text: nothing from a ledger is ever read as HTML.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The name of a group, each part on its own, so that one that is written from right to left changes no other.
function named(names) {
  return names.flatMap((name, index) => [
    ...(index ? [" · "] : []),
    name === null ? element("em", {}, "not known") : element("bdi", {}, name),
  ]);
}

function plain(names) {
  return names.map((name) => name ?? "not known").join(" · ");
}

// "2026-11-29T16" -> "16:00", "2026-11-29" -> "29 Nov", "2026-11" -> "Nov 2026"
function tick(period) {
  if (period.length > 10) return `${period.slice(11)}:00`;
  const month = MONTHS[Number(period.slice(5, 7)) - 1];
  return period.length > 7 ? `${Number(period.slice(8))} ${month}` : `${month} ${period.slice(0, 4)}`;
}

function whole(period) {
  return period.length > 10 ? `${period.slice(0, 10)} ${period.slice(11)}:00` : period;
}

function figure(unit, amount) {
  return (unit === COST ? MONEY : NUMBER).format(amount);
}

function words(unit) {
  return unit.replaceAll("_", " ");
}

class UsagePlot {
  // In `place`, an element that is its alone.
  constructor(place) {
    this.place = place;
    this.canvas = element("div", { class: "canvas", role: "img" });
    this.legend = element("ul", { class: "legend" });
    this.slider = element("input", { type: "range", min: "0", step: "1" });
    this.period = element("output", {});
    this.numbers = element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of the plot" });
    this.details = element("details", {}, element("summary", {}, "The plot as a table"), this.numbers);
    this.empty = element("p", { class: "quiet" }, "Nothing was used in this time.");
    this.read = element("div", { class: "period" }, element("label", {}, "Period", this.slider), this.period);
    place.replaceChildren(this.empty, this.canvas, this.legend, this.read, this.details);
    this.slider.addEventListener("input", () => this.choose(Number(this.slider.value), true));
    this.details.addEventListener("toggle", () => this.showNumbers());
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(usage) {
    const same = this.usage && this.usage.periods.join() === usage.periods.join();
    this.usage = usage;
    const some = usage.series.length > 0;
    this.empty.hidden = some;
    for (const part of [this.canvas, this.legend, this.read, this.details]) part.hidden = !some;
    this.canvas.setAttribute("aria-label", this.summary());
    this.slider.max = String(usage.periods.length - 1);
    this.legend.replaceChildren(
      ...usage.series.map((one, index) =>
        element("li", {}, element("span", { class: `swatch swatch-${index}` }), element("span", {}, ...named(one.names)), element("span", { class: "amount" })),
      ),
    );
    this.draw();
    this.choose(same ? Number(this.slider.value) : usage.periods.length - 1, false);
    this.showNumbers();
  }

  summary() {
    const { usage } = this;
    const [first, last] = [usage.periods[0], usage.periods.at(-1)].map(whole);
    const sums = usage.series.map((one) => `${plain(one.names)} ${figure(usage.unit, one.amounts.reduce((a, b) => a + b, 0))}`);
    return `Bars of ${words(usage.unit)} from ${first} to ${last}: ${sums.join(", ")}. The table below has all numbers.`;
  }

  choose(index, moves) {
    const { usage } = this;
    if (!usage.series.length) return;
    this.slider.value = String(index);
    const period = whole(usage.periods[index]);
    const all = figure(usage.unit, usage.series.reduce((sum, one) => sum + one.amounts[index], 0));
    this.slider.setAttribute("aria-valuetext", `${period}: ${all} ${words(usage.unit)}`);
    this.period.textContent = `${period} UTC: ${all} ${words(usage.unit)}`;
    this.legend.querySelectorAll(".amount").forEach((place, number) => {
      place.textContent = figure(usage.unit, usage.series[number].amounts[index]);
    });
    if (moves && this.plot) this.plot.setCursor({ left: this.plot.valToPos(index, "x"), top: 0 }, false);
  }

  showNumbers() {
    if (!this.details.open || !this.usage) return;
    const { usage } = this;
    this.numbers.replaceChildren(
      element("table", {},
        element("caption", {}, `${words(usage.unit)} by period, UTC`),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Period"),
          ...usage.series.map((one) => element("th", { scope: "col", class: "number" }, ...named(one.names))))),
        element("tbody", {}, ...usage.periods.map((period, index) =>
          element("tr", {}, element("th", { scope: "row", class: "time" }, whole(period)),
            ...usage.series.map((one) => element("td", { class: "number" }, figure(usage.unit, one.amounts[index]))))))),
    );
  }

  draw() {
    this.plot?.destroy();
    this.plot = null;
    const { usage } = this;
    if (!usage?.series.length || !this.canvas.clientWidth) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    // Each bar stands on those before it, so the highest is drawn first and the others cover it.
    const heights = [];
    usage.series.forEach((one, index) => heights.push(one.amounts.map((amount, at) => amount + (index ? heights[index - 1][at] : 0))));
    const bars = uPlot.paths.bars({ size: [0.8, 60] });
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot(
      {
        width: this.canvas.clientWidth,
        height: 260,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
        scales: { x: { time: false, range: [-0.5, usage.periods.length - 0.5] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        axes: [
          { ...axis, size: 30, grid: { show: false }, space: 64, incrs: [1, 2, 3, 4, 6, 8, 12, 24], values: (_, at) => at.map((index) => (usage.periods[index] ? tick(usage.periods[index]) : "")) },
          { ...axis, size: 56, values: (_, at) => at.map((value) => SHORT.format(value)) },
        ],
        series: [
          {},
          ...usage.series.map((_, index) => ({ fill: colour(`--c${index}`), stroke: colour("--ground"), width: 1 / devicePixelRatio, paths: bars, points: { show: false } })).reverse(),
        ],
        hooks: { setCursor: [(plot) => { if (plot.cursor.idx != null && plot.cursor.event) this.choose(plot.cursor.idx, false); }] },
      },
      [usage.periods.map((_, index) => index), ...heights.reverse()],
      this.canvas,
    );
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width) this.plot.setSize({ width, height: 260 });
    else this.draw();
  }
}
