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

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");

function proved(attempt: number, { token = "t", key = "k", more = {} } = {}): Attempt {
  const head = part({ typ: "dpop+jwt", alg: "ES256", jwk: { kty: "EC", x: key } });
  const claims = part({ jti: `j${attempt}`, iat: attempt, htm: "PUT", ...more });
  return [{ Authorization: `DPoP ${token}`, DPoP: `${head}.${claims}.c2ln${attempt}` }, "data"];
}

const [head = "", , signature = ""] = proved(1)[0]["DPoP"]?.split(".") ?? [];
const claims = `{"jti":"unseen","jti":"j1","iat":1,"htm":"PUT"}`;
const twice = [head, Buffer.from(claims).toString("base64url"), signature].join(".");

const traced = (attempt: number, id = `r${attempt}`): Attempt => [{ "X-Request-Id": id }, "data"];

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
      aws("/v4", 1, { fields: { "amz-sdk-invocation-id": "unseen, ".repeat(20) } }),
    ],
  ],
  ["/v4a", (attempt) => aws("/v4a", attempt, { algorithm: "AWS4-ECDSA-P256-SHA256" }), () => []],
  [
    "/rfc9421",
    signed,
    () => [signed(1, '"@method"'), [{ ...signed(1)[0], Signature: "unseen" }, "data"]],
  ],
  [
    "/dpop",
    (attempt) => proved(attempt),
    () => [
      proved(1, { token: "other" }),
      proved(1, { key: "other" }),
      proved(1, { more: { note: "unseen" } }),
      proved(1, { more: { jti: "unseen".repeat(100) } }),
      [{ Authorization: "DPoP t", DPoP: "unseen" }, "data"],
      [{ Authorization: "DPoP t", DPoP: twice }, "data"],
    ],
  ],
  ["/traced", (attempt) => traced(attempt), () => [traced(1, "unseen ".repeat(40))]],
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
