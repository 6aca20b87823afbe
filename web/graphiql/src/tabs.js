// The tabs of a first visit: the path of a change, from creation to a live update.
const customer = { id: "1001" };

export const tabs = [
  {
    query: `# Creates a customer in accounts; orders learns of it from the event.
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
    variables: JSON.stringify(
      {
        input: {
          id: customer.id,
          name: { firstName: "Ada", lastName: "Lovelace" },
          contact: { primaryPhone: "555-0100", email: "ada@example.org" },
          addresses: [
            { type: "SHIPPING", address1: "12 St James's Square", city: "London", state: "LDN", postalCode: "SW1Y 4JH" },
          ],
          creditCards: [],
        },
      },
      null,
      2,
    ),
  },
  {
    query: `# From the replica in orders (name, orders) and from accounts (revision, changes), in one answer.
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
    variables: JSON.stringify(customer, null, 2),
  },
  {
    query: `mutation PlaceOrder($input: PlaceOrderInput!) {
  placeOrder(input: $input) {
    order { id status total customer { id } }
  }
}
`,
    variables: JSON.stringify(
      {
        input: {
          customerId: customer.id,
          items: [{ product: { guid: "b5efd4a0-4eb9-4ad0-bc9e-2f5542cbe897", title: "Tea", price: "12.50" }, quantity: 2 }],
        },
      },
      null,
      2,
    ),
  },
  {
    query: `# Run this, then place or advance an order in another tab.
subscription OrderUpdated($customerId: ID) {
  orderUpdated(customerId: $customerId) {
    cursor
    type
    order { id status total }
  }
}
`,
    variables: JSON.stringify({ customerId: customer.id }, null, 2),
  },
];
