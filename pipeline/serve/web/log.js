// The log of one stream: what was told of it so far, then what is told as it comes.

import { getEvents, getJson, Lost, Refused, streamPath } from "./api.js";
import { listOf } from "./connection.js";
import { pause, untilVisible, whileVisible } from "./dom.js";

const MOST_ROWS = 1000; // of a log that is longer

/** Follows a stream's log, and goes on after the last row where it was cut off.
 *
 * onRows(rows, isNew): rows in order of their numbers; isNew: they came while somebody watched.
 * onReset(): all are gone. */
export class LogFollower {
  #connection;
  #onRows;
  #onReset;
  #following = new AbortController();

  constructor(connection, onRows, onReset) {
    this.#connection = connection;
    this.#onRows = onRows;
    this.#onReset = onReset;
  }

  /** Begins with this stream from its first row; null: with none. */
  follow(streamId) {
    this.#following.abort();
    this.#following = new AbortController();
    this.#onReset();
    if (streamId !== null) this.#run(streamId, this.#following.signal);
  }

  /** The last rows of a log, which is given from its first on, page by page. */
  async #past(path, signal) {
    let rows = [];
    for (let after = -1; ; after = rows.at(-1).number) {
      const page = await getJson(`${path}?after=${after}`, signal);
      rows = [...rows, ...listOf(page).filter(isRow)].slice(-MOST_ROWS);
      if (!page.has_more || !(rows.at(-1)?.number > after)) return rows;
    }
  }

  async #run(streamId, signal) {
    const path = streamPath(streamId, "/events");
    let last = -1;
    let wait_s = 0.5;
    let isFirst = true;
    const take = (rows, isNew) => {
      const fresh = rows.filter((row) => isRow(row) && row.number > last);
      if (signal.aborted || !fresh.length) return;
      last = fresh.at(-1).number;
      this.#onRows(fresh, isNew);
    };
    while (!signal.aborted) {
      await untilVisible();
      await this.#connection.up(signal);
      // A browser has few connections to one server: pages that nobody looks at must not keep them.
      const looking = whileVisible(signal);
      try {
        if (isFirst) take(await this.#past(path, looking.signal), false);
        isFirst = false;
        const headers = { "Last-Event-ID": String(last) };
        for await (const { data } of getEvents(path, { headers, signal: looking.signal })) {
          wait_s = 0.5;
          const row = parsed(data);
          if (row) take([row], true);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Lost || error instanceof Refused) this.#connection.poke();
      } finally {
        looking.abort();
      }
      await pause(wait_s, signal);
      wait_s = Math.min(5, wait_s * 1.6);
    }
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

function isRow(row) {
  return (
    row !== null &&
    typeof row === "object" &&
    Number.isInteger(row.number) &&
    Number.isFinite(row.start_s) &&
    Number.isFinite(row.end_s) &&
    typeof row.text === "string"
  );
}
