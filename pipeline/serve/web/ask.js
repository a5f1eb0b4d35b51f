// Questions about a stream, and their answers as they come, with links to the moments that they rest on.

import { getEvents, getPicture, keyframePath, Lost, Refused } from "./api.js";
import { byId, el, say } from "./dom.js";
import { keyframeLink } from "./viewer.js";
import { clock, stretch } from "./words.js";

const MOST_ANSWERS = 20;
const SPANS_AT_ONCE = 6;

/** The question box and the answers below it. */
export class Asking {
  #connection;
  #streamId = null;
  #list = byId("answers");
  #form = byId("ask");
  #input = byId("question");

  constructor(connection) {
    this.#connection = connection;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = this.#input.value.trim();
      if (!words || this.#streamId === null) return this.#input.focus();
      this.#input.value = "";
      this.#ask(this.#streamId, words);
    });
  }

  /** Whom the next question goes to; null: nobody is there. */
  about(streamId) {
    this.#streamId = streamId;
    byId("ask-button").disabled = streamId === null;
    this.#input.placeholder = streamId === null ? "No stream to ask" : `Ask about ${streamId}`;
  }

  async #ask(streamId, words) {
    const entry = new Entry(streamId, words, () => this.#ask(streamId, words));
    this.#list.prepend(entry.item);
    while (this.#list.children.length > MOST_ANSWERS) this.#list.lastElementChild.remove();
    try {
      await this.#answer(entry, streamId, words);
    } catch (error) {
      if (error instanceof Lost || error instanceof Refused) this.#connection.poke();
      entry.failed(entry.isStopped ? "Stopped." : error.message);
    }
  }

  async #answer(entry, streamId, words) {
    const body = { model: `millpond/${streamId}`, stream: true, messages: [{ role: "user", content: words }] };
    let isWhole = false;
    for await (const { data } of getEvents("/v1/chat/completions", {
      method: "POST",
      body,
      signal: entry.stopping.signal,
    })) {
      if (data === "[DONE]") {
        isWhole = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(String(chunk.error.message ?? "The answer was given up."));
      const choice = chunk.choices?.[0];
      if (typeof choice?.delta?.content === "string") entry.add(choice.delta.content);
      const rest = chunk.millpond ?? choice?.millpond ?? choice?.delta?.millpond;
      if (rest) entry.restsOn(rest);
    }
    if (!isWhole) throw new Lost("The server stopped in the middle of the answer.");
    entry.finished();
  }
}

/** One question and its answer. Read aloud when it is whole, not word by word. */
class Entry {
  stopping = new AbortController();
  isStopped = false;
  #text = el("p", { class: "answer-text" });
  #state = el("p", { class: "answer-state" }, "Looking…");
  #spans = el("ul", { class: "spans", "aria-label": "Moments this rests on" });
  #stop;
  #again;

  constructor(streamId, words, again) {
    this.streamId = streamId;
    this.#stop = el("button", { type: "button", class: "quiet", onclick: () => this.#end() }, "Stop");
    this.#again = el("button", { type: "button", class: "quiet", onclick: again, hidden: true }, "Ask again");
    this.live = el("div", { class: "answer", "aria-live": "polite", "aria-busy": "true" }, this.#text, this.#state);
    this.item = el(
      "li",
      { class: "entry", "data-state": "asked" },
      el("p", { class: "asked" }, el("span", { class: "asked-words" }, words), el("span", { class: "of" }, streamId)),
      this.live,
      this.#spans,
      el("div", { class: "entry-buttons" }, this.#stop, this.#again),
    );
  }

  add(words) {
    this.item.dataset.state = "answering";
    this.#text.textContent += words;
  }

  restsOn({ spans, seen_until_s }) {
    if (Number.isFinite(seen_until_s)) say(this.#state, `Seen until ${clock(seen_until_s)}`);
    const checked = Array.isArray(spans) ? spans.filter((span) => keyframePath(span?.keyframe)) : [];
    const links = checked.map((span) => el("li", {}, this.#link(span)));
    this.#spans.replaceChildren(...links.slice(0, SPANS_AT_ONCE));
    const rest = links.slice(SPANS_AT_ONCE);
    if (!rest.length) return;
    const more = el("button", { type: "button", class: "quiet" }, `${rest.length} more`);
    more.addEventListener("click", () => {
      more.parentElement.replaceWith(...rest);
      rest[0].firstElementChild.focus();
    });
    this.#spans.append(el("li", {}, more));
  }

  finished() {
    this.item.dataset.state = "answered";
    if (this.#state.textContent === "Looking…") say(this.#state, this.#text.textContent ? "" : "No words came.");
    this.#over();
  }

  failed(words) {
    this.item.dataset.state = "failed";
    say(this.#state, words);
    this.#again.hidden = false;
    this.#over();
  }

  #over() {
    this.#stop.hidden = true;
    this.live.setAttribute("aria-busy", "false");
  }

  #end() {
    this.isStopped = true;
    this.stopping.abort();
  }

  #link({ start_s, end_s, keyframe }) {
    const told = stretch(start_s, end_s);
    const image = el("img", { alt: "", width: 96, height: 72, hidden: true });
    const label = { class: "span", "aria-label": `Keyframe of ${told}` };
    const link = keyframeLink(keyframe, `${told} of ${this.streamId}`, label, image, el("span", {}, told));
    const show = ({ url }) => {
      image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
      image.hidden = false;
    };
    const noPicture = () => link.classList.add("has-no-picture"); // the link says why, when it is followed
    getPicture(keyframe).then(show, noPicture);
    return link;
  }
}
