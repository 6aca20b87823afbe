// Dead letters: why each could not be taken, what is in it, and how it is taken once more or discarded.

import { Refused, SERVICES, askAll, get, post } from "./api.js";
import { button, confirmed, draw, keep, make, moment, say, several } from "./elements.js";

/** Letters on one page: an operator works on keys, and a service has more than a person reads. */
const SHOWN = 50;
/** Keys that are still refused, named in a sentence. */
const NAMED = 5;
/** How often it is asked how far a retry is, and how often in vain, in milliseconds and times. */
const LOOK = 400;
const IN_VAIN = 25;

/** Bodies that somebody looks at, by the letter's name. */
const open = new Map();
const name = ({ consumer, topic, partition, offset }) => `${consumer}/${topic}/${partition}/${offset}`;
const id = ({ consumer, topic, partition, offset }) => ({ consumer, topic, partition, offset });

function readable(payload) {
  if (payload === null) return "(no body: a tombstone)";
  const text = new TextDecoder().decode(Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0)));
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function content({ payload, headers, is_cut: isCut, withheld }) {
  const told = headers.map(([header, value]) => `${header}: ${value}`).join("\n");
  const cut = isCut ? "\n(what follows is its beginning: the topic has it whole)" : "";
  const body = withheld ? "(the body is left out: the token has not the scope customers:read)" : readable(payload);
  return `${told}${cut}\n\n${body}`;
}

class Letters {
  constructor(service, refused) {
    Object.assign(this, { service, refused, busy: false, last: null });
    this.place = document.querySelector(`[data-letters="${service}"] .shown`);
    this.watch = keep(
      this.place.parentElement,
      () => get(service, "dead-letters", { limit: SHOWN }),
      (page) => {
        this.last = page;
        this.show();
      },
      refused,
    );
  }

  show() {
    const { letters, total } = this.last;
    if (total === 0) return draw(this.place, make("p", { kind: "none", text: "There are none." }));
    const more = total > letters.length ? ` The first ${letters.length} are shown; tandem dead-letters list shows all.` : "";
    const all = button("Retry all", `${this.service} all`, () => this.retry({}, `all of ${this.service}`), {
      describes: `Retry all dead letters of ${this.service}`,
      disabled: this.busy,
    });
    draw(
      this.place,
      make("p", { kind: "bar" }, make("span", { text: `${several(total, "dead letter")}.${more}` }), all),
      make("ul", { kind: "rows" }, ...letters.map((letter) => this.row(letter))),
    );
  }

  row(letter) {
    const called = name(letter);
    const shown = open.get(called);
    const what = `${letter.key}, ${called}`;
    const focus = (act) => `${called} ${act}`;
    return make(
      "li",
      { "data-letter": called },
      make("p", {}, make("b", { text: `key ${letter.key}` })),
      make("p", { kind: "reason", text: letter.reason }),
      make("p", { kind: "facts" }, `${called} · set aside `, moment(letter.parked_at)),
      make(
        "p",
        { kind: "bar" },
        button(shown ? "Hide the body" : "Show the body", focus("body"), () => this.look(letter), { describes: `${shown ? "Hide" : "Show"} the body of ${what}` }),
        button("Retry the key", focus("retry"), () => this.retry({ key: letter.key, consumer: letter.consumer }, `the key ${letter.key}`), {
          describes: `Retry the key ${letter.key} of ${letter.consumer}`,
          disabled: this.busy,
        }),
        button("Discard …", focus("discard"), () => this.discard(letter), { kind: "danger", describes: `Discard ${what}`, disabled: this.busy }),
      ),
      shown ? make("pre", { text: shown, tabindex: "0", "data-focus": focus("text") }) : null,
    );
  }

  async look(letter) {
    const called = name(letter);
    if (open.delete(called)) return this.show();
    try {
      open.set(called, content(await get(this.service, "dead-letters/letter", id(letter))));
      this.show();
    } catch (problem) {
      this.fail(problem);
    }
  }

  fail(problem) {
    say("letters-said", problem.message, true);
    if (problem instanceof Refused) this.refused(problem);
  }

  /** Nothing else is begun meanwhile. */
  async work(what) {
    this.busy = true;
    this.show();
    try {
      await what();
    } catch (problem) {
      this.fail(problem);
    }
    this.busy = false;
    this.show();
    askAll();
  }

  retry(filter, what) {
    return this.work(async () => {
      say("letters-said", `Retrying ${what} …`);
      let job = await post(this.service, "dead-letters/retry", filter);
      let vain = 0;
      while (!job.endedAt) {
        await new Promise((done) => setTimeout(done, LOOK));
        let now;
        try {
          now = await get(this.service, "dead-letters/job");
          vain = 0;
        } catch (problem) {
          // The service goes on with it, whoever asks.
          const passing = !(problem instanceof Refused) || problem.status >= 500;
          vain += 1;
          if (!passing || vain > IN_VAIN) throw problem;
          continue;
        }
        if (now.id !== job.id) throw new Error("other work was begun since; this one has ended");
        job = now;
        say("letters-said", `Retrying ${what}: ${job.done} of ${job.total} taken …`);
      }
      const named = job.refused.slice(0, NAMED).map(([key, reason]) => ` Key ${key} is still refused: ${reason}.`);
      const others = job.refusedKeys - named.length;
      const refused = named.join("") + (others > 0 ? ` So are ${several(others, "other key")}.` : "");
      const early = job.failed ? ` It ended early: ${job.failed}. What was taken stays so.` : "";
      say("letters-said", `${several(job.done, "letter")} taken.${refused}${early}`, Boolean(refused || early));
    });
  }

  async discard(letter) {
    const called = name(letter);
    const yes = await confirmed(
      "Discard this dead letter?",
      [
        `${called}, of the key ${letter.key}.`,
        `${letter.consumer} will never take it: what it says is not applied in ${this.service}. Others of the same key stay set aside until they are retried.`,
        `It cannot be undone here. The message stays on ${letter.topic}, and a copy with a record of this on ${letter.topic}.DLT; only a rebuild of ${this.service} reads it again.`,
      ],
      "Discard it",
    );
    if (!yes) return;
    await this.work(async () => {
      await post(this.service, "dead-letters/discard", id(letter));
      open.delete(called);
      const { letters, total } = this.last;
      this.last = { ...this.last, letters: letters.filter((one) => name(one) !== called), total: total - 1 };
      say("letters-said", `${called} is discarded.`);
    });
  }
}

export function watchLetters(refused) {
  for (const service of SERVICES) new Letters(service, refused);
}
