// Rebuilds: how far the last one is, begun here or by the command, and a way to stop it.

import { Refused, SERVICES, get, post } from "./api.js";
import { confirmed, draw, keep, make, moment, say, several, switchOff } from "./elements.js";

const WORDS = { RUNNING: "goes on", FINISHED: "finished", FAILED: "could not go on", STOPPED: "stopped" };

function target(name, progress) {
  if (!progress) return make("div", { kind: "target", text: `${name}: not begun` });
  const { read, total, written, refused, waiting, unknown, ahead, differing, only_stored: kept, of_the_log: log, seconds } = progress;
  const label = `${name}: ${read} of ${Math.max(total, read)} events read, ${written} written, in ${seconds.toFixed(1)} s`;
  const more = [
    refused > 0 && `${refused} refused: they are dead letters`,
    waiting > 0 && `${several(waiting, "aggregate")} waiting for data keys`,
    unknown + ahead + differing > 0 && `${unknown} unknown to the log, ${ahead} ahead of it, ${differing} with another content: left as they are`,
    kept > 0 && `of the history only in the store, since the log was restored: ${kept}`,
    log,
  ].filter(Boolean);
  return make(
    "div",
    { kind: "target" },
    make("span", { text: label }),
    make("progress", { value: read, max: Math.max(total, read, 1), "aria-label": `${name}: events read` }),
    ...more.map((text) => make("span", { kind: "facts", text })),
  );
}

function shown(view) {
  if (!view) return [make("p", { text: "None since it started." })];
  const { state, reason, begunAt, endedAt, targets, progress } = view;
  return [
    make("p", { "data-state": state }, `${WORDS[state] ?? state}${reason ? `: ${reason}` : ""} · begun `, moment(begunAt), ...(endedAt ? [" · ended ", moment(endedAt)] : [])),
    ...targets.map((name) => target(name, progress.find((one) => one.target === name))),
  ];
}

export function watchRebuilds(refused) {
  for (const service of SERVICES) {
    const place = document.querySelector(`[data-rebuild="${service}"]`);
    const start = place.querySelector('[data-do="start"]');
    const stop = place.querySelector('[data-do="stop"]');
    const act = async (work) => {
      try {
        await work();
      } catch (problem) {
        say("rebuilds-said", `${service}: ${problem.message}`, true);
        if (problem instanceof Refused) refused(problem);
      }
      watch.now();
    };
    const watch = keep(
      place,
      async () => {
        const view = await get(service, "rebuild");
        if (view?.state === "RUNNING") setTimeout(() => watch.now(), 700);
        return { view };
      },
      ({ view }) => {
        draw(place.querySelector(".shown"), ...shown(view));
        const isRunning = view?.state === "RUNNING";
        switchOff(start, isRunning);
        switchOff(stop, !isRunning);
      },
      refused,
    );
    start.addEventListener("click", async () => {
      const yes = await confirmed(
        `Rebuild ${service}?`,
        [
          `${service} reads its log from the beginning and writes what is not as the log has it. It goes on serving, and is slower meanwhile.`,
          "Nothing is removed. It can be stopped at any time: what is rebuilt until then is right, and it can be started again.",
        ],
        "Rebuild it",
      );
      if (!yes) return;
      await act(async () => {
        await post(service, "rebuild", { background: true });
        say("rebuilds-said", `The rebuild of ${service} has begun; it goes on when this page is closed.`);
      });
    });
    stop.addEventListener("click", () =>
      act(async () => {
        await post(service, "rebuild/stop");
        say("rebuilds-said", `The rebuild of ${service} is stopped; what is rebuilt until now is right.`);
      }),
    );
  }
}
