// The audit of one customer: every change as the log holds it, with what differs from the one before.

import { Refused, get } from "./api.js";
import { element, make, moment, say, several } from "./elements.js";

const text = (value) => (value === null ? "nothing" : typeof value === "string" ? value : JSON.stringify(value));

function difference({ field, before, after }, withheld) {
  const values = withheld
    ? [make("span", { text: "changed" })]
    : [make("del", { text: text(before), "aria-label": `before: ${text(before)}` }), " → ", make("ins", { text: text(after), "aria-label": `after: ${text(after)}` })];
  return [make("dt", { text: field }), make("dd", {}, ...values)];
}

function change({ eventId, revision, kind, changedAt, changedBy, partition, offset, differences, unread }, withheld) {
  const found = differences ?? [];
  return make(
    "li",
    { "data-revision": revision },
    make("p", {}, make("b", { text: `Revision ${revision}: ${kind.toLowerCase()}` }), " by ", make("span", { text: changedBy }), " · ", moment(changedAt)),
    unread ? make("p", { kind: "reason", text: unread }) : null,
    found.length > 0 ? make("dl", { kind: "difference" }, ...found.flatMap((one) => difference(one, withheld))) : null,
    make("p", { kind: "facts", text: `event ${eventId} · partition ${partition}, offset ${offset}` }),
  );
}

export function offerAudit(refused) {
  const [list, more] = [element("audit-changes"), element("audit-more")];
  let asked = null;

  const page = async (id, after) => {
    const mine = (asked = {});
    say("audit-said", "Reading the log …");
    try {
      const { changes, next, withheld } = await get("accounts", "audit/customer", { id, after });
      if (asked !== mine) return;
      const rows = changes.map((one) => change(one, withheld));
      if (after) list.append(...rows);
      else list.replaceChildren(...rows);
      more.hidden = next === null;
      more.onclick = () => page(id, next);
      const count = list.children.length;
      const hidden = withheld ? " The values are left out: the token has not the scope customers:read." : "";
      const rest = next === null ? "" : " There are more.";
      say("audit-said", count === 0 ? `The audit trail knows no change of customer ${id}.` : `${several(count, "change")} of customer ${id}, oldest first.${rest}${hidden}`);
      if (after) rows[0]?.scrollIntoView({ block: "nearest" });
    } catch (problem) {
      if (asked !== mine) return;
      // What is on the page is of somebody else, or not the whole.
      if (!after) list.replaceChildren();
      more.hidden = !after;
      say("audit-said", problem.message, true);
      if (problem instanceof Refused) refused(problem);
    }
  };

  element("audit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    page(element("audit-id").value.trim(), 0);
  });
}
