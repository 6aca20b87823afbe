// Follows the orders of everybody by the client library and writes each item as a line of JSON; then a line of counts with each change of
// state. Ends with its standard input.

import { follow } from "../../../web/live/tandem-live.js";

const [url, transport] = process.argv.slice(2);
const query = `subscription Follow($after: String) {
  orderFeed(after: $after, snapshot: true, heartbeatSeconds: 5) {
    __typename
    ... on OrderSnapshot { cursor previous complete orders { id revision } }
    ... on OrderUpdate { cursor previous order { id revision } }
    ... on Heartbeat { cursor previous at }
  }
}`;

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const controller = new AbortController();
process.stdin.resume().on("end", () => controller.abort());
const onState = ({ is, reason, counts }) => is !== "live" && say({ is, reason, counts });
const onRestart = (reason) => say({ restart: reason });
for await (const item of follow({ url, query, transport, longestPause: 1_000, signal: controller.signal, onState, onRestart })) {
  if (item.__typename === "OrderSnapshot") say({ snapshot: item.orders, complete: item.complete });
  else say({ update: item.order });
}
process.exit(0);
