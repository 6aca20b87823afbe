// The operations that this page sends, and how: a change is sent again until somebody has answered it.

export const endpoint = new URL("../../graphql", import.meta.url);

const ORDER = "fragment Shown on Order { id status total revision updatedAt items { quantity product { title } } }";
const CUSTOMER = "fragment Known on Customer { id name { firstName lastName } contact { email } replica { revision changedAt replicatedAt } }";

/** Every operation of the page: what it is for, its text, and variables to try it with. */
export const OPERATIONS = {
  customers: {
    what: "customers to choose from",
    query: "query Customers { customers(first: 50) { nodes { id name { firstName lastName } } } }",
    variables: {},
  },
  create: {
    what: "a new customer",
    query: `mutation CreateCustomer($input: CreateCustomerInput!) {
  createCustomer(input: $input) { customer { id revision updatedAt } }
}`,
    variables: {},
  },
  change: {
    what: "a change of the customer",
    query: `mutation UpdateCustomer($id: ID!, $input: UpdateCustomerInput!) {
  updateCustomer(id: $id, input: $input) { customer { id revision updatedAt } }
}`,
    variables: {},
  },
  place: {
    what: "an order",
    query: `mutation PlaceOrder($input: PlaceOrderInput!) {
  placeOrder(input: $input) { order { id revision updatedAt } }
}`,
    variables: {},
  },
  move: {
    what: "an order moved on",
    query: `mutation AdvanceOrder($id: ID!, $to: OrderStatus!) {
  advanceOrder(id: $id, to: $to) { order { id revision updatedAt } }
}`,
    variables: {},
  },
  orderFeed: {
    what: "the orders of a customer, and what happens to them",
    query: `subscription OrderFeed($customerId: ID!, $after: String) {
  orderFeed(customerId: $customerId, after: $after, snapshot: true, heartbeatSeconds: 5) {
    __typename
    ... on OrderSnapshot { cursor previous complete orders { ...Shown } }
    ... on OrderUpdate { cursor previous type publishedAt order { ...Shown } }
    ... on Heartbeat { cursor previous at }
  }
}
${ORDER}`,
    variables: {},
  },
  customerFeed: {
    what: "the customer as orders knows them, and what happens to them",
    query: `subscription CustomerFeed($id: ID!, $after: String) {
  customerFeed(id: $id, after: $after, snapshot: true, heartbeatSeconds: 5) {
    __typename
    ... on CustomerSnapshot { cursor previous customer { ...Known } }
    ... on CustomerChangeUpdate { cursor previous publishedAt changed: customer { ...Known } }
    ... on Heartbeat { cursor previous at }
  }
}
${CUSTOMER}`,
    variables: {},
  },
};

/** Does something with what is kept for this window; where the browser forbids that, nothing is kept. */
function kept(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

let bearer = kept((store) => store.getItem("tandem-token")) || undefined;

export const token = () => bearer;

export function useToken(text) {
  bearer = text.trim() || undefined;
  kept((store) => store.setItem("tandem-token", bearer ?? ""));
}

/** An answer with errors. */
export class Refused extends Error {
  constructor(errors) {
    super(errors[0].message);
    this.code = errors[0].extensions?.code;
  }
}

/** Sends an operation once; remembers what was sent, to be copied. */
export async function send(name, variables) {
  const operation = OPERATIONS[name];
  operation.variables = variables;
  const asked = fetch(endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json",
      ...(bearer ? { authorization: `Bearer ${bearer}` } : {}),
    },
    body: JSON.stringify({ query: operation.query, variables }),
    signal: AbortSignal.timeout(8000),
  });
  const response = await asked.catch((problem) => {
    throw new Error(problem.name === "TimeoutError" ? "no answer within 8 s" : "the gateway does not answer", { cause: problem });
  });
  const answer = await response.json().catch(() => null);
  if (!answer) throw new Error(`the gateway answered ${response.status}`);
  if (answer.errors) throw new Refused(answer.errors);
  return Object.values(answer.data)[0];
}

/** Whether the same may be answered a moment later. */
export const mayPass = (problem) => !(problem instanceof Refused) || ["UNAVAILABLE", "RATE_LIMITED", "CUSTOMER_UNKNOWN"].includes(problem.code);

/** A time to wait before the next try, in milliseconds. */
export const pause = (tries) => Math.min(2000, 200 * 2 ** tries) * (0.5 + Math.random() / 2);

/**
 * Sends a change until it is answered. What was stored and not answered, because the service died in between, is known by its idempotency
 * key, or by the step that the order has taken already.
 */
export async function change(name, variables, onWait) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await send(name, variables);
    } catch (problem) {
      const most = problem.code === "CUSTOMER_UNKNOWN" ? 20 : 60;
      if (!mayPass(problem) || tries > most) throw problem;
      onWait?.(problem, tries);
      await new Promise((done) => setTimeout(done, pause(tries)));
    }
  }
}

/** An operation as a command to paste. */
export function curl(name) {
  const { query, variables } = OPERATIONS[name];
  const body = JSON.stringify({ query: query.replace(/\s+/g, " "), variables }).replaceAll("'", "'\\''");
  const live = query.startsWith("subscription") ? " -N -H 'accept: text/event-stream'" : "";
  const who = bearer ? " -H \"authorization: Bearer $TOKEN\"" : "";
  return `curl -s${live} ${endpoint.href} -H 'content-type: application/json'${who} -d '${body}'`;
}
