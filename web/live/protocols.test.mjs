// The client of live feeds and the two protocols that it speaks: server-sent events however they are written and cut, WebSockets however
// they end, and answers that are neither.

import assert from "node:assert/strict";
import { test } from "node:test";

import { END, QUERY, URL_OF_SOCKETS, item, pause, refusal, server, sockets, take, upTo } from "./servers.mjs";
import { FeedError, follow } from "./tandem-live.js";

/** A `fetch` whose answers come in these pieces, and then stay open. */
const inPieces = (pieces, headers = { "content-type": "text/event-stream" }, status = 200) => {
  const asked = [];
  const fetch = async (url, request) => {
    asked.push({ url: String(url), ...request, body: JSON.parse(request.body) });
    const body = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
        request.signal.addEventListener("abort", () => controller.error(request.signal.reason));
      },
    });
    return new Response(body, { status, headers });
  };
  return { fetch, asked };
};

const URL_OF_PIECES = "https://shop.example/graphql";

test("server-sent events are read whatever ends their lines and wherever the stream is cut", async () => {
  const odd = (number, previous) =>
    `id: ${number}\nretry: 1\nevent:next\n:a comment: with a colon\ndata:{"data":{"orderFeed":{"cursor":"${number}",\ndata\ndata:  "previous":"${previous}","number":${number},"text":"ö: é"}}}\n\n`;
  const stream = `\ufeff:\n\n${odd(1, 0)}:\n\n${odd(2, 1)}\n\nevent: unknown\n\n${odd(3, 2)}`;
  for (const lineEnd of ["\n", "\r", "\r\n"]) {
    const bytes = new TextEncoder().encode(stream.replaceAll("\n", lineEnd));
    for (const size of [1, 2, 3, 7, 64, bytes.length]) {
      const pieces = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
      const { fetch, asked } = inPieces(pieces);
      const items = [];
      for await (const one of follow({ url: URL_OF_PIECES, query: QUERY, transport: "sse", fetch })) {
        items.push([one.number, one.text]);
        if (items.length === 3) break;
      }
      assert.deepEqual(items, [[1, "ö: é"], [2, "ö: é"], [3, "ö: é"]], JSON.stringify([lineEnd, size]));
      assert.equal(asked.length, 1);
    }
  }
});

test("an end is an end with data and without, and what was not ended by an empty line is no event", async () => {
  for (const end of [END, "event: complete\n\n", "event:complete\ndata:\n\n", item(2).slice(0, -1)]) {
    const { url, seen, close } = await server((response, after) => (after === 0 ? response.end(item(1) + end) : response.write(item(after + 1))));
    const reasons = [];
    const onState = ({ is, reason }) => is === "waiting" && reasons.push(reason);
    assert.deepEqual(await take({ url, onState }, 2), [1, 2]);
    assert.deepEqual(seen.map(({ after }) => after), [null, "1"], end);
    assert.deepEqual(reasons, [end.includes("complete") ? "the server ended the subscription" : "the connection ended"]);
    close();
  }
});

test("what is no JSON, no response or no end of a line ends the connection and not the program", async () => {
  const longest = "x".repeat(1024 * 1024);
  for (const [said, reason] of [
    ["data: {\n\n", "the server sent what is no item"],
    ["data: null\n\n", "the server sent what is no item"],
    ['data: {"data":{"orderFeed":null}}\n\n', "the server sent what is no item"],
    [`data: ${longest.repeat(17)}`, "an event is too long"],
  ]) {
    let connections = 0;
    const [bad, good] = [inPieces([said]), inPieces([item(1)])];
    const fetch = (...of) => ((connections += 1) === 1 ? bad : good).fetch(...of);
    const reasons = [];
    const onState = (state) => state.is === "waiting" && reasons.push(state.reason);
    assert.deepEqual(await take({ url: URL_OF_PIECES, fetch, onState }, 1), [1]);
    assert.deepEqual(reasons, [reason]);
  }
  for (const said of ["{", "null", "[]", new Uint8Array([1])]) {
    const { opened, Socket } = sockets((socket, { type, payload }) => {
      if (type === "connection_init") socket.hear({ type: "connection_ack" });
      else if (opened.length === 1) setTimeout(() => socket.onmessage?.({ data: said }), 0);
      else socket.next(Number(payload.variables.after ?? 0) + 1);
    });
    assert.deepEqual(await take({ url: URL_OF_SOCKETS, transport: "websocket", WebSocket: Socket }, 1), [1]);
    assert.equal(opened.length, 2);
  }
});

test("an answer that is no stream is tried again when it says so, and never before", async (context) => {
  context.mock.method(Math, "random", () => 0);
  for (const [wait, delay] of [["0.05", 50], ["-5", 125], ["Wed, 21 Oct 2026 07:28:00 GMT", 125], ["99999999999", 3_600_000]]) {
    const { fetch } = inPieces(["<html>"], { "content-type": "text/html", "retry-after": wait }, 503);
    const controller = new AbortController();
    const states = [];
    const onState = (state) => {
      if (state.is !== "waiting") return;
      states.push(state);
      controller.abort();
    };
    // The answer stays open: what is no event is not waited for.
    const ended = async (...of) => new Response("<html>", { status: 503, headers: (await fetch(...of)).headers });
    const next = follow({ url: URL_OF_PIECES, query: QUERY, transport: "sse", fetch: ended, signal: controller.signal, onState }).next();
    assert.ok((await next).done);
    assert.deepEqual([states.length, states[0].reason, states[0].delay], [1, "the server answered 503", delay], wait);
  }
});

test("what can never be right is thrown at once", async () => {
  const none = { query: QUERY, fetch: () => assert.fail("nobody is asked") };
  await assert.rejects(follow({ ...none, url: "/graphql", transport: "sse" }).next(), TypeError);
  const websocket = { ...none, url: URL_OF_PIECES, transport: "websocket" };
  const { WebSocket } = globalThis;
  try {
    delete globalThis.WebSocket;
    await assert.rejects(follow(websocket).next(), /there is no WebSocket here/);
  } finally {
    if (WebSocket) globalThis.WebSocket = WebSocket;
  }
  for (const left of ["cursor", "previous"]) {
    const without = item(1).replace(`"${left}"`, '"other"');
    const { fetch } = inPieces([without]);
    await assert.rejects(take({ url: URL_OF_PIECES, fetch }, 1), (error) => {
      assert.ok(error instanceof FeedError && error.code === "BAD_USER_INPUT", `${error}`);
      return error.message.includes("OrderUpdate");
    });
  }
});

test("errors beside an item are told, and the item is handed out", async () => {
  const { fetch } = inPieces([item(1).replace('{"data"', '{"errors":[{"message":"behind"}],"data"'), item(2)]);
  const told = [];
  const onErrors = (errors, { number }) => told.push([errors[0].message, number]);
  assert.deepEqual(await take({ url: URL_OF_PIECES, fetch, onErrors }, 2), [1, 2]);
  assert.deepEqual(told, [["behind", 1]]);
});

test("who asks, and what is to be readable first, is said by both transports", async () => {
  const options = { query: QUERY, token: async () => "t", consistency: () => "v1~o.1.2" };
  const { fetch, asked } = inPieces([item(1)]);
  assert.deepEqual(await take({ ...options, url: URL_OF_PIECES, fetch }, 1), [1]);
  const { authorization, "tandem-consistency": consistency } = asked[0].headers;
  assert.deepEqual([authorization, consistency], ["Bearer t", "v1~o.1.2"]);

  const { opened, Socket } = sockets((socket, { type }) => (type === "subscribe" ? socket.next(1) : socket.hear({ type: "connection_ack" })));
  assert.deepEqual(await take({ ...options, url: "https://shop.example/graphql?a=http", transport: "websocket", WebSocket: Socket }, 1), [1]);
  assert.equal(opened[0].url, "wss://shop.example/graphql?a=http");
  assert.deepEqual(opened[0].said[0].payload, { authorization: "Bearer t", "tandem-consistency": "v1~o.1.2" });
});

test("whatever else a WebSocket is closed with is resumed", async () => {
  for (const code of [1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 4408, 4500]) {
    const { opened, Socket } = sockets((socket, { type, payload }, connection) => {
      if (type === "connection_init") socket.hear({ type: "connection_ack" });
      else if (type === "subscribe") {
        socket.next(Number(payload.variables.after ?? 0) + 1);
        if (connection === 1) socket.end(code);
      }
    });
    assert.deepEqual(await take({ url: URL_OF_SOCKETS, transport: "websocket", WebSocket: Socket }, 2), [1, 2], String(code));
    assert.deepEqual(opened.map(({ said }) => said.find(({ type }) => type === "subscribe").payload.variables.after), [null, "1"]);
  }
});

test("a message that is too large for the server is an error of the feed", async () => {
  const { opened, Socket } = sockets((socket) => socket.end(1009, "the message is too large"));
  await assert.rejects(
    take({ url: URL_OF_SOCKETS, transport: "websocket", WebSocket: Socket }, 1),
    (error) => error instanceof FeedError && error.code === "BAD_USER_INPUT" && error.errors[0].extensions.closeCode === 1009,
  );
  assert.equal(opened.length, 1);
});

test("an outage says nothing of a token, and a token that is refused again and again is an error", async () => {
  let connections = 0;
  const { url, close } = await server((response, after) => {
    connections += 1;
    if (connections <= 8) response.destroy();
    else if (connections === 9) response.end(refusal("UNAUTHENTICATED") + END);
    else response.write(item(after + 1));
  });
  assert.deepEqual(await take({ url, longestPause: 5, token: () => "t" }, 1), [1]);
  close();

  const refusing = await server((response) => response.end(refusal("UNAUTHENTICATED") + END));
  await assert.rejects(take({ url: refusing.url, token: () => "t" }, 1), (error) => error.code === "UNAUTHENTICATED");
  assert.equal(refusing.seen.length, 6);
  refusing.close();
});

test("where something is missed again and again, it is not asked for as fast as the server can", async () => {
  const { url, close } = await server((response, after) => response.write(item(after + 1) + item(after + 3)));
  const delays = [];
  const onState = ({ is, delay }) => is === "waiting" && delays.push(delay);
  assert.deepEqual(await take({ url, longestPause: 10_000, onState }, 4), upTo(4));
  assert.equal(delays[0], 0);
  assert.ok(delays.slice(1).every((delay) => delay >= 125), `${delays}`);
  await pause(0);
  close();
});

const WITH_HEARTBEATS = "subscription($after: String) { orderFeed(after: $after) { ... on Heartbeat { cursor previous } } }";

test("comments and pings are a sign of life where no heartbeats come, and stand for none where they are to come", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const settled = async () => {
    for (let step = 0; step < 20; step += 1) await null;
  };
  for (const [query, expected] of [[QUERY, []], [WITH_HEARTBEATS, ["nothing was heard for too long"]]]) {
    for (const transport of ["sse", "websocket"]) {
      const reasons = [];
      const onState = ({ is, reason }) => is === "waiting" && reasons.push(reason);
      const controller = new AbortController();
      let stream;
      const fetch = async () => {
        const body = new ReadableStream({ start: (of) => (stream = of) });
        return new Response(body, { headers: { "content-type": "text/event-stream" } });
      };
      const { opened, Socket } = sockets((socket, { type }) => type === "connection_init" && socket.hear({ type: "connection_ack" }));
      const options = { url: URL_OF_SOCKETS, query, transport, fetch, WebSocket: Socket, silence: 10_000, signal: controller.signal, onState };
      const next = follow(options).next();
      for (let step = 0; step < 3; step += 1) {
        await settled();
        context.mock.timers.tick(1);
      }
      for (let second = 0; second < 9; second += 1) {
        if (transport === "sse") stream.enqueue(new TextEncoder().encode(second % 2 ? ":\n\n" : ": still here\n"));
        else opened[0].onmessage({ data: '{"type":"ping"}' });
        await settled();
        context.mock.timers.tick(1_000);
      }
      assert.deepEqual(reasons, [], `${transport}: ${query}`);
      if (transport === "sse") stream.enqueue(new TextEncoder().encode(":\n\n"));
      else opened[0].onmessage({ data: '{"type":"pong"}' });
      await settled();
      context.mock.timers.tick(2_000);
      assert.deepEqual(reasons, expected, `${transport}: ${query}`);
      controller.abort();
      await next;
    }
  }
});

test("an event that comes slowly is no silence", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const reasons = [];
  const onState = ({ is, reason }) => is === "waiting" && reasons.push(reason);
  let stream;
  const fetch = async () => new Response(new ReadableStream({ start: (of) => (stream = of) }), { headers: { "content-type": "text/event-stream" } });
  const feed = follow({ url: URL_OF_PIECES, query: WITH_HEARTBEATS, transport: "sse", fetch, silence: 10_000, onState });
  const next = feed.next();
  while (!stream) await null;
  for (const piece of item(1).match(/[^]{1,8}/g)) {
    stream.enqueue(new TextEncoder().encode(piece));
    for (let step = 0; step < 20; step += 1) await null;
    context.mock.timers.tick(9_000);
  }
  assert.equal((await next).value.number, 1);
  assert.deepEqual(reasons, []);
  await feed.return();
});
