// Times, shares and bytes, as people read them.

/** Seconds of stream time: 0:07, 12:30, 1:02:03. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.floor(Math.abs(seconds) + 1e-6);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const tail = String(whole % 60).padStart(2, "0");
  const told = hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
  return seconds < 0 ? `−${told}` : told;
}

/** A stretch of stream time. */
export function stretch(start_s, end_s) {
  const [start, end] = [clock(start_s), clock(end_s)];
  return start === end ? start : `${start}–${end}`;
}

/** A time of a wall clock, in the reader's own zone; null where it is none. */
export function wallTime(rfc3339) {
  const date = new Date(rfc3339 ?? NaN);
  if (Number.isNaN(date.getTime())) return null;
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** A share between 0 and 1. */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  return `${value >= 0.05 && value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
}

/** Bytes, in the largest unit that leaves a number above 1. */
export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** How long ago, or how far behind. */
export function ago(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return clock(seconds);
}

export const count = (number) => (Number.isFinite(number) ? number.toLocaleString("en") : "–");
