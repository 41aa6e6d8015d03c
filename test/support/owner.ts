/** Who closes what a test opened: things made in a test go with the test, things made in beforeAll with the block. */
import { afterAll, afterEach, beforeEach } from "vitest";

/** Anything with an end. */
export interface Closable {
  close(): Promise<void> | void;
}

async function closeAll(things: Closable[]): Promise<void> {
  for (let thing = things.pop(); thing !== undefined; thing = things.pop()) await thing.close();
}

/** Call it once in a describe block or file; what is handed to the result is closed in reverse order. */
export function owner(): <T extends Closable>(thing: T | Promise<T>) => Promise<T> {
  const ofBlock: Closable[] = [];
  const ofTest: Closable[] = [];
  let isInTest = false;
  beforeEach(() => {
    isInTest = true;
  });
  afterEach(async () => {
    await closeAll(ofTest);
    isInTest = false;
  });
  afterAll(() => closeAll(ofBlock));
  return async (thing) => {
    const made = await thing;
    (isInTest ? ofTest : ofBlock).push(made);
    return made;
  };
}
