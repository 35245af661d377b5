// The page of `cmdrdata dashboard`: asks for what is shown, and shows it.
"use strict";

const LOOK = 2000; // milliseconds between two looks at what is new
const SUMS = 10000; // at least so many between two sums of usage, which may be of many groups
const PATIENCE = 500; // after so many it is said that something takes its time
const at = (id) => document.getElementById(id);
const form = at("chosen");
const plot = new UsagePlot(at("plot"));
let status = null;
let live = true;
let summed = { of: null, next: 0 };
const shown = new Map();

async function ask(name, question = {}) {
  const given = Object.entries(question).filter(([, value]) => value !== null);
  const response = await fetch(`api/${name}?${new URLSearchParams(given)}`, { cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Does a piece of work, and tells in one place what came in its way, until the same work is done.
const troubles = new Map();
async function tell(name, work) {
  try {
    await work();
    troubles.delete(name);
  } catch (error) {
    const ended = "cmdrdata dashboard does not answer any more. Start it again, and open the address that it prints.";
    troubles.set(name, error instanceof TypeError ? ended : error.message);
  }
  const text = [...new Set(troubles.values())].join(" ");
  if (at("trouble").textContent !== text) at("trouble").textContent = text;
  at("trouble").hidden = !text;
}

// Where what is asked for later is answered sooner, only the later answer is shown.
function newest(name, work) {
  let last = 0;
  return (...given) => {
    const mine = ++last;
    return tell(name, () => work(() => mine === last, ...given));
  };
}

// Says whether what a place shows is another than before: what has the focus, or is open, is left alone otherwise.
function changes(place, what) {
  const text = JSON.stringify(what);
  const before = shown.get(place);
  shown.set(place, text);
  return text !== before;
}

function fill(select, options) {
  if (!changes(select, options)) return;
  const before = select.value;
  select.replaceChildren(...options.map(({ value, title }) => element("option", { value }, title)));
  if (options.some(({ value }) => value === before)) select.value = before;
}

function table(place, caption, head, rows, foot) {
  const cells = (name, scope) => ({ kind, content }) =>
    element(name, { ...(kind ? { class: kind } : {}), ...(scope ? { scope } : {}) }, ...[content].flat());
  const row = (all) => element("tr", {}, cells("th", "row")(all[0]), ...all.slice(1).map(cells("td")));
  place.replaceChildren(
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map(cells("th", "col")))),
    element("tbody", {}, ...rows.map(row)),
    ...(foot ? [element("tfoot", {}, row(foot))] : []),
  );
}

const number = (unit, amount, atLeast) => ({
  kind: "number",
  content: amount === undefined ? (unit === COST ? "-" : "") : (unit === COST && atLeast ? "≥ " : "") + figure(unit, amount),
});

const showStatus = newest("status", async (isNewest) => {
  const found = await ask("status");
  if (!isNewest()) return;
  status = found;
  const select = at("destination");
  fill(select, found.destinations.map(({ name }) => ({ value: name, title: name })));
  at("at").textContent = found.at.replace("T", " ").replace("Z", "");
  const one = found.destinations.find(({ name }) => name === select.value);
  at("description").textContent = one ? one.description : found.nothing;
  const needs = [...found.attention, ...found.destinations.flatMap((other) =>
    other.attention.map((text) => (other === one ? text : `${other.name}: ${text}`)))];
  at("attention").classList.toggle("needed", needs.length > 0);
  at("needs").replaceChildren(...(needs.length ? needs : ["Nothing needs you."]).map((text) => element("li", {}, text)));
  const states = one?.states ?? [];
  const shown = states.length ? [{ word: "recorded", count: one.recorded, meaning: "all of these together", why: "" }, ...states] : [];
  at("states").replaceChildren(...shown.map(({ word, count, meaning, why }, index) =>
    element("div", { title: meaning, class: (word === "held" || word === "dead") && count ? "needed" : "" },
      element("dt", {}, `${["", "= "][index] ?? "+ "}${word}`),
      element("dd", { class: count ? "count" : "count none" }, NUMBER.format(count)),
      ...(why ? [element("dd", { class: "quiet" }, why)] : []))));
  at("sender").textContent = one?.sender ?? "";
  at("counted").replaceChildren(...(one?.counted ?? []).map(({ word, count, meaning }) =>
    element("div", {}, element("dt", {}, `${NUMBER.format(count)} ${word}:`), element("dd", {}, meaning))));
});

const showUsage = newest("usage", async (isNewest) => {
  const destination = at("destination").value;
  if (!destination) return;
  const busy = setTimeout(() => { at("busy").textContent = "Adding up ..."; }, PATIENCE);
  const [range, by, unit] = ["range", "by", "unit"].map((name) => form.elements[name].value);
  const usage = await ask("usage", { destination, range, by, unit, customer: form.elements.customer.value.trim() || null,
    only: form.elements.only.checked ? "billed" : null, cost: form.elements.cost.checked ? null : "no" })
    .finally(() => {
      clearTimeout(busy);
      if (isNewest()) at("busy").textContent = "";
    });
  if (!isNewest()) return;
  fill(form.elements.by, usage.groupings);
  const units = Object.keys(usage.total.units);
  fill(form.elements.unit, [...new Set(["events", ...units, unit])].map((value) => ({ value, title: words(value) })));
  form.elements.unit.value = unit;
  at("plot").hidden = false;
  plot.show(usage);
  const sums = (row) => units.map((name) => number(name, row.units[name], row.at_least));
  table(at("sums"), `${usage.title}, UTC`,
    [...usage.by.map((name) => ({ content: words(name) })), ...units.map((name) => ({ kind: "number", content: words(name) }))],
    usage.rows.map((row) => [...row.names.map((name) => ({ kind: "name", content: named([name]) })), ...sums(row)]),
    usage.rows.length > 1 ? [{ content: "Total" }, ...usage.by.slice(1).map(() => ({ content: "" })), ...sums(usage.total)] : null);
  at("notes").replaceChildren(...usage.notes.map((text) => element("li", {}, text)));
});

const IDS = [["event", "id"], ["request", "request_id"], ["response", "response_id"], ["trace", "trace_id"]];

function used(event) {
  const told = Object.entries(event.units);
  const some = told.filter(([, amount]) => amount);
  const least = event.usage === "partial" ? "≥ " : "";
  const units = (some.length ? some : told).map(([unit, amount]) => `${least}${NUMBER.format(amount)} ${words(unit)}`);
  return units.join(", ") || `usage ${event.usage}`;
}

function card(event) {
  const all = [["time", event.at], ["customer", event.customer], ["model", event.model], ["endpoint", event.endpoint],
    ["state", event.reason ? `${event.state}: ${event.reason}` : event.state], ["used", used(event)],
    ["usage", event.usage], ["destination", event.destination]];
  const row = (name, value, kind) => element("div", {}, element("dt", {}, name), element("dd", kind ? { class: kind } : {}, ...named([value])));
  return element("dl", { class: "event" },
    ...all.map(([name, value]) => row(name, value)),
    ...IDS.filter(([, key]) => event[key]).map(([name, key]) => row(name, event[key], "id")));
}

const find = newest("find", async (isNewest) => {
  const id = at("search").elements.id.value.trim();
  if (!id) return;
  at("found-text").textContent = "Looking ...";
  at("found").replaceChildren();
  const { events, text } = await ask("find", { id }).catch((error) => {
    if (isNewest()) at("found-text").textContent = "";
    throw error;
  });
  if (!isNewest()) return;
  at("found-text").textContent = text;
  at("found").replaceChildren(...events.map(card));
});

const showNewest = newest("newest", async (isNewest) => {
  const destination = at("destination").value;
  if (!destination) return;
  const { events, text } = await ask("newest", { destination });
  if (!isNewest() || !changes(at("newest"), events)) return;
  at("newest-text").textContent = text;
  const cell = (kind, value) => ({ kind, content: named([value]) });
  table(at("newest"), "The last whose calls have ended, UTC",
    ["time", "customer", "model", "endpoint", "state", "used", "event"].map((content) => ({ content })),
    events.map((event) => {
      const button = element("button", { type: "button", class: "link", "aria-label": `Show event ${event.id}` }, event.id.slice(0, 12));
      button.addEventListener("click", () => {
        at("search").elements.id.value = event.id;
        at("find").scrollIntoView();
        find();
      });
      return [{ kind: "time", content: event.at }, cell("name", event.customer), cell("name", event.model),
        cell("word", event.endpoint), cell("word", event.state), cell("used", used(event)), { kind: "id", content: button }];
    }));
});

async function look() {
  if (live && !document.hidden) {
    await showStatus();
    await showNewest();
    const states = status?.destinations.find(({ name }) => name === at("destination").value)?.states ?? [];
    // Usage changes with what is recorded, delivered or decided, and with the hour that it is.
    const of = [status?.at.slice(0, 13), ...states.map(({ count }) => count)].join();
    if (of !== summed.of && performance.now() >= summed.next) {
      const start = performance.now();
      await showUsage();
      // A ledger that takes long is asked less often.
      summed = { of, next: performance.now() + Math.max(SUMS, 10 * (performance.now() - start)) };
    }
  }
  setTimeout(look, LOOK);
}

at("live").addEventListener("click", () => {
  live = !live;
  at("live").setAttribute("aria-pressed", String(live));
});
at("destination").addEventListener("change", async () => {
  // What belongs to another one is not shown while, or where, this one cannot be read.
  for (const place of [at("sums"), at("notes"), at("newest")]) place.replaceChildren();
  shown.delete(at("newest"));
  at("plot").hidden = true;
  await showStatus();
  await showNewest();
  await showUsage();
});
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
form.addEventListener("change", () => showUsage());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  showUsage();
});

tell("choices", async () => {
  const choices = await ask("choices");
  at("version").textContent = choices.version;
  at("cost").hidden = !choices.cost;
  fill(form.elements.range, choices.ranges);
  form.elements.range.value = "days";
  fill(form.elements.by, choices.by);
  await showStatus();
  if (choices.first !== null) {
    at("destination").value = choices.first;
    await showStatus();
  }
}).then(look);
