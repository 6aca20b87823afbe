// One of the two windows: its own connections, what it was told, and nothing else.

import { follow } from "./tandem-live.js";
import { OPERATIONS, endpoint, token } from "./operations.js";
import { now } from "./way.js";

const SHOWN = 5;
export const STEPS = ["PLACED", "CONFIRMED", "SHIPPED", "DELIVERED"];
const VERBS = { CONFIRMED: "confirm", SHIPPED: "ship", DELIVERED: "deliver" };

export const nextStep = (status) => STEPS[STEPS.indexOf(status) + 1];

const several = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function make(tag, text, kind) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

export class Pane {
  /**
   * @param {"a" | "b"} name @param {"websocket" | "sse"} transport
   * @param {{arrived(pane: string, id: string, revision: number, times: object, at: number): void,
   *   shown(pane: string, id: string, revision: number): void, move(order: object): void, failed(error: Error): void}} page
   */
  constructor(name, transport, page) {
    Object.assign(this, { name, transport, page });
    this.place = document.querySelector(`[data-pane="${name}"]`);
    this.states = {};
  }

  /** Watches a customer. */
  watch(id) {
    this.leave();
    const controller = (this.controller = new AbortController());
    /** Resolved when both feeds have said what there is: whatever happens from then on is seen to happen. */
    this.ready = new Promise((resolve) => (this.isReady = resolve));
    const seen = new Set();
    const isCurrent = () => this.controller === controller;
    const common = { url: endpoint, transport: this.transport, token: () => token() ?? "", signal: controller.signal, silence: 15_000, longestPause: 2_000 };
    const state = (feed) => (now) => {
      if (!isCurrent()) return;
      this.states[feed] = now;
      this.showState();
    };
    const run = async (feed, options, take) => {
      try {
        const items = follow({ ...common, ...options, query: OPERATIONS[feed].query, onState: state(feed) });
        for await (const item of items) {
          if (!isCurrent()) return;
          take(item);
          if (item.complete !== false && seen.add(feed).size === 2) this.isReady();
        }
      } catch (problem) {
        if (isCurrent()) this.page.failed(problem);
      }
    };
    OPERATIONS.orderFeed.variables = { customerId: id };
    OPERATIONS.customerFeed.variables = { id };
    run("orderFeed", { variables: { customerId: id }, onRestart: () => this.orders.clear() }, (item) => this.takeOrder(item));
    run("customerFeed", { variables: { id } }, (item) => this.takeCustomer(item));
    this.draw();
  }

  /** Watches nobody. */
  leave() {
    const { controller } = this;
    this.controller = null;
    controller?.abort();
    this.orders = new Map();
    this.person = null;
    this.states = {};
    this.showState();
    this.draw();
  }

  takeOrder(item) {
    if (item.__typename === "OrderSnapshot") {
      for (const order of item.orders) {
        this.orders.set(order.id, order);
        this.page.shown(this.name, order.id, order.revision);
      }
    } else {
      const { order, publishedAt } = item;
      this.orders.set(order.id, order);
      this.fresh = order.id;
      this.page.arrived(this.name, order.id, order.revision, { changedAt: order.updatedAt, publishedAt }, now());
    }
    this.draw();
  }

  takeCustomer(item) {
    const { publishedAt } = item;
    const customer = item.customer ?? item.changed;
    if (!customer) return;
    this.person = customer;
    const { id, replica } = customer;
    const revision = replica?.revision ?? 0;
    if (item.__typename === "CustomerSnapshot") {
      this.page.shown(this.name, id, revision);
    } else {
      this.fresh = id;
      this.page.arrived(this.name, id, revision, { ...replica, publishedAt }, now());
    }
    this.draw();
  }

  showState() {
    const states = Object.values(this.states);
    const [isOver, waits] = ["ended", "waiting"].map((state) => states.some(({ is }) => is === state));
    const isLive = states.length === 2 && states.every(({ is }) => is === "live");
    const place = this.place.querySelector(".state");
    place.className = `state ${isOver ? "down" : waits ? "warn" : isLive ? "up" : ""}`;
    const says = isOver ? "refused" : waits ? "waits to resume" : isLive ? "live" : this.controller ? "connecting" : "…";
    const text = place.querySelector(".says");
    if (text.textContent !== says) text.textContent = says;
    const sum = (of) => states.reduce((total, { counts }) => total + counts[of], 0);
    const again = Math.max(0, sum("connections") - 2);
    const gaps = sum("missed");
    this.place.querySelector(".counts").textContent =
      `${several(sum("items"), "item")}, ${several(sum("heartbeats"), "heartbeat")}` +
      (again ? `, resumed ${several(again, "time")}` : "") +
      (gaps ? `, ${several(gaps, "gap")} noticed and closed` : "");
  }

  /** The newest order that can go a step on. */
  movable() {
    return [...this.orders.values()].reverse().find(({ status }) => nextStep(status));
  }

  draw() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.drawNow();
    });
  }

  drawNow() {
    const person = this.place.querySelector(".person");
    if (this.person) {
      const { name, contact, replica, id } = this.person;
      // A name may be of any script, and turn no text around it.
      person.replaceChildren(
        make("bdi", `${name.firstName} ${name.lastName}`),
        " ",
        make("small", `${contact.email}, revision ${replica?.revision ?? "?"}`),
      );
      this.flash(person, id);
    } else {
      person.replaceChildren(make("small", this.controller ? "on its way to orders …" : "nobody is watched yet"));
    }
    const list = this.place.querySelector(".rows");
    const newest = [...this.orders.values()].sort((one, other) => (one.id < other.id ? 1 : -1));
    const rows = newest.slice(0, SHOWN).map((order) => this.row(order));
    const more = newest.length - rows.length;
    if (more > 0) rows.push(make("li", `and ${more} more`, "none"));
    if (rows.length === 0) rows.push(make("li", "No orders yet.", "none"));
    // Rows are made anew: whoever goes by keyboard stays where they were.
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.order : null;
    list.replaceChildren(...rows);
    if (focused) {
      const same = [...list.querySelectorAll("button")].find(({ dataset }) => dataset.order === focused);
      (same ?? list.querySelector("button"))?.focus({ preventScroll: true });
    }
    this.fresh = null;
  }

  row(order) {
    const row = make("li");
    const steps = make("span", "", "steps-of");
    const at = STEPS.indexOf(order.status);
    steps.append(...STEPS.map((_, index) => make("i", "", index <= at ? "on" : "")));
    const status = make("span");
    status.append(steps, order.status.toLowerCase());
    const next = nextStep(order.status);
    const end = next ? make("button", VERBS[next]) : make("span", order.total);
    if (next) {
      end.type = "button";
      end.dataset.order = order.id;
      end.setAttribute("aria-label", `${VERBS[next]} the order ${order.id.slice(-5)}`);
      end.addEventListener("click", () => this.page.move(order));
    }
    row.append(make("code", `…${order.id.slice(-5)}`), status, end);
    this.flash(row, order.id);
    return row;
  }

  flash(place, id) {
    if (this.fresh !== id) return;
    place.classList.remove("fresh");
    // Reading a measure makes the browser begin the animation anew.
    void place.offsetWidth;
    place.classList.add("fresh");
  }
}
