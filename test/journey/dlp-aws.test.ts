/** dlp and uploads to object stores: the framing aws-chunked hides nothing, and what is harmless arrives signed anew. */
import { beforeAll, expect, test } from "vitest";
import { type HandSigned, handSigned, standingFor } from "../support/aws-agent.ts";
import { request, type RawResponse } from "../support/http-client.ts";
import { ObjectStore } from "../support/object-store.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const secret = "sTored-Credential_0123456789";
const real = { accessKeyId: "AKIAREALREALREAL0001", secret: "real+secret/key" };
const host = "s3.eu-central-1.amazonaws.com";
const bedrock = "bedrock-runtime.eu-central-1.amazonaws.com";

let store: ObjectStore;
let proxy: ProxyProcess;

beforeAll(async () => {
  store = await own(ObjectStore.start([real]));
  const key = standingFor(real);
  proxy = await own(
    ProxyProcess.start(
      settings({
        egress: {
          hosts: {
            [host]: ["127.0.0.1"],
            "redact.test": ["127.0.0.1"],
            "minio.test": ["127.0.0.1"],
            [bedrock]: ["127.0.0.1"],
          },
        },
        ...outbound(
          {
            name: "aws-sigv4",
            config: {
              keys: [key],
              routes: { rules: [{ host: "**.amazonaws.com" }] },
              allow_plaintext: true,
            },
          },
          {
            name: "dlp",
            config: {
              rules: [
                { hosts: ["redact.test", bedrock], detectors: ["standard"], action: "redact" },
              ],
              larger_bodies: "stream",
              default: { action: "refuse" },
            },
          },
          {
            name: "static-inject",
            config: {
              source: "mappings",
              mappings: { "inject.test": secret },
              placeholder: "STAND-IN",
              hosts: ["inject.test"],
            },
          },
        ),
      }),
    ),
  );
});

interface Upload {
  readonly body: string;
  readonly chunks: readonly number[];
  readonly hasTrailer?: boolean;
  /** Without the coding, which servers do not need. */
  readonly isUnsaid?: boolean;
  readonly to?: string;
}

function put(upload: Upload, change = (bytes: Buffer) => bytes): Promise<RawResponse> {
  const { body, chunks, hasTrailer = false, isUnsaid = false } = upload;
  // What is signed has to say it.
  const { to = isUnsaid ? "minio.test" : host } = upload;
  const authority = `${to}:${store.port}`;
  const shape: HandSigned = {
    method: "PUT",
    host: authority,
    path: "/b/k",
    service: "s3",
    region: "eu-central-1",
    body: Buffer.from(body),
    chunks,
    hasTrailer,
    ...(isUnsaid ? { fields: { "content-encoding": "" } } : {}),
  };
  const signed = handSigned(shape);
  const fields = Object.entries(signed.fields).filter(([, value]) => value !== "");
  return request(proxy.forward, {
    method: "PUT",
    target: `http://${authority}/b/k`,
    headers: fields,
    body: change(signed.body),
  });
}

test.each([false, true])(
  "what is harmless arrives as it was, signed anew (trailer: %s)",
  async (hasTrailer) => {
    const response = await put({ body: "nothing to see here", chunks: [7, 12], hasTrailer });
    expect(response.status, response.text).toBe(200);
    expect(store.last?.verdict).toMatchObject({ kind: "right" });
    expect(store.objects.get("/b/k")?.toString()).toBe("nothing to see here");
  },
);

test.each([
  ["in one chunk", { chunks: [28] }],
  ["cut over chunks", { chunks: [10, 11, 7] }],
  ["cut over chunks, with the coding unsaid", { chunks: [10, 11, 7], isUnsaid: true }],
  ["in one chunk, with the coding unsaid", { chunks: [28], isUnsaid: true }],
] as const)("a secret is found %s", async (_name, shape) => {
  const before = store.served.length;
  const response = await put({ body: secret, ...shape });
  expect(response.status).toBe(403);
  expect(response.json()).toMatchObject({ error: "dlp.refused" });
  expect(store.served.length).toBe(before);
});

test.each(["chunk-signature", "trailer"])("a secret is found in the %s", async (place) => {
  const hex = Buffer.from(secret).toString("hex").padEnd(64, "0");
  const response = await put({ body: "harmless", chunks: [8], hasTrailer: true }, (bytes) =>
    Buffer.from(
      place === "trailer"
        ? bytes.toString("latin1").replace("x-amz-checksum", `x-note:${secret}\r\nx-amz-checksum`)
        : bytes.toString("latin1").replace(/signature=[0-9a-f]{64}/, `signature=${hex}`),
    ),
  );
  expect(response.status).toBe(403);
  expect(response.json()).toMatchObject({ error: "dlp.refused" });
});

test.each([false, true])(
  "a framing that does not hold is refused (coding unsaid: %s)",
  async (isUnsaid) => {
    const response = await put({ body: "harmless", chunks: [8], isUnsaid }, (bytes) =>
      Buffer.from(bytes.toString("latin1").replace("harmless", "harm")),
    );
    expect(response.status).toBe(403);
    expect(response.json()).toMatchObject({
      error: "dlp.unread",
      message: expect.stringContaining("aws-chunked") as unknown,
    });
  },
);

test("it is not redacted: its framing has its lengths", async () => {
  const response = await put({ body: secret, chunks: [28], to: "redact.test" });
  expect(response.status).toBe(403);
  expect(response.json()).toMatchObject({
    error: "dlp.refused",
    message: expect.stringContaining("signed") as unknown,
  });
});

test.each<[string, Partial<HandSigned>]>([
  ["in a field", {}],
  ["in no field", { isHashHidden: true }],
])("what aws-sigv4 signs anew is redacted before, with the hash of the body %s", async (...row) => {
  const authority = `${bedrock}:${store.port}`;
  const signed = handSigned({
    method: "POST",
    host: authority,
    path: "/model/m/converse",
    service: "bedrock",
    region: "eu-central-1",
    fields: { "content-type": "application/json", "x-note": `is ${secret}` },
    body: Buffer.from(JSON.stringify({ text: `the key is ${secret}` })),
    ...row[1],
  });
  const response = await request(proxy.forward, {
    method: "POST",
    target: `http://${authority}/model/m/converse`,
    headers: Object.entries(signed.fields),
    body: signed.body,
  });
  expect(response.status, response.text).toBe(200);
  const { verdict } = store.last ?? {};
  expect(verdict).toMatchObject({ kind: "right", service: "bedrock" });
  const sent = verdict?.kind === "right" ? verdict.body.toString() : "";
  expect(JSON.parse(sent)).toEqual({ text: "the key is [redacted:own_secrets]" });
});

test("a body with a checksum of its own is not redacted, whoever signs it anew", async () => {
  const authority = `${bedrock}:${store.port}`;
  const before = store.served.length;
  const signed = handSigned({
    method: "POST",
    host: authority,
    path: "/x",
    service: "bedrock",
    region: "eu-central-1",
    fields: { "x-amz-checksum-crc32": "AAAAAA==" },
    body: Buffer.from(secret),
  });
  const response = await request(proxy.forward, {
    method: "POST",
    target: `http://${authority}/x`,
    headers: Object.entries(signed.fields),
    body: signed.body,
  });
  expect(response.status).toBe(403);
  expect(store.served.length).toBe(before);
});
