/** The wall clock of the machine is set by an hour, and back: what is judged by dates is so at once, and nothing waits for the hour. */
import { expect, test } from "vitest";
import { Ground, setClock } from "../../bench/soak/ground.ts";
import { askAgent } from "../../bench/soak/stage.ts";
import { eventually } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import type { ProxyProcess } from "../support/proxy.ts";

const own = owner();
const hourMs = 3_600_000;
/** So that no step makes it a token of the future. */
const old = { from: -7_200 };

async function served(): Promise<{ ground: Ground; proxy: ProxyProcess }> {
  const ground = await own(new Ground().open());
  return { ground, proxy: await own(ground.start(ground.file())) };
}

test("a token is judged by the clock as it is now, also one that was taken a moment ago", async () => {
  const { ground, proxy } = await served();
  const ends = await ground.parties.token("ends", { ...old, until: 1_800 });
  const begins = await ground.parties.token("begins", { from: 1_800 });
  for (const offsetMs of [0, hourMs, 0, -hourMs, 0]) {
    await setClock(proxy, offsetMs);
    const statuses = [ends, begins].map(async (token) => (await askAgent(proxy, token, 1)).status);
    expect(await Promise.all(statuses)).toEqual(offsetMs > 0 ? [401, 200] : [200, 401]);
  }
});

test("keys that could not be fetched while the clock was ahead are fetched when it is set back", async () => {
  const { ground, proxy } = await served();
  const { parties } = ground;
  const before = await parties.token("before", old);
  expect((await askAgent(proxy, before, 1)).status).toBe(200);
  await setClock(proxy, hourMs);
  parties.rotate();
  const after = await parties.token("after", old);
  parties.idp.mood = "resetting";
  expect((await askAgent(proxy, after, 1)).status).toBe(401);
  parties.idp.mood = "well";
  await setClock(proxy, 0);
  await eventually(async () => (await askAgent(proxy, after, 1)).status === 200);
  expect((await askAgent(proxy, before, 1)).status).toBe(200);
});
