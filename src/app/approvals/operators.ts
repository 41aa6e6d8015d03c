/** Who may decide, and their secrets. */
import { anyOperator, type NamedSecret } from "../../admin/secrets.ts";
import { type Decided, decide, type Order } from "../../approval/deciding.ts";
import type { Desk } from "../../approval/desk.ts";
import type { Config } from "../../config/presets.ts";
import type { Logger } from "../../telemetry/log.ts";
import { type Attendant, attendedFrom, mayAttend } from "./attendant.ts";
import { decidingRules } from "./desk-parts.ts";
import { secretIn } from "./secret-file.ts";

/** The operators of the file. Until a file can be read, its operator is not let in. */
export function operatorsOf({ approval }: Config, log: Logger): readonly NamedSecret[] {
  return approval.operators.map(({ name, secret_file: path }) => ({
    name,
    ...secretIn(path, `approval.operators ${name}`, log),
  }));
}

/** The files in which the secrets are with which somebody can decide. */
export function secretFilesOf({ approval, session }: Config): readonly string[] {
  const { operators, callback } = approval;
  const files = [
    session.api_secret_file,
    ...operators.map(({ secret_file: path }) => path),
    callback?.secret_file,
    callback?.slack_signing_secret_file,
  ];
  return files.filter((path) => path !== undefined);
}

/** Follows orders; where operators have secrets of their own, the common one decides nothing. */
export function deciderOf(config: Config, desk: Desk): (order: Order) => Promise<Decided> {
  const rules = decidingRules(config);
  const isNamed = config.approval.operators.length > 0;
  return async (order) => {
    if (isNamed && order.by === anyOperator) {
      const message = "operators have secrets of their own (approval.operators): use yours";
      return { kind: "wrong", message };
    }
    return decide(desk, rules, order);
  };
}

/** Has whoever is at hand asked from now on; an absent one, and one who may not decide, is not. */
export function attendedBy(attendant: Attendant | undefined, config: Config, desk: Desk): void {
  if (attendant === undefined || !mayAttend(config)) return;
  attendant.attend(attendedFrom(config, desk, deciderOf(config, desk)));
}
