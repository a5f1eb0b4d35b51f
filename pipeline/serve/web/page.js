// Puts the page together: which stream is looked at, what is known of it, and whether the server is there.

import { Refused } from "./api.js";
import { Asking } from "./ask.js";
import { Connection } from "./connection.js";
import { byId, say } from "./dom.js";
import { LogFollower } from "./log.js";
import { Narration } from "./narration.js";
import { LivePicture } from "./picture.js";
import { StreamSeries } from "./series.js";
import { stateWords, StreamStrip } from "./streams.js";
import { Timeline } from "./timeline.js";
import { prepareToken } from "./token.js";
import { prepareViewer } from "./viewer.js";
import { count, percent } from "./words.js";

const connection = new Connection();
const strip = new StreamStrip(connection, (id) => {
  location.hash = `stream=${encodeURIComponent(id)}`;
});
const picture = new LivePicture(connection, (overlay) => {
  seriesOf(chosen).change.add(overlay.pts_s, overlay.change_share);
  timeline.draw();
});
const narration = new Narration();
const timeline = new Timeline();
const asking = new Asking(connection);
const log = new LogFollower(connection, addRows, resetLog);

const series = new Map(); // stream id -> StreamSeries
let chosen = null; // the id of the stream that is looked at
let started = null; // when the server began with it
let streams = [];

function seriesOf(id) {
  if (!series.has(id)) series.set(id, new StreamSeries());
  return series.get(id);
}

function addRows(rows, isNew) {
  narration.add(rows, isNew);
  timeline.add(rows);
}

function resetLog() {
  narration.reset(chosen);
  timeline.reset(chosen, chosen === null ? null : seriesOf(chosen));
}

/** The stream of the address where there is one of that name; else the one before, else the first. */
function wanted() {
  const named = new URLSearchParams(location.hash.slice(1)).get("stream");
  const ids = streams.map((stream) => stream.id);
  return [named, chosen].find((id) => ids.includes(id)) ?? ids[0] ?? null;
}

function look() {
  const id = wanted();
  const stream = streams.find((one) => one.id === id) ?? null;
  strip.show(streams, id);
  byId("no-streams").hidden = streams.length > 0;
  byId("watching").hidden = streams.length === 0;
  // A server that was started again has a log that begins anew.
  if (id !== chosen || (stream?.started ?? null) !== started) {
    if (id === chosen && id !== null) series.set(id, new StreamSeries());
    chosen = id;
    started = stream?.started ?? null;
    say(byId("stream-name"), id ?? "");
    document.title = id === null ? "Millpond" : `${id} · Millpond`;
    asking.about(id);
    picture.show(id);
    log.follow(id);
  }
  if (stream) tell(stream);
}

function tell(stream) {
  picture.isMoving = stream.state === "live" || stream.state === "connecting";
  byId("frame").dataset.state = stream.state;
  const isOver = stream.state === "ended" || stream.state === "failed";
  say(byId("no-picture"), isOver ? "There is no picture" : "Waiting for a picture…");
  say(byId("stream-state"), stateWords(stream));
  say(byId("stream-problem"), stream.problem ?? "");
  say(byId("stream-source"), stream.source);
  say(byId("num-frames"), count(stream.num_frames));
  say(byId("num-dropped"), count(stream.num_dropped));
  say(byId("num-reconnects"), count(stream.num_reconnects));
  say(byId("recomputed-share"), percent(stream.recomputed_share));
}

connection.addEventListener("states", ({ detail }) => {
  streams = detail.filter((stream) => typeof stream?.id === "string");
  const ids = new Set(streams.map((stream) => stream.id));
  for (const id of [...series.keys()]) if (!ids.has(id)) series.delete(id);
  look();
  for (const stream of streams) seriesOf(stream.id).addState(stream);
  timeline.draw();
});

let wasUp = false;
connection.addEventListener("found", () => {
  document.documentElement.dataset.connection = "up";
  say(byId("connection"), wasUp ? "Connected again" : "Connected");
  wasUp = true;
});
connection.addEventListener("lost", ({ detail }) =>
  away("lost", detail instanceof Refused ? detail.message : "Connection lost. Trying again…"),
);
connection.addEventListener("token", () => away("token", "A token is wanted"));

function away(why, words) {
  document.documentElement.dataset.connection = why;
  say(byId("connection"), words);
  strip.lose();
}
window.addEventListener("hashchange", look);

prepareToken(connection);
prepareViewer();
resetLog();
connection.run();
