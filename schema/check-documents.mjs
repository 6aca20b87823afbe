// Checks the documents of the topics and of the REST routes against their specifications:
// asyncapi.json by AsyncAPI's own parser, openapi/*.json (OpenAPI 3.1) by @seriousme/openapi-schema-validator.
//
//   node check-documents.mjs
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Parser } from "@asyncapi/parser";
import { Validator } from "@seriousme/openapi-schema-validator";

const folder = dirname(fileURLToPath(import.meta.url));
const text = (name) => readFileSync(join(folder, name), "utf8");
let failed = false;
const complain = (name, sentence) => {
  failed = true;
  console.error(`schema/${name}: ${sentence}`);
};

// 0 is an error and 1 a warning; 2 and 3 are advice, such as that there is a newer version of the specification.
const WARNING = 1;
const { document, diagnostics } = await new Parser().parse(text("asyncapi.json"));
for (const { severity, path, message } of diagnostics.filter((one) => one.severity <= WARNING)) {
  complain("asyncapi.json", `${severity ? "warning" : "error"} at ${path.join("/") || "/"}: ${message}`);
}
if (!document) complain("asyncapi.json", "the parser makes no document of it");
else console.log(`schema/asyncapi.json is AsyncAPI ${document.version()}: ${document.channels().length} topics.`);

const openapi = readdirSync(join(folder, "openapi")).filter((name) => name.endsWith(".json"));
if (openapi.length === 0) complain("openapi", "there is no document");
for (const name of openapi.map((name) => `openapi/${name}`)) {
  const validator = new Validator();
  const { valid, errors } = await validator.validate(JSON.parse(text(name)));
  if (!valid) complain(name, JSON.stringify(errors));
  else if (validator.version !== "3.1") complain(name, `it is OpenAPI ${validator.version}, not 3.1`);
  else console.log(`schema/${name} is OpenAPI ${validator.version}.`);
}
process.exit(failed ? 1 : 0);
