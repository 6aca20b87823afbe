// The page behind GET /graphql: GraphiQL against the address it was loaded from, subscriptions over the same port.
import React from "react";
import { createRoot } from "react-dom/client";
import { GraphiQL } from "graphiql";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { parse } from "graphql";
import "graphiql/style.css";
import "./page.css";
import { tabsOf } from "./tabs.js";

const endpoint = new URL(window.location.pathname, window.location.origin);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol === "https:" ? "wss:" : "ws:";

// The headers that a person enters go along with a subscription too, as the payload of its `connection_init`.
const send = createGraphiQLFetcher({ url: endpoint.href, subscriptionUrl: socket.href });

// GraphiQL reads the editor a moment after it changed: what is sent before would be taken for the operation that stood there before, and a
// subscription be sent as a query. So the operation is read here, as it is sent.
const fetcher = (request, options) => {
  try {
    return send(request, { ...options, documentAST: parse(request.query) });
  } catch {
    // The server says what is wrong with it.
    return send(request, options);
  }
};

// GraphiQL takes the first tab's variables from here alone as long as nothing is stored.
const firstVisit = window.localStorage.getItem("graphiql:tabState") === null;

const place = document.getElementById("graphiql");
const tabs = tabsOf[place.dataset.graph] ?? tabsOf.gateway;

createRoot(place).render(
  <GraphiQL
    fetcher={fetcher}
    defaultTabs={tabs}
    variables={firstVisit ? tabs[0].variables : undefined}
    defaultEditorToolsVisibility="variables"
    shouldPersistHeaders={false}
  />,
);
