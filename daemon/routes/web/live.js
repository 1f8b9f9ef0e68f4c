// The views that are never at rest: channels, prices, the comparison, the order book.

import {byId, make, mark, put, putChange, putDigits, rowHead, rows, view} from './dom.js';
import {best, books, channel, channels, exactly, now, prices, ranked} from './market.js';
import {select} from './chart.js';
import {age, grouped, inParts, isNumber, MOST_DECIMALS, spread, value} from './numbers.js';

const FLASH_MS = 450; // between two flashes of a row
const LEVELS = 10;

const still = matchMedia('(prefers-reduced-motion: reduce)');
const connected = () => document.body.dataset.link === 'open';
// What is wrong with a channel, in a word; '' while its data is fresh.
const trouble = (name) => (connected() ? channel(name).state.replace('live', '') : 'offline');
const listed = (...words) => words.filter(Boolean).join(', ');

const showChannels = rows(byId('channel-list'), (name) => {
  const [state, old, reason] = [make('span', 'state'), make('span', 'muted'), make('span', 'reason')];
  return {element: make('li', '', make('span', 'name', name), make('span', 'line', state, old), reason), state, old, reason};
});

view('live', () => {
  showChannels([...channels.keys()], (row, name) => {
    const {state, reason, retryAt, last, at} = channels.get(name);
    const shown = connected() ? state : 'unknown';
    const again = retryAt > now() ? `again in ${age(retryAt - now() + 999)}` : '';
    const why = connected() ? [reason, again].filter(Boolean).join('; ') : 'no connection to the daemon';
    put(row.state, shown);
    put(row.old, (last?.cached ? 'cached ' : '') + age(now() - at));
    put(row.reason, why);
    mark(row.element, 'data-state', shown);
    mark(row.element, 'title', why || (last?.cached ? 'the venue has nothing newer yet' : null));
  });
});

const showPrices = rows(byId('price-rows'), (key) => {
  const {instrument, exchange} = prices.get(key);
  const button = make('button', '', make('b', '', instrument), ' ', make('span', 'muted', exchange));
  button.onclick = () => select(instrument);
  const [wrong, move, digits] = [make('small', 'wrong'), make('span', 'move'), make('span')];
  const [last, change, old] = [make('td', 'price', move, digits), make('td'), make('td', 'muted age')];
  const spark = make('canvas', 'spark');
  spark.ariaHidden = 'true';
  const element = make('tr', '', rowHead(button, wrong), last, change, make('td', 'wide', spark), old);
  element.dataset.key = spark.dataset.key = key;
  return {element, button, wrong, move, digits, last, change, old, flashed: 0, flash: null};
});

view('live', () => {
  const at = performance.now();
  showPrices(ranked().map(({key}) => key), (row, key) => {
    const price = prices.get(key);
    const wrong = trouble(price.channel);
    putDigits(row.digits, price.digits);
    putChange(row.change, price.change);
    put(row.move, {up: '▲', down: '▼'}[price.move] ?? '');
    mark(row.last, 'data-move', price.move);
    put(row.wrong, wrong);
    put(row.old, age(now() - price.at));
    mark(row.element, 'data-old', wrong ? '' : null);
    mark(row.button, 'aria-pressed', String(price.instrument === byId('instrument').value));
    const flash = price.flash && at - row.flashed > FLASH_MS && !still.matches;
    if (flash || row.flash?.id !== price.move) row.flash?.cancel(); // never a colour against the arrow
    if (flash) {
      const backgroundColor = [`var(--${price.move}-wash)`, 'transparent'];
      row.flash = row.last.animate({backgroundColor}, {id: price.move, duration: 700, easing: 'ease-out'});
      row.flashed = at;
      price.flash = false;
    }
  });
});

// Rows of two numbers, under each whose it is, and how far they are apart.
const pairs = (id) => rows(byId(id), (instrument) => {
  const sides = [0, 1].map(() => ({digits: make('span'), of: make('span', 'muted of')}));
  const cells = sides.map(({digits, of}) => make('td', '', digits, of));
  const apart = make('td');
  return {element: make('tr', '', rowHead(instrument), ...cells, apart), sides, apart};
});
const fillPair = (row, pair) => {
  row.sides.forEach(({digits, of}, side) => {
    const price = pair[side];
    putDigits(digits, price.digits);
    put(of, listed(price.exchange, trouble(price.channel), age(now() - price.at)));
  });
  put(row.apart, spread(...pair.map(({digits}) => digits)));
};
const [showCompared, showBest] = ['compare-rows', 'best-rows'].map(pairs);

view('live', () => {
  const venues = Map.groupBy(ranked(), ({instrument}) => instrument);
  const several = [...venues.keys()].filter((instrument) => venues.get(instrument).length > 1);
  showCompared(several, (row, instrument) => {
    const sorted = venues.get(instrument).sort((a, b) => a.value - b.value);
    fillPair(row, [sorted[0], sorted.at(-1)]);
  });
  showBest([...best.keys()], (row, instrument) => {
    const {text, ...told} = best.get(instrument);
    const quote = exactly(text);
    fillPair(row, ['bid', 'ask'].map((side) => ({...told, digits: quote[side], exchange: quote[`${side}_exchange`]})));
  });
});

const level = (...order) => () => {
  const cells = {price: make('td', 'price'), quantity: make('td')};
  return {element: make('tr', '', ...order.map((name) => cells[name])), ...cells};
};
const showSides = [rows(byId('bids'), level('quantity', 'price')), rows(byId('asks'), level('price', 'quantity'))];

view('live', () => {
  const book = books.get(byId('book-instrument').value);
  if (!book) return put(byId('book-spread'), 'No order book yet.');
  const sides = [book.bids, book.asks].map((side) => {
    let depth = 0;
    const levels = (Array.isArray(side) ? side : []).filter((level) => isNumber(level?.[0])).slice(0, LEVELS);
    return levels.map(([price, quantity]) => ({price, quantity, depth: (depth += value(quantity) || 0)}));
  });
  const deepest = Math.max(...sides.flat().map(({depth}) => depth)) || 1;
  sides.forEach((levels, side) => showSides[side]([...levels.keys()], (row, at) => {
    const {price, quantity, depth} = levels[at];
    putDigits(row.price, price);
    putDigits(row.quantity, quantity);
    const width = (depth / deepest).toFixed(3);
    if (row.width !== width) row.element.style.setProperty('--depth', (row.width = width));
  }));
  const [bid, ask] = sides.map(([best]) => best?.price);
  const decimals = [bid, ask].map((price) => inParts(price)[0].split('.')[1]?.length ?? 0);
  const apart = (ask - bid).toFixed(Math.min(Math.max(2, ...decimals), MOST_DECIMALS));
  const wrong = trouble(book.channel);
  put(byId('book-spread'), listed(isNumber(apart) && `Spread ${grouped(apart)}`, wrong, age(now() - book.at)));
  mark(byId('book'), 'data-old', wrong ? '' : null);
});
