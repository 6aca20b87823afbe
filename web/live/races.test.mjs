// The client of live feeds when two things happen at once: it is left while it waits, a word of an earlier connection comes late, windows
// share a store, a store is full.

import assert from "node:assert/strict";
import { test } from "node:test";

import { QUERY, URL_OF_SOCKETS, item, memory, pause, server, sockets, take, upTo } from "./servers.mjs";
import { follow } from "./tandem-live.js";

/** Every wait of the client, on a clock that the test turns. */
const frozen = (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  return context.mock.timers;
};

test("who leaves while nothing comes has left at once, however it is left", async () => {
  for (const leave of ["return", "signal"]) {
    const { url, seen, close } = await server((response) => response.write(":\n\n"));
    const controller = new AbortController();
    const states = [];
    const onState = ({ is }) => states.push(is);
    const feed = follow({ url, query: QUERY, transport: "sse", signal: controller.signal, onState });
    const next = feed.next();
    while (!states.includes("live")) await pause(1);
    if (leave === "return") assert.ok((await feed.return()).done);
    else controller.abort();
    assert.ok((await next).done);
    assert.ok((await feed.next()).done);
    assert.deepEqual(states, ["connecting", "live", "ended"]);
    assert.equal(seen.length, 1);
    close();
  }
});

test("who leaves before anything was asked for connects to nobody", async () => {
  const fetch = () => assert.fail("nobody is asked");
  const options = { url: "https://shop.example/graphql", query: QUERY, transport: "sse", fetch };
  const left = follow(options);
  assert.ok((await left.return()).done);
  assert.ok((await left.next()).done);
  const aborted = follow({ ...options, signal: AbortSignal.abort(), token: () => assert.fail("no token is asked for") });
  assert.ok((await aborted.next()).done);
});

test("who leaves has nothing of what waits", async () => {
  const { url, close } = await server((response) => response.write(upTo(10).map((number) => item(number)).join("")));
  const controller = new AbortController();
  const items = [];
  const counted = { items: 0 };
  const onState = ({ counts }) => Object.assign(counted, counts);
  for await (const { number } of follow({ url, query: QUERY, transport: "sse", signal: controller.signal, onState })) {
    items.push(number);
    while (counted.items < 10) await pause(1);
    controller.abort();
  }
  assert.deepEqual(items, [1]);
  close();
});

test("who leaves while a token is fetched, or before a pause is over, connects no more", async () => {
  let give;
  const { opened, Socket } = sockets(() => {});
  const options = { url: URL_OF_SOCKETS, query: QUERY, transport: "websocket", WebSocket: Socket };
  const waiting = follow({ ...options, token: () => new Promise((resolve) => (give = resolve)) });
  const next = waiting.next();
  await waiting.return();
  give("t");
  assert.ok((await next).done);
  await pause(5);
  assert.equal(opened.length, 0);

  const cut = follow({ ...options, longestPause: 5 });
  const never = cut.next();
  opened[0].end(1006);
  while (opened[0].onclose && opened.length < 2) await pause(1);
  await cut.return();
  assert.ok((await never).done);
  const connections = opened.length;
  await pause(30);
  assert.equal(opened.length, connections);
  // One that was being opened is closed when it is.
  assert.ok(opened.every(({ readyState }, index) => index === 0 || readyState === 3));
});

test("a token that comes after its connection was given up opens none", async (context) => {
  const timers = frozen(context);
  const gives = [];
  const { opened, Socket } = sockets((socket, { type }) => type === "connection_init" && socket.hear({ type: "connection_ack" }));
  const token = () => new Promise((resolve) => gives.push(resolve));
  const controller = new AbortController();
  const next = follow({ url: URL_OF_SOCKETS, query: QUERY, transport: "websocket", WebSocket: Socket, token, silence: 1_000, signal: controller.signal }).next();
  // Nothing was heard, and it is asked for again.
  timers.tick(1_000);
  timers.tick(250);
  assert.equal(gives.length, 2);
  gives[0]("old");
  gives[1]("new");
  for (let step = 0; step < 5; step += 1) await null;
  timers.tick(1);
  assert.deepEqual(opened.map(({ said }) => said[0].payload.authorization), ["Bearer new"]);
  controller.abort();
  await next;
});

test("what an earlier connection still says neither counts nor keeps the present one from being watched", async (context) => {
  const timers = frozen(context);
  const { opened, Socket } = sockets((socket, { type }) => type === "connection_init" && socket.hear({ type: "connection_ack" }));
  const reasons = [];
  const onState = ({ is, reason }) => is === "waiting" && reasons.push(reason);
  const controller = new AbortController();
  const options = { url: URL_OF_SOCKETS, query: QUERY, transport: "websocket", WebSocket: Socket, silence: 10_000, signal: controller.signal, onState };
  const feed = follow(options);
  const next = feed.next();
  for (let step = 0; step < 3; step += 1) timers.tick(1);
  const [first] = opened;
  const { onmessage, onclose } = first;
  onclose({ code: 1006 });
  timers.tick(250);
  for (let step = 0; step < 3; step += 1) timers.tick(1);
  assert.equal(opened.length, 2);
  // Late words of the first one, every second: the second one is silent all the same.
  for (let second = 0; second < 10; second += 1) {
    onmessage({ data: JSON.stringify({ id: "1", type: "next", payload: JSON.parse(item(7).slice(18)) }) });
    onclose({ code: 4400 });
    timers.tick(1_000);
  }
  assert.deepEqual(reasons, ["the connection was closed (1006)", "nothing was heard for too long"]);
  controller.abort();
  assert.ok((await next).done);
});

test("a store that is full or forbidden ends nothing", async () => {
  const { url, close } = await server((response, after) => response.write(item(after + 1) + item(after + 2) + item(after + 3)));
  const forbidden = () => {
    throw new DOMException("it is forbidden", "SecurityError");
  };
  for (const store of [{ getItem: forbidden, setItem: forbidden }, { getItem: () => null, setItem: forbidden }, { getItem: () => "", setItem: () => {} }]) {
    assert.deepEqual(await take({ url, remember: { store, key: "feed" } }, 3), [1, 2, 3]);
  }
  close();
});

test("two windows with keys of their own keep two places, and what is given wins over what is kept", async () => {
  const { url, seen, close } = await server((response, after) => {
    for (let next = after + 1; next <= after + 10; next += 1) response.write(item(next));
  });
  const store = memory();
  const window = (key, count, more) => take({ url, remember: { store, key }, ...more }, count);
  assert.deepEqual(await Promise.all([window("a", 3), window("b", 6)]), [upTo(3), upTo(6)]);
  assert.deepEqual([...store.kept].sort(), [["a", "2"], ["b", "5"]]);
  assert.deepEqual(await Promise.all([window("a", 1), window("b", 1)]), [[3], [6]]);
  assert.deepEqual(await window("a", 1, { after: "20" }), [21]);
  assert.equal(seen.at(-1).after, "20");
  close();
});

test("a heartbeat carries the chain on, also where heartbeats are not handed out, and one that was lost is no gap of items", async () => {
  const { url, seen, close } = await server((response, after, connection) => {
    if (connection === 1) response.write(item(1) + item("h1", 1, "Heartbeat") + item("h2", "h1", "Heartbeat") + item(2, "h2") + item(3, "h3"));
    else response.write(item(3, 2) + item(4));
  });
  const counted = {};
  const onState = ({ counts }) => Object.assign(counted, counts);
  assert.deepEqual(await take({ url, onState }, 4), upTo(4));
  assert.deepEqual([counted.heartbeats, counted.missed, counted.repeated], [2, 1, 0]);
  assert.deepEqual(seen.map(({ after }) => after), [null, "2"]);
  close();
});

test("a wait that no timer can hold is not over at once", async () => {
  const { url, seen, close } = await server((response) => response.write(":\n\n"));
  const controller = new AbortController();
  const next = follow({ url, query: QUERY, transport: "sse", silence: Infinity, signal: controller.signal }).next();
  while (seen.length === 0) await pause(1);
  await pause(30);
  assert.equal(seen.length, 1);
  controller.abort();
  assert.ok((await next).done);
  close();
});
