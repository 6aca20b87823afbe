// The logs partition by partition, and the events that wait for a data key.

import { SERVICES, get } from "./api.js";
import { draw, keep, make, moment, several, table } from "./elements.js";

/** What does not change by the second, and costs the services more to tell, is asked for less often; in milliseconds. */
const SELDOM = 8_000;
/** Waiting events that are shown; of more there is the number. */
const SHOWN = 50;

function expected({ remembered }) {
  if (!remembered) return "nothing yet";
  const { begin, last } = remembered;
  return make(
    "span",
    {},
    `from ${begin}, applied ${last.offset} `,
    make("code", { text: last.fingerprint.slice(0, 12), title: `fingerprint of the message that was applied last: ${last.fingerprint}` }),
  );
}

const COLUMNS = [
  { label: "Partition", cell: ({ partition }) => String(partition) },
  { label: "From", number: true, cell: ({ begin }) => String(begin ?? "–") },
  { label: "To", number: true, cell: ({ end }) => String(end ?? "–") },
  { label: "Unread", number: true, cell: ({ unread, end }) => (end === null ? "not there" : String(unread)) },
  { label: "Expected", cell: expected },
  { label: "Is it that log?", cell: ({ alarm, remembered, checked }) => alarm ?? (remembered ? (checked ? "yes" : "not looked at yet") : "–") },
];

function identity({ identity: now, partitions }) {
  const known = [...new Set(partitions.map(({ remembered }) => remembered?.identity).filter(Boolean))];
  if (!now && known.length === 0) return "the client cannot tell its identity; it is known by its messages";
  if (known.length === 0) return `identity ${now}`;
  return `identity ${now ?? "not told"}, remembered ${known.join(", ")}`;
}

/** Whether there is more to tell of a partition than that nothing ever was in it. */
const isTold = ({ begin, end, remembered, alarm }) => end !== begin || end === null || Boolean(remembered || alarm);

export function watchLogs(refused) {
  for (const service of SERVICES) {
    const place = document.querySelector(`[data-logs="${service}"]`);
    keep(
      place,
      () => get(service, "log/partitions"),
      (logs) => {
        const tables = logs.map((log) => {
          const unread = log.partitions.reduce((sum, { unread: some }) => sum + some, 0);
          const caption = [`${service} reads ${log.topic}: ${several(unread, "message")} unread `, make("small", { text: identity(log) })];
          const told = log.partitions.filter(isTold).map((one) => ({ ...one, checked: log.checked }));
          const quiet = log.partitions.filter((one) => !isTold(one)).map(({ partition }) => partition);
          const made = make("div", { "data-topic": log.topic });
          made.append(table(caption, COLUMNS, told, ({ alarm }) => Boolean(alarm)));
          if (quiet.length > 0) made.append(make("p", { kind: "none", text: `Nothing is in ${quiet.length === 1 ? "partition" : "partitions"} ${quiet.join(", ")}.` }));
          return made;
        });
        draw(place.querySelector(".shown"), ...tables);
      },
      refused,
      SELDOM,
    );
  }
}

function waits({ reader, subject, key, topic, partition, offset, since, reason }) {
  return make(
    "li",
    {},
    make("p", {}, make("b", { text: `key of ${subject}` }), ` for ${key}, which ${reader} reads`),
    make("p", { kind: "reason", text: reason }),
    make("p", { kind: "facts" }, `${topic}/${partition}/${offset} · since `, moment(since)),
  );
}

export function watchWaiting(refused) {
  for (const service of SERVICES) {
    const place = document.querySelector(`[data-waiting="${service}"]`);
    keep(
      place,
      () => get(service, "keys/waiting"),
      (all) => {
        const shown = all.length === 0 ? make("p", { kind: "none", text: "No event waits." }) : make("ul", { kind: "rows" }, ...all.slice(0, SHOWN).map(waits));
        const more = all.length > SHOWN && make("p", { kind: "none", text: `So many wait: ${all.length}. tandem keys waiting shows them.` });
        draw(place.querySelector(".shown"), shown, more);
      },
      refused,
    );
  }
}
