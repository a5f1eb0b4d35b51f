// Whether the server is there: one heartbeat asks for the states of all streams, and everybody else waits for it.

import { getJson, Refused } from "./api.js";
import { pause, untilVisible } from "./dom.js";

const BEAT_S = 2;
const LONGEST_WAIT_S = 5; // between tries, while the server is away

/** Dispatches "states" (detail: a list of them), "lost" and "found", and "token" where the server wants another. */
export class Connection extends EventTarget {
  isUp = false;
  #wait = new AbortController();

  async run() {
    let wait_s = 0.5;
    for (;;) {
      await untilVisible();
      try {
        const states = listOf(await getJson("/v1/streams"));
        wait_s = 0.5;
        if (!this.isUp) {
          this.isUp = true;
          this.#tell("found");
        }
        this.#tell("states", states);
        await this.#pause(BEAT_S);
      } catch (error) {
        const wantsToken = error instanceof Refused && error.status === 401;
        this.isUp = false;
        this.#tell(wantsToken ? "token" : "lost", error);
        await this.#pause(wantsToken ? 3600 : wait_s);
        wait_s = Math.min(LONGEST_WAIT_S, wait_s * 1.6);
      }
    }
  }

  /** Does not wait for the next beat. */
  poke() {
    this.#wait.abort();
  }

  /** Waits until the server is there. */
  up(signal) {
    if (this.isUp || signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        this.removeEventListener("found", end);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      this.addEventListener("found", end);
      signal?.addEventListener("abort", end);
    });
  }

  async #pause(seconds) {
    this.#wait = new AbortController();
    await pause(seconds, this.#wait.signal);
  }

  #tell(what, detail) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }
}

/** What a list came as: bare, or in an envelope. */
export function listOf(answer) {
  const list = Array.isArray(answer) ? answer : answer?.data;
  if (!Array.isArray(list)) throw new Error("The server's list is none.");
  return list;
}
