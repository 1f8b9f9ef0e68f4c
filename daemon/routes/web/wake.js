// Notice that this machine has slept: a clock that was to tick has not. A connection may have died meanwhile without a word.

const TICK_MS = 500;
const ASLEEP_MS = 3000;

// `woken` is called within half a second of waking; also, to no harm, in a tab whose timers the browser slows down.
export function whenWoken(woken) {
  let before = Date.now();
  setInterval(() => {
    const at = Date.now();
    const lost_ms = Math.abs(at - before - TICK_MS);
    before = at;
    if (lost_ms > ASLEEP_MS) woken();
  }, TICK_MS);
}
