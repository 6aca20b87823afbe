// The ledger of the live page: it may say that nothing was lost only where that is so, and must say it where it is.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

// A browser takes it as a module; for Node it would have to be called one.
const source = await readFile(new URL("ledger.js", import.meta.url), "utf8");
const { Ledger } = await import(`data:text/javascript,${encodeURIComponent(source)}`);
// It is drawn elsewhere.
globalThis.requestAnimationFrame = () => {};

const counts = (ledger) => Object.values(ledger.counts());
/** answered, arrived in A and in B, on the way, twice, missing */
const expect = (ledger, ...expected) => assert.deepEqual(counts(ledger), expected);

test("a change counts as arrived in each window, before its answer or behind it", () => {
  const ledger = new Ledger();
  ledger.arrived("a", "1", 1);
  expect(ledger, 0, 0, 0, 0, 0, 0);
  ledger.answered("1", 1);
  expect(ledger, 1, 1, 0, 1, 0, 0);
  ledger.arrived("b", "1", 1);
  expect(ledger, 1, 1, 1, 0, 0, 0);
});

test("what a snapshot has is there, also where the snapshot was faster than the answer", () => {
  const ledger = new Ledger();
  ledger.answered("1", 1);
  for (const pane of ["a", "b"]) {
    ledger.shown(pane, "1", 2);
    expect(ledger, 1, 1, pane === "b" ? 1 : 0, pane === "b" ? 0 : 1, 0, 0);
  }
  ledger.answered("1", 2);
  expect(ledger, 2, 2, 2, 0, 0, 0);
  // And is not told again.
  ledger.arrived("a", "1", 2);
  expect(ledger, 2, 2, 2, 0, 1, 0);
});

test("what is told twice, and what a later change has overtaken, is said", () => {
  const ledger = new Ledger();
  for (const revision of [1, 2]) ledger.answered("1", revision);
  ledger.arrived("a", "1", 2);
  ledger.arrived("b", "1", 1);
  ledger.arrived("b", "1", 1);
  expect(ledger, 2, 1, 1, 1, 1, 1);
});

test("what the windows do not watch any more is not on its way", () => {
  const ledger = new Ledger();
  for (const id of ["1", "2", "3"]) ledger.answered(id, 1);
  for (const pane of ["a", "b"]) ledger.arrived(pane, "1", 1);
  ledger.arrived("a", "2", 1);
  expect(ledger, 3, 2, 1, 2, 0, 0);
  ledger.watchAnew();
  expect(ledger, 1, 1, 1, 0, 0, 0);
});
