// The live page: somebody changes something, and sees it arrive.

import { Ledger } from "./ledger.js";
import { OPERATIONS, change, curl, endpoint, mayPass, pause, send, token, useToken } from "./operations.js";
import { Pane, nextStep } from "./pane.js";
import { Way } from "./way.js";

const element = (id) => document.getElementById(id);
const base = new URL(".", endpoint);
const statusUrl = new URL("ui/status.json", base);
const livePage = new URL("ui/live/here.json", base);
/** How often the page changes something by itself, and how often it asks what runs, in milliseconds. */
const GOES_ON = 700;
const INTERVAL = 1500;
/** How long it waits for both windows before it changes something all the same. */
const PATIENCE = 3000;

const FIRST = ["Ada", "Grace", "Emmy", "Mary", "Sofia", "Hedy", "Katherine", "Rosalind", "Lise", "Maria"];
const LAST = ["Lovelace", "Hopper", "Noether", "Somerville", "Kovalevskaya", "Lamarr", "Johnson", "Franklin", "Meitner", "Mitchell"];
const GOODS = [["Engine, analytical", "512.30"], ["Punched cards", "4.80"], ["Gear, brass", "12.50"], ["Ledger, bound", "23.90"], ["Lamp", "61.00"]];

const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const any = (list) => list[Math.floor(Math.random() * list.length)];

const ledger = new Ledger();
const way = new Way();
let customer = null;
/** The last name that this page gave last. */
let lastGiven = "";

const page = {
  arrived(pane, id, revision, times, at) {
    ledger.arrived(pane, id, revision);
    way.arrived(id, revision, times, at);
  },
  shown: (pane, id, revision) => ledger.shown(pane, id, revision),
  move: (order) => move(order),
  failed(problem) {
    say(problem.message, true);
    if (problem.code === "UNAUTHENTICATED") askForToken();
  },
};

const panes = [new Pane("a", "websocket", page), new Pane("b", "sse", page)];

function say(text, failed = false) {
  element("said").textContent = text;
  element("said").classList.toggle("failed", failed);
}

function askForToken() {
  element("token-form").hidden = false;
}

/** Does a change, draws its way, and writes it into the ledger when it is answered. */
async function carryOut(service, what, name, variables, watched = customer) {
  const drawn = way.begin(service, what);
  const waits = (problem) => say(`${service} does not answer now (${problem.message}); sent again until it does`);
  try {
    const answer = await change(name, variables, waits);
    const { id, revision } = answer.order ?? answer.customer;
    // The windows may watch somebody else by now.
    if (watched === customer) ledger.answered(id, revision);
    way.answered(drawn, id, revision);
    say("");
    return answer;
  } catch (problem) {
    way.refused(drawn, problem);
    page.failed(problem);
    return null;
  }
}

const key = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

async function create() {
  const [firstName, lastName] = [any(FIRST), any(LAST)];
  lastGiven = lastName;
  const id = `live-${Date.now().toString(36)}`;
  const input = {
    id,
    idempotencyKey: key(),
    name: { firstName, lastName },
    contact: { primaryPhone: "+44 20 7946 0001", email: `${firstName}@example.org`.toLowerCase() },
    addresses: [{ type: "SHIPPING", address1: "1 Ockham Park", city: "Ockham", state: "Surrey", postalCode: "GU23 6NQ" }],
  };
  // Watched before it is there, so that its arrival is seen.
  const before = customer;
  choose(id, `${firstName} ${lastName}`);
  await Promise.race([Promise.all(panes.map(({ ready }) => ready)), wait(PATIENCE)]);
  const created = await carryOut("accounts", `${firstName} ${lastName} became a customer.`, "create", { input }, id);
  if (created || customer !== id) return;
  element("customer").querySelector(`[value="${id}"]`).remove();
  if (before) choose(before);
  else chooseNobody();
}

function changeCustomer() {
  // Never the name that this page gave last: that would be no change.
  const name = { firstName: any(FIRST), lastName: any(LAST.filter((last) => last !== lastGiven)) };
  lastGiven = name.lastName;
  const input = { idempotencyKey: key(), name };
  return carryOut("accounts", `The customer is called ${name.firstName} ${name.lastName} now.`, "change", { id: customer, input });
}

function place() {
  const [title, price] = any(GOODS);
  const input = {
    customerId: customer,
    idempotencyKey: key(),
    items: [{ quantity: 1 + Math.floor(Math.random() * 3), product: { guid: title.toLowerCase().replace(/\W+/g, "-"), title, price } }],
  };
  return carryOut("orders", `An order was placed: ${title}.`, "place", { input });
}

const moving = new Set();

async function move(order) {
  const to = order && nextStep(order.status);
  if (!to || moving.has(order.id)) return null;
  moving.add(order.id);
  try {
    return await carryOut("orders", `The order …${order.id.slice(-5)} is ${to.toLowerCase()} now.`, "move", { id: order.id, to });
  } finally {
    moving.delete(order.id);
  }
}

/** The order that both windows show and that can go on. */
const movable = () => panes[0].movable() ?? panes[1].movable();

const NEED_CUSTOMER = ["place", "move", "change", "go-on"];

function chooseNobody() {
  customer = null;
  for (const name of NEED_CUSTOMER) element(name).disabled = true;
  for (const pane of panes) pane.leave();
}

function choose(id, label) {
  if (customer !== id) ledger.watchAnew();
  customer = id;
  const list = element("customer");
  if (![...list.options].some(({ value }) => value === id)) list.prepend(new Option(label, id));
  list.value = id;
  for (const name of NEED_CUSTOMER) element(name).disabled = false;
  for (const pane of panes) pane.watch(id);
}

function show(nodes) {
  const list = element("customer");
  const known = new Set([...list.options].map(({ value }) => value));
  const label = ({ id, name }) => (name.lastName ? `${name.firstName} ${name.lastName} (${id})` : id);
  list.append(...nodes.filter(({ id }) => !known.has(id)).map((node) => new Option(label(node), node.id)));
  element("token-form").hidden = true;
  say(nodes.length > 0 || customer ? "" : "There are no customers yet: make one.");
  if (nodes.length > 0 && !customer) choose(nodes[0].id);
}

let isLoading = false;

/** Shows the customers that there are, however long whoever knows them is away. */
async function load() {
  if (isLoading) return;
  isLoading = true;
  for (let tries = 0; isLoading; tries += 1) {
    try {
      show((await send("customers", {})).nodes);
      isLoading = false;
    } catch (problem) {
      page.failed(problem);
      isLoading = mayPass(problem);
      if (isLoading) await wait(pause(tries));
    }
  }
}

let turn = 0;

async function goOn() {
  if (element("go-on").checked && customer) {
    turn += 1;
    if (turn % 5 === 0) await changeCustomer();
    else if (turn % 2 === 0 && movable()) await move(movable());
    else await place();
  }
  setTimeout(goOn, GOES_ON);
}

const WORDS = { UP: "up", OUT_OF_SERVICE: "warn", DOWN: "down", UNREACHABLE: "down" };

function showStatus({ version, services }) {
  element("version").textContent = version;
  const kafka = services.flatMap(({ components = [] }) => components.filter(({ name }) => name === "kafka"));
  const broker = kafka.some(({ status }) => status === "UP") ? "UP" : kafka[0]?.status;
  const states = { broker, ...Object.fromEntries(services.map(({ name, status }) => [name, status])) };
  for (const button of document.querySelectorAll("[data-kill]")) {
    const state = WORDS[states[button.dataset.kill]] ?? "";
    button.className = state;
    button.title = `${button.dataset.kill} is ${{ up: "up", warn: "not well", down: "away" }[state] ?? "not known"}`;
  }
  const away = Object.entries(states).filter(([, status]) => status !== "UP").map(([name]) => name);
  const overall = element("overall");
  overall.className = `overall ${away.length ? "warn" : "up"}`;
  const says = away.length ? `${away.join(" and ")}: not well` : "everything answers";
  if (overall.lastElementChild.textContent !== says) overall.lastElementChild.textContent = says;
}

async function watchStatus() {
  if (document.visibilityState !== "hidden") {
    try {
      showStatus(await (await fetch(statusUrl, { signal: AbortSignal.timeout(5000) })).json());
    } catch {
      element("overall").className = "overall down";
      element("overall").lastElementChild.textContent = "the gateway does not answer";
    }
  }
  setTimeout(watchStatus, INTERVAL);
}

async function kill(button) {
  const service = button.dataset.kill;
  const isFocused = document.activeElement === button;
  button.disabled = true;
  try {
    const answer = await fetch(new URL(`ui/live/kill/${service}`, base), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
      signal: AbortSignal.timeout(8000),
    });
    const told = await answer.json();
    element("killed").textContent = answer.ok
      ? `${service} (process ${told.pid}) was killed with SIGKILL. tandem up starts it again; the windows resume by themselves.`
      : told.detail;
  } catch (problem) {
    element("killed").textContent = `no answer: ${problem.message}`;
  }
  button.disabled = false;
  // Whoever goes by keyboard stays where they were.
  if (isFocused) button.focus();
}

/** What may be killed is known when the gateway says so, and not because it says nothing. */
async function showKills(tries = 0) {
  const asked = fetch(livePage, { signal: AbortSignal.timeout(8000) });
  const here = await asked.then((answer) => answer.json()).catch(() => null);
  if (typeof here?.kills !== "boolean") {
    setTimeout(() => showKills(tries + 1), pause(tries));
    return;
  }
  const { kills } = here;
  element("kills").hidden = !kills;
  element("break-lead").textContent = kills
    ? "Each button kills a process at once, with no time to tidy up. Let the changes keep going meanwhile, and watch the counters."
    : "Under tandem up on your own machine, buttons here kill accounts, orders or the broker. Elsewhere they are switched off, as here.";
}

function operations() {
  return Object.entries(OPERATIONS).map(([name, { what, query }]) => {
    const made = document.createElement("details");
    const summary = document.createElement("summary");
    const small = document.createElement("small");
    const title = query.match(/\w+ (\w+)/)[1];
    small.textContent = ` ${what}`;
    summary.append(title, small);
    const code = document.createElement("pre");
    code.tabIndex = 0;
    code.textContent = query;
    const bar = document.createElement("p");
    bar.className = "bar";
    for (const [label, text] of [["Copy", () => query], ["Copy as curl", () => curl(name)]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => copy(button, text()));
      bar.append(button);
    }
    made.append(summary, code, bar);
    return made;
  });
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without leave to write to the clipboard, as over plain HTTP from another machine: shown, to be copied by hand.
    button.closest("details").querySelector("pre").textContent = text;
    button.textContent = "Shown above";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

element("new-customer").addEventListener("click", create);
element("place").addEventListener("click", place);
element("change").addEventListener("click", changeCustomer);
element("move").addEventListener("click", () => (movable() ? move(movable()) : say("No order can go on: place one.")));
element("customer").addEventListener("change", ({ target }) => choose(target.value));
element("kills").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-kill]");
  if (button) kill(button);
});
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(element("token").value);
  // What was refused the old one is asked for with this one.
  if (customer) choose(customer);
  load();
});
element("operations").append(...operations());
if (token()) element("token").value = token();
showKills();
watchStatus();
load();
goOn();
