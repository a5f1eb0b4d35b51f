// What was told of a stream, newest first.

import { framePath } from "./api.js";
import { byId, el } from "./dom.js";
import { keyframeLink } from "./viewer.js";
import { clock, stretch, wallTime } from "./words.js";

const MOST_SHOWN = 200;

const KINDS = { gap: "Gap" };
const NOT_TOLD = new Set(["event", "trace"]); // where scenes end is on the timeline

/** The list of a stream's narrations. */
export class Narration {
  #list = byId("narration");
  #log = byId("narration-log");
  #nothing = byId("no-narration");
  #streamId = null;

  /** Empties it; what comes is of this stream. */
  reset(streamId) {
    this.#streamId = streamId;
    this.#list.replaceChildren();
    this.#nothing.hidden = false;
  }

  /** Adds rows above the others. What had come before anybody watched is not read aloud. */
  add(given, isNew) {
    const rows = given.filter((row) => !NOT_TOLD.has(row.kind));
    if (!rows.length) return;
    this.#log.setAttribute("aria-live", isNew ? "polite" : "off");
    this.#list.prepend(...rows.slice(-MOST_SHOWN).map((row) => this.#line(row, isNew)).reverse());
    while (this.#list.children.length > MOST_SHOWN) this.#list.lastElementChild.remove();
    this.#nothing.hidden = this.#list.children.length > 0;
  }

  #line(row, isNew) {
    const told = stretch(row.start_s, row.end_s);
    const wall = wallTime(row.wall);
    const hasPicture = Number.isFinite(row.keyframe_s);
    const when = hasPicture
      ? keyframeLink(
          framePath(this.#streamId, row.keyframe_s),
          `${told} of ${this.#streamId}`,
          { class: "when", "aria-label": `Keyframe at ${clock(row.keyframe_s)}` },
          clock(row.start_s),
        )
      : el("span", { class: "when" }, clock(row.start_s));
    const kind = KINDS[row.kind];
    return el(
      "li",
      { class: isNew ? "line is-new" : "line", "data-kind": row.kind, "data-number": row.number },
      when,
      el(
        "div",
        { class: "told" },
        el("p", {}, kind ? el("span", { class: "kind" }, kind) : null, row.text),
        wall ? el("time", { datetime: row.wall }, wall) : null,
      ),
    );
  }
}
