/** The decision log as events of OCSF, as a collector that checks its schema gets them. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openTunnel, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let scratch: string;
let origin: HttpOrigin;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "authbridge-export-"));
  origin = await own(HttpOrigin.launch());
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

type Event = Readonly<Record<string, unknown>>;

/** What OCSF 1.3 requires of every event of these classes. */
function checkEvent(event: Event): void {
  const { class_uid: of, category_uid: category, activity_id: activity, type_uid: type } = event;
  const { severity_id: severity, time, metadata, status_id: status } = event;
  expect([of, category]).toEqual(of === 6003 ? [6003, 6] : [of, 4]);
  expect([4001, 4002, 6003]).toContain(of);
  expect(type).toBe(Number(of) * 100 + Number(activity));
  for (const id of [activity, severity, status]) expect(Number.isSafeInteger(id)).toBe(true);
  expect(Number.isSafeInteger(time) && Number(time) > 1e12).toBe(true);
  expect(metadata).toMatchObject({
    version: "1.3.0",
    product: { name: "authbridge-proxy", vendor_name: expect.any(String) },
    sequence: expect.any(Number),
    uid: expect.stringMatching(/^[\da-f]{64}$/),
  });
  if (of === 4002) expect(event["http_request"] ?? event["http_response"]).toBeDefined();
  if (of === 6003) expect(event).toMatchObject({ api: { operation: expect.any(String) } });
  if (of === 6003) expect(event["src_endpoint"]).toBeDefined();
  for (const name of ["src_endpoint", "dst_endpoint"]) {
    const { ip, hostname } = (event[name] ?? { ip: "absent" }) as Event;
    expect(ip ?? hostname, name).toMatch(/./);
  }
  if ("actor" in event) expect(Object.keys(event["actor"] as object)).not.toHaveLength(0);
}

test.each([1, 2])(
  "with workers: %i every decision is a whole event, and tells no secret",
  async (workers) => {
    const path = join(scratch, `audit-${workers}.jsonl`);
    const policy = { name: "egress-policy", config: { allow: ["127.0.0.1", "nowhere.invalid"] } };
    const base = settings({ ...outbound(policy), audit: { path } });
    const proxy = await own(ProxyProcess.start(merge(base, { workers })));
    const secret = "hunter2-hunter2-hunter2";
    const headers = { Authorization: `Bearer ${secret}`, Cookie: `a=${secret}` };
    const asked = async (method: string, target: string): Promise<number> =>
      (await request(proxy.forward, { method, target: `${target}?key=${secret}`, headers })).status;
    expect(await asked("GET", `${origin.url}/one`)).toBe(200);
    expect(await asked("QUERY", `${origin.url}/two`)).toBe(200);
    expect(await asked("POST", "http://refused.example/")).toBe(403);
    expect(await asked("GET", "http://nowhere.invalid/")).toBeGreaterThan(499);
    for (const authority of [`127.0.0.1:${origin.port}`, "refused.example:443"]) {
      const { client } = await openTunnel(proxy.forward, authority, headers);
      client.close();
    }
    await eventually(() => readFileSync(path, "utf8").split("\n").length > 6);
    await proxy.stop();
    const exported = await runProgram(["audit", "export", path, "--format", "ocsf"]);
    expect(exported).toMatchObject({ code: 0, stderr: "" });
    expect(exported.stdout).not.toContain(secret);
    const events = exported.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Event);
    for (const event of events) checkEvent(event);
    const kinds = events.map(
      (event) => `${Number(event["type_uid"])} ${Number(event["action_id"])}`,
    );
    for (const kind of ["400203 1", "400299 1", "400206 2", "400201 1", "400201 2"]) {
      expect(kinds).toContain(kind);
    }
  },
);
