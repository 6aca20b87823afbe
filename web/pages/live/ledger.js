// What was answered, and what arrived where: the page's own proof that nothing was lost.

const PANES = ["a", "b"];

export class Ledger {
  constructor() {
    /** One entry for each change: of what, which revision, answered or not, how often it arrived in each window. */
    this.entries = new Map();
    this.twice = 0;
    this.watchAnew();
  }

  /** The windows watch something else: what has not arrived in them by now will not. */
  watchAnew() {
    for (const [key, entry] of this.entries) {
      if (!entry.answered || PANES.some((pane) => entry[pane] === 0)) this.entries.delete(key);
    }
    /** The newest revision of each thing that a window has, and the one that a snapshot showed it: what is older is in that. */
    this.held = { a: new Map(), b: new Map() };
    this.snapshots = { a: new Map(), b: new Map() };
    this.show();
  }

  entry(id, revision) {
    const key = `${id}@${revision}`;
    const arrived = (pane) => (revision <= (this.snapshots[pane].get(id) ?? 0) ? 1 : 0);
    // A snapshot may have a change before its answer is here.
    if (!this.entries.has(key)) this.entries.set(key, { id, revision, answered: false, a: arrived("a"), b: arrived("b") });
    return this.entries.get(key);
  }

  answered(id, revision) {
    this.entry(id, revision).answered = true;
    this.show();
  }

  /** A change arrived as such. */
  arrived(pane, id, revision) {
    const entry = this.entry(id, revision);
    entry[pane] += 1;
    if (entry[pane] > 1) this.twice += 1;
    this.newest(pane, id, revision);
    this.show();
  }

  /** A thing was shown as it is: all its changes until then are in it. */
  shown(pane, id, revision) {
    for (const entry of this.entries.values()) {
      if (entry.id === id && entry.revision <= revision && entry[pane] === 0) entry[pane] = 1;
    }
    this.snapshots[pane].set(id, revision);
    this.newest(pane, id, revision);
    this.show();
  }

  newest(pane, id, revision) {
    const held = this.held[pane];
    held.set(id, Math.max(held.get(id) ?? 0, revision));
  }

  counts() {
    const counts = { answered: 0, a: 0, b: 0, way: 0, twice: this.twice, missing: 0 };
    for (const entry of this.entries.values()) {
      if (!entry.answered) continue;
      counts.answered += 1;
      let isOnTheWay = false;
      for (const pane of PANES) {
        if (entry[pane] > 0) counts[pane] += 1;
        else if ((this.held[pane].get(entry.id) ?? 0) > entry.revision) counts.missing += 1;
        else isOnTheWay = true;
      }
      if (isOnTheWay) counts.way += 1;
    }
    return counts;
  }

  show() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.draw();
    });
  }

  draw() {
    const counts = this.counts();
    for (const [name, count] of Object.entries(counts)) {
      const place = document.querySelector(`[data-count="${name}"]`);
      place.textContent = String(count);
      place.parentElement.classList.toggle("bad", count > 0 && (name === "twice" || name === "missing"));
    }
    const verdict = document.getElementById("verdict");
    const isBad = counts.twice + counts.missing > 0;
    const all = counts.answered === 1 ? "The one change" : `All ${counts.answered} changes`;
    let says = "Nothing was changed yet.";
    if (isBad) says = "Something went wrong: see below.";
    else if (counts.way > 0) says = `Nothing is lost; ${counts.way} ${counts.way === 1 ? "is" : "are"} on the way.`;
    else if (counts.answered > 0) says = `${all} arrived in both windows, once each. Nothing is lost.`;
    if (verdict.textContent !== says) verdict.textContent = says;
    verdict.classList.toggle("bad", isBad);
    verdict.classList.toggle("good", !isBad && counts.answered > 0 && counts.way === 0);
  }
}
