/** The ways of operators to open questions: the command, the console in Chromium. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { browserPath, launchBrowser, openPage } from "../support/browser.ts";
import { request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-operators-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let served = 0;
beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(() => {
      served += 1;
      return reply(200, "done");
    }),
  );
});
beforeEach(() => {
  served = 0;
});

async function start(approval: Settings = {}): Promise<[ProxyProcess, Approver]> {
  const endpoint = {
    host: "127.0.0.1",
    port: origin.port,
    protocol: "rest",
    enforcement: "enforce",
    rules: [{ ask: { method: "POST", path: "/**" } }],
  };
  const config = { network_policies: { api: { endpoints: [endpoint] } } };
  const proxy = await own(
    ProxyProcess.start(
      merge(
        settings({ session: { api_secret_file: secretFile }, approval }),
        outbound({ name: "egress-policy", config }),
      ),
    ),
  );
  return [proxy, new Approver(proxy, "operator-secret")];
}

function send(proxy: ProxyProcess, body = "amount=1"): Promise<RawResponse> {
  return request(proxy.forward, {
    method: "POST",
    target: `${origin.url}/pay`,
    headers: { Host: origin.authority },
    body,
  });
}

const apiOf = (proxy: ProxyProcess): string => {
  const { host, port } = proxy.address("sessions");
  return `http://${host}:${port}`;
};

test("the command lists, allows and refuses, and says why it cannot", async () => {
  const [proxy, operator] = await start();
  const approve = (...args: string[]): ReturnType<typeof runProgram> =>
    runProgram(["approve", ...args, "--url", apiOf(proxy), "--secret-file", secretFile]);
  expect((await approve()).stdout).toBe("nothing waits for an approval\n");
  const sent = send(proxy);
  const { id } = await operator.next();
  const listed = await approve("list");
  expect(listed.stdout).toContain(`${id}  127.0.0.1  POST ${origin.url}/pay`);
  const allowed = await approve(id, "allow", "--duration", "1h", "--reason", "ticket 12");
  expect([allowed.code, allowed.stdout]).toEqual([
    0,
    expect.stringMatching(/ is allowed \(duration, until /),
  ]);
  expect((await sent).status).toBe(200);
  const over = await approve(id, "deny");
  expect([over.code, over.stderr]).toEqual([1, expect.stringContaining("409")]);
  expect((await approve(id)).code).toBe(2);
  const other = send(proxy, "amount=2");
  expect((await approve((await operator.next()).id, "deny")).stdout).toContain("is denied");
  expect((await other).status).toBe(403);
  expect(served).toBe(1);
});

describe.skipIf(browserPath === undefined)("the console", () => {
  test("shows what waits, whole, and its buttons decide", async () => {
    const [proxy, operator] = await start();
    const browser = await launchBrowser();
    await own(Promise.resolve({ close: () => browser.close() }));
    const { page } = await openPage(browser, { width: 1200, height: 900 });
    await page.goto(`${apiOf(proxy)}/#approvals`);
    await page.locator("#secret input").fill("operator-secret");
    await page.locator("#secret button").click();
    await page.getByText("Nothing waits.").waitFor();
    const first = send(proxy);
    const { id } = await operator.next();
    const card = page.locator(`[data-approval="${id}"]`);
    await card.waitFor();
    expect(await card.textContent()).toContain(`POST ${origin.url}/pay`);
    expect(await card.textContent()).toContain("8 bytes, SHA-256");
    await card.getByRole("button", { name: "Approve" }).click();
    expect((await first).status).toBe(200);
    await page.getByText("Approved.").waitFor();
    const second = send(proxy, "amount=2");
    const next = page.locator(`[data-approval="${(await operator.next()).id}"]`);
    await next.getByLabel("Reason").fill("too much");
    await next.getByRole("button", { name: "Deny" }).click();
    const refused = await second;
    expect([refused.status, refused.text]).toEqual([403, expect.stringContaining("too much")]);
    await page.getByText("Nothing waits.").waitFor();
    expect(served).toBe(1);
  });
});
