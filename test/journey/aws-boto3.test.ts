/** boto3, which hashes and frames otherwise than the SDK for JavaScript: `AUTHBRIDGE_PYTHON` names a Python that has it. */
import { execFile, spawnSync } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { standIn, standingFor } from "../support/aws-agent.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { ObjectStore } from "../support/object-store.ts";
import { owner } from "../support/owner.ts";

const own = owner();
const python = process.env["AUTHBRIDGE_PYTHON"] ?? "python3";
const isThere = spawnSync(python, ["-c", "import boto3"]).status === 0;
const real = { accessKeyId: "AKIAREALREALREAL0001", secret: "real+secret/key" };
const s3 = "s3.eu-central-1.amazonaws.com";
const dynamo = "dynamodb.eu-central-1.amazonaws.com";

const program = `
import boto3, io, os, sys, urllib.request, ssl
from botocore.config import Config
port, ca, proxy = sys.argv[1:4]
more = dict(region_name="eu-central-1", verify=ca, config=Config(proxies={"https": proxy}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}))
s3 = boto3.client("s3", endpoint_url=f"https://${s3}:{port}", **more)
for key in ["plain", "a b+c&d=e", "path//twice", "\\u00fcn\\u00ef", "quo'te(and)*~"]:
    s3.put_object(Bucket="b", Key=key, Body=b"x" * 100)
    assert s3.get_object(Bucket="b", Key=key)["Body"].read() == b"x" * 100, key
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="b", Prefix=key)["Contents"]]
    assert key in keys, (key, keys)
    s3.delete_object(Bucket="b", Key=key)
s3.put_object(Bucket="b", Key="streamed", Body=io.BytesIO(b"y" * 3000000), ChecksumAlgorithm="CRC32")
url = s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "streamed"}, ExpiresIn=60)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"https": proxy}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
assert len(opener.open(url).read()) == 3000000
table = boto3.client("dynamodb", endpoint_url=f"https://${dynamo}:{port}", **more)
table.list_tables(Limit=3)
print("ok")
`;

test.skipIf(!isThere)("boto3 with stand-in keys", async () => {
  const authority = await TestAuthority.create();
  const store = await own(ObjectStore.start([real], await authority.server([s3, dynamo])));
  const proxy = await own(
    BridgeProxy.start({
      ports: [store.port],
      originCa: authority.caPem,
      names: [s3, dynamo],
      plugins: [
        {
          name: "aws-sigv4",
          config: {
            keys: [standingFor(real)],
            routes: { rules: [{ host: "*.eu-central-1.amazonaws.com" }] },
          },
        },
      ],
      otherwise: "deny",
    }),
  );
  const { stdout } = await promisify(execFile)(
    python,
    ["-c", program, String(store.port), proxy.caFile, proxy.url],
    {
      env: {
        PATH: process.env["PATH"],
        AWS_ACCESS_KEY_ID: standIn.accessKeyId,
        AWS_SECRET_ACCESS_KEY: standIn.secretAccessKey,
      },
    },
  );
  expect(stdout).toBe("ok\n");
  expect(store.served.filter(({ verdict }) => verdict.kind === "wrong")).toEqual([]);
});
