/** The row of `run -- COMMAND`. */
import { isIP } from "node:net";
import { command } from "./command.ts";
import * as takes from "./parameter.ts";

/** Asks about what was learned. */
export const reviewFlag = takes.sometimes(
  "--review  ask about each learned rule: accept, narrow to what was seen, drop",
);

/** One that there is, or none. */
function hasPort(place: string): boolean {
  const [, port = "443"] = /:(\d+)$/.exec(place.replace(/^\[.*\]/, "")) ?? [];
  return Number(port) >= 1 && Number(port) <= 65_535;
}

function isBlock(text: string): boolean {
  const [, address = "", bits = "0"] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  return isIP(address) > 0 && Number(bits) <= (isIP(address) === 4 ? 32 : 128);
}

/** One command behind a proxy of its own. */
export const runRow = command({
  name: "run",
  title: "run --",
  usage: {
    "run [--config FILE | --policy FILE] [--learn FILE [--review]]\n  [--allow HOST[:PORT] …] [--allow-ip CIDR …] [--enforce] -- COMMAND …":
      "run COMMAND behind a proxy of its own, and tell what it reached",
  },
  parameters: {
    file: takes.text("--config FILE  the configuration file"),
    lenient: takes.flag(
      "--lenient  unknown keys are warnings, for files written for the Go authbridge-proxy",
    ),
    policyFile: takes.text(
      "--policy FILE  refuse what this policy file (OpenShell format) does not allow",
    ),
    learnFile: takes.text(
      "--learn FILE  refuse nothing, and add to this policy file what lets the same through again",
    ),
    review: reviewFlag,
    allow: takes.repeated(
      "--allow HOST[:PORT]  allow this host too (ports 80 and 443); without a file or policy nothing else; may be repeated",
      (place) =>
        /^(?:\[[0-9a-f:.]+\]|[\w*.-]+)(?::\d{1,5})?$/i.test(place) && hasPort(place)
          ? place
          : takes.misuse("--allow must be HOST or HOST:PORT, with a port from 1 to 65535"),
    ),
    allowIps: takes.repeated(
      "--allow-ip CIDR  let the guard of addresses dial this address or range; may be repeated",
      (block) =>
        isBlock(block)
          ? block
          : takes.misuse("--allow-ip must be an address or a range such as 10.0.0.0/8"),
    ),
    enforce: takes.sometimes(
      "--enforce  leave COMMAND no way out but the proxy (Linux namespaces; on macOS best effort)",
    ),
    command: takes.rest,
  },
  objection({ file, policyFile, learnFile, review: isReviewed, command }) {
    if (command.length === 0) return "run needs a command after --";
    if (policyFile !== undefined && learnFile !== undefined)
      return "--policy and --learn exclude each other: --learn refuses nothing, and adds to the file that it names";
    if (isReviewed && learnFile === undefined) return "--review needs --learn FILE";
    return file === undefined || policyFile === undefined
      ? undefined
      : "--policy and --config exclude each other: name the policy in the file";
  },
  load: async () => (await import("../run/run.ts")).runBehindProxy,
  exits: true,
});
