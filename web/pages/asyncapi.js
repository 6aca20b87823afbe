// Draws the AsyncAPI document: each topic, who writes and reads it, its messages with headers and schema. Text alone is put into the page.
const main = document.getElementById("topics");
const lead = main.querySelector(".lead");

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// What a reference of this document names.
function follow(whole, value) {
  if (typeof value?.$ref !== "string") return value;
  const steps = value.$ref.replace(/^#\//, "").split("/");
  return steps.reduce((at, step) => at?.[step.replaceAll("~1", "/").replaceAll("~0", "~")], whole);
}

function kind(whole, schema) {
  const target = schema.$ref ?? schema.allOf?.[0]?.$ref;
  if (target) return target.split(".").pop().split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((one) => kind(whole, one)).join(" | ");
  const type = [schema.type ?? "any"].flat().join(" | ");
  return schema.items ? `${type} of ${kind(whole, schema.items)}` : type;
}

function fields(whole, schema) {
  const rows = Object.entries(schema?.properties ?? {}).map(([name, field]) => {
    const needed = schema.required?.includes(name) ? "" : " (may be missing)";
    const about = field.description ?? follow(whole, field.allOf?.[0])?.description ?? "";
    return element("li", {}, element("code", {}, name), ` ${kind(whole, field)}${needed}. ${about}`);
  });
  return rows.length ? [element("ul", {}, ...rows)] : [element("p", {}, schema?.description ?? kind(whole, schema ?? {}))];
}

function message(whole, reference) {
  const told = follow(whole, reference);
  const payload = follow(whole, told.payload);
  return element(
    "details",
    {},
    element("summary", {}, element("strong", {}, told.title), ` ${told.summary}`),
    element("h4", {}, "Headers"),
    ...fields(whole, told.headers),
    element("h4", {}, "Body"),
    ...fields(whole, payload),
    element("details", {}, element("summary", {}, "JSON Schema"), element("pre", {}, JSON.stringify(payload, null, 2))),
  );
}

function topic(whole, name, channel) {
  const reads = Object.values(whole.operations)
    .filter((operation) => operation.action === "receive" && operation.channel.$ref === `#/channels/${name}`)
    .map((operation) => operation.tags[0].name);
  const readers = reads.length ? ` Read by ${reads.join(" and ")}.` : "";
  return element(
    "section",
    { id: name },
    element("h2", {}, element("code", {}, channel.address)),
    element("p", {}, `${channel.description}${readers}`),
    ...Object.values(channel.messages).map((reference) => message(whole, reference)),
  );
}

try {
  const answer = await fetch("/asyncapi.json");
  if (!answer.ok) throw new Error(`${answer.status}`);
  const whole = await answer.json();
  lead.textContent = whole.info.description;
  main.append(...Object.entries(whole.channels).map(([name, channel]) => topic(whole, name, channel)));
} catch (error) {
  lead.textContent = `The document cannot be read (${error.message}).`;
}
