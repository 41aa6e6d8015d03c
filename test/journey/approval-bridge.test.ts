/** Approval where the bridge opens TLS: of the connection, and of single requests in it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const host = "api.allowed.test";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-bridge-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let authority: TestAuthority;
let origin: TlsOrigin;
beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await own(TlsOrigin.start(await authority.server([host])));
});

async function start(endpoint: object): Promise<[BridgeProxy, Approver]> {
  const endpoints = [{ host, port: origin.port, ...endpoint }];
  const proxy = await own(
    BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      names: [host],
      plugins: [{ name: "egress-policy", config: { network_policies: { api: { endpoints } } } }],
      file: { session: { api_secret_file: secretFile } },
    }),
  );
  return [proxy, new Approver(proxy, "operator-secret")];
}

test("a request inside is held, and one that needs no approval is not", async () => {
  const rules = [
    { allow: { method: "GET", path: "/open" } },
    { ask: { method: "GET", path: "/secret" } },
  ];
  const [proxy, operator] = await start({ protocol: "rest", enforcement: "enforce", rules });
  expect((await proxy.get(origin.at(host), "/open")).status).toBe(200);
  const sent = proxy.get(origin.at(host), "/secret");
  const ask = await operator.next();
  expect(ask.request).toMatchObject({ scheme: "https", host, path: "/secret" });
  await operator.allow(ask.id);
  expect((await sent).status).toBe(200);
});

test("a connection is approved once, with what is in it", async () => {
  const [proxy, operator] = await start({ enforcement: "ask" });
  const opened = proxy.get(origin.at(host), "/secret");
  await operator.allow((await operator.next()).id);
  expect((await opened).status).toBe(200);
  expect(await operator.pending()).toEqual([]);
  const refused = proxy.get(origin.at(host), "/secret");
  await operator.deny((await operator.next()).id, "no more");
  expect((await refused).text).toContain("no more");
});
