// The live picture of one stream, with what the model did to it.

import { getJson, getPicture, Lost, streamPath } from "./api.js";
import { byId, pause, say, untilVisible } from "./dom.js";
import { OverlayLayers } from "./overlay.js";
import { clock, count, percent } from "./words.js";

const EVERY_S = 0.5;
const EVERY_AT_REST_S = 3; // where the stream ended or has no picture yet

/** Shows a stream until it is told to show another. Calls `onOverlay(overlay)` with each that came. */
export class LivePicture {
  #connection;
  #onOverlay;
  #frame = byId("frame");
  #image = byId("picture");
  #layers = new OverlayLayers(byId("layers"));
  #showing = new AbortController();
  #isMoving = true;

  constructor(connection, onOverlay) {
    this.#connection = connection;
    this.#onOverlay = onOverlay;
    for (const [box, name] of [["show-recomputed", "recomputed"], ["show-kept", "kept"]]) {
      const input = byId(box);
      const apply = () => this.#layers[name].toggleAttribute("hidden", !input.checked);
      input.addEventListener("change", apply);
      apply();
    }
  }

  show(streamId) {
    this.#showing.abort();
    this.#showing = new AbortController();
    this.#blank();
    if (streamId !== null) this.#run(streamId, this.#showing.signal);
  }

  /** Whether new pictures are to be expected. */
  set isMoving(isMoving) {
    this.#isMoving = isMoving;
  }

  async #run(streamId, signal) {
    while (!signal.aborted) {
      await untilVisible();
      await this.#connection.up(signal);
      const began = performance.now();
      const came = await this.#once(streamId, signal);
      const rest_s = came && this.#isMoving ? EVERY_S : EVERY_AT_REST_S;
      await pause(Math.max(0.05, rest_s - (performance.now() - began) / 1000), signal);
    }
  }

  /** Fetches and shows one picture; whether there was one. */
  async #once(streamId, signal) {
    let picture = null;
    try {
      let overlay;
      [picture, overlay] = await Promise.all([
        getPicture(streamPath(streamId, "/snapshot.jpg"), signal),
        getJson(streamPath(streamId, "/overlay"), signal).catch(noneUnlessLost),
      ]);
      if (signal.aborted) throw new Lost("another stream is shown");
      await this.#put(picture, streamId);
      this.#tell(overlay);
      return true;
    } catch (error) {
      if (picture) URL.revokeObjectURL(picture.url);
      if (error instanceof Lost && !signal.aborted) this.#connection.poke();
      return false;
    }
  }

  async #put({ url, headers }, streamId) {
    const next = new Image();
    next.src = url;
    await next.decode();
    const before = this.#image.src;
    this.#image.src = url;
    const at_s = Number(headers.get("Millpond-Time") ?? NaN);
    this.#image.alt = `Newest picture of ${streamId}, at ${clock(at_s)}`;
    this.#image.hidden = false;
    byId("no-picture").hidden = true;
    this.#frame.style.setProperty("--shape", `${next.naturalWidth} / ${next.naturalHeight}`);
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }

  #tell(overlay) {
    const { patches, tokens } = this.#layers.draw(overlay);
    say(byId("told-recomputed"), patches ? share(patches, "patches recomputed") : "None encoded yet");
    // The newest tokens are all kept, so what is known is of a picture some seconds before this one.
    const isOlder = tokens && Math.abs((overlay.kept_pts_s ?? overlay.pts_s) - overlay.pts_s) > 0.05;
    const of = isOlder ? `tokens kept, at ${clock(overlay.kept_pts_s)}` : "tokens kept";
    say(byId("told-kept"), tokens ? share(tokens, of) : "None chosen yet");
    say(byId("told-change"), overlay ? `${percent(overlay.change_share)} changed, at ${clock(overlay.pts_s)}` : "");
    if (overlay) this.#onOverlay(overlay);
  }

  #blank() {
    if (this.#image.src.startsWith("blob:")) URL.revokeObjectURL(this.#image.src);
    this.#image.removeAttribute("src");
    this.#image.hidden = true;
    byId("no-picture").hidden = false;
    this.#layers.draw(null);
    for (const id of ["told-recomputed", "told-kept", "told-change"]) say(byId(id), "");
  }
}

const share = (grid, of) => `${count(grid.count)} of ${count(grid.has.length)} ${of}`;

/** A stream without an overlay still has a picture. */
function noneUnlessLost(error) {
  if (error instanceof Lost) throw error;
  return null;
}
