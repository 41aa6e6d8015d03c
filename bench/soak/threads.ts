/** (f) Two threads serve: the file changes, one of them ends, and all are told to stop. */
import http from "node:http";
import { eventually } from "../../test/support/eventually.ts";
import { merge, type ProxyProcess } from "../../test/support/proxy.ts";
import { end, type Ground, hear, refusals, takeStock } from "./ground.ts";
import type { Answer, Ledger } from "./ledger.ts";
import { ask, Mix } from "./mix.ts";
import { bytesOf, digestOf } from "./parties.ts";
import { askBytes, beside, type Stage, terminate, width } from "./stage.ts";

const kept = 40;

export const threads: Stage = {
  name: "two threads, files change, one ends",
  weight: 8,
  async run({ ground, ledger, extent, pace }) {
    const file = beside(ground.file({ workers: 2 }), "outbound", [{ name: "soak-thread" }]);
    const proxy = await ground.start(file);
    const mix = await Mix.start(ground, proxy);
    const share = Math.ceil(extent.requests / 5 / extent.cycles);
    let number = 0;
    for (const _ of pace.cycles()) {
      await mix.run(pace, share, width, ledger);
      const during = new AbortController();
      const traffic = mix.until(during.signal, width, ledger);
      for (let at = 0; at < 3; at += 1) {
        number += 1;
        const next = merge(file, { limits: { drain_timeout: `${60_000 + number}ms` } });
        if (at === 1) await proxy.refusedReload(merge(next, { limits: { max_tunnels: -1 } }));
        else await proxy.reload(next);
      }
      during.abort();
      await traffic;
      mix.close();
      await endOne(ground, proxy, ledger);
      await takeStock(proxy, ledger);
    }
    await hear(proxy, ledger);
    await end(proxy, ledger);
    for (let cycle = 0; cycle < extent.cycles / 2; cycle += 1)
      await terminate(ground, ledger, { workers: 2 });
    return { "threads ended": pace.done, reloads: number };
  },
};

/** Requests are under way on kept connections to both threads, of which one ends: those of the other do not notice. */
async function endOne(ground: Ground, proxy: ProxyProcess, ledger: Ledger): Promise<void> {
  const { doomed } = ground.parties;
  const agents = Array.from(
    { length: kept },
    () => new http.Agent({ keepAlive: true, maxSockets: 1 }),
  );
  const asked = (): Promise<Answer>[] =>
    agents.map((agent, seed) => askBytes(ground, proxy, seed, agent, doomed));
  const threadOf = ({ head }: Answer): string => String(head?.["x-thread"]);
  const first = await Promise.all(asked());
  for (const [seed, answer] of first.entries())
    ledger.answered("a connection to a thread", answer, [200], digestOf(bytesOf(seed)));
  const before = new Set(first.map(threadOf));
  if (before.size !== 2) ledger.lost(`${kept} connections met ${before.size} threads`);
  // What a thread has counted is told every second, and ends with it.
  await eventually(
    async () => refusals((await proxy.stats("/metrics")).text) >= ledger.refusalsSeen,
  );
  doomed.mood = "hung";
  const second = asked();
  await eventually(() => doomed.held.length === kept);
  const ended = await proxy.metric("authbridge_threads_ended_total");
  const authority = `127.0.0.1:${ground.parties.origin.port}`;
  await ask({
    port: proxy.forward.port,
    path: `http://${authority}/thread-ends`,
    agent: false,
    headers: { Host: authority },
  });
  await eventually(async () => {
    const text = (await proxy.stats("/metrics")).text;
    return /^authbridge_threads_ended_total(?:\{\})? (\d+)/m.exec(text)?.[1] !== String(ended);
  });
  doomed.mood = "well";
  for (const response of doomed.held.splice(0))
    response.end(bytesOf(Number(response.req.url?.split("/").at(-1))));
  const answers = await Promise.all(second);
  const gone = new Set(
    answers.flatMap(({ status }, at) => (status === 0 ? threadOf(first[at] ?? { status }) : [])),
  );
  if (gone.size > 1) ledger.lost("requests of the thread that did not end were cut");
  for (const [at, answer] of answers.entries()) {
    const isOfGone = gone.has(threadOf(first[at] ?? { status: 0 }));
    const due = isOfGone ? [0] : [200];
    ledger.answered("a request while a thread ends", answer, due, digestOf(bytesOf(at)));
  }
  for (const agent of agents) agent.destroy();
  await eventually(async () => (await proxy.health("/readyz")).status === 200);
}
