/** The commands of the decision log. */
import { type Command, command } from "./command.ts";
import * as takes from "./parameter.ts";

const missing = "name the files of a decision log, oldest first";
const size = (line: Parameters<typeof takes.value>[0]) =>
  takes.value(line, (given, name) =>
    /^\d{1,15}$/.test(given) ? Number(given) : takes.misuse(`${name} must be a whole number`),
  );

/** Rows of the table of commands. */
export const auditRows: Readonly<Record<string, Command>> = {
  "verify-audit": command({
    usage: {
      "verify-audit FILE … [--key FILE] [--checkpoint FILE …]":
        "say whether a decision log is whole and what its checkpoints say, oldest file first",
    },
    parameters: {
      files: takes.files("verify-audit needs the files of a decision log"),
      key: takes.text(
        "--key FILE  the public key in PEM, or the JWK set of /v1/keys, that checkpoints have to be signed with",
      ),
      checkpoints: takes.repeated(
        "--checkpoint FILE  a checkpoint that was kept elsewhere; may be repeated",
        (path) => path,
      ),
    },
    load: async () => (await import("../audit/verify.ts")).verifyAudit,
  }),
  "audit proof": command({
    usage: {
      "audit proof ID FILE … [--size N]":
        "the proof that a decision is in a decision log: of a request's id or a record's number",
    },
    parameters: {
      arguments: takes.files("audit proof needs the id of a decision and the files of the log"),
      size: size(
        "--size N  in the tree of the checkpoint of this size (default: the first with it)",
      ),
    },
    objection: ({ arguments: given }) => (given.length < 2 ? missing : undefined),
    load: async () => (await import("../audit/proof.ts")).proveDecision,
  }),
  "audit consistency": command({
    usage: {
      "audit consistency FILE … --from N --to N":
        "the proof that the log of one checkpoint goes on in that of another",
    },
    parameters: {
      files: takes.files(missing),
      from: takes.required(
        size("--from N  the size of the older checkpoint"),
        "--from is required",
      ),
      to: takes.required(size("--to N  the size of the newer checkpoint"), "--to is required"),
    },
    load: async () => (await import("../audit/proof.ts")).proveGrowth,
  }),
  "audit export": command({
    usage: {
      "audit export FILE … --format ocsf":
        "the decisions of a log in another form, one JSON object a line",
    },
    parameters: {
      files: takes.files(missing),
      format: takes.required(
        takes.choice("--format FORMAT  ocsf: the Open Cybersecurity Schema Framework", ["ocsf"]),
        "--format is required: ocsf",
      ),
    },
    load: async () => (await import("../audit/export.ts")).exportAudit,
  }),
};
