/**
 * What is lost under load when one of two threads ends, when one refuses a file, and at SIGTERM, and what an event costs to
 * cross to the thread in control: `node bench/threads.ts [CONNECTIONS]`.
 *
 * Each case is a proxy of its own with `workers: 2` and so many kept connections that ask without a pause.
 */
import { setTimeout as delay } from "node:timers/promises";
import { MessageChannel } from "node:worker_threads";
import { fileURLToPath } from "node:url";
import { eventually } from "../test/support/eventually.ts";
import { get } from "../test/support/http-client.ts";
import { KeptLoad } from "../test/support/kept-load.ts";
import { HttpOrigin } from "../test/support/origin.ts";
import type { Settings } from "../test/support/program.ts";
import { ProxyProcess, settings } from "../test/support/proxy.ts";

const connections = Number(process.argv[2] ?? 200);
/** Before and after what is done. */
const loadMs = 2_000;
const plugins = fileURLToPath(new URL("../test/support/thread-plugins.ts", import.meta.url));
const origin = await HttpOrigin.launch();

function file(config: Settings): Settings {
  return settings({
    plugin_modules: [plugins],
    workers: 2,
    session: { enabled: false },
    pipeline: { outbound: { plugins: [{ name: "thread", config }] } },
  });
}

function row(name: string, { connections: count, ...sums }: ReturnType<KeptLoad["sums"]>): void {
  const { sent, answered, refused, lost } = sums;
  const cells = [name, count, sent, answered, refused, lost].map(String);
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
}

/** Runs the load around what is done to the proxy. */
async function during(
  act: (proxy: ProxyProcess) => Promise<unknown>,
  isLast = false,
): Promise<KeptLoad> {
  const proxy = await ProxyProcess.start(file({ word: "one" }));
  const load = await KeptLoad.start(proxy.forward, `${origin.url}/pass`, connections);
  await delay(loadMs);
  await act(proxy);
  if (isLast) await load.over();
  else await delay(loadMs);
  await load.stop();
  await proxy.close();
  return load;
}

process.stdout.write("| case | connections | sent | answered | refused | lost |\n");
process.stdout.write("| --- | --: | --: | --: | --: | --: |\n");

const killed = await during(async (proxy) => {
  await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
  await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
});
const dead = killed.connections.find(({ ended }) => ended === "lost")?.thread;
row(
  "a thread ends: its connections",
  killed.sums(({ thread }) => thread === dead),
);
row(
  "a thread ends: the other thread's",
  killed.sums(({ thread }) => thread !== dead),
);

const kept = await during((proxy) => proxy.refusedReload(file({ word: "two", failsInOne: true })));
row("one thread refuses a file", kept.sums());

const taken = await during((proxy) => proxy.reload(file({ word: "three" })));
row("both take a file", taken.sums());

const stopped = await during((proxy) => proxy.stop(), true);
row("SIGTERM", stopped.sums());

/** Microseconds of a processor, both sides, for each event of batches as the outbox of a thread sends them. */
async function crossing(batches: number): Promise<number> {
  const proxy = await ProxyProcess.start({ ...file({}), session: { enabled: true } });
  await get(proxy.forward, `${origin.url}/pass`);
  const read = async (): Promise<readonly unknown[]> =>
    (
      (await proxy.sessions("/v1/sessions/default")).json() as {
        readonly events?: readonly unknown[];
      }
    ).events ?? [];
  const events = await eventually(async () => {
    const seen = await read();
    return seen.length > 0 && seen;
  });
  await proxy.close();
  const batch = Array.from({ length: 256 }, (_, at) => ({
    kind: "event",
    event: events[at % events.length],
    shownIn: "default",
  }));
  const { port1, port2 } = new MessageChannel();
  const cross = async (): Promise<void> => {
    const arrived = new Promise((resolve) => port2.once("message", resolve));
    port1.postMessage(batch.map((one) => structuredClone(one)));
    await arrived;
  };
  const clone = (): unknown => batch.map((one) => structuredClone(one));
  for (let at = 0; at < batches / 10; at += 1) await cross();
  let before = process.cpuUsage();
  for (let at = 0; at < batches; at += 1) clone();
  const cloning = process.cpuUsage(before);
  before = process.cpuUsage();
  for (let at = 0; at < batches; at += 1) await cross();
  const both = process.cpuUsage(before);
  port1.close();
  const spent = both.user + both.system - cloning.user - cloning.system;
  return spent / batches / batch.length;
}

const eventUs = await crossing(500);
process.stdout.write(`\nan event: ${eventUs.toFixed(2)} µs of a processor to cross\n`);
await origin.close();
