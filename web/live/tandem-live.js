// Follows a live feed of Tandem without a gap: resumes by cursor, notices what is missing, and waits out whatever goes away.
//
// One rule does it: every item tells its `cursor` and the `previous` one. If `previous` is not the cursor that we hold, something was
// missed, and we subscribe again with `after`. Heartbeats carry both while nothing happens, so a lost last item is noticed too.
//
// One module, no dependencies, for browsers and for Node 20 or later. Documented in docs/live.md.

/**
 * An item of a feed, as the operation selects it.
 * @typedef {{cursor: string, previous: string, __typename?: string} & Record<string, any>} Item
 */

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
 * @property {string} [after] A cursor to begin behind.
 * @property {{store: Store, key: string}} [remember] Keeps the cursor of the last item that was worked off.
 * @property {boolean} [heartbeats] Whether heartbeats are handed out too.
 * @property {number} [silence] After so many milliseconds without a word the connection counts as lost. Unless set, three times the
 *   `heartbeatSeconds` of the operation; where it asks for no heartbeats, 45 s, and over a WebSocket the server is pinged meanwhile.
 * @property {number} [longestPause] The longest pause between two tries, in milliseconds.
 * @property {AbortSignal} [signal] Ends it.
 * @property {(state: State) => void} [onState] Told of every change of state.
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
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 15_000;
/** Items that wait for the application; with more, a WebSocket is closed and resumed later. */
const MOST_WAITING = 1_000;
/** Codes of errors that say that the operation itself, or who asks, is wrong. Whatever else is wrong may pass. */
const FATAL = new Set(["BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED", "TOO_EXPENSIVE", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"]);
/** Close codes of WebSockets that say that this client is wrong (graphql-transport-ws), with the code of an error that says as much. */
const FATAL_CLOSES = new Map([
  [4400, "BAD_USER_INPUT"],
  [4403, "FORBIDDEN"],
  [4406, "BAD_USER_INPUT"],
  [4409, "BAD_USER_INPUT"],
  [4429, "BAD_USER_INPUT"],
]);

/**
 * Follows a feed, for ever: the iterator ends when it is left, or by the signal. It throws {@link FeedError} for what trying again does
 * not mend.
 * @param {Options} options
 * @returns {AsyncGenerator<Item, void, void>}
 */
export async function* follow(options) {
  const feed = new Feed(options);
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
}

/**
 * What waits for the application: an item, or that what comes behind it begins anew.
 * @typedef {{item: Item, restart?: undefined} | {item?: undefined, restart: string}} Waiting
 */

/**
 * Seconds between two heartbeats of the feed, or nothing where the operation asks for none.
 * @param {Options} options
 * @returns {number | undefined}
 */
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
    /** @type {string | null} The cursor of the last item that came. */
    this.cursor = options.after ?? this.remembered();
    /** @type {Waiting[]} */
    this.waiting = [];
    /** Whether the application works on an item: it has not asked for the next one. */
    this.isWorking = false;
    /** Whether the connection was given up because too much waits. */
    this.paused = false;
    /** @type {Counts} */
    this.counts = { items: 0, heartbeats: 0, connections: 0, missed: 0, repeated: 0, restarts: 0 };
    /** How often in a row it was cut off. */
    this.failures = 0;
    const seconds = heartbeatSeconds(options);
    this.silence = options.silence ?? (seconds ? MISSING_SIGNS * seconds * 1000 : SILENCE);
    /** Where no heartbeats come, the server is asked so often whether it is there. */
    this.pingEvery = seconds ? undefined : this.silence / MISSING_SIGNS;
    this.longestPause = options.longestPause ?? LONGEST_PAUSE;
    /** @type {number | undefined} When the server took the subscription, on the clock that never jumps. */
    this.opened = undefined;
    /** @type {object | undefined} The connection that counts: what is told of an earlier one is passed over. */
    this.attempt = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.watch = undefined;
    this.ended = options.signal?.aborted ?? false;
    /** @type {Error | null} */
    this.failed = null;
    this.wake = () => {};
    /** @type {(() => void) | null} */
    this.close = null;
    this.abort = () => this.end();
    options.signal?.addEventListener("abort", this.abort);
    this.connect();
  }

  remembered() {
    const { remember } = this.options;
    return remember ? remember.store.getItem(remember.key) : null;
  }

  /** @param {State["is"]} is @param {Partial<State>} [more] */
  tell(is, more) {
    this.options.onState?.({ is, ...more, counts: { ...this.counts } });
  }

  /** @returns {Promise<Item | null>} */
  async next() {
    for (;;) {
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
    const { remember } = this.options;
    remember?.store.setItem(remember.key, item.cursor);
  }

  end() {
    if (!this.ended) {
      this.ended = true;
      this.tell("ended");
    }
    this.options.signal?.removeEventListener("abort", this.abort);
    this.drop();
    this.wake();
  }

  drop() {
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    const { close } = this;
    this.close = null;
    this.attempt = undefined;
    this.opened = undefined;
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
      const { token } = this.options;
      const bearer = typeof token === "function" ? await token() : token;
      if (!isCurrent()) return;
      const events = {
        heard: () => this.heard(isCurrent),
        open: () => {
          if (!isCurrent()) return;
          this.opened = performance.now();
          this.heard(isCurrent);
          this.tell("live");
        },
        /** @param {any} response */
        response: (response) => isCurrent() && this.take(response),
        /** @param {string} reason */
        lost: (reason) => isCurrent() && this.again(reason),
        /** @param {Error} error */
        fatal: (error) => isCurrent() && this.fail(error),
      };
      const request = {
        query: this.options.query,
        variables: { ...this.options.variables, after: this.cursor },
      };
      const open = this.transport() === "websocket" ? webSocket : serverSentEvents;
      this.close = open(this.options, request, bearer, events, this.pingEvery);
    } catch (error) {
      if (isCurrent()) this.again(String(error));
    }
  }

  transport() {
    const { transport } = this.options;
    const socket = this.options.WebSocket ?? globalThis.WebSocket;
    return transport ?? (socket ? "websocket" : "sse");
  }

  /** @param {() => boolean} isCurrent */
  heard(isCurrent) {
    clearTimeout(this.watch);
    // Heartbeats may be minutes apart; that a connection is made takes no longer for that.
    const silence = this.opened === undefined ? Math.min(this.silence, SILENCE) : this.silence;
    this.watch = setTimeout(() => isCurrent() && this.again("nothing was heard for too long"), silence);
  }

  /** A connection that was open for longer than any pause is no failure in a row, also where nothing happened that could be told. */
  forgive() {
    if (this.opened !== undefined && performance.now() - this.opened >= this.longestPause) this.failures = 0;
  }

  /** Takes a response of the subscription. @param {any} response */
  take(response) {
    if (response?.errors?.length && !response.data) return this.refused(response.errors);
    const item = response?.data && Object.values(response.data)[0];
    if (!item?.cursor) return;
    if (this.cursor !== null && item.cursor === this.cursor && item.previous !== this.cursor) {
      this.counts.repeated += 1;
      return;
    }
    if (this.cursor !== null && item.previous !== this.cursor) {
      this.counts.missed += 1;
      this.again("an item was missed", { atOnce: this.failures === 0 });
      return;
    }
    this.cursor = item.cursor;
    this.failures = 0;
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

  /** @param {{message: string, extensions?: Record<string, any>}[]} errors */
  refused(errors) {
    this.forgive();
    const { code, field, retryAfterSeconds } = errors[0].extensions ?? {};
    if (code === "BAD_USER_INPUT" && field === "after" && this.cursor !== null) {
      this.cursor = null;
      this.counts.restarts += 1;
      // Behind what came before: told earlier, the application would drop what it holds and then take up old items.
      this.waiting.push({ restart: errors[0].message });
      this.wake();
      this.again(errors[0].message, { atOnce: this.failures === 0 });
    } else if (code === "UNAUTHENTICATED" && typeof this.options.token === "function" && this.failures < 5) {
      this.again(errors[0].message);
    } else if (FATAL.has(code)) {
      this.fail(new FeedError(errors));
    } else {
      this.again(errors[0].message, { least: (Number(retryAfterSeconds) || 0) * 1000 });
    }
  }

  /** @param {Error} error */
  fail(error) {
    this.failed = error;
    this.end();
  }

  /**
   * Subscribes again, after a pause that grows with each failure. All clients at once would be too many, so each takes a time of its own;
   * where the server says how long to wait (`least`, in milliseconds) that is added to it.
   * @param {string} reason
   * @param {{atOnce?: boolean, least?: number}} [pause]
   */
  again(reason, { atOnce = false, least = 0 } = {}) {
    this.forgive();
    this.drop();
    if (this.ended) return;
    const grown = Math.min(this.longestPause, FIRST_PAUSE * 2 ** this.failures);
    const spread = least > 0 ? Math.max(least, grown) * Math.random() : grown * (0.5 + Math.random() / 2);
    const delay = atOnce ? 0 : least + spread;
    this.failures += 1;
    this.tell("waiting", { reason, delay });
    this.timer = setTimeout(() => this.connect(), delay);
  }
}

/**
 * @typedef {{heard(): void, open(): void, response(response: any): void, lost(reason: string): void, fatal(error: Error): void}} Events
 * @typedef {{query: string, variables: Record<string, any>}} Request
 */

/**
 * graphql-transport-ws: one socket for one subscription.
 * @param {Options} options @param {Request} request @param {string | undefined} bearer @param {Events} events
 * @param {number | undefined} pingEvery After so many milliseconds of silence the server is asked for a sign of life: the pings of the
 *   WebSocket itself are answered by the browser and shown to nobody.
 */
function webSocket(options, request, bearer, events, pingEvery) {
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const url = new URL(options.url, globalThis.location?.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new Socket(url.href, "graphql-transport-ws");
  const say = (/** @type {object} */ message) => socket.send(JSON.stringify(message));
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let pings;
  const quietFrom = () => {
    clearInterval(pings);
    if (pingEvery !== undefined) pings = setInterval(() => socket.readyState === 1 && say({ type: "ping" }), pingEvery);
  };
  socket.onopen = () => {
    events.heard();
    say({ type: "connection_init", payload: bearer ? { authorization: `Bearer ${bearer}` } : {} });
  };
  socket.onmessage = ({ data }) => {
    events.heard();
    quietFrom();
    const message = JSON.parse(data);
    if (message.type === "connection_ack") {
      events.open();
      say({ id: "1", type: "subscribe", payload: request });
    } else if (message.type === "ping") say({ type: "pong" });
    else if (message.type === "next") events.response(message.payload);
    else if (message.type === "error") events.response({ errors: message.payload });
    else if (message.type === "complete") events.lost("the server ended the subscription");
  };
  socket.onclose = ({ code, reason }) => {
    clearInterval(pings);
    const told = `the connection was closed (${code}${reason ? `: ${reason}` : ""})`;
    const fatal = FATAL_CLOSES.get(code);
    if (fatal) events.fatal(new FeedError([{ message: told, extensions: { code: fatal, closeCode: code } }]));
    else if (code === 4401) events.response({ errors: [{ message: told, extensions: { code: "UNAUTHENTICATED" } }] });
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
 * @param {Options} options @param {Request} request @param {string | undefined} bearer @param {Events} events
 */
function serverSentEvents(options, request, bearer, events) {
  const controller = new AbortController();
  const ask = options.fetch ?? globalThis.fetch;
  const run = async () => {
    const answer = await ask(new URL(options.url, globalThis.location?.href), {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "text/event-stream",
        ...(bearer ? { authorization: `Bearer ${bearer}` } : {}),
      },
      body: JSON.stringify(request),
      signal: controller.signal,
    });
    if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      const refusal = await answer.json().catch(() => null);
      if (refusal?.errors?.length) return events.response({ errors: refusal.errors });
      return events.lost(`the server answered ${answer.status}`);
    }
    events.open();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return events.lost("the connection ended");
      events.heard();
      text += decoder.decode(value, { stream: true });
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const lines = text.slice(0, end).split("\n");
        if (lines.includes("event: complete")) return events.lost("the server ended the subscription");
        const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
        if (data.length > 0 && data[0] !== "") events.response(JSON.parse(data.join("\n")));
      }
    }
  };
  run().catch((error) => events.lost(error.cause?.message ?? error.message));
  return () => controller.abort();
}
