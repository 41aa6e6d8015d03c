/** The figures of the AWS documentation and of its public test suite, and the parts that make them. */
import { describe, expect, test, vi } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import { HeaderList } from "../../../../src/http/headers.ts";
import {
  canonicalPath,
  canonicalRequest,
  emptyHash,
  readTarget,
} from "../../../../src/plugins/aws-sigv4/canonical.ts";
import { readClaim } from "../../../../src/plugins/aws-sigv4/claim.ts";
import {
  ChunkResigner,
  ResignedBody,
  resignedWhole,
} from "../../../../src/plugins/aws-sigv4/chunked-body.ts";
import { endpointOf, scopeFault, serviceOf } from "../../../../src/plugins/aws-sigv4/endpoint.ts";
import { profileOf } from "../../../../src/plugins/aws-sigv4/shared-file.ts";
import {
  sha256,
  SigningKeys,
  type SigningScope,
  stringToSign,
} from "../../../../src/plugins/aws-sigv4/signing-keys.ts";
import { Secret } from "../../../../src/secret.ts";

const example = new SigningKeys(
  "AKIDEXAMPLE",
  new Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
);
const time = "20150830T123600Z";
const suite: SigningScope = {
  algorithm: "AWS4-HMAC-SHA256",
  day: "20150830",
  region: "us-east-1",
  service: "service",
};

function signatureOf(
  target: string,
  fields: readonly (readonly [string, string])[] = [],
  method = "GET",
  scope = suite,
): string {
  const headers = new HeaderList(
    [["Host", "example.amazonaws.com"] as const, ...fields, ["X-Amz-Date", time] as const].flat(),
  );
  const read = readTarget(target);
  if (typeof read === "string") throw new Error(read);
  const signed = [...new Set([...headers.entries()].map(([name]) => name.toLowerCase()))].sort();
  const canonical = canonicalRequest({
    method,
    path: canonicalPath(read.path, scope.service),
    parameters: read.parameters,
    headers,
    signed,
    payload: emptyHash,
  });
  return example.sign(scope, stringToSign(scope, time, canonical));
}

const vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

describe("the public test suite of Version 4", () => {
  test.each([
    ["get-vanilla", "/", [], vanilla],
    ["get-relative", "/example/..", [], vanilla],
    ["get-slash-dot-slash", "/./", [], vanilla],
    [
      "get-vanilla-query-order-key-case",
      "/?Param2=value2&Param1=value1",
      [],
      "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ],
    [
      "get-header-value-trim",
      "/",
      [
        ["My-Header1", " value1"],
        ["My-Header2", ' "a   b   c"'],
      ],
      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ],
    [
      "get-header-key-duplicate",
      "/",
      [
        ["My-Header1", "value2"],
        ["My-Header1", "value2"],
        ["My-Header1", "value1"],
      ],
      "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ],
    [
      "get-utf8",
      "/\u00e1\u0088\u00b4",
      [],
      "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ],
  ] as const)("%s", (_name, target, fields, signature) => {
    expect(signatureOf(target, fields)).toBe(signature);
  });

  test("post-vanilla", () => {
    expect(signatureOf("/", [], "POST")).toBe(
      "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    );
  });
});

test("names are sorted before their equals signs", () => {
  const read = readTarget("/?a=2&a-b=1&a=1");
  if (typeof read === "string") throw new Error(read);
  expect(signatureOf("/?a=2&a-b=1&a=1")).toBe(signatureOf("/?a-b=1&a=1&a=2"));
});

test.each(["/%", "/a?b=%zz", "/a?b=c+d", "http://x/"])("%s has no one reading", (target) => {
  expect(typeof readTarget(target)).toBe("string");
});

describe("signed chunks, as the documentation of S3 has them", () => {
  const keys = new SigningKeys(
    "AKIAIOSFODNN7EXAMPLE",
    new Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
  );
  const budget = new BodyBudget(1_048_576);
  const to = {
    keys,
    scope: {
      algorithm: "AWS4-HMAC-SHA256",
      day: "20130524",
      region: "us-east-1",
      service: "s3",
    } as const,
    time: "20130524T000000Z",
    seed: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
  };
  const of = (signature: string, size: number): Buffer =>
    Buffer.from(`${size.toString(16)};chunk-signature=${signature}\r\n${"a".repeat(size)}\r\n`);
  const signatures = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
  ];
  const sizes = [65_536, 1_024, 0];
  const whole = Buffer.concat(signatures.map((signature, at) => of(signature, sizes[at] ?? 0)));
  const terms = {
    from: to,
    to,
    hasTrailer: false,
    maxChunkBytes: 1_048_576,
    decodedLength: 66_560,
    budget,
  };

  test("are made, and taken", () => {
    expect(resignedWhole(whole, terms).equals(whole)).toBe(true);
  });

  test("in pieces of every size", () => {
    for (const size of [1, 7, 64, 1_000, 65_537]) {
      const resigner = new ChunkResigner(terms);
      const made: Buffer[] = [];
      for (let at = 0; at < whole.length; at += size)
        made.push(...resigner.push(whole.subarray(at, at + size)));
      resigner.end();
      expect(Buffer.concat(made).equals(whole), String(size)).toBe(true);
    }
  });

  test.each([
    ["cut short", whole.subarray(0, -4), /ends before/],
    ["longer", Buffer.concat([whole, Buffer.from("x")]), /goes on/],
    [
      "of another size",
      Buffer.from(whole.toString("latin1").replace(/^10000/, "ffff"), "latin1"),
      /length/,
    ],
    ["of another length", whole, /decoded/, { ...terms, decodedLength: 1 }],
    ["too large", whole, /max_chunk_bytes/, { ...terms, maxChunkBytes: 8_192 }],
    [
      "of another signature",
      whole,
      /stand-in/,
      { ...terms, from: { ...to, seed: "0".repeat(64) } },
    ],
    ["more than the budget has", whole, /max_buffered/, { ...terms, budget: new BodyBudget(9) }],
  ] as const)("%s: refused, and nothing stays held", (_name, body, why, other = terms) => {
    expect(() => resignedWhole(body, other)).toThrow(why);
    expect(other.budget.usedBytes).toBe(0);
  });

  test("let go of what is held, and of their source, when nobody reads on", () => {
    const close = vi.fn<() => void>();
    const source = { isComplete: false, open: vi.fn(), resume: vi.fn(), detach: vi.fn(), close };
    const body = new ResignedBody(source, terms);
    body.data(whole.subarray(0, 4_096));
    expect(budget.usedBytes).toBe(65_536);
    body.close();
    expect(budget.usedBytes).toBe(0);
    expect(close).toHaveBeenCalledOnce();
  });
});

test("Version 4A: both ends derive the same key, and its signatures hold", () => {
  const scope: SigningScope = {
    algorithm: "AWS4-ECDSA-P256-SHA256",
    day: "20130524",
    region: "",
    service: "s3",
  };
  const again = new SigningKeys(
    "AKIDEXAMPLE",
    new Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
  );
  const made = example.sign(scope, "text");
  expect(again.verify(scope, "text", made)).toBe(true);
  expect(again.verify(scope, "other", made)).toBe(false);
  expect(sha256("")).toBe(emptyHash);
});

test.each([
  ["s3.eu-central-1.amazonaws.com", "s3", "eu-central-1"],
  ["bucket.with.dots.s3.eu-central-1.amazonaws.com", "s3", "eu-central-1"],
  ["iam.s3.us-east-1.amazonaws.com", "s3", "us-east-1"],
  ["b.s3-us-west-2.amazonaws.com", "s3", "us-west-2"],
  ["b.s3.dualstack.us-west-2.amazonaws.com", "s3", "us-west-2"],
  ["b.vpce-1.s3.us-west-2.vpce.amazonaws.com", "s3", "us-west-2"],
  ["p-1.s3-accesspoint.us-west-2.amazonaws.com", "s3", "us-west-2"],
  ["m.mrap.accesspoint.s3-global.amazonaws.com", "s3", undefined],
  ["iam.amazonaws.com", "iam", undefined],
  ["bedrock-runtime.us-gov-west-1.amazonaws.com", "bedrock", "us-gov-west-1"],
  ["bedrock-runtime-fips.us-east-1.amazonaws.com", "bedrock", "us-east-1"],
  ["dynamodb.cn-north-1.amazonaws.com.cn", "dynamodb", "cn-north-1"],
  ["search-x.us-east-1.es.amazonaws.com", "es", "us-east-1"],
  ["id.execute-api.us-east-1.amazonaws.com", "execute-api", "us-east-1"],
  ["id.lambda-url.us-east-1.on.aws", "lambda", "us-east-1"],
  ["email.us-east-1.amazonaws.com", "ses", "us-east-1"],
  ["sqs.us-east-1.api.aws", "sqs", "us-east-1"],
] as const)("%s is an endpoint of %s in %s", (host, service, region) => {
  const endpoint = endpointOf(host);
  expect(endpoint?.region).toBe(region);
  expect(endpoint === undefined ? "" : serviceOf(endpoint)).toBe(service);
  const scope = { ...suite, service, region: region ?? "us-east-1" };
  const allowed = { services: [], regions: [], signingName: undefined };
  expect(scopeFault(host, { scope, regionSet: [] }, allowed)).toBeUndefined();
  const other = { ...scope, service: "other" };
  expect(scopeFault(host, { scope: other, regionSet: [] }, allowed)).toContain("other");
});

test("a scope has to fit the host and the file, and what gives out keys has to be named", () => {
  const allowed = { services: [], regions: [], signingName: undefined };
  const at = (host: string, service: string, region: string, more = {}) =>
    scopeFault(
      host,
      { scope: { ...suite, service, region }, regionSet: [] },
      { ...allowed, ...more },
    );
  expect(at("sts.eu-west-1.amazonaws.com", "sts", "eu-west-1")).toContain("services");
  expect(
    at("sts.eu-west-1.amazonaws.com", "sts", "eu-west-1", { services: ["sts"] }),
  ).toBeUndefined();
  expect(at("minio.test", "s3", "us-east-1")).toContain("set services");
  expect(at("minio.test", "s3", "us-east-1", { services: ["s3"] })).toContain("set regions");
  const custom = { services: ["s3"], regions: ["us-east-1"] };
  expect(at("minio.test", "s3", "us-east-1", custom)).toBeUndefined();
  expect(at("minio.test", "s3", "eu-west-1", custom)).toContain("not in regions");
  expect(at("s3.eu-west-1.amazonaws.com", "s3", "eu-west-1", custom)).toContain("not in regions");
  expect(at("evilamazonaws.com", "s3", "us-east-1")).toContain("no endpoint");
  expect(at("x.amazonaws.com.evil.test", "s3", "us-east-1")).toContain("no endpoint");
});

describe("what a request says of its signature", () => {
  const good =
    "AWS4-HMAC-SHA256 Credential=AKIASTANDIN0EXAMPLE1/20150830/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=" +
    "0".repeat(64);
  const kindOf = (fields: readonly (readonly [string, string])[], target = "/") =>
    readClaim(new HeaderList([["X-Amz-Date", time] as const, ...fields].flat()), target)?.kind;

  test("is read", () => {
    expect(kindOf([["Authorization", good]])).toBe("signed");
    expect(kindOf([["Authorization", good.replaceAll(", ", ",")]])).toBe("signed");
    expect(kindOf([])).toBeUndefined();
    expect(kindOf([["Authorization", "Bearer x"]])).toBeUndefined();
  });

  test.each([
    [
      "twice",
      [
        ["Authorization", good],
        ["Authorization", good],
      ],
      "/",
    ],
    ["in both places", [["Authorization", good]], "/?X-Amz-Signature=1"],
    ["half in the query", [], "/?X-Amz-Credential=1"],
    ["misspelt", [], "/?x-amz-signature=1"],
    ["without its host", [["Authorization", good.replace("host;", "")]], "/"],
    ["unsorted", [["Authorization", good.replace("host;x-amz-date", "x-amz-date;host")]], "/"],
    ["of another day", [["Authorization", good.replace("20150830", "20150831")]], "/"],
    ["with a longer scope", [["Authorization", good.replace("/s3/", "/s3/s3/")]], "/"],
    ["with a part too many", [["Authorization", `${good}, Signature=1`]], "/"],
    [
      "with two dates",
      [
        ["Authorization", good],
        ["x-amz-date", time],
      ],
      "/",
    ],
  ] as const)("%s: malformed", (_name, fields, target) => {
    expect(kindOf(fields, target)).toBe("malformed");
  });

  test.each([
    ["Version 2", [["Authorization", "AWS AKIA:abc="]], "/"],
    ["Version 2 in a query", [], "/?AWSAccessKeyId=a&Signature=b"],
    ["another algorithm", [["Authorization", good.replace("HMAC-SHA256", "HMAC-SHA1")]], "/"],
  ] as const)("%s: unsupported", (_name, fields, target) => {
    expect(kindOf(fields, target)).toBe("unsupported");
  });
});

test("a shared credentials file", () => {
  const text =
    "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[profile two]\nAWS_ACCESS_KEY_ID=C\r\naws_secret_access_key = D=E \naws_session_token=F\n[three]\nrole_arn=x\n";
  expect(profileOf(text, "default").accessKeyId).toBe("A");
  const two = profileOf(text, "two");
  expect([two.accessKeyId, two.secret.reveal(), two.sessionToken?.reveal()]).toEqual([
    "C",
    "D=E",
    "F",
  ]);
  expect(() => profileOf(text, "three")).toThrow(/three/);
  expect(() => profileOf(text, "four")).toThrow(/no profile four/);
});
