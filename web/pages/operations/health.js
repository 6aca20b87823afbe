// The gateway and the services: the state of each component with its reason, and the outbox first of all.

import { SERVICES, gatewayHealth, get } from "./api.js";
import { draw, element, keep, make, several } from "./elements.js";

const WORDS = {
  UP: ["up", "up"],
  DEGRADED: ["warn", "degraded"],
  OUT_OF_SERVICE: ["warn", "not ready"],
  DOWN: ["down", "down"],
};
const UNKNOWN = ["", "not known"];
const GATEWAY = "gateway";
const PARTS = [GATEWAY, ...SERVICES];
const REASONS = ["error", "reason", "failure", "refusal", "alarms"];
const states = {};

function facts(details, left) {
  const told = Object.entries(details).filter(([name]) => !left.includes(name));
  if (told.length === 0) return null;
  return make("p", { kind: "facts", text: told.map(([name, value]) => `${name} ${value}`).join(" · ") });
}

function component(name, { status, details = {} }) {
  const [kind, word] = WORDS[status] ?? UNKNOWN;
  const reasons = REASONS.filter((one) => details[one]).map((one) => make("span", { kind: "reason", text: String(details[one]) }));
  const head = make("span", {}, make("span", { kind: "dot" }), make("b", { text: name }), make("span", { kind: "word", text: ` ${word}` }));
  head.className = kind;
  return make("div", { kind: `component ${kind}`, "data-component": name }, head, ...reasons, facts(details, REASONS));
}

function outbox({ status, details = {} }) {
  const waits = details.pendingEvents;
  const text =
    waits === undefined
      ? "Outbox: the store does not tell how many events wait."
      : waits === 0
        ? "Outbox: nothing waits to be published."
        : `Outbox: ${several(waits, "event")} waiting to be published, the oldest for ${details.oldestPendingSeconds} s.`;
  return make("p", { text, kind: WORDS[status]?.[0] === "up" ? "" : "since", "data-outbox": waits ?? "unknown" });
}

function state(place, kind, word) {
  const shown = place.querySelector(".state");
  shown.className = `state ${kind}`;
  const says = shown.querySelector(".says");
  if (says.textContent !== word) says.textContent = word;
}

function overall() {
  const place = element("overall");
  const told = PARTS.filter((part) => states[part]);
  const ill = told.filter((part) => states[part] !== "UP");
  const worst = ill.some((part) => WORDS[states[part]]?.[0] !== "warn") ? "down" : "warn";
  place.className = `overall ${told.length < PARTS.length ? "" : ill.length ? worst : "up"}`;
  const words = (part) => `${part} ${WORDS[states[part]]?.[1] ?? "does not answer"}`;
  const text = told.length < PARTS.length ? "asking …" : ill.length ? ill.map(words).join(", ") : "all is well";
  const says = place.querySelector(".says");
  if (says.textContent !== text) says.textContent = text;
}

export function watchHealth(refused) {
  for (const part of PARTS) {
    const place = document.querySelector(`[data-health="${part}"]`);
    // The gateway has none.
    const drawOutbox = (...shown) => {
      const box = place.querySelector(".outbox");
      if (box) draw(box, ...shown);
    };
    keep(
      place,
      () => (part === GATEWAY ? gatewayHealth() : get(part, "health")),
      ({ status, components = {} }) => {
        states[part] = status;
        state(place, ...(WORDS[status] ?? UNKNOWN));
        const { outbox: own, ...others } = components;
        drawOutbox(own && outbox(own));
        const all = Object.entries({ ...(own ? { outbox: own } : {}), ...others });
        draw(place.querySelector(".components"), ...all.map(([name, told]) => component(name, told)));
        overall();
      },
      (problem) => {
        states[part] = problem.isOfTheToken ? "UNKNOWN" : "UNREACHABLE";
        state(place, ...(problem.isOfTheToken ? UNKNOWN : ["down", "does not answer"]));
        // Of what does not answer nobody knows how its parts are.
        drawOutbox();
        draw(place.querySelector(".components"));
        overall();
        refused(problem);
      },
    );
  }
}
