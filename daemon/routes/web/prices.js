// The table of prices: what is searched for, the favourites first.

import {choose, instrument} from './choice.js';
import {byId, make, mark, put, putChange, putDigits, rowHead, rows} from './dom.js';
import {now, prices, ranked, trouble} from './market.js';
import {age} from './numbers.js';
import {touch, touchNow, view} from './paint.js';
import {store, stored} from './storage.js';
import {offline} from './link.js';

const FLASH_MS = 350;
const BETWEEN_MS = 450; // from one flash of a row to the next

const still = matchMedia('(prefers-reduced-motion: reduce)');
const favourites = new Set(stored('favourites', []));
const search = byId('search');
const only = byId('favourites-only');

search.value = stored('search', '');
only.checked = stored('favourites-only', false);
search.oninput = () => {
  store('search', search.value);
  touchNow('prices');
};
only.onchange = () => {
  store('favourites-only', only.checked);
  touchNow('prices');
};

function turn(key) {
  if (!favourites.delete(key)) favourites.add(key);
  store('favourites', [...favourites]);
  touchNow('prices');
}

// Each word that is typed has to be somewhere in it.
const isSought = (key) => search.value.toLowerCase().split(/\s+/).every((word) => key.toLowerCase().includes(word));

const show = rows(byId('price-rows'), (key) => {
  const row = prices.get(key);
  const star = make('button', 'star', '★');
  star.ariaLabel = `Favourite: ${row.instrument} at ${row.exchange}`;
  star.onclick = () => turn(key);
  const button = make('button', 'choose', make('b', '', row.instrument), ' ', make('span', 'muted', row.exchange));
  button.onclick = () => choose({instrument: row.instrument, venue: row.exchange});
  const [wrong, move, digits] = [make('small', 'wrong'), make('span', 'move'), make('span', 'digits')];
  const [last, change, old] = [make('td', 'price', move, digits), make('td'), make('td', 'muted age')];
  const spark = make('canvas', 'spark');
  spark.ariaHidden = 'true';
  const element = make('tr', '', rowHead(star, button, wrong), last, change, make('td', 'wide', spark), old);
  element.dataset.key = spark.dataset.key = key;
  return {element, star, button, wrong, move, digits, last, change, old, flashed: -Infinity};
});

view('prices', () => {
  const at = performance.now();
  const looked = instrument();
  const shown = ranked().filter(({key}) => isSought(key) && (favourites.has(key) || !only.checked));
  const inOrder = [...shown.filter(({key}) => favourites.has(key)), ...shown.filter(({key}) => !favourites.has(key))];
  let flashing = false;
  show(inOrder.map(({key}) => key), (row, key) => {
    const price = prices.get(key);
    const wrong = offline() || trouble(price.channel, price.instrument);
    putDigits(row.digits, price.digits, price.decimals);
    putChange(row.change, price.change);
    put(row.wrong, wrong);
    put(row.old, age(now() - price.at));
    if (price.flash && at - row.flashed > BETWEEN_MS) {
      row.flashed = at;
      price.flash = false;
      row.shownMove = price.move;
    }
    // The wash and the arrow are those of one move: a newer one waits for its turn.
    const lit = at - row.flashed < FLASH_MS && !still.matches;
    flashing ||= lit || price.flash;
    const move = lit ? row.shownMove : price.move;
    put(row.move, {up: '▲', down: '▼'}[move] ?? '');
    if (row.was !== `${move} ${lit}`) {
      row.was = `${move} ${lit}`;
      mark(row.last, 'data-move', move);
      mark(row.last, 'data-flash', lit ? move : null);
    }
    if (row.wrongWas !== wrong) mark(row.element, 'data-old', (row.wrongWas = wrong) ? '' : null);
    mark(row.button, 'aria-pressed', String(price.instrument === looked));
    mark(row.star, 'aria-pressed', String(favourites.has(key)));
  });
  const none = !prices.size ? 'No prices yet.' : inOrder.length ? '' : 'Nothing here is what you search for.';
  put(byId('prices-none'), none);
  if (flashing) touch('prices');
});
