// Keyframes: links to them, and the window in which they are looked at.

import { getPicture } from "./api.js";
import { byId, el, say } from "./dom.js";

/** A link to the picture at a path; `told` says what it shows. */
export function keyframeLink(path, told, attributes, ...children) {
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
    event.preventDefault();
    openKeyframe(path, told);
  };
  return el("a", { href: path, onclick: open, ...attributes }, ...children);
}

let shown = 0;

/** Opens the window; whoever had the focus has it again when it is closed. */
export async function openKeyframe(path, told) {
  const [dialog, image, words] = [byId("viewer"), byId("viewer-picture"), byId("viewer-words")];
  const mine = (shown += 1);
  clear(image);
  say(byId("viewer-title"), told);
  say(words, "Fetching the picture…");
  if (!dialog.open) dialog.showModal();
  try {
    const { url } = await getPicture(path);
    if (mine !== shown || !dialog.open) return URL.revokeObjectURL(url);
    image.src = url;
    image.alt = `Keyframe: ${told}`;
    image.hidden = false;
    say(words, "");
  } catch (error) {
    if (mine === shown) say(words, error.message);
  }
}

/** Makes the window work. */
export function prepareViewer() {
  const dialog = byId("viewer");
  dialog.addEventListener("close", () => {
    shown += 1;
    clear(byId("viewer-picture"));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the picture
  });
  byId("viewer-close").addEventListener("click", () => dialog.close());
}

function clear(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = true;
}
