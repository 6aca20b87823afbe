// Follows a live feed of Tandem without a gap: resumes by cursor, notices what is missing, and waits out whatever goes away.
//
// One rule does it: every item tells its `cursor` and the `previous` one. If `previous` is not the cursor that we hold, something was
// missed, and we subscribe again with `after`. Heartbeats carry both while nothing happens, so a lost last item is noticed too.
// One module, no dependencies, for browsers and for Node 20 or later. Documented in docs/live.md.

/** An item of a feed, as the operation selects it. @typedef {{cursor: string, previous: string, __typename?: string} & Record<string, any>} Item */

/**
 * Where the cursor is kept across reloads: `localStorage`, `sessionStorage`, or anything with these two.
 * @typedef {{getItem(key: string): string | null, setItem(key: string, value: string): void}} Store
 */

/**
 * What the feed is doing. `live`: the server takes the subscription. `connecting`: it is asked to. `waiting`: cut off, tried again in `delay` milliseconds.
 * @typedef {{is: "connecting" | "live" | "waiting" | "ended", reason?: string, delay?: number, counts: Counts}} State
 */

/**
 * What happened so far. `missed` counts gaps that were noticed, each mended by subscribing again.
 * @typedef {{items: number, heartbeats: number, connections: number, missed: number, repeated: number, restarts: number}} Counts
 */

/**
 * @typedef {object} Options
 * @property {string | URL} url The GraphQL endpoint, such as `https://shop.example/graphql`.
 * @property {string} query A subscription with the variable `$after: String`, whose one field selects `cursor` and `previous` of every
 *   kind of item, and `__typename` where heartbeats are to be told from the rest.
 * @property {Record<string, any>} [variables] All but `after`.
 * @property {"websocket" | "sse"} [transport] WebSocket where there is one, else server-sent events.
 * @property {string | (() => string | Promise<string>)} [token] A bearer token, or what gives one: asked for anew with each connection.
 * @property {string | (() => string | undefined)} [consistency] What the last mutation's answer had as `extensions.consistency`: the feed
 *   begins when that can be read.
 * @property {string} [after] A cursor to begin behind, whatever is remembered.
 * @property {{store: Store, key: string}} [remember] Keeps the cursor of the last item that was worked off. The key is of one feed in one
 *   window: two that share it would put each other forward.
 * @property {boolean} [heartbeats] Whether heartbeats are handed out too.
 * @property {number} [silence] After so many milliseconds without a word the connection counts as lost. Unless set, three times the
 *   `heartbeatSeconds` of the operation; where it asks for no heartbeats, 45 s, and over a WebSocket the server is pinged meanwhile.
 * @property {number} [longestPause] The longest pause between two tries, in milliseconds.
 * @property {AbortSignal} [signal] Ends it.
 * @property {(state: State) => void} [onState] Told of every change of state.
 * @property {(errors: object[], item: Item) => void} [onErrors] Told of errors beside an item, which has what could be had all the same.
 * @property {(reason: string) => void} [onRestart] Told when it begins anew, because the cursor cannot be resumed: what the
 *   application holds is to be replaced by what comes now. All that came before was handed out by then.
 * @property {typeof WebSocket} [WebSocket] Another implementation.
 * @property {typeof fetch} [fetch] Another implementation.
 */

/** An answer that trying again does not mend. */
export class FeedError extends Error {
  /** @param {{message: string, extensions?: Record<string, any>}[]} errors */
  constructor(errors) {
    super(errors.map(({ message }) => message).join("; ") || "the subscription was refused");
    this.name = "FeedError";
    /** The errors as the server sent them. */
    this.errors = errors;
    /** The code of the first. */
    this.code = errors[0]?.extensions?.code;
  }
}

/** Milliseconds without a word, where the operation asks for no heartbeats and until the server takes the subscription. */
const SILENCE = 45_000;
/** What the schema has where an operation does not say how often heartbeats are to come. */
const HEARTBEAT_SECONDS = 15;
/** So many signs of life may be missing. */
const MISSING_SIGNS = 3;
const [FIRST_PAUSE, LONGEST_PAUSE] = [250, 15_000];
/** Items that wait for the application; with more, the connection is closed and resumed later. */
const MOST_WAITING = 1_000;
/** Tokens in a row that may be refused before that is an error: each may have expired on its way. */
const MOST_REFUSED = 5;
/** The longest that a server's word on when to come again is followed, in milliseconds. */
const LONGEST_WAIT = 3_600_000;
/** Timers of browsers and of Node go no further, in milliseconds; beyond it they end at once. */
const LONGEST_TIMER = 2 ** 31 - 1;
/** The longest server-sent event, in characters. */
const LONGEST_EVENT = 16 * 1024 * 1024;
/** Codes of errors that say that the operation itself, or who asks, is wrong. Whatever else is wrong may pass. */
const FATAL = new Set(["BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED", "TOO_EXPENSIVE", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"]);
/** Close codes of WebSockets that say that this client is wrong (RFC 6455, graphql-transport-ws), as codes of errors. */
const CLOSE_CODES = new Map([[4401, "UNAUTHENTICATED"], [4403, "FORBIDDEN"]]);
for (const code of [1009, 4400, 4406, 4409, 4429]) CLOSE_CODES.set(code, "BAD_USER_INPUT");

/**
 * Follows a feed, for ever: the iterator ends when it is left, or by the signal. It throws {@link FeedError} for what trying again does
 * not mend.
 * @param {Options} options
 * @returns {AsyncGenerator<Item, void, void>}
 */
export function follow(options) {
  /** @type {Feed | undefined} */
  let feed;
  const items = (async function* () {
    feed = new Feed(options);
    try {
      for (;;) {
        const item = await feed.next();
        if (!item) return;
        yield item;
        feed.done(item);
      }
    } finally {
      feed.end();
    }
  })();
  // A generator is left where it yields: where nothing happens it would wait for an item first.
  const leave = items.return.bind(items);
  return Object.assign(items, { return: () => (feed?.end(), leave()) });
}

/** What waits for the application: an item, or that what comes behind it begins anew. @typedef {{item?: Item, restart?: string}} Waiting */

/** Seconds between two heartbeats of the feed, or nothing where the operation asks for none. @param {Options} options */
function heartbeatSeconds({ query, variables }) {
  const text = query.replace(/"""(?:\\"""|[^])*?"""|"(?:\\.|[^"\\\n])*"|#.*/g, " ");
  const [, literal, variable] = /\bheartbeatSeconds\s*:\s*(?:(\d+)|\$(\w+))/.exec(text) ?? [];
  if (literal) return Number(literal);
  if (variable) {
    const byDefault = new RegExp(`\\$${variable}\\s*:\\s*\\w+\\s*!?\\s*=\\s*(\\d+)`).exec(text)?.[1];
    return Number(variables?.[variable] ?? byDefault) || HEARTBEAT_SECONDS;
  }
  return /\bon\s+Heartbeat\b/.test(text) ? HEARTBEAT_SECONDS : undefined;
}

class Feed {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    /** Refused here where it cannot be right: trying again would not mend it. */
    this.url = new URL(options.url, globalThis.location?.href);
    this.open = transportOf(options);
    /** @type {string | null} The cursor of the last item that came. */
    this.cursor = options.after ?? this.kept(({ store, key }) => store.getItem(key));
    this.waiting = /** @type {Waiting[]} */ ([]);
    /** Whether the application works on an item: it has not asked for the next one. */
    this.isWorking = false;
    /** Whether the connection was given up because too much waits. */
    this.paused = false;
    this.counts = { items: 0, heartbeats: 0, connections: 0, missed: 0, repeated: 0, restarts: 0 };
    /** How often in a row it was cut off, and how many tokens in a row were refused. */
    this.failures = this.refusals = 0;
    /** When it last came back without a pause. */
    this.atOnce = -Infinity;
    const seconds = heartbeatSeconds(options);
    this.silence = Math.min(LONGEST_TIMER, options.silence ?? (seconds ? MISSING_SIGNS * seconds * 1000 : SILENCE));
    /** Where no heartbeats come, the server is asked so often whether it is there. */
    this.pingEvery = seconds ? undefined : this.silence / MISSING_SIGNS;
    this.longestPause = options.longestPause ?? LONGEST_PAUSE;
    /** When the server took the subscription, on the clock that never jumps. */
    this.opened = /** @type {number | undefined} */ (undefined);
    /** The connection that counts: what is told of an earlier one is passed over. */
    this.attempt = /** @type {object | undefined} */ (undefined);
    this.timers = /** @type {{retry?: ReturnType<typeof setTimeout>, silence?: ReturnType<typeof setTimeout>}} */ ({});
    this.ended = options.signal?.aborted ?? false;
    this.failed = /** @type {Error | null} */ (null);
    this.wake = () => {};
    this.close = /** @type {(() => void) | undefined} */ (undefined);
    this.abort = () => this.end();
    options.signal?.addEventListener("abort", this.abort);
    if (!this.ended) this.connect();
  }

  /**
   * Browsers may forbid a store, or it may be full: what is kept is then behind, and after a reload items come again. None is missed.
   * @param {(remember: {store: Store, key: string}) => string | null | void} use
   */
  kept(use) {
    try {
      return (this.options.remember && use(this.options.remember)) || null;
    } catch {
      return null;
    }
  }

  /** @param {State["is"]} is @param {Partial<State>} [more] */
  tell(is, more) {
    this.options.onState?.({ is, ...more, counts: { ...this.counts } });
  }

  /** @returns {Promise<Item | null>} */
  async next() {
    for (;;) {
      // What waits is not for one who has left.
      if (this.options.signal?.aborted) return null;
      const { item, restart } = this.waiting.shift() ?? {};
      if (restart !== undefined) {
        this.options.onRestart?.(restart);
        continue;
      }
      if (item) {
        this.isWorking = true;
        if (this.waiting.length === 0 && this.paused) this.again("the application has caught up", { atOnce: true });
        return item;
      }
      if (this.failed) throw this.failed;
      if (this.ended) return null;
      await new Promise((resolve) => (this.wake = () => resolve(undefined)));
    }
  }

  /** The application asked for the next item, so it has done with this one. @param {Item} item */
  done(item) {
    this.isWorking = false;
    this.kept(({ store, key }) => store.setItem(key, item.cursor));
  }

  end() {
    const isFirst = !this.ended;
    this.ended = true;
    if (isFirst) this.tell("ended");
    this.options.signal?.removeEventListener("abort", this.abort);
    this.drop();
    this.wake();
  }

  drop() {
    clearTimeout(this.timers.retry);
    clearTimeout(this.timers.silence);
    const { close } = this;
    this.close = this.attempt = this.opened = undefined;
    close?.();
  }

  async connect() {
    this.paused = false;
    this.tell("connecting");
    const attempt = (this.attempt = {});
    const isCurrent = () => this.attempt === attempt && !this.ended;
    this.counts.connections += 1;
    this.heard(isCurrent);
    try {
      const { token, consistency } = this.options;
      const bearer = typeof token === "function" ? await token() : token;
      if (!isCurrent()) return;
      const written = typeof consistency === "function" ? consistency() : consistency;
      /** @type {Events} */
      const events = {
        heard: () => this.heard(isCurrent),
        // Whoever is to send heartbeats is not there because something on the way is.
        alive: () => this.pingEvery !== undefined && this.heard(isCurrent),
        open: () => {
          if (!isCurrent()) return;
          this.opened = performance.now();
          this.heard(isCurrent);
          this.tell("live");
        },
        response: (response) => isCurrent() && this.take(response),
        lost: (reason, least) => isCurrent() && this.again(reason, { least }),
      };
      const request = { query: this.options.query, variables: { ...this.options.variables, after: this.cursor } };
      const said = { ...(bearer && { authorization: `Bearer ${bearer}` }), ...(written && { "tandem-consistency": written }) };
      this.close = this.open(this.url, this.options, request, said, events, this.pingEvery);
    } catch (error) {
      if (isCurrent()) this.again(String(error));
    }
  }

  /** @param {() => boolean} isCurrent */
  heard(isCurrent) {
    if (!isCurrent()) return;
    clearTimeout(this.timers.silence);
    // Heartbeats may be minutes apart; that a connection is made takes no longer for that.
    const silence = this.opened === undefined ? Math.min(this.silence, SILENCE) : this.silence;
    this.timers.silence = setTimeout(() => isCurrent() && this.again("nothing was heard for too long"), silence);
  }

  /** A connection that was open for longer than any pause is no failure in a row, also where nothing happened that could be told. */
  forgive() {
    if (this.opened !== undefined && performance.now() - this.opened >= this.longestPause) this.failures = this.refusals = 0;
  }

  /** Whether to come back without a pause: where something is missed again and again that would be as fast as the server can. */
  mayComeAtOnce() {
    const now = performance.now();
    if (this.failures > 0 || now - this.atOnce < this.longestPause) return false;
    this.atOnce = now;
    return true;
  }

  /** Takes a response of the subscription. @param {any} response */
  take(response) {
    const item = response?.data && Object.values(response.data)[0];
    if (!item) return response?.errors?.length ? this.refused(response.errors) : this.again("the server sent what is no item");
    if (typeof item.cursor !== "string" || typeof item.previous !== "string") {
      const message = `the operation does not select \`cursor\` and \`previous\` of ${item.__typename ?? "every kind of item"}`;
      return this.fail([{ message, extensions: { code: "BAD_USER_INPUT" } }]);
    }
    if (this.cursor !== null && item.previous !== this.cursor) {
      const is = item.cursor === this.cursor ? "repeated" : "missed";
      this.counts[is] += 1;
      if (is === "missed") this.again("an item was missed", { atOnce: this.mayComeAtOnce() });
      return;
    }
    this.cursor = item.cursor;
    this.failures = this.refusals = 0;
    if (response.errors?.length) this.options.onErrors?.(response.errors, item);
    const isHeartbeat = item.__typename === "Heartbeat";
    this.counts[isHeartbeat ? "heartbeats" : "items"] += 1;
    this.tell("live");
    if (isHeartbeat && !this.options.heartbeats) {
      // What came before it must be worked off, or it would be lost across a reload.
      if (this.waiting.length === 0 && !this.isWorking) this.done(item);
      return;
    }
    this.waiting.push({ item });
    this.wake();
    if (this.waiting.length >= MOST_WAITING) {
      this.drop();
      this.paused = true;
      this.tell("waiting", { reason: "the application is behind" });
    }
  }

  /** @param {FeedError["errors"]} errors */
  refused(errors) {
    this.forgive();
    const { code, field, retryAfterSeconds } = errors[0].extensions ?? {};
    if (code === "BAD_USER_INPUT" && field === "after" && this.cursor !== null) {
      this.cursor = null;
      this.counts.restarts += 1;
      // Behind what came before: told earlier, the application would drop what it holds and then take up old items.
      this.waiting.push({ restart: errors[0].message });
      this.wake();
      this.again(errors[0].message, { atOnce: this.mayComeAtOnce() });
    } else if (code === "UNAUTHENTICATED" && typeof this.options.token === "function" && this.refusals < MOST_REFUSED) {
      this.refusals += 1;
      this.again(errors[0].message);
    } else if (FATAL.has(code)) this.fail(errors);
    else this.again(errors[0].message, { least: milliseconds(retryAfterSeconds) });
  }

  /** @param {FeedError["errors"]} errors */
  fail(errors) {
    this.failed = new FeedError(errors);
    this.end();
  }

  /**
   * Subscribes again, after a pause that grows with each failure. All clients at once would be too many, so each takes a time of its own;
   * where the server says how long to wait (`least`, in milliseconds) that is added to it.
   * @param {string} reason @param {{atOnce?: boolean, least?: number}} [pause]
   */
  again(reason, { atOnce = false, least = 0 } = {}) {
    this.forgive();
    this.drop();
    if (this.ended) return;
    const grown = Math.min(this.longestPause, FIRST_PAUSE * 2 ** this.failures);
    const spread = least > 0 ? Math.max(least, grown) * Math.random() : grown * (0.5 + Math.random() / 2);
    const delay = atOnce ? 0 : Math.min(LONGEST_TIMER, least + spread);
    this.failures += 1;
    this.tell("waiting", { reason, delay });
    this.timers.retry = setTimeout(() => this.connect(), delay);
  }
}

/** What a text says as JSON; nothing where it is none. @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** Seconds that a server says to wait, in milliseconds; none where it says something else. @param {unknown} seconds */
const milliseconds = (seconds) => Math.min(LONGEST_WAIT, Math.max(0, Number(seconds) || 0) * 1000);

/**
 * @typedef {{heard(): void, alive(): void, open(): void, response(response: any): void, lost(reason: string, least?: number): void}} Events
 * @typedef {{query: string, variables: Record<string, any>}} Request
 */

/** @param {Options} options */
function transportOf({ transport, WebSocket = globalThis.WebSocket }) {
  if (transport === "sse" || (!transport && !WebSocket)) return serverSentEvents;
  if (!WebSocket) throw new TypeError("there is no WebSocket here: give one as `WebSocket`, or take the transport \"sse\"");
  return webSocket;
}

/**
 * graphql-transport-ws: one socket for one subscription.
 * @param {URL} endpoint @param {Options} options @param {Request} request @param {Record<string, string>} said Headers by their names.
 * @param {Events} events
 * @param {number | undefined} pingEvery After so many milliseconds of silence the server is asked for a sign of life: the pings of the
 *   WebSocket itself are answered by the browser and shown to nobody.
 */
function webSocket(endpoint, options, request, said, events, pingEvery) {
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const socket = new Socket(endpoint.href.replace(/^http/, "ws"), "graphql-transport-ws");
  const say = (/** @type {object} */ message) => socket.send(JSON.stringify(message));
  let pings = /** @type {ReturnType<typeof setInterval> | undefined} */ (undefined);
  const quietFrom = () => {
    clearInterval(pings);
    if (pingEvery !== undefined) pings = setInterval(() => socket.readyState === 1 && say({ type: "ping" }), pingEvery);
  };
  socket.onopen = () => {
    events.heard();
    say({ type: "connection_init", payload: said });
  };
  socket.onmessage = ({ data }) => {
    quietFrom();
    const message = parsed(data);
    if (message.type === "ping" || message.type === "pong") events.alive();
    else events.heard();
    if (message.type === "connection_ack") {
      events.open();
      say({ id: "1", type: "subscribe", payload: request });
    } else if (message.type === "ping") say({ type: "pong" });
    else if (message.type === "next") events.response(message.payload);
    else if (message.type === "error") events.response({ errors: message.payload });
    else if (message.type === "complete") events.lost("the server ended the subscription");
    else if (!message.type) events.lost("the server sent what is no message");
  };
  socket.onclose = ({ code, reason }) => {
    clearInterval(pings);
    const told = `the connection was closed (${code}${reason ? `: ${reason}` : ""})`;
    const as = CLOSE_CODES.get(code);
    if (as) events.response({ errors: [{ message: told, extensions: { code: as, closeCode: code } }] });
    else events.lost(told);
  };
  socket.onerror = () => {};
  return () => {
    clearInterval(pings);
    socket.onclose = socket.onmessage = null;
    socket.onopen = () => socket.close(1000);
    if (socket.readyState === 1) socket.close(1000);
  };
}

/**
 * Server-sent events in one answer to a POST (graphql-sse, distinct connections mode).
 * @param {URL} endpoint @param {Options} options @param {Request} request @param {Record<string, string>} said @param {Events} events
 */
function serverSentEvents(endpoint, options, request, said, events) {
  const controller = new AbortController();
  const ask = options.fetch ?? globalThis.fetch;
  const run = async () => {
    const answer = await ask(endpoint, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream", ...said },
      body: JSON.stringify(request),
      signal: controller.signal,
    });
    if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      const refusal = await answer.json().catch(() => null);
      if (refusal?.errors?.length) return events.response({ errors: refusal.errors });
      return events.lost(`the server answered ${answer.status}`, milliseconds(answer.headers.get("retry-after")));
    }
    events.open();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
    const decoder = new TextDecoder();
    const read = eventReader((type, data) => {
      if (type === "complete") events.lost("the server ended the subscription");
      else if (data !== "") events.response(parsed(data));
    });
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return events.lost("the connection ended");
      if (read(decoder.decode(value, { stream: true }))) events.heard();
      else events.alive();
    }
  };
  run().catch((error) => events.lost(error.cause?.message ?? error.message));
  return () => controller.abort();
}

/**
 * Reads server-sent events (HTML, section 9.2.6): lines end with LF, CR or both, wherever the stream is cut. Answers whether there was
 * more than comments.
 * @param {(type: string, data: string) => void} tell
 */
function eventReader(tell) {
  let [rest, type, length, endsWithReturn, data] = ["", "", 0, false, /** @type {string[]} */ ([])];
  /** @param {string} line */
  const take = (line) => {
    if (line === "") {
      const [ended, text] = [type, data.join("\n")];
      [type, data, length] = ["", [], 0];
      return tell(ended, text);
    }
    const [name] = line.split(":", 1);
    const value = line.slice(name.length + 1).replace(/^ /, "");
    if (name === "event") type = value;
    if (name === "data") data.push(value);
  };
  return (/** @type {string} */ text) => {
    if (text === "") return false;
    const lines = (endsWithReturn && text[0] === "\n" ? text.slice(1) : text).split(/\r\n|\n|\r/);
    endsWithReturn = text.endsWith("\r");
    length += text.length;
    lines[0] = rest + lines[0];
    rest = lines.pop() ?? "";
    lines.forEach(take);
    if (length > LONGEST_EVENT) throw new Error("an event is too long");
    return [...lines, rest].some((line) => line !== "" && line[0] !== ":");
  };
}
