/** The kill switch where its file finds no room: what is named stops all the same, and the reply says that it is not kept. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, within } from "../support/eventually.ts";
import { get, openTunnel, type RawResponse } from "../support/http-client.ts";
import { sayWhenSkipped } from "../support/network.ts";
import { HttpOrigin, TcpOrigin } from "../support/origin.ts";
import { sendOrder } from "../support/operator-order.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const secret = "operator-secret";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-full-disk-"));
const disk = join(scratch, "disk");
const secretFile = join(scratch, "secret");
writeFileSync(secretFile, secret);
mkdirSync(disk);

/** Two pages of memory: the smallest disk there is. */
const diskBytes = 8_192;
const obstacle = mounted();
sayWhenSkipped("the kill switch on a full disk", obstacle);
afterAll(() => {
  if (obstacle === undefined) execFileSync("umount", ["-l", disk]);
  rmSync(scratch, { recursive: true, force: true });
});

function mounted(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0)
    return "a mount needs root on Linux";
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${diskBytes}`, "none", disk], {
      stdio: "pipe",
    });
    return undefined;
  } catch (error) {
    return `nothing can be mounted: ${String(error)}`;
  }
}

const filler = join(disk, "filler");
const fill = (): void => {
  for (let size = diskBytes; size > 0; size -= 4_096) {
    try {
      writeFileSync(filler, Buffer.alloc(size));
      return;
    } catch {
      // There is less room.
    }
  }
};

let origin: HttpOrigin;
let far: TcpOrigin;
beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  far = await own(TcpOrigin.start(() => undefined));
});

const order = (
  proxy: ProxyProcess,
  path: string,
  form: Record<string, string>,
): Promise<RawResponse> => sendOrder(proxy, path, form, secret);
const statusAt = async (proxy: ProxyProcess, host: string): Promise<number> =>
  (await get(proxy.forward, `http://${host}:${origin.port}/`)).status;

describe.skipIf(obstacle !== undefined).each([1, 2])("with workers: %i", (workers) => {
  const file = join(disk, `kills-${workers}`);
  const start = (): Promise<ProxyProcess> =>
    own(
      ProxyProcess.start(
        settings({
          workers,
          session: { api_secret_file: secretFile },
          kill_switch: { file },
          egress: { hosts: { "one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"] } },
        }),
      ),
    );

  test("an order is followed at once, is said not to be kept, and a restart stops more rather than less", async () => {
    rmSync(filler, { force: true });
    const proxy = await start();
    const { client } = await openTunnel(proxy.forward, `one.test:${far.port}`);
    await own(client);
    fill();
    const stopped = await order(proxy, "/v1/kill", { destination: "one.test" });
    expect([stopped.status, stopped.json()]).toEqual([
      200,
      expect.objectContaining({ cut: 1, survivesRestart: false }),
    ]);
    await within("the end of the tunnel", client.closed);
    expect(await statusAt(proxy, "one.test")).toBe(403);
    expect(await statusAt(proxy, "two.test")).toBe(200);
    expect(await proxy.log(({ key }) => key === "kill_switch.file")).toMatchObject({
      error: expect.stringContaining("ENOSPC"),
    });
    // Before each order the file is looked at: what the proxy left there is not taken for an order of somebody's.
    await order(proxy, "/v1/kill", { destination: "one.test" });
    expect(await statusAt(proxy, "two.test")).toBe(200);
    expect(statSync(file).size).toBe(0);
    proxy.signal("SIGKILL");
    await proxy.ended;
    const again = await start();
    expect(await statusAt(again, "two.test")).toBe(403);
    // Once there is room the next order is kept, and with it what the file said.
    rmSync(filler);
    const kept = await order(again, "/v1/kill", { destination: "two.test" });
    expect(kept.json()).toMatchObject({ survivesRestart: true });
    expect(readFileSync(file, "utf8")).toContain("destination two.test");
    await order(again, "/v1/kill/release", { scope: "all" });
    await order(again, "/v1/kill/release", { destination: "two.test" });
    expect(await statusAt(again, "two.test")).toBe(200);
  });

  test("an order that fits where the last one stood takes its place", async () => {
    rmSync(filler, { force: true });
    const proxy = await start();
    const first = await order(proxy, "/v1/kill", { destination: "one.test" });
    expect(first.json()).toMatchObject({ survivesRestart: true });
    fill();
    const second = await order(proxy, "/v1/kill", { destination: "two.test" });
    expect(second.json()).toMatchObject({ survivesRestart: true });
    const text = readFileSync(file, "utf8");
    expect(text).toContain("destination one.test");
    expect(text).toContain("destination two.test");
    await eventually(async () => (await statusAt(proxy, "two.test")) === 403);
    const released = await order(proxy, "/v1/kill/release", { destination: "one.test" });
    expect(released.json()).toMatchObject({ survivesRestart: true });
    expect(await statusAt(proxy, "one.test")).toBe(200);
  });
});
