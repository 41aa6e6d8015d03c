import { X509Certificate } from "node:crypto";
import { beforeEach, describe, expect, test } from "vitest";
import type { AgentObserver } from "../../../../src/spiffe/workload/agent.ts";
import { X509Stream } from "../../../../src/spiffe/workload/x509-stream.ts";
import { eventually } from "../../../support/eventually.ts";
import { owner } from "../../../support/owner.ts";
import { SpiffeAuthority } from "../../../support/spiffe-authority.ts";
import { type Answer, field, WorkloadApi } from "../../../support/workload-api.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const foreign = SpiffeAuthority.create("other.test");
const first = authority.svid("/workload", { notAfter: new Date(Date.now() + 1_800_000) });
const second = authority.svid("/workload");

let agent: WorkloadApi;
let heard: string[];
let now: () => number;

const observer: AgentObserver = {
  rotated: (item, facts) => heard.push(`${item} ${JSON.stringify(facts)}`),
  failed: (_item, problem, isNew) => {
    if (isNew) heard.push(problem);
  },
};

function stream(over: object = {}): X509Stream {
  return new X509Stream({
    socket: agent.path,
    clock: { now: () => now() },
    observer,
    backOff: { first: 5, most: 20 },
    ...over,
  });
}

beforeEach(async () => {
  agent = await own(WorkloadApi.start());
  heard = [];
  now = () => Date.now();
});

describe("a stream of X.509-SVIDs", () => {
  test("is not opened before somebody asks", async () => {
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    expect(agent.connections).toBe(0);
    expect(source.notReady()).toBe("the agent has not sent an X.509-SVID yet");
    await eventually(() => source.notReady() === undefined);
    expect(agent.calls).toEqual(["FetchX509SVID"]);
  });

  test("gives the SVID, its bundle and those of federated domains", async () => {
    const source = await own(stream());
    const federated = {
      "spiffe://other.test": foreign.caDer,
      "spiffe://bad.test": Buffer.from("x"),
    };
    agent.update({ svid: first, bundle: authority.caDer, federated });
    await eventually(() => source.current() !== undefined);
    expect(source.current()).toMatchObject({
      spiffeId: "spiffe://example.org/workload",
      trustDomain: "example.org",
    });
    expect(source.current()?.privateKey.reveal()).toBe(first.key);
    expect(source.trustDomains()).toEqual(["example.org", "other.test"]);
    expect(source.bundle("example.org")).toEqual([authority.caPem.replaceAll("\r", "")]);
    expect(source.bundle("other.test")).toEqual([foreign.caPem.replaceAll("\r", "")]);
    expect(source.bundle("bad.test")).toBeUndefined();
    expect(heard.join("\n")).toContain("the bundle of spiffe://bad.test is refused");
  });

  test("replaces what it gave on the same stream, and says so once for each change", async () => {
    const source = await own(stream());
    let changes = 0;
    source.onChange(() => (changes += 1));
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => changes === 1);
    const bundle = source.bundle("example.org");
    agent.update({ svid: first, bundle: authority.caDer });
    agent.update({ svid: second, bundle: authority.caDer });
    await eventually(() => source.current()?.privateKey.reveal() === second.key);
    expect(changes).toBe(2);
    expect(source.bundle("example.org")).toBe(bundle);
    const federated = { "spiffe://other.test": foreign.caDer };
    agent.update({ svid: second, bundle: authority.caDer, federated });
    await eventually(() => source.bundle("other.test") !== undefined);
    agent.update({ svid: second, bundle: authority.caDer });
    await eventually(() => source.bundle("other.test") === undefined);
    expect(agent.connections).toBe(1);
    expect(heard.filter((line) => line.startsWith("x509_svid"))).toHaveLength(2);
  });

  test("keeps what it gave while the agent is away, and goes on when it is back", async () => {
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    await agent.stop();
    await eventually(() => heard.some((line) => line.includes("ENOENT")));
    expect(source.notReady()).toBeUndefined();
    await agent.listen();
    agent.update({ svid: second, bundle: authority.caDer });
    await eventually(() => source.current()?.privateKey.reveal() === second.key);
  });

  test("gives nothing any more once the SVID has expired", async () => {
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    const { expiresAt = 0 } = source.current() ?? {};
    now = () => expiresAt;
    expect(source.current()).toBeUndefined();
    expect(source.notReady()).toContain("has expired at");
  });

  test("drops an authority that the bundle has lost, and the SVID that it had signed", async () => {
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    const other = SpiffeAuthority.create();
    agent.update({ svid: first, bundle: other.caDer });
    await eventually(() => source.current() === undefined);
    expect(source.bundle("example.org")).toEqual([other.caPem.replaceAll("\r", "")]);
    await eventually(() => source.notReady()?.includes("no authority of the bundle") === true);
  });

  test("is asked again where the agent has not renewed what is about to expire", async () => {
    const expiresAt = Date.parse(new X509Certificate(first.cert).validTo);
    now = () => expiresAt - 1_400;
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    await eventually(() => agent.connections > 1);
  });

  test("ends with its owner, and calls nobody any more", async () => {
    const source = stream();
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    await source.close();
    await eventually(() => agent.streams === 0);
    expect(source.current()).toBeDefined();
    expect(agent.connections).toBe(1);
  });
});

describe("an agent that does what it should not", () => {
  const expired = authority.svid("/workload", { notAfter: new Date(Date.now() - 1_000) });
  const twice = authority.svid("/workload", {
    uris: ["spiffe://example.org/workload", "spiffe://b/c"],
  });
  const web = authority.svid("/workload", { uris: ["https://example.org/workload"] });
  const head = (length: number, flag = 0): Buffer => {
    const bytes = Buffer.alloc(5, flag);
    bytes.writeUInt32BE(length, 1);
    return bytes;
  };

  test.each<[string, () => Answer | "update", string]>([
    [
      "refuses",
      () => ({ status: 7, words: "no identity issued" }),
      "PermissionDenied, no identity issued",
    ],
    ["fails with an unknown status", () => ({ status: 99 }), "the agent refused: status 99"],
    ["sends no SVID", () => ({ message: Buffer.alloc(0) }), "the agent sent no X.509-SVID"],
    ["sends garbage in a frame", () => ({ message: Buffer.from("garbage") }), "a field"],
    ["sends half an SVID", () => ({ message: field(1, field(1, "spiffe://a/b")) }), "not PKCS#8"],
    ["sends a compressed message", () => ({ raw: head(3, 1) }), "compressed"],
    [
      "sends 10 MB",
      () => ({ raw: Buffer.concat([head(10_485_760), Buffer.alloc(100_000)]) }),
      "10485760 bytes",
    ],
    [
      "sends a great many fields",
      () => ({ message: Buffer.concat(Array.from({ length: 20_000 }, () => field(9, ""))) }),
      "more than 10000 fields",
    ],
  ])("that %s is a reason and no end", async (_name, answer, why) => {
    const source = await own(stream());
    agent.answerX509(answer() as Answer);
    await eventually(() => source.notReady()?.includes(why) === true);
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.notReady() === undefined);
  });

  test.each([
    ["expired", expired, authority, "has expired at"],
    ["of another domain", foreign.svid(), authority, "no authority of the bundle"],
    ["with two URIs", twice, authority, "has 2 URIs"],
    ["without a SPIFFE ID", web, authority, "no SPIFFE ID"],
  ])("an SVID %s is refused with words", async (_name, svid, issuer, why) => {
    const source = await own(stream());
    agent.update({ svid, bundle: issuer.caDer });
    await eventually(() => source.notReady()?.includes(why) === true);
    expect(source.current()).toBeUndefined();
    expect(heard.join("\n")).toContain(why);
  });

  test("a bad update leaves the good one in use", async () => {
    const source = await own(stream());
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.current() !== undefined);
    agent.update({ svid: twice, bundle: authority.caDer });
    await eventually(() => heard.some((line) => line.includes("has 2 URIs")));
    expect(source.current()?.privateKey.reveal()).toBe(first.key);
    expect(source.notReady()).toBeUndefined();
  });

  test.each([
    ["speaks no HTTP/2", "garbage", "does not speak HTTP/2"],
    ["says nothing", "silence", "did not answer in 50 ms"],
  ] as const)("that %s is a reason and no end", async (_name, manner, why) => {
    const source = await own(stream({ answerMs: manner === "silence" ? 50 : 5_000 }));
    await agent.stop();
    await agent.listen(manner);
    await eventually(() => source.notReady()?.includes(why) === true);
    await agent.stop();
    await agent.listen();
    agent.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.notReady() === undefined);
  });

  test("a stream that is open and silent is given up", async () => {
    const source = await own(stream({ answerMs: 50 }));
    expect(source.current()).toBeUndefined();
    await eventually(() => agent.connections > 2);
    expect(source.notReady()).toContain("did not answer in 50 ms");
  });

  test("that is not there is asked again and again, and complained of once", async () => {
    const away = await own(WorkloadApi.start(false));
    const source = await own(stream({ socket: away.path }));
    await eventually(() => source.notReady()?.includes("ENOENT") === true);
    await away.listen();
    away.update({ svid: first, bundle: authority.caDer });
    await eventually(() => source.notReady() === undefined);
    expect(heard.filter((line) => line.includes("ENOENT"))).toHaveLength(1);
  });
});
