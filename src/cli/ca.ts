/** `ca`: the certificate that clients of the TLS bridge have to trust. */
import { X509Certificate } from "node:crypto";
import { authorityObjection, openAuthority } from "../app/bridge.ts";
import { commandFile, type FileCommand, refuseCommand } from "./config-file.ts";
import { pemBlocks } from "../app/trust/bundle.ts";

interface CaCommand extends FileCommand {
  readonly fingerprint: boolean;
}

/** Prints it and resolves with the exit code. */
export async function printCa(command: CaCommand): Promise<number> {
  const loaded = await commandFile(command);
  if (loaded === undefined) return 2;
  const objection = authorityObjection(loaded.config);
  if (objection !== undefined) return refuseCommand(objection);
  try {
    const { authority } = await openAuthority(loaded.config);
    const { caPem } = authority;
    process.stdout.write(command.fingerprint ? describe(caPem) : withLineEnd(caPem));
    return 0;
  } catch (error) {
    return refuseCommand(error);
  }
}

/** What `openssl x509 -noout -subject -fingerprint -sha256 -enddate` tells, for each certificate. */
function describe(caPem: string): string {
  return pemBlocks(caPem)
    .map((pem) => {
      const { subject, fingerprint256, validToDate } = new X509Certificate(pem);
      const name = subject.replaceAll("\n", ", ");
      return `subject  ${name}\nsha256   ${fingerprint256}\nexpires  ${validToDate.toISOString()}\n`;
    })
    .join("\n");
}

function withLineEnd(text: string): string {
  return text.endsWith("\n") ? text : `${text}\n`;
}
