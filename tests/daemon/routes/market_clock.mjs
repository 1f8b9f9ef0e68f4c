/**
 * Folds messages into a page's `market.js` while clocks are set:
 *
 *     node market_clock.mjs MARKET.js STEPS.json
 *
 * A step is `{ticks: MS}` (time passes), `{wall: MS}` (this machine's clock is set, or it slept), `{welcome}` or `{message}`.
 * Prints, after each step, what is shown of each price, channel and series.
 */

import {readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

let [ticks, wall] = [1000, 1_765_000_000_000];
performance.now = () => ticks;
Date.now = () => wall;
globalThis.requestAnimationFrame = () => 1; // nothing is drawn

const market = await import(pathToFileURL(process.argv[2]));
market.describe([
  {name: 'bitcoinprice', view: 'price', instruments: ['BTC/USDT']},
  {name: 'binance_prices', view: 'price', instruments: ['BTC/USDT']},
  {name: 'binance_24hr', view: 'day', instruments: ['BTC/USDT']},
]);

const seen = JSON.parse(readFileSync(process.argv[3], 'utf8')).map((step) => {
  if (step.ticks) [ticks, wall] = [ticks + step.ticks, wall + step.ticks];
  if (step.wall) wall += step.wall;
  if (step.welcome) market.meet(step.welcome);
  if (step.message) market.fold(step.message, JSON.stringify(step.message));
  const prices = [...market.prices.values()].map(({key, digits, at, series}) => [
    key, {digits, age_ms: market.now() - at, series: series.map(({from, at}) => [from, at])},
  ]);
  return {prices: Object.fromEntries(prices), day: market.days.get('BTC/USDT')?.lastPrice ?? null};
});
console.log(JSON.stringify(seen));
