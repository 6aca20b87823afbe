// What the page asks of the services, through the gateway, and of the gateway itself, and how it goes on asking.

const root = new URL("../../", import.meta.url);
const STORED = "tandem-token";
/** For an answer: the gateway gives a service 30 s, and nobody looks at a page for so long. In milliseconds. */
const PATIENCE = 12_000;
/** How often it is asked while all is well, and how seldom at last while it is not, in milliseconds. */
const INTERVAL = 3_000;
const LONGEST = 30_000;

export const SERVICES = ["accounts", "orders"];

let bearer = sessionStorage.getItem(STORED) ?? "";
export const token = () => bearer;
export function useToken(text) {
  bearer = text.trim();
  sessionStorage.setItem(STORED, bearer);
}

/** An answer that is none of the good ones. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  get isOfTheToken() {
    return this.status === 401 || this.status === 403;
  }
}

async function send(url, options, isAnswer = (response) => response.ok) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(PATIENCE), redirect: "error" });
  const body = await response.json().catch(() => null);
  if (!isAnswer(response, body)) throw new Refused(response.status, body?.detail ?? `${response.status} ${response.statusText}`);
  return body;
}

const headers = () => ({ accept: "application/json", ...(bearer ? { authorization: `Bearer ${bearer}` } : {}) });

/** How the gateway wants to be asked: `token`, `nobody` or `everybody` is an operator. */
export const here = () => send(new URL("operations/here.json", root), {});

/** How the gateway is. That it is not ready is an answer, too, though its status is 503; a problem has a number for a status. */
export const gatewayHealth = () =>
  send(new URL("actuator/health", root), { headers: { accept: "application/json" } }, (_, body) => typeof body?.status === "string");

function address(service, path, query = {}) {
  const url = new URL(`operations/${service}/admin/${path}`, root);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null) url.searchParams.set(name, value);
  return url;
}

export const get = (service, path, query) => send(address(service, path, query), { headers: headers() });

export const post = (service, path, body = {}) =>
  send(address(service, path), {
    method: "POST",
    headers: { ...headers(), "content-type": "application/json" },
    body: JSON.stringify(body),
  });

const watches = new Set();

/** Has every watch ask at once: there is a token, or somebody looks again, or something was done. */
export function askAll() {
  for (const watch of watches) watch.now();
}

/**
 * Asks again and again: with pauses that grow while there is no good answer, none of them quite alike, and not while nobody looks.
 */
export class Watch {
  /** @param {() => Promise<unknown>} ask @param {(answer: unknown) => void} shown @param {(problem: Error, since: Date) => void} failed
   *  @param {number} interval between two questions while all is well, in milliseconds */
  constructor(ask, shown, failed, interval = INTERVAL) {
    Object.assign(this, { ask, shown, failed, interval, failures: 0, since: null, timer: undefined, asking: false });
    watches.add(this);
    this.now();
  }

  now() {
    clearTimeout(this.timer);
    if (this.asking) this.again = true;
    else this.run();
  }

  async run() {
    if (document.visibilityState !== "hidden") {
      this.asking = true;
      this.again = false;
      let answer;
      try {
        answer = await this.ask();
        [this.failures, this.since] = [0, null];
      } catch (problem) {
        this.failures += 1;
        this.since ??= new Date();
        this.failed(problem, this.since);
        answer = undefined;
      }
      this.asking = false;
      if (answer !== undefined) this.shown(answer);
    }
    const pause = Math.min(LONGEST, this.interval * 2 ** Math.min(this.failures, 5)) * (0.75 + Math.random() / 2);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(), this.again ? 0 : pause);
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") askAll();
});
