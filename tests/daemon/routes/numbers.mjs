/** Prints what the page's `numbers.js` makes of each value on standard input: `node numbers.mjs NUMBERS.js`. */

import {readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

const numbers = await import(pathToFileURL(process.argv[2]));
const {said, spans, pairs, ages} = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify({
  grouped: said.map((each) => numbers.grouped(each)),
  plain: said.map((each) => numbers.plain(each)),
  decimals: said.map((each) => numbers.decimals(each)),
  inColumn: said.map((each) => numbers.inColumn(each, 3)),
  percent: said.map((each) => numbers.percent(each)),
  ticks: spans.map((span) => numbers.ticks(...span)),
  difference: pairs.map((pair) => numbers.difference(...pair)),
  spread: pairs.map((pair) => numbers.spread(...pair)),
  age: ages.map((ms) => numbers.age(ms ?? NaN)),
}));
