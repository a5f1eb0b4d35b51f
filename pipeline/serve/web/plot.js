// Lines, bars and ticks of the timeline, in pixels.

import { svg } from "./dom.js";
import { clock } from "./words.js";

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
const TICK_PX = 90;

/** From stream time to pixels. */
export class TimeScale {
  constructor(from_s, to_s, width) {
    this.from_s = from_s;
    this.to_s = Math.max(to_s, from_s + 1);
    this.width = width;
  }

  x(time_s) {
    return ((time_s - this.from_s) / (this.to_s - this.from_s)) * this.width;
  }

  time(x) {
    return this.from_s + (x / this.width) * (this.to_s - this.from_s);
  }

  /** Round times, as far apart as their labels need. */
  ticks() {
    const least_s = ((this.to_s - this.from_s) * TICK_PX) / Math.max(this.width, 1);
    const step_s = STEPS_S.find((step) => step >= least_s) ?? Math.ceil(least_s / 86400) * 86400;
    const ticks = [];
    for (let at = Math.ceil(this.from_s / step_s) * step_s; at <= this.to_s; at += step_s) ticks.push(at);
    return ticks;
  }
}

/** A line, and the area below it; values above `most` stand at the top. */
export function drawLine(plot, scale, samples, most, height) {
  const seen = visible(samples, scale);
  if (!seen.length) return plot.replaceChildren();
  const y = (value) => height - 1 - Math.min(1, most > 0 ? value / most : 0) * (height - 3);
  const points = seen.map(({ at_s, value }) => [round(scale.x(at_s)), round(y(value))]);
  const line = points.map(([x, at]) => `${x} ${at}`).join("L");
  const [first, last] = [points[0][0], points.at(-1)[0]];
  plot.replaceChildren(
    svg("path", { class: "area", d: `M${first} ${height}L${line}L${last} ${height}Z` }),
    svg("path", { class: "line", d: `M${line}` }),
    svg("circle", { class: "now", cx: last, cy: points.at(-1)[1], r: 2.5 }),
  );
}

/** One bar for each row: what was told above, scenes below; the chosen one stands out. */
export function drawBars(plot, scale, rows, chosen, height) {
  const places = { narration: [3, height * 0.5], event: [height * 0.68, height * 0.22] };
  const bars = [];
  for (const row of rows) {
    const [from, to] = [scale.x(row.start_s), scale.x(row.end_s)];
    if (to < 0 || from > scale.width) continue;
    const [left, right] = [Math.max(0, from), Math.min(scale.width, to)];
    const width = Math.max(3, right - left - 1);
    const [y, tall] = places[row.kind] ?? [3, height - 6];
    bars.push(
      svg("rect", {
        class: row.number === chosen ? "bar is-chosen" : "bar",
        "data-kind": row.kind,
        x: round(left),
        width: round(width),
        y: round(y),
        height: round(tall),
        rx: 2,
      }),
    );
  }
  plot.replaceChildren(...bars);
}

export function drawTicks(plot, scale) {
  const told = scale.ticks().map((at) => {
    const x = scale.x(at);
    const anchor = x < 20 ? "start" : x > scale.width - 20 ? "end" : "middle";
    return svg("text", { x: round(x), y: 12, "text-anchor": anchor }, clock(at));
  });
  plot.replaceChildren(...told);
}

/** Those in the window, and the one before it, so that the line begins at its edge. */
function visible(samples, scale) {
  let first = samples.findIndex((sample) => sample.at_s >= scale.from_s);
  if (first < 0) first = samples.length - 1;
  return samples.slice(Math.max(0, first - 1));
}

const round = (value) => Math.round(value * 10) / 10;
