// Composes accounts.graphql and orders.graphql into supergraph.graphql.
//
//   npm ci
//   node compose.mjs                  write supergraph.graphql
//   node compose.mjs --check          fail when the committed supergraph.graphql is stale
//   node compose.mjs --check-apollo   compose with Apollo's composition too, so that Apollo Router takes the schema
//
// Subgraph addresses in the supergraph are the documented ports; a gateway overrides them at run time
// (--accounts-url, --orders-url).
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse, specifiedDirectives } from "graphql";

const folder = dirname(fileURLToPath(import.meta.url));
const target = join(folder, "supergraph.graphql");
const flags = new Set(process.argv.slice(2));
for (const flag of flags) {
  if (!["--check", "--check-apollo"].includes(flag)) fail(`Unknown flag ${flag}: use --check or --check-apollo.`);
}

const subgraphs = [
  { name: "accounts", url: "http://127.0.0.1:8080/graphql" },
  { name: "orders", url: "http://127.0.0.1:8085/graphql" },
].map((subgraph) => ({
  ...subgraph,
  typeDefs: withoutSpecifiedDirectives(parse(readFileSync(join(folder, `${subgraph.name}.graphql`), "utf8"))),
}));

const { composeServices } = await import("@theguild/federation-composition");
const result = composeServices(subgraphs);
if (result.errors?.length) fail(result.errors.map((error) => error.message).join("\n"));
const composed = `${result.supergraphSdl.trim()}\n`;

if (flags.has("--check-apollo")) {
  const apollo = await import("@apollo/composition");
  const { errors } = apollo.composeServices(subgraphs);
  if (errors?.length) fail(errors.map((error) => error.message).join("\n"));
  console.log("@apollo/composition composes the subgraphs too.");
}

if (flags.has("--check")) {
  if (readFileSync(target, "utf8") !== composed) {
    fail("schema/supergraph.graphql is stale: run `node compose.mjs` in schema/ and commit the result.");
  }
  console.log("schema/supergraph.graphql is up to date.");
} else if (!flags.has("--check-apollo")) {
  writeFileSync(target, composed);
  console.log("Wrote schema/supergraph.graphql.");
}

// Every router knows the directives that GraphQL itself defines. One that is told of them describes them twice to its clients.
function withoutSpecifiedDirectives(document) {
  const names = new Set(specifiedDirectives.map(({ name }) => name));
  const isSpecified = ({ kind, name }) => kind === "DirectiveDefinition" && names.has(name.value);
  return { ...document, definitions: document.definitions.filter((definition) => !isSpecified(definition)) };
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
