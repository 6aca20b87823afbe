// Evaluated in a page of the gateway: follows the orders of everybody by the client library, once by each transport, and holds what it
// must keep to: every change once, in order.
globalThis.followed = {};
import("/ui/live/tandem-live.js").then(({ follow }) => {
  const query = `subscription Follow($after: String) {
    orderFeed(after: $after, snapshot: true, heartbeatSeconds: 5) {
      __typename
      ... on OrderSnapshot { cursor previous complete orders { id revision } }
      ... on OrderUpdate { cursor previous order { id revision } }
      ... on Heartbeat { cursor previous at }
    }
  }`;
  for (const transport of ["websocket", "sse"]) {
    const seen = (globalThis.followed[transport] = { orders: {}, faults: [], counts: {}, began: false });
    const onState = ({ counts }) => (seen.counts = counts);
    const onRestart = (reason) => seen.faults.push(`began anew: ${reason}`);
    (async () => {
      for await (const item of follow({ url: `${location.origin}/graphql`, query, transport, longestPause: 1_000, onState, onRestart })) {
        for (const { id, revision } of item.orders ?? []) {
          if (id in seen.orders) seen.faults.push(`${id} is in the snapshot twice`);
          seen.orders[id] = revision;
        }
        if (item.complete) seen.began = true;
        if (!item.order) continue;
        const { id, revision } = item.order;
        const before = seen.orders[id] ?? 0;
        if (revision !== before + 1) seen.faults.push(`${id} came at ${revision} behind ${before}`);
        seen.orders[id] = revision;
      }
    })().catch((error) => seen.faults.push(String(error)));
  }
});
