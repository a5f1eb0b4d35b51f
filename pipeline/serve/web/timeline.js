// The timeline: events, the change rate and the fill of each tier, one lane below another over the same time.

import { framePath } from "./api.js";
import { byId, el, say, svg } from "./dom.js";
import { drawBars, drawLine, drawTicks, TimeScale } from "./plot.js";
import { keyframeLink, openKeyframe } from "./viewer.js";
import { bytes, percent, stretch } from "./words.js";

const LANE_PX = 36;
const LEAST_CHANGE = 0.05; // fills the lane's height, where there is no more
const DRAW_EVERY_S = 0.4;
const MOST_EVENTS = 1000;
const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

const TIERS = { T0: "Recent frames", T1: "Keys and values", T2: "Keyframes", T3: "Log" };

export class Timeline {
  #lanes = byId("lanes");
  #axis = byId("axis");
  #events = byId("event-lane");
  #bars = byId("event-bars");
  #told = byId("event-told");
  #rows = [];
  #series = null;
  #streamId = null;
  #chosen = null; // the number of a row; null: the newest
  #window_s = 600;
  #made = new Map(); // name -> {value, plot}
  #isDue = false;

  constructor() {
    for (const input of byId("window").querySelectorAll("input")) {
      if (input.checked) this.#window_s = Number(input.value);
      input.addEventListener("change", () => {
        this.#window_s = Number(input.value);
        this.draw();
      });
    }
    this.#events.addEventListener("keydown", (event) => this.#onKey(event));
    this.#events.addEventListener("click", (event) => this.#onClick(event));
    new ResizeObserver(() => this.draw()).observe(this.#lanes);
  }

  /** Begins anew, with a stream's series. */
  reset(streamId, series) {
    this.#streamId = streamId;
    this.#series = series;
    this.#rows = [];
    this.#chosen = null;
    this.#say();
    this.draw();
  }

  add(rows) {
    this.#rows.push(...rows);
    this.#rows = this.#rows.slice(-MOST_EVENTS);
    this.#say();
    this.draw();
  }

  /** Draws soon: at most once in a while, whatever comes. */
  draw() {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#draw();
    }, DRAW_EVERY_S * 1000);
  }

  #draw() {
    const width = this.#bars.clientWidth;
    if (!width) return;
    const newest_s = Math.max(this.#series?.newest_s ?? 0, this.#rows.at(-1)?.end_s ?? 0);
    const oldest_s = Math.min(this.#series?.oldest_s ?? newest_s, this.#rows[0]?.start_s ?? newest_s);
    const from_s = this.#window_s > 0 ? Math.max(oldest_s, newest_s - this.#window_s) : oldest_s;
    const scale = new TimeScale(from_s, newest_s, width);
    this.scale = scale;
    drawBars(this.#bars, scale, this.#rows, this.#chosen, LANE_PX);
    drawTicks(this.#axis, scale);
    const change = this.#series?.change;
    if (change) {
      const peak = change.peak(scale.from_s);
      const told = peak > 0 ? `${percent(change.last?.value)}, at most ${percent(peak)}` : percent(change.last?.value);
      this.#lane("change", "Change", told, change, Math.max(peak, LEAST_CHANGE), scale);
    }
    for (const [name, tier] of this.#series?.tiers ?? []) {
      const held = tier.series.last?.value;
      const most = tier.budget ?? Math.max(tier.series.peak(-Infinity), 1);
      const told = tier.budget ? `${bytes(held)} of ${bytes(tier.budget)}` : bytes(held);
      this.#lane(name, TIERS[name] ?? name, told, tier.series, most, scale, name);
    }
    for (const [name, { row }] of this.#made) {
      row.hidden = name !== "change" && !this.#series?.tiers.has(name);
    }
  }

  #lane(name, title, told, series, most, scale, code = "") {
    if (!this.#made.has(name)) this.#made.set(name, this.#makeLane(name, title, code));
    const { value, plot } = this.#made.get(name);
    say(value, told);
    plot.setAttribute("aria-label", `${title}: ${told}`);
    drawLine(plot, scale, series.samples, most, LANE_PX);
  }

  #makeLane(name, title, code) {
    const value = el("span", { class: "lane-value" });
    const plot = svg("svg", { class: "plot", role: "img" });
    const label = el("span", { class: "lane-title" }, title, code ? el("abbr", {}, code) : null);
    const row = el("div", { class: "lane", "data-lane": name }, el("div", { class: "lane-head" }, label, value), plot);
    this.#lanes.insertBefore(row, byId("axis-lane"));
    return { row, value, plot };
  }

  // The events are one stop of the tab key: arrows go from one to the next, Enter shows its keyframe.

  get #index() {
    const index = this.#rows.findIndex((row) => row.number === this.#chosen);
    return index < 0 ? this.#rows.length - 1 : index;
  }

  #onKey(event) {
    const last = this.#rows.length - 1;
    if (last < 0) return;
    let index = this.#index;
    if (event.key in KEYS) index += KEYS[event.key];
    else if (event.key === "Home") index = 0;
    else if (event.key === "End") index = last;
    else if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const row = this.#rows[Math.min(last, Math.max(0, index))];
    if (event.key === "Enter" || event.key === " ") {
      const shown = keyframeOf(row, this.#streamId);
      if (shown) openKeyframe(shown.path, shown.told);
    } else {
      this.#choose(row);
    }
  }

  #onClick(event) {
    if (!this.#rows.length || !this.scale) return;
    const at_s = this.scale.time(event.clientX - this.#bars.getBoundingClientRect().left);
    const away = (row) => Math.max(row.start_s - at_s, at_s - row.end_s, 0);
    this.#choose(this.#rows.reduce((best, row) => (away(row) < away(best) ? row : best)));
  }

  #choose(row) {
    this.#chosen = row.number;
    this.#say();
    this.#draw();
  }

  /** Says which event is chosen, to the eye and to a screen reader. */
  #say() {
    const row = this.#rows[this.#index];
    const { dataset } = this.#told;
    const key = row ? `${this.#streamId} ${row.number}` : "";
    if (dataset.key === key) return this.#sayCount();
    dataset.key = key;
    this.#sayCount();
    if (!row) return this.#told.replaceChildren("No events yet.");
    const shown = keyframeOf(row, this.#streamId);
    const link = shown ? keyframeLink(shown.path, shown.told, {}, "Show the keyframe") : null;
    const when = el("strong", {}, stretch(row.start_s, row.end_s));
    this.#told.replaceChildren(when, " ", el("span", {}, row.text), " ", link ?? "");
  }

  #sayCount() {
    const row = this.#rows[this.#index];
    this.#events.setAttribute("aria-valuemin", this.#rows.length ? "1" : "0");
    this.#events.setAttribute("aria-valuemax", String(this.#rows.length));
    this.#events.setAttribute("aria-valuenow", String(this.#rows.length ? this.#index + 1 : 0));
    const told = row ? `${stretch(row.start_s, row.end_s)}: ${row.text}` : "No events yet";
    this.#events.setAttribute("aria-valuetext", told);
    say(byId("event-count"), String(this.#rows.length));
  }
}

function keyframeOf(row, streamId) {
  if (!Number.isFinite(row.keyframe_s)) return null;
  return { path: framePath(streamId, row.keyframe_s), told: `${stretch(row.start_s, row.end_s)} of ${streamId}` };
}
