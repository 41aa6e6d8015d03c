/** Everything that one generation knows of the workload's identity. */
import type { JwtSource } from "./jwt-source.ts";
import type { X509Source } from "./x509-source.ts";

/** The sources, and what an operator wants to know of them. */
export interface WorkloadIdentity {
  readonly x509: X509Source;
  readonly jwt: JwtSource;
  /** Why something that the file needs of it is not there, or undefined. */
  notReady(): string | undefined;
  /** The same of the X.509-SVID alone. */
  x509NotReady(): string | undefined;
  /** When the X.509-SVID in use expires, in milliseconds since the epoch; undefined without one. Nothing is dialled. */
  svidExpiresAt(): number | undefined;
}
