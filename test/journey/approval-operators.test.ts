/** The ways of operators to open questions: the command, the console in Chromium, a signed webhook and callback. */
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { eventually } from "../support/eventually.ts";
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

describe("a webhook and a callback", () => {
  const hmac = (version: string, secret: string, timestamp: string, body: string): string =>
    `${version}=${createHmac("sha256", secret).update(`${version}:${timestamp}:${body}`).digest("hex")}`;
  const now = (): string => String(Math.floor(Date.now() / 1_000));
  const hookSecret = join(scratch, "hook");
  writeFileSync(hookSecret, "hook-secret");
  const slackSecret = join(scratch, "slack");
  writeFileSync(slackSecret, "slack-secret");
  const callback = { secret_file: hookSecret, slack_signing_secret_file: slackSecret };

  interface Told {
    readonly body: string;
    readonly field: (name: string) => string | undefined;
  }

  /** A receiver that refuses the first attempts. */
  async function receiver(refusals = 0): Promise<{ readonly told: Told[]; readonly url: string }> {
    const told: Told[] = [];
    let left = refusals;
    const hook = await own(
      HttpOrigin.launch(({ head, body }) => {
        if (left > 0) {
          left -= 1;
          return reply(503, "later");
        }
        const field = (name: string): string | undefined =>
          head.fields.find(([known]) => known.toLowerCase() === name)?.[1];
        told.push({ body: body.toString(), field });
        return reply(200, "ok");
      }),
    );
    return { told, url: `${hook.url}/hook` };
  }

  function post(
    proxy: ProxyProcess,
    body: string,
    headers: Readonly<Record<string, string>>,
  ): Promise<RawResponse> {
    return request(proxy.address("stats"), {
      method: "POST",
      target: "/approvals/callback",
      headers: { Host: "localhost", ...headers },
      body,
    });
  }

  test("each question is told once, signed, and a signed decision counts", async () => {
    const hook = await receiver(2);
    const webhook = { url: hook.url, secret_file: hookSecret };
    const [proxy] = await start({ webhook, callback });
    const sent = send(proxy);
    const told = await eventually(() => hook.told[0] ?? false);
    const timestamp = told.field("authbridge-timestamp") ?? "";
    expect(told.field("authbridge-signature")).toBe(
      hmac("v1", "hook-secret", timestamp, told.body),
    );
    const { id, ...rest } = JSON.parse(told.body) as { id: string };
    expect(rest).toMatchObject({
      type: "approval.asked",
      request: { method: "POST", path: "/pay" },
    });
    const decision = JSON.stringify({ id, decision: "allow", by: "carol" });
    const signed = (secret: string, at: string, body = decision) =>
      post(proxy, body, {
        "Content-Type": "application/json",
        "Authbridge-Timestamp": at,
        "Authbridge-Signature": hmac("v1", secret, at, decision),
      });
    const old = String(Number(now()) - 1_000);
    expect((await signed("other", now())).status).toBe(401);
    expect((await signed("hook-secret", old)).status).toBe(401);
    expect((await signed("hook-secret", now(), decision.replace("allow", "deny!"))).status).toBe(
      401,
    );
    expect((await post(proxy, decision, {})).status).toBe(401);
    const done = await signed("hook-secret", now());
    expect([done.status, JSON.parse(done.text)]).toMatchObject([200, { by: ["callback:carol"] }]);
    expect((await sent).status).toBe(200);
    expect((await signed("hook-secret", now())).status).toBe(409);
    expect(hook.told).toHaveLength(1);
    expect(await proxy.metric("authbridge_approval_webhook_total", { result: "ok" })).toBe(1);
  });

  test("Slack: a message with buttons, and a press of one", async () => {
    const hook = await receiver();
    const [proxy] = await start({ webhook: { url: hook.url, format: "slack" }, callback });
    const sent = send(proxy);
    const told = await eventually(() => hook.told[0] ?? false);
    expect(told.body).toContain('"type":"mrkdwn"');
    const [, id = ""] = /"value":"([\w-]+)"/.exec(told.body) ?? [];
    const payload = {
      type: "block_actions",
      user: { id: "U1", username: "dora" },
      actions: [{ action_id: "deny", value: id }],
    };
    const body = new URLSearchParams({ payload: JSON.stringify(payload) }).toString();
    const at = now();
    const pressed = (secret: string): Promise<RawResponse> =>
      post(proxy, body, {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": at,
        "X-Slack-Signature": hmac("v0", secret, at, body),
      });
    expect((await pressed("hook-secret")).status).toBe(401);
    const done = await pressed("slack-secret");
    expect([done.status, JSON.parse(done.text)]).toMatchObject([200, { by: ["slack:dora"] }]);
    expect((await sent).status).toBe(403);
  });

  test("a receiver that is away holds nothing up, and is given up", async () => {
    const url = "http://127.0.0.1:1/hook";
    const [proxy, operator] = await start({ webhook: { url, attempts: 2 } });
    const sent = send(proxy);
    await operator.allow((await operator.next()).id, { scope: "duration", duration: "1m" });
    expect((await sent).status).toBe(200);
    await eventually(
      async () =>
        (await proxy.metric("authbridge_approval_webhook_total", { result: "failed" })) === 1,
    );
  });
});
