// The way of the last change, drawn as it happens, with the time of each hop as far as it can be known.

const element = (id) => document.getElementById(id);
const stop = (name) => document.querySelector(`[data-stop="${name}"]`);
const hop = (name) => document.querySelector(`[data-hop="${name}"]`);

const STOPS = ["service", "outbox", "kafka", "replica", "window"];
const HOPS = ["answer", "publish", "replicate", "arrive"];
/** How long the dot takes for a hop, in milliseconds. */
const STEP = 260;
const KEPT = 50;

/** The time of day of the page's own clock, in milliseconds, which does not jump. */
export const now = () => performance.timeOrigin + performance.now();

const milliseconds = (time) => {
  if (time === null || Number.isNaN(time)) return "–";
  // Two clocks may differ by less than they tell.
  if (time < 1) return "< 1 ms";
  return time < 10_000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
};

const between = (from, to) => (from && to ? new Date(to).getTime() - new Date(from).getTime() : null);

export class Way {
  constructor() {
    this.current = null;
    this.totals = [];
    const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    element("clocks").textContent = isHere ? ": here all on one machine" : ", which may differ";
  }

  /** A change was sent. `service` is accounts or orders. */
  begin(service, what) {
    this.current = { service, what, begun: performance.now(), early: [] };
    element("what").textContent = what;
    for (const name of STOPS) stop(name).classList.remove("reached", "waiting");
    for (const name of HOPS) {
      hop(name).classList.remove("passed");
      hop(name).querySelector("b").textContent = "–";
    }
    stop("service").querySelector("b").textContent = service;
    const isOrder = service === "orders";
    stop("replica").classList.toggle("aside", isOrder);
    hop("replicate").classList.toggle("aside", isOrder);
    stop("service").classList.add("waiting");
    return this.current;
  }

  /** It was answered: it is stored, and in the outbox with it. */
  answered(change, id, revision) {
    Object.assign(change, { id, revision });
    if (change !== this.current) return;
    this.tell("answer", performance.now() - change.begun);
    stop("service").classList.replace("waiting", "reached") || stop("service").classList.add("reached");
    hop("answer").classList.add("passed");
    stop("outbox").classList.add("reached");
    for (const early of change.early) this.arrived(...early);
    if (!change.isHere) stop("kafka").classList.add("waiting");
  }

  /** It was refused: nothing of it is on its way. */
  refused(change, problem) {
    if (change !== this.current) return;
    stop("service").classList.remove("waiting");
    element("what").textContent = `Nothing was changed: ${problem.message}`;
  }

  /** It arrived: with it comes when it was made, published and replicated. */
  arrived(id, revision, times, at) {
    const change = this.current;
    if (!change || change.isHere) return;
    if (change.id === undefined) {
      // Faster than its answer, or another's.
      if (change.early.length < KEPT) change.early.push([id, revision, times, at]);
      return;
    }
    if (change.id !== id || change.revision !== revision) return;
    change.isHere = true;
    const isOrder = change.service === "orders";
    const told = {
      publish: between(times.changedAt, times.publishedAt),
      replicate: isOrder ? null : between(times.publishedAt, times.replicatedAt),
      arrive: between(isOrder ? times.publishedAt : times.replicatedAt, at),
    };
    this.total(between(times.changedAt, at));
    stop("kafka").classList.remove("waiting");
    const path = isOrder
      ? [["publish", "kafka"], ["arrive", "window"]]
      : [["publish", "kafka"], ["replicate", "replica"], ["arrive", "window"]];
    path.forEach(([by, to], step) => {
      setTimeout(() => {
        if (change !== this.current) return;
        this.tell(by, told[by]);
        hop(by).classList.add("passed");
        setTimeout(() => change === this.current && stop(to).classList.add("reached"), STEP);
      }, step * STEP);
    });
  }

  tell(name, time) {
    hop(name).querySelector("b").textContent = milliseconds(time);
  }

  total(time) {
    if (time === null) return;
    this.totals.push(Math.max(0, time));
    if (this.totals.length > KEPT) this.totals.shift();
    const sorted = [...this.totals].sort((one, other) => one - other);
    const median = sorted[Math.floor((sorted.length - 1) / 2)];
    const last = this.totals.at(-1);
    const several = this.totals.length > 1;
    element("totals").textContent =
      `From stored to here: ${milliseconds(last)}.` +
      (several ? ` Of the last ${sorted.length}: half within ${milliseconds(median)}, the slowest ${milliseconds(sorted.at(-1))}.` : "");
  }
}
