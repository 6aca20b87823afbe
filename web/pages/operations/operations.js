// The operator's page: what the services tell of themselves, drawn again and again, and what puts things right.

import { askAll, here, token, useToken } from "./api.js";
import { offerAudit } from "./audit.js";
import { element, say } from "./elements.js";
import { watchHealth } from "./health.js";
import { watchLetters } from "./letters.js";
import { watchLogs, watchWaiting } from "./log.js";
import { watchRebuilds } from "./rebuild.js";

const HINTS = {
  token: "tandem token --scope “operations customers:read” prints one under tandem up --auth. It is kept until this tab is closed.",
  nobody:
    "Authentication is off here, and the gateway cannot show that an operator asks: only under tandem up on loopback it can. Use the commands of tandem, or set up authentication.",
};

/** How the gateway knows operators: by their `token`, or `everybody` is one, or `nobody`. */
let operators = "token";

/** Somebody is asked for a token when one was missing or not enough, and told why. */
function refused(problem) {
  if (!problem.isOfTheToken || operators === "everybody") return;
  element("token-form").hidden = false;
  if (element("token-said").textContent !== problem.message) say("token-said", problem.message, token() !== "");
}

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(element("token").value);
  say("token-said", "");
  element("token-form").hidden = true;
  element("services").focus();
  askAll();
});

try {
  ({ operators } = await here());
  element("token-hint").textContent = HINTS[operators] ?? "";
  if (operators === "token" && !token()) element("token-form").hidden = false;
} catch {
  // The parts of the page say that nobody answers.
}
watchHealth(refused);
watchLogs(refused);
watchLetters(refused);
watchWaiting(refused);
watchRebuilds(refused);
offerAudit(refused);
