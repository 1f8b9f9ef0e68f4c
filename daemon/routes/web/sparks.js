// The small charts in the table of prices: the last minutes of each row.

import {scale, sheet} from './canvas.js';
import {colour} from './colours.js';
import {now, prices, WINDOW_MS} from './market.js';
import {view} from './paint.js';
import {trace} from './trace.js';

const LEAST_MS = 60_000;
const sheets = new WeakMap();

view('sparks', () => {
  const end = now();
  for (const canvas of document.querySelectorAll('canvas.spark')) {
    if (!sheets.has(canvas)) sheets.set(canvas, sheet(canvas, 'sparks'));
    const paper = sheets.get(canvas)();
    const series = (prices.get(canvas.dataset.key)?.series ?? []).filter(({at}) => at >= end - WINDOW_MS);
    if (!paper || !series.length) continue;
    const {pen, width, height} = paper;
    pen.lineWidth = 1.25;
    pen.strokeStyle = colour('accent');
    const [low, high] = [Math.min(...series.map(({low}) => low)), Math.max(...series.map(({high}) => high))];
    const x = scale(1, width - 1, Math.min(end - LEAST_MS, series[0].from), end);
    trace(pen, series, x, scale(height - 3, 3, low, high));
  }
});
