// What the tests of the client follow: a server of server-sent events, and WebSockets, that say what the test wants.

import { createServer } from "node:http";

import { follow } from "./tandem-live.js";

export const QUERY = "subscription($after: String) { orderFeed(after: $after) { __typename } }";

/** A log of items whose cursors are numbers; each connection is told by `serve(log, response, after, connection)`. */
export async function server(serve) {
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

export const event = (data) => `event: next\ndata: ${JSON.stringify(data)}\n\n`;
export const item = (number, previous = number - 1, type = "OrderUpdate") =>
  event({ data: { orderFeed: { __typename: type, cursor: String(number), previous: String(previous), number } } });
export const refusal = (code, more = {}) => event({ errors: [{ message: code, extensions: { code, ...more } }] });
export const END = "event: complete\ndata: \n\n";

/** Follows until `count` items came. */
export async function take(options, count) {
  const items = [];
  for await (const one of follow({ query: QUERY, transport: "sse", longestPause: 50, ...options })) {
    items.push(one.number);
    if (items.length >= count) break;
  }
  return items;
}

export const upTo = (count) => Array.from({ length: count }, (_, index) => index + 1);

/** A store that keeps what it is given. */
export function memory() {
  const kept = new Map();
  return { kept, getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** WebSockets whose server says something to each message of the client: `serve(socket, message, connection)`. */
export function sockets(serve) {
  const opened = [];
  class Socket {
    constructor(url, protocol) {
      Object.assign(this, { url, protocol, readyState: 0, said: [] });
      opened.push(this);
      setTimeout(() => {
        this.readyState = 1;
        this.onopen?.();
      }, 0);
    }
    send(text) {
      const message = JSON.parse(text);
      this.said.push(message);
      serve(this, message, opened.indexOf(this) + 1);
    }
    hear(message) {
      setTimeout(() => this.onmessage?.({ data: JSON.stringify(message) }), 0);
    }
    next(number) {
      this.hear({ id: "1", type: "next", payload: JSON.parse(item(number).slice(18)) });
    }
    end(code, reason = "") {
      setTimeout(() => this.onclose?.({ code, reason }), 0);
    }
    close() {
      this.readyState = 3;
    }
  }
  return { opened, Socket };
}

export const URL_OF_SOCKETS = "http://127.0.0.1/graphql";
