// The strip of streams: a picture of each, what it is doing, and which one is looked at.

import { getPicture, streamPath } from "./api.js";
import { byId, el, pause, say, untilVisible } from "./dom.js";
import { ago } from "./words.js";

const EVERY_S = 4;

const WORDS = {
  live: "Live",
  connecting: "Connecting",
  retrying: "Trying again",
  ended: "Ended",
  failed: "Failed",
};

/** What a stream is doing, in a word. */
export const stateWord = (state) => WORDS[state] ?? String(state);

/** What a stream is doing, and how late its newest frame is. */
export function stateWords(stream) {
  const word = stateWord(stream.state);
  return stream.state === "live" && Number.isFinite(stream.lag_s) ? `${word}, ${ago(stream.lag_s)} behind` : word;
}

/** Calls `onChoice(id)` when another stream is to be looked at. */
export class StreamStrip {
  #list = byId("streams");
  #items = new Map(); // id -> {item, button, image, word}
  #connection;
  #onChoice;

  constructor(connection, onChoice) {
    this.#connection = connection;
    this.#onChoice = onChoice;
    this.#run();
  }

  show(streams, chosen) {
    const ids = streams.map((stream) => stream.id);
    for (const [id, { item, image }] of this.#items) {
      if (ids.includes(id)) continue;
      drop(image);
      item.remove();
      this.#items.delete(id);
    }
    for (const stream of streams) {
      if (!this.#items.has(stream.id)) this.#items.set(stream.id, this.#made(stream.id));
      const { item, button, word } = this.#items.get(stream.id);
      say(word, stateWord(stream.state));
      item.dataset.state = stream.state;
      button.setAttribute("aria-current", stream.id === chosen ? "true" : "false");
    }
  }

  /** The server is away: what the streams are doing is not known. */
  lose() {
    for (const { item, word } of this.#items.values()) {
      say(word, "Not known");
      item.dataset.state = "unknown";
    }
  }

  #made(id) {
    const image = el("img", { alt: "", width: 72, height: 54, hidden: true });
    const word = el("span", { class: "state-word" });
    const name = el("span", { class: "stream-name" }, id);
    const button = el(
      "button",
      { type: "button", class: "stream", title: id, onclick: () => this.#onChoice(id) },
      el("span", { class: "thumb" }, image),
      el("span", { class: "stream-words" }, name, el("span", { class: "stream-state" }, dot(), word)),
    );
    const item = el("li", {}, button);
    this.#list.append(item);
    return { item, button, image, word };
  }

  /** Small pictures, one after another, so that many streams are not many requests at once. */
  async #run() {
    for (;;) {
      await untilVisible();
      await this.#connection.up();
      const began = performance.now();
      for (const [id, { image }] of [...this.#items]) {
        if (!this.#connection.isUp || document.hidden) break;
        await this.#refresh(id, image);
      }
      await pause(Math.max(this.#items.size ? 1 : 0.2, EVERY_S - (performance.now() - began) / 1000));
    }
  }

  async #refresh(id, image) {
    try {
      const { url } = await getPicture(streamPath(id, "/snapshot.jpg"));
      const before = image.src;
      image.src = url;
      image.hidden = false;
      if (before.startsWith("blob:")) URL.revokeObjectURL(before);
      if (!this.#items.has(id)) drop(image);
    } catch {
      // No picture yet, or none now: the word beside it says why.
    }
  }
}

const dot = () => el("span", { class: "dot", "aria-hidden": "true" });

function drop(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
}
