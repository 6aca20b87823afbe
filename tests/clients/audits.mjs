// The audits of GraphQL over HTTP (graphql-http, `serverAudits`) against each of the given endpoints. All must be ok: a notice or a
// warning is a failure here.
//
//   node audits.mjs NAME=URL...

import { serverAudits } from "graphql-http";

let failed = 0;
for (const argument of process.argv.slice(2)) {
  const [name, url] = argument.split(/=(.*)/);
  let passed = 0;
  for (const audit of serverAudits({ url, fetchFn: fetch })) {
    const result = await audit.fn();
    if (result.status === "ok") {
      passed += 1;
      continue;
    }
    failed += 1;
    console.error(`${name}: ${result.status} ${result.id} ${result.name}: ${result.reason}`);
  }
  console.log(`${name}: ${passed} audits passed`);
}
process.exit(failed === 0 ? 0 : 1);
