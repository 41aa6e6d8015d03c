import { beforeEach, describe, expect, test } from "vitest";
import { JwtTokens } from "../../../../src/spiffe/workload/jwt-tokens.ts";
import { eventually } from "../../../support/eventually.ts";
import { owner } from "../../../support/owner.ts";
import { type Answer, jwtAnswer, jwtSvid, WorkloadApi } from "../../../support/workload-api.ts";

const own = owner();
const sub = "spiffe://example.org/workload";
const hourMs = 3_600_000;

let agent: WorkloadApi;
let problems: string[];
/** The clock stands still unless a test moves it. */
const startMs = Date.now();
let offsetMs: number;
let rotations: number;

function tokens(over: object = {}): JwtTokens {
  return new JwtTokens({
    socket: agent.path,
    clock: { now: () => startMs + offsetMs },
    observer: {
      rotated: () => (rotations += 1),
      failed: (_item, problem, isNew) => {
        if (isNew) problems.push(problem);
      },
    },
    ...over,
  });
}

function good(audience: string, lifeMs = hourMs): Answer {
  const exp = Math.floor((startMs + offsetMs + lifeMs) / 1_000);
  return jwtAnswer(sub, jwtSvid({ sub, aud: [audience], exp, n: agent.audiences.length }));
}

beforeEach(async () => {
  agent = await own(WorkloadApi.start());
  agent.onJwt = (audience) => good(audience);
  problems = [];
  offsetMs = 0;
  rotations = 0;
});

describe("a JWT-SVID", () => {
  test("is fetched for its audience, once for all who ask at once", async () => {
    const source = await own(tokens());
    expect(agent.connections).toBe(0);
    const long = `https://idp.test/${"x".repeat(120)}`;
    const [one, two, other] = await Promise.all([
      source.token(long),
      source.token(long),
      source.token("b"),
    ]);
    expect(one).toBe(two);
    expect(one).toMatchObject({ spiffeId: sub });
    expect(one.token.reveal()).not.toBe(other.token.reveal());
    expect(agent.audiences.sort()).toEqual(["b", long]);
    expect(await source.token(long)).toBe(one);
    expect(agent.connections).toBe(2);
  });

  test("is renewed for who only asks whether it is there, so that an idle workload stays ready", async () => {
    const source = await own(tokens());
    await source.token("a");
    for (const passed of [0.4, 0.6]) {
      offsetMs = passed * hourMs;
      expect(source.notReady("a")).toBeUndefined();
    }
    await eventually(() => rotations === 2);
    expect(agent.audiences).toEqual(["a", "a"]);
    offsetMs = 1.2 * hourMs;
    expect(source.notReady("a")).toBeUndefined();
  });

  test("is kept for half of its life", async () => {
    const source = await own(tokens());
    const first = await source.token("a");
    offsetMs = 0.49 * hourMs;
    expect(await source.token("a")).toBe(first);
    offsetMs = 0.51 * hourMs;
    const second = await source.token("a");
    expect(second).not.toBe(first);
    // A clock that goes back makes the newer one old.
    offsetMs = 0;
    expect(await source.token("a")).not.toBe(second);
  });

  test("that the agent still thinks young enough is no new one, and is not asked for at every turn", async () => {
    const source = await own(tokens());
    const answer = good("a");
    agent.onJwt = () => answer;
    const first = await source.token("a");
    for (const minutes of [31, 46, 59]) {
      offsetMs = minutes * 60_000;
      expect(await source.token("a")).toBe(first);
    }
    offsetMs = hourMs - 1_500;
    for (let count = 0; count < 20; count += 1) expect(await source.token("a")).toBe(first);
    expect(rotations).toBe(1);
    expect(agent.audiences.length).toBeLessThan(7);
  });

  test("stays in use while the agent is away, until it expires", async () => {
    const source = await own(tokens());
    const first = await source.token("a");
    await agent.stop();
    offsetMs = 0.6 * hourMs;
    expect(await source.token("a")).toBe(first);
    expect(source.notReady("a")).toBeUndefined();
    offsetMs = 1.1 * hourMs;
    await expect(source.token("a")).rejects.toMatchObject({
      code: "upstream.unreachable",
      message: expect.stringMatching(/no JWT-SVID for a: unix:.*ENOENT/),
    });
    expect(source.notReady("a")).toContain("ENOENT");
  });

  test("is not asked for again at once where the agent refused", async () => {
    const source = await own(tokens({ backOff: { first: 60_000, most: 60_000 } }));
    agent.onJwt = () => ({ status: 7, words: "no identity issued" });
    for (let count = 0; count < 5; count += 1)
      await expect(source.token("a")).rejects.toThrow("PermissionDenied, no identity issued");
    expect(agent.audiences).toEqual(["a"]);
    agent.onJwt = (audience) => good(audience);
    offsetMs = 60_001;
    await source.token("a");
    expect(problems).toHaveLength(1);
  });

  test("is asked for again as soon where the clock is set back after a refusal", async () => {
    const source = await own(tokens({ backOff: { first: 60_000, most: 60_000 } }));
    agent.onJwt = () => ({ status: 7, words: "no identity issued" });
    await expect(source.token("a")).rejects.toThrow("no identity issued");
    agent.onJwt = (audience) => good(audience);
    offsetMs = -hourMs;
    await expect(source.token("a")).rejects.toThrow("no identity issued");
    offsetMs = 60_001 - hourMs;
    await source.token("a");
  });

  test("is fetched by the question whether it is there", async () => {
    const source = await own(tokens());
    expect(source.notReady("a")).toBe("the agent has not sent a JWT-SVID for a yet");
    await eventually(() => source.notReady("a") === undefined);
    expect(agent.audiences).toEqual(["a"]);
  });
});

describe("a JWT-SVID that is of no use", () => {
  const exp = (): number => Math.floor(Date.now() / 1_000) + 3_600;
  test.each<[string, () => Answer, string]>([
    [
      "for another audience",
      () => jwtAnswer(sub, jwtSvid({ sub, aud: ["b"], exp: exp() })),
      "another audience",
    ],
    [
      "of another subject",
      () => jwtAnswer(sub, jwtSvid({ sub: "spiffe://a/b", aud: "a", exp: exp() })),
      "subject",
    ],
    [
      "of no SPIFFE ID",
      () => jwtAnswer("x", jwtSvid({ sub: "x", aud: "a", exp: exp() })),
      "no SPIFFE ID",
    ],
    [
      "without an end",
      () => jwtAnswer(sub, jwtSvid({ sub, aud: "a" })),
      "no time at which it expires",
    ],
    ["that has expired", () => jwtAnswer(sub, jwtSvid({ sub, aud: "a", exp: 1 })), "has expired"],
    ["that is none", () => jwtAnswer(sub, "very-secret"), "not a JWT"],
    [
      "with a line end",
      () => jwtAnswer(sub, `${jwtSvid({ sub, aud: "a", exp: exp() })}\n`),
      "not a JWT",
    ],
    ["that is huge", () => jwtAnswer(sub, "x".repeat(20_000)), "longer than 16384"],
    ["that is not there", () => ({ message: Buffer.alloc(0) }), "sent no JWT-SVID"],
    ["of garbage", () => ({ message: Buffer.from("garbage") }), "a field"],
    ["in silence", () => "silence", "did not answer in 100 ms"],
  ])("%s is refused with words", async (_name, answer, why) => {
    const source = await own(tokens({ answerMs: why.startsWith("did not") ? 100 : 5_000 }));
    agent.onJwt = answer;
    const failure = source.token("a");
    await expect(failure).rejects.toThrow(why);
    await expect(failure).rejects.not.toThrow("very-secret");
    agent.onJwt = (audience) => good(audience);
    offsetMs = 1_000;
    expect(await source.token("a")).toMatchObject({ spiffeId: sub });
  });
});
