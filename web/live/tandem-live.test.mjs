// The client of live feeds against a server that does what servers do: it loses items, ends, dies, refuses and comes back.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { FeedError, follow } from "./tandem-live.js";

const QUERY = "subscription($after: String) { orderFeed(after: $after) { __typename } }";

/** A log of items whose cursors are numbers; each connection is told by `serve(log, response, after, connection)`. */
async function server(serve) {
  const seen = [];
  const http = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      const { variables } = JSON.parse(body);
      seen.push({ after: variables.after, authorization: request.headers.authorization });
      response.setHeader("content-type", "text/event-stream");
      serve(response, Number(variables.after ?? 0), seen.length);
    });
  });
  await new Promise((done) => http.listen(0, "127.0.0.1", done));
  const { port } = http.address();
  const close = () => {
    http.closeAllConnections();
    http.close();
  };
  return { url: `http://127.0.0.1:${port}/graphql`, port, seen, close };
}

const event = (data) => `event: next\ndata: ${JSON.stringify(data)}\n\n`;
const item = (number, previous = number - 1, type = "OrderUpdate") =>
  event({ data: { orderFeed: { __typename: type, cursor: String(number), previous: String(previous), number } } });
const refusal = (code, more = {}) => event({ errors: [{ message: code, extensions: { code, ...more } }] });
const END = "event: complete\ndata: \n\n";

/** Follows until `count` items came. */
async function take(options, count) {
  const items = [];
  for await (const one of follow({ query: QUERY, transport: "sse", longestPause: 50, ...options })) {
    items.push(one.number);
    if (items.length >= count) break;
  }
  return items;
}

const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1);

test("what ends, dies or says that it goes away is resumed behind the last cursor", async () => {
  const { url, seen, close } = await server((response, after, connection) => {
    response.write(item(after + 1));
    response.write(item(after + 2));
    if (connection % 4 === 0) response.end(END);
    else if (connection % 4 === 1) setTimeout(() => response.destroy(), 20);
    else if (connection % 4 === 2) response.end(refusal("UNAVAILABLE") + END);
    else response.end(refusal("SUBSCRIPTION_LAGGED", { cursor: String(after + 2) }) + END);
  });
  assert.deepEqual(await take({ url }, 40), upTo(40));
  assert.ok(seen.length >= 20);
  close();
});

test("a lost item is noticed by the next one, a lost last one by the heartbeat", async () => {
  for (const type of ["OrderUpdate", "Heartbeat"]) {
    let lost = 0;
    const { url, seen, close } = await server((response, after, connection) => {
      response.write(item(after + 1));
      if (connection === 1) {
        lost += 1;
        // The second item is dropped on the way.
        response.write(type === "Heartbeat" ? item("h", after + 2, type) : item(after + 3));
      } else {
        for (let next = after + 2; next <= 6; next += 1) response.write(item(next));
      }
    });
    let counts;
    assert.deepEqual(await take({ url, onState: (state) => (counts = state.counts) }, 6), upTo(6));
    assert.equal(lost, 1);
    assert.equal(counts.missed, 1);
    assert.deepEqual(seen.map(({ after }) => after), [null, "1"]);
    close();
  }
});

test("a server that is killed and restarted is waited for", async () => {
  let first = await server((response, after) => response.write(item(after + 1)));
  const items = [];
  const feed = follow({ url: first.url, query: QUERY, transport: "sse", longestPause: 50 });
  items.push((await feed.next()).value.number);
  first.close();
  const next = feed.next();
  await new Promise((done) => setTimeout(done, 200));
  const again = createServer((request, response) => {
    response.setHeader("content-type", "text/event-stream");
    request.resume().on("end", () => response.write(item(2)));
  });
  await new Promise((done) => again.listen(first.port, "127.0.0.1", done));
  items.push((await next).value.number);
  await feed.return();
  assert.deepEqual(items, [1, 2]);
  again.closeAllConnections();
  again.close();
});

test("silence beyond the limit counts as lost", async () => {
  const { url, seen, close } = await server((response, after) => response.write(item(after + 1)));
  assert.deepEqual(await take({ url, silence: 60 }, 3), upTo(3));
  assert.equal(seen.length, 3);
  close();
});

test("the cursor of what was worked off is kept, and not of what was only handed out", async () => {
  const { url, close } = await server((response, after) => {
    for (let next = after + 1; next <= after + 10; next += 1) response.write(item(next));
  });
  const kept = new Map();
  const store = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  const remember = { store, key: "feed" };
  // The third is being worked on when the page is left.
  assert.deepEqual(await take({ url, remember }, 3), [1, 2, 3]);
  assert.equal(kept.get("feed"), "2");
  assert.deepEqual(await take({ url, remember }, 3), [3, 4, 5]);
  close();
});

test("a cursor that cannot be resumed begins anew, and says so", async () => {
  const { url, seen, close } = await server((response, after, connection) => {
    if (connection === 1) response.end(refusal("BAD_USER_INPUT", { field: "after" }) + END);
    else response.write(item(1));
  });
  const told = [];
  assert.deepEqual(await take({ url, after: "77", onRestart: (reason) => told.push(reason) }, 1), [1]);
  assert.deepEqual(told, ["BAD_USER_INPUT"]);
  assert.deepEqual(seen.map(({ after }) => after), ["77", null]);
  close();
});

test("what trying again does not mend is thrown", async () => {
  for (const code of ["FORBIDDEN", "BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"]) {
    const { url, seen, close } = await server((response) => response.end(refusal(code) + END));
    await assert.rejects(take({ url }, 1), (error) => error instanceof FeedError && error.code === code);
    assert.equal(seen.length, 1);
    close();
  }
});

test("a token that has expired is asked for anew", async () => {
  const { url, seen, close } = await server((response, after, connection) => {
    if (connection === 1) response.end(item(1) + refusal("UNAUTHENTICATED", { cursor: "1" }) + END);
    else response.write(item(after + 1));
  });
  let tokens = 0;
  assert.deepEqual(await take({ url, token: () => `t${(tokens += 1)}` }, 2), [1, 2]);
  assert.deepEqual(seen.map(({ authorization }) => authorization), ["Bearer t1", "Bearer t2"]);
  close();
});

test("a signal ends it, and nothing is left open", async () => {
  const { url, close } = await server((response, after) => response.write(item(after + 1)));
  const controller = new AbortController();
  const items = [];
  for await (const one of follow({ url, query: QUERY, transport: "sse", signal: controller.signal })) {
    items.push(one.number);
    controller.abort();
  }
  assert.deepEqual(items, [1]);
  close();
});

/** A WebSocket that speaks the protocol from memory. */
class Socket {
  static opened = [];
  constructor(url, protocol) {
    Object.assign(this, { url, protocol, readyState: 0, said: [] });
    Socket.opened.push(this);
    setTimeout(() => {
      this.readyState = 1;
      this.onopen?.();
    });
  }
  send(text) {
    const message = JSON.parse(text);
    this.said.push(message);
    if (message.type === "connection_init") this.hear({ type: "connection_ack" });
    if (message.type === "subscribe") this.serve(Number(message.payload.variables.after ?? 0));
  }
  serve(after) {
    const next = (number) => this.hear({ id: "1", type: "next", payload: JSON.parse(item(number).slice(18)) });
    this.hear({ type: "ping" });
    for (let number = after + 1; number <= after + 1_500; number += 1) next(number);
    if (Socket.opened.length % 2 === 1) this.hear({ id: "1", type: "complete" });
    else setTimeout(() => this.onclose?.({ code: 1012, reason: "restart" }));
  }
  hear(message) {
    setTimeout(() => this.onmessage?.({ data: JSON.stringify(message) }));
  }
  close() {
    this.readyState = 3;
  }
}

test("over a WebSocket, ends and closes are resumed, and who is slow is not buried", async () => {
  const { url, close } = await server(() => {});
  const items = [];
  let paused = 0;
  const onState = ({ reason }) => (paused += reason === "the application is behind" ? 1 : 0);
  const feed = follow({ url, query: QUERY, WebSocket: Socket, token: "t", longestPause: 20, onState });
  for await (const one of feed) {
    items.push(one.number);
    if (items.length === 1) await new Promise((done) => setTimeout(done, 200));
    if (items.length === 4_000) break;
  }
  assert.deepEqual(items, upTo(4_000));
  assert.ok(paused > 0);
  const [first] = Socket.opened;
  assert.ok(first.url.startsWith("ws://") && first.protocol === "graphql-transport-ws");
  assert.deepEqual(first.said[0], { type: "connection_init", payload: { authorization: "Bearer t" } });
  assert.ok(first.said.some(({ type }) => type === "pong"));
  close();
});
