// The client of live feeds against a server that does what servers do: it loses items, ends, dies, refuses and comes back.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { END, QUERY, URL_OF_SOCKETS, event, item, memory, pause, refusal, server, sockets, take, upTo } from "./servers.mjs";
import { FeedError, follow } from "./tandem-live.js";

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
  const store = memory();
  const remember = { store, key: "feed" };
  // The third is being worked on when the page is left.
  assert.deepEqual(await take({ url, remember }, 3), [1, 2, 3]);
  assert.equal(store.kept.get("feed"), "2");
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

test("a heartbeat that comes while an item is worked on does not put the kept cursor behind it", async () => {
  const { url, close } = await server((response, after) => {
    response.write(item(after + 1));
    setTimeout(() => response.write(item(after + 2, after + 1, "Heartbeat")), 30);
  });
  const store = memory();
  let heartbeats = 0;
  const options = { url, query: QUERY, transport: "sse", remember: { store, key: "feed" }, onState: ({ counts }) => (heartbeats = counts.heartbeats) };
  for await (const one of follow(options)) {
    assert.equal(one.number, 1);
    while (heartbeats === 0) await pause(5);
    // The page is left in the middle of the work.
    break;
  }
  assert.equal(store.kept.size, 0);

  const controller = new AbortController();
  const feed = follow({ ...options, signal: controller.signal });
  assert.equal((await feed.next()).value.number, 1);
  // Who asks for the next one has done with it, and the heartbeat behind it counts.
  const next = feed.next();
  while (store.kept.get("feed") !== "2") await pause(5);
  controller.abort();
  assert.ok((await next).done);
  close();
});

test("what begins anew is told behind all that came before, however slow the application is", async () => {
  const { url, seen, close } = await server((response, after, connection) => {
    if (connection === 1) response.end(item(1) + item(2) + item(3) + refusal("UNAVAILABLE") + END);
    else if (connection === 2) response.end(refusal("BAD_USER_INPUT", { field: "after" }) + END);
    else response.write(item(8, 7) + item(9));
  });
  const told = [];
  const options = { url, query: QUERY, transport: "sse", longestPause: 20, onRestart: () => told.push("anew") };
  for await (const { number } of follow(options)) {
    told.push(number);
    while (seen.length < 3) await pause(5);
    await pause(20);
    if (number === 9) break;
  }
  assert.deepEqual(told, [1, 2, 3, "anew", 8, 9]);
  close();
});

test("who is told to come later comes later, and not all at once", async (context) => {
  context.mock.method(Math, "random", () => 0.5);
  const { url, close } = await server((response, after, connection) => {
    if (connection <= 3) response.end(refusal("RATE_LIMITED", { retryAfterSeconds: 0.05 }) + END);
    else response.write(item(1));
  });
  const delays = [];
  const onState = ({ is, delay }) => is === "waiting" && delays.push(delay);
  assert.deepEqual(await take({ url, longestPause: 400, onState }, 1), [1]);
  // Half of 250 ms and of the longest pause on top of the 50 ms.
  assert.deepEqual(delays, [175, 250, 250]);
  close();
});

test("pauses grow where connections die at once, and begin anew behind one that lived", async () => {
  for (const lives of [0, 700]) {
    const { url, close } = await server((response, after, connection) => {
      response.write(":\n\n");
      if (connection === 4) response.write(item(1));
      else setTimeout(() => response.destroy(), lives);
    });
    const delays = [];
    const onState = ({ is, delay }) => is === "waiting" && delays.push(delay);
    assert.deepEqual(await take({ url, longestPause: 600, onState }, 1), [1]);
    assert.equal(delays.length, 3);
    // From 250 ms on, each between half of it and all.
    if (lives) assert.ok(delays.every((delay) => delay <= 250), `${delays}`);
    else assert.ok(delays[1] >= 250 && delays[2] >= 300, `${delays}`);
    close();
  }
});

test("over a WebSocket, ends and closes are resumed, and who is slow is not buried", async () => {
  const { opened, Socket } = sockets((socket, { type, payload }) => {
    if (type === "connection_init") socket.hear({ type: "connection_ack" });
    if (type !== "subscribe") return;
    const after = Number(payload.variables.after ?? 0);
    socket.hear({ type: "ping" });
    for (let number = after + 1; number <= after + 1_500; number += 1) socket.next(number);
    if (opened.length % 2 === 1) socket.hear({ id: "1", type: "complete" });
    else socket.end(1012, "restart");
  });
  const items = [];
  let paused = 0;
  const onState = ({ reason }) => (paused += reason === "the application is behind" ? 1 : 0);
  const feed = follow({ url: URL_OF_SOCKETS, query: QUERY, WebSocket: Socket, token: "t", longestPause: 20, onState });
  for await (const one of feed) {
    items.push(one.number);
    if (items.length === 1) await pause(200);
    if (items.length === 4_000) break;
  }
  assert.deepEqual(items, upTo(4_000));
  assert.ok(paused > 0);
  const [first] = opened;
  assert.ok(first.url.startsWith("ws://") && first.protocol === "graphql-transport-ws");
  assert.deepEqual(first.said[0], { type: "connection_init", payload: { authorization: "Bearer t" } });
  assert.ok(first.said.some(({ type }) => type === "pong"));
});

test("where no heartbeats come the server is asked whether it is there, and one that does not answer counts as lost", async () => {
  for (const answers of [true, false]) {
    const { opened, Socket } = sockets((socket, { type }) => {
      if (type === "connection_init") socket.hear({ type: "connection_ack" });
      if (type === "ping" && answers) socket.hear({ type: "pong" });
    });
    const controller = new AbortController();
    const options = { url: URL_OF_SOCKETS, query: "subscription { orderUpdated { cursor previous } }", WebSocket: Socket, longestPause: 20 };
    const feed = follow({ ...options, silence: 300, signal: controller.signal });
    const next = feed.next();
    await pause(1_300);
    controller.abort();
    assert.ok((await next).done);
    const pings = opened[0].said.filter(({ type }) => type === "ping").length;
    if (answers) assert.ok(opened.length === 1 && pings >= 6, `${opened.length} connections, ${pings} pings`);
    else assert.ok(opened.length >= 3 && pings >= 1, `${opened.length} connections, ${pings} pings`);
    // Nobody is asked any more.
    const said = opened.map((socket) => socket.said.length);
    await pause(250);
    assert.deepEqual(opened.map((socket) => socket.said.length), said);
  }
});

test("silence is three heartbeats, however the operation says how often they come", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const feed = (seconds) => `subscription Feed($after: String, $pace: Int! = 60) {
    # heartbeatSeconds: 7
    orderFeed(after: $after, orderId: "heartbeatSeconds: 8 # \\"", ${seconds}) { ... on Heartbeat { cursor previous } } }`;
  for (const [query, variables, seconds] of [
    [feed("heartbeatSeconds: 20"), {}, 60],
    [feed("heartbeatSeconds: $pace"), {}, 180],
    [feed("heartbeatSeconds : $pace"), { pace: 300 }, 900],
    [feed("snapshot: true"), {}, 45],
    ["subscription { orderUpdated { cursor previous } }", {}, 45],
  ]) {
    const { opened, Socket } = sockets((socket, { type }) => type === "connection_init" && socket.hear({ type: "connection_ack" }));
    const reasons = [];
    const controller = new AbortController();
    const onState = ({ is, reason }) => is === "waiting" && reasons.push(reason);
    const next = follow({ url: URL_OF_SOCKETS, query, variables, WebSocket: Socket, signal: controller.signal, onState }).next();
    // The handshake and the acknowledgement.
    for (let step = 0; step < 4; step += 1) context.mock.timers.tick(1);
    context.mock.timers.tick(seconds * 1000 - 100);
    assert.deepEqual(reasons, [], query);
    context.mock.timers.tick(200);
    assert.deepEqual(reasons, ["nothing was heard for too long"], query);
    const pings = opened[0].said.filter(({ type }) => type === "ping").length;
    assert.equal(pings > 0, query.includes("orderUpdated"), query);
    controller.abort();
    await next;
  }
});

test("a connection that is closed with 4401 asks for another token, and is refused where there is none", async () => {
  const served = () =>
    sockets((socket, { type, payload }, connection) => {
      if (type === "connection_init" && connection === 1) socket.end(4401, "Unauthorized");
      else if (type === "connection_init") socket.hear({ type: "connection_ack" });
      else if (type === "subscribe") socket.next(Number(payload.variables.after ?? 0) + 1);
    });
  const { opened, Socket } = served();
  let tokens = 0;
  const options = { url: URL_OF_SOCKETS, transport: "websocket" };
  assert.deepEqual(await take({ ...options, WebSocket: Socket, token: () => `t${(tokens += 1)}` }, 1), [1]);
  assert.deepEqual(opened.map(({ said }) => said[0].payload.authorization), ["Bearer t1", "Bearer t2"]);

  const fixed = served();
  await assert.rejects(
    take({ ...options, WebSocket: fixed.Socket, token: "t" }, 1),
    (error) => error instanceof FeedError && error.code === "UNAUTHENTICATED",
  );
  assert.equal(fixed.opened.length, 1);
});

test("a close code that says that the client is wrong is thrown as an error of the feed", async () => {
  for (const [code, as] of [[4400, "BAD_USER_INPUT"], [4403, "FORBIDDEN"], [4406, "BAD_USER_INPUT"], [4409, "BAD_USER_INPUT"], [4429, "BAD_USER_INPUT"]]) {
    const { opened, Socket } = sockets((socket) => socket.end(code, "so it is"));
    await assert.rejects(take({ url: URL_OF_SOCKETS, transport: "websocket", WebSocket: Socket }, 1), (error) => {
      assert.ok(error instanceof FeedError, `${error}`);
      assert.deepEqual(error.errors[0].extensions, { code: as, closeCode: code });
      assert.equal(error.code, as);
      return error.message.includes(String(code)) && error.message.includes("so it is");
    });
    assert.equal(opened.length, 1);
  }
});
