// The question for the server's token, where it wants one.

import { forgetToken, hasToken, keepToken } from "./api.js";
import { byId, say } from "./dom.js";

/** Asks for the token once the connection says that one is wanted. */
export function prepareToken(connection) {
  const [dialog, input, problem] = [byId("token-dialog"), byId("token"), byId("token-problem")];
  let isWanted = false;
  connection.addEventListener("token", () => {
    isWanted = true;
    say(problem, hasToken() ? "The server does not take this token." : "");
    forgetToken();
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
  connection.addEventListener("found", () => {
    isWanted = false;
    dialog.close();
  });
  // There is nothing to see without it.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => isWanted && dialog.showModal());
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (keepToken(input.value.trim())) {
      input.value = "";
      say(problem, "");
      connection.poke();
    } else {
      say(problem, "A token has letters, digits and signs, and no spaces.");
    }
  });
}
