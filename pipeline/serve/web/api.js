// The server's API: requests with the token, errors as sentences, Server-Sent Events over fetch.
// No event source of the browser's, and no picture by its address alone: neither can send an Authorization header.

const TOKEN = "millpond-token";
const REPLY_S = 10; // a reply begins within this
const SILENCE_S = 60; // a stream of events that says nothing for as long, not even a comment, is lost
const MOST_LETTERS = 1 << 20; // of one event

/** The server answered, and refused. status: the HTTP status. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The server did not answer, or not to the end. */
export class Lost extends Error {}

export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN));

/** Keeps the token for as long as this tab lives; false where it could be no token. */
export function keepToken(token) {
  if (!/^[\x21-\x7e]+$/.test(token)) return false;
  sessionStorage.setItem(TOKEN, token);
  return true;
}

export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** Where the pictures of a stream's moment are. */
export const framePath = (streamId, time_s) =>
  `/v1/streams/${encodeURIComponent(streamId)}/frames/${+time_s.toFixed(3)}.jpg`;

export const streamPath = (streamId, rest = "") => `/v1/streams/${encodeURIComponent(streamId)}${rest}`;

/** The path of a keyframe that an answer names; null where it leads anywhere else. */
export function keyframePath(given) {
  return typeof given === "string" && /^\/v1\/streams\/[^/\\?#]+\/frames\/[^/\\?#]+\.jpg$/.test(given) ? given : null;
}

async function send(path, { method = "GET", headers = {}, body, signal } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const given = new Headers(headers);
  if (token) given.set("Authorization", `Bearer ${token}`);
  if (body !== undefined) given.set("Content-Type", "application/json");
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), REPLY_S * 1000);
  const stop = () => late.abort();
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    const response = await fetch(path, {
      method,
      headers: given,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: late.signal,
      redirect: "error",
      credentials: "omit",
      cache: "no-cache",
    });
    if (!response.ok) throw new Refused(await reasonOf(response), response.status);
    return { response, stop, done: () => signal?.removeEventListener("abort", stop) };
  } catch (error) {
    signal?.removeEventListener("abort", stop);
    if (error instanceof Refused || signal?.aborted) throw error;
    throw new Lost("The server does not answer.");
  } finally {
    clearTimeout(timer);
  }
}

async function reasonOf(response) {
  try {
    const told = await response.json();
    const message = told?.error?.message;
    if (typeof message === "string" && message) return message;
  } catch {
    // Not ours, or cut off: the status says it.
  }
  return `The server answered ${response.status} ${response.statusText}`.trim() + ".";
}

async function whole(sent, read) {
  const timer = setTimeout(sent.stop, REPLY_S * 1000);
  try {
    return await read(sent.response);
  } catch {
    throw new Lost("The server stopped in the middle of a reply.");
  } finally {
    clearTimeout(timer);
    sent.done();
  }
}

/** The JSON behind a path. */
export async function getJson(path, signal) {
  const sent = await send(path, { headers: { Accept: "application/json" }, signal });
  if (sent.response.status === 204) return null;
  return whole(sent, (response) => response.json());
}

/** The picture behind a path, as an address of this page that has to be given back. */
export async function getPicture(path, signal) {
  const sent = await send(path, { headers: { Accept: "image/jpeg" }, signal });
  const { headers } = sent.response;
  const blob = await whole(sent, (response) => response.blob());
  return { url: URL.createObjectURL(blob), headers };
}

/** The Server-Sent Events behind a path, one after another: {id, event, data}. Ends where the server ends them. */
export async function* getEvents(path, { method, body, headers = {}, signal } = {}) {
  const sent = await send(path, { method, body, headers: { ...headers, Accept: "text/event-stream" }, signal });
  const reader = sent.response.body.pipeThrough(new TextDecoderStream()).getReader();
  let silence = setTimeout(sent.stop, SILENCE_S * 1000);
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(sent.stop, SILENCE_S * 1000);
      yield* parser.feed(value);
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Lost("The server stopped in the middle of a reply.");
  } finally {
    clearTimeout(silence);
    sent.done();
    sent.stop();
  }
}

/** Pieces of text to events. */
export class EventParser {
  #rest = "";
  #data = [];
  #held = 0; // letters in it
  #event = "";
  #id = null;

  *feed(text) {
    this.#rest += text;
    if (this.#rest.length + this.#held > MOST_LETTERS) throw new Error("an event without an end");
    // A carriage return at the end may be half of a line's end.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) yield { id: this.#id, event: this.#event || "message", data: this.#data.join("\n") };
        this.#data = [];
        this.#held = 0;
        this.#event = "";
        continue;
      }
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") {
        this.#data.push(value);
        this.#held += value.length + 1;
      } else if (field === "event") this.#event = value;
      else if (field === "id") this.#id = value;
    }
  }
}
