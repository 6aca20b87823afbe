// Pieces of the page. Whatever the services say becomes text, and never markup.

import { Watch } from "./api.js";

export const element = (id) => document.getElementById(id);

/** An element with text, class, attributes and children. */
export function make(tag, { text, kind, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (kind) made.className = kind;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined || value === null) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button; `focus` names it, so that it keeps the focus when what it is in is drawn anew. */
export function button(label, focus, action, { kind, describes, disabled = false } = {}) {
  const made = make("button", { text: label, kind, type: "button", "data-focus": focus, "aria-label": describes });
  switchOff(made, disabled);
  made.addEventListener("click", () => action(made));
  return made;
}

/** Switches a button off or on. It keeps the focus, which one that is `disabled` would lose. */
export function switchOff(one, isOff) {
  if (isOff) one.setAttribute("aria-disabled", "true");
  else one.removeAttribute("aria-disabled");
}

document.addEventListener(
  "click",
  (event) => {
    if (event.target.closest?.('[aria-disabled="true"]')) event.stopImmediatePropagation();
  },
  true,
);

/** Draws a place anew; whoever works with the keyboard stays where they are. */
export function draw(place, ...children) {
  const held = place.contains(document.activeElement) ? document.activeElement : null;
  const name = held?.dataset.focus;
  place.replaceChildren(...children.filter(Boolean));
  if (!held) return;
  const again = name && [...place.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === name);
  // What had the focus is gone: to the heading that it was under rather than to the beginning of the page.
  const heading = place.parentElement.querySelector("h3[tabindex]") ?? place.closest("section")?.querySelector("h2[tabindex]");
  (again || heading)?.focus({ preventScroll: true });
}

/** Says something; a reader of the screen hears it. */
export function say(id, text, failed = false) {
  const place = element(id);
  place.textContent = text;
  place.classList.toggle("failed", failed);
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dated = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
export const atTime = (date) => clock.format(date);

export function moment(text) {
  const date = new Date(text);
  return make("time", { text: Number.isNaN(date.getTime()) ? String(text) : dated.format(date), datetime: text });
}

export const several = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/**
 * A table that is read as one also where the screen is too narrow for its columns: there each row is drawn as a list.
 * @param {{label: string, number?: boolean, cell: (row: object) => Node | string}[]} columns
 */
export function table(caption, columns, rows, isAlarm = () => false) {
  const head = make(
    "tr",
    { role: "row" },
    ...columns.map(({ label, number }) => make("th", { text: label, scope: "col", role: "columnheader", kind: number ? "number" : "" })),
  );
  const body = rows.map((row) =>
    make(
      "tr",
      { role: "row", kind: isAlarm(row) ? "alarm" : "" },
      ...columns.map(({ label, number, cell }) =>
        make("td", { role: "cell", "data-label": label, kind: number ? "number" : "" }, make("span", {}, cell(row))),
      ),
    ),
  );
  return make(
    "table",
    { role: "table" },
    make("caption", {}, ...caption),
    make("thead", { role: "rowgroup" }, head),
    make("tbody", { role: "rowgroup" }, ...body),
  );
}

/** Asks whether to go on; answers whether to. The dialog keeps the focus, and Escape leaves things as they are. */
export function confirmed(title, paragraphs, yes) {
  const dialog = element("ask");
  element("ask-title").textContent = title;
  element("ask-text").replaceChildren(...paragraphs.map((text) => make("p", { text })));
  element("ask-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/**
 * Keeps a part of the page as a service tells it. While the service does not tell, it is said since when, and what is still shown is
 * marked as what it is: as of an earlier moment.
 */
export function keep(place, ask, show, refused, interval) {
  const since = place.querySelector(".since");
  const shown = [...place.children].filter((child) => child !== since && !/^H\d$/.test(child.tagName));
  let asOf = null;
  let last = null;
  const mark = (stale) => {
    for (const part of shown) part.classList.toggle("stale", stale);
    // What is switched on again is for whoever shows the next answer to say.
    for (const one of place.querySelectorAll("button")) if (stale) switchOff(one, true);
  };
  return new Watch(
    ask,
    (answer) => {
      asOf = new Date();
      if (since.textContent !== "") since.textContent = "";
      // What is as it was is not drawn anew: somebody may be reading it.
      const now = JSON.stringify(answer);
      if (now === last) return;
      last = now;
      mark(false);
      show(answer);
    },
    (problem, failing) => {
      const before = asOf ? ` What is shown is as of ${atTime(asOf)}.` : "";
      const text = problem.isOfTheToken
        ? problem.message
        : `Not reachable since ${atTime(failing)}: ${problem.message}.${before}`.replace("..", ".");
      // Written only when it changes: it is read out.
      if (since.textContent !== text) since.textContent = text;
      last = null;
      mark(true);
      refused(problem);
    },
    interval,
  );
}

element("ask-yes").addEventListener("click", () => element("ask").close("yes"));
element("ask-no").addEventListener("click", () => element("ask").close(""));
