/** Words of other programs, as part of one line for people. */

/** A server's reason or a host name must not draw lines of its own, nor speak to the terminal. */
export function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
}
