/** Approval of requests that are signed anew at every attempt: it is for what is asked, and not for one signature. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { type HandSigned, handSigned, standIn } from "../support/aws-agent.ts";
import { request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-signed-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let proxy: ProxyProcess;
let operator: Approver;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  const endpoint = {
    host: "127.0.0.1",
    port: origin.port,
    protocol: "rest",
    enforcement: "enforce",
    rules: [{ ask: { method: "PUT", path: "/**" } }],
  };
  proxy = await own(
    ProxyProcess.start(
      settings({
        session: { api_secret_file: secretFile },
        approval: { on_pending: "poll" },
        ...outbound({
          name: "egress-policy",
          config: { network_policies: { api: { endpoints: [endpoint] } } },
        }),
      }),
    ),
  );
  operator = new Approver(proxy, "operator-secret");
});

type Fields = Readonly<Record<string, string>>;
type Attempt = readonly [fields: Fields, body: string];

const send = (path: string, [fields, body]: Attempt): Promise<RawResponse> =>
  request(proxy.forward, {
    method: "PUT",
    target: `${origin.url}${path}`,
    headers: { ...fields, Host: origin.authority },
    body,
  });

function aws(path: string, attempt: number, more: Partial<HandSigned> = {}): Attempt {
  const { fields, body } = handSigned({
    method: "PUT",
    host: origin.authority,
    path,
    service: "s3",
    region: "eu-central-1",
    body: Buffer.from("data"),
    time: `20261231T23595${attempt}Z`,
    ...more,
  });
  const { host: _, ...rest } = fields;
  return [{ ...rest, "amz-sdk-request": `attempt=${attempt}; max=3` }, body.toString()];
}

const signed = (attempt: number, covered = '"@method" "@path"'): Attempt => [
  {
    "Signature-Input": `sig=(${covered});created=${attempt};expires=${attempt + 9};nonce="n${attempt}";keyid="k"`,
    Signature: `sig=:${Buffer.from(String(attempt)).toString("base64")}:`,
  },
  "data",
];

const proved = (attempt: number, token = "t"): Attempt => [
  { Authorization: `DPoP ${token}`, DPoP: `proof-${attempt}` },
  "data",
];

const other = { accessKeyId: "AKIASTANDIN0EXAMPLE2", secretAccessKey: standIn.secretAccessKey };

test.each<[string, (attempt: number) => Attempt, () => readonly Attempt[]]>([
  [
    "/v4",
    (attempt) => aws("/v4", attempt),
    () => [
      aws("/v4", 1, { body: Buffer.from("more") }),
      aws("/v4", 1, { keys: other }),
      aws("/v4", 1, { region: "us-east-1" }),
      aws("/v4", 1, { fields: { "x-amz-acl": "public-read" } }),
    ],
  ],
  ["/v4a", (attempt) => aws("/v4a", attempt, { algorithm: "AWS4-ECDSA-P256-SHA256" }), () => []],
  ["/rfc9421", signed, () => [signed(1, '"@method"')]],
  ["/dpop", proved, () => [proved(1, "other")]],
])("%s: the next attempt is the one that was approved, another request is not", async (...row) => {
  const [path, attemptOf, others] = row;
  expect((await send(path, attemptOf(1))).status).toBe(202);
  const { id } = await operator.next();
  for (const one of others()) {
    const response = await send(path, one);
    expect(response.status).toBe(202);
    const { approval } = response.json() as { approval: string };
    expect(approval).not.toBe(id);
    await operator.deny(approval);
  }
  await operator.allow(id);
  const response = await send(path, attemptOf(2));
  expect(response.status, response.text).toBe(200);
  expect((await send(path, attemptOf(3))).status).toBe(202);
  await operator.deny((await operator.next()).id);
});
