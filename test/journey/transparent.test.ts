/** The transparent listener where nothing is redirected: what it binds, what it says, and what readiness tells. */
import { once } from "node:events";
import net, { type AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { get } from "../support/http-client.ts";
import { runWith } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const onAnyPort = { listener: { transparent_proxy_addr: "127.0.0.1:0" } };
const enforced = { egress_enforcement: "enforce-redirect" };
const isLinux = process.platform === "linux";

/** As on a machine where the optional package was not installed. */
const withoutKoffi = {
  NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(
    'import { registerHooks } from "node:module"; registerHooks({ resolve(name, context, next) { if (name === "koffi") throw new Error("no koffi here"); return next(name, context); } });',
  )}`,
};

let proxy: ProxyProcess | undefined;
afterEach(async () => {
  await proxy?.stop();
  proxy = undefined;
});

describe.skipIf(!isLinux)("the listener", () => {
  test("is open, and refuses whom nobody redirected", async () => {
    proxy = await ProxyProcess.start(settings({ ...onAnyPort, ...enforced }));
    const line = await proxy.log(({ msg }) => msg === "serving");
    const { transparent } = line["addresses"] as { transparent: { host: string; port: number } };
    const answer = await get(transparent, "/", { Host: "api.test", Connection: "close" });
    expect(answer.status).toBe(421);
    expect(JSON.parse(answer.text)).toMatchObject({ error: "request.misdirected" });
    expect((await proxy.health("/readyz")).status).toBe(200);
    expect(await proxy.metric("authbridge_transparent_listener_up")).toBe(1);
    expect(await proxy.metric("authbridge_refused_total", { reason: "malformed" })).toBe(1);
  });

  test("closes with the process, also while a client says nothing", async () => {
    proxy = await ProxyProcess.start(
      settings({ ...onAnyPort, limits: { drain_timeout: "200ms" } }),
    );
    const line = await proxy.log(({ msg }) => msg === "serving");
    const { transparent } = line["addresses"] as { transparent: { host: string; port: number } };
    const silent = net.connect(transparent.port, transparent.host);
    silent.on("error", () => undefined);
    await once(silent, "connect");
    const closed = once(silent, "close");
    process.kill(proxy.pid, "SIGTERM");
    await closed;
    expect((await proxy.ended).code).toBe(0);
  });

  test("an address of the file that is taken ends the start", async () => {
    const holder = net.createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const address = `127.0.0.1:${(holder.address() as AddressInfo).port}`;
    const ended = await runWith("run", settings({ listener: { transparent_proxy_addr: address } }));
    holder.close();
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(`${address} cannot be listened on`);
  });

  test("off is not open", async () => {
    proxy = await ProxyProcess.start(settings({ egress_enforcement: "none" }));
    expect(proxy.surfaces).not.toContain("transparent");
    expect(await proxy.metric("authbridge_transparent_listener_up")).toBe(0);
    expect(await proxy.metric("authbridge_egress_enforcement_info", { mode: "none" })).toBe(1);
    expect((await proxy.health("/readyz")).text).toBe("");
    await proxy.log(({ problem }) => String(problem).includes("acknowledge_cooperative_mode"));
  });

  test("enforcement without the listener is refused in words", async () => {
    const ended = await runWith("run", settings(enforced));
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain("enforce-redirect needs the transparent listener");
  });
});

describe("where the mechanism is missing", () => {
  const env = withoutKoffi;

  test("the start says so in one line, and the probe says it beside 200", async () => {
    proxy = await ProxyProcess.start(settings(onAnyPort), { env });
    const lines = proxy.logs.filter(({ msg }) => msg.includes("transparent listener"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ key: "listener.transparent_proxy_addr" });
    const ready = await proxy.health("/readyz");
    expect(ready.status).toBe(200);
    expect(ready.text).toContain("transparent listener not open: ");
    expect(proxy.surfaces).not.toContain("transparent");
  });

  test("a file that says enforce-redirect is not ready", async () => {
    proxy = await ProxyProcess.start(settings({ ...onAnyPort, ...enforced }), { env });
    const ready = await proxy.health("/readyz");
    expect(ready.status).toBe(503);
    expect(ready.text).toContain("transparent listener not open: ");
    expect(await proxy.metric("authbridge_ready")).toBe(0);
    const status = JSON.parse((await proxy.sessions("/v1/status")).text) as Record<string, unknown>;
    expect(status).toMatchObject({ ready: false, egressEnforcement: "enforce-redirect" });
  });
});
