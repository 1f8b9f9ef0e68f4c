// The order book of what is looked at, and beside it how much there is down to each price.

import {rule, scale, sheet} from './canvas.js';
import {chosen, instrument, venue} from './choice.js';
import {colour} from './colours.js';
import {byId, make, mark, mostDecimals, put, putDigits, rows} from './dom.js';
import {offline} from './link.js';
import {books, now, trouble} from './market.js';
import {age, difference, isNumber, plain, ticks, value} from './numbers.js';
import {isPaused, touch, touchNow, view} from './paint.js';

const LEVELS = 12;
const PAD = {top: 8, right: 4, bottom: 22, left: 4};

const canvas = byId('depth-canvas');
const read = byId('depth-read');
const paper = sheet(canvas, 'depth');
const listed = (...words) => words.filter(Boolean).join(', ');

const level = (...order) => () => {
  const cells = {price: make('td', 'price'), quantity: make('td')};
  return {element: make('tr', '', ...order.map((name) => cells[name])), ...cells};
};
const showSides = [rows(byId('bids'), level('quantity', 'price')), rows(byId('asks'), level('price', 'quantity'))];

const book = () => books.get(`${chosen('book')} ${instrument()}`);

// Both sides, each level with what there is down to it.
function ladders({bids, asks}) {
  return [bids, asks].map((side) => {
    let depth = 0;
    const levels = (Array.isArray(side) ? side : []).filter((level) => isNumber(level?.[0]));
    return levels.map(([price, quantity]) => ({price, quantity, depth: (depth += value(quantity) || 0)}));
  });
}

view('book', () => {
  const shown = book();
  const none = chosen('book') ? 'No order book yet.' : `No channel here has an order book of ${instrument()}.`;
  const sides = shown ? ladders(shown) : [[], []];
  const best = sides.map((levels) => levels.slice(0, LEVELS));
  const all = best.flat();
  const deepest = Math.max(...all.map(({depth}) => depth)) || 1;
  const [priced, sized] = [mostDecimals(all.map(({price}) => price)), mostDecimals(all.map(({quantity}) => quantity))];
  best.forEach((levels, side) => showSides[side]([...levels.keys()], (row, at) => {
    const {price, quantity, depth} = levels[at];
    putDigits(row.price, price, priced);
    putDigits(row.quantity, quantity, sized);
    const width = (depth / deepest).toFixed(2);
    if (row.width !== width) row.element.style.setProperty('--depth', (row.width = width));
  }));
  const [bid, ask] = sides.map(([first]) => first?.price);
  const wrong = shown && (offline() || trouble(shown.channel, instrument()));
  const apart = bid !== undefined && ask !== undefined && `Spread ${difference(ask, bid)}`;
  put(byId('book-spread'), shown ? listed(venue(), apart, wrong, age(now() - shown.at)) : none);
  mark(byId('book'), 'data-old', wrong ? '' : null);
  touch('depth');
});

let drawn = {sides: [[], []], coin: ''}; // what the depth chart shows, also in a pause
let pointed = null; // where somebody points

view('depth', () => {
  const shown = book();
  if (!isPaused()) drawn = {sides: shown ? ladders(shown) : [[], []], coin: instrument().split('/')[0]};
  const {sides, coin} = drawn;
  const [bids, asks] = sides;
  const [low, high] = [value(bids.at(-1)?.price), value(asks.at(-1)?.price)];
  const most = Math.max(...sides.flat().map(({depth}) => depth));
  const said = sides.map((levels, side) => levels.length && (
    `${['bids', 'asks'][side]}: ${plain(levels.at(-1).depth.toPrecision(6))} ${coin} down to ${plain(levels.at(-1).price)}`
      .replace('down', side ? 'up' : 'down')
  ));
  put(byId('depth-text'), listed(...said) || 'No depth yet.');
  const sheet = paper();
  if (!sheet || !(high > low) || !(most > 0)) return put(read, '');
  const {pen, width, height} = sheet;
  const bottom = height - PAD.bottom;
  const x = scale(PAD.left, width - PAD.right, low, high);
  const y = scale(bottom, PAD.top, 0, most);
  const heights = ticks(0, most, 3).filter(([amount]) => amount > 0);
  rule(pen, PAD.left, width - PAD.right, heights.map(([amount]) => y(amount)));
  for (const [levels, name] of [[bids, 'up'], [asks, 'down']]) {
    // A step at each level: until there, there is as much as before it.
    const path = [[x(levels[0].price), bottom]];
    for (const {price, depth} of levels) path.push([x(price), path.at(-1)[1]], [x(price), y(depth)]);
    pen.beginPath();
    path.forEach((point) => pen.lineTo(...point));
    pen.strokeStyle = colour(name);
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.lineTo(path.at(-1)[0], bottom);
    pen.fillStyle = colour(`${name}-wash`);
    pen.fill();
  }
  pen.fillStyle = colour('muted');
  for (const [amount, words] of heights) pen.fillText(words, PAD.left + 4, y(amount) - 8);
  pen.textAlign = 'center';
  for (const [price, words] of ticks(low, high, 3)) {
    const half = pen.measureText(words).width / 2;
    if (x(price) > half && x(price) < width - half) pen.fillText(words, x(price), height - 9);
  }
  put(read, pointed === null ? '' : point(pen, x, bottom));
}, {always: true});

// Mark the level that is pointed at; returns how much there is down to it.
function point(pen, x, bottom) {
  const levels = drawn.sides.flat();
  const {price, depth} = levels.reduce((a, b) => (Math.abs(x(b.price) - pointed) < Math.abs(x(a.price) - pointed) ? b : a));
  pen.strokeStyle = colour('muted');
  pen.lineWidth = 1;
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(Math.round(x(price)) + 0.5, 0);
  pen.lineTo(Math.round(x(price)) + 0.5, bottom);
  pen.stroke();
  pen.setLineDash([]);
  return `${plain(price)}: ${plain(depth.toPrecision(6))} ${drawn.coin}`;
}

canvas.addEventListener('pointermove', ({offsetX}) => {
  pointed = offsetX;
  touchNow('depth');
});
canvas.addEventListener('pointerleave', () => {
  pointed = null;
  touchNow('depth');
});
