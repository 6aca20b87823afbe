// The start page: asks the gateway what runs, and carries out the first query.
"use strict";

const endpoint = new URL("graphql", document.baseURI);
const statusUrl = new URL("ui/status.json", document.baseURI);
// How often the gateway is asked while somebody looks, in milliseconds; the gateway itself asks the services at most once a second.
const INTERVAL = 3000;
const PATIENCE = 8000;

const WORDS = {
  UP: ["up", "up"],
  OUT_OF_SERVICE: ["warn", "not ready"],
  DOWN: ["down", "down"],
  UNREACHABLE: ["down", "does not answer"],
  UNKNOWN: ["", "not known"],
};

const element = (id) => document.getElementById(id);
const card = (name) => document.querySelector(`[data-service="${name}"]`);

function make(tag, text) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  return made;
}

function show(place, status, words) {
  const [kind, says] = WORDS[status] ?? WORDS.UNKNOWN;
  place.classList.remove("up", "warn", "down");
  if (kind) place.classList.add(kind);
  const text = place.querySelector(".says");
  // Written only when it changes: it is read out.
  if (text.textContent !== (words ?? says)) text.textContent = words ?? says;
}

function part({ name, status }) {
  const [kind, says] = WORDS[status] ?? WORDS.UNKNOWN;
  const made = make("span");
  if (kind) made.className = kind;
  made.append(Object.assign(make("span"), { className: "dot" }), status === "UP" ? name : `${name}: ${says}`);
  return made;
}

function links(address) {
  if (!address) return [];
  // Addresses of the machine that the gateway runs on are links only for a browser on the same machine.
  if (!["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) return [make("code", address)];
  return [["GraphiQL", "/graphql"], ["API page", "/swagger-ui/"], ["health", "/actuator/health"]].map(([what, path]) =>
    Object.assign(make("a", what), { href: address + path }),
  );
}

/** Kafka as the services see it: what one of them reaches is up. */
function kafka(services) {
  const seen = services.flatMap(({ components = [] }) => components.filter(({ name }) => name === "kafka"));
  if (seen.length === 0) return "UNKNOWN";
  return seen.some(({ status }) => status === "UP") ? "UP" : seen[0].status;
}

function showAll({ version, services }) {
  element("version").textContent = version;
  show(card("gateway").querySelector(".state"), "UP");
  for (const { name, status, components = [], address } of services) {
    const place = card(name);
    if (!place) continue;
    show(place.querySelector(".state"), status);
    place.querySelector(".parts").replaceChildren(...components.filter(({ name }) => name !== "kafka").map(part));
    const go = place.querySelector(".go");
    if (go.dataset.address !== String(address)) {
      go.dataset.address = String(address);
      go.replaceChildren(...links(address).flatMap((link) => [link, " "]));
    }
  }
  show(card("kafka").querySelector(".state"), kafka(services));
  const away = services.filter(({ status }) => status !== "UP").map(({ name }) => name);
  if (away.length === 0) show(element("overall"), "UP", "everything answers");
  else show(element("overall"), "OUT_OF_SERVICE", `${away.join(" and ")} ${away.length > 1 ? "are" : "is"} not well; the rest answers`);
}

function showSilence() {
  show(element("overall"), "DOWN", "the gateway does not answer");
  show(card("gateway").querySelector(".state"), "UNREACHABLE");
  for (const name of ["accounts", "orders", "kafka"]) show(card(name).querySelector(".state"), "UNKNOWN");
  for (const parts of document.querySelectorAll(".parts")) parts.replaceChildren();
}

async function ask() {
  if (document.visibilityState !== "hidden") {
    try {
      const answer = await fetch(statusUrl, { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.statusText);
      showAll(await answer.json());
    } catch {
      showSilence();
    }
  }
  setTimeout(ask, INTERVAL);
}

const query = (id) => element(id).textContent.trim();

function curl(id) {
  const body = JSON.stringify({ query: query(id).replace(/\s+/g, " ") }).replaceAll("'", "'\\''");
  return `curl -s ${endpoint.href} -H 'content-type: application/json' -d '${body}'`;
}

async function copy(button) {
  const text = curl(button.dataset.copy);
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without leave to write to the clipboard, as over plain HTTP from another machine: shown, to be copied by hand.
    tell(button.dataset.copy, text, false);
  }
  setTimeout(() => (button.textContent = before), 1500);
}

function tell(id, text, failed) {
  const answer = element(`${id}-answer`);
  answer.hidden = false;
  answer.textContent = text;
  answer.classList.toggle("failed", failed);
}

async function run(button) {
  const id = button.dataset.run;
  button.disabled = true;
  const begun = performance.now();
  try {
    const response = await fetch(endpoint, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify({ query: query(id) }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    const answer = await response.json();
    const time = `${(performance.now() - begun).toFixed(0)} ms`;
    const failed = Boolean(answer.errors);
    tell(id, `${failed ? "refused" : "answered"} in ${time}\n${JSON.stringify(failed ? answer : answer.data, null, 2)}`, failed);
    const created = answer.data?.createCustomer?.customer.id;
    if (created) {
      element("read").firstElementChild.textContent = query("read").replace(/id: ".*?"/, `id: ${JSON.stringify(created)}`);
      document.querySelector('[data-run="read"]').disabled = false;
    }
  } catch (problem) {
    tell(id, `no answer: ${problem.message}`, true);
  }
  button.disabled = false;
}

for (const buttons of document.querySelectorAll(".buttons")) buttons.hidden = false;
document.addEventListener("click", ({ target }) => {
  if (target.dataset?.run) run(target);
  else if (target.dataset?.copy) copy(target);
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") fetch(statusUrl).then((answer) => answer.json()).then(showAll, showSilence);
});
ask();
