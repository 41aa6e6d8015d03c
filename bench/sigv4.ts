/**
 * What it costs to sign a request of 64 KiB anew: the signature of the agent read and verified, the request signed with other
 * keys, and its body hashed chunk by chunk where its chunks are signed. `node bench/sigv4.ts [SECONDS]` prints processor time.
 */
import type { BodySink, BodySource } from "../src/http/body-source.ts";
import { BodyBudget } from "../src/http/body.ts";
import { HeaderList } from "../src/http/headers.ts";
import { parseAuthority } from "../src/net/destination.ts";
import { Cancellation } from "../src/pipeline/cancellation.ts";
import { RequestContext } from "../src/pipeline/context.ts";
import { makeFlow } from "../src/pipeline/flow.ts";
import { readClaim } from "../src/plugins/aws-sigv4/claim.ts";
import { Signer } from "../src/plugins/aws-sigv4/signer.ts";
import { SigningKeys } from "../src/plugins/aws-sigv4/signing-keys.ts";
import { formFault, signatureFault } from "../src/plugins/aws-sigv4/verify.ts";
import { Secret } from "../src/secret.ts";
import { type HandSigned, handSigned, standIn } from "../test/support/aws-agent.ts";

const host = "s3.eu-central-1.amazonaws.com";
const keys = new SigningKeys(standIn.accessKeyId, new Secret(standIn.secretAccessKey));
const real = {
  keys: new SigningKeys("AKIAREALREALREAL0001", new Secret("real")),
  sessionToken: new Secret("token".repeat(100)),
  endsAt: undefined,
};
const body = Buffer.alloc(65_536, "0123456789abcdef");
const put = { method: "PUT", host, path: "/b/k", service: "s3", region: "eu-central-1", body };
const multi = "AWS4-ECDSA-P256-SHA256" as const;
const cases: Readonly<Record<string, HandSigned>> = {
  "hash in a field, body streamed": put,
  "hash in no field, body read": { ...put, isHashHidden: true },
  "one signed chunk of 64 KiB and a trailer": { ...put, chunks: [65_536], hasTrailer: true },
  "eight signed chunks of 8 KiB": { ...put, chunks: Array.from({ length: 8 }, () => 8_192) },
  "Version 4A, hash in a field": { ...put, region: "*", algorithm: multi },
};

/** A body as it comes off a socket. */
class Pieces implements BodySource {
  readonly isComplete = false;
  readonly #body: Buffer;

  constructor(body: Buffer) {
    this.#body = body;
  }

  open(sink: BodySink): void {
    for (let at = 0; at < this.#body.length; at += 65_536)
      sink.data(this.#body.subarray(at, at + 65_536));
    sink.end();
  }

  resume(): void {
    // It never stops.
  }

  detach(): void {
    // Nobody lets go of it.
  }
}

const budget = new BodyBudget(67_108_864);
const seconds = Number(process.argv[2] ?? 1);
for (const [name, request] of Object.entries(cases)) {
  const sent = handSigned(request);
  const once = resigner(request, sent);
  for (let warm = 0; warm < 500; warm += 1) once();
  let runs = 0;
  let used = 0;
  // Processor time: a machine that is shared shows its other work in the time on the wall.
  const before = process.cpuUsage();
  while (used < seconds * 1_000_000) {
    for (let at = 0; at < 50; at += 1) once();
    runs += 50;
    const { user, system } = process.cpuUsage(before);
    used = user + system;
  }
  process.stdout.write(`${name.padEnd(44)} ${(used / 1000 / runs).toFixed(4)} ms\n`);
}

function resigner(request: HandSigned, sent: ReturnType<typeof handSigned>): () => void {
  const raw = Object.entries(sent.fields).flat();
  const flow = makeFlow({
    direction: "outbound",
    transport: "http",
    client: { address: "127.0.0.1", port: 1 },
    destination: parseAuthority(`${host}:443`, "https"),
  });
  const isStreamed = request.chunks !== undefined || request.isHashHidden !== true;
  return () => {
    const context = new RequestContext({
      flow,
      stage: "request",
      method: request.method,
      path: request.path,
      host,
      headers: new HeaderList([...raw]),
      hasBody: true,
      cancellation: new Cancellation(),
    });
    if (!isStreamed) context.content.load(sent.body);
    const read = readClaim(context.headers, context.path);
    if (read?.kind !== "signed") throw new Error("not read");
    const { claim } = read;
    const now = Date.now();
    const fault = formFault(claim, now, 3_600_000) ?? signatureFault(context, claim, keys);
    if (fault !== undefined) throw new Error(fault.why);
    const maxChunkBytes = 1_048_576;
    const terms = { claim, real, standIn: keys, now, maxChunkBytes, isNew: false };
    const wrap = new Signer(terms).sign({
      method: request.method,
      target: request.path,
      headers: context.headers.clone(),
      body: isStreamed ? undefined : sent.body,
      isBodyReplaced: false,
      budget,
    });
    if (wrap !== undefined) drain(wrap(new Pieces(sent.body)));
  };
}

function drain(source: BodySource): void {
  source.open({
    data: () => true,
    end: () => undefined,
    fail: (error) => {
      throw error;
    },
  });
}
