// Elements, made without ever reading HTML from a string: whatever a model said is text.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is a string becomes text. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same, of a picture. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Sets the text of a node, where it differs: a live region is read aloud only when something is new. */
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** Waits; ends early, without an error, where the signal does. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal?.addEventListener("abort", end);
  });
}

/** Waits until somebody looks at the page. */
export function untilVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}

/** Ends when nobody looks at the page any more, with `signal`, or when it is aborted itself. */
export function whileVisible(signal) {
  const looking = new AbortController();
  const look = () => {
    if (document.hidden || signal.aborted) looking.abort();
  };
  document.addEventListener("visibilitychange", look, { signal: looking.signal });
  signal.addEventListener("abort", look, { signal: looking.signal });
  look();
  return looking;
}
