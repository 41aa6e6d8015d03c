/** Signed receipts of decisions: who gets one, and in which field. */
import { HeaderList, isSameName } from "../../http/headers.ts";
import type { RequestContext } from "../../pipeline/context.ts";

/** In a request of a client it asks for a receipt; in a response, and in a request to an origin, it is one. */
export const receiptField = "authbridge-receipt";

/** What was decided: `exempt` by the file, `error` where a fault came before a decision. */
export type ReceiptVerdict = "allow" | "deny" | "exempt" | "error";

/** Makes receipts, for whom the file wants them. */
export interface Receipts {
  readersOf(host: string, isAsked: boolean): { readonly client: boolean; readonly origin: boolean };
  sign(context: RequestContext, verdict: ReceiptVerdict): string;
}

/** Takes the field out of a request, whatever is in it: nobody makes an origin believe a receipt. True where it asked for one. */
export function takeReceiptWish(headers: HeaderList): boolean {
  const wish = headers.get(receiptField);
  if (wish === undefined) return false;
  headers.delete(receiptField);
  return wish.trim().toLowerCase() === "request";
}

/** The fields of a response with a receipt, in place of one that the origin may have sent. */
export function withReceipt(headers: string[], receipt: string): string[] {
  const list = new HeaderList(headers);
  list.delete(receiptField);
  return [...list.raw, receiptField, receipt];
}

/** What an origin sends, without receipts of its own making: nobody is to take them for ours. */
export function withoutReceipt(fields: readonly string[]): readonly string[] {
  const isReceipt = (at: number): boolean => isSameName(fields[at - (at % 2)] ?? "", receiptField);
  return fields.some((_, at) => isReceipt(at)) ? fields.filter((_, at) => !isReceipt(at)) : fields;
}
