// The examples of docs/live.md with Apollo Client and with urql, taken from there as they are written, against a running gateway: each has
// the snapshot and then the changes, and Apollo's cache has them wherever an order is shown. And a subscription in which nothing happens
// and that has no heartbeats stays on its first connection.
//
//   node --experimental-websocket live.mjs GATEWAY TRANSPORT          such as http://127.0.0.1:9090 websocket; or sse

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

import { ApolloClient, InMemoryCache, gql } from "@apollo/client";

const [gateway, transport] = process.argv.slice(2);
const CUSTOMER = "ada-1815";
/** For what takes moments on an idle machine. */
const LIMIT = 60_000;

// The examples take what there is.
if (transport === "sse") delete globalThis.WebSocket;
assert.equal(globalThis.WebSocket === undefined, transport === "sse", "a transport is given that this Node has");

// They are written for a page of the gateway, whose addresses are relative.
globalThis.location = { href: `${gateway}/` };
const { fetch: far } = globalThis;
globalThis.fetch = (input, init) => far(typeof input === "string" ? new URL(input, gateway) : input, init);

const document = await readFile(new URL("../../docs/live.md", import.meta.url), "utf8");

/** The first block of code below a heading. */
function example(heading) {
  const lines = document.split(`\n## ${heading}\n`)[1]?.split("\n") ?? [];
  const begin = lines.findIndex((line) => line.startsWith("    "));
  assert.ok(begin >= 0, `docs/live.md has no example below ${JSON.stringify(heading)}`);
  const end = lines.findIndex((line, index) => index > begin && line !== "" && !line.startsWith("    "));
  return lines.slice(begin, end).map((line) => line.slice(4)).join("\n");
}

// Where the packages of this folder are found, with the library beside it as the examples import it.
const folder = await mkdtemp(fileURLToPath(new URL("node_modules/.live-", import.meta.url)));
async function module(name, heading, exported) {
  const path = `${folder}/${name}.mjs`;
  await writeFile(path, `${example(heading)}\nexport { ${exported} };\n`);
  return await import(pathToFileURL(path).href);
}

/** Asks until the answer is there. */
async function until(what, ask) {
  const deadline = Date.now() + LIMIT;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < deadline, `not within ${LIMIT} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** An operation by somebody else. */
async function ask(query, variables) {
  const answer = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  return await answer.json();
}

async function place() {
  const items = [{ product: { guid: "b5efd4a0-4eb9-4ad0-bc9e-2f5542cbe897", title: "Engine", price: "12.50" }, quantity: 2 }];
  const query = "mutation($input: PlaceOrderInput!) { placeOrder(input: $input) { order { id } } }";
  const answer = await ask(query, { input: { customerId: CUSTOMER, items } });
  return answer.data?.placeOrder?.order?.id;
}

async function advance(id, to) {
  const query = "mutation($id: ID!, $to: OrderStatus!) { advanceOrder(id: $id, to: $to) { order { id } } }";
  const answer = await ask(query, { id, to });
  assert.equal(answer.errors, undefined, JSON.stringify(answer));
}

/** What came, with whatever went wrong. */
class Told {
  items = [];
  /** @param {any} result of a subscription. */
  take({ data, error, errors }) {
    const wrong = error ?? errors?.[0];
    if (wrong) this.wrong = wrong;
    else if (data) this.items.push(data.orderFeed);
  }
  async has(what, condition) {
    return await until(what, () => {
      if (this.wrong) throw this.wrong;
      return this.items.find(condition);
    });
  }
}

const inSnapshot = (id) => (item) => item.__typename === "OrderSnapshot" && item.orders.some((order) => order.id === id);
const isAt = (id, status) => (item) => item.__typename === "OrderUpdate" && item.order.id === id && item.order.status === status;

async function apollo(id) {
  const { link } = await module("apollo", "With Apollo Client", "link");
  const client = new ApolloClient({ cache: new InMemoryCache(), link });
  let shown;
  const watched = client.watchQuery({ query: gql("query Shown($id: ID!) { order(id: $id) { id status } }"), variables: { id } });
  const watching = watched.subscribe(({ data }) => (shown = data?.order?.status));
  await until("the order is shown", () => shown === "PLACED");
  const told = new Told();
  const live = client.subscribe({ query: gql(example("The feeds")) }).subscribe({
    next: (result) => told.take(result),
    error: (error) => told.take({ error }),
  });
  await told.has("Apollo Client has the snapshot", inSnapshot(id));
  await advance(id, "CONFIRMED");
  await told.has("Apollo Client has the change", isAt(id, "CONFIRMED"));
  await until("the cache shows it where the order is shown", () => shown === "CONFIRMED");
  live.unsubscribe();
  watching.unsubscribe();
  client.stop();
}

async function urql(id) {
  const { client } = await module("urql", "With urql", "client");
  const query = "query Shown($id: ID!) { order(id: $id) { id status } }";
  const { data } = await client.query(query, { id }).toPromise();
  assert.equal(data.order.status, "CONFIRMED");
  const told = new Told();
  const live = client.subscription(example("The feeds"), {}).subscribe((result) => told.take(result));
  await told.has("urql has the snapshot", inSnapshot(id));
  await advance(id, "SHIPPED");
  await told.has("urql has the change", isAt(id, "SHIPPED"));
  live.unsubscribe();
}

/** The server is asked three times within the silence that is borne. */
async function quiet() {
  const { follow } = await import(pathToFileURL(`${folder}/tandem-live.js`).href);
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 3_000);
  let connections;
  const query = 'subscription($after: String) { orderUpdated(customerId: "nobody", after: $after) { __typename cursor previous } }';
  // Over server-sent events comments come, each 10 s.
  const silence = transport === "sse" ? 12_000 : 1_200;
  const onState = ({ is, counts }) => is === "live" && ({ connections } = counts);
  for await (const item of follow({ url: "/graphql", query, silence, signal: controller.signal, onState })) assert.fail(JSON.stringify(item));
  assert.equal(connections, 1);
}

try {
  await cp(new URL("../../web/live/", import.meta.url), folder, { recursive: true });
  const input = {
    id: CUSTOMER,
    name: { firstName: "Ada", lastName: "Lovelace" },
    contact: { primaryPhone: "+44 20 7946 0001", email: "ada@example.org" },
    addresses: [],
    creditCards: [],
  };
  await ask("mutation($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }", { input });
  const id = await until("an order is taken", place);
  await apollo(id);
  console.log(`Apollo Client follows a feed as docs/live.md shows it, by ${transport}`);
  await urql(id);
  console.log(`urql follows a feed as docs/live.md shows it, by ${transport}`);
  await quiet();
  console.log(`a quiet subscription stays on its connection, by ${transport}`);
} finally {
  await rm(folder, { recursive: true });
}
