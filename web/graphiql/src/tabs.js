// The tabs of a first visit to each graph: the path of a change, from creation to a live update.
const customer = { id: "1001" };

const tab = (query, variables) => ({ query, variables: JSON.stringify(variables, null, 2) });

const createCustomer = tab(
  `# Creates a customer in accounts; orders learns of it from the event.
# The idempotency key makes it safe to press the button twice.
mutation CreateCustomer($input: CreateCustomerInput!) {
  createCustomer(input: $input) {
    customer {
      id
      revision
      name { firstName lastName }
    }
  }
}
`,
  {
    input: {
      id: customer.id,
      name: { firstName: "Ada", lastName: "Lovelace" },
      contact: { primaryPhone: "555-0100", email: "ada@example.org" },
      addresses: [
        { type: "SHIPPING", address1: "12 St James's Square", city: "London", state: "LDN", postalCode: "SW1Y 4JH" },
      ],
      creditCards: [],
      idempotencyKey: "ada-in-graphiql",
    },
  },
);

const readCustomer = tab(
  `# The customer, and every change of it as Kafka holds it.
query Customer($id: ID!) {
  customer(id: $id) {
    id
    revision
    name { firstName lastName }
    contact { primaryPhone email }
    changes { nodes { revision type changedAt changedBy changedFields } }
  }
}
`,
  customer,
);

const updateCustomer = tab(
  `# Changes what is given and leaves the rest.
mutation UpdateCustomer($id: ID!, $input: UpdateCustomerInput!) {
  updateCustomer(id: $id, input: $input) {
    customer { id revision contact { primaryPhone email } }
  }
}
`,
  { ...customer, input: { contact: { primaryPhone: "555-0101", email: "countess@example.org" } } },
);

const orderingCustomer = tab(
  `# From the replica in orders (name, orders) and from accounts (revision, changes), in one answer.
query OrderingCustomer($id: ID!) {
  orderingCustomer(id: $id) {
    id
    name { firstName lastName }
    orders { nodes { id status total } }
    replica { revision replicatedAt }
    revision
    changes { nodes { revision type changedAt changedBy changedFields } }
  }
}
`,
  customer,
);

const replica = tab(
  `# The customer as orders knows it: answers while accounts is away.
query OrderingCustomer($id: ID!) {
  orderingCustomer(id: $id) {
    id
    name { firstName lastName }
    orders { nodes { id status total } }
    replica { revision changedAt replicatedAt }
  }
}
`,
  customer,
);

const placeOrder = tab(
  `mutation PlaceOrder($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    order { id status total customer { id } }
  }
}
`,
  {
    input: {
      customerId: customer.id,
      items: [{ product: { guid: "b5efd4a0-4eb9-4ad0-bc9e-2f5542cbe897", title: "Tea", price: "12.50" }, quantity: 2 }],
    },
  },
);

const orderUpdated = tab(
  `# Run this, then place or advance an order in another tab.
subscription OrderUpdated($customerId: ID) {
  orderUpdated(customerId: $customerId) {
    cursor
    type
    order { id status total }
  }
}
`,
  { customerId: customer.id },
);

export const tabsOf = {
  gateway: [createCustomer, orderingCustomer, placeOrder, orderUpdated],
  accounts: [createCustomer, readCustomer, updateCustomer],
  orders: [replica, placeOrder, orderUpdated],
};
