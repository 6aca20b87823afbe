// Bundles the GraphiQL page into dist/, which is committed: building Tandem needs no Node.
//
//   npm ci
//   node build.mjs            write dist/
//   node build.mjs --check    fail when the committed dist/ is stale
//
// Web fonts are left out (their licences and 300 KiB with them): the page uses the system's fonts.
import { readFileSync, readdirSync, rmSync, mkdirSync, writeFileSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";
import { buildASTSchema, parse, validate } from "graphql";
import { tabsOf } from "./src/tabs.js";

const folder = dirname(fileURLToPath(import.meta.url));
const dist = join(folder, "dist");

// The tabs of a first visit must fit the schema of their graph.
for (const [graph, tabs] of Object.entries(tabsOf)) {
  const file = graph === "gateway" ? "supergraph" : graph;
  const sdl = readFileSync(join(folder, `../../schema/${file}.graphql`), "utf8");
  const schema = buildASTSchema(parse(sdl), { assumeValidSDL: true });
  for (const { query, variables } of tabs) {
    JSON.parse(variables);
    const [error] = validate(schema, parse(query));
    if (error) throw error;
  }
}

const withoutFonts = {
  name: "without-fonts",
  setup(build) {
    build.onLoad({ filter: /\.css$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replace(/@font-face\s*\{[^}]*\}/g, ""),
      loader: "css",
    }));
  },
};

// What many packages share goes into a file of its own, so that no committed file is larger than 1 MiB.
const shared = ["react", "react-dom", "react-dom/client", "react/jsx-runtime", "graphql", "framer-motion"];

const sharedFromGlobal = {
  name: "shared-from-global",
  setup(build) {
    build.onResolve({ filter: /^[a-z]/ }, ({ path }) => (shared.includes(path) ? { path, namespace: "shared" } : undefined));
    build.onLoad({ filter: /.*/, namespace: "shared" }, ({ path }) => ({
      contents: `module.exports = globalThis.graphiqlLibraries[${JSON.stringify(path)}];`,
    }));
  },
};

const options = {
  absWorkingDir: folder,
  outdir: "dist",
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "iife",
  target: "es2022",
  jsx: "automatic",
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
};

const libraries = shared.map((name, index) => `import * as library${index} from ${JSON.stringify(name)};`).join("\n");
const table = shared.map((name, index) => `${JSON.stringify(name)}: library${index}`).join(", ");
const results = await Promise.all([
  esbuild.build({
    ...options,
    stdin: { contents: `${libraries}\nglobalThis.graphiqlLibraries = { ${table} };`, resolveDir: folder, sourcefile: "libraries.js" },
    entryNames: "libraries",
  }),
  esbuild.build({ ...options, entryPoints: { graphiql: "src/main.jsx" }, plugins: [withoutFonts, sharedFromGlobal] }),
]);

const files = new Map(results.flatMap(({ outputFiles }) => outputFiles).map((file) => [file.path.split("/").pop(), file.text]));
files.set("LICENSES.txt", licences(results.flatMap(({ metafile }) => Object.values(metafile.outputs))));

if (process.argv.includes("--check")) {
  const stale = [...files].filter(([name, text]) => !existsSync(join(dist, name)) || readFileSync(join(dist, name), "utf8") !== text);
  if (stale.length) {
    console.error(`web/graphiql/dist is stale (${stale.map(([name]) => name).join(", ")}): run \`node build.mjs\` and commit.`);
    process.exit(1);
  }
  console.log("web/graphiql/dist is up to date.");
} else {
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist);
  for (const [name, text] of files) {
    writeFileSync(join(dist, name), text);
    console.log(`${name} ${Math.ceil(text.length / 1024)} KiB`);
  }
}

/** The licence texts of every package that has code in the bundle. */
function licences(outputs) {
  const used = new Set();
  for (const output of outputs) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const match = bytesInOutput > 0 && input.match(/^(.*node_modules\/((?:@[^/]+\/)?[^/]+))\//);
      if (match) used.add(match[1]);
    }
  }
  const packages = new Map();
  for (const path of used) {
    const manifest = JSON.parse(readFileSync(join(folder, path, "package.json"), "utf8"));
    if (!/^(MIT|ISC|BSD-\dClause|BSD-\d-Clause|0BSD|Apache-2\.0|Python-2\.0|\(MIT AND .*\))$/.test(manifest.license)) {
      throw new Error(`${manifest.name}: unexpected licence ${manifest.license}`);
    }
    const file = readdirSync(join(folder, path)).find((name) => /^licen[sc]e/i.test(name));
    const text = file ? readFileSync(join(folder, path, file), "utf8").trim() : `${manifest.license}, by ${author(manifest)}`;
    packages.set(`${manifest.name} ${manifest.version} (${manifest.license})`, text);
  }
  return [...packages]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([title, text]) => `${title}\n${"=".repeat(title.length)}\n\n${text.replace(/\r\n/g, "\n")}\n`)
    .join("\n\n");
}

function author({ author, repository }) {
  const name = typeof author === "string" ? author : author?.name;
  return name ?? (typeof repository === "string" ? repository : repository?.url) ?? "its authors";
}
