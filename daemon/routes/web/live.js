/** The views that are never at rest: channels, prices, the comparison, the order book. */

import {age, byId, grouped, make, mark, put, putChange, putDigits, rows} from './dom.js';
import {books, channel, channels, now, prices, ranked} from './market.js';
import {bookInstrument, select, selected} from './chart.js';

const FLASH_MS = 450; // between two flashes of a row: a flicker says nothing
const LEVELS = 10;

const still = matchMedia('(prefers-reduced-motion: reduce)');
const connected = () => document.body.dataset.link === 'open';
/** What is wrong with a channel, in a word; '' while its data is fresh. */
const trouble = (name) => (connected() ? channel(name).state.replace('live', '') : 'offline');

const showChannels = rows(byId('channel-list'), (name) => {
  const label = make('span', 'name', name);
  const state = make('span', 'state');
  const old = make('span', 'num muted');
  const reason = make('span', 'reason');
  return {element: make('li', '', label, make('span', 'line', state, old), reason), state, old, reason};
});

export function renderChannels() {
  showChannels([...channels.keys()], (row, name) => {
    const {state, reason, retryAt, last, at} = channels.get(name);
    const shown = connected() ? state : 'unknown';
    const again = retryAt > now() ? `again in ${age(retryAt - now() + 999)}` : '';
    const why = connected() ? [reason, again].filter(Boolean).join('; ') : 'no connection to the daemon';
    put(row.state, shown);
    put(row.old, last ? `${last.cached ? 'cached ' : ''}${age(now() - at)}` : '–');
    put(row.reason, why);
    mark(row.element, 'data-state', shown);
    mark(row.element, 'title', why || (last?.cached ? 'the venue has nothing newer yet' : null));
  });
}

const showPrices = rows(byId('price-rows'), (key) => {
  const {instrument, exchange} = prices.get(key);
  const button = make('button', '', make('b', '', instrument), ' ', make('span', 'muted', exchange));
  button.onclick = () => select(instrument);
  const wrong = make('small', 'wrong');
  const head = make('th', '', button, wrong);
  head.scope = 'row';
  const digits = make('span', '');
  const move = make('span', 'move');
  const last = make('td', 'n num price', move, digits);
  const change = make('td', 'n num');
  const spark = make('canvas', 'spark');
  spark.dataset.key = key;
  spark.ariaHidden = 'true';
  const old = make('td', 'n num muted age');
  const element = make('tr', '', head, last, change, make('td', 'wide', spark), old);
  element.dataset.key = key;
  return {element, button, wrong, digits, move, last, change, old, flashed: 0};
});

export function renderPrices() {
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
    mark(row.button, 'aria-pressed', String(price.instrument === selected()));
    if (price.flash && at - row.flashed > FLASH_MS) {
      if (!still.matches) {
        const colour = getComputedStyle(row.last).getPropertyValue(`--${price.flash}-wash`);
        row.last.animate([{backgroundColor: colour}, {backgroundColor: 'transparent'}], {duration: 700, easing: 'ease-out'});
      }
      row.flashed = at;
      price.flash = '';
    }
  });
}

const showCompared = rows(byId('compare-rows'), (instrument) => {
  const head = make('th', '', instrument);
  head.scope = 'row';
  const side = () => ({digits: make('span', 'num'), of: make('span', 'muted of')});
  const [low, high] = [side(), side()];
  const spread = make('td', 'n num');
  const cells = [low, high].map(({digits, of}) => make('td', 'n', digits, of));
  return {element: make('tr', '', head, ...cells, spread), low, high, spread};
});

export function renderCompare() {
  const venues = new Map();
  for (const price of ranked()) venues.set(price.instrument, [...(venues.get(price.instrument) ?? []), price]);
  const several = [...venues.keys()].filter((instrument) => venues.get(instrument).length > 1);
  showCompared(several, (row, instrument) => {
    const sorted = venues.get(instrument).toSorted((a, b) => a.value - b.value);
    for (const [side, price] of [[row.low, sorted[0]], [row.high, sorted.at(-1)]]) {
      const wrong = trouble(price.channel);
      putDigits(side.digits, price.digits);
      put(side.of, `${price.exchange}, ${wrong ? `${wrong}, ` : ''}${age(now() - price.at)}`);
    }
    put(row.spread, `${((sorted.at(-1).value / sorted[0].value - 1) * 100).toFixed(3)}\u2009%`);
  });
}

const level = (priceFirst) => () => {
  const price = make('td', priceFirst ? 'num price' : 'n num price');
  const quantity = make('td', priceFirst ? 'n num' : 'num');
  const element = make('tr', '', ...(priceFirst ? [price, quantity] : [quantity, price]));
  return {element, price, quantity};
};
const showBids = rows(byId('bids'), level(false));
const showAsks = rows(byId('asks'), level(true));
const places = Array.from({length: LEVELS}, (_, at) => at);

export function renderBook() {
  const book = books.get(bookInstrument());
  if (!book) return put(byId('book-spread'), 'No order book yet.');
  const sides = [[showBids, book.bids], [showAsks, book.asks]].map(([show, levels]) => {
    let sum = 0;
    return {show, levels: levels.slice(0, LEVELS).map(([price, quantity]) => [price, quantity, (sum += Number(quantity))])};
  });
  const deepest = Math.max(...sides.map(({levels}) => levels.at(-1)?.[2] ?? 0)) || 1;
  for (const {show, levels} of sides) {
    show(places.slice(0, levels.length), (row, at) => {
      const [price, quantity, depth] = levels[at];
      putDigits(row.price, price);
      putDigits(row.quantity, quantity);
      const width = (depth / deepest).toFixed(3);
      if (row.width !== width) row.element.style.setProperty('--depth', (row.width = width));
    });
  }
  const [bid = '', ask = ''] = [book.bids[0]?.[0], book.asks[0]?.[0]];
  const decimals = bid.replace(/0+$/, '').split('.')[1]?.length ?? 0;
  const wrong = trouble(book.channel);
  const spread = bid && ask ? `Spread ${grouped((ask - bid).toFixed(Math.max(2, decimals)))}, ` : '';
  put(byId('book-spread'), `${spread}${wrong ? `${wrong}, ` : ''}${age(now() - book.at)}`);
  mark(byId('book'), 'data-old', wrong ? '' : null);
}
